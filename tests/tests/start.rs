//! The promise: whoever started PgBouncer starts this in its place, in the same way and under the same name.

use std::{fs, os::unix::fs::MetadataExt, process::Command, time::Duration};

use pgweir_tests::{
    Account, Ender, Endpoint, Program, RawClient, Running, Signal, Tenant, eventually, finish,
    free_port, self_signed_tls, send_signal, skip,
};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn it_answers_to_the_name_that_it_was_called_by() {
    let program = Program::named("pgbouncer");
    let name = program.binary.display().to_string();
    let run = program.run(&["-V"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], "PgBouncer 1.25.2");
    assert!(lines[2].starts_with("adns: "), "{lines:?}");
    assert!(lines[3].starts_with("tls: "), "{lines:?}");
    assert_eq!(lines.len(), 4);
    for (arguments, said) in [
        (&[][..], "no configuration file specified"),
        (&["a.ini", "b.ini"], "no configuration file specified"),
        (&["-x", "a.ini"], "invalid option -- 'x'"),
        (&["--nonsense", "a.ini"], "unrecognized option '--nonsense'"),
        (&["-u"], "option requires an argument -- 'u'"),
    ] {
        let run = program.run(arguments);
        assert_eq!(run.code, Some(1));
        let expected = format!("{name}: {said}\nTry \"{name} --help\" for more information.\n");
        assert_eq!((run.stderr, run.stdout), (expected, String::new()));
    }
}

/// A unit or an init script of a distribution: files in three places, a pid file, a Unix socket, the console for the
/// system user; reloaded by HUP, ended by INT.
#[test]
fn a_distributions_layout_works_in_the_foreground_and_in_the_background() {
    let Some(tenant) = Tenant::new() else { return };
    let program = Program::named("pgbouncer");
    let port = free_port();
    for (name, text) in [
        (
            "pgbouncer.ini",
            format!(
                ";;; a file as it is installed: nearly everything is a comment\n\
                 [databases]\n;* = host=testserver\nshop = host=127.0.0.1 port={0} dbname={1}\n\
                 [users]\n;user1 = pool_size=5\n[pgbouncer]\n\
                 logfile = {{dir}}/pgbouncer.log\npidfile = {{dir}}/pgbouncer.pid\n\
                 listen_addr = localhost\nlisten_port = {port}\nunix_socket_dir = {{dir}}\n\
                 auth_type = md5\nauth_file = {{dir}}/userlist.txt\n\
                 ;; IP addresses, domain names\n;dns_max_ttl = 15.0\n%include {{dir}}/more.ini\n",
                tenant.postgres.port(),
                tenant.name
            ),
        ),
        ("more.ini", ";nothing\n".to_owned()),
        ("userlist.txt", format!("\"{}\" \"secret\"\n", tenant.name)),
    ] {
        program.write(name, &text);
    }
    let ini = program.path("pgbouncer.ini").display().to_string();
    for arguments in [&["-d", &*ini][..], &[&*ini]] {
        let (mut foreground, mut background) = (None, None);
        if arguments.len() > 1 {
            let run = program.run(arguments);
            assert_eq!((run.code, run.all()), (Some(0), String::new()));
        } else {
            foreground = Some(program.spawn(arguments));
        }
        let pid = eventually(
            SOON,
            || read(&program, "pgbouncer.pid"),
            |pid| pid.ends_with('\n'),
        );
        if foreground.is_none() {
            background = Some(Ender(pid.trim().to_owned()));
            // A second one says in the foreground why it does not start.
            let run = program.run(arguments);
            assert_eq!(run.code, Some(1));
            let said = "unix socket is in use, cannot continue";
            assert!(run.stderr.contains(said), "{}", run.stderr);
        }
        eventually(
            SOON,
            || console(&tenant, &program, port, "show version"),
            |said| said == "PgBouncer 1.25.2",
        );
        assert!(asks_for_password(port, &tenant.name));
        let mode = fs::metadata(program.path("pgbouncer.pid"))
            .expect("written")
            .mode();
        assert_eq!(mode & 0o022, 0, "nobody else may write it: {mode:o}");

        assert!(send_signal(&pid, Signal::HUP));
        eventually(
            SOON,
            || read(&program, "pgbouncer.log"),
            |log| log.contains("got SIGHUP, re-reading config"),
        );
        assert!(send_signal(&pid, Signal::INT));
        eventually(
            SOON,
            || program.path("pgbouncer.pid").exists(),
            |there| !there,
        );
        let socket = program.path(&format!(".s.PGSQL.{port}"));
        eventually(SOON, || socket.exists(), |there| !there);
        if let Some(mut running) = foreground {
            let status = running.0.wait().expect("a child of ours");
            assert_eq!(status.code(), Some(0));
        }
        fs::remove_file(program.path("pgbouncer.log")).expect("written");
        drop(background);
    }
}

