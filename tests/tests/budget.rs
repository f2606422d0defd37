//! The promise: a PostgreSQL has no more connections from the pooler than its limit says, over all databases and users;
//! and SHOW BUDGET says which limit that is.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Cluster, ClusterOptions, Ini, Message, Pooler, RawClient, Row, Strait, Tenant, console,
    eventually, start, story,
};

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
fn another_part_of_what_postgres_has_counts_at_once() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("default_pool_size", 1));
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    let known = || budget(&pooler, "max_connections", "limit");
    eventually(Duration::from_secs(5), known, |limit| limit == "300");
    // From now on there is no server that could be asked.
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let mut operator = console(&pooler);
    for (key, value, limit) in [
        ("max_host_connections", "10%", "29"),
        ("fleet", "2", "14"),
        ("max_host_connections", "7", "3"),
        ("max_host_connections", "auto", "133"),
    ] {
        let said = operator.query(&format!("set {key} = '{value}'"));
        assert_eq!(said, format!("C(SET {key}={value}) Z(I)"));
        assert_eq!(budget(&pooler, "max_host_connections", "limit"), limit);
    }
}

/// A PostgreSQL to which no other test connects.
fn a_postgres_alone() -> Option<&'static Cluster> {
    static ALONE: OnceLock<Option<Cluster>> = OnceLock::new();
    ALONE
        .get_or_init(|| Cluster::start_or_skip(ClusterOptions::default()))
        .as_ref()
}

