//! The promise: /metrics has what dashboards and alerts for PgBouncer read, under the same names and with the same
//! values as the console, and what only this pooler knows.

use std::{net::TcpListener, thread, time::Duration};

use pgweir_tests::{
    Batch, Http, Ini, Pooler, RawClient, Tenant, console, eventually, http::Metrics,
    self_signed_tls, start,
};

const SOON: Duration = Duration::from_secs(10);

/// pgbouncer_exporter 0.12: prefix, names, labels. All are gauges but those that end in `_total`.
const EXPORTER: [(&str, &str, &str); 6] = [
    (
        "pgbouncer_",
        "up databases users pools free_clients used_clients login_clients free_servers used_servers cached_dns_names \
         cached_dns_zones in_flight_dns_queries config_max_client_connections config_max_user_connections",
        "",
    ),
    ("pgbouncer_", "version_info", "version"),
    (
        "pgbouncer_",
        "client_connections",
        "application_name database state user",
    ),
    (
        "pgbouncer_databases_",
        "pool_size reserve_pool max_connections current_connections paused disabled",
        "database force_user host name pool_mode port",
    ),
    (
        "pgbouncer_pools_",
        "client_active_connections client_active_cancel_connections client_waiting_connections \
         client_waiting_cancel_connections server_active_connections server_active_cancel_connections \
         server_being_canceled_connections server_idle_connections server_used_connections \
         server_testing_connections server_login_connections client_maxwait_seconds cl_waiting",
        "database user",
    ),
    (
        "pgbouncer_stats_totals_",
        "queries_pooled_total queries_duration_seconds_total received_bytes_total sent_bytes_total \
         client_wait_seconds_total sql_transactions_pooled_total server_in_transaction_seconds_total \
         client_parses_total server_parses_total binds_total server_assignments_total",
        "database",
    ),
];

/// What exporters before 0.11 had.
const LEGACY: &str = "queries_pooled_total queries_duration_seconds_total received_bytes_total sent_bytes_total \
    client_wait_seconds_total sql_transactions_pooled_total server_in_transaction_seconds_total";

struct Scene {
    tenant: Tenant,
    pooler: Pooler,
    http: Http,
}

impl Scene {
    fn new(change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
        let tenant = Tenant::new()?;
        let pooler = start(change(Http::set(tenant.ini())));
        let http = Http::of(&pooler);
        Some(Self {
            tenant,
            pooler,
            http,
        })
    }

    /// The labels of the tenant's pool.
    fn pool(&self) -> [(&str, &str); 2] {
        [("database", &self.tenant.name), ("user", &self.tenant.name)]
    }
}

#[test]
fn the_exporters_families_are_there_and_no_others() {
    let Some(scene) = Scene::new(|ini| ini) else {
        return;
    };
    let mut client = scene.tenant.client(&scene.pooler);
    assert_eq!(client.value("select 1"), "1");
    let metrics = scene.http.metrics();
    let mut expected = Vec::new();
    for (prefix, names, labels) in EXPORTER {
        for name in names.split_whitespace() {
            let name = format!("{prefix}{name}");
            let kind = match name.ends_with("_total") {
                true => "counter",
                false => "gauge",
            };
            assert_eq!(
                metrics.types.get(&name).map(String::as_str),
                Some(kind),
                "{name}"
            );
            let sample = metrics.all(&name, &[]).next();
            let sample = sample.unwrap_or_else(|| panic!("{name} has no sample"));
            let has: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
            assert_eq!(has, labels.split_whitespace().collect::<Vec<_>>(), "{name}");
            expected.push(name);
        }
    }
    let all = metrics.types.keys();
    let all: Vec<_> = all.filter(|name| name.starts_with("pgbouncer_")).collect();
    expected.sort();
    assert_eq!(all, expected.iter().collect::<Vec<_>>());
    let version = [("version", "PgBouncer 1.25.2")];
    assert_eq!(metrics.value("pgbouncer_version_info", &version), 1.0);
}