/// An operator of a cluster: it writes the files, starts the program by its path, reads its standard error line by line,
/// and speaks to the console as `pgbouncer` over the Unix socket, whatever the HBA file says.
#[test]
fn an_operators_files_work() {
    let Some(tenant) = Tenant::new() else { return };
    tenant.postgres.psql(
        "postgres",
        "create function user_search(uname text) returns table (usename name, passwd text) \
         language sql security definer as \
         'select usename, passwd from pg_shadow where usename = $1'",
    );
    tenant.postgres.psql(
        "postgres",
        &format!("alter role {} password 'secret'", tenant.name),
    );
    let program = Program::named("pgbouncer");
    let port = free_port();
    let tls = self_signed_tls();
    program.write("tls.crt", &tls.cert);
    program.write("tls.key", &tls.key);
    program.write("userlist.txt", "\n\"postgres\" \"\"\n");
    program.write(
        "pg_hba.conf",
        "\nlocal pgbouncer pgbouncer peer\n\nhost all all 0.0.0.0/0 md5\nhost all all ::/0 md5\n",
    );
    program.write(
        "pgbouncer.ini",
        &format!(
            "\n[databases]\n* = host=127.0.0.1 port={}\n\n[pgbouncer]\npool_mode = session\n\
             auth_user = postgres\nauth_query = SELECT usename, passwd FROM public.user_search($1)\n\
             auth_dbname = postgres\n\nadmin_users = pgbouncer\nauth_file = {{dir}}/userlist.txt\n\
             auth_hba_file = {{dir}}/pg_hba.conf\nauth_type = hba\n\
             client_tls_ca_file = {{dir}}/tls.crt\nclient_tls_cert_file = {{dir}}/tls.crt\n\
             client_tls_key_file = {{dir}}/tls.key\nclient_tls_sslmode = prefer\n\
             ignore_startup_parameters = extra_float_digits,options\n\
             listen_addr = *\nlisten_port = {port}\nlog_stats = 0\nmax_client_conn = 100\n\
             server_tls_ca_file = {{dir}}/tls.crt\nserver_tls_sslmode = prefer\n\
             unix_socket_dir = {{dir}}\n",
            tenant.postgres.port()
        ),
    );
    let log = fs::File::create(program.path("stderr")).expect("a directory of ours");
    let mut command = program.command();
    command.arg(program.path("pgbouncer.ini")).stderr(log);
    let mut running = Running(command.spawn().expect("an executable"));
    eventually(
        SOON,
        || console(&tenant, &program, port, "show version"),
        |said| said == "PgBouncer 1.25.2",
    );
    for (command, state) in [
        ("reload", "active|yes\npaused|no\nsuspended|no"),
        ("pause", "active|no\npaused|yes\nsuspended|no"),
        ("resume", "active|yes\npaused|no\nsuspended|no"),
    ] {
        console(&tenant, &program, port, command);
        assert_eq!(console(&tenant, &program, port, "show state"), state);
    }
    assert!(asks_for_password(port, &tenant.name));
    assert!(send_signal(&running.0.id().to_string(), Signal::INT));
    assert_eq!(running.0.wait().expect("a child of ours").code(), Some(0));
    for line in read(&program, "stderr").lines() {
        // `TIME [PID] LEVEL TEXT`
        let (time, rest) = line.split_once(" [").expect(line);
        let (pid, rest) = rest.split_once("] ").expect(line);
        let (level, text) = rest.split_once(' ').expect(line);
        assert_eq!(time.split(' ').count(), 3, "{line}");
        assert_eq!(pid.parse(), Ok(running.0.id()), "{line}");
        assert!(
            level.bytes().all(|b| b.is_ascii_uppercase()) && !text.is_empty(),
            "{line}"
        );
    }
}

