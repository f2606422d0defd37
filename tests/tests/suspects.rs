//! The promise: a statement that takes far longer than it normally does is named, and canceled where that is wanted;
//! so are connections that are opened and forgotten. What takes long by its nature is not.

use std::thread;
use std::time::Duration;

use pgweir_tests::{Batch, Ini, Pooler, RawClient, Tenant, console, eventually, start, story};

const LEAK_FLOOR: u64 = 1;

/// `leak_floor`, a look that asks the client's task, one that hears the answer, and time for a slow machine.
const NAMED_WITHIN: Duration = Duration::from_secs(LEAK_FLOOR + 4);

/// What a fast statement is known after: one in sixteen is remembered, and eight are needed.
const OFTEN: u32 = 400;

fn pooler(tenant: &Tenant, change: impl FnOnce(Ini) -> Ini) -> Pooler {
    let ini = tenant
        .ini()
        .set("default_pool_size", 4)
        .set("leak_floor", LEAK_FLOOR);
    start(change(ini))
}

#[track_caller]
fn logged(pooler: &Pooler, text: &str) {
    eventually(NAMED_WITHIN, || pooler.log(), |log| log.contains(text));
}

/// An account that is updated often, and then one update that waits for a lock.
fn stuck(tenant: &Tenant, pooler: &Pooler, application: &str) -> (RawClient, RawClient) {
    let mut direct = tenant.direct();
    direct.rows("create table if not exists accounts (id int, n int)");
    direct.rows("insert into accounts values (1, 0), (2, 0)");
    let mut client = tenant.client_named(pooler, application);
    for n in 0..OFTEN {
        client.query(&format!("update accounts set n = {n} where id = 2"));
    }
    direct.rows("begin");
    direct.rows("update accounts set n = 0 where id = 1");
    client.send(&Batch::new().query("update accounts set n = 7 where id = 1"));
    (client, direct)
}

#[test]
fn a_statement_that_takes_far_longer_than_usual_is_named() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = pooler(&tenant, |ini| ini);
    let (mut client, mut locker) = stuck(&tenant, &pooler, "web");
    logged(&pooler, "leak suspect #1: app=web");
    let log = pooler.log();
    let line = log.lines().find(|line| line.contains("suspect #1"));
    let line = line.expect("found above");
    for part in [
        "state=\"active\"",
        "last=\"update accounts set n = ? where id = ?\"",
        "99 of 100 such statements end within",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let leaks = console(&pooler).table("show leaks");
    let leak = leaks.find("application_name", "web").expect("it is named");
    assert_eq!(leak.get("kind"), Some("slow"));
    logged(&pooler, "leak #1 confirmed");
    locker.rows("commit");
    assert_eq!(story(&client.until_ready()), "C(UPDATE 1) Z(I)");
    logged(&pooler, "leak suspect #1 resolved");
}

#[test]
fn it_can_be_canceled_by_application_and_its_client_learns_by_which_rule() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = pooler(&tenant, |ini| {
        ini.set("leak_action_apps", "batch jobs:cancel, web:log")
    });
    let (mut client, mut locker) = stuck(&tenant, &pooler, "batch jobs");
    let mut other = tenant.client_named(&pooler, "web");
    other.send(&Batch::new().query("update accounts set n = 8 where id = 1"));
    let canceled =
        "E(57014 canceling statement: it takes far longer than it normally does (leak_action))";
    assert_eq!(story(&client.until_ready()), format!("{canceled} Z(I)"));
    assert_eq!(client.value("select 1"), "1");
    logged(&pooler, "app=web");
    locker.rows("commit");
    assert_eq!(story(&other.until_ready()), "C(UPDATE 1) Z(I)");

    // Only the statement is lost, and the next one that somebody else cancels is that somebody's.
    locker.rows("begin");
    locker.rows("update accounts set n = 0 where id = 1");
    client.query("begin");
    client.send(&Batch::new().query("update accounts set n = 7 where id = 1"));
    assert_eq!(story(&client.until_ready()), format!("{canceled} Z(E)"));
    assert_eq!(client.query("rollback"), "C(ROLLBACK) Z(I)");
    client.send(&Batch::new().query("update accounts set n = 7 where id = 1"));
    thread::sleep(Duration::from_millis(200));
    client.cancel();
    let told = story(&client.until_ready());
    assert!(told.contains("due to user request"), "{told}");
}

#[test]
fn what_is_seldom_or_moves_rows_or_has_no_norm_is_not_named() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = pooler(&tenant, |ini| ini.set("leak_action", "cancel"));
    let mut first = tenant.client_named(&pooler, "first");
    first.send(&Batch::new().query("select pg_sleep(4), 'for the first time'"));
    let mut copy = tenant.client_named(&pooler, "copy");
    copy.send(&Batch::new().query("copy (select pg_sleep(4)) to stdout"));
    let mut rows = tenant.client_named(&pooler, "rows");
    let stream = |sleep: f64, count: u32| {
        format!("select repeat('x', 10000), pg_sleep({sleep}) from generate_series(1, {count})")
    };
    for _ in 0..10 {
        rows.query(&stream(0.02, 1));
    }
    rows.send(&Batch::new().query(&stream(0.2, 25)));
    for client in [&mut first, &mut copy, &mut rows] {
        let told = story(&client.until_ready());
        assert!(told.ends_with("Z(I)") && !told.contains("E("), "{told}");
    }
    assert!(!pooler.log().contains("leak"), "{}", pooler.log());
}

#[test]
fn connections_that_are_opened_and_forgotten_are_named_and_a_pool_is_not() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = pooler(&tenant, |ini| ini.set("leak_after", 1));
    let pool: Vec<_> = (0..15)
        .map(|_| tenant.client_named(&pooler, "pool"))
        .collect();
    let mut forgotten = Vec::new();
    for _ in 0..8 {
        forgotten.extend((0..3).map(|_| {
            let mut client = tenant.client_named(&pooler, "leaky");
            client.query("select 1");
            client
        }));
        thread::sleep(Duration::from_millis(1100));
    }
    logged(
        &pooler,
        &format!("app=leaky user={} addr=127.0.0.1", tenant.name),
    );
    logged(&pooler, "connections are opened and forgotten");
    let leaks = console(&pooler).table("show leaks");
    let leak = leaks
        .find("application_name", "leaky")
        .expect("it is named");
    assert_eq!(
        (leak.get("kind"), leak.get("addr")),
        (Some("growing"), Some("127.0.0.1"))
    );
    assert!(leaks.find("application_name", "pool").is_none(), "{leaks}");
    drop(forgotten);
    logged(&pooler, "resolved");
    drop(pool);
}
