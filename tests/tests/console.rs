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

#[test]
fn pause_waits_for_transactions_and_holds_queries_until_resume() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut working = tenant.client(&pooler);
    let mut idle = tenant.client(&pooler);
    assert_eq!(idle.query("select 1"), SELECT_1);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");

    let mut operator = console(&pooler);
    operator.send(&Batch::new().query("pause"));
    assert!(operator.is_silent_for(Duration::from_millis(300)));
    idle.send(&Batch::new().query("select 1"));
    assert!(idle.is_silent_for(Duration::from_millis(100)));
    assert_eq!(working.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(story(&operator.until_ready()), "C(PAUSE) Z(I)");
    assert_eq!(tenant.backends(), 0, "PostgreSQL could be stopped now");
    assert_eq!(
        operator.query("pause"),
        "E(08P01 already suspended/paused) Z(I)"
    );
    assert!(operator.query("show state").contains("D(paused,yes)"));
    let mut late = tenant.client(&pooler);
    late.send(&Batch::new().query("select 1"));
    assert!(late.is_silent_for(Duration::from_millis(100)));

    assert_eq!(operator.query("resume"), "C(RESUME) Z(I)");
    for client in [&mut idle, &mut late] {
        assert_eq!(story(&client.until_ready()), SELECT_1);
    }
}

#[test]
fn one_database_is_paused_without_the_others() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    let mut operator = console(&pooler);
    let name = &tenant.name;
    assert_eq!(operator.query(&format!("pause {name}")), "C(PAUSE) Z(I)");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    let shown = operator.table("show databases");
    assert_eq!(row(&shown, "name", name).number("paused"), 1);
    assert_eq!(state_of(&mut operator, name), ["waiting"]);

    let mut other = RawClient::login(pooler.port, "postgres", name);
    assert_eq!(other.query("select 1"), SELECT_1);

    assert_eq!(operator.query(&format!("resume {name}")), "C(RESUME) Z(I)");
    assert_eq!(story(&client.until_ready()), SELECT_1);
    assert_eq!(
        operator.query(&format!("resume {name}")),
        format!("E(08P01 database {name} is not paused) Z(I)")
    );
}

#[test]
fn a_pause_that_waits_can_be_called_off() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut working = tenant.client(&pooler);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");
    let mut operator = console(&pooler);
    operator.send(&Batch::new().query("pause"));
    assert!(operator.is_silent_for(Duration::from_millis(200)));
    assert_eq!(console(&pooler).query("resume"), "C(RESUME) Z(I)");
    let answer = story(&operator.until_ready());
    assert!(answer.ends_with("Z(I)"), "{answer}");
    assert_eq!(working.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(working.query("select 1"), SELECT_1);
}

#[test]
fn a_cancel_calls_a_waiting_pause_off() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut working = tenant.client(&pooler);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");
    let mut operator = console(&pooler);
    operator.send(&Batch::new().query("pause"));
    assert!(operator.is_silent_for(Duration::from_millis(200)));
    operator.cancel();
    eventually(
        Duration::from_secs(2),
        || console(&pooler).query("show state"),
        |state| state.contains("D(paused,no)"),
    );
}

#[test]
fn suspend_holds_everything_until_resume() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    let mut operator = console(&pooler);
    assert_eq!(operator.query("suspend"), "C(SUSPEND) Z(I)");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    assert_eq!(operator.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(story(&client.until_ready()), SELECT_1);
}

