//! The promise: what is wrong with a configuration is said before it does harm, with file, line and a way out; and the
//! program refuses to start where it could not serve.

mod starting;

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use pgweir_tests::{Program, RawClient, Tenant, eventually, free_port};

#[test]
fn a_good_file_is_said_to_be_good() {
    let program = Program::new();
    program.write("users.txt", "\"app\" \"secret\"\n");
    program.write(
        "good.ini",
        "[databases]\napp = host=127.0.0.1\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nauth_file = users.txt\n",
    );
    program.write(
        "good.toml",
        "[pgweir]\nlisten_addr = [\"127.0.0.1\"]\nauth_file = \"users.txt\"\n\
         [databases.app]\nhost = \"127.0.0.1\"\n",
    );
    let same = "good.ini: the same as in PgBouncer: databases.app.host, listen_addr, auth_file\n";
    for (file, same) in [("good.ini", same), ("good.toml", "")] {
        let run = program.run(&["check", file]);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert_eq!(run.stdout, format!("{same}{file}: no errors\n"));
        assert_eq!(run.stderr, "");
    }
}

#[test]
fn keys_that_do_not_just_mean_the_same_are_told_with_the_reason() {
    let program = Program::new();
    program.write("users.txt", "\"app\" \"secret\"\n");
    program.write(
        "old.ini",
        "[databases]\napp = host=127.0.0.1 pool_size=3\n[pgbouncer]\n%include more.ini\n\
         auth_file = users.txt\nclient_tls_protocols = all\n",
    );
    program.write("more.ini", "pkt_buf = 8192\n");
    let run = program.run(&["check", "old.ini"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for line in [
        "more.ini:1: pkt_buf: ignored: all connections of a thread share one large buffer",
        "old.ini:2: databases.app.pool_size: the same, and more: a server counts until PostgreSQL has \
         closed its connection",
        "old.ini:6: client_tls_protocols: differs: TLS 1.0 and 1.1 cannot be had",
        "old.ini: the same as in PgBouncer: databases.app.host, auth_file",
    ] {
        assert!(
            run.stdout.lines().any(|said| said == line),
            "{line}\n{}",
            run.stdout
        );
    }
}

#[test]
fn an_ini_is_converted_to_a_file_that_means_the_same() {
    let Some(tenant) = Tenant::new() else { return };
    let program = Program::new();
    program.write("users.txt", &format!("\"{}\" \"\"\n", tenant.name));
    let port = free_port();
    let ini = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nauth_type = trust\nauth_file = users.txt\nunix_socket_dir =\n\
         pool_mode = transaction\npkt_buf = 8192\n",
        tenant.postgres.port()
    );
    program.write("old.ini", &ini);
    let run = program.run(&["convert", "old.ini"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    program.write("new.toml", &run.stdout);
    assert_eq!(program.run(&["check", "new.toml"]).code, Some(0));

    let _running = program.spawn(&["new.toml"]);
    let mut client = eventually(
        Duration::from_secs(5),
        || {
            RawClient::try_login(
                port,
                &[("user", &*tenant.name), ("database", &*tenant.name)],
            )
        },
        Result::is_ok,
    )
    .expect("just looked");
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    let refused = [
        ("user", &*tenant.name),
        ("database", &*tenant.name),
        ("work_mem", "1MB"),
    ];
    assert_eq!(
        RawClient::try_login(port, &refused).map(|_| ()),
        Err("E(FATAL 08P01 unsupported startup parameter: work_mem)".to_owned()),
        "PgBouncer's way is written out"
    );

    let run = program.run(&["convert", "new.toml"]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert_eq!(run.stderr, "new.toml: error: it is a TOML file already\n");
}

#[test]
fn every_problem_is_told_at_once_with_its_line_and_a_way_out() {
    let program = Program::new();
    program.write(
        "bad.ini",
        "[databases]\n\
         app = host=127.0.0.1 pool_szie=3\n\
         other = host=127.0.0.1 default_pool_size=4\n\
         [users]\n\
         joe = pool_mode=sesion\n\
         [pgbouncer]\n\
         pol_mode = session\n\
         pool_size = 5\n\
         query_timeout = soon\n\
         listen_port = 99999\n",
    );
    let run = program.run(&["check", "bad.ini"]);
    assert_eq!(run.code, Some(1));
    for line in [
        "bad.ini:2: error: unrecognized connection parameter: pool_szie (did you mean \"pool_size\"?)",
        "bad.ini:3: error: unrecognized connection parameter: default_pool_size \
         (in [databases] this key is called \"pool_size\")",
        "bad.ini:5: error: invalid pool mode: sesion (expected one of session, transaction, statement)",
        "bad.ini:7: error: unknown parameter: pgbouncer/pol_mode (did you mean \"pool_mode\"?)",
        "bad.ini:8: error: unknown parameter: pgbouncer/pool_size \
         (in [pgbouncer] this key is called \"default_pool_size\")",
        "bad.ini:9: error: invalid value \"soon\" for parameter query_timeout in configuration \
         (bad.ini:9) (expected a number of seconds)",
        "bad.ini:10: error: invalid value \"99999\" for parameter listen_port in configuration \
         (bad.ini:10) (expected a whole number from 0 to 65535)",
    ] {
        assert!(
            run.stdout.lines().any(|said| said == line),
            "{line}\n{}",
            run.stdout
        );
    }

    program.write(
        "bad.toml",
        "[pgweir]\npol_mode = \"session\"\ndefault_pool_size = \"many\"\n\
         [databases.app]\nhost = \"127.0.0.1\"\npool_szie = 3\n",
    );
    let run = program.run(&["check", "bad.toml"]);
    assert_eq!(run.code, Some(1));
    for line in [
        "bad.toml:2: error: unknown parameter: pgweir/pol_mode (did you mean \"pool_mode\"?)",
        "bad.toml:3: error: invalid value \"many\" for parameter default_pool_size in configuration \
         (bad.toml:3) (expected a whole number)",
        "bad.toml:6: error: unrecognized connection parameter: pool_szie (did you mean \"pool_size\"?)",
    ] {
        assert!(
            run.stdout.lines().any(|said| said == line),
            "{line}\n{}",
            run.stdout
        );
    }
}

#[test]
fn passwords_are_never_repeated_in_a_complaint() {
    let program = Program::new();
    program.write(
        "secret.ini",
        "[databases]\napp = host=127.0.0.1 password=topsecret nonsense=1\n[pgbouncer]\n",
    );
    for arguments in [&["check", "secret.ini"][..], &["secret.ini"]] {
        let run = program.run(arguments);
        assert_eq!(run.code, Some(1));
        assert!(!run.all().contains("topsecret"), "{}", run.all());
        assert!(run.all().contains("nonsense"), "{}", run.all());
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let program = Program::new();
    let run = program.run(&["check", "missing.ini"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(
        run.stdout,
        "missing.ini: error: could not load file \"missing.ini\": No such file or directory\n"
    );

    program.write("include.ini", "[pgbouncer]\n%include nowhere.ini\n");
    let run = program.run(&["check", "include.ini"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stdout.contains(
            "include.ini:2: error: could not load file \"nowhere.ini\": No such file or directory"
        ),
        "{}",
        run.stdout
    );

    program.write("loop.ini", "[pgbouncer]\n%include loop.ini\n");
    let run = program.run(&["check", "loop.ini"]);
    assert_eq!(run.code, Some(1));
    assert!(run.stdout.contains("include nesting level too deep"));
}

#[test]
fn certificates_and_keys_that_cannot_be_used_are_named() {
    let program = Program::new();
    let tls = pgweir_tests::self_signed_tls();
    let other = pgweir_tests::self_signed_tls();
    program.write("server.crt", &tls.cert);
    program.write("server.key", &tls.key);
    program.write("other.key", &other.key);
    program.write("broken.key", "no key at all\n");
    program.write("closed.key", &tls.key);
    fs::set_permissions(
        program.path("closed.key"),
        fs::Permissions::from_mode(0o000),
    )
    .expect("a file of ours");
    for (key, text) in [
        ("server.key", "no errors"),
        ("nowhere.key", "nowhere.key"),
        ("closed.key", "closed.key"),
        ("broken.key", "broken.key"),
        ("other.key", "other.key"),
    ] {
        program.write(
            "tls.ini",
            &format!(
                "[databases]\n* = host=127.0.0.1\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 client_tls_sslmode = require\nclient_tls_cert_file = server.crt\n\
                 client_tls_key_file = {key}\n"
            ),
        );
        let run = program.run(&["check", "tls.ini"]);
        let good = key == "server.key";
        assert_eq!(run.code, Some(if good { 0 } else { 1 }), "{key}: {run:?}");
        assert!(run.stdout.contains(text), "{key}: {}", run.stdout);
        assert_eq!(run.stdout.contains("error: TLS setup failed"), !good);
    }
}

#[test]
fn certificates_towards_servers_that_are_not_used_may_be_anything() {
    let program = Program::new();
    program.write("broken.crt", "no certificate at all\n");
    for (mode, key, good) in [
        ("disable", "server_tls_ca_file = nowhere.crt", true),
        ("disable", "server_tls_cert_file = broken.crt", true),
        ("disable", "server_tls_ciphers = nonsense", true),
        ("prefer", "server_tls_ca_file = broken.crt", true),
        ("require", "server_tls_ca_file = nowhere.crt", true),
        ("require", "server_tls_cert_file = broken.crt", false),
        ("verify-ca", "server_tls_ca_file = nowhere.crt", false),
    ] {
        program.write(
            "tls.ini",
            &format!(
                "[databases]\n* = host=127.0.0.1\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 server_tls_sslmode = {mode}\n{key}\n"
            ),
        );
        let run = program.run(&["check", "tls.ini"]);
        assert_eq!(
            run.code,
            Some(if good { 0 } else { 1 }),
            "{mode} {key}: {run:?}"
        );
    }
}

#[test]
fn files_with_users_and_rules_are_checked_too() {
    let program = Program::new();
    program.write("users.txt", "\"app\" \"secret\"\n\"broken\" no-quotes\n");
    program.write(
        "hba.conf",
        "host all all 127.0.0.1/32 trust\nhost nonsense\n",
    );
    program.write(
        "auth.ini",
        "[databases]\n* = host=127.0.0.1\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         auth_type = hba\nauth_file = users.txt\nauth_hba_file = hba.conf\n\
         auth_ident_file = nowhere.conf\n",
    );
    let run = program.run(&["check", "auth.ini"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    for file in ["users.txt", "hba.conf", "nowhere.conf"] {
        assert!(
            run.stdout
                .lines()
                .any(|line| line.starts_with("auth.ini: warning: ") && line.contains(file)),
            "{file}: {}",
            run.stdout
        );
    }
}

#[test]
fn bytes_that_are_no_utf8_stop_nothing() {
    let program = Program::new();
    let write = |name: &str, text: &[u8]| {
        program.write(name, "");
        fs::write(program.path(name), text).expect("a file of ours");
    };
    write(
        "hba.conf",
        b"# f\xfcr alle\nhost all @names 127.0.0.1/32 trust\n",
    );
    write("names", b"# f\xfcr alle\napp\n");
    write("ident.conf", b"# f\xfcr alle\nm a b\n");
    write("users.txt", b"; f\xfcr alle\n\"app\" \"secret\"\n");
    write(
        "latin1.ini",
        b"; f\xfcr alle\n[databases]\na = host=127.0.0.1 user=u password=gr\xfcn\n[pgbouncer]\n\
          listen_addr = 127.0.0.1\nauth_type = hba\nauth_file = users.txt\n\
          auth_hba_file = hba.conf\nauth_ident_file = ident.conf\n",
    );
    let run = program.run(&["check", "latin1.ini"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let warnings = run.stdout.lines().filter(|line| line.contains("warning"));
    assert_eq!(
        warnings.collect::<Vec<_>>(),
        ["latin1.ini:3: warning: a byte that is not UTF-8 is read as another character"]
    );

    write("latin1.toml", b"[pgweir]\n# f\xfcr alle\n");
    let run = program.run(&["check", "latin1.toml"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(run.stdout, "latin1.toml:2: error: TOML has to be UTF-8\n");
}
