//! The promise: where servers are short, every client still gets its own answers, each exactly once, with one
//! ReadyForQuery for each Query and Sync; and nothing is executed twice or for somebody who does not want it any more.

use std::{
    thread,
    time::{Duration, Instant},
};

use pgweir_tests::{Batch, Pooler, RawClient, Tenant, eventually, start, story};

const CLIENTS: usize = 60;
const ROUNDS: usize = 12;
const SERVERS: u32 = 2;

const CANCELED: &str = "E(57014 canceling statement due to user request) Z(I)";

#[test]
fn sixty_clients_on_two_servers_get_their_own_answers_only() {
    // One thread, as by default, and two, which can get into each other's way; each answer on its own, as where the kernel has no
    // io_uring.
    for (workers, io_uring) in [(1, 1), (2, 1), (1, 0)] {
        let Some(tenant) = Tenant::new() else { return };
        let ini = tenant.ini().set("workers", workers);
        let ini = ini.set("io_uring", io_uring);
        let pooler = start(ini.set("default_pool_size", SERVERS));
        crowd(&tenant, &pooler);
        let is_expected = io_uring == 1 && !pooler.log().contains("no io_uring");
        assert_eq!(rings(pooler.pid) > 0, is_expected, "io_uring = {io_uring}");
    }
}

/// How many io_uring rings a process has open.
fn rings(pid: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    open.filter(|fd| {
        let target = fd.as_ref().ok().and_then(|fd| fd.path().read_link().ok());
        target.is_some_and(|target| target.as_os_str() == "anon_inode:[io_uring]")
    })
    .count()
}

fn crowd(tenant: &Tenant, pooler: &Pooler) {
    tenant
        .direct()
        .rows("create table ledger (entry text not null)");
    let watch = tenant.watch();

    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let mut client = tenant.client(pooler);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    talk(&mut client, number, round);
                }
                assert!(
                    client.is_silent_for(Duration::from_millis(200)),
                    "an answer too many"
                );
            });
        }
    });

    let mut root = tenant.root();
    let written = (CLIENTS * ROUNDS).to_string();
    assert_eq!(root.value("select count(*) from ledger"), written);
    assert_eq!(
        root.value("select count(distinct entry) from ledger"),
        written
    );
    let seen = watch.end();
    assert!(seen.most <= SERVERS, "{seen:?}");
}

/// One round of one client: every form of asking, each answer with the client's own token in it.
fn talk(client: &mut RawClient, number: usize, round: usize) {
    let token = format!("client-{number}-{round}");
    let select = format!("select '{token}'");
    let row = format!("D({token}) C(SELECT 1)");

    assert_eq!(client.query(&select), format!("T {row} Z(I)"));
    assert_eq!(
        client.ask(&Batch::new().run(&select).sync()),
        format!("1 2 {row} Z(I)")
    );

    let pipeline = Batch::new()
        .query(&select)
        .run(&select)
        .run(&select)
        .sync()
        .query(&select);
    assert_eq!(client.ask(&pipeline), format!("T {row} Z(I)"));
    assert_eq!(
        story(&client.until_ready()),
        format!("1 2 {row} 1 2 {row} Z(I)")
    );
    assert_eq!(story(&client.until_ready()), format!("T {row} Z(I)"));

    let wrong = format!("E(22P02 invalid input syntax for type integer: \"{token}\") Z(I)");
    assert_eq!(client.query(&format!("select '{token}'::int")), wrong);
    let skipped = Batch::new()
        .run(&format!("select '{token}'::int"))
        .run(&format!("insert into ledger values ('{token}')"))
        .sync();
    assert_eq!(client.ask(&skipped), wrong);

    let named = Batch::new()
        .parse(&token, "select $1::text")
        .bind("", &token, &[&token])
        .execute("")
        .close_statement(&token)
        .sync();
    assert_eq!(client.ask(&named), format!("1 2 {row} 3 Z(I)"));

    let insert = format!("insert into ledger values ('{token}')");
    let answer = match round % 2 {
        0 => client.query(&insert),
        _ => client.ask(&Batch::new().run(&insert).sync()),
    };
    assert!(answer.ends_with("C(INSERT 0 1) Z(I)"), "{answer}");

    if round % 4 == 3 {
        client.send(&Batch::new().query(&format!("select pg_sleep(30), '{token}'")));
        thread::sleep(Duration::from_millis(5 * (number as u64 % 7)));
        client.cancel();
        // The cancel may have come while the server was still being handed over.
        while client.is_silent_for(Duration::from_millis(300)) {
            client.cancel();
        }
        let answer = story(&client.until_ready());
        assert_eq!(answer.trim_start_matches("T "), CANCELED);
    }
}

