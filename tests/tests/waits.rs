//! The promise: the metrics say what clients have waited for: a limit by its key, a login, a PostgreSQL that is down, an
//! operator; and a wait that ends with nothing counts as well.

use std::{thread, time::Duration};

use pgweir_tests::{
    Batch, Http, Ini, Pooler, RawClient, Strait, Tenant, console, eventually, http::Metrics, start,
};

const SOON: Duration = Duration::from_secs(20);
const FAMILY: &str = "pgweir_client_wait_cause_seconds";

/// The causes that waits for a database were put down to, and how many of each there were.
fn causes(metrics: &Metrics, database: &str) -> Vec<(String, u32)> {
    let name = format!("{FAMILY}_count");
    let labels = [("database", database)];
    let counts = metrics.all(&name, &labels);
    counts
        .map(|sample| (sample.labels["cause"].clone(), sample.value as u32))
        .collect()
}

/// How long waits took that were put down to a cause, in seconds.
fn seconds(metrics: &Metrics, database: &str, cause: &str) -> f64 {
    let labels = [("database", database), ("cause", cause)];
    metrics.value(&format!("{FAMILY}_sum"), &labels)
}

fn begin(client: &mut RawClient) {
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
}

fn through(strait: &Strait, tenant: &Tenant) -> Ini {
    let (name, port) = (&tenant.name, strait.port);
    let target = format!("host=127.0.0.1 port={port} dbname={name}");
    Http::set(tenant.ini()).database(name, &target)
}

fn waiting(pooler: &Pooler, database: &str) -> i64 {
    let pools = console(pooler).table("show pools");
    let row = pools.find("database", database);
    row.map_or(0, |row| row.number("cl_waiting"))
}

#[test]
fn each_limit_has_the_waits_that_it_caused() {
    for (limit, key) in [
        ("default_pool_size", "pool_size"),
        ("max_db_connections", "max_db_connections"),
        ("max_user_connections", "max_user_connections"),
        ("max_host_connections", "max_host_connections"),
        ("max_app_connections", "max_app_connections"),
        ("max_address_connections", "max_address_connections"),
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let ini = Http::set(tenant.ini())
            .set("default_pool_size", 10)
            .set("preflight", "off");
        let pooler = start(ini.set(limit, 1));
        let http = Http::of(&pooler);
        let mut holder = tenant.client(&pooler);
        begin(&mut holder);
        let mut waiter = tenant.client(&pooler);
        waiter.send(&Batch::new().query("select 1"));
        eventually(SOON, || waiting(&pooler, &tenant.name), |count| *count == 1);
        thread::sleep(Duration::from_millis(200));
        holder.query("commit");
        waiter.until_ready();
        let metrics = http.metrics();
        let mut seen = causes(&metrics, &tenant.name);
        // The first client has waited for the first server.
        seen.retain(|(cause, _)| cause != "login");
        assert_eq!(seen, [(key.to_owned(), 1)], "{limit}");
        let waited = seconds(&metrics, &tenant.name, key);
        assert!((0.15..20.0).contains(&waited), "{limit}: {waited}");
    }
}

#[test]
fn who_waits_for_a_login_or_for_its_turn_to_log_in_is_told_apart() {
    let Some(tenant) = Tenant::new() else { return };
    let strait = Strait::to(tenant.postgres.port());
    let ini = through(&strait, &tenant)
        .set("default_pool_size", 10)
        .set("max_host_logins", 1);
    let pooler = start(ini);
    let http = Http::of(&pooler);
    let mut holder = tenant.client(&pooler);
    begin(&mut holder);
    let before = causes(&http.metrics(), &tenant.name);
    assert_eq!(before.len(), 1, "{before:?}");
    assert_eq!(before[0].0, "login");
    strait.block(true);
    let mut waiters = [tenant.client(&pooler), tenant.client(&pooler)];
    for waiter in &mut waiters {
        waiter.send(&Batch::new().query("select pg_sleep(0.5)"));
    }
    eventually(SOON, || waiting(&pooler, &tenant.name), |count| *count == 2);
    thread::sleep(Duration::from_millis(700));
    strait.block(false);
    for waiter in &mut waiters {
        waiter.until_ready();
    }
    let after = causes(&http.metrics(), &tenant.name);
    let expected = [
        ("login".to_owned(), before[0].1 + 1),
        ("max_host_logins".to_owned(), 1),
    ];
    assert_eq!(after, expected);
}

#[test]
fn a_pause_counts_for_what_it_took_and_not_what_came_before() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()).set("default_pool_size", 1));
    let http = Http::of(&pooler);
    let name = &tenant.name;
    let mut holder = tenant.client(&pooler);
    begin(&mut holder);
    let mut waiter = tenant.client(&pooler);
    waiter.send(&Batch::new().query("select 1"));
    eventually(SOON, || waiting(&pooler, name), |count| *count == 1);
    // The wait begins because the pool is full, and lasts because an operator has paused it.
    let mut operator = console(&pooler);
    operator.send(&Batch::new().query(&format!("PAUSE {name}")));
    thread::sleep(Duration::from_millis(500));
    holder.query("commit");
    operator.until_ready();
    thread::sleep(Duration::from_secs(2));
    operator.query(&format!("RESUME {name}"));
    waiter.until_ready();
    let metrics = http.metrics();
    let mut seen = causes(&metrics, name);
    seen.retain(|(cause, _)| cause != "login");
    assert_eq!(seen, [("paused".to_owned(), 1)]);
    assert!(seconds(&metrics, name, "paused") > 2.0);
}

