//! Servers that are replaced, checked and chosen.

use std::{thread, time::Duration};

use pgweir_tests::{Batch, Ini, RawClient, SELECT_1, Tenant, eventually, start, story};

use super::scene::{PID, Scene};

#[test]
fn server_lifetime_replaces_servers_between_transactions() {
    let Some(scene) = Scene::new(|ini| ini.set("server_lifetime", 1)) else {
        return;
    };
    let mut client = scene.client();
    let old = client.value("begin; select pg_backend_pid()");
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(client.value(PID), old, "not in a transaction");
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    scene.backends_become(0);
    assert_ne!(client.value(PID), old);
    assert!(
        scene
            .pooler
            .log()
            .contains("closing because: server lifetime over"),
        "{}",
        scene.pooler.log()
    );
}

#[test]
fn server_lifetime_zero_uses_a_server_once() {
    let Some(scene) = Scene::new(|ini| ini.set("server_lifetime", 0)) else {
        return;
    };
    let mut client = scene.client();
    let first = client.value(PID);
    scene.backends_become(0);
    assert_ne!(client.value(PID), first);
}

#[test]
fn server_lifetime_can_be_set_per_database() {
    let Some(scene) = Scene::new(|ini| ini.set("server_lifetime", 3600)) else {
        return;
    };
    let target = format!(
        "host=127.0.0.1 port={} dbname={} server_lifetime=1",
        scene.tenant.postgres.port(),
        scene.tenant.name
    );
    let ini = scene.ini.clone().database("brief", &target);
    scene.pooler.reload(ini).expect("RELOAD");
    let mut client = RawClient::login(scene.pooler.port, "brief", &scene.tenant.name);
    assert_eq!(client.query("select 1"), SELECT_1);
    scene.backends_become(0);
}

#[test]
fn server_idle_timeout_closes_unused_servers() {
    let Some(scene) = Scene::new(|ini| {
        ini.set("server_idle_timeout", 1)
            .set("default_pool_size", 3)
    }) else {
        return;
    };
    scene.occupy(3);
    assert_eq!(scene.tenant.backends(), 3);
    scene.backends_become(0);
    assert!(
        scene
            .pooler
            .log()
            .contains("closing because: server idle timeout")
    );
    assert_eq!(scene.client().query("select 1"), SELECT_1);
}

#[test]
fn a_dead_idle_server_is_noticed_before_a_client_gets_it() {
    let Some(scene) = Scene::new(|ini| ini) else {
        return;
    };
    let mut client = scene.client();
    for _ in 0..3 {
        let pid = client.value(PID);
        scene
            .tenant
            .root()
            .rows(&format!("select pg_terminate_backend({pid})"));
        scene.backends_become(0);
        assert_ne!(client.value(PID), pid, "without an error");
    }
}

#[test]
fn server_check_query_is_asked_after_the_delay_and_its_failure_is_no_clients_business() {
    let Some(scene) = Scene::new(|ini| {
        ini.set("server_check_delay", 0)
            .set("server_check_query", "select 1 from healthy")
    }) else {
        return;
    };
    let mut owner = scene.tenant.direct();
    owner.rows("create table healthy as select 1");
    let mut client = scene.client();
    let pid = client.value(PID);
    assert_eq!(client.value(PID), pid);
    owner.rows("alter table healthy rename to ill");
    assert_ne!(
        client.value(PID),
        pid,
        "a server that fails its check is replaced"
    );
    owner.rows("alter table ill rename to healthy");
    assert_eq!(client.query("select 1"), SELECT_1);
}

#[test]
fn connect_query_is_run_first_and_its_errors_do_not_matter() {
    let Some(scene) = Scene::new(|ini| ini) else {
        return;
    };
    for (query, expected) in [
        ("set work_mem = ''7MB''", "7MB"),
        ("select * from not_there", "4MB"),
    ] {
        let target = format!(
            "host=127.0.0.1 port={} dbname={} connect_query='{query}'",
            scene.tenant.postgres.port(),
            scene.tenant.name
        );
        let ini = scene.ini.clone().database("shop", &target);
        scene.pooler.reload(ini).expect("RELOAD");
        let mut client = RawClient::login(scene.pooler.port, "shop", &scene.tenant.name);
        assert_eq!(client.value("show work_mem"), expected);
    }
    assert!(
        scene
            .pooler
            .log()
            .contains("relation \"not_there\" does not exist")
    );
}

#[test]
fn servers_are_used_in_the_order_that_is_configured() {
    for (round_robin, distinct) in [(0, 1), (1, 3)] {
        let Some(scene) = Scene::new(|ini| {
            ini.set("server_round_robin", round_robin)
                .set("default_pool_size", 3)
        }) else {
            return;
        };
        scene.occupy(3);
        let mut client = scene.client();
        let mut pids: Vec<String> = (0..6).map(|_| client.value(PID)).collect();
        pids.sort();
        pids.dedup();
        assert_eq!(pids.len(), distinct, "server_round_robin = {round_robin}");
    }
}

#[test]
fn hosts_of_a_list_are_used_in_turn() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    for (how, distinct) in [("", 2), ("load_balance_hosts=disable", 1)] {
        let target = format!(
            "host=127.0.0.1,{} port={} dbname={name} {how}",
            tenant.postgres.socket_dir().display(),
            tenant.postgres.port()
        );
        let pooler = start(
            tenant
                .ini()
                .set("default_pool_size", 4)
                .database("both", &target),
        );
        let mut clients: Vec<RawClient> = (0..4)
            .map(|_| RawClient::login(pooler.port, "both", name))
            .collect();
        for client in &mut clients {
            client.send(&Batch::new().query("begin"));
            client.until_ready();
        }
        let mut root = tenant.root();
        let kinds = root.rows(&format!(
            "select distinct client_addr is null from pg_stat_activity where usename = '{name}'"
        ));
        assert_eq!(kinds.len(), distinct, "{how}");
        drop(pooler);
        eventually(
            Duration::from_secs(3),
            || tenant.backends(),
            |count| *count == 0,
        );
    }
}

#[test]
fn postgresql_may_restart_under_the_pooler() {
    // A PostgreSQL of its own, because it is stopped.
    let Some(mut postgres) = pgweir_tests::postgres_with_app() else {
        return;
    };
    let pooler = start(
        Ini::in_front_of(&postgres)
            .set("pool_mode", "transaction")
            .set("server_login_retry", 1),
    );
    let mut idle = RawClient::login(pooler.port, "app", "postgres");
    let mut working = RawClient::login(pooler.port, "app", "postgres");
    assert_eq!(idle.query("select 1"), SELECT_1);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");

    postgres.stop(pgweir_tests::Stop::Fast).expect("it stops");
    let said = working.until_closed();
    assert!(
        said.contains("57P01") || said.contains("server conn crashed?"),
        "{said}"
    );
    idle.send(&Batch::new().query("select 1"));
    assert!(idle.is_silent_for(Duration::from_millis(300)), "it waits");
    postgres.start_again().expect("it starts");
    assert_eq!(story(&idle.until_ready()), SELECT_1);
}
