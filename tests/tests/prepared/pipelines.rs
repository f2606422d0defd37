//! Many statements at once, and messages that are long or come in pieces.

use std::thread;

use pgweir_tests::{Batch, Tenant, start, story};

use super::asking::execute;

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
