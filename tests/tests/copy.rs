//! The promise: bulk data passes in both directions, in every protocol form, also when it fails half way; and how
//! much it is does not matter to the pooler's memory.

use std::{fs, thread, time::Duration};

use pgweir_tests::{Batch, Pooler, RawClient, Strait, Tenant, eventually, rss, start, story};

const MB: u64 = 1_000_000;

/// How much memory the pooler may take for one client, however much passes.
const GROWTH_MAX: u64 = 40 * MB;

#[test]
fn copy_in_by_a_simple_query() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    assert_eq!(begin_copy(&mut client, COPY_IN), "G");
    let rows = Batch::new().copy_data(b"1\n2\n").copy_data(b"3\n");
    assert_eq!(client.ask(&rows.copy_done()), "C(COPY 3) Z(I)");
    scene.holds("3");
}

#[test]
fn copy_in_by_the_extended_protocol() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    client.send(&Batch::new().run(COPY_IN).flush());
    for expected in ["1", "2", "G"] {
        assert_eq!(client.read().expect("an answer").to_string(), expected);
    }
    let rows = Batch::new().copy_data(b"1\n2\n").copy_done().sync();
    assert_eq!(client.ask(&rows), "C(COPY 2) Z(I)");
    scene.holds("2");
}

#[test]
fn a_sync_sent_before_the_copy_data_is_ignored_as_postgresql_does() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    // libpq and psycopg send Sync behind Execute, before they know that it is a COPY.
    client.send(&Batch::new().run(COPY_IN).sync());
    for expected in ["1", "2", "G"] {
        assert_eq!(client.read().expect("an answer").to_string(), expected);
    }
    let rows = Batch::new().copy_data(b"1\n").copy_done().sync();
    assert_eq!(client.ask(&rows), "C(COPY 1) Z(I)");
    assert!(client.is_silent_for(Duration::from_millis(100)));
    scene.holds("1");
}

#[test]
fn a_whole_copy_in_one_write() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let simple = Batch::new()
        .query(COPY_IN)
        .copy_data(b"1\n")
        .copy_done()
        .query("select 'next'");
    assert_eq!(client.ask(&simple), "G C(COPY 1) Z(I)");
    assert_eq!(story(&client.until_ready()), "T D(next) C(SELECT 1) Z(I)");

    let extended = Batch::new()
        .run(COPY_IN)
        .copy_data(b"2\n")
        .copy_done()
        .sync()
        .run("select 'next'")
        .sync();
    assert_eq!(client.ask(&extended), "1 2 G C(COPY 1) Z(I)");
    assert_eq!(story(&client.until_ready()), "1 2 D(next) C(SELECT 1) Z(I)");
    scene.holds("2");
}

#[test]
fn two_copies_in_one_query() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let both = format!("{COPY_IN}; {COPY_IN}; select 'done'");
    assert_eq!(begin_copy(&mut client, &both), "G");
    client.send(&Batch::new().copy_data(b"1\n").copy_done());
    assert_eq!(client.read().expect("an answer").to_string(), "C(COPY 1)");
    assert_eq!(client.read().expect("an answer").to_string(), "G");
    assert_eq!(
        client.ask(&Batch::new().copy_data(b"2\n").copy_done()),
        "C(COPY 1) T D(done) C(SELECT 1) Z(I)"
    );
    scene.holds("2");
}