#[test]
fn a_disabled_database_lets_nobody_new_in() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let name = &tenant.name;
    let mut inside = tenant.client(&pooler);
    let mut operator = console(&pooler);
    assert_eq!(
        operator.query(&format!("disable {name}")),
        "C(DISABLE) Z(I)"
    );
    let parameters = [("user", &**name), ("database", &**name)];
    assert_eq!(
        RawClient::try_login(pooler.port, &parameters).map(|_| ()),
        Err(format!("E(FATAL 08P01 database \"{name}\" is disabled)"))
    );
    assert_eq!(inside.query("select 1"), SELECT_1);
    let shown = operator.table("show databases");
    assert_eq!(row(&shown, "name", name).number("disabled"), 1);
    assert_eq!(operator.query(&format!("enable {name}")), "C(ENABLE) Z(I)");
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn reconnect_spares_running_transactions_and_wait_close_waits_for_them() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut working = tenant.client(&pooler);
    let mut other = tenant.client(&pooler);
    let old = working.value("begin; select pg_backend_pid()");
    let mut operator = console(&pooler);
    let name = &tenant.name;
    assert_eq!(
        operator.query(&format!("reconnect {name}")),
        "C(RECONNECT) Z(I)"
    );
    let mut waiting = console(&pooler);
    waiting.send(&Batch::new().query(&format!("wait_close {name}")));
    assert!(waiting.is_silent_for(Duration::from_millis(200)));
    assert_ne!(other.value("select pg_backend_pid()"), old);
    assert_eq!(working.value("select pg_backend_pid()"), old);
    assert_eq!(working.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(story(&waiting.until_ready()), "C(WAIT_CLOSE) Z(I)");
    assert_ne!(working.value("select pg_backend_pid()"), old);
    let pids = tenant.root().rows(&format!(
        "select pid from pg_stat_activity where usename = '{name}'"
    ));
    assert!(!pids.contains(&old));
}

#[test]
fn kill_drops_the_clients_and_servers_of_a_database_and_pauses_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(3);
    let name = &tenant.name;
    let mut idle = tenant.client(&pooler);
    let mut working = tenant.client(&pooler);
    let mut asking = tenant.client(&pooler);
    let mut elsewhere = RawClient::login(pooler.port, "postgres", name);
    assert_eq!(idle.query("select 1"), SELECT_1);
    assert_eq!(elsewhere.query("select 1"), SELECT_1);
    assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");
    asking.send(&Batch::new().query("select pg_sleep(20)"));
    thread::sleep(Duration::from_millis(100));

    let mut operator = console(&pooler);
    assert_eq!(operator.query(&format!("kill {name}")), "C(KILL) Z(I)");
    assert_eq!(state_of(&mut operator, name), [""; 0]);
    for mut client in [idle, working, asking] {
        let said = client.until_closed();
        assert!(said.ends_with("E(FATAL 08P01 database removed)"), "{said}");
    }
    assert_eq!(elsewhere.query("select 1"), SELECT_1);
    let mut root = tenant.root();
    eventually(
        Duration::from_secs(2),
        || {
            root.value(&format!(
                "select count(*) from pg_stat_activity where usename = '{name}' and datname = '{name}'"
            ))
        },
        |count| count == "0",
    );

    assert_eq!(operator.query(&format!("resume {name}")), "C(RESUME) Z(I)");
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn kill_does_not_wait_for_those_who_come_back() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("max_client_conn", 1000);
    let pooler = start(ini.set("workers", 4));
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
    let over = AtomicBool::new(false);
    // So many that the first are back before the last have gone.
    let clients: Vec<_> = (0..200).map(|_| tenant.client(&pooler)).collect();
    thread::scope(|scope| {
        for mut client in clients {
            let (tenant, pooler, over) = (&tenant, &pooler, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if !client.is_silent_for(SHORT) {
                        client = tenant.client(pooler);
                    }
                }
            });
        }
        let mut operator = console(&pooler);
        operator.send(&Batch::new().query(&format!("kill {}", tenant.name)));
        let answer = operator.read();
        over.store(true, Ordering::Relaxed);
        assert_eq!(
            answer.map(|answer| answer.to_string()).as_deref(),
            Ok("C(KILL)")
        );
    });
}

