//! The promise: what is wrong with a configuration is said before it does harm, with file, line and a way out; and the
//! program refuses to start where it could not serve.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use pgweir_tests::{
    Account, Batch, Ender, Ini, Pooler, Program, RawClient, Tenant, eventually, finish, free_port,
    start,
};

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

#[test]
fn a_broken_file_keeps_the_program_from_starting_in_pgbouncers_words() {
    let program = Program::new();
    for (text, said) in [
        (
            "[pgbouncer]\nnonsense = 1\n",
            "ERROR unknown parameter: pgbouncer/nonsense",
        ),
        (
            "[pgbouncer]\npool_mode = often\n",
            "ERROR invalid value \"often\" for parameter pool_mode in configuration (bad.ini:2)",
        ),
        (
            "[databases]\napp = hots=x\n[pgbouncer]\n",
            "ERROR unrecognized connection parameter: hots",
        ),
        (
            "[pgbouncer]\nnot a setting\n",
            "ERROR syntax error in configuration (bad.ini:2)",
        ),
    ] {
        program.write("bad.ini", text);
        let run = program.run(&["bad.ini"]);
        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stderr.contains(said), "{said}: {}", run.stderr);
        assert!(
            run.stderr.contains("FATAL cannot load config file"),
            "{}",
            run.stderr
        );
    }
}

#[test]
fn it_does_not_run_as_root() {
    let program = Program::new();
    if program.account == Account::Own {
        pgweir_tests::skip("only root can try to run it as root");
        return;
    }
    program.write("good.ini", "[databases]\n* = host=127.0.0.1\n[pgbouncer]\n");
    let mut command = Command::new(&program.binary);
    let run = finish(command.arg("good.ini").current_dir(program.dir.path()));
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr
            .contains("FATAL PgBouncer should not run as root"),
        "{}",
        run.stderr
    );
}

#[test]
fn it_does_not_start_where_another_one_runs() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("pidfile", "{dir}/the.pid"));
    let pidfile = pooler.socket_dir.join("the.pid");
    let pid = fs::read_to_string(&pidfile).expect("written at start");
    assert_eq!(pid.trim(), pooler.pid.to_string());

    let program = Program::new();
    let dir = pooler.socket_dir.display();
    let port = pooler.port;
    for (settings, said) in [
        (
            format!("listen_port = 1\npidfile = {}\n", pidfile.display()),
            "exists, another instance running?".to_owned(),
        ),
        (
            format!("listen_port = {port}\nunix_socket_dir = {dir}\n"),
            "unix socket is in use, cannot continue".to_owned(),
        ),
        (
            format!("listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"),
            "failed to listen on any address in listen_addr list: 127.0.0.1".to_owned(),
        ),
    ] {
        program.write(
            "second.ini",
            &format!("[databases]\n* = host=127.0.0.1\n[pgbouncer]\n{settings}"),
        );
        // The directory of the first one is open to its own user only, who is ours too.
        let run = program.run(&["second.ini"]);
        assert_eq!(run.code, Some(1), "{run:?}");
        let fatal = run.stderr.lines().find(|line| line.contains(" FATAL "));
        assert!(
            fatal.is_some_and(|line| line.contains(&said)),
            "{}",
            run.stderr
        );
    }
    assert_eq!(
        tenant.client(&pooler).value("select 1"),
        "1",
        "the first one is not disturbed"
    );
}

#[test]
fn the_unix_socket_has_the_mode_and_group_that_are_set() {
    use std::os::unix::fs::MetadataExt;
    let Some(tenant) = Tenant::new() else { return };
    let account = fs::metadata(start(tenant.ini()).ini_path()).map(|file| file.gid());
    let group = account.expect("a file of the pooler's");
    let ini = tenant
        .ini()
        .set("unix_socket_mode", "0740")
        .set("unix_socket_group", group);
    let pooler = start(ini);
    let socket = pooler.socket_dir.join(format!(".s.PGSQL.{}", pooler.port));
    let file = fs::metadata(socket).expect("the socket");
    assert_eq!((file.mode() & 0o7777, file.gid()), (0o740, group));

    let unknown = tenant.ini().set("unix_socket_group", "no_such_group");
    let said = Pooler::start(unknown)
        .expect_err("no such group")
        .to_string();
    assert!(
        said.contains("could not find group 'no_such_group'"),
        "{said}"
    );
}

