//! The promise: named prepared statements work as if every client had a server of its own, whichever servers it is
//! served on, and the servers do not fill up with them.

use std::thread;

use pgweir_tests::{Batch, Pooler, RawClient, Tenant, console, eventually, start, story};
use tokio_postgres::{NoTls, types::ToSql};

#[test]
fn a_statement_follows_its_client_to_another_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    let prepare = Batch::new()
        .parse("whoami", "select pg_backend_pid()::text")
        .sync();
    assert_eq!(client.ask(&prepare), "1 Z(I)");
    let first = execute(&mut client, "whoami", &[]);

    let mut holder = tenant.client(&pooler);
    assert_eq!(holder.value("begin; select pg_backend_pid()"), first);

    let second = execute(&mut client, "whoami", &[]);
    assert_ne!(first, second);
    holder.rows("commit");
}

#[test]
fn the_same_name_means_for_each_client_its_own_statement() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut clients: Vec<RawClient> = (0..5).map(|_| tenant.client(&pooler)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let sql = format!("select 'of client {number}, ' || $1");
        assert_eq!(client.ask(&Batch::new().parse("s", &sql).sync()), "1 Z(I)");
    }
    for _ in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            assert_eq!(
                execute(client, "s", &["yes"]),
                format!("of client {number}, yes")
            );
        }
    }
}

#[test]
fn equal_statements_are_one_on_the_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    for number in 0..10 {
        let mut client = tenant.client(&pooler);
        let name = format!("name{number}");
        let prepare = Batch::new().parse(&name, "select 'equal'").sync();
        assert_eq!(client.ask(&prepare), "1 Z(I)");
        assert_eq!(execute(&mut client, &name, &[]), "equal");
    }
    assert_eq!(on_server(&tenant, &pooler), "1");
}

#[test]
fn a_server_keeps_no_more_statements_than_it_may() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 1)
            .set("max_prepared_statements", 3),
    );
    let mut client = tenant.client(&pooler);
    for number in 0..10 {
        let prepare = Batch::new()
            .parse(&format!("s{number}"), &format!("select 'number {number}'"))
            .sync();
        assert_eq!(client.ask(&prepare), "1 Z(I)");
    }
    assert_eq!(on_server(&tenant, &pooler), "3");

    for number in (0..10).chain((0..10).rev()) {
        let name = format!("s{number}");
        assert_eq!(execute(&mut client, &name, &[]), format!("number {number}"));
        assert_eq!(on_server(&tenant, &pooler), "3");
    }

    console(&pooler).query("set max_prepared_statements = 5");
    for number in 0..10 {
        execute(&mut client, &format!("s{number}"), &[]);
    }
    assert_eq!(on_server(&tenant, &pooler), "5");
    console(&pooler).query("set max_prepared_statements = 2");
    for number in 0..10 {
        execute(&mut client, &format!("s{number}"), &[]);
    }
    assert_eq!(on_server(&tenant, &pooler), "2");
}

#[test]
fn a_pipeline_with_more_statements_than_a_server_may_keep_works() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 1)
            .set("max_prepared_statements", 3),
    );
    let mut client = tenant.client(&pooler);
    let mut batch = Batch::new();
    let mut expected = String::new();
    for number in 0..20 {
        let name = format!("s{number}");
        batch = batch
            .parse(&name, &format!("select {number}"))
            .bind("", &name, &[])
            .execute("");
        expected += &format!("1 2 D({number}) C(SELECT 1) ");
    }
    assert_eq!(client.ask(&batch.sync()), expected + "Z(I)");

    let mut again = Batch::new();
    let mut expected = String::new();
    for number in (0..20).rev() {
        again = again
            .bind("", &format!("s{number}"), &[])
            .describe_portal("")
            .execute("");
        expected += &format!("2 T D({number}) C(SELECT 1) ");
    }
    assert_eq!(client.ask(&again.sync()), expected + "Z(I)");
}

