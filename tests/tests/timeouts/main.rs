//! The promise: every time limit is kept, tells the client which one it was, and frees what was held; and pools keep,
//! grow and shrink as they are told.

mod connecting;
mod scene;
mod servers;
mod sizes;

use std::{
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{Batch, RawClient, SELECT_1, Tenant, console, start, story};
use scene::Scene;

#[test]
fn query_timeout_ends_a_long_query_on_the_server_too() {
    let Some(scene) = Scene::new(|ini| ini.set("query_timeout", 1)) else {
        return;
    };
    let mut client = scene.client();
    client.send(&Batch::new().query("select pg_sleep(20)"));
    scene.is_told(&mut client, "query timeout");
    scene.nothing_runs();

    let mut quick = scene.client();
    assert_eq!(quick.query("begin"), "C(BEGIN) Z(T)");
    thread::sleep(Duration::from_millis(1800));
    assert_eq!(
        quick.query("commit"),
        "C(COMMIT) Z(I)",
        "an idle transaction is no query"
    );
}

#[test]
fn query_timeout_also_limits_the_wait_for_a_server() {
    let Some(scene) = Scene::new(|ini| ini.set("query_timeout", 1)) else {
        return;
    };
    let mut holder = scene.client();
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = scene.client();
    waiter.send(&Batch::new().query("select 1"));
    scene.is_told(&mut waiter, "query_timeout");
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
}

#[test]
fn query_wait_timeout_is_that_of_the_user_before_the_database_before_all() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    let database = |more: &str| {
        format!(
            "host=127.0.0.1 port={} dbname={name} {more}",
            tenant.postgres.port()
        )
    };
    let ini = tenant
        .ini()
        .set("default_pool_size", 1)
        .set("query_wait_timeout", 60);
    for ini in [
        ini.clone().set("query_wait_timeout", 1),
        ini.clone()
            .database("shop", &database("query_wait_timeout=1")),
        ini.database("shop", &database("query_wait_timeout=60"))
            .user(name, "query_wait_timeout=1"),
    ] {
        let shop = match ini.to_string().contains("shop") {
            true => "shop",
            false => name,
        };
        let pooler = start(ini);
        let mut holder = RawClient::login(pooler.port, shop, name);
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let mut waiter = RawClient::login(pooler.port, shop, name);
        waiter.send(&Batch::new().query("select 1"));
        assert_eq!(waiter.until_closed(), "E(FATAL 08P01 query_wait_timeout)");
    }
}

#[test]
fn idle_transaction_timeout_frees_the_server() {
    let Some(scene) = Scene::new(|ini| ini.set("idle_transaction_timeout", 2)) else {
        return;
    };
    let mut client = scene.client();
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(800));
        assert_eq!(
            client.query("select 1"),
            "T D(1) C(SELECT 1) Z(T)",
            "the time since the last answer counts"
        );
    }
    scene.is_told(&mut client, "idle transaction timeout");
    scene.nothing_runs();
    assert_eq!(scene.client().query("select 1"), SELECT_1);
}

#[test]
fn transaction_timeout_counts_from_its_beginning() {
    let Some(scene) = Scene::new(|ini| ini.set("transaction_timeout", 2)) else {
        return;
    };
    let mut client = scene.client();
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    thread::sleep(Duration::from_millis(1200));
    let second = Instant::now();
    client.send(&Batch::new().query("select pg_sleep(20)"));
    scene.is_told(&mut client, "transaction timeout");
    let waited = second.elapsed();
    assert!(
        waited < Duration::from_millis(1600),
        "from the second statement on it took {waited:?}"
    );
    scene.nothing_runs();

    let mut idle = scene.client();
    assert_eq!(idle.query("begin"), "C(BEGIN) Z(T)");
    scene.is_told(&mut idle, "transaction timeout");
    assert_eq!(scene.client().query("select 1"), SELECT_1);
}

#[test]
fn client_idle_timeout_sends_idle_clients_away() {
    let Some(scene) = Scene::new(|ini| ini.set("client_idle_timeout", 2)) else {
        return;
    };
    let mut client = scene.client();
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(800));
        assert_eq!(client.query("select 1"), SELECT_1);
    }
    let mut working = scene.client();
    working.send(&Batch::new().query("select 1 from pg_sleep(2.6)"));
    scene.is_told(&mut client, "client_idle_timeout");
    assert_eq!(
        story(&working.until_ready()),
        SELECT_1,
        "whoever works is not idle"
    );
}

#[test]
fn client_login_timeout_limits_a_login() {
    let Some(scene) = Scene::new(|ini| {
        ini.set("client_login_timeout", 1)
            .set("tcp_defer_accept", 0)
    }) else {
        return;
    };
    let mut silent = RawClient::connect(scene.pooler.port);
    let mut halfway = RawClient::connect(scene.pooler.port);
    halfway.send_bytes(&[0, 0, 0, 100, 0, 3]);
    for client in [&mut silent, &mut halfway] {
        scene.is_told(client, "client_login_timeout");
    }
    let mut inside = scene.client();
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(inside.query("select 1"), SELECT_1);
}

#[test]
fn limits_of_the_user_come_before_the_general_ones() {
    let Some(scene) = Scene::new(|ini| {
        ini.set("query_timeout", 60)
            .set("client_idle_timeout", 60)
            .set("idle_transaction_timeout", 60)
            .set("default_pool_size", 3)
    }) else {
        return;
    };
    let ini = scene.ini.clone().user(
        &scene.tenant.name,
        "query_timeout=1 client_idle_timeout=1 idle_transaction_timeout=1",
    );
    scene.pooler.reload(ini).expect("RELOAD");
    let mut asking = scene.client();
    let mut idle = scene.client();
    let mut between = scene.client();
    assert_eq!(between.query("begin"), "C(BEGIN) Z(T)");
    asking.send(&Batch::new().query("select pg_sleep(20)"));
    scene.is_told(&mut asking, "query timeout");
    scene.is_told(&mut idle, "client_idle_timeout");
    scene.is_told(&mut between, "idle transaction timeout");
}

#[test]
fn a_limit_set_on_the_console_holds_for_those_who_are_in() {
    let Some(scene) = Scene::new(|ini| ini) else {
        return;
    };
    let mut client = scene.client();
    client.send(&Batch::new().query("select pg_sleep(20)"));
    console(&scene.pooler).query("set query_timeout = 1");
    scene.is_told(&mut client, "query timeout");
}
