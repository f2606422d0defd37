//! Statements without a name that recur are parsed once per server, where that is asked for.

use pgweir_tests::{Batch, Pooler, RawClient, Tenant, start};

use super::asking::{execute, nameless, on_server};

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
