//! The promise: every time limit is kept, tells the client which one it was, and frees what was held; and pools keep,
//! grow and shrink as they are told.

use std::{
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Ini, Pooler, RawClient, SELECT_1, Tenant, console, eventually, start, story,
};

const PID: &str = "select pg_backend_pid()";

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

/// A listener that accepts and says nothing, and where it is.
fn silent() -> (TcpListener, String) {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = silent.local_addr().expect("bound").port();
    (silent, format!("host=127.0.0.1 port={port}"))
}

#[test]
fn server_connect_timeout_limits_a_server_that_does_not_answer() {
    let Some(tenant) = Tenant::new() else { return };
    let (_silent, place) = silent();
    let pooler = start(
        tenant
            .ini()
            .database("silent", &place)
            .set("server_connect_timeout", 1)
            .set("server_login_retry", 1)
            .set("server_close_timeout", 1)
            .set("query_wait_timeout", 3),
    );
    let parameters = [("user", &*tenant.name), ("database", "silent")];
    let said = RawClient::try_login(pooler.port, &parameters).map(|_| ());
    assert!(
        matches!(&said, Err(text) if text.starts_with("E(FATAL 08P01 ")),
        "{said:?}"
    );
    assert!(
        pooler.log().contains("closing because: connect timeout"),
        "{}",
        pooler.log()
    );
}

#[test]
fn a_login_that_fails_is_told_although_its_connection_does_not_end() {
    let Some(tenant) = Tenant::new() else { return };
    let (silent, place) = silent();
    let pooler = start(
        tenant
            .ini()
            .database("silent", &place)
            .set("server_tls_sslmode", "disable")
            .set("server_connect_timeout", 1)
            .set("server_close_timeout", 1)
            .set("server_down_timeout", 1)
            .set("query_wait_timeout", 60),
    );
    let parameters = [("user", &*tenant.name), ("database", "silent")];
    let asked = Instant::now();
    let said = RawClient::try_login(pooler.port, &parameters).map(|_| ());
    assert!(
        matches!(&said, Err(text) if text.contains("server login has been failing")),
        "{said:?}"
    );
    assert!(asked.elapsed() < Duration::from_secs(10));
    let mut console = console(&pooler);
    let quarantined = || console.table("show quarantine").rows.len();
    eventually(Duration::from_secs(5), quarantined, |&slots| slots > 0);
    // It ends after all.
    drop(silent);
    let quarantined = || console.table("show quarantine").rows.len();
    eventually(Duration::from_secs(10), quarantined, |&slots| slots == 0);
}

#[test]
fn server_connect_timeout_limits_a_connection_that_does_not_come_about() {
    let Some(tenant) = Tenant::new() else { return };
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let _queue = stop_answering(&listener);
    let pooler = start(
        tenant
            .ini()
            .database("deaf", &format!("host=127.0.0.1 port={port}"))
            .set("server_connect_timeout", 1)
            .set("query_wait_timeout", 2),
    );
    let parameters = [("user", &*tenant.name), ("database", "deaf")];
    let said = RawClient::try_login(pooler.port, &parameters).map(|_| ());
    assert!(said.is_err(), "{said:?}");
    let log = pooler.log();
    assert!(log.contains("closing because: connect failed"), "{log}");
}

#[test]
fn cancel_wait_timeout_gives_up_a_cancel_that_does_not_get_through() {
    let Some(tenant) = Tenant::new() else { return };
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let name = &tenant.name;
    let pooler = start(
        tenant
            .ini()
            .database("hop", &format!("host=127.0.0.1 port={port} dbname={name}"))
            .set("cancel_wait_timeout", 1),
    );
    let hop = listener.try_clone().expect("a socket");
    let target = ("127.0.0.1", tenant.postgres.port());
    thread::spawn(move || forward(&hop, target));
    let mut client = RawClient::login(pooler.port, "hop", name);
    client.send(&Batch::new().query("select 1 from pg_sleep(2)"));
    let slept = "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = ";
    let slept = format!("{slept}'{name}'");
    let mut root = tenant.root();
    let asleep = || root.rows(&slept).len();
    eventually(Duration::from_secs(10), asleep, |&sleepers| sleepers == 1);
    let _queue = stop_answering(&listener);
    client.cancel();
    assert_eq!(story(&client.until_ready()), SELECT_1);
    let log = pooler.log();
    assert!(
        log.contains("closing because: cancel_wait_timeout"),
        "{log}"
    );
}

