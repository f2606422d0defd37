//! The promise: who holds a server and says nothing is named within seconds: application, address, user, statement;
//! and nobody is named who works.

use std::{thread, time::Duration};

use pgweir_tests::{Batch, Ini, Pooler, RawClient, Tenant, console, eventually, start, story};

/// Long enough for a slow machine to answer in between, short enough to wait for.
const LEAK_AFTER: u64 = 2;

/// `leak_after`, a look at everybody, and one more after the suspect was asked.
const NAMED_WITHIN: Duration = Duration::from_secs(LEAK_AFTER + 2);

fn pooler(tenant: &Tenant, change: impl FnOnce(Ini) -> Ini) -> Pooler {
    let ini = tenant
        .ini()
        .set("default_pool_size", 3)
        .set("leak_after", LEAK_AFTER);
    start(change(ini))
}

/// Waits until the log says something.
#[track_caller]
fn logged(pooler: &Pooler, text: &str) {
    eventually(NAMED_WITHIN, || pooler.log(), |log| log.contains(text));
}

#[test]
fn a_forgotten_commit_is_named_with_who_and_what() {
    let Some(tenant) = Tenant::new() else { return };
    tenant
        .direct()
        .rows("create table orders (id int, card text)");
    let pooler = pooler(&tenant, |ini| ini);
    let mut client = tenant.client_named(&pooler, "checkout");
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let insert = "insert into orders values (4711, '5500-0000')";
    assert_eq!(client.query(insert), "C(INSERT 0 1) Z(T)");
    logged(&pooler, "leak suspect #1: app=checkout");
    let log = pooler.log();
    let line = log
        .lines()
        .find(|line| line.contains("leak suspect #1"))
        .expect("found above");
    for part in [
        &format!("{0}/{0}@127.0.0.1:", tenant.name),
        "first=\"begin\"",
        "last=\"insert into orders values (?, ?)\"",
        "COMMIT or ROLLBACK is missing",
    ] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    assert!(!log.contains("4711") && !log.contains("5500"), "{log}");

    let mut console = console(&pooler);
    let holders = console.table("show holders");
    let holder = holders
        .find("application_name", "checkout")
        .expect("it holds a server");
    assert!(holder.number("silent_ms") >= 2000, "{holders}");
    assert_eq!(holder.get("state"), Some("idle in transaction"));
    let leaks = console.table("show leaks");
    let leak = leaks
        .find("application_name", "checkout")
        .expect("it is suspected");
    assert_eq!(
        leak.get("last_statement"),
        Some("insert into orders values (?, ?)")
    );

    logged(&pooler, "leak #1 confirmed");
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    logged(&pooler, "leak suspect #1 resolved");
    let leaks = console.table("show leaks");
    let leak = leaks
        .find("application_name", "checkout")
        .expect("it is remembered");
    assert_eq!(leak.get("stage"), Some("resolved"));
    assert_eq!(pooler.log().matches("leak suspect #1: ").count(), 1);
}

#[test]
fn a_prepared_statement_is_named_by_its_text() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = pooler(&tenant, |ini| ini.set("leak_query", "raw"));
    let mut client = tenant.client_named(&pooler, "worker");
    client.ask(&Batch::new().parse("s", "select 42 as answer").sync());
    client.query("begin");
    client.ask(&Batch::new().bind("", "s", &[]).execute("").sync());
    logged(&pooler, "last=\"select 42 as answer\"");
}

#[test]
fn a_client_that_works_or_waits_for_a_long_query_is_not_named() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = pooler(&tenant, |ini| ini.set("leak_exempt_apps", "backup"));
    let mut slow = tenant.client_named(&pooler, "report");
    slow.send(&Batch::new().query("select pg_sleep(6)"));
    let mut exempt = tenant.client_named(&pooler, "backup");
    exempt.query("begin");
    let mut busy = tenant.client_named(&pooler, "batch");
    busy.query("begin");
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(300));
        busy.query("select 1");
    }
    busy.query("commit");
    slow.until_ready();
    assert!(!pooler.log().contains("leak"), "{}", pooler.log());
}