#[test]
fn a_console_that_waits_can_leave_and_be_killed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let mut operator = console(&pooler);
    let consoles = |operator: &mut RawClient| {
        let clients = operator.table("show clients");
        let all = clients
            .iter()
            .filter(|row| row.get("database") == Some("pgbouncer"));
        all.map(|row| row.number("id")).collect::<Vec<_>>()
    };
    let [own] = consoles(&mut operator)[..] else {
        panic!("one console")
    };
    let name = &tenant.name;
    operator.query(&format!("reconnect {name}"));
    for command in [format!("wait_close {name}"), format!("pause {name}")] {
        for leaves in [true, false] {
            let mut waiting = console(&pooler);
            // What it asks for next it has said already.
            waiting.send(&Batch::new().query(&command).query("show version"));
            assert!(waiting.is_silent_for(SHORT), "{command}");
            let ids = consoles(&mut operator);
            let id = ids.iter().find(|id| **id != own).expect("it is listed");
            if leaves {
                drop(waiting);
            } else {
                let kill = format!("kill_client {id}");
                assert_eq!(operator.query(&kill), "C(KILL_CLIENT) Z(I)", "{command}");
                assert_eq!(
                    waiting.until_closed(),
                    "E(FATAL 08P01 admin forced disconnect)"
                );
            }
            eventually(
                Duration::from_secs(5),
                || consoles(&mut operator),
                |ids| *ids == [own],
            );
        }
    }
    let mut waiting = console(&pooler);
    waiting.send(
        &Batch::new()
            .query(&format!("wait_close {name}"))
            .query("show version"),
    );
    assert!(waiting.is_silent_for(SHORT));
    // The pause has outlived its console.
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(SHORT));
    let said = story(&waiting.until_ready());
    assert_eq!(said, "C(WAIT_CLOSE) Z(I)");
    assert!(story(&waiting.until_ready()).starts_with("T D("));
    assert_eq!(operator.query(&format!("resume {name}")), "C(RESUME) Z(I)");
    assert_eq!(story(&client.until_ready()), SELECT_1);
}

#[test]
fn kill_without_a_name_drops_all_but_the_console() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let mut operator = console(&pooler);
    assert_eq!(operator.query("kill"), "C(KILL) Z(I)");
    assert_eq!(client.until_closed(), "E(FATAL 08P01 database removed)");
    assert_eq!(operator.table("show clients").rows.len(), 1);
    // As if every database had been named: they are resumed by their names.
    assert_eq!(
        operator.query("resume"),
        "E(08P01 pooler is not paused/suspended) Z(I)"
    );
    let resume = format!("resume {}", tenant.name);
    assert_eq!(operator.query(&resume), "C(RESUME) Z(I)");
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn one_client_can_be_killed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut victim = tenant.client(&pooler);
    let mut operator = console(&pooler);
    let shown = operator.table("show clients");
    let id = row(&shown, "user", &tenant.name).number("id");
    victim.send(&Batch::new().query("select pg_sleep(20)"));
    let mut other = tenant.client(&pooler);
    assert_eq!(
        operator.query(&format!("kill_client {id}")),
        "C(KILL_CLIENT) Z(I)"
    );
    let said = victim.until_closed();
    assert!(
        said.ends_with("E(FATAL 08P01 admin forced disconnect)"),
        "{said}"
    );
    assert_eq!(other.query("select 1"), SELECT_1);
    assert_eq!(
        operator.query(&format!("kill_client {id}")),
        "E(08P01 client not found) Z(I)"
    );
}

#[test]
fn set_changes_what_it_may_and_says_what_it_did() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut operator = console(&pooler);
    for (command, answer) in [
        ("set query_timeout = 7", "C(SET query_timeout=7) Z(I)"),
        ("SET query_timeout TO '8'", "C(SET query_timeout=8) Z(I)"),
        ("set listen_port = 1", "C(SET listen_port=1) Z(I)"),
        (
            "set client_encoding = utf8",
            "N(00000 SET ignored) C(SET) Z(I)",
        ),
    ] {
        assert_eq!(operator.query(command), answer);
    }
    let config = operator.table("show config");
    assert_eq!(row(&config, "key", "query_timeout").get("value"), Some("8"));
    assert_eq!(
        row(&config, "key", "listen_port").get("value"),
        Some(&*pooler.port.to_string()),
        "not before a restart"
    );
    assert_eq!(operator.query("reload"), "C(RELOAD) Z(I)");
    let config = operator.table("show config");
    assert_eq!(row(&config, "key", "query_timeout").get("value"), Some("0"));
}