#[test]
fn an_eviction_in_a_pipeline_that_fails_is_undone_in_the_books() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 1)
            .set("max_prepared_statements", 1),
    );
    let mut client = tenant.client(&pooler);
    assert_eq!(
        client.ask(&Batch::new().parse("good", "select 'good'").sync()),
        "1 Z(I)"
    );

    // The Close of `good` and the Parse of `new` stand behind an error: the server skips both.
    let failing = Batch::new()
        .run("select 1/0")
        .parse("new", "select 'new'")
        .bind("", "new", &[])
        .execute("")
        .sync();
    assert_eq!(client.ask(&failing), "1 E(22012 division by zero) Z(I)");

    assert_eq!(execute(&mut client, "good", &[]), "good");
    assert_eq!(
        client.ask(&Batch::new().parse("new", "select 'new'").sync()),
        "1 Z(I)",
        "the name was never given"
    );
    assert_eq!(execute(&mut client, "new", &[]), "new");
    assert_eq!(execute(&mut client, "good", &[]), "good");
}

#[test]
fn a_statement_that_cannot_be_prepared_is_not_remembered() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let missing = "E(42P01 relation \"later\" does not exist) Z(I)";
    let prepare = Batch::new().parse("s", "select x from later").sync();
    assert_eq!(client.ask(&prepare), missing);
    assert_eq!(client.ask(&prepare), missing);

    tenant.direct().rows("create table later as select 7 as x");

    assert_eq!(client.ask(&prepare), "1 Z(I)");
    assert_eq!(execute(&mut client, "s", &[]), "7");
}

#[test]
fn after_an_error_everything_up_to_sync_is_skipped_however_late_it_comes() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    client.send(&Batch::new().run("select 1/0").flush());
    for expected in ["1", "E(22012 division by zero)"] {
        assert_eq!(client.read().expect("an answer").to_string(), expected);
    }
    client.send(
        &Batch::new()
            .parse("skipped", "select 1")
            .bind("", "skipped", &[]),
    );
    client.send(&Batch::new().execute("").close_statement("skipped"));
    assert_eq!(client.ask(&Batch::new().sync()), "Z(I)");

    assert_eq!(
        client.ask(&Batch::new().parse("skipped", "select 2").sync()),
        "1 Z(I)"
    );
    assert_eq!(execute(&mut client, "skipped", &[]), "2");
}

#[test]
fn a_statement_whose_result_has_changed_fails_as_in_postgresql() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    tenant
        .direct()
        .rows("create table changing as select 1 as x");
    let mut client = tenant.client(&pooler);
    let prepare = Batch::new().parse("s", "select * from changing").sync();
    assert_eq!(client.ask(&prepare), "1 Z(I)");
    assert_eq!(execute(&mut client, "s", &[]), "1");

    tenant
        .direct()
        .rows("alter table changing add y int default 2");

    let run = Batch::new().bind("", "s", &[]).execute("").sync();
    assert_eq!(
        client.ask(&run),
        "E(0A000 cached plan must not change result type) Z(I)"
    );
    assert_eq!(client.value("select 3"), "3");
}

#[test]
fn deallocate_all_and_discard_all_take_all_names_away() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    for (forget, tag) in [
        ("deallocate all", "DEALLOCATE ALL"),
        ("discard all", "DISCARD ALL"),
    ] {
        let mut client = tenant.client(&pooler);
        let mut other = tenant.client(&pooler);
        let prepare = Batch::new().parse("s", "select 'still there'").sync();
        assert_eq!(client.ask(&prepare), "1 Z(I)");
        assert_eq!(other.ask(&prepare), "1 Z(I)");

        let said = client.query(forget);
        assert!(said.starts_with(&format!("C({tag})")), "{said}");

        assert_eq!(execute(&mut other, "s", &[]), "still there");
        assert_eq!(client.ask(&prepare), "1 Z(I)", "the name is free again");
        assert_eq!(execute(&mut client, "s", &[]), "still there");
        client.query(forget);
        client.send(&Batch::new().bind("", "s", &[]).execute("").sync());
        assert_eq!(
            client.until_closed(),
            "E(FATAL 08P01 prepared statement did not exist)"
        );
    }
}

