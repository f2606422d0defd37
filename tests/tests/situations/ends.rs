//! A connection, or a query, is ended.

use std::time::Duration;

use pgweir_tests::{Batch, Ini, eventually, story};

use crate::scene::{INSERT, PATIENCE, Scene, WAYS, doings, forms};

#[test]
fn who_is_killed_is_told_so_whatever_it_was_doing() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let name = &scene.tenant.name;
        let expected = way.closed("57P01", "admin forced disconnect");
        for (doing, batch, _) in doings() {
            let client = scene.busy(doing, &batch);
            scene.order(&format!("KILL CLIENTS WHERE user = '{name}'"));
            scene.is_sent_away(doing, client, &expected);
        }
        let expected = way.closed("57P01", "database removed");
        for (doing, batch, _) in doings() {
            let client = scene.busy(doing, &batch);
            scene.order(&format!("KILL {name}"));
            scene.is_sent_away(doing, client, &expected);
            scene.order(&format!("RESUME {name}"));
        }
        scene.serves_again(vec![scene.client()]);
    }
}

#[test]
fn what_postgresql_says_at_its_end_is_said_once() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let name = &scene.tenant.name;
        let expected = "E(FATAL 57P01 terminating connection due to administrator command)";
        let terminate = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{name}'"
        );
        for (doing, batch, told) in doings() {
            let mut client = scene.busy(doing, &batch);
            scene.tenant.root().rows(&terminate);
            if doing == "idle" {
                // Its server was not its own any more.
                eventually(PATIENCE, || scene.tenant.backends(), |count| *count == 0);
                assert_eq!(client.query("select 1"), told, "{way:?}");
            } else if doing == "copy" {
                // PostgreSQL notices when it reads.
                client.send(&Batch::new().copy_data(b"more\n"));
                scene.is_sent_away(doing, client, expected);
            } else {
                scene.is_sent_away(doing, client, expected);
            }
        }
        scene.serves_again(vec![scene.client()]);
    }
}

#[test]
fn a_query_that_takes_too_long_is_canceled_and_its_client_kept_where_that_can_be() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("query_timeout", "0.5")) else {
            return;
        };
        let canceled = "E(57014 canceling statement due to user request) Z(I)";
        let mut kept = Vec::new();
        for (doing, batch, told) in doings() {
            if matches!(doing, "idle" | "copy" | "transaction") {
                continue;
            }
            let mut client = scene.client();
            client.send(&batch);
            match way.codes {
                "postgres" => {
                    let said = story(&client.until_ready());
                    assert!(
                        said.starts_with(told) && said.ends_with(canceled),
                        "{doing}: {said}"
                    );
                    kept.push(client);
                }
                _ => scene.is_sent_away(doing, client, "E(FATAL 08P01 query timeout)"),
            }
        }
        scene.serves_again(kept);
        // A server that waits for the client's data does not hear a cancel.
        let copying = Batch::new()
            .query("copy trace from stdin")
            .copy_data(b"ran\n");
        let client = scene.busy("copy", &copying);
        scene.is_sent_away("copy", client, &way.closed("57014", "query timeout"));
        scene.serves_again(vec![scene.client()]);
    }
}

/// Who asks nothing is silent in one way only. What has not come to its end has no limit as a silence, but as a transaction.
#[test]
fn transactions_and_silence_have_their_limits() {
    let copy = || {
        Batch::new()
            .query("copy trace from stdin")
            .copy_data(b"ran\n")
    };
    let begun = || {
        let insert = "insert into trace values ('ran')";
        vec![
            ("simple", Batch::new().query("begin").query(insert)),
            ("extended", Batch::new().run("begin").sync()),
            ("pipelined", Batch::new().run("begin").run(insert).sync()),
            ("failed", Batch::new().query("begin").query("select 1/0")),
        ]
    };
    let unfinished = vec![
        ("copy", copy()),
        ("sleep", Batch::new().query("select pg_sleep(20)")),
        ("flushed", Batch::new().run("select 1").flush()),
    ];
    let idle = vec![("idle", Batch::new().query("select 1"))];
    for way in WAYS {
        for (key, forms, code, text) in [
            (
                "transaction_timeout",
                [begun(), unfinished.clone()].concat(),
                "25P04",
                "transaction timeout",
            ),
            (
                "idle_transaction_timeout",
                begun(),
                "25P03",
                "idle transaction timeout",
            ),
            (
                "client_idle_timeout",
                idle.clone(),
                "57P05",
                "client_idle_timeout",
            ),
        ] {
            let Some(scene) = Scene::new(way, |ini| ini.set(key, 1).set("default_pool_size", 8))
            else {
                return;
            };
            let mut clients: Vec<_> = forms.iter().map(|_| scene.client()).collect();
            for ((_, batch), client) in forms.iter().zip(&mut clients) {
                client.send(batch);
            }
            for ((form, _), mut client) in forms.iter().zip(clients) {
                let said = client.until_closed();
                let expected = way.closed(code, text);
                assert!(said.ends_with(&expected), "{key}, {form}, {way:?}: {said}");
                let errors = 1 + usize::from(*form == "failed");
                assert_eq!(said.matches("E(").count(), errors, "{key}, {form}: {said}");
            }
            scene.serves_again(vec![scene.client()]);
        }
    }
}