#[test]
fn a_reload_that_fails_is_told_and_the_old_configuration_goes_on() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let broken = tenant.ini().set("server_lifetime", "for ever");
    assert!(pooler.reload(broken).is_err());
    let mut operator = console(&pooler);
    assert_eq!(
        operator.query("reload"),
        "E(F0000 RELOAD failed, see logs for additional details) Z(I)"
    );
    assert_eq!(client.query("select 1"), SELECT_1);
    let log = pooler.log();
    assert!(
        log.contains("invalid value \"for ever\" for parameter server_lifetime"),
        "{log}"
    );
    pooler.reload(tenant.ini()).expect("a good file");
}

#[test]
fn a_reload_moves_a_database_to_another_place() {
    let Some(tenant) = Tenant::new() else { return };
    let target = |dbname: &str| {
        format!(
            "host=127.0.0.1 port={} dbname={dbname}",
            tenant.postgres.port()
        )
    };
    let ini = tenant.ini().database("shop", &target(&tenant.name));
    let pooler = start(ini.clone());
    let mut client = RawClient::login(pooler.port, "shop", &tenant.name);
    let mut working = RawClient::login(pooler.port, "shop", &tenant.name);
    assert_eq!(client.value("select current_database()"), tenant.name);
    assert_eq!(
        working.value("begin; select current_database()"),
        tenant.name
    );
    pooler
        .reload(ini.database("shop", &target("postgres")))
        .expect("RELOAD");
    assert_eq!(client.value("select current_database()"), "postgres");
    assert_eq!(working.value("select current_database()"), tenant.name);
    working.rows("commit");
    assert_eq!(working.value("select current_database()"), "postgres");
}

#[test]
fn a_database_that_is_removed_takes_its_clients_with_it() {
    let Some(tenant) = Tenant::new() else { return };
    let target = format!("host=127.0.0.1 port={}", tenant.postgres.port());
    let base = || without_star(&tenant).database("postgres", &target);
    let pooler = start(base().database("shop", &format!("{target} dbname=postgres")));
    let mut client = RawClient::login(pooler.port, "shop", "postgres");
    assert_eq!(client.query("select 1"), SELECT_1);
    pooler.reload(base()).expect("RELOAD");
    assert_eq!(client.until_closed(), "E(FATAL 08P01 database removed)");
    eventually(
        Duration::from_secs(5),
        || console(&pooler).table("show pools"),
        |shown| shown.find("database", "shop").is_none(),
    );
    pooler
        .reload(base().database("shop", &format!("{target} dbname=postgres")))
        .expect("RELOAD");
    let mut client = RawClient::login(pooler.port, "shop", "postgres");
    assert_eq!(client.query("select 1"), SELECT_1);
}

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

#[test]
fn shutdown_ends_at_once() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    client.send(&Batch::new().query("select pg_sleep(20)"));
    let mut operator = console(&pooler);
    operator.send(&Batch::new().query("shutdown"));
    assert_eq!(operator.until_end().0, "");
    assert!(ends(&mut pooler));
    eventually(
        Duration::from_secs(2),
        || RawClient::try_connect(pooler.port).is_err(),
        |refused| *refused,
    );
}

#[test]
fn shutdown_wait_for_clients_refuses_new_ones_and_ends_with_the_last() {
    for begin in [
        (|pooler| {
            let answer = console(pooler).query("shutdown wait_for_clients");
            assert_eq!(answer, "C(SHUTDOWN) Z(I)");
        }) as fn(&Pooler),
        |pooler| pooler.signal(Signal::TERM),
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let mut pooler = tenant.pooler(1);
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        begin(&pooler);
        eventually(
            Duration::from_secs(2),
            || RawClient::try_connect(pooler.port).is_err(),
            |refused| *refused,
        );
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
        assert_eq!(client.query("select 1"), SELECT_1);
        assert!(pooler.wait_for_exit(Duration::from_millis(500)).is_none());
        client.send(&Batch::new().terminate());
        assert!(ends(&mut pooler));
    }
}

