//! PostgreSQL is not there, has no connection to spare, or goes away in the middle of something.

use std::{
    fs,
    os::unix::fs::symlink,
    time::{Duration, Instant},
};

use pgweir_tests::{Batch, Ini, Strait, eventually, shared_postgres, story};

use crate::scene::{PATIENCE, Scene, WAYS, doings, forms};

/// `query_wait_timeout` of these tests.
const WAIT: Duration = Duration::from_millis(400);

fn impatient(ini: Ini) -> Ini {
    ini.set("query_wait_timeout", WAIT.as_secs_f64())
        .set("server_login_retry", 1)
}

/// A limit of PostgreSQL's own is like any other: whoever comes waits for it, and is told of it when the wait is over.
#[test]
fn who_waits_for_a_connection_that_postgresql_does_not_give_is_told_what_it_says() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, impatient) else {
            return;
        };
        let name = scene.tenant.name.clone();
        scene.serves_again(vec![scene.client()]);
        for (object, says) in [
            ("role", "too many connections for role"),
            ("database", "too many connections for database"),
        ] {
            let mut root = scene.tenant.root();
            root.rows(&format!("alter {object} {name} connection limit 0"));
            scene.lose_servers();
            let expected = way.kept("53300", "query_wait_timeout");
            let mut kept = Vec::new();
            for (form, batch) in forms() {
                let mut client = scene.client();
                let asked = Instant::now();
                client.send(&batch);
                let answer = client.until_ready();
                let waited = asked.elapsed();
                assert_eq!(story(&answer), expected, "{form}, {way:?}");
                assert!(waited >= WAIT, "{form} was refused after {waited:?}");
                if way.codes == "postgres" {
                    let (detail, _) = answer[0].explanation();
                    let said = detail.contains(&format!("{says} \"{name}\""));
                    assert!(said, "{form}, {way:?}: {detail}");
                    kept.push(client);
                }
            }
            // Who still waits when there is a connection gets it.
            let mut patient = scene.client();
            patient.send(&Batch::new().query("select 'served'"));
            root.rows(&format!("alter {object} {name} connection limit -1"));
            let served = "T D(served) C(SELECT 1) Z(I)";
            let answer = story(&patient.until_ready());
            if answer != served {
                assert_eq!(answer, expected, "{way:?}");
            }
            eventually(
                PATIENCE,
                || scene.client().query("select 'served'"),
                |answer| answer == served,
            );
            scene.serves_again(kept);
        }
    }
}

/// Nobody has been greeted yet: a client in login waits as one with a query does.
#[test]
fn a_login_for_which_postgresql_has_no_connection_waits_and_is_told_so() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, impatient) else {
            return;
        };
        let name = &scene.tenant.name;
        let mut root = scene.tenant.root();
        root.rows(&format!("alter role {name} connection limit 0"));
        let asked = Instant::now();
        let said = scene.try_login(name).expect_err("there is no connection");
        assert_eq!(said, way.closed("53300", "query_wait_timeout"), "{way:?}");
        assert!(asked.elapsed() >= WAIT, "{way:?}");
        root.rows(&format!("alter role {name} connection limit -1"));
        eventually(PATIENCE, || scene.try_login(name).is_ok(), |is_in| *is_in);
        scene.serves_again(vec![scene.client()]);
    }
}

/// In the dialect of PgBouncer there is no `server_down_timeout`: who waits goes on waiting, and who comes while the
/// last attempt has failed is told of it.
#[test]
fn who_comes_while_postgresql_is_down_is_told_so() {
    for way in WAYS {
        let Some(postgres) = shared_postgres() else {
            return;
        };
        let down_timeout = |ini: Ini| {
            let over_a_link = format!("host={{dir}}/link port={}", postgres.port());
            impatient(ini.database("*", &over_a_link))
                .set("server_login_retry", 60)
                .set("server_down_timeout", 1)
        };
        let Some(scene) = Scene::new(way, down_timeout) else {
            return;
        };
        let name = &scene.tenant.name;
        let link = scene.pooler.ini_path().with_file_name("link");
        symlink(postgres.socket_dir(), &link).expect("a link");
        scene.serves_again(vec![scene.client()]);
        let mut clients: Vec<_> = forms().iter().map(|_| scene.client()).collect();
        // It leads nowhere.
        fs::remove_file(&link).expect("it was there");
        scene.lose_servers();
        let text =
            "server login has been failing, cached error: connect failed (server_login_retry)";
        let mut first = scene.client();
        eventually(
            PATIENCE,
            || {
                let said = first.query("select 1");
                if !said.ends_with("Z(I)") {
                    first = scene.client();
                }
                said
            },
            |said| said.contains(text),
        );
        let expected = way.kept("57P03", text);
        for ((form, batch), client) in forms().iter().zip(&mut clients) {
            client.send(batch);
            let said = match way.codes {
                "postgres" => story(&client.until_ready()),
                _ => client.until_closed(),
            };
            assert_eq!(said, expected, "{form}, {way:?}");
        }
        // A login is let in by PgBouncer, because the pool has had a server.
        match way.codes {
            "postgres" => {
                let refused = way.closed("57P03", text);
                eventually(
                    PATIENCE,
                    || scene.try_login(name).err().unwrap_or_default(),
                    |said| *said == refused,
                );
            }
            _ => assert!(scene.try_login(name).is_ok(), "{way:?}"),
        }
        if way.codes == "pgbouncer" {
            clients.clear();
        }
        symlink(postgres.socket_dir(), &link).expect("a link");
        scene.pooler.reload(scene.ini.clone()).expect("RELOAD");
        eventually(PATIENCE, || scene.try_login(name).is_ok(), |is_in| *is_in);
        scene.serves_again(clients);
    }
}

/// Idle and in login nothing is lost with a server: see `what_postgresql_says_at_its_end_is_said_once`.
#[test]
fn who_loses_its_server_without_a_word_is_told_once() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let name = &scene.tenant.name;
        let strait = Strait::to(scene.tenant.postgres.port());
        let target = format!("host=127.0.0.1 port={} dbname={name}", strait.port);
        let through = scene.ini.clone().database(name, &target);
        scene.pooler.reload(through).expect("RELOAD");
        scene.serves_again(vec![scene.client()]);
        for (doing, batch, _) in doings() {
            let mut client = scene.busy(doing, &batch);
            strait.cut();
            let code = match doing {
                "idle" => {
                    let said = client.query("select 1");
                    assert_eq!(said, "T D(1) C(SELECT 1) Z(I)", "{way:?}");
                    continue;
                }
                // Its data may all have arrived.
                "copy" => "08007",
                // Nothing that could have been committed.
                _ => "08006",
            };
            if doing == "transaction" || doing == "copy" {
                client.send(&Batch::new().copy_data(b"more\n").query("select 1"));
            }
            let expected = way.closed(code, "server conn crashed?");
            scene.is_sent_away(doing, client, &expected);
            // PostgreSQL notices when it writes.
            scene.lose_servers();
        }
        scene.serves_again(vec![scene.client()]);
    }
}
