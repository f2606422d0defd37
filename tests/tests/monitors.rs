//! The promise: monitors that were written for PgBouncer read this console unchanged.
//!
//! They differ in what they rely on. Exporters look columns up by name and fail on a value that is no number; agents
//! written in Go scan by position and count the columns; agents written in Python parse times as text; extensions of
//! PostgreSQL read through dblink and name a type for every column. What follows is all that these need.

use std::{process::Command, thread, time::Duration};

use pgweir_tests::{
    Batch, Ini, Pooler, RawClient, Table, Tenant, console, eventually, skip, start,
};

const SOCKET_COLUMNS: &str = "type:25 user:25 database:25 replication:25 state:25 addr:25 port:23 \
    local_addr:25 local_port:23 connect_time:25 request_time:25 wait:23 wait_us:23 close_needed:23 \
    ptr:25 link:25 remote_pid:23 tls:25 application_name:25 prepared_statements:23 id:23";

/// What each table looks like: the names of the columns and the types they announce.
const TABLES: [(&str, &str); 11] = [
    ("version", "version:25"),
    ("config", "key:25 value:25 default:25 changeable:25"),
    ("lists", "list:25 items:23"),
    (
        "databases",
        "name:25 host:25 port:23 database:25 force_user:25 pool_size:23 min_pool_size:23 \
         reserve_pool_size:23 server_lifetime:23 pool_mode:25 load_balance_hosts:25 \
         max_connections:23 current_connections:23 max_client_connections:23 \
         current_client_connections:23 paused:23 disabled:23",
    ),
    (
        "pools",
        "database:25 user:25 cl_active:23 cl_waiting:23 cl_active_cancel_req:23 \
         cl_waiting_cancel_req:23 sv_active:23 sv_active_cancel:23 sv_being_canceled:23 sv_idle:23 \
         sv_used:23 sv_tested:23 sv_login:23 maxwait:23 maxwait_us:23 pool_mode:25 \
         load_balance_hosts:25",
    ),
    (
        "users",
        "name:25 pool_size:25 reserve_pool_size:25 pool_mode:25 max_user_connections:23 \
         current_connections:23 max_user_client_connections:23 current_client_connections:23",
    ),
    ("clients", SOCKET_COLUMNS),
    ("servers", SOCKET_COLUMNS),
    ("dns_hosts", "hostname:25 ttl:20 addrs:25"),
    ("dns_zones", "zonename:25 serial:20 count:23"),
    ("totals", "name:25 value:1700"),
];

#[test]
fn every_table_has_the_columns_and_types_that_monitors_expect() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    for (what, columns) in TABLES {
        // With and without the semicolon, in any case.
        for sql in [
            format!("SHOW {};", what.to_uppercase()),
            format!("show {what}"),
        ] {
            client.send(&Batch::new().query(&sql));
            let answer = client.until_ready();
            assert_eq!(described(&answer[0].body), columns, "{sql}");
            assert_eq!(answer[answer.len() - 2].to_string(), "C(SHOW)");
        }
    }
}

#[test]
fn the_version_is_one_cell_that_names_pgbouncers() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    assert_eq!(
        client.query("SHOW VERSION;"),
        "T D(PgBouncer 1.25.2) C(SHOW) Z(I)"
    );
    // No notice comes before it: some take that for the version.
    let shown = client.table("show version");
    let version = shown.rows[0][0].trim_start_matches(|c: char| !c.is_ascii_digit());
    let numbers: Vec<Result<u32, _>> = version.split('.').map(str::parse).collect();
    assert_eq!(numbers, [Ok(1), Ok(25), Ok(2)]);
}

#[test]
fn statistics_are_whole_numbers_and_only_grow() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let database = &scene.tenant.name;
    let mut before = Vec::new();
    for _ in 0..3 {
        assert_eq!(scene.tenant.client(&scene.pooler).value("select 1"), "1");
        let shown = client.table("SHOW STATS");
        for row in &shown.rows {
            assert!(
                row[1..].iter().all(|value| value.parse::<i64>().is_ok()),
                "{row:?}"
            );
        }
        let names = shown.rows.iter().map(|row| row[0].as_str());
        assert!(names.is_sorted(), "one row a database, in order");
        let row = shown.find("database", database).expect("it has a pool");
        let totals = shown
            .columns
            .iter()
            .filter(|name| name.starts_with("total_"));
        let now: Vec<i64> = totals.map(|name| row.number(name)).collect();
        assert!(before.iter().zip(&now).all(|(before, now)| before <= now));
        before = now;

        let totals = client.table("SHOW STATS_TOTALS");
        let row = totals.find("database", database).expect("the same");
        assert!(row.number("query_count") > 0 && row.number("bytes_received") > 0);
        assert!(totals.find("database", "pgbouncer").is_some());
    }
    for row in client.table("SHOW TOTALS").iter() {
        let name = row.get("name").expect("a name");
        assert!(
            name.starts_with("total_") || name.starts_with("avg_"),
            "{name}"
        );
        assert!(row.number("value") >= 0);
    }
}