#[test]
fn an_unknown_name_ends_the_connection_as_pgbouncer_does() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    for batch in [
        Batch::new().bind("", "unknown", &[]).execute("").sync(),
        Batch::new().describe_statement("unknown").sync(),
    ] {
        let mut client = tenant.client(&pooler);
        client.send(&batch);
        assert_eq!(
            client.until_closed(),
            "E(FATAL 08P01 prepared statement did not exist)"
        );
    }
    let mut client = tenant.client(&pooler);
    let prepare = Batch::new().parse("twice", "select 1").sync();
    assert_eq!(client.ask(&prepare), "1 Z(I)");
    client.send(&prepare);
    assert_eq!(
        client.until_closed(),
        "E(FATAL 08P01 prepared statement name is already in use)"
    );
    assert_eq!(tenant.client(&pooler).value("select 1"), "1");
}

#[test]
fn close_frees_the_name() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(
        client.ask(&Batch::new().close_statement("unknown").sync()),
        "3 Z(I)"
    );
    for number in 0..3 {
        let use_and_close = Batch::new()
            .parse("s", &format!("select {number}"))
            .bind("", "s", &[])
            .execute("")
            .close_statement("s")
            .sync();
        assert_eq!(
            client.ask(&use_and_close),
            format!("1 2 D({number}) C(SELECT 1) 3 Z(I)")
        );
    }
    assert_eq!(
        client.ask(&Batch::new().close_statement("s").flush().sync()),
        "3 Z(I)"
    );
}

#[test]
fn describe_tells_of_the_clients_own_statement() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(2);
    let mut client = tenant.client(&pooler);
    let batch = Batch::new()
        .parse("s", "select $1::int as a, $2::text as b")
        .describe_statement("s")
        .sync();
    assert_eq!(client.ask(&batch), "1 t T Z(I)");

    let mut holder = tenant.client(&pooler);
    holder.rows("begin");
    client.send(&Batch::new().describe_statement("s").sync());
    let answer = client.until_ready();
    assert_eq!(story(&answer), "t T Z(I)");
    assert_eq!(answer[1].columns(), ["a", "b"]);
    holder.rows("commit");
}

#[test]
fn a_portal_can_be_read_in_parts() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    let first = Batch::new()
        .parse("s", "select generate_series(1, 5)")
        .bind("cursor", "s", &[])
        .execute_rows("cursor", 2)
        .flush()
        .execute_rows("cursor", 2)
        .sync();
    assert_eq!(client.ask(&first), "1 2 D(1) D(2) s D(3) D(4) s Z(T)");
    assert_eq!(
        client.ask(&Batch::new().execute_rows("cursor", 2).sync()),
        "D(5) C(SELECT 1) Z(T)"
    );
    assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
}

#[test]
fn large_statements_names_and_values_pass() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let name = "n".repeat(16 * 1024);
    let comment = "c".repeat(200 * 1024);
    let value = "v".repeat(1024 * 1024);
    let sql = format!("select length($1::text)::text /* {comment} */");
    assert_eq!(
        client.ask(&Batch::new().parse(&name, &sql).sync()),
        "1 Z(I)"
    );
    assert_eq!(execute(&mut client, &name, &[&value]), "1048576");
    let again = Batch::new()
        .bind("", &name, &[&value])
        .execute("")
        .bind("", &name, &["short"])
        .execute("")
        .sync();
    assert_eq!(
        client.ask(&again),
        "2 D(1048576) C(SELECT 1) 2 D(5) C(SELECT 1) Z(I)"
    );
}

#[test]
fn messages_may_arrive_a_byte_at_a_time() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let batch = Batch::new()
        .parse("slow", "select $1::text")
        .describe_statement("slow")
        .bind("", "slow", &["value"])
        .execute("")
        .close_statement("slow")
        .sync();
    for byte in batch.as_bytes() {
        client.send_bytes(std::slice::from_ref(byte));
        thread::sleep(std::time::Duration::from_micros(200));
    }
    assert_eq!(
        story(&client.until_ready()),
        "1 t T 2 D(value) C(SELECT 1) 3 Z(I)"
    );
}

