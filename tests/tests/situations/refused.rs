//! Somebody asks for what an operator has refused (`state_policy`): an error like any other of PostgreSQL's.
//!
//! There is no form at login, because nothing is asked there, and none of COPY's own: a COPY leaves nothing.

use pgweir_tests::{Batch, story};

use crate::scene::{INSERT, Scene, WAYS};

const LISTEN: &str = "listen news";

/// A lock that is a value's: the statement says what it leaves, but not of what.
const LOCK: &str = "select pg_advisory_lock($1)";

/// Every form, and what is said. Nothing that is behind the refusal has run.
fn forms() -> [(&'static str, Batch, String); 7] {
    let refused = |what| format!("E(0A000 {what}: refused in this pooling mode)");
    let (listen, lock) = (refused("listen"), refused("advisory lock"));
    let insert_behind = format!("{LISTEN}; {INSERT}");
    [
        (
            "simple",
            Batch::new().query(&insert_behind),
            format!("{listen} Z(I)"),
        ),
        (
            "extended",
            Batch::new().run(LISTEN).run(INSERT).sync(),
            format!("{listen} Z(I)"),
        ),
        (
            "with a value",
            Batch::new()
                .parse("", LOCK)
                .bind("", "", &["7"])
                .execute("")
                .sync(),
            format!("{lock} Z(I)"),
        ),
        (
            "with a name",
            Batch::new()
                .parse("mine", LOCK)
                .describe_statement("mine")
                .sync(),
            format!("{lock} Z(I)"),
        ),
        (
            "pipelined",
            Batch::new()
                .run("select 1")
                .run(LISTEN)
                .run(INSERT)
                .sync()
                .run("select 2")
                .sync(),
            format!("1 2 D(1) C(SELECT 1) {listen} Z(I) 1 2 D(2) C(SELECT 1) Z(I)"),
        ),
        (
            "behind an error",
            Batch::new()
                .run("select 1/0")
                .run(LISTEN)
                .sync()
                .query(LISTEN),
            format!("1 E(22012 division by zero) Z(I) {listen} Z(I)"),
        ),
        (
            "in a transaction",
            Batch::new()
                .query("begin")
                .query(INSERT)
                .query(LISTEN)
                .query("commit"),
            format!("C(BEGIN) Z(T) C(INSERT 0 1) Z(T) {listen} Z(E) C(ROLLBACK) Z(I)"),
        ),
    ]
}

#[test]
fn what_is_refused_is_an_error_in_its_place_and_costs_no_connection() {
    for way in WAYS {
        for prepared in [0, 100] {
            let Some(scene) = Scene::new(way, |ini| {
                ini.set("state_policy", "listen:refuse, locks:refuse")
                    .set("max_prepared_statements", prepared)
            }) else {
                return;
            };
            let kept = forms().map(|(form, batch, expected)| {
                let mut client = scene.client();
                client.send(&batch);
                let mut said = Vec::new();
                for _ in 0..expected.matches("Z(").count() {
                    said.extend(client.until_ready());
                }
                assert_eq!(story(&said), expected, "{form}, {way:?}, {prepared}");
                client
            });
            scene.serves_again(kept.into_iter().collect());
        }
    }
}

#[test]
fn what_is_not_refused_is_done() {
    let Some(scene) = Scene::new(WAYS[0], |ini| {
        ini.set("state_policy", "locks:refuse, settings:refuse")
    }) else {
        return;
    };
    let mut client = scene.client();
    assert_eq!(client.query(LISTEN), "C(LISTEN) Z(I)");
    assert_eq!(client.query("unlisten news"), "C(UNLISTEN) Z(I)");
    let refused = "E(0A000 parameters: refused in this pooling mode) Z(I)";
    assert_eq!(client.query("set work_mem = '1MB'"), refused);
    let local = client.ask(&Batch::new().query("begin; set local work_mem = '1MB'; commit"));
    assert_eq!(local, "C(BEGIN) C(SET) C(COMMIT) Z(I)");
    // A word in a literal is no statement.
    let text = "select 'pg_advisory_lock(1), pgweir_refuses_1'";
    assert!(client.query(text).starts_with("T D(pg_advisory_lock(1)"));
}

#[test]
fn session_pooling_refuses_nothing() {
    let Some(scene) = Scene::new(WAYS[0], |ini| {
        ini.set("state_policy", "listen:refuse")
            .set("pool_mode", "session")
    }) else {
        return;
    };
    assert_eq!(scene.client().query(LISTEN), "C(LISTEN) Z(I)");
}