/// The version says 1.25.2, and who reads by position knows how many columns that has.
#[test]
fn statistics_have_the_columns_of_1_25_2() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    for _ in 0..2 {
        for (what, count) in [
            ("show pools", 17),
            ("show stats", 23),
            ("show stats_totals", 12),
            ("show stats_averages", 12),
        ] {
            let columns = client.table(what).columns;
            assert_eq!(columns.len(), count, "{what}");
            let logins = columns.iter().filter(|name| name.contains("login_count"));
            assert_eq!(logins.count(), 0, "{what}");
        }
        assert_eq!(client.table("show totals").rows.len(), 22);
        assert_eq!(client.query("reload"), "C(RELOAD) Z(I)");
    }
}

/// What came after 1.25.2 is there for those who ask for it.
#[test]
fn logins_are_counted_where_that_is_asked_for() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("show_login_counts", 1));
    for _ in 0..3 {
        assert_eq!(tenant.client(&pooler).value("select 1"), "1");
    }
    let mut client = console(&pooler);
    for (what, count, column) in [
        ("show stats", 25, "total_client_login_count"),
        ("show stats_totals", 13, "client_login_count"),
        ("show stats_averages", 13, "avg_client_login_count"),
    ] {
        let shown = client.table(what);
        assert_eq!(shown.columns.len(), count, "{what}");
        let row = shown.find("database", &tenant.name).expect("it has a pool");
        assert!(row.number(column) <= 3);
        if !column.starts_with("avg") {
            assert_eq!(row.number(column), 3, "{what}");
        }
    }
    assert_eq!(client.table("show totals").rows.len(), 24);
    // For a look at them SET will do, until the file is read again.
    let later = |client: &mut RawClient| client.table("show stats").columns.len();
    assert!(
        client
            .query("set show_login_counts = 0")
            .ends_with("C(SET show_login_counts=0) Z(I)")
    );
    assert_eq!(later(&mut client), 23);
    assert_eq!(client.query("reload"), "C(RELOAD) Z(I)");
    assert_eq!(later(&mut client), 25);
}

#[test]
fn pools_and_databases_have_a_number_where_one_is_announced() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let _busy = scene.busy();
    for what in ["pools", "databases", "lists", "users", "clients", "servers"] {
        client.send(&Batch::new().query(&format!("show {what}")));
        let answer = client.until_ready();
        let kinds = described(&answer[0].body);
        let rows: Vec<_> = answer
            .iter()
            .filter(|message| message.tag == b'D')
            .collect();
        assert!(!rows.is_empty(), "show {what}");
        for row in rows {
            for (value, column) in row.values().iter().zip(kinds.split(' ')) {
                let is_number = value.parse::<i32>().is_ok();
                assert!(
                    is_number || !column.ends_with(":23"),
                    "{what} {column}: {value}"
                );
            }
        }
    }
    // Labels must not be NULL, unless they say nothing for this kind of database.
    for row in client.table("show pools").iter() {
        for name in ["database", "user", "pool_mode"] {
            assert_ne!(row.get(name), Some("NULL"));
        }
        assert_eq!(row.get("load_balance_hosts"), Some("NULL"));
    }
}

#[test]
fn pools_count_clients_and_servers_by_state() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let _busy = scene.busy();
    let mut waiting = scene.tenant.client(&scene.pooler);
    waiting.send(&Batch::new().query("select 1"));
    let name = &scene.tenant.name;
    let counts = |shown: &Table| -> Vec<i64> {
        let row = shown.find("database", name).expect("a pool");
        let names = [
            "cl_active",
            "cl_waiting",
            "sv_active",
            "sv_idle",
            "sv_login",
            "maxwait",
        ];
        names.map(|name| row.number(name)).to_vec()
    };
    eventually(
        Duration::from_secs(5),
        || counts(&client.table("show pools")),
        |counts| counts[..5] == [1, 1, 1, 0, 0] && counts[5] >= 1,
    );
    let states = |shown: Table| -> Vec<String> {
        let of_tenant = shown.rows.into_iter().filter(|row| row[2] == *name);
        of_tenant.map(|row| row[4].clone()).collect()
    };
    let mut seen = states(client.table("show clients"));
    seen.sort();
    assert_eq!(seen, ["active", "waiting"]);
    assert_eq!(states(client.table("show servers")), ["active"]);
}