#[test]
fn without_tracking_names_are_the_servers_business() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 1)
            .set("max_prepared_statements", 0),
    );
    let mut client = tenant.client(&pooler);
    let unknown = client.ask(&Batch::new().bind("", "unknown", &[]).execute("").sync());
    assert_eq!(
        unknown,
        "E(26000 prepared statement \"unknown\" does not exist) Z(I)"
    );
    assert_eq!(
        client.ask(&Batch::new().parse("mine", "select 1").sync()),
        "1 Z(I)"
    );
    assert_eq!(
        client.value("select name from pg_prepared_statements"),
        "mine"
    );
}

#[test]
fn statements_survive_a_reconnect() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    let prepare = Batch::new()
        .parse("whoami", "select pg_backend_pid()::text")
        .sync();
    assert_eq!(client.ask(&prepare), "1 Z(I)");
    let first = execute(&mut client, "whoami", &[]);
    assert_eq!(console(&pooler).query("reconnect"), "C(RECONNECT) Z(I)");
    assert_ne!(execute(&mut client, "whoami", &[]), first);
}

#[test]
fn statements_in_a_session_pool_work_too() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("pool_mode", "session")
            .set("default_pool_size", 1),
    );
    for number in 0..3 {
        let mut client = tenant.client(&pooler);
        let prepare = Batch::new()
            .parse("s", &format!("select 'session {number}'"))
            .sync();
        assert_eq!(client.ask(&prepare), "1 Z(I)");
        assert_eq!(execute(&mut client, "s", &[]), format!("session {number}"));
    }
}

#[test]
fn parses_and_binds_are_counted() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    for _ in 0..2 {
        let mut client = tenant.client(&pooler);
        let prepare = Batch::new().parse("s", "select 1").sync();
        assert_eq!(client.ask(&prepare), "1 Z(I)");
        execute(&mut client, "s", &[]);
        execute(&mut client, "s", &[]);
    }
    let stats = console(&pooler).table("show stats");
    let row = stats.find("database", &tenant.name).expect("a row");
    assert_eq!(
        [
            row.number("total_client_parse_count"),
            row.number("total_server_parse_count"),
            row.number("total_bind_count")
        ],
        [2, 1, 4]
    );
}

#[test]
fn tokio_postgres_prepares_and_pipelines_on_few_servers() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 2)
            .set("max_prepared_statements", 4),
    );
    let conninfo = format!(
        "host=127.0.0.1 port={} user={1} dbname={1}",
        pooler.port, tenant.name
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for number in 0..10i32 {
            tasks.push(tokio::spawn(driver(conninfo.clone(), number)));
        }
        for task in tasks {
            task.await.expect("no panic").expect("no error");
        }
    });
}

/// What an application does through a driver that prepares everything.
async fn driver(conninfo: String, number: i32) -> Result<(), tokio_postgres::Error> {
    let (mut client, connection) = tokio_postgres::connect(&conninfo, NoTls).await?;
    tokio::spawn(connection);
    let mut statements = Vec::new();
    for factor in 0..6 {
        let sql = format!("select $1::int4 * {factor} + {number}");
        statements.push(client.prepare(&sql).await?);
    }
    for round in 0..10i32 {
        for (factor, statement) in statements.iter().enumerate() {
            let row = client.query_one(statement, &[&round]).await?;
            assert_eq!(row.get::<_, i32>(0), round * factor as i32 + number);
        }
        let number_of_round: [&(dyn ToSql + Sync); 1] = [&round];
        let text: [&(dyn ToSql + Sync); 1] = [&"typed"];
        let zero: [&(dyn ToSql + Sync); 1] = [&0i32];
        let (one, two, failed) = tokio::join!(
            client.query_one(&statements[1], &number_of_round),
            client.query_one("select $1::text", &text),
            client.query_one("select 1 / $1::int4", &zero),
        );
        assert_eq!(one?.get::<_, i32>(0), round + number);
        assert_eq!(two?.get::<_, String>(0), "typed");
        assert_eq!(
            failed.expect_err("division by zero").code(),
            Some(&tokio_postgres::error::SqlState::DIVISION_BY_ZERO)
        );
        let transaction = client.transaction().await?;
        let inside = transaction.query_one(&statements[2], &[&round]).await?;
        assert_eq!(inside.get::<_, i32>(0), round * 2 + number);
        transaction.commit().await?;
    }
    Ok(())
}