#[test]
fn shutdown_wait_for_clients_lets_in_who_was_accepted_before() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let mut late = RawClient::connect(pooler.port);
    // An SSLRequest is answered, so the connection has been accepted.
    late.send_bytes(&[0, 0, 0, 8, 4, 210, 22, 47]);
    assert_eq!(late.read_byte(), Ok(b'N'));
    let answer = console(&pooler).query("shutdown wait_for_clients");
    assert_eq!(answer, "C(SHUTDOWN) Z(I)");
    late.start_login(&[("user", &*tenant.name), ("database", &*tenant.name)]);
    assert_eq!(late.finish_login(), Ok(()));
    assert_eq!(late.query("select 1"), SELECT_1);
    late.send(&Batch::new().terminate());
    assert!(ends(&mut pooler));
}

#[test]
fn shutdown_wait_for_servers_lets_transactions_end() {
    for begin in [
        (|pooler| {
            let answer = console(pooler).query("shutdown wait_for_servers");
            assert_eq!(answer, "C(SHUTDOWN) Z(I)");
        }) as fn(&Pooler),
        |pooler| pooler.signal(Signal::INT),
    ] {
        let Some(tenant) = Tenant::new() else { return };
        let mut pooler = tenant.pooler(1);
        let mut working = tenant.client(&pooler);
        let mut waiting = tenant.client(&pooler);
        assert_eq!(working.query("begin"), "C(BEGIN) Z(T)");
        waiting.send(&Batch::new().query("select 1"));
        begin(&pooler);
        assert_eq!(
            waiting.until_closed(),
            "E(FATAL 08P01 server shutting down)"
        );
        assert_eq!(working.query("select 1"), "T D(1) C(SELECT 1) Z(T)");
        assert!(pooler.wait_for_exit(Duration::from_millis(500)).is_none());
        assert_eq!(working.query("commit"), "C(COMMIT) Z(I)");
        assert!(ends(&mut pooler));
    }
}

#[test]
fn a_second_signal_ends_a_shutdown_at_once() {
    for signal in [Signal::TERM, Signal::INT] {
        let Some(tenant) = Tenant::new() else { return };
        let mut pooler = tenant.pooler(1);
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        pooler.signal(signal);
        assert!(pooler.wait_for_exit(Duration::from_millis(400)).is_none());
        pooler.signal(signal);
        assert!(ends(&mut pooler));
    }
}

#[test]
fn quit_ends_at_once_and_the_port_is_free_again() {
    let Some(tenant) = Tenant::new() else { return };
    let mut pooler = tenant.pooler(1);
    let port = pooler.port;
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    pooler.signal(Signal::QUIT);
    assert!(ends(&mut pooler));
    let again = start(tenant.ini().set("listen_port", port));
    assert_eq!(tenant.client(&again).query("select 1"), SELECT_1);
}

#[test]
fn usr1_pauses_and_usr2_resumes() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    pooler.signal(Signal::USR1);
    wait_for_log(&pooler, "got SIGUSR1, pausing all activity");
    pooler.signal(Signal::USR1);
    wait_for_log(&pooler, "got SIGUSR1, but already paused/suspended");
    client.send(&Batch::new().query("select 1"));
    assert!(client.is_silent_for(Duration::from_millis(200)));
    pooler.signal(Signal::USR2);
    assert_eq!(story(&client.until_ready()), SELECT_1);
    wait_for_log(&pooler, "got SIGUSR2, continuing from PAUSE");
    pooler.signal(Signal::USR2);
    wait_for_log(&pooler, "got SIGUSR2, but not paused/suspended");
    pooler.signal(Signal::TERM);
    wait_for_log(
        &pooler,
        "got SIGTERM, shutting down, waiting for all clients disconnect",
    );
    pooler.signal(Signal::USR1);
    wait_for_log(&pooler, "got SIGUSR1 while shutting down, ignoring");
    pooler.signal(Signal::USR2);
    wait_for_log(&pooler, "got SIGUSR2 while shutting down, ignoring");
}