#[test]
fn older_names_come_on_request_and_with_a_reload() {
    let Some(scene) = Scene::new(|ini| ini) else {
        return;
    };
    let legacy = |metrics: &Metrics| {
        let names = LEGACY.split_whitespace();
        let found = names.filter(|name| {
            let name = format!("pgbouncer_stats_{name}");
            metrics.types.contains_key(&name)
        });
        found.count()
    };
    assert_eq!(legacy(&scene.http.metrics()), 0);
    let ini = Http::set(scene.tenant.ini()).set("metrics_legacy_names", 1);
    let ini = ini.set("max_client_conn", 77);
    scene.pooler.reload(ini).expect("a good file");
    let metrics = scene.http.metrics();
    assert_eq!(legacy(&metrics), 7);
    assert_eq!(
        metrics.value("pgbouncer_config_max_client_connections", &[]),
        77.0
    );
}

#[test]
fn values_are_those_of_the_console_in_the_same_state() {
    let Some(scene) = Scene::new(|ini| ini.set("default_pool_size", 2)) else {
        return;
    };
    let tenant = &scene.tenant;
    let mut holder = tenant.client(&scene.pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut other = tenant.client(&scene.pooler);
    assert_eq!(other.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = tenant.client(&scene.pooler);
    waiter.send(&Batch::new().query("select 2"));
    let mut operator = console(&scene.pooler);
    let waiting = |operator: &mut RawClient| {
        let pools = operator.table("show pools");
        let row = pools.find("database", &tenant.name);
        row.map(|row| row.number("cl_waiting"))
    };
    eventually(SOON, || waiting(&mut operator), |count| *count == Some(1));

    let metrics = scene.http.metrics();
    let pools = operator.table("show pools");
    let row = pools
        .find("database", &tenant.name)
        .expect("there is the pool");
    for (column, name) in [
        ("cl_active", "client_active_connections"),
        ("cl_waiting", "client_waiting_connections"),
        ("cl_waiting", "cl_waiting"),
        ("sv_active", "server_active_connections"),
        ("sv_idle", "server_idle_connections"),
        ("sv_used", "server_used_connections"),
        ("sv_login", "server_login_connections"),
    ] {
        let name = format!("pgbouncer_pools_{name}");
        let value = metrics.value(&name, &scene.pool());
        assert_eq!(value, row.number(column) as f64, "{name}");
    }
    let stats = operator.table("show stats_totals");
    let row = stats
        .find("database", &tenant.name)
        .expect("there are totals");
    for (column, name) in [
        ("xact_count", "sql_transactions_pooled_total"),
        ("query_count", "queries_pooled_total"),
        ("bytes_received", "received_bytes_total"),
        ("bytes_sent", "sent_bytes_total"),
        ("server_assignment_count", "server_assignments_total"),
    ] {
        let name = format!("pgbouncer_stats_totals_{name}");
        let value = metrics.value(&name, &[("database", &tenant.name)]);
        assert_eq!(value, row.number(column) as f64, "{name}");
    }
    let xacts = metrics.value("pgweir_xacts_total", &scene.pool());
    assert_eq!(xacts, row.number("xact_count") as f64);
    let lists = operator.table("show lists");
    for (list, name) in [
        ("databases", "databases"),
        ("users", "users"),
        ("pools", "pools"),
        ("used_clients", "used_clients"),
        ("used_servers", "used_servers"),
    ] {
        let row = lists.find("list", list).expect("it is in the list");
        let value = metrics.value(&format!("pgbouncer_{name}"), &[]);
        assert_eq!(value, row.number("items") as f64, "{name}");
    }
    let of_database = [("name", tenant.name.as_str())];
    let size = metrics.value("pgbouncer_databases_pool_size", &of_database);
    assert_eq!(size, 2.0);
}

#[test]
fn clients_servers_and_limits_are_seen_as_they_are() {
    let change = |ini: Ini| {
        ini.set("default_pool_size", 2)
            .set("max_db_connections", 10)
            .set("leak_after", 1)
    };
    let Some(scene) = Scene::new(change) else {
        return;
    };
    let tenant = &scene.tenant;
    let pool = scene.pool();
    let mut holder = tenant.client(&scene.pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut worker = tenant.client(&scene.pooler);
    worker.send(&Batch::new().query("select pg_sleep(60)"));
    let mut waiter = tenant.client(&scene.pooler);
    let in_state = |metrics: &Metrics, name, state| {
        let [database, user] = pool;
        metrics.value(name, &[database, user, ("state", state)])
    };
    let clients = |state| in_state(&scene.http.metrics(), "pgweir_client_connections", state);
    eventually(SOON, || clients("active"), |count| *count == 1.0);
    waiter.send(&Batch::new().query("select 1"));
    eventually(SOON, || clients("waiting"), |count| *count == 1.0);

    let metrics = scene.http.metrics();
    assert_eq!(
        in_state(&metrics, "pgweir_client_connections", "idle_in_xact"),
        1.0
    );
    assert_eq!(
        in_state(&metrics, "pgweir_server_connections", "active"),
        1.0
    );
    assert_eq!(
        in_state(&metrics, "pgweir_server_connections", "idle_in_xact"),
        1.0
    );
    assert_eq!(in_state(&metrics, "pgweir_server_connections", "idle"), 0.0);
    let subject = format!("{0}/{0}", tenant.name);
    let of_pool = [("limit", "pool_size"), ("subject", &subject)];
    assert_eq!(metrics.value("pgweir_saturation_ratio", &of_pool), 1.0);
    assert_eq!(metrics.value("pgweir_limit_waiting_clients", &of_pool), 1.0);
    let of_database = [("limit", "max_db_connections"), ("subject", &tenant.name)];
    assert_eq!(metrics.value("pgweir_saturation_ratio", &of_database), 0.2);
    assert_eq!(metrics.value("pgweir_limit_used", &of_database), 2.0);
    assert_eq!(metrics.value("pgweir_limit", &of_database), 10.0);
    let waited = || {
        scene
            .http
            .metrics()
            .value("pgweir_oldest_waiter_seconds", &pool)
    };
    eventually(SOON, waited, |waited| *waited > 0.5);
    let suspects = || {
        let metrics = scene.http.metrics();
        metrics.sum("pgweir_leak_suspects", &[])
    };
    eventually(SOON, suspects, |count| *count == 1.0);
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    eventually(SOON, suspects, |count| *count == 0.0);
    let metrics = scene.http.metrics();
    assert_eq!(metrics.value("pgweir_leak_suspects_total", &[]), 1.0);
    assert!(metrics.value("pgweir_pg_max_connections", &[]) == 300.0);
    assert!(metrics.value("pgweir_pg_headroom", &[]) < 300.0);
    assert_eq!(metrics.value("pgweir_state", &[("state", "active")]), 1.0);
    assert_eq!(metrics.value("pgweir_ready", &[]), 1.0);
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_cpu_seconds_total",
        "pgweir_start_time_seconds",
    ] {
        assert!(metrics.value(name, &[]) > 0.0, "{name}");
    }
    let memory = metrics.value("process_resident_memory_bytes", &[]);
    assert!((1e6..1e10).contains(&memory), "{memory}");
}

/// Count, sum and cumulative buckets of a histogram of the pool.
fn histogram(scene: &Scene, metrics: &Metrics, name: &str) -> (f64, f64, Vec<(f64, f64)>) {
    let pool = scene.pool();
    let bound = |le: &str| match le {
        "+Inf" => f64::INFINITY,
        le => le.parse().expect("a number"),
    };
    let bucket = format!("{name}_bucket");
    let buckets = metrics.all(&bucket, &pool);
    let buckets: Vec<_> = buckets.map(|b| (bound(&b.labels["le"]), b.value)).collect();
    let count = metrics.value(&format!("{name}_count"), &pool);
    let sum = metrics.value(&format!("{name}_sum"), &pool);
    assert!(buckets.len() > 10);
    assert!(
        buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
        "{buckets:?}"
    );
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)));
    (count, sum, buckets)
}