#[test]
fn an_idle_session_is_named_only_while_others_wait() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = pooler(&tenant, |ini| {
        ini.set("pool_mode", "session").set("default_pool_size", 1)
    });
    let mut holder = tenant.client_named(&pooler, "forgetful");
    assert_eq!(holder.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    thread::sleep(NAMED_WITHIN);
    assert!(!pooler.log().contains("leak"), "{}", pooler.log());
    let mut waiter = tenant.client_named(&pooler, "waiter");
    waiter.send(&Batch::new().query("select 2"));
    logged(&pooler, "app=forgetful");
    logged(&pooler, "a connection that was not given back");
}

#[test]
fn a_leak_can_be_ended() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = pooler(&tenant, |ini| {
        ini.set("leak_action", "disconnect")
            .set("error_codes", "postgres")
    });
    let mut client = tenant.client_named(&pooler, "worker");
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let told = client.until_closed();
    assert_eq!(told, "E(FATAL 25P03 server held in silence (leak_after))");
    logged(&pooler, "resolved");
    assert!(
        pooler.log().contains("the client is gone"),
        "{}",
        pooler.log()
    );
}

const TOLD: &str = "E(25P03 the transaction was rolled back because it was idle (leak_action))";
const FAILED: &str =
    "E(25P02 current transaction is aborted, commands ignored until end of transaction block)";

/// Leaves a transaction open until it is rolled back, while another client waits for the server.
fn robbed(tenant: &Tenant, pooler: &Pooler) -> RawClient {
    let mut client = tenant.client_named(pooler, "slow");
    client.ask(
        &Batch::new()
            .parse("rb", "rollback")
            .parse("c", "commit")
            .sync(),
    );
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    client.query("insert into entries values ('lost')");
    let mut other = tenant.client_named(pooler, "other");
    other.send(&Batch::new().query("select 'served'"));
    assert_eq!(story(&other.until_ready()), "T D(served) C(SELECT 1) Z(I)");
    client
}

#[test]
fn a_leaked_transaction_is_rolled_back_and_its_client_learns_it_whatever_it_does_next() {
    let Some(tenant) = Tenant::new() else { return };
    let mut direct = tenant.direct();
    direct.rows("create table entries (entry text)");
    let pooler = pooler(&tenant, |ini| {
        ini.set("default_pool_size", 1)
            .set("leak_action", "rollback")
    });
    let insert = "insert into entries values ('alone')";
    let run = |statement: &str| Batch::new().bind("", statement, &[]).execute("").sync();

    let mut client = robbed(&tenant, &pooler);
    assert_eq!(client.query(insert), format!("{TOLD} Z(E)"));
    assert_eq!(client.query(insert), format!("{FAILED} Z(E)"));
    assert_eq!(
        client.ask(&Batch::new().run(insert).sync()),
        format!("{FAILED} Z(E)")
    );
    let ended = client.query("rollback");
    assert!(ended.ends_with("C(ROLLBACK) Z(I)"), "{ended}");
    assert_eq!(client.value("select count(*) from entries"), "0");

    // Who believes to have committed must not go on believing it.
    let mut client = robbed(&tenant, &pooler);
    assert_eq!(client.query("commit"), format!("{TOLD} Z(I)"));
    assert_eq!(client.value("select 1"), "1");
    let mut client = robbed(&tenant, &pooler);
    assert_eq!(client.ask(&run("c")), format!("{TOLD} Z(I)"));

    // Who gives up by itself is content.
    let mut client = robbed(&tenant, &pooler);
    let ended = client.ask(&run("rb"));
    assert!(ended.ends_with("C(ROLLBACK) Z(I)"), "{ended}");

    let mut client = robbed(&tenant, &pooler);
    let pipeline = Batch::new()
        .run(insert)
        .sync()
        .run("rollback")
        .sync()
        .run("select 7")
        .sync();
    client.send(&pipeline);
    assert_eq!(story(&client.until_ready()), format!("{TOLD} Z(E)"));
    assert!(story(&client.until_ready()).ends_with("C(ROLLBACK) Z(I)"));
    assert_eq!(story(&client.until_ready()), "1 2 D(7) C(SELECT 1) Z(I)");
    assert_eq!(direct.rows("select * from entries").len(), 0);
}

#[test]
fn a_leaking_client_can_be_told_with_a_notice() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = pooler(&tenant, |ini| ini.set("leak_action", "notice"));
    let mut client = tenant.client_named(&pooler, "slow");
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let notice = client.read().expect("a notice");
    assert!(
        story(&[notice]).contains("has been idle for longer than leak_after"),
        "a notice while nothing was asked"
    );
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
}
