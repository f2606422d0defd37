//! The promise: a client that has been idle for long costs next to nothing, and nobody notices that it does.

use std::time::Duration;

use pgweir_tests::{
    Batch, Http, Pooler, RawClient, SELECT_1, Tenant, console, eventually, http::Metrics, start,
};

/// A client rests after five seconds.
const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn until_resting(pooler: &Pooler, expected: f64) {
    let http = Http::of(pooler);
    // A process that takes over opens its pages when the old one is gone.
    let resting = || {
        let page = http.try_get("/metrics").ok()?;
        Some(Metrics::parse(&page.body).value("pgweir_resting_clients", &[]))
    };
    eventually(SOON, resting, |count| *count == Some(expected));
}

fn clients_of(operator: &mut RawClient, tenant: &Tenant) -> usize {
    let clients = operator.table("show clients");
    let mine = clients
        .iter()
        .filter(|client| client.get("database") == Some(&*tenant.name));
    mine.count()
}

#[test]
fn clients_that_rest_are_as_they_were() {
    rest_and_go_on(1);
}

#[test]
fn clients_of_two_workers_that_rest_are_as_they_were() {
    rest_and_go_on(2);
}

fn rest_and_go_on(workers: u32) {
    let Some(tenant) = Tenant::new() else { return };
    let ini = Http::set(tenant.ini()).set("pidfile", "{dir}/pid");
    let ini = ini.set("workers", workers);
    let mut pooler = start(ini.set("max_prepared_statements", 10));
    let mut operator = console(&pooler);
    let gone = tenant.client(&pooler);
    let mut fresh = tenant.client(&pooler);
    let mut used = tenant.client(&pooler);
    used.rows("set application_name = 'rested'");
    used.ask(&Batch::new().parse("kept", "select 'kept, ' || $1").sync());
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    until_resting(&pooler, 3.0);
    assert_eq!(clients_of(&mut operator, &tenant), 4, "they are listed");

    drop(gone);
    eventually(
        SOON,
        || clients_of(&mut operator, &tenant),
        |count| *count == 3,
    );
    assert_eq!(used.value("show application_name"), "rested");
    let execute = Batch::new().bind("", "kept", &["after all"]);
    let answer = used.ask(&execute.execute("").sync());
    assert!(answer.contains("kept, after all"), "{answer}");
    assert_eq!(fresh.query("select 1"), SELECT_1);
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");

    // Another process takes them over, and serves and rests them as this one did.
    until_resting(&pooler, 3.0);
    pooler.reboot().expect("taken over");
    assert_eq!(used.value("show application_name"), "rested");
    assert_eq!(fresh.query("select 1"), SELECT_1);
    until_resting(&pooler, 3.0);
    assert_eq!(holder.query("select 1"), SELECT_1);
}

#[test]
fn orders_reach_clients_that_rest() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()).set("client_idle_timeout", 9));
    let mut operator = console(&pooler);
    let mut killed = tenant.client(&pooler);
    until_resting(&pooler, 1.0);
    let clients = operator.table("show clients");
    let client = clients
        .iter()
        .find(|client| client.get("database") == Some(&*tenant.name));
    let id = client.and_then(|client| client.get("id")).expect("listed");
    let kill = format!("kill_client {id}");
    assert_eq!(operator.query(&kill), "C(KILL_CLIENT) Z(I)");
    assert!(killed.until_closed().contains("admin forced disconnect"));

    let mut forgotten = tenant.client(&pooler);
    until_resting(&pooler, 1.0);
    assert!(forgotten.until_closed().contains("client_idle_timeout"));
    until_resting(&pooler, 0.0);
    assert_eq!(clients_of(&mut operator, &tenant), 0);
}