#[test]
fn transactions_of_many_clients_do_not_mix() {
    let Some(tenant) = Tenant::new() else { return };
    tenant
        .direct()
        .rows("create table balance (owner int primary key, amount int not null)");
    tenant
        .direct()
        .rows("insert into balance select n, 0 from generate_series(0, 29) n");
    let pooler = tenant.pooler(SERVERS);

    thread::scope(|scope| {
        for number in 0..30 {
            let mut client = tenant.client(&pooler);
            scope.spawn(move || {
                for round in 0..10 {
                    let add =
                        format!("update balance set amount = amount + 1 where owner = {number}");
                    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
                    assert_eq!(client.query(&add), "C(UPDATE 1) Z(T)");
                    let mine = format!("select amount from balance where owner = {number}");
                    let expected = usize::div_ceil(round, 2) + 1;
                    assert_eq!(
                        client.value(&mine),
                        expected.to_string(),
                        "of client {number}"
                    );
                    let end = ["commit", "rollback"][round % 2];
                    assert!(client.query(end).ends_with("Z(I)"));
                }
            });
        }
    });
    assert_eq!(
        tenant
            .root()
            .value("select min(amount), max(amount) from balance"),
        "5|5"
    );
}

#[test]
fn a_wait_that_is_over_is_told_and_nothing_of_it_is_executed() {
    let Some(tenant) = Tenant::new() else { return };
    tenant.direct().rows("create table written (x int)");
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 1)
            .set("query_wait_timeout", 1),
    );
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");

    let insert = "insert into written values (1)";
    let forms = [
        Batch::new().query(insert),
        Batch::new().run(insert).sync(),
        Batch::new().run(insert).flush(),
        Batch::new().query(insert).query(insert).run(insert).sync(),
    ];
    let mut waiters: Vec<RawClient> = forms.iter().map(|_| tenant.client(&pooler)).collect();
    for (waiter, form) in waiters.iter_mut().zip(&forms) {
        waiter.send(form);
    }
    for waiter in &mut waiters {
        assert_eq!(waiter.until_closed(), "E(FATAL 08P01 query_wait_timeout)");
    }

    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(holder.value("select count(*) from written"), "0");
}

#[test]
fn a_wait_that_is_over_keeps_the_connection_in_the_dialect_of_postgresql() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 1)
            .set("query_wait_timeout", 1)
            .set("error_codes", "postgres"),
    );
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = tenant.client(&pooler);

    assert_eq!(waiter.query("select 1"), "E(53300 query_wait_timeout) Z(I)");
    assert_eq!(
        waiter.ask(&Batch::new().run("select 1").sync()),
        "E(53300 query_wait_timeout) Z(I)"
    );

    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(waiter.value("select 1"), "1");
}

#[test]
fn a_canceled_wait_is_answered_at_once_and_uses_no_server() {
    let Some(tenant) = Tenant::new() else { return };
    tenant.direct().rows("create table written (x int)");
    let pooler = tenant.pooler(1);
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = tenant.client(&pooler);

    let insert = "insert into written values (1)";
    for form in [
        Batch::new().query(insert),
        Batch::new().run(insert).sync(),
        Batch::new()
            .parse("name", insert)
            .bind("", "name", &[])
            .execute("")
            .sync(),
    ] {
        waiter.send(&form);
        wait_for_waiting(&pooler, 1);
        let started = Instant::now();
        waiter.cancel();
        assert_eq!(story(&waiter.until_ready()), CANCELED);
        assert!(started.elapsed() < Duration::from_millis(500));
        wait_for_waiting(&pooler, 0);
    }

    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(waiter.value("select count(*) from written"), "0");
    assert_eq!(tenant.backends(), 1);
}

#[test]
fn a_canceled_wait_takes_only_the_first_of_several_queries_with_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = tenant.client(&pooler);

    waiter.send(
        &Batch::new()
            .query("select 1")
            .query("select 2")
            .run("select 3")
            .sync(),
    );
    wait_for_waiting(&pooler, 1);
    waiter.cancel();
    assert_eq!(story(&waiter.until_ready()), CANCELED);
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");

    assert_eq!(story(&waiter.until_ready()), "T D(2) C(SELECT 1) Z(I)");
    assert_eq!(story(&waiter.until_ready()), "1 2 D(3) C(SELECT 1) Z(I)");
}

