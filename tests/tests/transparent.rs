//! The promise: what a driver does with a connection of its own means the same when the next half of it runs on
//! another server.

use std::time::Duration;

use pgweir_tests::{Batch, Pooler, RawClient, Tenant, eventually, start};

/// A pool whose servers take turns: with it hardly two transactions in a row have the same server.
fn turns(tenant: &Tenant) -> Pooler {
    let ini = tenant.ini().set("server_round_robin", 1);
    let ini = ini.set("default_pool_size", 3).set("min_pool_size", 3);
    let ini = ini.set("startup_parameters", "apply");
    start(ini.set("error_codes", "postgres"))
}

fn process_id(client: &RawClient) -> i32 {
    client.key.as_ref().map_or(0, |key| key.process_id)
}

fn execute(name: &str, values: &[&str]) -> Batch {
    Batch::new().bind("", name, values).execute("").sync()
}

#[test]
fn an_unnamed_statement_outlives_its_sync() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    let mut other = tenant.client(&pooler);
    for round in 0..6 {
        let sql = format!("select 'round {round}, ' || $1");
        let prepare = Batch::new().parse("", &sql).describe_statement("").sync();
        assert!(client.ask(&prepare).starts_with("1 t"), "round {round}");
        other.ask(&Batch::new().run("select 'of another client'").sync());
        other.rows("select 'of the simple protocol'");
        for value in ["one", "two"] {
            let answer = client.ask(&execute("", &[value]));
            assert!(
                answer.contains(&format!("round {round}, {value}")),
                "{answer}"
            );
        }
    }
}

#[test]
fn nobody_runs_the_unnamed_statement_of_somebody_else() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut first = tenant.client(&pooler);
    let mut second = tenant.client(&pooler);
    first.ask(&Batch::new().parse("", "select 'secret'").sync());
    let answer = second.ask(&execute("", &[]));
    assert!(answer.contains("26000"), "{answer}");
    let again = first.ask(&execute("", &[]));
    assert!(again.contains("secret"), "{again}");
}

#[test]
fn deallocate_takes_the_name_of_a_statement_of_the_protocol() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    for number in 0..4 {
        let sql = format!("select 'number {number}'");
        assert_eq!(
            client.ask(&Batch::new().parse("s", &sql).sync()),
            "1 Z(I)",
            "the name is free"
        );
        let answer = client.ask(&execute("s", &[]));
        assert!(answer.contains(&format!("number {number}")), "{answer}");
        match number % 2 {
            0 => assert_eq!(client.query("DEALLOCATE s"), "C(DEALLOCATE) Z(I)"),
            _ => {
                let answer = client.ask(&Batch::new().run("DEALLOCATE PREPARE \"s\"").sync());
                assert!(answer.contains("C(DEALLOCATE)"), "{answer}");
            }
        }
        let gone = client.query("DEALLOCATE s");
        assert!(gone.contains("26000"), "{gone}");
    }
}

#[test]
fn deallocate_within_a_transaction_is_a_part_of_it() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    client.ask(&Batch::new().parse("s", "select 1").sync());
    client.rows("begin");
    assert_eq!(client.query("deallocate s"), "C(DEALLOCATE) Z(T)");
    client.rows("commit");

    client.ask(&Batch::new().parse("s", "select 1").sync());
    client.rows("begin");
    client.query("select 1/0");
    let failed = client.query("deallocate s");
    assert!(
        failed.contains("25P02") && failed.contains("Z(E)"),
        "{failed}"
    );
    client.rows("rollback");
}

#[test]
fn a_wrong_name_costs_a_statement_not_the_connection() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    let answer = client.ask(&execute("nobody", &[]));
    assert!(
        answer.contains("26000") && answer.contains("\"nobody\""),
        "{answer}"
    );
    client.ask(&Batch::new().parse("s", "select 'first'").sync());
    let answer = client.ask(&Batch::new().parse("s", "select 'second'").sync());
    assert!(
        answer.contains("42P05") && answer.contains("\"s\" already exists"),
        "{answer}"
    );
    let answer = client.ask(&execute("s", &["too many"]));
    assert!(
        answer.contains("08P01") && answer.contains("statement \"s\" requires 0"),
        "{answer}"
    );
    assert!(client.ask(&execute("s", &[])).contains("first"));
}