/// `leak_action = rollback`. Who is idle or logs in has no transaction, and who is in a COPY or a query is not silent.
/// Both dialects say the same, because PgBouncer has nothing like it.
#[test]
fn whose_transaction_is_taken_learns_it_by_what_it_asks_next_and_goes_on_when_it_has_ended_it() {
    const TOLD: &str = "the transaction was rolled back because it was idle (leak_action)";
    const FAILED: &str =
        "current transaction is aborted, commands ignored until end of transaction block";
    let forms = forms();
    // One that gives up at once, and one that asks once more and believes that it commits.
    let size = 2 * forms.len();
    for way in WAYS {
        let change = |ini: Ini| {
            ini.set("default_pool_size", size)
                .set("leak_after", 1)
                .set("leak_action", "rollback")
        };
        let Some(scene) = Scene::new(way, change) else {
            return;
        };
        let robbed = (0..size).map(|_| {
            let mut client = scene.client();
            assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
            assert_eq!(client.query(INSERT), "C(INSERT 0 1) Z(T)");
            client
        });
        let mut robbed = robbed.collect::<Vec<_>>().into_iter();
        // Every server is held, so this is served by one of them.
        let mut other = scene.client();
        assert_eq!(other.value("select count(*) from trace"), "0", "{way:?}");
        let name = &scene.tenant.name;
        let open = format!(
            "select count(*) from pg_stat_activity where usename = '{name}' and xact_start is not null"
        );
        let mut root = scene.tenant.root();
        eventually(PATIENCE, || root.value(&open), |count| count == "0");

        let mut kept = Vec::new();
        for (form, batch) in &forms {
            let (mut quitter, mut believer) = (robbed.next(), robbed.next());
            for client in [&mut quitter, &mut believer].into_iter().flatten() {
                client.send(batch);
                let said = story(&client.until_ready());
                assert_eq!(said, format!("E(25P03 {TOLD}) Z(E)"), "{form}, {way:?}");
            }
            let mut quitter = quitter.expect("one per form");
            let said = quitter.query("rollback");
            assert!(
                !said.contains("E(") && said.ends_with("C(ROLLBACK) Z(I)"),
                "{form}, {way:?}: {said}"
            );
            let mut believer = believer.expect("one per form");
            let said = believer.ask(batch);
            assert_eq!(said, format!("E(25P02 {FAILED}) Z(E)"), "{form}, {way:?}");
            assert_eq!(
                believer.ask(&Batch::new().sync()),
                "Z(E)",
                "{form}, {way:?}"
            );
            // A batch may say more than `commit`, so it is refused as a whole.
            let (commit, expected) = match *form {
                "extended" => (
                    Batch::new().run("commit").sync(),
                    format!("E(25P03 {TOLD}) Z(I)"),
                ),
                _ => (Batch::new().query("commit"), "C(ROLLBACK) Z(I)".to_owned()),
            };
            assert_eq!(believer.ask(&commit), expected, "{form}, {way:?}");
            kept.extend([quitter, believer]);
        }
        scene.serves_again(kept);
    }
}

#[test]
fn what_no_protocol_knows_ends_the_connection_with_08p01_in_either_dialect() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let mut client = scene.client();
        client.send_bytes(b"y\0\0\0\x04");
        let said = client.until_closed();
        assert!(said.starts_with("E(FATAL 08P01 "), "{way:?}: {said}");
    }
}

/// Who is in a transaction or a query goes when it has ended. In a login it is 57P03: another pooler may serve it.
#[test]
fn who_is_drained_is_told_so_when_it_has_got_its_answer() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let name = &scene.tenant.name;
        let copy = Batch::new().query("copy trace from stdin");
        let slow = "select 1 from pg_sleep(0.7)";
        for (doing, batch, rest) in [
            ("idle", Batch::new().query("select 1"), Batch::new()),
            ("simple", Batch::new().query(slow), Batch::new()),
            ("extended", Batch::new().run(slow).sync(), Batch::new()),
            (
                "pipelined",
                Batch::new().run("select 1").run(slow).sync(),
                Batch::new(),
            ),
            ("copy", copy, Batch::new().copy_fail("no")),
            (
                "transaction",
                Batch::new().query("begin"),
                Batch::new().query("rollback"),
            ),
        ] {
            let mut client = scene.busy(doing, &batch);
            let mut operator = scene.operator();
            operator.send(&Batch::new().query(&format!("DRAIN {name} WITHIN '20s'")));
            if doing != "idle" {
                eventually(
                    PATIENCE,
                    || scene.try_login(name).err().unwrap_or_default(),
                    |said| {
                        *said
                            == way.closed("57P03", &format!("database \"{name}\" is being drained"))
                    },
                );
            }
            if !rest.as_bytes().is_empty() {
                assert!(client.is_silent_for(Duration::from_millis(200)) || doing == "copy");
                client.send(&rest);
            }
            let said = client.until_closed();
            let farewell = way.closed(
                "57P01",
                "terminating connection due to administrator command",
            );
            assert!(said.ends_with(&farewell), "{doing}, {way:?}: {said}");
            let before = &said[..said.len() - farewell.len()];
            assert!(
                doing == "idle" || before.ends_with("Z(I) "),
                "{doing}, {way:?}: {said}"
            );
            assert_eq!(
                said.matches("Z(").count(),
                usize::from(doing != "idle"),
                "{said}"
            );
            assert_eq!(operator.until_ready().last().map(|m| m.tag), Some(b'Z'));
        }
        scene.serves_again(vec![scene.client()]);
    }
}
