//! The promise: what PostgreSQL does by itself (ends a connection, refuses one, has limits of its own) reaches only
//! those whom it concerns, once, in its own words; and everybody else is served.

use std::{
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Cluster, Ini, RawClient, SELECT_1, Signal, Tenant, eventually, send_signal, start, story,
};

const PID: &str = "select pg_backend_pid()";
const TERMINATED: &str = "E(FATAL 57P01 terminating connection due to administrator command)";

#[test]
fn a_server_that_ends_in_a_query_is_told_once() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    for workload in [
        Batch::new().query("select pg_sleep(20)"),
        Batch::new().run("select pg_sleep(20)").sync(),
    ] {
        let mut client = tenant.client(&pooler);
        let pid = client.value(PID);
        client.send(&workload);
        thread::sleep(Duration::from_millis(100));
        terminate(&tenant, &pid);
        let said = client.until_closed();
        let told = said.trim_start_matches("T ").trim_start_matches("1 2 ");
        assert_eq!(told, TERMINATED, "one error, and it is PostgreSQL's");
    }
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn a_server_that_ends_in_an_idle_transaction_is_told_once() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let pid = client.value("begin; select pg_backend_pid()");
    terminate(&tenant, &pid);
    assert_eq!(client.until_closed(), TERMINATED);

    tenant.root().rows(&format!(
        "alter role {} set idle_in_transaction_session_timeout = '200ms'",
        tenant.name
    ));
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    assert_eq!(
        client.until_closed(),
        "E(FATAL 25P03 terminating connection due to idle-in-transaction timeout)"
    );
}

#[test]
fn a_server_that_ends_while_it_is_asked_for_a_statement_takes_its_transaction_along() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut owner = tenant.direct();
    owner.rows("create table kept (x int)");
    owner.rows("create table changing (x int)");
    let mut client = tenant.client(&pooler);
    let (mut second, mut third) = (tenant.client(&pooler), tenant.client(&pooler));
    client.query("begin");
    second.query("begin");
    let prepare = Batch::new().parse("s", "select * from changing");
    client.ask(&prepare.describe_statement("s").sync());
    // The server that has the statement is taken; the other lacks it, and what it returns has changed since.
    client.query("commit");
    third.query("begin");
    second.query("commit");
    second.rows("alter table changing add y int");
    let pid = client.value("begin; select pg_backend_pid()");
    client.query("insert into kept values (1)");
    owner.query("begin; lock table changing");
    client.send(&Batch::new().bind("", "s", &[]).execute("").sync());
    let mut root = tenant.root();
    let waiting = format!("select wait_event_type from pg_stat_activity where pid = {pid}");
    eventually(
        Duration::from_secs(5),
        || root.value(&waiting),
        |what| what == "Lock",
    );
    terminate(&tenant, &pid);
    let told = client.until_closed();
    assert!(told.starts_with("E(FATAL "), "{told}");
    assert_eq!(root.value("select count(*) from kept"), "0");
}

#[test]
fn idle_servers_that_postgresql_closes_are_nobodys_problem() {
    let Some(tenant) = Tenant::new() else { return };
    tenant.root().rows(&format!(
        "alter role {} set idle_session_timeout = '200ms'",
        tenant.name
    ));
    let pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    // Far from the limit on either side: who asks at that very moment may be told of it.
    for pause in [0, 20, 1500, 1500] {
        assert_eq!(client.query("select 1"), SELECT_1, "after {pause} ms");
        thread::sleep(Duration::from_millis(pause));
    }
}

#[test]
fn a_connection_limit_of_the_role_is_no_error_for_those_who_can_wait() {
    let Some(tenant) = Tenant::new() else { return };
    tenant
        .root()
        .rows(&format!("alter role {} connection limit 2", tenant.name));
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 5)
            .set("server_login_retry", 1),
    );
    let mut clients: Vec<RawClient> = Vec::new();
    for _ in 0..10 {
        clients.push(tenant.client(&pooler));
        assert_eq!(clients[0].query("select 1"), SELECT_1);
    }
    thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                for _ in 0..10 {
                    assert_eq!(client.query("select 1 from pg_sleep(0.02)"), SELECT_1);
                }
            });
        }
    });
    assert!(tenant.backends() <= 2);
}

#[test]
fn a_client_that_leaves_in_a_transaction_costs_no_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    tenant.direct().rows("create table kept (x int)");
    let first = tenant.client(&pooler).value(PID);
    for leave in [
        Batch::new()
            .query("begin")
            .query("insert into kept values (1)")
            .terminate(),
        Batch::new().query("begin").query("select 1/0").terminate(),
        Batch::new().run("select 1").flush().terminate(),
        Batch::new().run("select 1/0").flush().terminate(),
        Batch::new().run("select 1/0").run("select 1").terminate(),
        Batch::new()
            .parse("half", "select 1")
            .bind("", "half", &[])
            .terminate(),
        Batch::new().query("select pg_sleep(20)").terminate(),
        Batch::new().query("copy kept from stdin").terminate(),
        Batch::new().run("copy kept from stdin").terminate(),
    ] {
        let mut client = tenant.client(&pooler);
        client.send(&leave);
        client.until_end();
        assert_eq!(
            tenant.client(&pooler).value(PID),
            first,
            "no login storm after {leave:?}"
        );
    }
    assert_eq!(tenant.root().value("select count(*) from kept"), "0");
}