/// From now on whoever connects gets no answer: the queue is short, and full of these.
fn stop_answering(listener: &TcpListener) -> Vec<TcpStream> {
    let address = listener.local_addr().expect("bound");
    socket2::SockRef::from(listener)
        .listen(0)
        .expect("it listens already");
    let knock = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
    std::iter::from_fn(knock).take(16).collect()
}

#[test]
fn after_a_failed_login_the_next_attempt_waits_for_server_login_retry() {
    let Some(tenant) = Tenant::new() else { return };
    let port = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.local_addr().expect("bound").port()
    };
    let pooler = start(
        tenant
            .ini()
            .database("later", &format!("host=127.0.0.1 port={port}"))
            .set("server_login_retry", 1),
    );
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", &tenant.name), ("database", "later")]);
    thread::sleep(Duration::from_millis(2500));
    let attempts = pooler
        .log()
        .matches("closing because: connect failed")
        .count();
    assert!(
        (2..=4).contains(&attempts),
        "{attempts} in 2.5 s\n{}",
        pooler.log()
    );

    // Somebody like PostgreSQL begins to listen: the waiting client is served.
    let target = ("127.0.0.1", tenant.postgres.port());
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("still free");
    thread::spawn(move || forward(&listener, target));
    let said = client.finish_login();
    assert!(
        said == Ok(())
            || said == Err("E(FATAL 3D000 database \"later\" does not exist)".to_owned()),
        "{said:?}"
    );
}

/// Passes the bytes of one connection on, in both directions.
fn forward(listener: &TcpListener, target: (&str, u16)) {
    let Ok((mut inside, _)) = listener.accept() else {
        return;
    };
    let mut outside = TcpStream::connect(target).expect("PostgreSQL listens");
    let (mut back, mut forth) = (
        outside.try_clone().expect("a socket"),
        inside.try_clone().expect("a socket"),
    );
    thread::spawn(move || std::io::copy(&mut back, &mut forth));
    let _ = std::io::copy(&mut inside, &mut outside);
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

struct Scene {
    tenant: Tenant,
    ini: Ini,
    pooler: Pooler,
}

impl Scene {
    /// A pool of one, unless it is changed.
    fn new(change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
        let tenant = Tenant::new()?;
        let ini = change(tenant.ini().set("default_pool_size", 1));
        let pooler = start(ini.clone());
        Some(Self {
            tenant,
            ini,
            pooler,
        })
    }

    fn client(&self) -> RawClient {
        self.tenant.client(&self.pooler)
    }

    /// The client is sent away with this text, in time and in order, and the log says the same.
    #[track_caller]
    fn is_told(&self, client: &mut RawClient, text: &str) {
        let asked = Instant::now();
        let said = client.until_closed();
        let waited = asked.elapsed();
        let error = format!("E(FATAL 08P01 {text})");
        assert!(said.ends_with(&error), "{said}");
        assert!(waited < Duration::from_secs(3), "after {waited:?}");
        let log = self.pooler.log();
        assert!(
            log.contains(&format!("closing because: {text} (age=")),
            "{log}"
        );
    }

    #[track_caller]
    fn backends_become(&self, expected: u32) {
        eventually(
            Duration::from_secs(4),
            || self.tenant.backends(),
            |count| *count == expected,
        );
    }

    /// No query and no transaction of the user is left in PostgreSQL.
    #[track_caller]
    fn nothing_runs(&self) {
        let mut root = self.tenant.root();
        let running = format!(
            "select count(*) from pg_stat_activity where usename = '{}' and state <> 'idle'",
            self.tenant.name
        );
        eventually(
            Duration::from_secs(2),
            || root.value(&running),
            |count| count == "0",
        );
    }

    /// Uses so many servers at once, so that they are all open.
    fn occupy(&self, count: usize) {
        let mut clients: Vec<RawClient> = (0..count).map(|_| self.client()).collect();
        for client in &mut clients {
            assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        }
        for client in &mut clients {
            assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
        }
    }
}
