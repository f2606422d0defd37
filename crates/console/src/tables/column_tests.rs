//! The columns of every table against those of PgBouncer 1.25, names, types and order.

use super::*;
use crate::Show;
use crate::table::{Column, ColumnType, Table};

/// Fails unless the table is that of `SHOW name` and has these columns, "name type, name type".
fn assert_columns<R>(table: &Table<R>, name: &str, columns: &str) {
    let described = |column: &Column<R>| {
        let kind = match column.kind {
            ColumnType::Text => "text",
            ColumnType::Int4 => "int4",
            ColumnType::Int8 => "int8",
            ColumnType::Numeric => "numeric",
            ColumnType::Bytea => "bytea",
        };
        format!("{} {kind}", column.name)
    };
    let ours: Vec<_> = table.columns.iter().map(described).collect();
    assert_eq!(ours.join(", "), columns, "SHOW {name}");
    assert_eq!(table.name, name);
    assert!(
        name == "version" || Show::from_word(name).is_some(),
        "SHOW {name} is not a command"
    );
}

#[test]
fn version() {
    assert_columns(&VERSION_TABLE, "version", "version text");
}

#[test]
fn stats() {
    assert_columns(
        &STATS,
        "stats",
        "database text, total_server_assignment_count numeric, \
         total_xact_count numeric, total_query_count numeric, total_received numeric, \
         total_sent numeric, total_xact_time numeric, total_query_time numeric, \
         total_wait_time numeric, total_client_parse_count numeric, \
         total_server_parse_count numeric, total_bind_count numeric, \
         total_client_login_count numeric, avg_server_assignment_count numeric, \
         avg_xact_count numeric, avg_query_count numeric, avg_recv numeric, \
         avg_sent numeric, avg_xact_time numeric, avg_query_time numeric, \
         avg_wait_time numeric, avg_client_parse_count numeric, \
         avg_server_parse_count numeric, avg_bind_count numeric, \
         avg_client_login_count numeric",
    );
}

#[test]
fn stats_totals() {
    assert_columns(
        &STATS_TOTALS,
        "stats_totals",
        "database text, server_assignment_count numeric, xact_count numeric, \
         query_count numeric, bytes_received numeric, bytes_sent numeric, \
         xact_time numeric, query_time numeric, wait_time numeric, \
         client_parse_count numeric, server_parse_count numeric, bind_count numeric, \
         client_login_count numeric",
    );
}

#[test]
fn stats_averages() {
    assert_columns(
        &STATS_AVERAGES,
        "stats_averages",
        "database text, server_assignment_count numeric, xact_count numeric, \
         query_count numeric, bytes_received numeric, bytes_sent numeric, \
         xact_time numeric, query_time numeric, wait_time numeric, \
         avg_client_parse_count numeric, avg_server_parse_count numeric, \
         avg_bind_count numeric, avg_client_login_count numeric",
    );
}

#[test]
fn logins_can_be_left_out() {
    let mut out = Vec::new();
    STATS_TOTALS.write_reply_without(counts_logins, &[StatsRow::default()], &mut out);
    // A description and a row of the same twelve columns.
    assert_eq!((out[0], &out[5..7]), (b'T', &[0, 12][..]));
    let len = u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize;
    let row = &out[1 + len..];
    assert_eq!((row[0], &row[5..7]), (b'D', &[0, 12][..]));
    assert!(!String::from_utf8_lossy(&out).contains("login"));
    let (totals, averages) = Default::default();
    let left = totals_rows(&totals, &averages).filter(|row| !row.counts_logins());
    assert_eq!(left.count(), 22);
}

#[test]
fn stats_hist() {
    assert_columns(
        &STATS_HIST,
        "stats_hist",
        "database text, time text, count numeric, avg_us numeric, p50_us numeric, \
         p90_us numeric, p95_us numeric, p99_us numeric, p999_us numeric, max_us numeric",
    );
}

#[test]
fn totals() {
    assert_columns(&TOTALS, "totals", "name text, value numeric");
}

#[test]
fn pools() {
    assert_columns(
        &POOLS,
        "pools",
        "database text, user text, cl_active int4, cl_waiting int4, \
         cl_active_cancel_req int4, cl_waiting_cancel_req int4, sv_active int4, \
         sv_active_cancel int4, sv_being_canceled int4, sv_idle int4, sv_used int4, \
         sv_tested int4, sv_login int4, maxwait int4, maxwait_us int4, pool_mode text, \
         load_balance_hosts text",
    );
}

#[test]
fn peer_pools() {
    assert_columns(
        &PEER_POOLS,
        "peer_pools",
        "peer_id int4, cl_active_cancel_req int4, cl_waiting_cancel_req int4, \
         sv_active_cancel int4, sv_login int4",
    );
}