#[test]
fn pgbench_with_prepared_statements_and_little_room_for_them() {
    let Some(tenant) = Tenant::new() else { return };
    let name = &tenant.name;
    tenant.postgres.pgbench(name, &["-i", "-q", "-U", name]);
    let pooler = start(
        tenant
            .ini()
            .set("default_pool_size", 3)
            .set("max_prepared_statements", 2),
    );
    let load = [
        "-n", "-M", "prepared", "-c", "10", "-j", "10", "-t", "30", "-U", name,
    ];
    let run = pooler.pgbench(name, &load);
    assert_eq!((run.transactions, run.failed), (300, 0), "{}", run.output);
    assert_eq!(
        tenant.root().value("select count(*) from pgbench_history"),
        "300"
    );
}

#[test]
fn a_literal_is_read_as_its_own_client_reads_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let (mut one, mut two) = (tenant.client(&pooler), tenant.client(&pooler));
    one.rows("set timezone = 'UTC'; set datestyle = 'ISO, DMY'");
    two.rows("set timezone = 'Asia/Tokyo'; set datestyle = 'ISO, MDY'");
    for (name, sql, read_by_one, read_by_two) in [
        (
            "zone",
            "select extract(hour from '2026-01-02 12:00'::timestamptz at time zone 'UTC')",
            "12",
            "3",
        ),
        (
            "style",
            "select extract(month from '1/2/2026'::date)",
            "2",
            "1",
        ),
    ] {
        for (client, expected) in [(&mut one, read_by_one), (&mut two, read_by_two)] {
            assert_eq!(client.ask(&Batch::new().parse(name, sql).sync()), "1 Z(I)");
            assert_eq!(execute(client, name, &[]), expected, "{sql}");
        }
    }
    assert_eq!(on_server(&tenant, &pooler), "4");
}

#[test]
fn a_moment_is_that_of_the_client_who_prepares_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let (mut one, mut two) = (tenant.client(&pooler), tenant.client(&pooler));
    let prepare = Batch::new()
        .parse("moment", "select 'now'::timestamptz::text")
        .sync();
    assert_eq!(one.ask(&prepare), "1 Z(I)");
    let then = execute(&mut one, "moment", &[]);
    thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(two.ask(&prepare), "1 Z(I)");
    assert!(execute(&mut two, "moment", &[]) > then, "this is later");
    assert_eq!(
        execute(&mut one, "moment", &[]),
        then,
        "prepared is prepared"
    );
}

/// Where statements without a name that recur are prepared.
fn preparing(tenant: &Tenant, servers: u32) -> Pooler {
    start(
        tenant
            .ini()
            .set("default_pool_size", servers)
            .set("prepare_unnamed", 1),
    )
}

#[test]
fn a_statement_without_a_name_that_recurs_is_prepared_once_for_everybody() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = preparing(&tenant, 1);
    let mut clients: Vec<RawClient> = (0..3).map(|_| tenant.client(&pooler)).collect();
    for round in 0..4 {
        for (number, client) in clients.iter_mut().enumerate() {
            let value = format!("{round} of {number}");
            assert_eq!(
                nameless(client, "select 'round ' || $1", &[&value]),
                format!("round {value}")
            );
        }
    }
    assert_eq!(on_server(&tenant, &pooler), "1");
    let once = nameless(&mut clients[0], "select 'comes once'", &[]);
    assert_eq!(once, "comes once");
    assert_eq!(on_server(&tenant, &pooler), "1", "that is not kept");
}