#[test]
#[cfg(target_os = "linux")]
fn sockets_can_be_abstract_on_both_sides() {
    let Some(tenant) = Tenant::new() else { return };
    let dir = format!("@pgweir-test-{}-{}", std::process::id(), tenant.name);
    let hidden = start(tenant.ini().set("unix_socket_dir", &dir));
    let entry = format!("host={dir} port={} dbname={}", hidden.port, tenant.name);
    let front = start(tenant.ini().database("through", &entry));
    let mut client = RawClient::login(front.port, "through", &tenant.name);
    assert_eq!(client.value("select 1"), "1");
    let servers = front.console("show servers");
    let at: Vec<_> = servers.iter().filter_map(|row| row.get("addr")).collect();
    assert_eq!(at, ["unix"]);
    assert!(
        hidden
            .log()
            .contains(&format!("listening on unix:{dir}/.s.PGSQL.{}", hidden.port))
    );
}

#[test]
fn what_a_dead_one_left_behind_does_not_matter() {
    let Some(tenant) = Tenant::new() else { return };
    let mut first = start(tenant.ini().set("pidfile", "{dir}/the.pid"));
    let (dir, port) = (first.socket_dir.clone(), first.port);
    first.signal(pgweir_tests::Signal::KILL);
    first.wait_for_exit(Duration::from_secs(5));
    assert!(dir.join("the.pid").exists());
    assert!(dir.join(format!(".s.PGSQL.{port}")).exists());

    let ini = tenant
        .ini()
        .set("pidfile", dir.join("the.pid").display())
        .set("unix_socket_dir", dir.display())
        .set("listen_port", port);
    let second = start(ini);
    assert_eq!(tenant.client(&second).value("select 1"), "1");
}

