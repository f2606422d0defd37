//! Pools that grow and shrink.

use std::{
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{Batch, RawClient, SELECT_1, Tenant, console, eventually, start, story};

use super::scene::Scene;

#[test]
fn min_pool_size_is_kept_while_there_are_clients() {
    let Some(scene) = Scene::new(|ini| {
        ini.set("min_pool_size", 3)
            .set("default_pool_size", 5)
            .set("server_idle_timeout", 1)
    }) else {
        return;
    };
    assert_eq!(scene.tenant.backends(), 0, "not without a client");
    let client = scene.client();
    scene.backends_become(3);
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(
        scene.tenant.backends(),
        3,
        "server_idle_timeout spares them"
    );
    drop(client);
}

#[test]
fn min_pool_size_of_a_forced_user_needs_no_client() {
    let Some(tenant) = Tenant::new() else { return };
    let target = format!(
        "host=127.0.0.1 port={} dbname={1} user={1} min_pool_size=2",
        tenant.postgres.port(),
        tenant.name
    );
    let pooler = start(tenant.ini().database("forced", &target));
    eventually(
        Duration::from_secs(3),
        || tenant.backends(),
        |count| *count == 2,
    );
    drop(pooler);
}

#[test]
fn min_pool_size_does_not_break_limits() {
    let Some(scene) = Scene::new(|ini| {
        ini.set("min_pool_size", 5)
            .set("default_pool_size", 5)
            .set("max_user_connections", 2)
    }) else {
        return;
    };
    let watch = scene.tenant.watch();
    let _client = scene.client();
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(watch.end().most, 2);
    let log = scene.pooler.log();
    assert_eq!(
        log.matches("new connection to server (from").count(),
        2,
        "{log}"
    );
    assert!(!log.contains("evicted"), "{log}");
}

#[test]
fn the_reserve_is_opened_for_those_who_wait_long() {
    let Some(scene) = Scene::new(|ini| {
        ini.set("default_pool_size", 2)
            .set("reserve_pool_size", 2)
            .set("reserve_pool_timeout", 1)
    }) else {
        return;
    };
    let mut clients: Vec<RawClient> = (0..5).map(|_| scene.client()).collect();
    for client in &mut clients {
        client.send(&Batch::new().query("select 1 from pg_sleep(3)"));
    }
    thread::sleep(Duration::from_millis(600));
    assert_eq!(scene.tenant.backends(), 2);
    scene.backends_become(4);
    for client in &mut clients {
        assert_eq!(story(&client.until_ready()), SELECT_1);
    }
    let log = scene.pooler.log();
    assert_eq!(
        log.matches("taking connection from reserve_pool").count(),
        2,
        "{log}"
    );
}

#[test]
fn an_idle_server_of_another_pool_gives_way_to_whoever_waits() {
    let Some(tenant) = Tenant::new() else { return };
    let other = format!("{}_other", tenant.name);
    tenant.root().rows(&format!("create role {other} login"));
    let users = format!(
        "\"postgres\" \"\"\n\"{}\" \"\"\n\"{other}\" \"\"\n",
        tenant.name
    );
    let ini = tenant.ini().set("max_db_connections", 2);
    let pooler = start(ini.file("userlist.txt", &users).set("default_pool_size", 2));
    let mut first: Vec<RawClient> = (0..2).map(|_| tenant.client(&pooler)).collect();
    for client in &mut first {
        client.send(&Batch::new().query("select 1 from pg_sleep(0.2)"));
    }
    for client in &mut first {
        assert_eq!(story(&client.until_ready()), SELECT_1);
    }
    assert_eq!(tenant.backends(), 2);

    let mut second = RawClient::login(pooler.port, &tenant.name, &other);
    let asked = Instant::now();
    assert_eq!(second.query("select 1"), SELECT_1);
    assert!(asked.elapsed() < Duration::from_secs(1));
    assert!(
        pooler.log().contains("closing because: evicted"),
        "{}",
        pooler.log()
    );
}

#[test]
fn pool_idle_timeout_forgets_pools_that_nobody_uses() {
    let Some(scene) = Scene::new(|ini| {
        ini.set("pool_idle_timeout", 1)
            .set("server_idle_timeout", 1)
    }) else {
        return;
    };
    assert_eq!(scene.client().query("select 1"), SELECT_1);
    let mut operator = console(&scene.pooler);
    eventually(
        Duration::from_secs(6),
        || operator.table("show pools"),
        |pools| pools.find("database", &scene.tenant.name).is_none(),
    );
    assert!(scene.pooler.log().contains("cleaning up idle pool"));
    assert_eq!(scene.client().query("select 1"), SELECT_1);
}