#[test]
fn a_statement_of_prepare_can_be_bound() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    client.rows("prepare s as select 'prepared by SQL'");
    for _ in 0..3 {
        let answer = client.ask(&execute("s", &[]));
        assert!(answer.contains("prepared by SQL"), "{answer}");
    }
}

#[test]
fn who_parses_after_a_change_of_a_table_gets_its_new_columns() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    tenant.root().rows("create table changing (a int)");
    tenant
        .root()
        .rows("grant all on changing to public; insert into changing values (1)");
    tenant
        .root()
        .rows(&format!("alter table changing owner to {}", tenant.name));
    let mut first = tenant.client(&pooler);
    let sql = "select * from changing";
    first.ask(&Batch::new().parse("s", sql).sync());
    for _ in 0..3 {
        assert!(first.ask(&execute("s", &[])).contains("D(1)"));
    }

    let mut second = tenant.client(&pooler);
    second.rows("alter table changing add b text default 'new'");
    for round in 0..3 {
        let name = format!("s{round}");
        assert_eq!(second.ask(&Batch::new().parse(&name, sql).sync()), "1 Z(I)");
        for _ in 0..3 {
            let answer = second.ask(&execute(&name, &[]));
            assert!(answer.contains("new"), "{answer}");
        }
    }
}

#[test]
fn a_change_that_the_pooler_has_not_seen_costs_one_error() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = tenant.pooler(1);
    let mut root = tenant.root();
    root.rows("create table changing (a int); grant all on changing to public");
    let mut client = tenant.client(&pooler);
    let sql = "select * from changing";
    client.ask(&Batch::new().parse("s", sql).sync());
    client.ask(&execute("s", &[]));
    root.rows("alter table changing add b int");
    let answer = client.ask(&execute("s", &[]));
    assert!(answer.contains("0A000"), "as without a pooler: {answer}");
    let close = Batch::new().close_statement("s").parse("s", sql).sync();
    assert_eq!(client.ask(&close), "3 1 Z(I)");
    let answer = client.ask(&execute("s", &[]));
    assert!(answer.contains("C(SELECT 0)"), "{answer}");
}

#[test]
fn a_temporary_table_of_the_same_name_is_another_table() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    for (index, kind) in ["int", "text", "date", "int[]"].into_iter().enumerate() {
        let mut client = tenant.client(&pooler);
        client.rows(&format!("create temp table mine (a {kind})"));
        let name = format!("s{index}");
        client.ask(&Batch::new().parse(&name, "select * from mine").sync());
        let answer = client.ask(&execute(&name, &[]));
        assert!(answer.contains("C(SELECT 0)"), "{kind}: {answer}");
    }
}

#[test]
fn a_notification_names_the_process_that_its_sender_was_told() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut listener = tenant.client(&pooler);
    let mut sender = tenant.client(&pooler);
    listener.rows("listen news");

    let own = process_id(&listener);
    assert_eq!(listener.query("notify news, 'of my own'"), "C(NOTIFY) Z(I)");
    let heard = listener.read().map(|message| message.to_string());
    assert_eq!(heard.ok(), Some(format!("A({own},news,of my own)")));

    sender.rows("notify news, 'of another'");
    let other = process_id(&sender);
    let heard = listener.read().map(|message| message.to_string());
    assert_eq!(heard.ok(), Some(format!("A({other},news,of another)")));
    assert!(listener.is_silent_for(Duration::from_millis(50)));
}