#[test]
fn statements_without_a_name_are_prepared_where_a_database_says_so() {
    let Some(tenant) = Tenant::new() else { return };
    for (prepares, kept) in [(1, "1"), (0, "0")] {
        let name = &tenant.name;
        let postgres = tenant.postgres;
        let target = format!(
            "host={} port={} dbname={name} pool_size=1 prepare_unnamed={prepares}",
            postgres.socket_dir().display(),
            postgres.port()
        );
        let ini = tenant.ini().set("prepare_unnamed", 1 - prepares);
        let pooler = start(ini.database(name, &target));
        let mut client = tenant.client(&pooler);
        for _ in 0..3 {
            assert_eq!(nameless(&mut client, "select 'again'", &[]), "again");
        }
        assert_eq!(on_server(&tenant, &pooler), kept);
    }
}

#[test]
fn a_pipeline_of_statements_without_names_means_what_it_says() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = preparing(&tenant, 2);
    let mut client = tenant.client(&pooler);
    for round in 0..3 {
        let (mut batch, mut expected) = (Batch::new(), String::new());
        for number in 0..20 {
            // Some recur, and each round has some of its own.
            let (sql, value) = match number % 3 {
                0 => (format!("select {number}"), number.to_string()),
                1 => ("select 'again'".to_owned(), "again".to_owned()),
                _ => (
                    format!("select {round} * 100 + {number}"),
                    (round * 100 + number).to_string(),
                ),
            };
            batch = batch.parse("", &sql).bind("", "", &[]).execute("");
            expected += &format!("1 2 D({value}) C(SELECT 1) ");
        }
        assert_eq!(
            client.ask(&batch.sync()),
            expected + "Z(I)",
            "round {round}"
        );
    }
    let mut other = tenant.client(&pooler);
    other.value("begin; select 1");
    assert_eq!(
        nameless(&mut client, "select 'again'", &[]),
        "again",
        "on the other server"
    );
    other.rows("commit");
}

#[test]
fn a_recurring_statement_that_is_bound_later_is_the_last_one_parsed() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = preparing(&tenant, 2);
    let mut client = tenant.client(&pooler);
    for _ in 0..3 {
        nameless(&mut client, "select 'recurs'", &[]);
    }
    let mut holder = tenant.client(&pooler);
    holder.value("begin; select 1");
    assert_eq!(execute(&mut client, "", &[]), "recurs");
    let parse = Batch::new().parse("", "select 'once'").sync();
    assert_eq!(client.ask(&parse), "1 Z(I)");
    assert_eq!(execute(&mut client, "", &[]), "once");
    assert_eq!(
        client.ask(&Batch::new().parse("", "select nothing").sync()),
        "E(42703 column \"nothing\" does not exist) Z(I)"
    );
    holder.rows("commit");
}

#[test]
fn a_recurring_statement_outlives_what_the_pooler_sees_change() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = preparing(&tenant, 1);
    let (mut client, mut other) = (tenant.client(&pooler), tenant.client(&pooler));
    other.rows("create table changing (one text); insert into changing values ('first')");
    for _ in 0..3 {
        assert_eq!(
            nameless(&mut client, "select * from changing", &[]),
            "first"
        );
    }
    other.rows("alter table changing add column two text default 'second'");
    for _ in 0..3 {
        assert_eq!(
            nameless(&mut client, "select * from changing", &[]),
            "first,second"
        );
    }
    // What others change costs one statement, as with names.
    tenant.direct().rows("alter table changing drop column two");
    let batch = Batch::new().parse("", "select * from changing");
    let batch = batch.bind("", "", &[]).execute("").sync();
    assert_eq!(
        client.ask(&batch),
        "1 E(0A000 cached plan must not change result type) Z(I)"
    );
    assert_eq!(
        nameless(&mut client, "select * from changing", &[]),
        "first"
    );
}