#[test]
fn root_gives_its_rights_up_for_those_of_the_configured_user() {
    let program = Program::named("pgbouncer");
    let Account::Unprivileged { uid, gid } = program.account else {
        return skip("only root can become somebody else");
    };
    let user = Command::new("id")
        .args(["-nu", &uid.to_string()])
        .output()
        .expect("id");
    let user = String::from_utf8(user.stdout).expect("a name");
    let user = user.trim();
    let base = format!(
        "[databases]\n* = host=127.0.0.1\n[pgbouncer]\nunix_socket_dir = {{dir}}\nlisten_port = {}\n",
        free_port()
    );
    program.write("plain.ini", &base);
    program.write("user.ini", &format!("{base}user = {user}\n"));
    program.write("nobody.ini", &format!("{base}user = no_such_user\n"));
    for arguments in [
        &["user.ini"][..],
        &["-u", user, "plain.ini"],
        &[&format!("--user={user}"), "nobody.ini"],
    ] {
        let running = Running::start(program.own_command().args(arguments));
        let status = format!("/proc/{}/status", running.0.id());
        let ids = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| line.starts_with(['U', 'G']));
            lines.map(|line| line.replace('\t', " ")).collect()
        };
        eventually(
            SOON,
            || ids(&fs::read_to_string(&status).unwrap_or_default()),
            |ids| {
                ids.contains(&format!("Uid: {uid} {uid} {uid} {uid}"))
                    && ids.contains(&format!("Gid: {gid} {gid} {gid} {gid}"))
            },
        );
    }
    let run = finish(program.own_command().arg("nobody.ini"));
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr
            .contains("FATAL could not find user 'no_such_user' to switch to"),
        "{}",
        run.stderr
    );
}

#[cfg(target_os = "linux")]
#[test]
fn its_unix_socket_may_have_no_file() {
    let Some(tenant) = Tenant::new() else { return };
    let program = Program::new();
    let port = free_port();
    let directory = format!("@pgweir-test-{}", std::process::id());
    program.write(
        "abstract.ini",
        &format!(
            "[databases]\n* = host=127.0.0.1\n[pgbouncer]\nunix_socket_dir = {directory}\n\
             listen_port = {port}\nlogfile = {{dir}}/the.log\n"
        ),
    );
    let _running = program.spawn(&["abstract.ini"]);
    eventually(
        SOON,
        || console_at(&tenant, &program, directory.clone(), port, "show version"),
        |said| said == "PgBouncer 1.25.2",
    );
    let log = read(&program, "the.log");
    let listening = format!("listening on unix:{directory}/.s.PGSQL.{port}");
    assert!(log.contains(&listening), "{log}");
}

/// What the console answers to the program's own system user over the Unix socket; empty while nobody listens.
fn console(tenant: &Tenant, program: &Program, port: u16, sql: &str) -> String {
    let host = program.dir.path().display().to_string();
    console_at(tenant, program, host, port, sql)
}

fn console_at(tenant: &Tenant, program: &Program, host: String, port: u16, sql: &str) -> String {
    let endpoint = Endpoint {
        account: program.account,
        dir: program.dir.path().to_owned(),
        host,
        port,
        ..tenant.postgres.endpoint().clone()
    };
    endpoint
        .psql("pgbouncer", "pgbouncer", sql)
        .unwrap_or_default()
}

fn asks_for_password(port: u16, user: &str) -> bool {
    let mut client = RawClient::connect(port);
    client.start_login(&[("user", user), ("database", user)]);
    let said = client.finish_login().expect_err("a password is needed");
    said.starts_with("asked for ")
}

fn read(program: &Program, name: &str) -> String {
    fs::read_to_string(program.path(name)).unwrap_or_default()
}
