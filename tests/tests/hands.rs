//! The promise: an operator can end, hold, refuse and send away clients of any kind, change limits for a while, and every
//! order says what it did, has an end, and cuts nothing that it need not cut.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use pgweir_tests::{
    Batch, Ini, Pooler, RawClient, Signal, Tenant, console, eventually, send_signal, start,
};

const LONG: Duration = Duration::from_secs(10);

const ADMIN_SHUTDOWN: &str = "E(FATAL 57P01 terminating connection due to administrator command)";

/// A pooler that speaks PostgreSQL's dialect.
fn ini(tenant: &Tenant, servers: u32) -> Ini {
    tenant
        .ini()
        .set("error_codes", "postgres")
        .set("default_pool_size", servers)
}

fn client_of(tenant: &Tenant, pooler: &Pooler, app: &str) -> RawClient {
    let parameters = [
        ("database", tenant.name.as_str()),
        ("user", &tenant.name),
        ("application_name", app),
    ];
    RawClient::login_with(pooler.port, &parameters)
}

/// The applications of the clients that a KILL would end.
fn victims(operator: &mut RawClient, conditions: &str) -> Vec<String> {
    let table = operator.table(&format!("KILL CLIENTS WHERE {conditions} DRY RUN"));
    let apps = table
        .iter()
        .map(|row| row.get("application_name").expect("a column"));
    let mut apps: Vec<_> = apps.map(str::to_owned).collect();
    apps.sort();
    apps
}

#[test]
fn clients_are_killed_by_what_they_are_and_do() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2));
    let mut operator = console(&pooler);
    let mut idle = client_of(&tenant, &pooler, "web");
    let mut in_transaction = client_of(&tenant, &pooler, "report");
    let mut active = client_of(&tenant, &pooler, "batch");
    let mut waiting = client_of(&tenant, &pooler, "queue");
    assert_eq!(in_transaction.query("begin"), "C(BEGIN) Z(T)");
    active.send(&Batch::new().query("select pg_sleep(60)"));
    waiting.send(&Batch::new().query("select 'served'"));
    let all = "database != none";
    eventually(
        LONG,
        || victims(&mut operator, "state = waiting"),
        |apps| apps == &["queue"],
    );

    let table = [
        (all, vec!["batch", "queue", "report", "web"]),
        ("state = active", vec!["batch"]),
        ("state = 'idle in transaction'", vec!["report"]),
        ("state = idle", vec!["web"]),
        ("app = report and age < 1h", vec!["report"]),
        (
            "app != report and address = '127.0.0.0/8'",
            vec!["batch", "queue", "web"],
        ),
        ("address = unix", vec![]),
        ("held < 1h", vec!["batch", "report"]),
        ("age > 1h", vec![]),
        (
            "idle < 1h and user != postgres",
            vec!["batch", "queue", "report", "web"],
        ),
    ];
    for (conditions, apps) in table {
        assert_eq!(victims(&mut operator, conditions), apps, "{conditions}");
    }

    let killed = "E(FATAL 57P01 admin forced disconnect)";
    let pid = "select pid from pg_stat_activity where query like '%pg_sleep(60)%' and pid != pg_backend_pid()";
    let backend = tenant.root().value(pid);
    assert_eq!(
        operator.query("KILL CLIENTS WHERE state = active"),
        "C(KILL 1) Z(I)"
    );
    // What it asked is canceled, and its server serves the one that waits.
    assert_eq!(active.until_closed(), killed);
    assert_eq!(
        pgweir_tests::story(&waiting.until_ready()),
        "T D(served) C(SELECT 1) Z(I)"
    );
    assert_eq!(waiting.value("select pg_backend_pid()"), backend);
    assert_eq!(
        operator.query("kill clients where app = 'report' and state = 'idle in transaction';"),
        "C(KILL 1) Z(I)"
    );
    assert_eq!(in_transaction.until_closed(), killed);
    assert_eq!(idle.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(
        operator.query(&format!("kill clients where {all}")),
        "C(KILL 2) Z(I)"
    );
    assert_eq!(
        operator.query(&format!("kill clients where {all}")),
        "C(KILL 0) Z(I)"
    );
    assert_eq!(waiting.until_closed(), killed);
    assert_eq!(tenant.backends(), 2, "servers are kept");
}

