//! What it starts with, and what not.

use std::{fs, process::Command, time::Duration};

use pgweir_tests::{
    Account, Batch, Ender, Ini, Pooler, Program, RawClient, Tenant, eventually, finish, free_port,
    start,
};

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