/// How many were at most so many seconds.
fn within(buckets: &[(f64, f64)], limit: f64) -> f64 {
    let at = buckets.iter().find(|(bound, _)| *bound == limit);
    at.unwrap_or_else(|| panic!("no bucket {limit}")).1
}

#[test]
fn times_are_distributed_as_they_were() {
    let Some(scene) = Scene::new(|ini| ini.set("default_pool_size", 1)) else {
        return;
    };
    let mut client = scene.tenant.client(&scene.pooler);
    for _ in 0..20 {
        client.value("select 1");
    }
    client.query("begin");
    client.query("select pg_sleep(0.3)");
    client.query("select pg_sleep(0.3)");
    // The other one waits for the rest of the transaction.
    let mut waiter = scene.tenant.client(&scene.pooler);
    waiter.send(&Batch::new().query("select 2"));
    let mut operator = console(&scene.pooler);
    eventually(
        Duration::from_secs(5),
        || operator.table("show pools"),
        |pools| {
            let pool = pools.find("database", &scene.tenant.name);
            pool.is_some_and(|pool| pool.number("cl_waiting") == 1)
        },
    );
    thread::sleep(Duration::from_millis(300));
    client.query("commit");
    waiter.until_ready();

    let metrics = scene.http.metrics();
    let (count, sum, buckets) = histogram(&scene, &metrics, "pgweir_query_seconds");
    // 20, begin, 2, commit, and the one that waited.
    assert_eq!(count, 25.0);
    assert_eq!(count - within(&buckets, 0.25), 3.0);
    let total = metrics.value("pgweir_query_time_seconds_total", &scene.pool());
    assert!(sum == total && sum > 0.9, "{sum} {total}");
    let (count, sum, buckets) = histogram(&scene, &metrics, "pgweir_xact_seconds");
    assert_eq!(count, 22.0);
    assert_eq!(count - within(&buckets, 0.5), 1.0);
    assert!(sum > 0.9, "{sum}");
    let (count, _, buckets) = histogram(&scene, &metrics, "pgweir_server_hold_seconds");
    assert_eq!((count, count - within(&buckets, 0.5)), (22.0, 1.0));
    let (count, sum, buckets) = histogram(&scene, &metrics, "pgweir_client_wait_seconds");
    assert_eq!(
        count,
        metrics.value("pgweir_server_assignments_total", &scene.pool())
    );
    assert_eq!(count - within(&buckets, 0.1), 1.0);
    assert!((0.25..5.0).contains(&sum), "{sum}");

    let mut operator = console(&scene.pooler);
    let table = operator.table("show stats_hist");
    let row = |time: &str| {
        let mut rows = table.iter();
        rows.find(|row| {
            row.get("database") == Some(&scene.tenant.name) && row.get("time") == Some(time)
        })
        .unwrap_or_else(|| panic!("no {time}"))
    };
    assert_eq!(row("query").number("count"), 25);
    assert!(row("query").number("p50_us") < 300_000);
    assert!(row("query").number("p95_us") >= 280_000);
    assert!(row("xact").number("max_us") >= 900_000 * 15 / 16);
    assert_eq!(row("wait").number("p90_us"), 0);
    assert!(row("wait").number("max_us") >= 280_000);
    assert_eq!(row("hold").number("count"), 22);
}

