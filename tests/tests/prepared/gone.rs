//! Names that stand for nothing any more, or never did.

use pgweir_tests::{Batch, Tenant};

use super::asking::execute;

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