#[test]
fn copy_in_that_fails_before_its_end_frees_the_server() {
    let Some(scene) = Scene::new() else { return };
    for form in [
        Batch::new().query(COPY_IN),
        Batch::new().run(COPY_IN).sync(),
    ] {
        let mut client = scene.client();
        client.send(&form);
        while client.read().expect("an answer").tag != b'G' {}
        client.send(&Batch::new().copy_data(b"no number\n"));
        if form.as_bytes()[0] == b'Q' {
            let answer = story(&client.until_ready());
            assert!(answer.starts_with("E(22P02 "), "{answer}");
            // The rest of the copy comes late; it is nobody's business any more.
            client.send(&Batch::new().copy_data(b"4\n").copy_done());
        } else {
            let error = client.read().expect("an answer").to_string();
            assert!(error.starts_with("E(22P02 "), "{error}");
            client.send(&Batch::new().copy_data(b"4\n").copy_done().sync());
            assert_eq!(story(&client.until_ready()), "Z(I)");
        }
        let mut other = scene.client();
        assert_eq!(other.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
        assert_eq!(client.query("select 2"), "T D(2) C(SELECT 1) Z(I)");
    }
    scene.holds("0");
}

#[test]
fn copy_in_that_fails_at_its_end_frees_the_server() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    assert_eq!(begin_copy(&mut client, COPY_IN), "G");
    let answer = client.ask(&Batch::new().copy_data(b"no number\n").copy_done());
    assert!(
        answer.starts_with("E(22P02 ") && answer.ends_with(") Z(I)"),
        "{answer}"
    );
    let extended = Batch::new()
        .run(COPY_IN)
        .copy_data(b"no number\n")
        .copy_done()
        .run("select 'skipped'")
        .sync();
    let answer = client.ask(&extended);
    assert!(
        answer.starts_with("1 2 G E(22P02 ") && answer.ends_with(") Z(I)"),
        "{answer}"
    );
    assert_eq!(scene.client().query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    assert_eq!(client.query("select 2"), "T D(2) C(SELECT 1) Z(I)");
    scene.holds("0");
}

#[test]
fn copy_in_that_fails_in_a_transaction_leaves_it_failed() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    assert_eq!(begin_copy(&mut client, COPY_IN), "G");
    client.send(&Batch::new().copy_data(b"no number\n"));
    let answer = story(&client.until_ready());
    assert!(answer.ends_with(") Z(E)"), "{answer}");
    client.send(&Batch::new().copy_data(b"4\n").copy_done());
    assert_eq!(client.query("rollback"), "C(ROLLBACK) Z(I)");
    assert_eq!(scene.client().query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    scene.holds("0");
}

#[test]
fn a_client_can_give_up_its_copy() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    assert_eq!(begin_copy(&mut client, COPY_IN), "G");
    let answer = client.ask(&Batch::new().copy_data(b"1\n").copy_fail("changed my mind"));
    assert_eq!(
        answer,
        "E(57014 COPY from stdin failed: changed my mind) Z(I)"
    );
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    scene.holds("0");
}

#[test]
fn copy_out_in_both_forms() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let sql = "copy (select generate_series(1, 3)) to stdout";
    assert_eq!(client.query(sql), "H d d d c C(COPY 3) Z(I)");
    assert_eq!(
        client.ask(&Batch::new().run(sql).sync()),
        "1 2 H d d d c C(COPY 3) Z(I)"
    );
    let failing = "copy (select 1 / (3 - n) from generate_series(1, 5) n) to stdout";
    assert_eq!(
        client.query(failing),
        "H d d E(22012 division by zero) Z(I)"
    );
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
}

#[test]
fn copy_by_a_named_statement() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    for (round, begun) in ["1 2 G", "2 G"].into_iter().enumerate() {
        let batch = match round {
            0 => Batch::new().parse("load", COPY_IN),
            _ => Batch::new(),
        };
        let batch = batch.bind("", "load", &[]).execute("").copy_data(b"1\n");
        assert_eq!(
            client.ask(&batch.copy_done().sync()),
            format!("{begun} C(COPY 1) Z(I)")
        );
    }
    scene.holds("2");
}

#[test]
fn fifty_megabytes_of_copy_pass_in_both_directions_without_being_kept() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    client.rows("create table bulk (x text)");
    let before = rss(scene.pooler.pid).expect("a process");

    let chunk = format!("{}\n", "x".repeat(999)).repeat(100);
    assert_eq!(begin_copy(&mut client, "copy bulk from stdin"), "G");
    let data = Batch::new().copy_data(chunk.as_bytes());
    for _ in 0..500 {
        client.send(&data);
    }
    assert_eq!(client.ask(&Batch::new().copy_done()), "C(COPY 50000) Z(I)");
    scene.has_not_grown(before);

    client.send(&Batch::new().query("copy bulk to stdout"));
    assert_eq!(client.read().expect("an answer").tag, b'H');
    client.swallow(50_000 * (5 + 1000));
    assert_eq!(story(&client.until_ready()), "c C(COPY 50000) Z(I)");
    scene.has_not_grown(before);
}

#[test]
fn a_message_left_over_from_a_copy_is_not_kept() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let before = rss(scene.pooler.pid).expect("a process");
    let data = vec![b'1'; 100 * 1024 * 1024];
    let late = Batch::new().copy_data(&data);
    let (most, last) = late.as_bytes().split_at(data.len());
    client.send_bytes(most);
    scene.has_not_grown(before);
    client.send_bytes(last);
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
}