#[test]
fn whoever_waits_for_a_server_that_is_down_counts_though_it_gets_none() {
    let Some(tenant) = Tenant::new() else { return };
    let strait = Strait::to(tenant.postgres.port());
    let ini = through(&strait, &tenant)
        .set("server_connect_timeout", "0.3")
        .set("server_login_retry", 30)
        .set("server_down_timeout", 0)
        .set("query_wait_timeout", "1.5")
        .set("error_codes", "postgres");
    let pooler = start(ini);
    let http = Http::of(&pooler);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.value("select 1"), "1");
    strait.block(true);
    strait.cut();
    client.send(&Batch::new().query("select 1"));
    let answer = client.until_ready();
    assert!(!answer.is_empty());
    let metrics = http.metrics();
    let mut seen = causes(&metrics, &tenant.name);
    seen.retain(|(cause, _)| cause != "login");
    assert_eq!(seen, [("server_down".to_owned(), 1)]);
    let waited = seconds(&metrics, &tenant.name, "server_down");
    assert!((1.0..20.0).contains(&waited), "{waited}");
}

#[test]
fn applications_have_the_time_that_they_held_servers_and_waited() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()).set("default_pool_size", 1));
    let http = Http::of(&pooler);
    let as_app = |app| {
        let name = tenant.name.as_str();
        let parameters = [
            ("user", name),
            ("database", name),
            ("application_name", app),
        ];
        RawClient::login_with(pooler.port, &parameters)
    };
    let (mut holder, mut waiter) = (as_app("hog"), as_app("shop"));
    begin(&mut holder);
    waiter.send(&Batch::new().query("select 1"));
    let seen = |app, state| {
        let labels = [("application_name", app), ("state", state)];
        http.metrics()
            .sum("pgweir_application_seconds_total", &labels)
    };
    eventually(SOON, || seen("shop", "waiting"), |time| *time > 1.0);
    assert!(seen("hog", "holding") > 1.0);
    assert_eq!(
        (seen("hog", "waiting"), seen("shop", "holding")),
        (0.0, 0.0)
    );
    let held = http.metrics();
    let part = |metrics: &Metrics, time: &str, part: &str, app: &str| {
        let name = format!("pgweir_application_{time}_seconds_{part}");
        metrics.sum(&name, &[("application_name", app)])
    };
    assert_eq!(part(&held, "xact", "count", "hog"), 0.0, "it goes on");
    holder.query("commit");
    waiter.until_ready();
    for _ in 0..5 {
        waiter.value("select 1");
    }

    let metrics = http.metrics();
    let both = |time, app| {
        let of = |what| part(&metrics, time, what, app);
        (of("count"), of("sum"))
    };
    let is_long = |seconds: f64| (1.0..60.0).contains(&seconds);
    let (transactions, took) = both("xact", "hog");
    assert!(transactions == 1.0 && is_long(took), "{took}");
    let (leases, took) = both("hold", "hog");
    assert!(leases == 1.0 && is_long(took), "{took}");
    // BEGIN and COMMIT.
    let (queries, took) = both("query", "hog");
    assert!(queries == 2.0 && took < 1.0, "{took}");
    assert_eq!(both("wait", "hog"), (1.0, 0.0));
    let (waits, took) = both("wait", "shop");
    assert!(waits == 6.0 && is_long(took), "{took}");
    let (leases, took) = both("hold", "shop");
    assert!(leases == 6.0 && took < 1.0, "{took}");
    let at_most = [("application_name", "shop"), ("le", "0.0001")];
    let at_once = metrics.value("pgweir_application_wait_seconds_bucket", &at_most);
    assert_eq!(at_once, 5.0);

    // Who takes another name is recorded under that from then on.
    waiter.query("set application_name = 'stall'");
    for _ in 0..3 {
        waiter.value("select 1");
    }
    let metrics = http.metrics();
    assert_eq!(part(&metrics, "query", "count", "shop"), 7.0);
    assert_eq!(part(&metrics, "query", "count", "stall"), 3.0);
}

#[test]
fn applications_beyond_a_hundred_are_counted_together() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()));
    let http = Http::of(&pooler);
    let mut client = tenant.client(&pooler);
    for number in 0..130 {
        client.query(&format!("set application_name = 'app{number}'"));
        client.value("select 1");
    }
    let metrics = http.metrics();
    let all = metrics.all("pgweir_application_query_seconds_count", &[]);
    assert_eq!(all.count(), 101);
    let other = [("application_name", "other")];
    let queries = metrics.value("pgweir_application_query_seconds_count", &other);
    // The first of the hundred is no name at all. The other 31 have asked for two things each, the last one for one.
    assert_eq!(queries, 61.0);
    let all = metrics.sum("pgweir_application_query_seconds_count", &[]);
    assert_eq!(all, 260.0);
}

#[test]
fn who_never_waits_is_not_in_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(Http::set(tenant.ini()).set("reconcile_period", 0));
    let http = Http::of(&pooler);
    let mut client = tenant.client(&pooler);
    client.value("select 1");
    // The pooler asks PostgreSQL for its limits on the same server.
    let asked = || http.metrics().sum("pgweir_pg_max_connections", &[]);
    eventually(SOON, asked, |max| *max > 0.0);
    let before = causes(&http.metrics(), &tenant.name);
    for _ in 0..20 {
        client.value("select 1");
    }
    assert_eq!(causes(&http.metrics(), &tenant.name), before);
}