#[test]
fn it_does_not_start_without_a_place_to_listen() {
    let program = Program::new();
    program.write(
        "nowhere.ini",
        "[databases]\n* = host=127.0.0.1\n[pgbouncer]\nunix_socket_dir =\n",
    );
    let run = program.run(&["nowhere.ini"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("FATAL nowhere to listen on"),
        "{}",
        run.stderr
    );
}

#[test]
fn it_does_not_start_with_tls_that_cannot_work() {
    let program = Program::new();
    program.write(
        "tls.ini",
        "[databases]\n* = host=127.0.0.1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 1\n\
         client_tls_sslmode = require\nclient_tls_cert_file = nowhere.crt\n\
         client_tls_key_file = nowhere.key\n",
    );
    let run = program.run(&["tls.ini"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("ERROR TLS setup failed:"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("No such file or directory"));
    assert!(run.stderr.contains("FATAL TLS setup failed"));

    program.write(
        "cert.ini",
        "[databases]\n* = host=127.0.0.1\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = 1\n\
         auth_type = cert\n",
    );
    let run = program.run(&["cert.ini"]);
    assert_eq!(run.code, Some(1));
    let reason = "auth_type=cert requires client_tls_sslmode=SSLMODE_VERIFY_FULL";
    assert!(run.stderr.contains(reason), "{}", run.stderr);
}

#[test]
fn the_command_line_is_pgbouncers() {
    let program = Program::new();
    for flag in ["--version", "-V"] {
        let run = program.run(&[flag]);
        assert_eq!(run.code, Some(0));
        assert_eq!(run.stdout.lines().next(), Some("PgBouncer 1.25.2"));
    }
    for flag in ["--help", "-h"] {
        let run = program.run(&[flag]);
        assert_eq!(run.code, Some(0));
        for option in [
            "--daemon",
            "--quiet",
            "--reboot",
            "--user",
            "--verbose",
            "--version",
        ] {
            assert!(run.stdout.contains(option), "{option}: {}", run.stdout);
        }
    }
    for arguments in [&[][..], &["one.ini", "two.ini"], &["-q"]] {
        let run = program.run(arguments);
        assert_eq!(run.code, Some(1));
        assert!(
            run.stderr.contains("no configuration file specified"),
            "{}",
            run.stderr
        );
    }
    let run = program.run(&["--nonsense"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("--help\" for more information."),
        "{}",
        run.stderr
    );
}

#[test]
fn quiet_says_nothing_on_standard_error_but_logs() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("logfile", "{dir}/the.log");
    let pooler = Pooler::start_with_args(&["-q"], ini).expect("it starts");
    assert_eq!(pooler.log(), "");
    let log = fs::read_to_string(pooler.socket_dir.join("the.log")).expect("a log");
    assert!(log.contains("process up"), "{log}");
}

#[test]
fn verbose_says_more() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = Pooler::start_with_args(&["-v", "-v"], tenant.ini()).expect("it starts");
    let mut client = tenant.client(&pooler);
    client.rows("set datestyle = 'German, DMY'");
    assert_eq!(tenant.client(&pooler).value("select 1"), "1");
    assert!(pooler.log().contains(" DEBUG "), "{}", pooler.log());
}

#[test]
fn a_toml_file_starts_it_with_native_defaults() {
    let Some(tenant) = Tenant::new() else { return };
    let program = Program::new();
    let port = free_port();
    let name = &tenant.name;
    program.write("users.txt", &format!("\"{name}\" \"\"\n"));
    program.write(
        "pgweir.toml",
        &format!(
            "[pgweir]\nlisten_addr = [\"127.0.0.1\"]\nlisten_port = {port}\n\
             unix_socket_dir = \"\"\nauth_type = \"trust\"\nauth_file = \"users.txt\"\n\
             pool_mode = \"transaction\"\ndefault_pool_size = 1\nquery_wait_timeout = \"1s\"\n\
             [databases.{name}]\nhost = \"127.0.0.1\"\nport = {}\n",
            tenant.postgres.port()
        ),
    );
    let _running = program.spawn(&["pgweir.toml"]);
    eventually(
        Duration::from_secs(10),
        || RawClient::try_connect(port).is_ok(),
        |up| *up,
    );
    let mut holder = RawClient::login(port, name, name);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = RawClient::login(port, name, name);
    assert_eq!(
        waiter.query("select 1"),
        "E(53300 query_wait_timeout) Z(I)",
        "the native dialect keeps the connection"
    );
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(waiter.value("select 1"), "1");

    let parameters = [("user", "stranger"), ("database", &**name)];
    assert_eq!(
        RawClient::try_login(port, &parameters).map(|_| ()),
        Err("E(FATAL 28P01 \"trust\" authentication failed)".to_owned())
    );
}

#[test]
fn odd_but_legal_ini_files_are_read_as_pgbouncer_reads_them() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let text = format!(
        "; a comment\n\
         \t[databases]\n\
         \x20 shop = host = 127.0.0.1 port={0} dbname='{name}' user={name}\n\
         # another\n\
         [pgbouncer]\n\
         auth_type=trust\n\
         auth_file = {{dir}}/userlist.txt\n\
         pool_mode   =   transaction\n\
         %include {{dir}}/more.ini\n\
         [databases]\n\
         second = host=127.0.0.1 port={0} dbname={name} connect_query='select ''quoted'''\n\
         [users]\n\
         {name} = pool_mode = session\n",
        tenant.postgres.port()
    );
    let ini = Ini::from(&*text)
        .file(
            "userlist.txt",
            &format!("\"{name}\" \"\"\n\"postgres\" \"\"\n"),
        )
        .file(
            "more.ini",
            "default_pool_size = 3\nadmin_users = postgres\n",
        );
    let pooler = start(ini);
    for database in ["shop", "second"] {
        let mut client = RawClient::login(pooler.port, database, name);
        assert_eq!(client.value("select current_database()"), *name);
        client.send(&Batch::new().terminate());
    }
    let config = pgweir_tests::console(&pooler).table("show config");
    let size = config.find("key", "default_pool_size").expect("a row");
    assert_eq!(size.get("value"), Some("3"));
}

#[test]
fn in_the_background_it_leaves_its_number_behind() {
    let Some(tenant) = Tenant::new() else { return };
    let program = Program::new();
    let port = free_port();
    let dir = program.dir.path().display().to_string();
    let text = |more: &str| {
        format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir = {dir}\nauth_type = trust\n\
             auth_file = {dir}/users.txt\n{more}",
            tenant.postgres.port()
        )
    };
    program.write("users.txt", &format!("\"{}\" \"\"\n", tenant.name));
    program.write("daemon.ini", &text(""));
    let run = program.run(&["-d", "daemon.ini"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(
        run.stderr.contains("daemon needs pidfile configured"),
        "{}",
        run.stderr
    );

    program.write(
        "daemon.ini",
        &text(&format!(
            "pidfile = {dir}/the.pid\nlogfile = {dir}/the.log\n"
        )),
    );
    let run = program.run(&["-d", "-q", "daemon.ini"]);
    assert_eq!(run.code, Some(0), "{run:?}");
    let pid = fs::read_to_string(program.path("the.pid")).expect("written");
    let end = Ender(pid.trim().to_owned());
    assert_eq!(
        RawClient::login(port, &tenant.name, &tenant.name).value("select 1"),
        "1"
    );
    drop(end);
    eventually(
        Duration::from_secs(5),
        || program.path("the.pid").exists(),
        |there| !there,
    );
}