#[test]
fn what_a_pipeline_deallocates_others_still_have() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let (mut client, mut other) = (tenant.client(&pooler), tenant.client(&pooler));
    for client in [&mut client, &mut other] {
        let both = Batch::new().parse("a", "select 1").parse("b", "select 2");
        assert_eq!(client.ask(&both.sync()), "1 1 Z(I)");
    }
    let all = Batch::new().run("deallocate a").run("deallocate b").sync();
    assert_eq!(client.ask(&all), "1 2 C(DEALLOCATE) 1 2 C(DEALLOCATE) Z(I)");
    assert_eq!(execute(&mut other, "a", &[]), "1");
    assert_eq!(execute(&mut other, "b", &[]), "2");
    let again = Batch::new().run("deallocate all").parse("a", "select 1");
    let again = again.bind("", "a", &[]).execute("").sync();
    assert_eq!(
        other.ask(&again),
        "1 2 C(DEALLOCATE ALL) 1 2 D(1) C(SELECT 1) Z(I)"
    );
    assert_eq!(execute(&mut other, "a", &[]), "1");
}

#[test]
fn what_a_function_deallocates_is_prepared_again_after_the_error() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let (mut client, mut other) = (tenant.client(&pooler), tenant.client(&pooler));
    let parse = Batch::new().parse("a", "select 1").sync();
    assert_eq!(client.ask(&parse), "1 Z(I)");
    other.rows("do 'begin execute ''deallocate all''; end'");
    let told = client.ask(&Batch::new().bind("", "a", &[]).execute("").sync());
    assert_eq!(
        told,
        "E(26000 prepared statement \"a\" does not exist) Z(I)"
    );
    assert_eq!(execute(&mut client, "a", &[]), "1");
}

/// Binds and executes a named statement and gives the only value.
#[track_caller]
#[test]
fn a_pipeline_may_name_thousands_of_statements_before_its_sync() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut client = tenant.client(&pooler);
    // What comes at once and what does not: both are more than is taken before the server answers.
    for count in [700, 3_000] {
        let mut batch = Batch::new();
        for number in 0..count {
            let name = format!("s{number}");
            batch = batch.parse(&name, "select 1").close_statement(&name);
        }
        client.send(&batch.sync());
        let answers = client.until_ready();
        let tags: Vec<u8> = answers.iter().map(|answer| answer.tag).collect();
        let (last, pairs) = tags.split_last().expect("an answer");
        assert_eq!((*last, pairs.len()), (b'Z', 2 * count));
        assert!(pairs.chunks(2).all(|pair| pair == b"13"));
    }
    assert_eq!(client.value("select 1"), "1");
}

fn execute(client: &mut RawClient, name: &str, values: &[&str]) -> String {
    client.send(&Batch::new().bind("", name, values).execute("").sync());
    let answer = client.until_ready();
    match &answer[..] {
        [bound, row, done, ready]
            if [bound.tag, row.tag, done.tag, ready.tag] == [b'2', b'D', b'C', b'Z'] =>
        {
            row.values().join("|")
        }
        _ => panic!("{}", story(&answer)),
    }
}

/// How many statements the only server has; asked on that server, so that evictions have happened.
#[track_caller]
fn on_server(tenant: &Tenant, pooler: &Pooler) -> String {
    let mut client = tenant.client(pooler);
    let sql = "select count(*) from pg_prepared_statements";
    eventually(
        std::time::Duration::from_secs(1),
        || client.value(sql),
        |_| true,
    )
}

/// A statement without a name, parsed and executed; the value.
fn nameless(client: &mut RawClient, sql: &str, values: &[&str]) -> String {
    let batch = Batch::new().parse("", sql).bind("", "", values);
    let said = client.ask(&batch.execute("").sync());
    let value = said
        .strip_prefix("1 2 D(")
        .and_then(|rest| rest.strip_suffix(") C(SELECT 1) Z(I)"));
    value.unwrap_or(&said).to_owned()
}
