//! SUSPEND, which holds everybody without a successor.

use std::{
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, RawClient, SELECT_1, Signal, Tenant, console, cpu_time, eventually, start, story,
};

use super::SOON;

#[test]
fn a_successor_has_no_last_word_after_a_resume() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let said = pooler
        .unix_endpoint()
        .psql_command("pgbouncer", "pgbouncer")
        .expect("there is a psql")
        .args(["-c", "handover 2", "-c", "resume", "-c", "shutdown"])
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(said.contains("pooler is not paused/suspended"), "{said}");
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
}

#[test]
fn suspend_holds_everybody_until_resume() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut idle = tenant.client(&pooler);
    let mut busy = tenant.client(&pooler);
    assert_eq!(busy.query("begin"), "C(BEGIN) Z(T)");
    let mut admin = console(&pooler);
    assert_eq!(admin.query("suspend"), "C(SUSPEND) Z(I)");
    assert_eq!(
        admin.query("suspend"),
        "E(08P01 already suspended/paused) Z(I)"
    );
    let state = admin.table("show state");
    assert_eq!(
        state
            .find("key", "suspended")
            .and_then(|row| row.get("value")),
        Some("yes")
    );
    for client in [&mut idle, &mut busy] {
        client.send(&Batch::new().query("select 1"));
    }
    assert!(idle.is_silent_for(Duration::from_millis(200)));
    assert!(busy.is_silent_for(Duration::from_millis(50)));
    // Nobody is accepted, but nobody is refused either.
    let mut newcomer = RawClient::connect(pooler.port);
    newcomer.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
    assert!(newcomer.is_silent_for(Duration::from_millis(100)));

    assert_eq!(admin.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(story(&idle.until_ready()), SELECT_1);
    assert_eq!(story(&busy.until_ready()), "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(newcomer.finish_login(), Ok(()));
    assert_eq!(
        admin.query("resume"),
        "E(08P01 pooler is not paused/suspended) Z(I)"
    );
}

#[test]
fn an_order_that_cannot_be_obeyed_yet_does_not_keep_a_held_client_awake() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let (mut draining, mut admin) = (console(&pooler), console(&pooler));
    draining.send(&Batch::new().query(&format!("DRAIN {} WITHIN '20s'", tenant.name)));
    let names = [("user", &*tenant.name), ("database", &*tenant.name)];
    let refusal = || RawClient::try_login(pooler.port, &names).err();
    eventually(SOON, refusal, |refusal| refusal.is_some());
    assert_eq!(admin.query("suspend"), "C(SUSPEND) Z(I)");
    let used = || cpu_time(pooler.pid).expect("it runs");
    let before = used();
    client.send(&Batch::new().query("commit"));
    assert!(client.is_silent_for(Duration::from_millis(600)));
    let used = used() - before;
    assert!(used < Duration::from_millis(300), "{used:?}");
    assert_eq!(admin.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(story(&client.until_ready()), "C(COMMIT) Z(I)");
    assert_eq!(story(&draining.until_ready()), "T C(DRAIN 1) Z(I)");
}

#[test]
fn a_login_that_suspend_meets_comes_to_its_end() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("tcp_defer_accept", 0));
    let mut admin = console(&pooler);
    let mut client = RawClient::connect(pooler.port);
    let logins = || {
        let lists = pooler.console("show lists");
        lists
            .find("list", "login_clients")
            .map(|row| row.number("items"))
    };
    eventually(Duration::from_secs(5), logins, |count| *count == Some(1));
    admin.send(&Batch::new().query("suspend"));
    eventually(
        Duration::from_secs(5),
        || pooler.log(),
        |log| log.contains("SUSPEND command issued"),
    );
    // The pool is new, so the login needs a server.
    client.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
    assert_eq!(client.finish_login(), Ok(()));
    assert_eq!(story(&admin.until_ready()), "C(SUSPEND) Z(I)");
    assert_eq!(admin.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(client.value("select 1"), "1");
}

#[test]
fn suspend_flushes_a_stream_to_the_end_of_a_message() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut reader = tenant.client(&pooler);
    let many = "copy (select repeat('y', 1000) from generate_series(1, 200000)) to stdout";
    reader.send(&Batch::new().query(many));
    let rest = thread::spawn(move || {
        assert_eq!(reader.read().map(|reply| reply.tag), Ok(b'H'));
        let mut rows = 0;
        while reader.read().is_ok_and(|reply| reply.tag == b'd') {
            rows += 1;
        }
        assert_eq!(story(&reader.until_ready()), "C(COPY 200000) Z(I)");
        rows
    });
    let mut admin = console(&pooler);
    let started = Instant::now();
    assert_eq!(admin.query("suspend"), "C(SUSPEND) Z(I)");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "no timeout was needed"
    );
    let fds = admin.table("show fds");
    assert_eq!(
        fds.rows.len(),
        4,
        "two listeners, a client and its server: {fds:?}"
    );
    assert_eq!(admin.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(rest.join().expect("it was all there"), 200_000);
}

#[test]
fn who_cannot_be_held_in_time_is_closed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 1)
            .set("tcp_defer_accept", 0)
            .set("suspend_timeout", 1),
    );
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiting = tenant.client(&pooler);
    waiting.send(&Batch::new().query("select 1"));
    let mut silent = RawClient::connect(pooler.port);
    assert!(silent.is_silent_for(Duration::from_millis(100)));
    let mut admin = console(&pooler);
    assert_eq!(admin.query("suspend"), "C(SUSPEND) Z(I)");
    let told = "E(FATAL 08P01 suspend_timeout)";
    assert_eq!(waiting.until_closed(), told);
    assert_eq!(silent.until_closed(), told);
    assert_eq!(admin.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
}

#[test]
fn a_suspend_ends_with_the_last_console_or_a_signal() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    for way in ["close", "signal"] {
        let mut admin = console(&pooler);
        assert_eq!(admin.query("suspend"), "C(SUSPEND) Z(I)");
        client.send(&Batch::new().query("select 1"));
        assert!(client.is_silent_for(Duration::from_millis(100)), "{way}");
        match way {
            "close" => drop(admin),
            _ => pooler.signal(Signal::USR2),
        }
        assert_eq!(story(&client.until_ready()), SELECT_1, "{way}");
    }
    let mut admin = console(&pooler);
    assert_eq!(admin.query("suspend"), "C(SUSPEND) Z(I)");
    pooler.signal(Signal::TERM);
    let status = pooler.wait_for_exit(SOON).expect("it dies at once");
    assert_eq!(status.code(), Some(1));
    assert!(
        pooler
            .log()
            .contains("suspend was in progress, going down immediately")
    );
}