#[test]
fn what_a_vanished_client_had_not_committed_is_never_committed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    tenant.direct().rows("create table kept (x int)");
    let insert = "insert into kept values (1)";
    for round in 0..20 {
        for left in [
            // A cancel that hits BEGIN must not leave the INSERT alone.
            Batch::new().query("begin").query(insert),
            Batch::new()
                .query("begin; select pg_sleep(0.02)")
                .query(insert),
            Batch::new().run("begin").sync().run(insert).sync(),
            // PostgreSQL commits at Sync, which never comes.
            Batch::new().run(insert).flush(),
            Batch::new().run(insert),
            Batch::new().run("begin").run(insert).flush(),
        ] {
            let mut client = tenant.client(&pooler);
            client.send(&left);
            if round % 2 == 0 {
                client.is_silent_for(Duration::from_millis(5));
            }
            drop(client);
            let count = tenant.client(&pooler).value("select count(*) from kept");
            assert_eq!(count, "0", "round {round}");
        }
    }
}

#[test]
fn a_query_whose_end_never_comes_is_not_executed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    tenant.direct().rows("create table kept (x int)");
    let text = format!("insert into kept values (1) --{}", "x".repeat(200_000));
    let batch = Batch::new().query(&text);
    let message = batch.as_bytes();
    // PostgreSQL's message for the end of a connection begins with a letter and a zero.
    for missing in 1..4 {
        let mut client = tenant.client(&pooler);
        client.send_bytes(&message[..message.len() - missing]);
        client.is_silent_for(Duration::from_millis(50));
        drop(client);
        let count = tenant.client(&pooler).value("select count(*) from kept");
        assert_eq!(count, "0", "{missing} bytes were missing");
    }
}

#[test]
fn lookups_by_auth_query_and_clients_share_one_connection() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    tenant
        .root()
        .rows(&format!("alter role {name} password 'secret'"));
    let pooler = start(
        tenant
            .ini()
            .file("userlist.txt", "\"postgres\" \"\"\n")
            .set("auth_type", "plain")
            .set("auth_user", "postgres")
            .set("default_pool_size", 1)
            .set("max_db_connections", 1),
    );
    let started = Instant::now();
    for _ in 0..3 {
        let mut client = RawClient::connect(pooler.port);
        client.start_login(&[("user", name), ("database", name)]);
        assert_eq!(client.read().map(|asked| asked.tag), Ok(b'R'));
        client.send(&Batch::new().password(b"secret\0"));
        assert_eq!(client.finish_login(), Ok(()));
        assert_eq!(client.query("select 1"), SELECT_1);
    }
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_host_name_with_several_addresses_does_not_stall() {
    let Some(tenant) = Tenant::new() else { return };
    let target = format!(
        "host=localhost port={} dbname={}",
        tenant.postgres.port(),
        tenant.name
    );
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 4)
            .database("named", &target),
    );
    let started = Instant::now();
    let mut clients: Vec<RawClient> = (0..4)
        .map(|_| RawClient::login(pooler.port, "named", &tenant.name))
        .collect();
    for client in &mut clients {
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    }
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{}",
        pooler.log()
    );
}

#[test]
fn several_statements_in_one_query_fail_together() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    tenant.direct().rows("create table kept (x int)");
    let mut client = tenant.client(&pooler);
    assert_eq!(
        client.query("insert into kept values (1); select 1/0; insert into kept values (2)"),
        "C(INSERT 0 1) E(22012 division by zero) Z(I)"
    );
    assert_eq!(client.value("select count(*) from kept"), "0");
    assert_eq!(client.query(""), "I Z(I)");
    assert_eq!(client.query(";;"), "I Z(I)");
    assert_eq!(
        client.query("begin; select 1/0"),
        "C(BEGIN) E(22012 division by zero) Z(E)"
    );
    assert_eq!(
        client.query("select 1"),
        "E(25P02 current transaction is aborted, commands ignored until end of transaction block) \
         Z(E)"
    );
    assert_eq!(client.query("rollback"), "C(ROLLBACK) Z(I)");
}

#[test]
fn five_thousand_queries_in_flight_come_back_in_order() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let mut batch = Batch::new();
    for number in 0..5000 {
        let sql = format!("select {number}");
        batch = match number % 2 {
            0 => batch.query(&sql),
            _ => batch.run(&sql).sync(),
        };
    }
    client.send(&batch);
    for number in 0..5000 {
        let begin = ["T", "1 2"][number % 2];
        assert_eq!(
            story(&client.until_ready()),
            format!("{begin} D({number}) C(SELECT 1) Z(I)")
        );
    }
}

