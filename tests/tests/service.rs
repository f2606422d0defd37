//! The promise: pgweir is a good service: systemd is told how it is doing and may open its sockets, its files say who
//! it is, and it starts only where it should.

use std::{fs, net::TcpListener, thread, time::Duration};

use pgweir_tests::{
    Batch, Ender, Error, Pooler, Program, RawClient, SELECT_1, Signal, Table, Tenant, console,
    eventually, start,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn systemd_is_told_of_start_reload_takeover_and_end() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = Pooler::start_notifying(tenant.ini()).expect("started");
    let next = |pooler: &Pooler| pooler.next_report(SOON).unwrap_or_default();
    assert_eq!(next(&pooler), "READY=1\nSTATUS=serving");

    pooler.signal(Signal::HUP);
    let reloading = next(&pooler);
    let us = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    assert!(
        us.is_some_and(|us| us.parse::<u64>().is_ok_and(|us| us > 0)),
        "{reloading}"
    );
    assert_eq!(next(&pooler), "READY=1\nSTATUS=serving");

    pooler.reboot().expect("taken over");
    assert_eq!(next(&pooler), format!("MAINPID={}", pooler.pid));
    assert_eq!(next(&pooler), "READY=1\nSTATUS=serving");

    let client = tenant.client(&pooler);
    pooler.signal(Signal::TERM);
    assert_eq!(
        next(&pooler),
        "STOPPING=1\nSTATUS=waiting for clients to leave"
    );
    drop(client);
    assert!(
        pooler
            .wait_for_exit(SOON)
            .is_some_and(|status| status.success())
    );
    assert_eq!(pooler.next_report(Duration::from_millis(50)), None);
}

#[test]
fn it_serves_on_sockets_that_systemd_has_opened() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = Pooler::start_activated(tenant.ini()).expect("started");
    let socket = pooler.socket_dir.join(format!(".s.PGSQL.{}", pooler.port));
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
    let over_unix = pooler.unix_endpoint();
    let answer = over_unix.psql(&tenant.name, &tenant.name, "select 1");
    assert_eq!(answer.ok().as_deref(), Some("1"));
    assert!(
        pooler
            .log()
            .contains("sockets passed from service manager, listen_addr ignored")
    );
    pooler.signal(Signal::INT);
    assert!(
        pooler
            .wait_for_exit(SOON)
            .is_some_and(|status| status.success())
    );
    assert!(socket.exists(), "whoever made it removes it");
}

#[test]
fn a_second_process_refuses_to_start() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("pidfile", "{dir}/pid");
    let pooler = start(ini);
    let again = tenant
        .ini()
        .set("unix_socket_dir", pooler.socket_dir.display());
    let port = again.set("listen_port", pooler.port);
    let said = refusal(Pooler::start(port));
    assert!(
        said.contains("FATAL unix socket is in use, cannot continue"),
        "{said}"
    );

    let pidfile = pooler.ini_path().with_file_name("pid");
    let other = tenant.ini().set("pidfile", pidfile.display());
    let said = refusal(Pooler::start(other));
    let text = format!(
        "pidfile '{}' exists, another instance running?",
        pidfile.display()
    );
    assert!(said.contains(&text), "{said}");
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn a_pidfile_of_nobody_is_replaced_and_one_of_somebody_unknown_is_not() {
    let Some(tenant) = Tenant::new() else { return };
    let stale = tenant
        .ini()
        .set("pidfile", "{dir}/pid")
        .file("pid", "4194303\n");
    let pooler = start(stale);
    let pidfile = pooler.ini_path().with_file_name("pid");
    let written = fs::read_to_string(pidfile).expect("it was written");
    assert_eq!(written, format!("{}\n", pooler.pid));

    let odd = tenant.ini().set("pidfile", "{dir}/pid").file("pid", "");
    let said = refusal(Pooler::start(odd));
    assert!(said.contains("exists, another instance running?"), "{said}");
}

#[test]
fn a_daemon_needs_a_pidfile() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("logfile", "{dir}/log");
    let said = refusal(Pooler::start_with_args(&["-d"], ini));
    assert!(
        said.contains("FATAL daemon needs pidfile configured"),
        "{said}"
    );
}

