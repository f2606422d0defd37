//! The promise: the console and the signals do what PgBouncer's do, in the same words, and the log has PgBouncer's form.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use pgweir_tests::{
    Batch, Ini, Pooler, RawClient, SELECT_1, Signal, Table, Tenant, console, eventually, start,
    story,
};

mod ends;
mod gates;
mod log;
mod settings;
mod tables;

const SHORT: Duration = Duration::from_millis(100);

#[test]
fn every_show_answers_with_pgbouncers_columns() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
    let mut console = console(&pooler);
    for (what, columns) in [
        ("version", "version"),
        ("config", "key value default changeable"),
        (
            "databases",
            "name host port database force_user pool_size min_pool_size reserve_pool_size \
             server_lifetime pool_mode load_balance_hosts max_connections current_connections \
             max_client_connections current_client_connections paused disabled",
        ),
        (
            "pools",
            "database user cl_active cl_waiting cl_active_cancel_req cl_waiting_cancel_req \
             sv_active sv_active_cancel sv_being_canceled sv_idle sv_used sv_tested sv_login \
             maxwait maxwait_us pool_mode load_balance_hosts",
        ),
        ("clients", SOCKET_COLUMNS),
        ("servers", SOCKET_COLUMNS),
        (
            "users",
            "name pool_size reserve_pool_size pool_mode max_user_connections \
             current_connections max_user_client_connections current_client_connections",
        ),
        ("peers", "peer_id host port pool_size"),
        (
            "peer_pools",
            "peer_id cl_active_cancel_req cl_waiting_cancel_req sv_active_cancel sv_login",
        ),
        ("lists", "list items"),
        ("totals", "name value"),
        ("mem", "name size used free memtotal"),
        ("state", "key value"),
        ("dns_hosts", "hostname ttl addrs"),
        ("dns_zones", "zonename serial count"),
        (
            "stats_totals",
            "database server_assignment_count xact_count query_count bytes_received bytes_sent \
             xact_time query_time wait_time client_parse_count server_parse_count bind_count",
        ),
    ] {
        let table = console.table(&format!("show {what}"));
        assert_eq!(table.columns.join(" "), columns, "show {what}");
    }
    for what in [
        "sockets",
        "active_sockets",
        "stats",
        "stats_averages",
        "fds",
    ] {
        assert!(!console.table(&format!("SHOW {what};")).columns.is_empty());
    }
    let help = console.query("show help");
    assert!(
        help.starts_with("N(00000 Console usage) C(SHOW) Z(I)"),
        "{help}"
    );
}

const SOCKET_COLUMNS: &str = "type user database replication state addr port local_addr local_port \
    connect_time request_time wait wait_us close_needed ptr link remote_pid tls application_name \
    prepared_statements id";

#[test]
fn what_is_no_command_is_told_so() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut console = console(&pooler);
    for (sql, error) in [
        ("", "invalid command '', use SHOW HELP;"),
        ("begin", "invalid command 'begin', use SHOW HELP;"),
        (
            "show nothing",
            "invalid command 'show nothing', use SHOW HELP;",
        ),
        (
            "shutdown maybe",
            "invalid command 'shutdown maybe', use SHOW HELP;",
        ),
        ("disable", "a database is required"),
        ("pause pgbouncer", "cannot pause admin db: pgbouncer"),
        ("kill pgbouncer", "cannot kill admin db: pgbouncer"),
        ("disable pgbouncer", "cannot disable admin db: pgbouncer"),
        ("resume", "pooler is not paused/suspended"),
        ("kill_client 123456", "client not found"),
        ("kill_client somebody", "invalid client pointer supplied"),
        ("set no_such_key = 1", "SET failed"),
        ("set query_timeout = soon", "SET failed"),
    ] {
        let answer = console.query(sql);
        assert_eq!(answer, format!("E(08P01 {error}) Z(I)"), "{sql}");
        let log = pooler.log();
        assert!(log.contains(&format!(" ERROR {error}\n")), "{sql}: {log}");
        assert!(log.contains(&format!(" pooler error: {error}\n")), "{sql}");
    }
}

#[test]
fn a_database_that_is_not_configured_is_told_so() {
    let Some(tenant) = Tenant::new() else { return };
    let target = format!("host=127.0.0.1 port={}", tenant.postgres.port());
    let pooler = start(without_star(&tenant).database("only", &target));
    let mut console = console(&pooler);
    for command in [
        "pause",
        "resume",
        "disable",
        "enable",
        "reconnect",
        "kill",
        "wait_close",
    ] {
        assert_eq!(
            console.query(&format!("{command} missing_db")),
            "E(08P01 no such database: missing_db) Z(I)"
        );
    }
    assert_eq!(
        console.query("resume only"),
        "E(08P01 database only is not paused) Z(I)"
    );
}

#[test]
fn the_console_speaks_simple_queries_only() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = console(&pooler);
    client.send(&Batch::new().run("show version").sync());
    let said = client.until_closed();
    assert!(
        said.starts_with("E(08P01 extended query protocol not supported by admin console) Z(I)"),
        "{said}"
    );
    wait_for_log(&pooler, "closing because: bad packet (age=");
    for mut client in [console(&pooler), tenant.client(&pooler)] {
        client.send_bytes(b"Q\0\0\0\x01");
        assert_eq!(
            client.until_closed(),
            "E(FATAL 08P01 bad packet header: '5100000001')"
        );
    }
    let mut client = console(&pooler);
    client.send(&Batch::new().query("show version").query("show state;"));
    assert_eq!(
        story(&client.until_ready()),
        "T D(PgBouncer 1.25.2) C(SHOW) Z(I)"
    );
    assert_eq!(
        story(&client.until_ready()),
        "T D(active,yes) D(paused,no) D(suspended,no) C(SHOW) Z(I)"
    );
}

fn state_of(operator: &mut RawClient, database: &str) -> Vec<String> {
    let clients = operator.table("show clients");
    let mut states: Vec<String> = clients
        .iter()
        .filter(|client| client.get("database") == Some(database))
        .map(|client| client.get("state").expect("a column").to_owned())
        .collect();
    states.sort();
    states
}

#[track_caller]
fn wait_for_log(pooler: &Pooler, text: &str) {
    eventually(
        Duration::from_secs(3),
        || pooler.log(),
        |log| log.contains(text),
    );
}

#[track_caller]
fn row<'a>(table: &'a Table, column: &str, value: &str) -> pgweir_tests::Row<'a> {
    match table.find(column, value) {
        Some(row) => row,
        None => panic!("no {column} {value} in\n{table}"),
    }
}

/// A configuration that has no database yet.
fn without_star(tenant: &Tenant) -> Ini {
    let users = format!("\"postgres\" \"\"\n\"{}\" \"\"\n", tenant.name);
    Ini::default()
        .set("auth_type", "trust")
        .set("auth_file", "{dir}/userlist.txt")
        .set("admin_users", "postgres")
        .file("userlist.txt", &users)
}
