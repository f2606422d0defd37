//! Rows and replies against what PgBouncer 1.25 was seen to answer.

use std::time::Duration;

use pgweir_stats::Snapshot;

use super::*;
use crate::table::{Table, UnixTime};

/// The cells of one row, joined with bars; NULL is `-`.
fn cells_of<R>(table: &Table<R>, row: &R) -> String {
    let mut out = Vec::new();
    table.write_row(row, &mut out);
    let mut rest = &out[7..];
    let mut cells = Vec::new();
    while let Some((len, after)) = rest.split_first_chunk() {
        let len = usize::try_from(i32::from_be_bytes(*len)).ok();
        let (cell, after) = after.split_at(len.unwrap_or(0));
        cells.push(len.map_or("-", |_| std::str::from_utf8(cell).unwrap()));
        rest = after;
    }
    assert_eq!(cells.len(), table.columns.len());
    cells.join("|")
}

#[test]
fn a_reply_has_pgbouncers_bytes() {
    let mut out = Vec::new();
    STATE.write_reply(&PauseState::Active.rows(), &mut out);
    assert_eq!(
        out,
        b"T\x00\x00\x004\x00\x02key\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\
          \xff\xff\x00\x00value\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x19\xff\xff\xff\xff\xff\
          \xff\x00\x00D\x00\x00\x00\x17\x00\x02\x00\x00\x00\x06active\x00\x00\x00\x03yesD\x00\x00\
          \x00\x16\x00\x02\x00\x00\x00\x06paused\x00\x00\x00\x02noD\x00\x00\x00\x19\x00\x02\x00\
          \x00\x00\tsuspended\x00\x00\x00\x02noC\x00\x00\x00\tSHOW\x00Z\x00\x00\x00\x05I"
    );
}

#[test]
fn integer_columns_announce_their_size() {
    let mut out = Vec::new();
    LISTS.write_description(&mut out);
    assert!(out.ends_with(b"items\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"));
    out.clear();
    DNS_HOSTS.write_description(&mut out);
    assert!(
        out.windows(13)
            .any(|bytes| bytes == b"ttl\0\0\0\0\0\0\0\0\0\0")
    );
    assert!(out.windows(6).any(|bytes| bytes == b"\0\0\0\x14\0\x08"));
}

#[test]
fn a_pool_is_shown_as_pgbouncer_does() {
    let pool = PoolRow {
        database: "p1".into(),
        user: "bob".into(),
        cl_active: 1,
        sv_idle: 1,
        maxwait: Duration::from_micros(2_000_003),
        pool_mode: "transaction",
        load_balance_hosts: Some("disable"),
        ..PoolRow::default()
    };
    assert_eq!(
        cells_of(&POOLS, &pool),
        "p1|bob|1|0|0|0|0|0|0|1|0|0|0|2|3|transaction|disable"
    );
}

#[test]
fn a_database_is_shown_as_pgbouncer_does() {
    let console = DatabaseRow {
        name: "pgbouncer".into(),
        port: 33432,
        database: "pgbouncer".to_owned(),
        force_user: Some("pgbouncer".to_owned()),
        pool_size: 2,
        server_lifetime: 3600,
        pool_mode: Some("statement"),
        current_client_connections: 1,
        ..DatabaseRow::default()
    };
    assert_eq!(
        cells_of(&DATABASES, &console),
        "pgbouncer|-|33432|pgbouncer|pgbouncer|2|0|0|3600|statement|-|0|0|0|1|0|0"
    );
}

#[test]
fn sizes_of_users_are_padded_text_or_empty() {
    let alice = UserRow {
        name: "alice".into(),
        pool_size: Some(3),
        reserve_pool_size: Some(1),
        pool_mode: Some("transaction"),
        max_user_connections: 5,
        current_connections: 1,
        max_user_client_connections: 7,
        current_client_connections: 1,
    };
    assert_eq!(
        cells_of(&USERS, &alice),
        "alice|        3|        1|transaction|5|1|7|1"
    );
    let adm = UserRow {
        name: "adm".into(),
        current_client_connections: 1,
        ..UserRow::default()
    };
    assert_eq!(cells_of(&USERS, &adm), "adm|||-|0|0|0|1");
}