#[test]
fn logins_are_timed_phase_by_phase() {
    let Some(scene) = Scene::new(|ini| ini.set("server_tls_sslmode", "disable")) else {
        return;
    };
    let name = scene.tenant.name.as_str();
    let mut client = scene.tenant.client(&scene.pooler);
    client.query("select pg_sleep(0.2)");
    client.value("select 1");
    let metrics = scene.http.metrics();
    let of = |what: &str, phase: &str| {
        let series = format!("pgweir_server_login_seconds_{what}");
        let labels = [("database", name), ("user", name), ("phase", phase)];
        metrics.value(&series, &labels)
    };
    for phase in ["dns", "tcp", "auth", "first_query"] {
        assert_eq!(of("count", phase), 1.0, "{phase}");
    }
    assert!(of("sum", "auth") > 0.0 && of("sum", "auth") < 5.0);
    // The second query is none of its first.
    assert!((0.2..5.0).contains(&of("sum", "first_query")));
    let labels = [("database", name)];
    let phases = metrics.all("pgweir_server_login_seconds_count", &labels);
    assert_eq!(phases.count(), 4, "there is no TLS here");
}

#[test]
fn a_session_holds_its_server_to_its_end() {
    let Some(scene) = Scene::new(|ini| ini.set("pool_mode", "session")) else {
        return;
    };
    let mut client = scene.tenant.client(&scene.pooler);
    client.value("select 1");
    client.value("select 2");
    let held = || {
        scene
            .http
            .metrics()
            .sum("pgweir_server_hold_seconds_count", &scene.pool())
    };
    assert_eq!(held(), 0.0);
    drop(client);
    eventually(SOON, held, |count| *count == 1.0);
    let metrics = scene.http.metrics();
    let (count, ..) = histogram(&scene, &metrics, "pgweir_xact_seconds");
    assert_eq!(count, 2.0);
    let (count, ..) = histogram(&scene, &metrics, "pgweir_client_wait_seconds");
    assert_eq!(count, 1.0);
}