#[test]
fn a_greeting_spells_parameters_as_postgresql_does() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let parameters = [
        ("user", &*tenant.name),
        ("database", &*tenant.name),
        ("client_encoding", "'utf-8'"),
        ("DateStyle", "german"),
    ];
    let client = RawClient::login_with(pooler.port, &parameters);
    assert_eq!(client.parameter("client_encoding"), Some("UTF8"));
}

#[test]
fn a_client_is_terminated_by_the_process_id_that_it_was_told() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    for in_transaction in [true, false] {
        let mut killer = tenant.client(&pooler);
        let mut victim = tenant.client(&pooler);
        if in_transaction {
            victim.rows("begin");
        }
        let sql = format!("select pg_terminate_backend({})", process_id(&victim));
        assert_eq!(killer.value(&sql), "t");
        let (said, _) = victim.until_end();
        assert_eq!(
            said,
            "E(FATAL 57P01 terminating connection due to administrator command)"
        );
        assert_eq!(killer.value("select 1"), "1");
    }
}

#[test]
fn process_ids_may_be_values_of_a_statement() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut killer = tenant.client(&pooler);
    let sql = "select pg_terminate_backend($1::int)";
    killer.ask(&Batch::new().parse("named", sql).sync());
    for name in ["named", ""] {
        let mut victim = tenant.client(&pooler);
        let pid = process_id(&victim).to_string();
        let batch = match name {
            "" => Batch::new().parse("", sql),
            _ => Batch::new(),
        };
        let batch = batch.bind("", name, &[&pid]).execute("").sync();
        let answer = killer.ask(&batch);
        assert!(answer.contains("D(t)"), "{answer}");
        assert!(victim.until_end().0.contains("57P01"));
    }
}

#[test]
fn a_client_may_end_or_cancel_its_own_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    let pid = process_id(&client);
    let answer = client.query(&format!("select pg_cancel_backend({pid})"));
    assert!(answer.contains("57014"), "{answer}");
    client.send(&Batch::new().query(&format!("select pg_terminate_backend({pid})")));
    assert!(client.until_end().0.contains("57P01"));
}

#[test]
fn an_id_of_nobody_is_postgresqls_affair() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    let answer = client.query("select pg_terminate_backend(2147483647)");
    assert!(
        answer.contains("not a PostgreSQL") && answer.contains("D(f)"),
        "{answer}"
    );
}

#[test]
fn the_list_of_prepared_statements_is_that_of_the_client() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    let mut other = tenant.client(&pooler);
    client.ask(&Batch::new().parse("it's", "select 'mine'").sync());
    other.ask(&Batch::new().parse("s", "select 'of another'").sync());
    let sql = "select name, statement, from_sql from pg_prepared_statements where name <> ''";
    for _ in 0..4 {
        assert_eq!(client.rows(sql), ["it's|select 'mine'|f"]);
        let answer = other.ask(&Batch::new().run(sql).sync());
        assert!(
            answer.contains("D(s,select 'of another',f) C(SELECT 1)"),
            "{answer}"
        );
    }
    client.rows("prepare p as select 1");
    let sql = "select p.name from pg_catalog.pg_prepared_statements p order by p.name";
    assert_eq!(client.rows(sql), ["it's", "p"]);
    assert_eq!(client.query("deallocate \"it's\""), "C(DEALLOCATE) Z(I)");
    assert_eq!(client.rows(sql), ["p"]);
}

#[test]
fn what_a_rolled_back_transaction_has_created_is_another_thing_next_time() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    client.rows("begin");
    for round in 0..3 {
        client.rows("savepoint a");
        client.rows("create type mood as enum ('fine')");
        let name = format!("s{round}");
        client.ask(&Batch::new().parse(&name, "select $1::mood").sync());
        let answer = client.ask(&execute(&name, &["fine"]));
        assert!(answer.contains("D(fine)"), "round {round}: {answer}");
        client.rows("rollback to a");
    }
    client.rows("rollback");
}

