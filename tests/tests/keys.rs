//! The promise: every key that PgBouncer has does here what its manual says. These are the keys that no other test needs.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::{Duration, Instant},
};

use pgweir_tests::{Batch, Pooler, RawClient, Signal, Table, Tenant, console, eventually, start};

const SOON: Duration = Duration::from_secs(5);

#[test]
fn disable_pqexec_refuses_simple_queries_only() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("disable_pqexec", 1));
    let mut client = tenant.client(&pooler);
    assert_eq!(
        client.ask(&Batch::new().run("select 1").sync()),
        "1 2 D(1) C(SELECT 1) Z(I)"
    );
    client.send(&Batch::new().query("select 1"));
    assert_eq!(client.until_closed(), "E(FATAL 08P01 PQexec disallowed)");
    let mut next = tenant.client(&pooler);
    assert_eq!(
        next.ask(&Batch::new().run("select 2").sync()),
        "1 2 D(2) C(SELECT 1) Z(I)"
    );
    let log = pooler.log();
    assert!(log.contains("client used \"Query\" packet type"), "{log}");
}

#[test]
fn conffile_is_what_the_next_reload_reads() {
    let Some(tenant) = Tenant::new() else { return };
    let other = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nmax_client_conn = 77\n\
         auth_type = trust\nauth_file = {{dir}}/userlist.txt\nadmin_users = postgres\n",
        tenant.postgres.port()
    );
    let pooler = start(tenant.ini().file("other.ini", &other));
    let mut operator = console(&pooler);
    assert_eq!(
        setting(&mut operator, "conffile"),
        pooler.ini_path().display().to_string()
    );
    assert_eq!(setting(&mut operator, "max_client_conn"), "100");
    let other = pooler.socket_dir.join("other.ini").display().to_string();
    operator.query(&format!("set conffile = '{other}'"));
    assert_eq!(setting(&mut operator, "max_client_conn"), "100");
    assert_eq!(operator.query("reload"), "C(RELOAD) Z(I)");
    assert_eq!(setting(&mut operator, "max_client_conn"), "77");
    assert_eq!(setting(&mut operator, "conffile"), other);
}

#[test]
fn keys_without_a_default_keep_their_value_over_reload_and_others_do_not() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("query_timeout", 7).set("verbose", 1);
    let pooler = start(ini.set("auth_ident_file", "{dir}/ident"));
    let mut operator = console(&pooler);
    for (key, value) in [
        ("auth_user", "somebody"),
        ("client_tls13_ciphers", "TLS_AES_256_GCM_SHA384"),
        ("query_timeout", "8"),
        ("max_client_conn", "99"),
    ] {
        let answer = operator.query(&format!("set {key} = '{value}'"));
        assert!(
            answer.ends_with(&format!("C(SET {key}={value}) Z(I)")),
            "{answer}"
        );
    }
    pooler.reload(tenant.ini()).expect("a good file");
    for (key, value) in [
        ("auth_user", "somebody"),
        ("client_tls13_ciphers", "TLS_AES_256_GCM_SHA384"),
        ("verbose", "1"),
        ("query_timeout", "0"),
        ("max_client_conn", "100"),
    ] {
        assert_eq!(setting(&mut operator, key), value, "{key}");
    }
    assert!(setting(&mut operator, "auth_ident_file").ends_with("/ident"));
}

#[test]
fn keys_that_change_nothing_are_accepted_and_named_once() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini();
    let ini = ini
        .set("pkt_buf", 75)
        .set("sbuf_loopcnt", 0)
        .set("job_name", "mine");
    let pooler = start(ini);
    let mut operator = console(&pooler);
    for (key, value) in [
        ("pkt_buf", "75"),
        ("sbuf_loopcnt", "0"),
        ("job_name", "mine"),
    ] {
        assert_eq!(setting(&mut operator, key), value);
    }
    assert_eq!(operator.query("reload"), "C(RELOAD) Z(I)");
    for key in ["pkt_buf", "sbuf_loopcnt"] {
        let text = format!("WARNING {key} has no effect");
        assert_eq!(pooler.log().matches(&text).count(), 1, "{key}");
    }
}