#[test]
fn errors_are_counted_by_code_and_cause() {
    let change = |ini: Ini| ini.set("default_pool_size", 1).set("query_wait_timeout", 1);
    let Some(scene) = Scene::new(change) else {
        return;
    };
    let tenant = &scene.tenant;
    let database = ("database", tenant.name.as_str());
    let mut client = tenant.client(&scene.pooler);
    client.query("select 1/0");
    client.query("select 1/0; select 1");
    client.query("begin; select nonsense");
    let mut waiter = tenant.client(&scene.pooler);
    waiter.send(&Batch::new().query("select 1"));
    assert!(waiter.until_closed().contains("query_wait_timeout"));
    client.query("rollback");
    // A role that PostgreSQL does not know.
    let ghost = [("user", "postgres"), ("database", "ghost")];
    assert!(RawClient::try_login(scene.pooler.port, &ghost).is_err());

    let metrics = scene.http.metrics();
    let class = |class| {
        metrics.sum(
            "pgweir_server_errors_total",
            &[database, ("sqlstate_class", class)],
        )
    };
    assert_eq!((class("22"), class("42")), (2.0, 1.0));
    let answered = metrics.value("pgweir_server_error_responses_total", &scene.pool());
    assert_eq!(answered, 3.0);
    let told = [
        database,
        ("sqlstate", "53300"),
        ("cause", "query_wait_timeout"),
    ];
    assert_eq!(metrics.value("pgweir_client_errors_total", &told), 1.0);
    assert_eq!(metrics.value("pgweir_refusals_total", &scene.pool()), 1.0);
    let ghost = [("database", "ghost"), ("sqlstate", "3D000")];
    assert_eq!(
        metrics.value("pgweir_server_login_failures_total", &ghost),
        1.0
    );
    assert_eq!(
        metrics.value("pgweir_server_opens_total", &scene.pool()),
        1.0
    );
    console(&scene.pooler).query("reconnect");
    let closed = || {
        let metrics = scene.http.metrics();
        let reason = ("reason", "database configuration changed");
        metrics.sum("pgweir_server_disconnects_total", &[database, reason])
    };
    eventually(SOON, closed, |count| *count == 1.0);
    let closes = || {
        scene
            .http
            .metrics()
            .value("pgweir_server_closes_total", &scene.pool())
    };
    eventually(SOON, closes, |count| *count == 1.0);
}