#[test]
fn a_killed_client_that_waits_is_told_and_forgotten() {
    let Some(tenant) = Tenant::new() else { return };
    // PgBouncer's dialect has one SQLSTATE for everything.
    let pooler = tenant.pooler(1);
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiting = tenant.client(&pooler);
    waiting.send(&Batch::new().query("select 1"));
    let mut operator = console(&pooler);
    let kill = "KILL CLIENTS WHERE state = waiting";
    eventually(
        LONG,
        || operator.query(kill),
        |said| said == "C(KILL 1) Z(I)",
    );
    assert_eq!(
        waiting.until_closed(),
        "E(FATAL 08P01 admin forced disconnect)"
    );
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(
        operator.query("KILL CLIENTS WHERE name = x"),
        "E(42601 syntax error at \"name\": a condition is expected: app, user, database, address, state, age, idle, \
         held) Z(I)"
    );
    // PgBouncer's own stays as it is: this is about a database of that name.
    assert_eq!(operator.query("KILL CLIENTS"), "C(KILL) Z(I)");
    assert_eq!(holder.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
}

#[test]
fn maintenance_holds_what_is_new_and_lets_end_what_has_begun() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 3));
    let mut operator = console(&pooler);
    let (mut begun, mut new) = (tenant.client(&pooler), tenant.client(&pooler));
    assert_eq!(begun.query("begin"), "C(BEGIN) Z(T)");
    let on = format!(
        "MAINTENANCE ON {} MODE hold MESSAGE 'moving disks'",
        tenant.name
    );
    assert_eq!(operator.query(&on), "C(MAINTENANCE) Z(I)");

    new.send(&Batch::new().query("select 'late'"));
    assert!(new.is_silent_for(Duration::from_millis(300)));
    let shown = operator.table("SHOW MAINTENANCE");
    let row = shown.find("database", &tenant.name).expect("a row");
    assert_eq!(row.get("mode"), Some("hold"));
    assert_eq!(row.get("message"), Some("moving disks"));
    assert_eq!((row.number("waiting"), row.number("busy")), (1, 1));
    assert!((850..=900).contains(&row.number("remaining")), "{shown}");
    assert!(
        row.get("by")
            .is_some_and(|by| by.starts_with("postgres@127.0.0.1"))
    );

    assert_eq!(begun.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(begun.query("commit"), "C(COMMIT) Z(I)");
    // Nothing is left in PostgreSQL, which may be stopped now.
    eventually(LONG, || tenant.backends(), |backends| *backends == 0);
    let off = format!("MAINTENANCE OFF {}", tenant.name);
    assert_eq!(operator.query(&off), "C(MAINTENANCE) Z(I)");
    assert_eq!(
        pgweir_tests::story(&new.until_ready()),
        "T D(late) C(SELECT 1) Z(I)"
    );
    let again = format!(
        "E(22023 database {} is not under maintenance) Z(I)",
        tenant.name
    );
    assert_eq!(operator.query(&off), again);
    assert_eq!(operator.table("SHOW MAINTENANCE").rows.len(), 0);
}

#[test]
fn a_hold_ends_by_itself_and_its_queue_is_bounded() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 3).set("max_pool_waiting", 1));
    let mut operator = console(&pooler);
    let (mut first, mut second) = (tenant.client(&pooler), tenant.client(&pooler));
    let on = format!("MAINTENANCE ON {} TTL '2s'", tenant.name);
    assert_eq!(operator.query(&on), "C(MAINTENANCE) Z(I)");
    first.send(&Batch::new().query("select 'held'"));
    assert!(first.is_silent_for(Duration::from_millis(200)));
    assert_eq!(
        second.query("select 1"),
        "E(53300 too many clients waiting for a server) Z(I)"
    );
    assert_eq!(
        pgweir_tests::story(&first.until_ready()),
        "T D(held) C(SELECT 1) Z(I)"
    );
    assert_eq!(operator.table("SHOW MAINTENANCE").rows.len(), 0);
    assert!(pooler.log().contains("its TTL has passed"));
}