#[test]
fn times_are_texts_with_a_date_a_time_and_a_zone() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let _busy = scene.busy();
    for what in ["show clients", "show servers"] {
        for row in client.table(what).iter() {
            for column in ["connect_time", "request_time"] {
                let words: Vec<&str> = row.get(column).expect("a column").split(' ').collect();
                let [date, time, zone] = words[..] else {
                    panic!("{words:?}")
                };
                let fits = |text: &str, form: &str| {
                    let digit =
                        |(c, f): (char, char)| if f == '0' { c.is_ascii_digit() } else { c == f };
                    text.len() == form.len() && text.chars().zip(form.chars()).all(digit)
                };
                assert!(
                    fits(date, "0000-00-00") && fits(time, "00:00:00"),
                    "{words:?}"
                );
                assert!(!zone.is_empty());
            }
        }
    }
}

#[test]
fn the_configuration_can_be_looked_up_by_key() {
    let Some(scene) = Scene::new() else { return };
    let shown = scene.client().table("SHOW CONFIG;");
    assert_eq!(shown.rows.len(), 100);
    for key in [
        "max_client_conn",
        "max_user_connections",
        "default_pool_size",
    ] {
        let row = shown.find("key", key).expect("a row");
        row.number("value");
        assert_eq!(row.get("changeable"), Some("yes"));
    }
    let changeable = shown.rows.iter().map(|row| row[3].as_str());
    assert!(
        changeable
            .into_iter()
            .all(|word| matches!(word, "yes" | "no"))
    );
}

#[test]
fn lists_name_what_exporters_look_for() {
    let Some(scene) = Scene::new() else { return };
    let count = |shown: &Table, name: &str| shown.find("list", name).map(|row| row.number("items"));
    // The scene's client has closed its socket, and may be counted for a moment longer.
    let shown = eventually(
        Duration::from_secs(5),
        || scene.client().table("SHOW LISTS;"),
        |shown| count(shown, "used_clients") == Some(1),
    );
    let names: Vec<&str> = shown.rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(
        names,
        [
            "databases",
            "users",
            "peers",
            "pools",
            "peer_pools",
            "free_clients",
            "used_clients",
            "login_clients",
            "free_servers",
            "used_servers",
            "dns_names",
            "dns_zones",
            "dns_queries",
            "dns_pending",
        ]
    );
    for name in ["free_clients", "free_servers"] {
        assert!(count(&shown, name) >= Some(0));
    }
}

/// Drivers for Go announce `extra_float_digits`; as with PgBouncer that has to be configured, for the console too.
#[test]
fn a_driver_may_announce_a_parameter_that_is_ignored() {
    let Some(tenant) = Tenant::new() else { return };
    let announced = [
        ("user", "postgres"),
        ("database", "pgbouncer"),
        ("extra_float_digits", "2"),
        ("client_encoding", "UTF8"),
        ("datestyle", "ISO, MDY"),
    ];
    let strict = tenant.pooler(1);
    let refused = RawClient::try_login(strict.port, &announced).expect_err("it is unknown");
    assert_eq!(
        refused,
        "E(FATAL 08P01 unsupported startup parameter: extra_float_digits)"
    );
    let lenient = start(
        tenant
            .ini()
            .set("ignore_startup_parameters", "extra_float_digits"),
    );
    let mut client = RawClient::login_with(lenient.port, &announced);
    assert_eq!(
        client.query(";"),
        "E(08P01 invalid command ';', use SHOW HELP;) Z(I)"
    );
    assert_eq!(client.query("SHOW STATS").matches("D(").count(), 1);
}

/// A monitor may only look.
#[test]
fn a_stats_user_sees_everything_and_changes_nothing() {
    let Some(scene) = Scene::new() else { return };
    let port = scene.pooler.port;
    let mut client = RawClient::login(port, "pgbouncer", "monitor");
    for (what, _) in TABLES {
        assert!(
            client
                .query(&format!("show {what}"))
                .ends_with("C(SHOW) Z(I)")
        );
    }
    for command in [
        "reload",
        "pause",
        "kill",
        "shutdown",
        "set verbose = 1",
        "show fds",
    ] {
        assert_eq!(client.query(command), "E(08P01 admin access needed) Z(I)");
    }
}