#[test]
fn names_that_clients_choose_are_bounded() {
    // They are forgotten when PostgreSQL may be asked again.
    let Some(scene) = Scene::new(|ini| ini.set("server_login_retry", 600)) else {
        return;
    };
    for number in 0..130 {
        let name = format!("nowhere{number}");
        let login = [("user", "postgres"), ("database", &*name)];
        assert!(RawClient::try_login(scene.pooler.port, &login).is_err());
    }
    let metrics = scene.http.metrics();
    let named = metrics.all("pgweir_xacts_total", &[]).count();
    assert!((90..=101).contains(&named), "{named}");
    assert_eq!(metrics.value("pgweir_unnamed_pools", &[]), 30.0);
    let other = [("database", "other"), ("sqlstate", "3D000")];
    assert_eq!(
        metrics.value("pgweir_server_login_failures_total", &other),
        30.0
    );
    // They have one distribution together, which is counted once.
    let connected = [("database", "other"), ("user", "other"), ("phase", "tcp")];
    assert_eq!(
        metrics.value("pgweir_server_login_seconds_count", &connected),
        30.0
    );
}

#[test]
fn counters_go_on_when_a_pool_is_forgotten() {
    let Some(scene) = Scene::new(|ini| {
        ini.set("pool_idle_timeout", 1)
            .set("server_idle_timeout", 1)
    }) else {
        return;
    };
    let name = scene.tenant.name.as_str();
    let labels = [("database", name)];
    let counted = || {
        let metrics = scene.http.metrics();
        let on_page = metrics.sum("pgbouncer_stats_totals_queries_pooled_total", &labels);
        let totals = console(&scene.pooler).table("show stats_totals");
        let row = totals.find("database", name);
        (on_page, row.map_or(0, |row| row.number("query_count")))
    };
    for queries in [3, 6] {
        let mut client = scene.tenant.client(&scene.pooler);
        for _ in 0..3 {
            client.value("select 1");
        }
        drop(client);
        let expected = (f64::from(queries), i64::from(queries));
        eventually(SOON, counted, |seen| *seen == expected);
        let pools = || console(&scene.pooler).table("show pools");
        eventually(SOON, pools, |pools| pools.find("database", name).is_none());
        assert_eq!(counted(), expected);
    }
}

#[test]
fn certificates_say_when_they_expire() {
    let tls = self_signed_tls();
    let change = |ini: Ini| {
        ini.set("client_tls_sslmode", "allow")
            .set("client_tls_cert_file", "{dir}/weir.crt")
            .set("client_tls_key_file", "{dir}/weir.key")
            .file("weir.crt", &tls.cert)
            .file("weir.key", &tls.key)
    };
    let Some(scene) = Scene::new(change) else {
        return;
    };
    let metrics = scene.http.metrics();
    let own = [("side", "client"), ("certificate", "own")];
    let expiry = metrics.value("pgweir_tls_certificate_expiry_timestamp_seconds", &own);
    // In the year 4096, as rcgen has it.
    assert!(expiry > 60_000_000_000.0, "{expiry}");
}

#[test]
fn a_taken_or_impossible_place_stops_the_start() {
    let Some(tenant) = Tenant::new() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    let place = format!("127.0.0.1:{port}");
    let error = Pooler::start(tenant.ini().set("metrics_listen", &place));
    let error = error.expect_err("it is taken").to_string();
    let expected =
        format!("metrics_listen: cannot listen on {place}: bind(): Address already in use");
    assert!(error.contains(&expected), "{error}");
    let error = Pooler::start(tenant.ini().set("metrics_listen", "127.0.0.1"));
    let error = error.expect_err("no port").to_string();
    assert!(error.contains("metrics_listen"), "{error}");
    drop(taken);
    let pooler = start(tenant.ini().set("metrics_listen", &place));
    assert!(pooler.log().contains(&format!("metrics on {place}")));
}

#[test]
fn the_page_moves_with_an_online_restart() {
    let Some(mut scene) = Scene::new(|ini| ini) else {
        return;
    };
    let started = |http: &Http| http.metrics().value("pgweir_start_time_seconds", &[]);
    let before = started(&scene.http);
    scene.pooler.reboot().expect("taken over");
    let after = || {
        let answer = scene.http.try_get("/metrics").ok()?;
        let metrics = Metrics::parse(&answer.body);
        let time = metrics.all("pgweir_start_time_seconds", &[]).next()?;
        Some(time.value)
    };
    eventually(SOON, after, |time| time.is_some_and(|time| time > before));
}