#[test]
fn execute_takes_the_name_of_a_statement_of_the_protocol() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    client.ask(&Batch::new().parse("s", "select 'executed ' || $1").sync());
    let sql = "EXECUTE s ('by SQL')";
    client.ask(&Batch::new().parse("outer", sql).sync());
    for _ in 0..4 {
        let answer = client.ask(&execute("outer", &[]));
        assert!(answer.contains("executed by SQL"), "{answer}");
        let answer = client.ask(&Batch::new().run(sql).sync());
        assert!(answer.contains("executed by SQL"), "{answer}");
    }
}

#[test]
fn idle_servers_do_not_keep_a_database() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let name = format!("{}_other", tenant.name);
    tenant
        .root()
        .rows(&format!("alter role {} createdb", tenant.name));
    let mut client = tenant.client(&pooler);
    client.rows(&format!("create database {name}"));
    let mut other = RawClient::login(pooler.port, &name, &tenant.name);
    assert_eq!(other.value("select 1"), "1");
    let refused = client.query(&format!("drop database {name}"));
    assert!(
        refused.contains("55006"),
        "a client is connected: {refused}"
    );
    drop(other);
    let drop = format!("drop database {name}");
    eventually(
        Duration::from_secs(10),
        || client.query(&drop),
        |answer| answer == "C(DROP DATABASE) Z(I)",
    );
}

#[test]
fn a_process_that_was_asked_for_its_id_stands_for_its_client() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut victim = tenant.client(&pooler);
    let mut killer = tenant.client(&pooler);
    let pid = victim.value("select pg_backend_pid()");
    assert_eq!(
        killer.value(&format!("select pg_terminate_backend({pid})")),
        "t"
    );
    assert!(victim.until_end().0.contains("57P01"));
}

#[test]
fn who_has_parsed_before_a_change_of_a_table_is_told_so_on_every_server() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut owner = tenant.client(&pooler);
    owner.rows("create table changing (a int, b int); create table same (a int)");
    owner.rows("insert into changing values (1, 2); insert into same values (3)");
    let mut client = tenant.client(&pooler);
    for table in ["changing", "same"] {
        let sql = format!("select * from {table}");
        let prepare = Batch::new()
            .parse(table, &sql)
            .describe_statement(table)
            .sync();
        assert!(client.ask(&prepare).contains('T'));
    }
    owner.rows("alter table changing alter b type text");
    owner.rows("alter table same add unique (a)");
    for round in 0..6 {
        let answer = client.ask(&execute("changing", &[]));
        assert_eq!(
            answer, "E(0A000 cached plan must not change result type) Z(I)",
            "round {round}"
        );
        let answer = client.ask(&execute("same", &[]));
        assert!(answer.contains("D(3)"), "round {round}: {answer}");
    }
    client.rows("begin");
    assert!(client.ask(&execute("changing", &[])).contains("Z(E)"));
    client.rows("rollback");
    let again = Batch::new()
        .close_statement("changing")
        .parse("changing", "select * from changing")
        .sync();
    assert_eq!(client.ask(&again), "3 1 Z(I)");
    for _ in 0..3 {
        assert!(client.ask(&execute("changing", &[])).contains("D(1,2)"));
    }
}

#[test]
fn a_client_is_found_by_its_process_id_while_it_works() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut watched = tenant.client(&pooler);
    let mut watching = tenant.client(&pooler);
    watched.rows("begin");
    let pid = process_id(&watched);
    let sql = "select state from pg_stat_activity where pid = ";
    let found = watching.rows(&format!("{sql}{pid}"));
    assert_eq!(found, ["idle in transaction"]);
    watched.rows("commit");
    assert_eq!(watching.rows(&format!("{sql}{pid}")).len(), 0);
}

#[test]
fn what_is_prepared_in_the_same_go_is_in_the_list() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = turns(&tenant);
    let mut client = tenant.client(&pooler);
    let batch = Batch::new()
        .parse("s", "select 1")
        .run("select name from pg_prepared_statements where name <> ''")
        .sync();
    let answer = client.ask(&batch);
    assert!(answer.contains("D(s)"), "{answer}");
}