/// PostgreSQL itself looks: every column is given a type, which the values must be of.
#[test]
fn postgresql_reads_the_tables_through_dblink() {
    let Some(scene) = Scene::new() else { return };
    let postgres = scene.tenant.postgres;
    if postgres
        .try_psql("postgres", "create extension if not exists dblink")
        .is_err()
    {
        return skip("this PostgreSQL comes without dblink");
    }
    let _busy = scene.busy();
    let port = scene.pooler.port;
    let tables = TABLES.iter().chain(&[
        ("sockets", SOCKET_COLUMNS_WITH_BUFFERS),
        ("stats_totals", STATS_TOTALS),
    ]);
    for (what, columns) in tables {
        let typed: Vec<String> = columns
            .split_whitespace()
            .map(|column| {
                let (name, oid) = column.split_once(':').expect("name and type");
                let kind = match (name, oid) {
                    ("connect_time" | "request_time", _) => "timestamptz",
                    ("changeable", _) => "boolean",
                    (_, "23") => "int",
                    (_, "20" | "1700") => "bigint",
                    (_, _) => "text",
                };
                format!("\"{name}\" {kind}")
            })
            .collect();
        let sql = format!(
            "select count(*) from dblink('host=127.0.0.1 port={port} user=postgres dbname=pgbouncer', \
             'show {what}') as shown ({})",
            typed.join(", ")
        );
        let count = postgres.psql("postgres", &sql);
        assert!(count.parse::<u32>().is_ok(), "show {what}: {count}");
    }
    // And it gives orders.
    for (command, tag) in [
        ("pause", "PAUSE"),
        ("resume", "RESUME"),
        ("reload", "RELOAD"),
    ] {
        let sql = format!(
            "select dblink_exec('host=127.0.0.1 port={port} user=postgres dbname=pgbouncer', '{command}')"
        );
        if command == "pause" {
            scene.let_go();
        }
        assert_eq!(postgres.psql("postgres", &sql), tag);
    }
}

const SOCKET_COLUMNS_WITH_BUFFERS: &str = "type:25 user:25 database:25 replication:25 state:25 addr:25 port:23 \
    local_addr:25 local_port:23 connect_time:25 request_time:25 wait:23 wait_us:23 close_needed:23 \
    ptr:25 link:25 remote_pid:23 tls:25 application_name:25 prepared_statements:23 id:23 recv_pos:23 \
    pkt_pos:23 pkt_remain:23 send_pos:23 send_remain:23 pkt_avail:23 send_avail:23";

const STATS_TOTALS: &str = "database:25 server_assignment_count:1700 xact_count:1700 query_count:1700 \
    bytes_received:1700 bytes_sent:1700 xact_time:1700 query_time:1700 wait_time:1700 \
    client_parse_count:1700 server_parse_count:1700 bind_count:1700";

/// The real one, where it is installed.
#[test]
fn check_postgres_reads_pools_and_configuration() {
    const PROGRAM: &str = "check_postgres";
    if !Command::new(PROGRAM)
        .arg("--version")
        .output()
        .is_ok_and(|run| run.status.success())
    {
        return skip("check_postgres is not installed");
    }
    let Some(scene) = Scene::new() else { return };
    for action in [
        "pgb_pool_cl_active",
        "pgb_pool_sv_idle",
        "pgb_pool_maxwait",
        "pgbouncer_backends",
    ] {
        let mut command = Command::new(PROGRAM);
        command.args([
            "--host",
            "127.0.0.1",
            "--port",
            &scene.pooler.port.to_string(),
        ]);
        command.args(["--dbuser", "postgres", "--db", "pgbouncer"]);
        command.args(["--warning", "90", "--critical", "95", "--action", action]);
        let run = command.output().expect("as before");
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(said.contains(" OK: "), "{action}: {said}");
    }
}

/// A pooler whose tenant has used its one server.
struct Scene {
    tenant: Tenant,
    pooler: Pooler,
}

impl Scene {
    fn new() -> Option<Self> {
        let tenant = Tenant::new()?;
        let users = format!(
            "\"postgres\" \"\"\n\"monitor\" \"\"\n\"{}\" \"\"\n",
            tenant.name
        );
        let ini: Ini = tenant
            .ini()
            .set("default_pool_size", 1)
            .set("stats_users", "monitor");
        let pooler = start(ini.file("userlist.txt", &users));
        let scene = Self { tenant, pooler };
        assert_eq!(scene.tenant.client(&scene.pooler).value("select 1"), "1");
        Some(scene)
    }

    fn client(&self) -> RawClient {
        console(&self.pooler)
    }

    /// A client that holds the server.
    fn busy(&self) -> RawClient {
        let mut client = self.tenant.client(&self.pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        client
    }

    /// Ends what holds the server.
    fn let_go(&self) {
        self.client().query(&format!("kill {}", self.tenant.name));
        self.client().query(&format!("resume {}", self.tenant.name));
        thread::sleep(Duration::from_millis(1));
    }
}

/// The columns of a RowDescription: names and numbers of their types.
fn described(body: &[u8]) -> String {
    let mut columns = Vec::new();
    let mut rest = &body[2..];
    while let Some(end) = rest.iter().position(|byte| *byte == 0) {
        let name = String::from_utf8_lossy(&rest[..end]);
        let fixed = &rest[end + 1..];
        let oid = u32::from_be_bytes(fixed[6..10].try_into().expect("four bytes"));
        columns.push(format!("{name}:{oid}"));
        rest = &fixed[18..];
    }
    columns.join(" ")
}