#[test]
fn peers() {
    assert_columns(
        &PEERS,
        "peers",
        "peer_id int4, host text, port int4, pool_size int4",
    );
}

#[test]
fn lists() {
    assert_columns(&LISTS, "lists", "list text, items int4");
}

#[test]
fn users() {
    assert_columns(
        &USERS,
        "users",
        "name text, pool_size text, reserve_pool_size text, pool_mode text, \
         max_user_connections int4, current_connections int4, \
         max_user_client_connections int4, current_client_connections int4",
    );
}

#[test]
fn databases() {
    assert_columns(
        &DATABASES,
        "databases",
        "name text, host text, port int4, database text, force_user text, \
         pool_size int4, min_pool_size int4, reserve_pool_size int4, \
         server_lifetime int4, pool_mode text, load_balance_hosts text, \
         max_connections int4, current_connections int4, max_client_connections int4, \
         current_client_connections int4, paused int4, disabled int4",
    );
}

#[test]
fn clients() {
    assert_columns(
        &CLIENTS,
        "clients",
        "type text, user text, database text, replication text, state text, addr text, \
         port int4, local_addr text, local_port int4, connect_time text, \
         request_time text, wait int4, wait_us int4, close_needed int4, ptr text, \
         link text, remote_pid int4, tls text, application_name text, \
         prepared_statements int4, id int4",
    );
}

#[test]
fn servers() {
    assert_columns(
        &SERVERS,
        "servers",
        "type text, user text, database text, replication text, state text, addr text, \
         port int4, local_addr text, local_port int4, connect_time text, \
         request_time text, wait int4, wait_us int4, close_needed int4, ptr text, \
         link text, remote_pid int4, tls text, application_name text, \
         prepared_statements int4, id int4",
    );
}

#[test]
fn sockets() {
    assert_columns(
        &SOCKETS,
        "sockets",
        "type text, user text, database text, replication text, state text, addr text, \
         port int4, local_addr text, local_port int4, connect_time text, \
         request_time text, wait int4, wait_us int4, close_needed int4, ptr text, \
         link text, remote_pid int4, tls text, application_name text, \
         prepared_statements int4, id int4, recv_pos int4, pkt_pos int4, \
         pkt_remain int4, send_pos int4, send_remain int4, pkt_avail int4, \
         send_avail int4",
    );
}

#[test]
fn active_sockets() {
    assert_columns(
        &ACTIVE_SOCKETS,
        "active_sockets",
        "type text, user text, database text, replication text, state text, addr text, \
         port int4, local_addr text, local_port int4, connect_time text, \
         request_time text, wait int4, wait_us int4, close_needed int4, ptr text, \
         link text, remote_pid int4, tls text, application_name text, \
         prepared_statements int4, id int4, recv_pos int4, pkt_pos int4, \
         pkt_remain int4, send_pos int4, send_remain int4, pkt_avail int4, \
         send_avail int4",
    );
}

#[test]
fn fds() {
    assert_columns(
        &FDS,
        "fds",
        "fd int4, task text, user text, database text, addr text, port int4, \
         cancel int8, link int4, client_encoding text, std_strings text, \
         datestyle text, timezone text, password text, scram_client_key bytea, \
         scram_server_key bytea",
    );
}

#[test]
fn config() {
    assert_columns(
        &CONFIG,
        "config",
        "key text, value text, default text, changeable text",
    );
}

#[test]
fn mem() {
    assert_columns(
        &MEM,
        "mem",
        "name text, size int4, used int4, free int4, memtotal int4",
    );
}

#[test]
fn dns_hosts() {
    assert_columns(
        &DNS_HOSTS,
        "dns_hosts",
        "hostname text, ttl int8, addrs text",
    );
}

#[test]
fn dns_zones() {
    assert_columns(
        &DNS_ZONES,
        "dns_zones",
        "zonename text, serial int8, count int4",
    );
}

#[test]
fn state() {
    assert_columns(&STATE, "state", "key text, value text");
}

#[test]
fn maintenance() {
    assert_columns(
        &MAINTENANCE,
        "maintenance",
        "database text, mode text, message text, waiting int8, busy int8, by text, since text, \
         remaining int8",
    );
}

#[test]
fn overrides() {
    assert_columns(
        &OVERRIDES,
        "overrides",
        "key text, scope text, subject text, value text, reverts_to text, by text, since text, \
         remaining int8",
    );
}

#[test]
fn quarantine() {
    assert_columns(
        &QUARANTINE,
        "quarantine",
        "id int8, server text, database text, user text, backend_pid int4, since text",
    );
}