#[test]
fn a_canceled_wait_without_sync_skips_to_the_sync() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = tenant.client(&pooler);

    waiter.send(&Batch::new().run("select 1").flush());
    wait_for_waiting(&pooler, 1);
    waiter.cancel();
    assert_eq!(
        waiter.read().map(|message| message.to_string()),
        Ok("E(57014 canceling statement due to user request)".to_owned())
    );
    assert_eq!(
        waiter.ask(&Batch::new().run("select 2").sync()),
        "Z(I)",
        "the rest of the batch is skipped"
    );
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(waiter.value("select 3"), "3");
}

#[test]
fn a_cancel_never_hits_the_next_client_of_the_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut first = tenant.client(&pooler);
    let mut second = tenant.client(&pooler);
    for round in 0..100 {
        // The cancel arrives before, while and after the first query ends; the second one waits for the server.
        first.send(&Batch::new().query("select 'first' from pg_sleep(0.003)"));
        second.send(&Batch::new().query("select 'second' from pg_sleep(0.005)"));
        thread::sleep(Duration::from_micros(round * 100));
        first.cancel();
        let first = story(&first.until_ready());
        assert!(
            first == "T D(first) C(SELECT 1) Z(I)" || first.ends_with(CANCELED),
            "{first}"
        );
        assert_eq!(
            story(&second.until_ready()),
            "T D(second) C(SELECT 1) Z(I)",
            "in round {round}"
        );
    }
    assert_eq!(tenant.backends(), 1);
}

#[test]
fn a_cancel_never_hits_the_next_query_of_its_own_client() {
    for workers in [1, 2] {
        let Some(tenant) = Tenant::new() else { return };
        let ini = tenant.ini().set("workers", workers);
        let pooler = start(ini.set("default_pool_size", 1));
        let mut holder = tenant.client(&pooler);
        let mut waiter = tenant.client(&pooler);
        for round in 0..100 {
            assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
            waiter.send(&Batch::new().query("select 'first'"));
            // The server is handed over while the cancel comes in.
            thread::scope(|scope| {
                let waiter = &waiter;
                scope.spawn(move || waiter.cancel());
                thread::sleep(Duration::from_micros(round * 10));
                holder.send(&Batch::new().query("commit"));
            });
            assert_eq!(story(&holder.until_ready()), "C(COMMIT) Z(I)");
            let first = story(&waiter.until_ready());
            assert!(
                first == "T D(first) C(SELECT 1) Z(I)" || first.ends_with(CANCELED),
                "{first}"
            );

            assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
            waiter.send(&Batch::new().query("select 'second'"));
            thread::sleep(Duration::from_millis(1));
            assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
            assert_eq!(
                story(&waiter.until_ready()),
                "T D(second) C(SELECT 1) Z(I)",
                "in round {round}"
            );
        }
        assert_eq!(tenant.backends(), 1);
    }
}

#[test]
fn a_hundred_cancels_for_one_client_do_not_hit_the_other() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let port = pooler.port;
    let mut first = tenant.client(&pooler);
    let mut second = tenant.client(&pooler);
    first.send(&Batch::new().query("select pg_sleep(20)"));
    wait_until_running(&tenant, "select pg_sleep(20)");
    second.send(&Batch::new().query("select 'second' from pg_sleep(1)"));
    wait_for_waiting(&pooler, 1);

    let key = first.key.clone().expect("logged in");
    thread::scope(|scope| {
        for _ in 0..100 {
            let key = &key;
            scope.spawn(move || pgweir_tests::cancel(port, key));
        }
    });

    let answer = story(&first.until_ready());
    assert_eq!(answer.trim_start_matches("T "), CANCELED);
    assert_eq!(story(&second.until_ready()), "T D(second) C(SELECT 1) Z(I)");
}