#[test]
fn who_says_nothing_waits_in_the_kernel() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut operator = console(&pooler);
    let _unseen = RawClient::connect(pooler.port);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.value("select 1"), "1", "who came later and spoke");
    let logins = |operator: &mut RawClient| {
        let lists = operator.table("show lists");
        let row = lists.find("list", "login_clients");
        row.map(|row| row.number("items"))
    };
    assert_eq!(logins(&mut operator), Some(0));
    // From now on everybody is let in at once.
    let answer = operator.query("set tcp_defer_accept = 0");
    assert!(answer.contains("C(SET"), "{answer}");
    let _seen = RawClient::connect(pooler.port);
    eventually(SOON, || logins(&mut operator), |count| *count == Some(1));
}

#[test]
fn listen_backlog_is_how_many_wait_to_be_accepted() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("tcp_defer_accept", 0);
    let pooler = start(ini.set("listen_backlog", 2));
    let address = SocketAddr::from(([127, 0, 0, 1], pooler.port));
    pooler.signal(Signal::STOP);
    let mut waiting = Vec::new();
    for _ in 0..10 {
        // Who finds no place is not answered at all.
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(stream) => waiting.push(stream),
            Err(_) => break,
        }
    }
    pooler.signal(Signal::CONT);
    assert_eq!(waiting.len(), 3, "the kernel adds one");
}

#[test]
fn keepalives_are_sent_after_the_configured_silence() {
    let Some(tenant) = Tenant::new() else { return };
    let Ok(sockets) = fs::read_to_string("/proc/net/tcp") else {
        return pgweir_tests::skip("there is no /proc/net/tcp");
    };
    assert!(sockets.contains("tm->when"));
    let quiet = start(tenant.ini().set("tcp_keepalive", 0));
    let probed = start(tenant.ini().set("tcp_keepidle", 777));
    for (pooler, expected) in [(&quiet, None), (&probed, Some(777))] {
        let mut client = tenant.client(pooler);
        assert_eq!(client.value("select 1"), "1");
        eventually(
            SOON,
            || keepalive_timers(pooler.port),
            |timers| {
                let fits = |seconds: &Option<u64>| match (seconds, expected) {
                    (None, None) => true,
                    (Some(left), Some(of)) => (of - 60..=of).contains(left),
                    _ => false,
                };
                timers.len() == 1 && timers.iter().all(fits)
            },
        );
    }
}

/// For each connection that was accepted on this port: the seconds to its next keepalive.
fn keepalive_timers(port: u16) -> Vec<Option<u64>> {
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let here = format!(":{port:04X}");
    let timer = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, state, timer) = (words.get(1)?, words.get(3)?, words.get(5)?);
        if !local.ends_with(&here) || *state != "01" {
            return None;
        }
        let (kind, ticks) = timer.split_once(':')?;
        let ticks = u64::from_str_radix(ticks, 16).ok()?;
        Some((kind == "02").then_some(ticks / 100))
    };
    sockets.lines().filter_map(timer).collect()
}

#[test]
fn the_unix_socket_has_the_configured_mode_and_group() {
    let Some(tenant) = Tenant::new() else { return };
    let path = |pooler: &Pooler| {
        let name = format!(".s.PGSQL.{}", pooler.port);
        pooler.socket_dir.join(name)
    };
    let open = tenant.pooler(1);
    let meta = fs::metadata(path(&open)).expect("the socket");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o777);
    let group = meta.gid();
    let ini = tenant.ini().set("unix_socket_mode", "0750");
    let closed = start(ini.set("unix_socket_group", group));
    let meta = fs::metadata(path(&closed)).expect("the socket");
    assert_eq!(meta.permissions().mode() & 0o7777, 0o750);
    assert_eq!(meta.gid(), group);
    // SHOW CONFIG prints a mode as a decimal number.
    assert_eq!(setting(&mut console(&closed), "unix_socket_mode"), "488");

    let ini = tenant.ini().set("unix_socket_group", "no_such_group");
    let error = Pooler::start(ini).expect_err("there is no such group");
    let text = error.to_string();
    assert!(
        text.contains("could not find group 'no_such_group'"),
        "{text}"
    );
}

#[test]
fn scram_iterations_are_those_of_verifiers_made_from_plain_secrets() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("auth_type", "scram-sha-256");
    let ini = ini.file("userlist.txt", &format!("\"{}\" \"secret\"\n", tenant.name));
    let pooler = start(ini.set("scram_iterations", 5000));
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
    client.read().expect("a challenge");
    client.send(&Batch::new().sasl_initial("SCRAM-SHA-256", "n,,n=,r=mynonce"));
    let first = client.read().expect("the server's first message");
    let text = String::from_utf8_lossy(&first.body[4..]).into_owned();
    assert!(text.ends_with(",i=5000"), "{text}");
}

