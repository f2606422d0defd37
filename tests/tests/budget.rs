//! The promise: a PostgreSQL has no more connections from the pooler than its limit says, over all databases and users;
//! and SHOW BUDGET says which limit that is.

use std::{thread, time::Duration};

use pgweir_tests::{Batch, Ini, Pooler, RawClient, Tenant, console, eventually, start};

/// Three databases of the pooler that are one of PostgreSQL's.
fn three_databases(tenant: &Tenant) -> Ini {
    let server = format!(
        "host=127.0.0.1 port={} dbname={}",
        tenant.postgres.port(),
        tenant.name
    );
    ["one", "two", "three"]
        .into_iter()
        .fold(tenant.ini(), |ini, name| ini.database(name, &server))
}

fn login(tenant: &Tenant, pooler: &Pooler, database: &str) -> RawClient {
    RawClient::login(pooler.port, database, &tenant.name)
}

/// Many clients of all databases at once: all are served, and PostgreSQL never has more than `limit` connections.
fn crowd(tenant: &Tenant, pooler: &Pooler, limit: u32) {
    let watch = tenant.watch();
    thread::scope(|scope| {
        for number in 0..30 {
            let database = ["one", "two", "three"][number % 3];
            scope.spawn(move || {
                for _ in 0..5 {
                    let mut client = login(tenant, pooler, database);
                    assert_eq!(
                        client.query("select pg_sleep(0.01)"),
                        "T D() C(SELECT 1) Z(I)"
                    );
                }
            });
        }
    });
    let seen = watch.end();
    assert!(seen.most <= limit, "{seen:?}");
    assert!(seen.most > 0 && seen.count > 10, "{seen:?}");
}

#[test]
fn a_host_has_a_limit_over_all_databases() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(three_databases(&tenant).set("max_host_connections", 4));
    crowd(&tenant, &pooler, 4);
}

#[test]
fn a_part_of_what_postgres_has_is_found_out() {
    let Some(tenant) = Tenant::new() else { return };
    // Of 300 connections 3 are reserved for superusers; 2% of the others are 5.
    let pooler = start(three_databases(&tenant).set("max_host_connections", "2%"));
    let mut first = login(&tenant, &pooler, "one");
    assert_eq!(first.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    let limit = budget(&pooler, "max_host_connections", "limit");
    assert_eq!(limit, "5");
    crowd(&tenant, &pooler, 5);
    assert_eq!(budget(&pooler, "max_connections", "limit"), "300");
    assert_eq!(
        budget(&pooler, "max_connections less reserved", "limit"),
        "297"
    );
}

#[test]
fn several_hosts_have_a_limit_each() {
    let Some(tenant) = Tenant::new() else { return };
    let server = format!(
        "host=127.0.0.1,localhost port={} dbname={}",
        tenant.postgres.port(),
        tenant.name
    );
    let ini = tenant.ini().database("both", &server);
    let pooler = start(
        ini.set("max_host_connections", 1)
            .set("query_wait_timeout", 1),
    );
    let mut clients: Vec<_> = (0..3).map(|_| login(&tenant, &pooler, "both")).collect();
    for client in &mut clients[..2] {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    }
    clients[2].send(&Batch::new().query("begin"));
    assert!(clients[2].until_closed().contains("query_wait_timeout"));
    assert_eq!(tenant.backends(), 2);
}

#[test]
fn show_budget_marks_the_limit_that_clients_wait_for() {
    let Some(tenant) = Tenant::new() else { return };
    for (key, value) in [
        ("max_db_connections", 1),
        ("max_host_connections", 1),
        ("pool_size", 1),
    ] {
        let ini = three_databases(&tenant).set("error_codes", "postgres");
        let ini = ini.set("query_wait_timeout", "1.5");
        let pooler = start(match key {
            "pool_size" => ini.set("default_pool_size", value),
            _ => ini.set(key, value),
        });
        let mut holder = login(&tenant, &pooler, "one");
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let mut waiter = login(&tenant, &pooler, "one");
        waiter.send(&Batch::new().query("select 1"));
        eventually(
            Duration::from_secs(5),
            || budget(&pooler, key, "waiting"),
            |waiting| waiting == "1",
        );
        assert_eq!(budget(&pooler, key, "binding"), "yes", "{key}");
        let table = console(&pooler).table("show budget");
        let marked = table.iter().filter(|row| row.get("binding") == Some("yes"));
        let marked: Vec<_> = marked.filter_map(|row| row.get("name")).collect();
        assert_eq!(marked, [key]);
        let answer = waiter.until_ready();
        let (detail, _) = answer[0].explanation();
        assert!(detail.contains(&format!("{key} of ")), "{key}: {detail}");
    }
}

/// A cell of SHOW BUDGET.
fn budget(pooler: &Pooler, name: &str, column: &str) -> String {
    let table = console(pooler).table("show budget");
    let row = table.find("name", name);
    row.and_then(|row| row.get(column))
        .unwrap_or_default()
        .to_owned()
}

/// A database with a forced user, as whom PostgreSQL can be asked before any client comes.
fn forced(tenant: &Tenant) -> Ini {
    let server = format!(
        "host=127.0.0.1 port={} dbname={1} user={1}",
        tenant.postgres.port(),
        tenant.name
    );
    tenant.ini().database("forced", &server)
}

#[test]
fn more_than_postgres_has_is_said_with_numbers() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(forced(&tenant).set("default_pool_size", 500));
    let mut client = login(&tenant, &pooler, "forced");
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    eventually(
        Duration::from_secs(5),
        || pooler.log(),
        |log| {
            log.contains("PostgreSQL has 297 connections for ordinary users (max_connections 300, 3 of them reserved)")
        },
    );
    assert!(pooler.log().contains("forced 500"), "{}", pooler.log());
}

#[test]
fn what_can_ask_for_too_much_does_not_start_if_that_is_enforced() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = || {
        forced(&tenant)
            .set("preflight", "enforce")
            .set("default_pool_size", 500)
    };
    let error = Pooler::start(ini())
        .expect_err("it must not start")
        .to_string();
    assert!(error.contains("500 servers can be asked for"), "{error}");
    start(ini().set("max_host_connections", "auto"));
    let nobody = Ini::in_front_of(tenant.postgres).set("preflight", "enforce");
    let error = Pooler::start(nobody)
        .expect_err("nobody can ask")
        .to_string();
    assert!(
        error.contains("needs a database with user= or auth_user"),
        "{error}"
    );
}