#[test]
fn a_message_over_the_limit_is_refused() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(tenant.ini().set("max_packet_size", 10_000));
    let around = Batch::new().query("select 1 --").as_bytes().len();
    let query = |size: usize| format!("select 1 --{}", "x".repeat(size - around));
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query(&query(10_000)), SELECT_1);
    client.send(&Batch::new().query(&query(10_001)));
    let (said, _) = client.until_end();
    assert_eq!(said, "E(FATAL 08P01 bad packet header: '5100002710')");
    assert_eq!(tenant.client(&pooler).query("select 1"), SELECT_1);
}

#[test]
fn messages_that_no_protocol_knows_end_the_connection() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let first = tenant.client(&pooler).value(PID);
    for bytes in [&b"?\0\0\0\x04"[..], b"Q\0\0\0\x01", b"p\0\0\0\x05\0"] {
        for in_transaction in [false, true] {
            let mut client = tenant.client(&pooler);
            if in_transaction {
                client.query("begin");
            }
            client.send_bytes(bytes);
            let (said, _) = client.until_end();
            assert!(said.starts_with("E(FATAL 08P01 "), "{bytes:?}: {said}");
            assert_eq!(tenant.client(&pooler).value(PID), first, "{bytes:?}");
        }
    }
}

#[test]
fn a_pause_holds_logins_and_lookups_too() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut operator = pgweir_tests::console(&pooler);
    assert_eq!(operator.query("pause"), "C(PAUSE) Z(I)");
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", &tenant.name), ("database", &tenant.name)]);
    assert!(client.is_silent_for(Duration::from_millis(300)));
    assert_eq!(operator.query("resume"), "C(RESUME) Z(I)");
    assert_eq!(client.finish_login(), Ok(()));
    assert_eq!(client.query("select 1"), SELECT_1);
}

fn terminate(tenant: &Tenant, pid: &str) {
    let mut root = tenant.root();
    root.rows(&format!("select pg_terminate_backend({pid})"));
    eventually(
        Duration::from_secs(2),
        || {
            root.value(&format!(
                "select count(*) from pg_stat_activity where pid = {pid}"
            ))
        },
        |count| count == "0",
    );
}

#[test]
fn a_commit_whose_end_nobody_knows_is_said_to_be_one() {
    // A PostgreSQL of its own, because it crashes.
    let Some(postgres) = pgweir_tests::postgres_with_app() else {
        return;
    };
    let ini = Ini::in_front_of(&postgres).set("pool_mode", "transaction");
    let pooler = start(
        ini.set("error_codes", "postgres")
            .set("server_login_retry", 1),
    );
    let mut client = RawClient::login(pooler.port, "app", "postgres");
    for sql in [
        "create table entries (entry text)",
        "create function slow() returns trigger language plpgsql as $$begin perform pg_sleep(30); return null; end$$",
        "create constraint trigger slow after insert on entries deferrable initially deferred \
         for each row execute function slow()",
    ] {
        client.query(sql);
    }
    for (statements, code) in [
        (
            &["begin", "insert into entries values ('a')", "commit"][..],
            "08007",
        ),
        (&["insert into entries values ('a')"][..], "08007"),
        (&["select pg_sleep(30)"][..], "08006"),
    ] {
        let mut client = eventually(
            Duration::from_secs(20),
            || RawClient::try_login(pooler.port, &[("user", "postgres"), ("database", "app")]).ok(),
            Option::is_some,
        )
        .expect("checked above");
        let (last, before) = statements.split_last().expect("there is one");
        for sql in before {
            client.query(sql);
        }
        client.send(&Batch::new().query(last));
        let pid = running(&postgres);
        let starts = || {
            let log = postgres.log();
            log.matches("ready to accept connections").count()
        };
        let before = starts();
        assert!(send_signal(&pid, Signal::KILL), "{pid}");
        let said = client.until_closed();
        assert!(said.contains(code), "{last}: {said}");
        // A login that comes before PostgreSQL has noticed would be ended with the others.
        eventually(Duration::from_secs(20), starts, |now| *now > before);
    }
}

/// The backend that sleeps.
fn running(postgres: &Cluster) -> String {
    let sleeping = "select pid from pg_stat_activity where wait_event = 'PgSleep'";
    let parameters = [("user", "postgres"), ("database", "app")];
    let ask = || match RawClient::try_login(postgres.port(), &parameters) {
        Ok(mut root) => root.rows(sleeping),
        // It has crashed a moment ago.
        Err(_) => Vec::new(),
    };
    eventually(Duration::from_secs(20), ask, |pids| pids.len() == 1)[0].clone()
}