#[test]
fn a_hold_that_lasts_too_long_is_no_overload() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 3).set("query_wait_timeout", 1));
    let mut operator = console(&pooler);
    let mut client = tenant.client(&pooler);
    let name = &tenant.name;
    let on = format!("MAINTENANCE ON {name} MESSAGE 'moving disks'");
    assert_eq!(operator.query(&on), "C(MAINTENANCE) Z(I)");
    assert_eq!(client.query("select 1"), "E(57P03 moving disks) Z(I)");
    assert_eq!(
        operator.query(&format!("MAINTENANCE OFF {name}")),
        "C(MAINTENANCE) Z(I)"
    );
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(operator.query(&format!("PAUSE {name}")), "C(PAUSE) Z(I)");
    let paused = format!("E(57P03 database \"{name}\" is paused) Z(I)");
    assert_eq!(client.query("select 1"), paused);
}

#[test]
fn maintenance_refuses_in_the_operators_words() {
    for (codes, said, login) in [
        (
            "postgres",
            "E(57P03 back at noon) Z(I)",
            "E(FATAL 57P03 back at noon)",
        ),
        (
            "pgbouncer",
            "E(FATAL 08P01 back at noon)",
            "E(FATAL 08P01 back at noon)",
        ),
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let pooler = start(ini(&tenant, 1).set("error_codes", codes));
        let mut operator = console(&pooler);
        let name = tenant.name.as_str();
        let [mut begun, mut waiting, mut new] = [0; 3].map(|_| tenant.client(&pooler));
        assert_eq!(begun.query("begin"), "C(BEGIN) Z(T)");
        waiting.send(&Batch::new().run("select 1").sync());
        assert!(waiting.is_silent_for(Duration::from_millis(200)));
        let on = format!("MAINTENANCE ON {name} MODE reject MESSAGE 'back at noon'");
        assert_eq!(operator.query(&on), "C(MAINTENANCE) Z(I)");

        assert_eq!(pgweir_tests::story(&waiting.until_ready()), said);
        assert_eq!(new.query("select 1"), said);
        let refused = RawClient::try_login(pooler.port, &[("database", name), ("user", name)]);
        assert_eq!(refused.err().as_deref(), Some(login));
        assert_eq!(begun.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
        assert_eq!(begun.query("commit"), "C(COMMIT) Z(I)");
        // A pause and its end change nothing about it.
        assert_eq!(operator.query(&format!("PAUSE {name}")), "C(PAUSE) Z(I)");
        assert_eq!(operator.query(&format!("RESUME {name}")), "C(RESUME) Z(I)");
        assert_eq!(begun.query("select 1"), said);

        let off = format!("MAINTENANCE OFF {name}");
        assert_eq!(operator.query(&off), "C(MAINTENANCE) Z(I)");
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    }
}

/// Inserts in transactions of its own without a pause until it is told to go; what it was told, and how many
/// transactions were acknowledged.
fn hammer(client: &mut RawClient, committed: &AtomicU32) -> String {
    loop {
        for (sql, answer) in [
            ("begin", "C(BEGIN) Z(T)"),
            ("insert into ledger values (1)", "C(INSERT 0 1) Z(T)"),
            ("commit", "C(COMMIT) Z(I)"),
        ] {
            let said = client.query(sql);
            if said != answer {
                assert_eq!(sql, "begin", "cut in the middle: {said}");
                return said;
            }
        }
        committed.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_drain_ends_hot_clients_between_their_transactions() {
    // One thread, as by default, and two, which can get into each other's way.
    for workers in [1, 2] {
        let Some(tenant) = Tenant::new() else { return };
        let name = tenant.name.as_str();
        let pooler = start(ini(&tenant, 3).set("workers", workers));
        tenant.direct().rows("create table ledger (x int)");
        let committed = AtomicU32::new(0);
        let mut operator = console(&pooler);
        let mut idle = tenant.client(&pooler);
        thread::scope(|scope| {
            for _ in 0..12 {
                let mut client = tenant.client(&pooler);
                let committed = &committed;
                scope.spawn(move || {
                    assert_eq!(hammer(&mut client, committed), ADMIN_SHUTDOWN);
                });
            }
            eventually(
                LONG,
                || committed.load(Ordering::Relaxed),
                |count| *count > 100,
            );
            let said = operator.query(&format!("DRAIN {name} WITHIN '20s'"));
            assert_eq!(said, "T C(DRAIN 13) Z(I)");
        });
        assert_eq!(idle.until_closed(), ADMIN_SHUTDOWN);
        let written = tenant.root().value("select count(*) from ledger");
        assert_eq!(written, committed.load(Ordering::Relaxed).to_string());
        // The database is open again: who wants it shut says so before.
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    }
}

#[test]
fn a_drain_cuts_at_its_deadline_and_says_whom() {
    let Some(tenant) = Tenant::new() else { return };
    let name = tenant.name.as_str();
    let pooler = start(ini(&tenant, 3));
    tenant.direct().rows("create table ledger (x int)");
    let mut slow = client_of(&tenant, &pooler, "slow");
    let mut stuck = client_of(&tenant, &pooler, "stuck");
    let mut quick = client_of(&tenant, &pooler, "quick");
    let mut waiting = client_of(&tenant, &pooler, "waiting");
    assert_eq!(slow.query("begin"), "C(BEGIN) Z(T)");
    assert_eq!(
        slow.query("insert into ledger values (1)"),
        "C(INSERT 0 1) Z(T)"
    );
    stuck.send(&Batch::new().query("select pg_sleep(60)"));
    assert_eq!(quick.query("begin"), "C(BEGIN) Z(T)");
    waiting.send(&Batch::new().query("select 1"));
    assert!(waiting.is_silent_for(Duration::from_millis(200)));

    let mut operator = console(&pooler);
    operator.send(&Batch::new().query(&format!("DRAIN {name} WITHIN '2s'")));
    // Who has asked nothing that has run goes at once, and nobody new comes in.
    assert_eq!(waiting.until_closed(), ADMIN_SHUTDOWN);
    let refused = RawClient::try_login(pooler.port, &[("database", name), ("user", name)]);
    let draining = format!("E(FATAL 57P03 database \"{name}\" is being drained)");
    assert_eq!(refused.err(), Some(draining));
    // Who ends its transaction in time is not cut.
    assert_eq!(quick.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(quick.query("commit"), format!("C(COMMIT) Z(I)"));
    assert_eq!(quick.until_closed(), ADMIN_SHUTDOWN);

    let messages = operator.until_ready();
    let rows: Vec<_> = messages
        .iter()
        .filter(|message| message.tag == b'D')
        .collect();
    let apps: Vec<_> = rows.iter().map(|row| row.values()[3].clone()).collect();
    assert_eq!(apps, ["slow", "stuck"]);
    let said = pgweir_tests::story(&messages);
    assert!(said.ends_with("C(DRAIN 4) Z(I)"), "{said}");
    assert_eq!(slow.until_closed(), ADMIN_SHUTDOWN);
    let cut = stuck.until_end().0;
    assert!(cut.is_empty() || cut.ends_with(ADMIN_SHUTDOWN), "{cut}");
    let busy = "select count(*) from pg_stat_activity where state != 'idle' and pid != pg_backend_pid() \
                and backend_type = 'client backend' and datname = current_database()";
    eventually(LONG, || tenant.root().value(busy), |count| count == "0");
    assert_eq!(tenant.root().value("select count(*) from ledger"), "0");
}

#[test]
fn a_session_is_drained_between_its_transactions() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 3).set("pool_mode", "session"));
    let (mut idle, mut begun) = (tenant.client(&pooler), tenant.client(&pooler));
    assert_eq!(idle.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(begun.query("begin"), "C(BEGIN) Z(T)");
    let mut operator = console(&pooler);
    operator.send(&Batch::new().query(&format!("DRAIN {}", tenant.name)));
    assert_eq!(idle.until_closed(), ADMIN_SHUTDOWN);
    assert_eq!(begun.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(begun.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(begun.until_closed(), ADMIN_SHUTDOWN);
    assert_eq!(
        pgweir_tests::story(&operator.until_ready()),
        "T C(DRAIN 2) Z(I)"
    );
}

#[test]
fn sigterm_drains_within_its_time() {
    let Some(tenant) = Tenant::new() else { return };
    let name = tenant.name.as_str();
    let mut pooler = start(ini(&tenant, 3).set("shutdown_drain_timeout", 2));
    // A console that nobody leaves does not keep the process.
    let _operator = console(&pooler);
    let (mut idle, mut stuck) = (tenant.client(&pooler), tenant.client(&pooler));
    assert_eq!(stuck.query("begin"), "C(BEGIN) Z(T)");
    pooler.signal(Signal::TERM);
    assert_eq!(idle.until_closed(), ADMIN_SHUTDOWN);
    // New clients are told to go elsewhere, which libpq understands; the socket is not refused.
    let refused = RawClient::try_login(pooler.port, &[("database", name), ("user", name)]);
    assert_eq!(
        refused.err().as_deref(),
        Some("E(FATAL 57P03 pooler is shutting down)")
    );
    assert_eq!(stuck.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
    assert_eq!(stuck.until_closed(), ADMIN_SHUTDOWN);
    let status = pooler.wait_for_exit(LONG).expect("it ends by itself");
    assert!(status.success(), "{status}");
    assert!(pooler.log().contains("2 clients sent away, 1 of them cut"));
}

#[test]
fn without_a_drain_timeout_sigterm_waits_as_pgbouncer_does() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    pooler.signal(Signal::TERM);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    drop(client);
    assert!(pooler.wait_for_exit(LONG).is_some());
}

/// A setting of the main section in force.
fn setting(operator: &mut RawClient, key: &str) -> String {
    let table = operator.table("SHOW CONFIG");
    let row = table.find("key", key).expect(key);
    row.get("value").expect("a value").to_owned()
}

fn pool_size(operator: &mut RawClient, database: &str) -> i64 {
    let table = operator.table("SHOW DATABASES");
    table
        .find("name", database)
        .expect("a row")
        .number("pool_size")
}

#[test]
fn a_key_is_changed_for_a_while() {
    let Some(tenant) = Tenant::new() else { return };
    let name = tenant.name.as_str();
    let server = format!("host=127.0.0.1 port={}", tenant.postgres.port());
    let file = |size: u32| ini(&tenant, 2).database(name, &format!("{server} pool_size={size}"));
    let pooler = start(file(2));
    let mut operator = console(&pooler);
    let resize = format!("SET pool_size = 3 FOR DATABASE {name} TTL '4s'");
    assert_eq!(operator.query(&resize), "C(SET) Z(I)");
    assert_eq!(
        operator.query("SET query_timeout = 7 TTL 1h"),
        "C(SET) Z(I)"
    );

    assert_eq!(pool_size(&mut operator, name), 3);
    assert_eq!(setting(&mut operator, "query_timeout"), "7");
    let shown = operator.table("SHOW OVERRIDES");
    let row = shown.find("key", "pool_size").expect("a row");
    assert_eq!(
        (row.get("scope"), row.get("subject")),
        (Some("database"), Some(name))
    );
    assert_eq!(
        (row.get("value"), row.get("reverts_to")),
        (Some("3"), Some("2"))
    );
    assert!((1..=4).contains(&row.number("remaining")), "{shown}");
    assert!(
        row.get("by")
            .is_some_and(|by| by.starts_with("postgres@127.0.0.1"))
    );
    let row = shown.find("key", "query_timeout").expect("a row");
    assert_eq!(
        (row.get("scope"), row.get("subject")),
        (Some("main"), Some("NULL"))
    );

    // It holds at once and in PostgreSQL's own count, over a RELOAD of the same file too.
    pooler.reload(file(2)).expect("it reloads");
    assert_eq!(pool_size(&mut operator, name), 3);
    let mut clients = [0; 3].map(|_| tenant.client(&pooler));
    for client in &mut clients {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    }
    assert_eq!(tenant.backends(), 3);
    eventually(LONG, || pool_size(&mut operator, name), |size| *size == 2);
    for client in &mut clients {
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    }
    eventually(LONG, || tenant.backends(), |backends| *backends == 2);
    let log = pooler.log();
    assert!(
        log.contains(&format!(
            "SET pool_size = 3 for database {name} for 4 s by postgres@127.0.0.1"
        )),
        "{log}"
    );
    assert!(
        log.contains(&format!("pool_size for database {name} is 2 again")),
        "{log}"
    );

    // A new word of the file counts, and so does PgBouncer's SET.
    let resize = format!("RESIZE {name} = 5 TTL 1h");
    assert_eq!(operator.query(&resize), "C(SET) Z(I)");
    assert_eq!(pool_size(&mut operator, name), 5);
    pooler.reload(file(1)).expect("it reloads");
    assert_eq!(pool_size(&mut operator, name), 1);
    assert_eq!(
        operator.query("SET query_timeout = 0"),
        "C(SET query_timeout=0) Z(I)"
    );
    assert_eq!(setting(&mut operator, "query_timeout"), "0");
    assert_eq!(operator.table("SHOW OVERRIDES").rows.len(), 0);
}

#[test]
fn a_database_made_from_star_keeps_its_servers_unless_it_means_others() {
    let Some(tenant) = Tenant::new() else { return };
    let name = tenant.name.as_str();
    let pooler = start(ini(&tenant, 2));
    let (mut operator, mut client) = (console(&pooler), tenant.client(&pooler));
    let mut server = || client.value("select pg_backend_pid()");
    let first = server();
    let mut change = |order: &str| {
        assert_eq!(operator.query(order), "C(SET) Z(I)");
        let during = server();
        let active = || operator.table("SHOW OVERRIDES").rows.len();
        eventually(LONG, active, |count| *count == 0);
        (during, server())
    };
    let resized = change(&format!("RESIZE {name} = 5 TTL '2s'"));
    assert_eq!(resized, (first.clone(), first.clone()));
    let moved = change(&format!(
        "SET host = 'localhost' FOR DATABASE {name} TTL '2s'"
    ));
    assert!(moved.0 != first && moved.1 != moved.0, "{moved:?}");
    let elsewhere = format!("host=localhost port={}", tenant.postgres.port());
    pooler
        .reload(ini(&tenant, 2).database(name, &elsewhere))
        .expect("it reloads");
    assert_ne!(client.value("select pg_backend_pid()"), moved.1);
}

#[test]
fn a_change_for_a_while_is_checked() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant, 2));
    let mut operator = console(&pooler);
    for (order, said) in [
        (
            "SET pol_mode = session TTL 1h",
            "E(22023 unknown parameter: pol_mode (did you mean \"pool_mode\"?)) Z(I)",
        ),
        (
            "SET listen_port = 1 TTL 1h",
            "E(22023 listen_port changes only at a restart) Z(I)",
        ),
        (
            "SET pool_size = many FOR USER x TTL 1h",
            "E(22023 invalid value \"many\" for parameter pool_size: expected a whole number) Z(I)",
        ),
        (
            "SET pool_mode = session TTL soon",
            "E(42601 syntax error at \"soon\": a time like '90s', '5min' or '1h' is expected) Z(I)",
        ),
        ("SET pol_mode = session", "E(08P01 SET failed) Z(I)"),
    ] {
        assert_eq!(operator.query(order), said, "{order}");
    }
    assert_eq!(operator.table("SHOW OVERRIDES").rows.len(), 0);
}

/// Lets a process run again however the test ends.
struct Stopped(String);

impl Stopped {
    fn new(pid: &str) -> Self {
        assert!(send_signal(pid, Signal::STOP), "{pid}");
        Self(pid.to_owned())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        send_signal(&self.0, Signal::CONT);
    }
}

#[test]
fn a_server_that_does_not_close_is_shown_and_released_by_an_operator() {
    let Some(tenant) = Tenant::new() else { return };
    let name = tenant.name.as_str();
    let pooler = start(ini(&tenant, 1).set("server_close_timeout", 1));
    let mut operator = console(&pooler);
    let mut client = tenant.client(&pooler);
    let backend = client.value("select pg_backend_pid()");
    let _stopped = Stopped::new(&backend);
    assert_eq!(
        operator.query(&format!("RECONNECT {name}")),
        "C(RECONNECT) Z(I)"
    );
    let shown = eventually(
        LONG,
        || operator.table("SHOW QUARANTINE"),
        |table| table.rows.len() == 1,
    );
    let row = shown.find("database", name).expect("a row");
    assert_eq!(row.get("backend_pid"), Some(backend.as_str()));
    assert_eq!(row.get("user"), Some(name));
    let postgres = format!("127.0.0.1:{}", tenant.postgres.port());
    assert_eq!(row.get("server"), Some(postgres.as_str()));

    // It is counted: the pool of one has no room.
    client.send(&Batch::new().query("select 'after all'"));
    assert!(client.is_silent_for(Duration::from_millis(500)));
    assert_eq!(
        operator.query("RELEASE 4711"),
        "E(22023 no server with id 4711 is in SHOW QUARANTINE) Z(I)"
    );
    let release = format!("RELEASE {}", row.number("id"));
    assert_eq!(operator.query(&release), "C(RELEASE) Z(I)");
    assert_eq!(
        pgweir_tests::story(&client.until_ready()),
        "T D(after all) C(SELECT 1) Z(I)"
    );
    assert_eq!(operator.table("SHOW QUARANTINE").rows.len(), 0);
    assert!(pooler.log().contains("is counted no more"));
}
