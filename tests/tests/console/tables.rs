//! What the tables show, and what they count.

use super::*;

#[test]
fn states_of_clients_and_servers_are_shown() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let name = &tenant.name;
    let mut operator = console(&pooler);
    let mut idle = tenant.client(&pooler);
    assert_eq!(idle.query("select 1"), SELECT_1);
    let mut active = tenant.client(&pooler);
    let pid = active.value("begin; select pg_backend_pid()");
    let mut waiting = tenant.client(&pooler);
    waiting.send(&Batch::new().query("select 1"));
    eventually(
        Duration::from_secs(2),
        || state_of(&mut operator, name),
        |states| *states == ["active", "idle", "waiting"],
    );
    let pools = operator.table("show pools");
    let pool = row(&pools, "database", name);
    assert_eq!(
        ["cl_active", "cl_waiting", "sv_active", "sv_idle"].map(|column| pool.number(column)),
        [2, 1, 1, 0],
        "PgBouncer counts idle clients as active"
    );
    let servers = operator.table("show servers");
    let server = row(&servers, "database", name);
    assert_eq!(server.get("remote_pid"), Some(&*pid));
    assert_eq!(server.get("state"), Some("active"));
    let clients = operator.table("show clients");
    let holder = row(&clients, "state", "active");
    let holding = clients
        .iter()
        .find(|client| client.get("link") == server.get("ptr"));
    assert_eq!(holding.and_then(|client| client.get("user")), Some(&**name));
    assert_eq!(holder.get("type"), Some("C"));
    active.rows("commit");
    waiting.until_ready();
    let databases = operator.table("show databases");
    let database = row(&databases, "name", name);
    assert_eq!(database.number("current_connections"), 1);
    assert_eq!(database.number("current_client_connections"), 3);
}

#[test]
fn the_name_of_a_session_is_shown_as_it_changes() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let name = &tenant.name;
    let mut operator = console(&pooler);
    let mut client = tenant.client(&pooler);
    client.rows("set application_name = 'night run'");
    let clients = operator.table("show clients");
    let client_row = row(&clients, "database", name);
    assert_eq!(client_row.get("application_name"), Some("night run"));
    client.rows("begin");
    client.rows("set application_name = 'morning run'");
    for what in ["show clients", "show servers"] {
        let shown = operator.table(what);
        let shown = row(&shown, "database", name).get("application_name");
        assert_eq!(shown, Some("morning run"), "{what}");
    }
}

#[test]
fn sockets_are_listed_pool_by_pool_and_logins_at_the_end() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut login = RawClient::connect(pooler.port);
    login.send_bytes(&[0]);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    let mut operator = console(&pooler);
    eventually(
        Duration::from_secs(2),
        || {
            let sockets = operator.table("show sockets");
            let kinds = sockets.iter().map(|socket| {
                let word = |column| socket.get(column).unwrap_or_default().to_owned();
                [word("type"), word("state"), word("database")].join(" ")
            });
            kinds.collect::<Vec<_>>()
        },
        |kinds| {
            let name = &tenant.name;
            let mut expected = vec![
                "C cl_active pgbouncer".to_owned(),
                format!("C cl_active {name}"),
                format!("S sv_idle {name}"),
                "C cl_login (nodb)".to_owned(),
            ];
            if "pgbouncer" > &**name {
                expected.swap(0, 1);
                expected.swap(1, 2);
            }
            *kinds == expected
        },
    );
}

#[test]
fn a_console_counts_once() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut operator = console(&pooler);
    let mut counts = || {
        let totals = operator.table("show stats_totals");
        let totals = row(&totals, "database", "pgbouncer");
        ["xact_count", "query_count"].map(|column| totals.number(column))
    };
    let [once, _] = counts();
    assert_eq!(counts(), [once, once]);
    console(&pooler).query("show version");
    assert_eq!(counts(), [once + 1, once + 1]);
}

#[test]
fn counters_count_exactly() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("show_login_counts", 1));
    for _ in 0..5 {
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    }
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
    let stats = console(&pooler).table("show stats");
    let stats = row(&stats, "database", &tenant.name);
    assert_eq!(
        [
            "total_server_assignment_count",
            "total_xact_count",
            "total_query_count",
            "total_client_login_count"
        ]
        .map(|column| stats.number(column)),
        [6, 6, 16, 6]
    );
    for column in ["total_received", "total_sent", "total_query_time"] {
        assert!(stats.number(column) > 0, "{column}");
    }
}

/// As with PgBouncer a Terminate does not count, and a message that comes in pieces counts once.
#[test]
fn bytes_of_messages_are_counted_once_and_a_goodbye_is_none() {
    const QUERY: &[u8] = b"Q\0\0\0\x0dselect 1\0";
    let Some(tenant) = Tenant::new() else { return };
    for mode in ["session", "transaction"] {
        let pooler = start(tenant.ini().set("pool_mode", mode));
        let mut client = tenant.client(&pooler);
        client.send_bytes(&QUERY[..3]);
        thread::sleep(Duration::from_millis(50));
        client.send_bytes(&QUERY[3..]);
        assert_eq!(story(&client.until_ready()), SELECT_1);
        client.send_bytes(b"X\0\0\0\x04");
        client.until_closed();
        let mut operator = console(&pooler);
        let mut received = || {
            let stats = operator.table("show stats");
            row(&stats, "database", &tenant.name).number("total_received")
        };
        assert_eq!(received(), QUERY.len() as i64, "{mode}");
    }
}

#[test]
fn ids_grow_by_one_and_closed_clients_vanish_at_once() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut last = None;
    for _ in 0..10 {
        let mut operator = console(&pooler);
        let shown = match last {
            Some(_) => operator.table("show clients"),
            // Whoever waited for the pooler to start may not have gone yet.
            None => eventually(
                Duration::from_secs(5),
                || operator.table("show clients"),
                |shown| shown.rows.len() == 1,
            ),
        };
        assert_eq!(shown.rows.len(), 1, "{shown}");
        let id = row(&shown, "database", "pgbouncer").number("id");
        if let Some(last) = last {
            assert_eq!(id, last + 1);
        }
        last = Some(id);
        // A socket that is only dropped is noticed some time later. Here the pooler closes its end, and then the client is
        // in no list any more.
        operator.send(&Batch::new().terminate());
        assert_eq!(operator.until_end().0, "");
    }
}