#[test]
fn a_hundred_megabytes_of_rows_pass_without_being_kept() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let before = rss(scene.pooler.pid).expect("a process");
    let sql = "select repeat('x', 10000) from generate_series(1, 10000)";
    for batch in [Batch::new().query(sql), Batch::new().run(sql).sync()] {
        client.send(&batch);
        let mut rows = 0;
        loop {
            let message = client.read().expect("an answer");
            match message.tag {
                b'D' => rows += 1,
                b'Z' => break,
                _ => {}
            }
        }
        assert_eq!(rows, 10_000);
        scene.has_not_grown(before);
    }
}

#[test]
fn one_value_of_64_megabytes_passes_without_being_kept() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    let before = rss(scene.pooler.pid).expect("a process");
    let size = 64 * 1024 * 1024;

    client.send(&Batch::new().query(&format!("select repeat('x', {size})")));
    assert_eq!(client.read().expect("an answer").tag, b'T');
    client.swallow(5 + 2 + 4 + size);
    assert_eq!(story(&client.until_ready()), "C(SELECT 1) Z(I)");
    scene.has_not_grown(before);

    let value = "y".repeat(size as usize);
    let send = Batch::new()
        .parse("", "select length($1::text)::text")
        .bind("", "", &[&value])
        .execute("")
        .sync();
    assert_eq!(client.ask(&send), format!("1 2 D({size}) C(SELECT 1) Z(I)"));
    scene.has_not_grown(before);

    let query = format!("select length('{value}')");
    assert_eq!(
        client.query(&query),
        format!("T D({size}) C(SELECT 1) Z(I)")
    );
    scene.has_not_grown(before);
}

#[test]
fn a_client_that_reads_slowly_holds_up_its_server_and_not_the_memory() {
    let Some(scene) = Scene::with_servers(4) else {
        return;
    };
    let before = rss(scene.pooler.pid).expect("a process");
    let sql = "select repeat('x', 100000) from generate_series(1, 1000)";
    let mut slow: Vec<RawClient> = (0..4).map(|_| scene.client()).collect();
    for client in &mut slow {
        client.send(&Batch::new().query(sql));
    }
    for _ in 0..5 {
        thread::sleep(Duration::from_millis(100));
        let (first, _) = slow.split_first_mut().expect("four clients");
        assert!(!first.read().expect("an answer").body.is_empty());
        scene.has_not_grown(before);
    }
    for mut client in slow {
        let answer = client.until_ready();
        let rows = answer.iter().filter(|message| message.tag == b'D').count();
        assert!(rows >= 996, "{rows} rows");
    }
}

#[test]
fn a_server_that_reads_slowly_holds_up_its_client_and_not_the_memory() {
    let Some(scene) = Scene::new() else { return };
    let mut client = scene.client();
    client.rows("create table guarded (x text)");
    let before = rss(scene.pooler.pid).expect("a process");
    // The trigger sleeps for every row, so PostgreSQL reads slowly.
    client.rows(
        "create function slow() returns trigger language plpgsql as \
         'begin perform pg_sleep(0.002); return new; end'",
    );
    client
        .rows("create trigger slow before insert on guarded for each row execute function slow()");
    assert_eq!(begin_copy(&mut client, "copy guarded from stdin"), "G");
    let row = format!("{}\n", "x".repeat(99_999));
    let data = Batch::new().copy_data(row.as_bytes());
    for _ in 0..300 {
        client.send(&data);
    }
    scene.has_not_grown(before);
    assert_eq!(client.ask(&Batch::new().copy_done()), "C(COPY 300) Z(I)");
}

#[test]
fn large_objects_pass() {
    let Some(tenant) = Tenant::new() else { return };
    let text = "large objects use function calls\n".repeat(20_000);
    // With more, a server that is still being looked at would have the next client open another.
    let ini = tenant.ini().set("default_pool_size", 1);
    let pooler = start(ini.file("blob.txt", &text));
    let name = &tenant.name;
    pooler.psql(name, name, "\\lo_import blob.txt");
    let oid = pooler.psql(name, name, "select oid from pg_largeobject_metadata");
    pooler.psql(name, name, &format!("\\lo_export {oid} out.txt"));
    let out = fs::read_to_string(pooler.socket_dir.join("out.txt")).expect("written by psql");
    assert_eq!(out.len(), text.len());
    assert_eq!(out, text);
    assert_eq!(tenant.backends(), 1);
}