fn client() -> SocketRow {
    SocketRow {
        state: SocketState::ClientActive,
        user: Some("bob".into()),
        database: Some("p0".into()),
        replication: Replication::None,
        addr: "127.0.0.1".to_owned(),
        port: 41230,
        local_addr: "127.0.0.1".to_owned(),
        local_port: 33432,
        connect_time: UnixTime(1_795_244_481),
        request_time: UnixTime(1_795_244_481),
        wait: Duration::from_micros(1_389),
        close_needed: false,
        id: 1,
        link: Some(2),
        remote_pid: 0,
        tls: String::new(),
        application_name: "psql".into(),
        prepared_statements: 0,
        buffers: SocketBuffers {
            recv_pos: 25,
            pkt_avail: 25,
            ..SocketBuffers::default()
        },
    }
}

#[test]
fn a_client_is_shown_as_pgbouncer_does() {
    assert_eq!(
        cells_of(&CLIENTS, &client()),
        "C|bob|p0|none|active|127.0.0.1|41230|127.0.0.1|33432|2026-11-21 07:01:21 UTC|\
         2026-11-21 07:01:21 UTC|0|1389|0|0x000000000001|0x000000000002|0||psql|0|1"
    );
    assert!(cells_of(&SOCKETS, &client()).ends_with("|psql|0|1|25|0|0|0|0|25|0"));
    assert!(cells_of(&ACTIVE_SOCKETS, &client()).starts_with("C|bob|p0|none|cl_active|"));
}

#[test]
fn an_active_client_without_a_server_is_shown_idle() {
    let idle = SocketRow {
        link: None,
        ..client()
    };
    assert!(cells_of(&CLIENTS, &idle).starts_with("C|bob|p0|none|idle|"));
    assert!(cells_of(&CLIENTS, &idle).contains("|0x000000000001||0|"));
    assert!(cells_of(&SOCKETS, &idle).starts_with("C|bob|p0|none|cl_active|"));
}

#[test]
fn a_server_and_a_stranger_are_told_apart() {
    let server = SocketRow {
        state: SocketState::ServerLogin,
        user: None,
        database: None,
        ..client()
    };
    assert!(cells_of(&SERVERS, &server).starts_with("S|(nouser)|(nodb)|none|new|"));
    assert!(cells_of(&SOCKETS, &server).starts_with("S|(nouser)|(nodb)|none|sv_login|"));
}

#[test]
fn ids_fit_their_column() {
    assert_eq!(shown_id(7), 7);
    assert_eq!(shown_id((1 << 31) + 7), 7);
    assert_eq!(shown_id(u64::MAX), 0x7fff_ffff);
}

#[test]
fn descriptors_are_shown_as_pgbouncer_does() {
    let listener = FdRow {
        fd: 7,
        task: FdTask::Pooler,
        user: None,
        database: None,
        addr: "127.0.0.1".to_owned(),
        port: 33432,
        cancel: 0,
        link: 0,
        client_encoding: None,
        std_strings: None,
        datestyle: None,
        timezone: None,
        password: None,
        scram_client_key: None,
        scram_server_key: None,
    };
    assert_eq!(
        cells_of(&FDS, &listener),
        "7|pooler|-|-|127.0.0.1|33432|0|0|-|-|-|-|-|-|-"
    );
    let client = FdRow {
        task: FdTask::Client,
        scram_client_key: Some([0xab; 32]),
        ..listener
    };
    assert!(cells_of(&FDS, &client).ends_with(&format!("|-|\\x{}|-", "ab".repeat(32))));
}

