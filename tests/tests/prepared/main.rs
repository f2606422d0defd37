//! The promise: named prepared statements work as if every client had a server of its own, whichever servers it is
//! served on, and the servers do not fill up with them.

mod asking;
mod drivers;
mod gone;
mod pipelines;
mod unnamed;

use std::thread;

use asking::{execute, on_server};
use pgweir_tests::{Batch, RawClient, Tenant, console, start, story};

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