#[test]
fn psql_copies_a_file_in_and_out() {
    let Some(tenant) = Tenant::new() else { return };
    let lines: String = (0..50_000).map(|n| format!("{n}\n")).collect();
    let pooler = start(tenant.ini().file("numbers.txt", &lines));
    let name = &tenant.name;
    pooler.psql(name, name, "create table numbers (n int)");
    pooler.psql(name, name, "\\copy numbers from numbers.txt");
    let back = pooler.psql(name, name, "\\copy numbers to stdout");
    assert_eq!(back, lines.trim_end());
}

#[test]
fn a_transaction_is_idle_after_a_copy_that_failed_in_the_middle_of_a_message() {
    let Some(scene) = Scene::new() else { return };
    let ini = scene.tenant.ini().set("idle_transaction_timeout", 1);
    scene.pooler.reload(ini).expect("reloaded");
    let mut client = scene.client();
    assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
    assert_eq!(begin_copy(&mut client, COPY_IN), "G");
    let data = Batch::new()
        .copy_data(b"no number\n")
        .copy_data(&[b'1'; 4096]);
    let (first, rest) = data.as_bytes().split_at(2048);
    client.send_bytes(first);
    assert_eq!(
        story(&client.until_ready()),
        "E(22P02 invalid input syntax for type integer: \"no number\") Z(E)"
    );
    client.send_bytes(rest);
    assert!(
        client.until_closed().contains("idle transaction timeout"),
        "nobody asks anything"
    );
}

const COPY_IN: &str = "copy target from stdin";

struct Scene {
    tenant: Tenant,
    pooler: Pooler,
}

impl Scene {
    /// A pool of one, so that a server that is not given back is missed at once.
    fn new() -> Option<Self> {
        Self::with_servers(1)
    }

    fn with_servers(servers: u32) -> Option<Self> {
        let tenant = Tenant::new()?;
        tenant.direct().rows("create table target (x int)");
        let pooler = start(
            tenant
                .ini()
                .set("default_pool_size", servers)
                .set("query_wait_timeout", 5),
        );
        Some(Self { tenant, pooler })
    }

    fn client(&self) -> RawClient {
        self.tenant.client(&self.pooler)
    }

    #[track_caller]
    fn holds(&self, rows: &str) {
        let count = self.tenant.root().value("select count(*) from target");
        assert_eq!(count, rows);
    }

    #[track_caller]
    fn has_not_grown(&self, before: u64) {
        let grown = rss(self.pooler.pid)
            .expect("a process")
            .saturating_sub(before);
        assert!(grown < GROWTH_MAX, "{grown} bytes more");
    }
}

/// Sends Query and gives the answer to it, which says that data may come.
#[track_caller]
fn begin_copy(client: &mut RawClient, sql: &str) -> String {
    client.send(&Batch::new().query(sql));
    client.read().expect("an answer").to_string()
}

/// The low-water mark of a long stream must not hide what an idle server says: with it the next client would be told.
#[test]
fn a_server_that_speaks_after_a_long_result_is_given_to_nobody() {
    const NOTICE: &[u8] = b"N\0\0\0\x17SNOTICE\0Mstranger\0\0";
    let Some(tenant) = Tenant::new() else { return };
    let strait = Strait::to(tenant.postgres.port());
    let (name, port) = (&tenant.name, strait.port);
    let place = format!("host=127.0.0.1 port={port} dbname={name}");
    let pooler = start(
        tenant
            .ini()
            .database(name, &place)
            .set("session_state", "pgbouncer"),
    );
    let mut client = tenant.client(&pooler);
    // Exactly 4 MiB with the row's description (27 bytes), its head (11), the tag (14) and ReadyForQuery (6).
    let sql = format!("select repeat('x', {}) as r", 4 * 1024 * 1024 - 58);
    client.send(&Batch::new().query(&sql));
    while client.read().expect("an answer").tag != b'Z' {}
    // The answer may be there before the server has been given back.
    let is_idle = || {
        pooler
            .console("show servers")
            .find("state", "idle")
            .is_some()
    };
    eventually(Duration::from_secs(5), is_idle, |is| *is);

    strait.say_to_pooler(NOTICE);
    assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
    let log = pooler.log();
    assert!(log.contains("idle server got dirty"), "{log}");
}