/// Init scripts look into the pid file and stop what they find there as soon as the command returns.
#[test]
fn a_daemon_serves_when_its_command_returns() {
    let Some(tenant) = Tenant::new() else { return };
    let program = Program::named("pgbouncer");
    // Free until its owner is dropped below.
    let owner = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = owner.local_addr().expect("bound").port();
    program.write("users.txt", &format!("\"{}\" \"\"\n", tenant.name));
    let ini = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir = {{dir}}\nauth_type = trust\npool_mode = transaction\n\
         auth_file = {{dir}}/users.txt\npidfile = {{dir}}/pid\nlogfile = {{dir}}/log\n",
        tenant.postgres.port()
    );
    program.write("pgbouncer.ini", &ini);
    let pid = || fs::read_to_string(program.path("pid")).unwrap_or_default();

    let run = program.run(&["-q", "-d", "pgbouncer.ini"]);
    assert_eq!(run.code, Some(1), "the port is not free: {run:?}");
    let log = fs::read_to_string(program.path("log")).unwrap_or_default();
    assert!(log.contains("Address already in use"), "{log}");
    assert_eq!(pid(), "");
    drop(owner);

    // Init scripts throw away what it prints.
    program.write("bad.ini", &format!("{ini}no_such_key = 1\n"));
    let run = program.run(&["-q", "-d", "bad.ini"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    let log = fs::read_to_string(program.path("log")).unwrap_or_default();
    assert!(
        log.contains("no_such_key") && log.contains("FATAL cannot load config file"),
        "{log}"
    );

    let run = program.run(&["-q", "-d", "pgbouncer.ini"]);
    assert_eq!((run.code, run.all()), (Some(0), String::new()));
    let first = Ender(pid().trim().to_owned());
    let mut client = RawClient::login(port, &tenant.name, &tenant.name);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");

    let run = program.run(&["-q", "-R", "-d", "pgbouncer.ini"]);
    assert_eq!((run.code, run.all()), (Some(0), String::new()));
    let second = Ender(pid().trim().to_owned());
    assert!(second.0.parse::<u32>().is_ok() && second.0 != first.0);
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(client.query("select 1"), SELECT_1);
}

/// Its manager writes such files and speaks to the console as the user `pgbouncer`, who is the user of the process.
/// It reads the log line by line, and stops the pooler with SIGINT.
#[test]
fn it_is_led_through_its_unix_socket_as_cloudnativepg_does() {
    let Some(tenant) = Tenant::new() else { return };
    let rules =
        "local pgbouncer pgbouncer peer\n\nhost all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n";
    let ini = tenant
        .ini()
        .set("pool_mode", "session")
        .set("admin_users", "pgbouncer")
        .set("auth_type", "hba")
        .set("auth_hba_file", "{dir}/hba")
        .set("ignore_startup_parameters", "extra_float_digits,options")
        .set("log_stats", 0)
        .set("client_tls_sslmode", "disable")
        .file("hba", rules);
    let mut pooler = start(ini);
    let manager = pooler.unix_endpoint();
    let order = |sql: &str| manager.psql("pgbouncer", "pgbouncer", sql);
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);

    order("PAUSE").expect("paused");
    let again = order("PAUSE").expect_err("its manager tries again and is told");
    assert!(
        again.to_string().contains("already suspended/paused"),
        "{again}"
    );
    let mut waiting = tenant.client(&pooler);
    waiting.send(&Batch::new().query("select 1"));
    order("RELOAD").expect("a reload does not end the pause");
    let pools = || manager.table("pgbouncer", "pgbouncer", "SHOW POOLS");
    let waits = |pools: &Table| {
        let pool = pools.find("database", &tenant.name);
        pool.expect("it has a pool").number("cl_waiting") == 1
    };
    eventually(SOON, || pools().expect("shown"), waits);
    // It still waits a while later.
    thread::sleep(Duration::from_millis(300));
    assert!(waits(&pools().expect("shown")));
    order("RESUME").expect("resumed");
    assert_eq!(pgweir_tests::story(&waiting.until_ready()), SELECT_1);

    for line in pooler.log().lines() {
        let (time, rest) = line.split_once(" [").expect("a process id");
        let (pid, rest) = rest.split_once("] ").expect("the end of it");
        let (level, text) = rest.split_once(' ').expect("a level");
        assert_eq!(time.split(' ').count(), 3, "{line}");
        assert!(pid.parse::<u32>().is_ok(), "{line}");
        assert!(
            level.bytes().all(|byte| byte.is_ascii_uppercase()),
            "{line}"
        );
        assert!(!text.is_empty(), "{line}");
    }
    // In session mode it waits for its clients.
    drop(waiting);
    pooler.signal(Signal::INT);
    let status = pooler.wait_for_exit(SOON);
    assert!(status.is_some_and(|status| status.success()));
}

#[test]
fn an_unknown_user_is_refused() {
    let Some(tenant) = Tenant::new() else { return };
    let said = refusal(Pooler::start_with_args(&["-u", "nosuchuser"], tenant.ini()));
    let text = "FATAL could not find user 'nosuchuser' to switch to";
    assert!(said.contains(text), "{said}");
}

#[test]
fn show_fds_is_for_administrators_and_has_no_tls() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("stats_users", &tenant.name));
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let mut admin = console(&pooler);
    let fds = admin.table("show fds");
    let tasks: Vec<_> = fds.rows.iter().map(|row| &*row[1]).collect();
    assert_eq!(tasks, ["pooler", "pooler", "client", "server"]);
    let (of_client, of_server) = (&fds.rows[2], &fds.rows[3]);
    assert_eq!(
        (&*of_client[2], &*of_client[3]),
        (&*tenant.name, &*tenant.name)
    );
    assert_eq!(
        (&of_client[7], &of_server[7]),
        (&of_server[0], &of_client[0]),
        "linked"
    );

    assert_eq!(admin.query("suspend"), "C(SUSPEND) Z(I)");
    let fds = admin.table("show fds");
    let names = [
        "client_encoding",
        "standard_conforming_strings",
        "DateStyle",
        "TimeZone",
    ];
    let said = names.map(|name| client.parameter(name).unwrap_or_default().to_owned());
    assert_eq!(fds.rows[2][8..12], said);

    assert_eq!(admin.query("resume"), "C(RESUME) Z(I)");
    let mut stats = pgweir_tests::RawClient::login(pooler.port, "pgbouncer", &tenant.name);
    assert_eq!(stats.query("show fds"), "E(08P01 admin access needed) Z(I)");
}

/// Why a pooler has not started. Another one may have answered in its place.
#[track_caller]
fn refusal(started: Result<Pooler, Error>) -> String {
    match started {
        Err(error) => error.to_string(),
        Ok(mut pooler) => {
            let status = pooler.wait_for_exit(SOON).expect("it does not stay");
            assert_eq!(status.code(), Some(1));
            pooler.log()
        }
    }
}
