//! Nobody gets a server.

use pgweir_tests::{Batch, story};

use crate::scene::{Scene, WAYS, forms};

#[test]
fn who_waits_in_vain_is_told_so() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("query_wait_timeout", "0.2")) else {
            return;
        };
        let mut holder = scene.client();
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let expected = way.kept("53300", "query_wait_timeout");
        let kept = forms().map(|(form, batch)| scene.hears(form, &batch, &expected));
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
        scene.serves_again(kept.into_iter().flatten().collect());
    }
}

#[test]
fn who_finds_the_queue_full_is_told_so() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("max_pool_waiting", 1)) else {
            return;
        };
        let mut holder = scene.client();
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let mut waiter = scene.client();
        waiter.send(&Batch::new().query("select 'patient'"));
        scene.waits(1);
        let expected = way.kept("53300", "too many clients waiting for a server");
        let kept = forms().map(|(form, batch)| scene.hears(form, &batch, &expected));
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
        assert_eq!(
            story(&waiter.until_ready()),
            "T D(patient) C(SELECT 1) Z(I)"
        );
        scene.serves_again(kept.into_iter().flatten().collect());
    }
}

#[test]
fn who_waits_for_a_paused_database_in_vain_is_told_why() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("query_wait_timeout", "0.2")) else {
            return;
        };
        scene.serves_again(vec![scene.client()]);
        let name = &scene.tenant.name;
        scene.order(&format!("PAUSE {name}"));
        let expected = match way.codes {
            "postgres" => format!("E(57P03 database \"{name}\" is paused) Z(I)"),
            _ => "E(FATAL 08P01 query_wait_timeout)".to_owned(),
        };
        let kept = forms().map(|(form, batch)| scene.hears(form, &batch, &expected));
        scene.order(&format!("RESUME {name}"));
        scene.serves_again(kept.into_iter().flatten().collect());
    }
}

#[test]
fn who_comes_during_maintenance_is_told_what_the_operator_says() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let name = &scene.tenant.name;
        let on = format!("MAINTENANCE ON {name} MODE reject MESSAGE 'back at noon'");
        let expected = way.kept("57P03", "back at noon");
        let mut kept = Vec::new();
        for (form, batch) in forms() {
            let mut client = scene.client();
            scene.order(&on);
            client.send(&batch);
            if expected.ends_with("Z(I)") {
                assert_eq!(story(&client.until_ready()), expected, "{form}, {way:?}");
                kept.push(client);
            } else {
                assert_eq!(client.until_closed(), expected, "{form}, {way:?}");
            }
            let login = scene.try_login(name).expect_err("maintenance");
            assert_eq!(login, way.closed("57P03", "back at noon"), "{way:?}");
            scene.order(&format!("MAINTENANCE OFF {name}"));
        }
        scene.serves_again(kept);
    }
}

/// The rule sheds only those who have waited, so every form waits.
#[test]
fn who_is_shed_is_told_as_one_who_finds_the_queue_full() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| ini.set("query_wait_target", "0.2")) else {
            return;
        };
        let mut holder = scene.client();
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        let expected = way.kept("53300", "too many clients waiting for a server");
        let kept = forms().map(|(form, batch)| scene.hears(form, &batch, &expected));
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
        scene.serves_again(kept.into_iter().flatten().collect());
    }
}