#[test]
fn statistics_are_shown_as_pgbouncer_does() {
    let totals = Snapshot {
        server_assignment_count: 1,
        xact_count: 1,
        query_count: 2,
        bytes_received: 25,
        bytes_sent: 83,
        query_time_us: 340,
        wait_time_us: 3654,
        client_login_count: 1,
        ..Snapshot::default()
    };
    let averages = totals.averages(&Snapshot::default(), 2_222_000);
    let row = StatsRow {
        database: "p0".into(),
        totals,
        averages,
    };
    assert_eq!(
        cells_of(&STATS, &row),
        "p0|1|1|2|25|83|0|340|3654|0|0|0|1|0|0|0|11|37|0|170|3654|0|0|0|0"
    );
    assert_eq!(
        cells_of(&STATS_TOTALS, &row),
        "p0|1|1|2|25|83|0|340|3654|0|0|0|1"
    );
    assert_eq!(
        cells_of(&STATS_AVERAGES, &row),
        "p0|0|0|0|11|37|0|170|3654|0|0|0|0"
    );
}

#[test]
fn totals_are_twelve_sums_and_twelve_averages() {
    let totals = Snapshot {
        bytes_received: 124,
        client_login_count: 5,
        ..Snapshot::default()
    };
    let averages = Snapshot {
        bytes_received: 56,
        ..Snapshot::default()
    };
    let rows: Vec<_> = totals_rows(&totals, &averages)
        .map(|row| cells_of(&TOTALS, &row))
        .collect();
    assert_eq!(rows.len(), 24);
    assert_eq!(rows[0], "total_server_assignment_count|0");
    assert_eq!(rows[3], "total_client_bytes|124");
    assert_eq!(rows[11], "total_client_login_count|5");
    assert_eq!(rows[15], "avg_client_bytes|56");
    assert_eq!(rows[22], "avg_ps_bind_count|0");
}

#[test]
fn lists_are_in_pgbouncers_order() {
    let counts = ListCounts {
        databases: 5,
        dns_queries: -1,
        ..ListCounts::default()
    };
    let rows: Vec<_> = counts.rows().map(|row| cells_of(&LISTS, &row)).collect();
    assert_eq!(
        rows,
        [
            "databases|5",
            "users|0",
            "peers|0",
            "pools|0",
            "peer_pools|0",
            "free_clients|0",
            "used_clients|0",
            "login_clients|0",
            "free_servers|0",
            "used_servers|0",
            "dns_names|0",
            "dns_zones|0",
            "dns_queries|-1",
            "dns_pending|0",
        ]
    );
}

#[test]
fn the_state_is_yes_in_one_row() {
    let rows = PauseState::Suspended
        .rows()
        .map(|row| cells_of(&STATE, &row));
    assert_eq!(rows, ["active|no", "paused|no", "suspended|yes"]);
}

#[test]
fn other_rows_are_shown_as_pgbouncer_does() {
    let key = ConfigRow {
        key: "auth_dbname",
        value: None,
        default: None,
        changeable: true,
    };
    assert_eq!(cells_of(&CONFIG, &key), "auth_dbname|-|-|yes");
    let cache = MemRow {
        name: MEM_CACHES[0],
        size: 65_928,
        used: 6,
        free: 44,
    };
    assert_eq!(cells_of(&MEM, &cache), "user_cache|65928|6|44|3296400");
    let host = DnsHostRow {
        hostname: "localhost".to_owned(),
        ttl: 14,
        addrs: "127.0.0.1:0".to_owned(),
    };
    assert_eq!(cells_of(&DNS_HOSTS, &host), "localhost|14|127.0.0.1:0");
    let zone = DnsZoneRow {
        zonename: "example.org".to_owned(),
        serial: u32::MAX,
        count: 2,
    };
    assert_eq!(cells_of(&DNS_ZONES, &zone), "example.org|4294967295|2");
    let peer = PeerRow {
        peer_id: 1,
        host: Some("DIR".to_owned()),
        port: 7777,
        pool_size: 20,
    };
    assert_eq!(cells_of(&PEERS, &peer), "1|DIR|7777|20");
    let peer_pool = PeerPoolRow {
        peer_id: 2,
        sv_login: 1,
        ..PeerPoolRow::default()
    };
    assert_eq!(cells_of(&PEER_POOLS, &peer_pool), "2|0|0|0|1");
    assert_eq!(cells_of(&VERSION_TABLE, &()), "PgBouncer 1.25.2");
}
