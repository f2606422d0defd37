//! The promise: pgweir is a good service: systemd is told how it is doing and may open its sockets, its files say who
//! it is, and it starts only where it should.

use std::{fs, time::Duration};

use pgweir_tests::{Error, Pooler, Signal, Tenant, console, start};

const SELECT_1: &str = "T D(1) C(SELECT 1) Z(I)";
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