#[test]
fn sessions_of_others_are_counted_by_whoever_may_not_see_what_they_do() {
    const OTHERS: usize = 7;
    let Some(tenant) = a_postgres_alone().map(Tenant::of) else {
        return;
    };
    let soon = Duration::from_secs(5);
    let mut others: Vec<_> = (0..OTHERS).map(|_| tenant.root()).collect();
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend'";
    eventually(
        soon,
        || others[0].value(sql),
        |count| *count == OTHERS.to_string(),
    );
    let pooler = start(tenant.ini());
    let mut client = login(&tenant, &pooler, &tenant.name);
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    let used = || budget(&pooler, "max_connections", "used");
    let used = eventually(soon, used, |used| !used.is_empty());
    assert_eq!(used, (OTHERS + 1).to_string());
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
fn an_idle_server_makes_room_on_one_of_several_hosts() {
    let Some(tenant) = Tenant::new() else { return };
    let server = |hosts: &str| {
        let (port, name) = (tenant.postgres.port(), &tenant.name);
        format!("host={hosts} port={port} dbname={name}")
    };
    let ini = tenant
        .ini()
        .database("one", &server("127.0.0.1"))
        .database("two", &server("localhost"))
        .database("both", &server("127.0.0.1,localhost"));
    let pooler = start(
        ini.set("max_host_connections", 1)
            .set("query_wait_timeout", 10),
    );
    let select = "T D(1) C(SELECT 1) Z(I)";
    for database in ["one", "two"] {
        let mut client = login(&tenant, &pooler, database);
        assert_eq!(client.query("select 1"), select);
    }
    let asked = Instant::now();
    let mut client = login(&tenant, &pooler, "both");
    assert_eq!(client.query("select 1"), select);
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(tenant.backends(), 2);
}

/// The limit that is marked is the one that whoever is refused next is told.
#[track_caller]
fn names_what_is_marked(pooler: &Pooler, refusal: &Message, expected: &[&str]) {
    let table = console(pooler).table("show budget");
    let marked: Vec<_> = table
        .iter()
        .filter(|row| row.get("binding") == Some("yes"))
        .collect();
    let mut names: Vec<_> = marked.iter().filter_map(|row| row.get("name")).collect();
    names.sort_unstable();
    assert_eq!(names, expected, "{table}");
    let (detail, _) = refusal.explanation();
    for row in marked {
        let name = row.get("name").expect("a column");
        let number = format!("{} is {}", subject_of(&row), row.number("limit"));
        let named = detail.contains(&number) || detail.contains(&format!("({name})"));
        assert!(named, "{number}: {refusal}: {detail}");
    }
}

fn subject_of(row: &Row<'_>) -> String {
    let name = row.get("name").expect("a column");
    match row.get("subject") {
        None | Some("" | "NULL") => name.to_owned(),
        Some(subject) => format!("{name} of {subject}"),
    }
}

/// A pooler whose clients of `one` wait for a short while.
fn short(tenant: &Tenant) -> Ini {
    three_databases(tenant)
        .set("error_codes", "postgres")
        .set("query_wait_timeout", "1.5")
        .set("server_login_retry", 1)
}

/// The error that a client is told which has been waiting.
#[track_caller]
fn refusal(client: &mut RawClient) -> Message {
    let answer = client.until_ready();
    assert_eq!(answer.len(), 2, "{}", story(&answer));
    answer.into_iter().next().expect("counted")
}

#[test]
fn show_budget_marks_the_limit_that_clients_wait_for() {
    let Some(tenant) = Tenant::new() else { return };
    for key in [
        "pool_size",
        "max_db_connections",
        "max_user_connections",
        "max_host_connections",
        "max_app_connections",
        "max_address_connections",
    ] {
        let ini = short(&tenant);
        let pooler = start(match key {
            "pool_size" => ini.set("default_pool_size", 1),
            _ => ini.set(key, 1),
        });
        let of_app = || {
            let (name, app) = (&*tenant.name, "shop");
            let login = [
                ("user", name),
                ("database", "one"),
                ("application_name", app),
            ];
            RawClient::login_with(pooler.port, &login)
        };
        let mut holder = of_app();
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let mut waiter = of_app();
        waiter.send(&Batch::new().query("select 1"));
        eventually(
            Duration::from_secs(5),
            || budget(&pooler, key, "waiting"),
            |waiting| waiting == "1",
        );
        let refusal = refusal(&mut waiter);
        assert_eq!(refusal.to_string(), "E(53300 query_wait_timeout)", "{key}");
        names_what_is_marked(&pooler, &refusal, &[key]);
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    }
}

#[test]
fn a_full_queue_is_marked_beside_what_it_waits_for() {
    let Some(tenant) = Tenant::new() else { return };
    for key in ["max_pool_waiting", "max_waiting"] {
        let pooler = start(short(&tenant).set("default_pool_size", 1).set(key, 1));
        let mut holder = login(&tenant, &pooler, "one");
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let mut waiter = login(&tenant, &pooler, "one");
        waiter.send(&Batch::new().query("select 1"));
        eventually(
            Duration::from_secs(5),
            || budget(&pooler, key, "used"),
            |used| used == "1",
        );
        let mut late = login(&tenant, &pooler, "one");
        late.send(&Batch::new().query("select 1"));
        let refusal = refusal(&mut late);
        let text = "E(53300 too many clients waiting for a server)";
        assert_eq!(refusal.to_string(), text, "{key}");
        names_what_is_marked(&pooler, &refusal, &[key, "pool_size"]);
    }
}

#[test]
fn the_reserve_is_a_part_of_the_size_where_it_is_open() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = short(&tenant).set("default_pool_size", 1);
    let pooler = start(
        ini.set("reserve_pool_size", 1)
            .set("reserve_pool_timeout", "0.1"),
    );
    let mut clients: Vec<_> = (0..3).map(|_| login(&tenant, &pooler, "one")).collect();
    for client in &mut clients[..2] {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    }
    clients[2].send(&Batch::new().query("select 1"));
    let refused = refusal(&mut clients[2]);
    // Nobody waits any more, and so the reserve is closed to whoever comes next.
    let (detail, _) = refused.explanation();
    assert!(detail.contains("/tenant"), "{detail}");
    assert!(detail.contains(" is 2, 2 in use"), "{detail}");
    clients[2].send(&Batch::new().query("select 1"));
    eventually(
        Duration::from_secs(1),
        || budget(&pooler, "pool_size", "limit"),
        |limit| limit == "2",
    );
    refusal(&mut clients[2]);
}