#[test]
fn hup_reloads_and_opens_the_log_file_again() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = tenant.ini().set("logfile", "{dir}/the.log");
    let pooler = start(ini);
    let log = pooler.socket_dir.join("the.log");
    let moved = pooler.socket_dir.join("the.log.1");
    assert!(fs::read_to_string(&log).is_ok_and(|text| text.contains("process up")));
    fs::rename(&log, &moved).expect("as logrotate does");
    pooler.signal(Signal::HUP);
    eventually(Duration::from_secs(2), || log.exists(), |there| *there);
    tenant.client(&pooler);
    eventually(
        Duration::from_secs(2),
        || fs::read_to_string(&log).unwrap_or_default(),
        |text| text.contains("login attempt"),
    );
    let old = fs::read_to_string(&moved).expect("the old file");
    assert!(old.contains("got SIGHUP, re-reading config"), "{old}");
    assert!(!old.contains("login attempt: db=tenant"), "{old}");
}

#[test]
fn log_lines_have_pgbouncers_form() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let name = &tenant.name;
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    client.send(&Batch::new().terminate());
    let of_client = format!(": {name}/{name}@127.0.0.1:");
    let is_closing = |line: &str| {
        line.contains(" LOG C-0x")
            && line.contains(&of_client)
            && line.ends_with("closing because: client close request (age=0s)")
    };
    let log = eventually(
        Duration::from_secs(2),
        || pooler.log(),
        |log| log.lines().any(is_closing),
    );
    for line in log.lines() {
        let words: Vec<&str> = line.splitn(6, ' ').collect();
        let [date, time, zone, pid, level, _] = words[..] else {
            panic!("{line}")
        };
        assert!(
            date.len() == 10 && time.len() == 12 && zone == "UTC",
            "{line}"
        );
        assert_eq!(pid, format!("[{}]", pooler.pid));
        assert!(["LOG", "WARNING"].contains(&level), "{line}");
    }
    let port = tenant.postgres.port();
    for text in [
        "process up: ".to_owned(),
        format!("listening on 127.0.0.1:{}", pooler.port),
        "listening on unix:".to_owned(),
        format!("login attempt: db={name} user={name} tls=no replication=no"),
        format!(": {name}/{name}@127.0.0.1:{port} new connection to server (from 127.0.0.1:"),
    ] {
        assert!(log.contains(&text), "{text} is missing in {log}");
    }
}

#[test]
fn what_the_log_does_not_want_is_left_out() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("log_connections", 0)
            .set("log_disconnections", 0)
            .set("log_pooler_errors", 0),
    );
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    client.send(&Batch::new().bind("", "unknown", &[]).sync());
    client.until_closed();
    let log = pooler.log();
    for text in ["login attempt", "closing because", "pooler error"] {
        assert!(!log.contains(text), "{log}");
    }
}

#[test]
fn every_database_is_served_by_the_star_entry_and_forgotten() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("autodb_idle_timeout", 1)
            .set("server_idle_timeout", 1),
    );
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
    wait_for_log(
        &pooler,
        &format!("registered new auto-database: {}", tenant.name),
    );
    eventually(
        Duration::from_secs(5),
        || console(&pooler).table("show databases"),
        |shown| shown.find("name", &tenant.name).is_none(),
    );
    eventually(
        Duration::from_secs(5),
        || console(&pooler).table("show pools"),
        |shown| shown.find("database", &tenant.name).is_none(),
    );
    // Who comes later makes it anew.
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("select 1"), SELECT_1);
    let shown = console(&pooler).table("show databases");
    assert_eq!(
        row(&shown, "name", &tenant.name).number("current_client_connections"),
        1
    );
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
fn row<'a>(table: &'a Table, column: &str, value: &str) -> pgweir_tests::Row<'a> {
    match table.find(column, value) {
        Some(row) => row,
        None => panic!("no {column} {value} in\n{table}"),
    }
}

#[track_caller]
fn wait_for_log(pooler: &Pooler, text: &str) {
    eventually(
        Duration::from_secs(3),
        || pooler.log(),
        |log| log.contains(text),
    );
}

fn ends(pooler: &mut Pooler) -> bool {
    let status = pooler.wait_for_exit(Duration::from_secs(3));
    status.is_some_and(|status| status.success())
}