#[test]
fn statistics_are_logged_every_stats_period() {
    let Some(tenant) = Tenant::new() else { return };
    let quiet = start(tenant.ini().set("stats_period", 1).set("log_stats", 0));
    let pooler = start(tenant.ini().set("stats_period", 1));
    let log = eventually(
        SOON,
        || pooler.log(),
        |log| log.matches(" LOG stats: ").count() >= 2,
    );
    let line = log
        .lines()
        .find(|line| line.contains(" LOG stats: "))
        .expect("found");
    let (_, figures) = line.split_once(" LOG stats: ").expect("found");
    let words = figures.split(|c: char| c.is_ascii_digit());
    let words: String = words.filter(|word| !word.is_empty()).collect();
    assert_eq!(
        words,
        " xacts/s,  queries/s,  client parses/s,  server parses/s,  binds/s, \
         in  B/s, out  B/s, xact  us, query  us, wait  us"
    );
    assert!(!quiet.log().contains(" LOG stats: "));
}

#[test]
fn averages_are_taken_over_the_period() {
    let Some(tenant) = Tenant::new() else { return };
    let before = Instant::now();
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    for _ in 0..200 {
        assert_eq!(client.value("select pg_sleep(0.001)"), "");
    }
    let shown = console(&pooler).table("show stats");
    let longest = before.elapsed().as_secs() + 2;
    let row = shown.find("database", &tenant.name).expect("a row");
    let figure = |name: &str| -> u64 { row.get(name).and_then(|n| n.parse().ok()).expect(name) };
    assert_eq!(figure("total_query_count"), 200);
    // Times are per event.
    for (average, total, count) in [
        ("avg_query_time", "total_query_time", "total_query_count"),
        ("avg_xact_time", "total_xact_time", "total_xact_count"),
        (
            "avg_wait_time",
            "total_wait_time",
            "total_server_assignment_count",
        ),
    ] {
        assert_eq!(figure(average), figure(total) / figure(count), "{average}");
    }
    assert!(figure("avg_query_time") >= 1000);
    // Counts are per second; before the first period has ended one second is added to it.
    for (average, total) in [
        ("avg_query_count", "total_query_count"),
        ("avg_xact_count", "total_xact_count"),
        (
            "avg_server_assignment_count",
            "total_server_assignment_count",
        ),
        ("avg_recv", "total_received"),
        ("avg_sent", "total_sent"),
    ] {
        let (average, total) = (figure(average), figure(total));
        assert!(
            average >= total / longest && average <= total,
            "{average} of {total}"
        );
    }
}

#[test]
fn what_goes_on_counts_from_its_beginning() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    client.send(&Batch::new().query("select pg_sleep(20)"));
    let mut operator = console(&pooler);
    let mut counts = || {
        let shown = operator.table("show stats_totals");
        let row = shown.find("database", &tenant.name).expect("a row");
        let names = ["server_assignment_count", "xact_count", "query_count"];
        names
            .map(|name| row.get(name).unwrap_or_default().to_owned())
            .join(" ")
    };
    eventually(SOON, &mut counts, |counts| counts == "1 1 1");
    let asleep = format!(
        "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = '{}'",
        tenant.name
    );
    let mut root = tenant.root();
    eventually(SOON, || root.rows(&asleep).len(), |sleepers| *sleepers == 1);
    client.cancel();
    client.until_ready();
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    assert_eq!(counts(), "2 2 2");
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(counts(), "2 2 3");

    let copied = "copy (select repeat('x', 1000) from generate_series(1, 1000000)) to stdout";
    client.send(&Batch::new().query(copied));
    let mut sent = || -> u64 {
        let shown = operator.table("show stats_totals");
        let row = shown.find("database", &tenant.name).expect("a row");
        row.get("bytes_sent")
            .and_then(|n| n.parse().ok())
            .expect("a number")
    };
    // Nobody reads it, so it goes on.
    eventually(SOON, &mut sent, |sent| *sent > 1024 * 1024);
}

/// The value that SHOW CONFIG has.
fn setting(operator: &mut RawClient, key: &str) -> String {
    let shown: Table = operator.table("show config");
    let row = shown.find("key", key).expect("a row");
    row.get("value").unwrap_or_default().to_owned()
}