#[test]
fn logins_at_one_host_are_marked_while_others_wait_for_them() {
    let Some(tenant) = Tenant::new() else { return };
    let strait = Strait::to(tenant.postgres.port());
    let target = format!("host=127.0.0.1 port={} dbname={}", strait.port, tenant.name);
    let ini = short(&tenant)
        .database("one", &target)
        .database("two", &target);
    let pooler = start(ini.set("max_host_logins", 1));
    let mut clients = ["one", "two"].map(|database| login(&tenant, &pooler, database));
    for client in &mut clients {
        assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    }
    strait.cut();
    let mut operator = console(&pooler);
    eventually(
        Duration::from_secs(5),
        || operator.table("show servers").rows.len(),
        |servers| *servers == 0,
    );
    strait.block(true);
    clients[0].send(&Batch::new().query("select 1"));
    eventually(
        Duration::from_secs(5),
        || budget(&pooler, "max_host_logins", "used"),
        |used| used == "1",
    );
    clients[1].send(&Batch::new().query("select 1"));
    let refused = refusal(&mut clients[1]);
    names_what_is_marked(&pooler, &refused, &["max_host_logins"]);
    strait.block(false);
}

#[test]
fn limits_of_postgresql_are_marked_and_named_as_its_own() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    for (object, row) in [
        ("role", "role CONNECTION LIMIT"),
        ("database", "database CONNECTION LIMIT"),
    ] {
        // A connection to the database would count.
        let limit = |n: i32| {
            let alter = format!("alter {object} {name} connection limit {n}");
            tenant.postgres.psql("postgres", &alter);
        };
        eventually(
            Duration::from_secs(5),
            || {
                tenant.postgres.psql(
                    "postgres",
                    &format!("select count(*) from pg_stat_activity where datname = '{name}'"),
                )
            },
            |count| count.trim() == "0",
        );
        limit(1);
        let pooler = start(
            tenant
                .ini()
                .set("error_codes", "postgres")
                .set("query_wait_timeout", "1.5")
                .set("server_login_retry", 1),
        );
        let mut holder = tenant.client(&pooler);
        assert_eq!(holder.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
        eventually(
            Duration::from_secs(10),
            || budget(&pooler, row, "limit"),
            |limit| limit == "1",
        );
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let mut waiter = tenant.client(&pooler);
        waiter.send(&Batch::new().query("select 1"));
        let refused = refusal(&mut waiter);
        assert_eq!(refused.to_string(), "E(53300 query_wait_timeout)", "{row}");
        names_what_is_marked(&pooler, &refused, &[row]);
        let (detail, _) = refused.explanation();
        assert!(
            detail.contains(&format!("too many connections for {object}")),
            "{detail}"
        );
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
        limit(-1);
    }
}

#[test]
fn limits_on_clients_are_marked_and_named_at_login() {
    let Some(tenant) = Tenant::new() else { return };
    for key in [
        "max_client_conn",
        "max_db_client_connections",
        "max_user_client_connections",
        "max_app_client_connections",
        "max_address_client_connections",
        "max_logins",
    ] {
        let pooler = start(short(&tenant).set(key, 1));
        let mut first = RawClient::connect(pooler.port);
        let wish = [
            ("user", tenant.name.as_str()),
            ("database", "one"),
            ("application_name", "shop"),
        ];
        if key == "max_logins" {
            // Its first packet does not come to its end.
            first.send_bytes(&[0, 0, 0, 200, 0, 3, 0, 0]);
            eventually(
                Duration::from_secs(5),
                || budget(&pooler, key, "used"),
                |used| !used.is_empty() && used != "0",
            );
        } else {
            first.start_login(&wish);
            assert_eq!(first.finish_login(), Ok(()), "{key}");
        }
        let mut second = RawClient::connect(pooler.port);
        second.start_login(&wish);
        let refused = loop {
            let message = second.read().expect("an error comes");
            if message.tag == b'E' {
                break message;
            }
        };
        assert!(
            refused.to_string().starts_with("E(FATAL 53300 "),
            "{key}: {refused}"
        );
        names_what_is_marked(&pooler, &refused, &[key]);
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
