//! The promise: orders before, during and after a takeover are obeyed by whoever has the clients, and nobody loses anything to
//! a successor that does not come to its end.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Pooler, RawClient, SELECT_1, Signal, Tenant, console, eventually, send_signal, start,
    story,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_parameter_that_is_set_during_the_takeover_reaches_no_stranger() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    for (name, sql) in [
        ("app.tenant", "set app.tenant = 'a'"),
        ("app.owner", "select set_config('app.owner', 'a', false)"),
    ] {
        let look = format!("select coalesce(current_setting('{name}', true), '')");
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        client.rows(sql);

        pooler.reboot().expect("taken over");

        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
        assert_eq!(tenant.client(&pooler).value(&look), "", "{sql}");
        assert_eq!(client.value(&look), "a", "{sql}");
    }
}

#[test]
fn a_server_that_stays_with_its_client_can_be_called_back() {
    let Some(tenant) = Tenant::new() else { return };
    for (servers, max_pinned, stays) in [(1, 0, "loose"), (4, 1, "firm")] {
        let ini = tenant.ini().set("default_pool_size", servers);
        let mut pooler = start(ini.set("max_pinned", max_pinned));
        let mut client = tenant.client(&pooler);
        client.rows("create temporary table here (x int)");

        pooler.reboot().expect("taken over");

        let mut admin = console(&pooler);
        let pins = admin.table("show pins");
        let pin = pins.find("database", &tenant.name).expect("it stays");
        assert_eq!(pin.get("reason"), Some("temporary object"));
        assert_eq!(pin.get("stays"), Some(stays));
        if max_pinned == 0 {
            assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
        } else {
            assert_eq!(client.value("select count(*) from here"), "0");
            assert_eq!(admin.query("pause"), "C(PAUSE) Z(I)");
        }
    }
}

#[test]
fn resume_takes_everything_back_from_a_successor_that_does_not_read() {
    let Some(tenant) = Tenant::new() else { return };
    with_stopped_successor(&tenant, |old, client| {
        send_signal(&old.to_string(), Signal::USR2);
        assert_eq!(story(&client.until_ready()), SELECT_1);
    });
}

#[test]
fn a_successor_that_never_reads_is_given_up() {
    let Some(tenant) = Tenant::new() else { return };
    with_stopped_successor(&tenant, |_, client| {
        assert!(!client.is_silent_for(Duration::from_secs(40)));
        assert_eq!(story(&client.until_ready()), SELECT_1);
    });
}

/// Stops a successor before it is told anything, and then lets the old process tell it. The client has asked for the only server
/// of its pool, which is idle.
fn with_stopped_successor(tenant: &Tenant, then: impl FnOnce(u32, &mut RawClient)) {
    let mut pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    // Longer than what a socket takes that nobody reads.
    let long = format!("select 1 /* {} */", "x".repeat(4 << 20));
    assert_eq!(client.ask(&Batch::new().parse("s", &long).sync()), "1 Z(I)");
    // As long as its login is waited for, nobody is told anything.
    let mut silent = RawClient::connect(pooler.port);
    silent.send_bytes(&[0, 0]);
    let (old, ini, log) = (
        pooler.pid,
        pooler.ini_path().to_owned(),
        pooler.log_path.clone(),
    );
    thread::scope(|scope| {
        let rebooting = scope.spawn(|| pooler.reboot());
        let said = || fs::read_to_string(&log).unwrap_or_default();
        eventually(SOON, said, |log| log.contains("HANDOVER command issued"));
        let successor = successor_with(&ini);
        assert!(send_signal(&successor, Signal::STOP));
        drop(silent);
        client.send(&Batch::new().query("select 1"));
        assert!(client.is_silent_for(Duration::from_millis(500)), "held");
        then(old, &mut client);
        send_signal(&successor, Signal::CONT);
        let outcome = rebooting.join().expect("it does nothing else");
        outcome.expect_err("it was broken off");
    });
    assert_eq!(client.query("select 1"), SELECT_1);
    pooler.reboot().expect("taken over");
    assert_eq!(client.query("select 1"), SELECT_1);
}

/// The process that takes over with this file.
fn successor_with(ini: &Path) -> String {
    let processes = fs::read_dir("/proc").expect("a Linux");
    let is_it = |pid: &String| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        words.contains(&"-R") && words.contains(&&*ini.to_string_lossy())
    };
    let mut names = processes.flatten().map(|process| process.file_name());
    names
        .find_map(|name| name.into_string().ok().filter(is_it))
        .expect("it runs")
}