#[test]
fn cancels_of_idle_clients_and_unknown_keys_do_nothing() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut idle = tenant.client(&pooler);
    let mut busy = tenant.client(&pooler);
    assert_eq!(idle.value("select 1"), "1");
    busy.send(&Batch::new().query("select 'busy' from pg_sleep(0.3)"));

    idle.cancel();
    let mut wrong = busy.key.clone().expect("logged in");
    wrong.process_id ^= 1;
    pgweir_tests::cancel(pooler.port, &wrong);

    assert_eq!(story(&busy.until_ready()), "T D(busy) C(SELECT 1) Z(I)");
    assert_eq!(idle.value("select 2"), "2");
    let log = pooler.log();
    for outcome in ["cancel request for idle client", "failed cancel request"] {
        assert!(
            log.contains(&format!("closing because: {outcome} (age=")),
            "{log}"
        );
    }
}

#[test]
fn clients_that_stop_waiting_leave_the_queue() {
    let Some(tenant) = Tenant::new() else { return };
    tenant.direct().rows("create table written (x int)");
    let pooler = tenant.pooler(1);
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiters: Vec<RawClient> = (0..20).map(|_| tenant.client(&pooler)).collect();
    for waiter in &mut waiters {
        waiter.send(&Batch::new().query("insert into written values (1)"));
    }
    wait_for_waiting(&pooler, 20);

    drop(waiters);
    wait_for_waiting(&pooler, 0);

    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(
        holder.value("select count(*) from written"),
        "0",
        "nobody wants that any more"
    );
}

#[test]
fn those_who_waited_longest_are_served_first() {
    let Some(tenant) = Tenant::new() else { return };
    tenant
        .direct()
        .rows("create table served (place serial, client int)");
    let pooler = tenant.pooler(1);
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiters: Vec<RawClient> = (0..10).map(|_| tenant.client(&pooler)).collect();
    for (number, waiter) in waiters.iter_mut().enumerate() {
        waiter.send(&Batch::new().query(&format!("insert into served (client) values ({number})")));
        wait_for_waiting(&pooler, number as i64 + 1);
    }

    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    for waiter in &mut waiters {
        waiter.until_ready();
    }

    let order = holder.rows("select client from served order by place");
    assert_eq!(order, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

#[test]
fn who_waits_long_is_told_so() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 1)
            .set("query_wait_notify", 1),
    );
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let mut waiter = tenant.client(&pooler);
    waiter.send(&Batch::new().query("select 1"));
    assert_eq!(
        waiter.read().map(|message| message.to_string()),
        Ok(
            "N(00000 No server connection available in postgres backend, client being queued)"
                .to_owned()
        )
    );
    assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(story(&waiter.until_ready()), "T D(1) C(SELECT 1) Z(I)");
}

#[test]
fn what_a_waiting_client_sends_ahead_is_kept_within_bounds() {
    let Some(tenant) = Tenant::new() else { return };
    // A slow machine may take longer than the time after which a waiting client is told so.
    let ini = tenant.ini().set("query_wait_notify", 0);
    let pooler = start(ini.set("default_pool_size", 1));
    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
    let before = pgweir_tests::rss(pooler.pid).expect("a process");

    // Twenty clients send 10 MB each while they wait.
    let text = "x".repeat(10_000_000);
    let select = Batch::new().query(&format!("select length('{text}')"));
    thread::scope(|scope| {
        for _ in 0..20 {
            let mut waiter = tenant.client(&pooler);
            let select = &select;
            scope.spawn(move || {
                assert_eq!(waiter.ask(select), "T D(10000000) C(SELECT 1) Z(I)");
            });
        }
        wait_for_waiting(&pooler, 20);
        thread::sleep(Duration::from_millis(500));
        let grown = pgweir_tests::rss(pooler.pid)
            .expect("a process")
            .saturating_sub(before);
        assert!(grown < 40_000_000, "{grown} bytes for 20 waiting clients");
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    });
}

fn wait_for_waiting(pooler: &Pooler, count: i64) {
    let mut console = pgweir_tests::console(pooler);
    eventually(
        Duration::from_secs(10),
        || {
            let pools = console.table("show pools");
            pools
                .iter()
                .map(|pool| pool.number("cl_waiting"))
                .sum::<i64>()
        },
        |waiting| *waiting == count,
    );
}

fn wait_until_running(tenant: &Tenant, sql: &str) {
    let mut root = tenant.root();
    let running = format!(
        "select count(*) from pg_stat_activity where usename = '{}' and query = '{sql}'",
        tenant.name
    );
    eventually(
        Duration::from_secs(5),
        || root.value(&running),
        |count| count == "1",
    );
}