#[test]
fn a_console_that_has_the_descriptors_is_a_successor() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let mut other = console(&pooler);
    let visit = |commands: &[&str]| {
        let mut psql = pooler
            .unix_endpoint()
            .psql_command("pgbouncer", "pgbouncer")
            .expect("there is a psql");
        for command in commands {
            psql.args(["-c", command]);
        }
        let said = psql.output().expect("it runs");
        String::from_utf8_lossy(&said.stderr).into_owned()
    };

    // When it leaves, all goes on, whoever else is there.
    assert_eq!(visit(&["suspend", "show fds"]), "");
    assert_eq!(client.query("select 1"), SELECT_1);
    // One that has no descriptors is not waited for.
    assert_eq!(visit(&["suspend"]), "");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    assert_eq!(other.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(story(&client.until_ready()), SELECT_1);
    // What it was given is not its own any more after a RESUME, even if all is held again.
    let said = visit(&["suspend", "show fds", "resume", "suspend", "shutdown"]);
    assert!(said.contains("pooler is not paused/suspended"), "{said}");
    assert_eq!(other.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(client.query("select 1"), SELECT_1);
}

#[test]
fn a_process_on_its_way_out_is_not_held() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let mut admin = console(&pooler);
    pooler.signal(Signal::TERM);
    let refusal = "E(08P01 pooler is shutting down) Z(I)";
    eventually(
        SOON,
        || pooler.log(),
        |log| log.contains("got SIGTERM, shutting down"),
    );
    for order in ["suspend", "pause", "resume"] {
        assert_eq!(admin.query(order), refusal, "{order}");
    }
    let said = pooler.try_console("handover 2").expect_err("refused");
    assert!(
        said.to_string().contains("pooler is shutting down"),
        "{said}"
    );
    // What can be taken back by its name, and what ends clients, is obeyed.
    assert_eq!(
        admin.query(&format!("kill {}", tenant.name)),
        "C(KILL) Z(I)"
    );
    drop(admin);
    let ended = pooler.wait_for_exit(SOON).expect("nobody is left");
    assert!(ended.success());
}

#[test]
fn what_an_operator_has_shut_stays_shut() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let mut pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    let mut admin = console(&pooler);
    admin.query(&format!("disable {name}"));
    admin.query(&format!(
        "maintenance on {name} mode hold message 'it moves' ttl '300s'"
    ));

    pooler.reboot().expect("taken over");

    let parameters = [("user", &**name), ("database", &**name)];
    assert_eq!(
        RawClient::try_login(pooler.port, &parameters).map(|_| ()),
        Err(format!("E(FATAL 08P01 database \"{name}\" is disabled)"))
    );
    let mut admin = console(&pooler);
    let shown = admin.table("show maintenance");
    let ordered = shown.find("database", name).expect("it goes on");
    assert_eq!(ordered.get("mode"), Some("hold"));
    assert_eq!(ordered.get("message"), Some("it moves"));
    assert!((1..=300).contains(&ordered.number("remaining")), "{shown}");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    admin.query(&format!("maintenance off {name}"));
    assert_eq!(story(&client.until_ready()), SELECT_1);
    admin.query(&format!("enable {name}"));
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn a_client_that_is_still_to_be_told_an_error_holds_nobody_up() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("default_pool_size", 1);
    let ini = ini.set("error_codes", "postgres").set("suspend_timeout", 0);
    let ini = ini.set("leak_after", 2).set("leak_action", "rollback");
    let mut pooler = start(ini);
    let rob = |pooler: &Pooler| {
        let mut client = tenant.client(pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        assert_eq!(tenant.client(pooler).query("select 1"), SELECT_1);
        client
    };
    let mut untold = rob(&pooler);
    let mut told = rob(&pooler);
    let error = "E(25P03 the transaction was rolled back because it was idle (leak_action))";
    assert_eq!(told.query("select 1"), format!("{error} Z(E)"));
    let mut admin = console(&pooler);
    let mut refused = tenant.client(&pooler);
    admin.query(&format!("maintenance on {} mode reject", tenant.name));
    refused.send(&Batch::new().parse("", "select 1").flush());
    assert_eq!(refused.read().map(|reply| reply.tag), Ok(b'E'));
    admin.query(&format!("maintenance off {}", tenant.name));

    for _ in 0..2 {
        pooler.reboot().expect("taken over");
    }

    assert_eq!(refused.ask(&Batch::new().bind("", "", &[]).sync()), "Z(I)");
    assert_eq!(refused.query("select 1"), SELECT_1);
    assert_eq!(untold.query("select 1"), format!("{error} Z(E)"));
    for client in [&mut untold, &mut told] {
        assert_eq!(client.query("commit"), "C(ROLLBACK) Z(I)");
        assert_eq!(client.query("select 1"), SELECT_1);
    }
}

#[test]
fn a_server_that_is_being_cleaned_up_holds_nobody_else() {
    const CLEANING: Duration = Duration::from_secs(4);
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("default_pool_size", 2);
    let ini = ini
        .set("server_reset_query", "select pg_sleep(4)")
        .set("server_reset_query_always", 1);
    let mut pooler = start(ini);
    let mut working = tenant.client(&pooler);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
    let longest = thread::scope(|scope| {
        let rebooting = scope.spawn(|| pooler.reboot());
        let mut longest = Duration::ZERO;
        while !rebooting.is_finished() {
            let asked = Instant::now();
            assert_eq!(working.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
            longest = longest.max(asked.elapsed());
        }
        rebooting.join().expect("no panic").expect("taken over");
        longest
    });
    assert!(longest < CLEANING / 2, "{longest:?}");
}

#[test]
fn clients_are_served_also_where_the_pid_file_cannot_be_written() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = start(tenant.ini().set("pidfile", "{dir}/pid"));
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let elsewhere = tenant.ini().set("pidfile", "{dir}/nowhere/pid");
    pooler.reload(elsewhere).expect("it can be read");

    pooler.reboot().expect("taken over");

    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    assert!(pooler.log().contains("could not write pidfile"));
}
