//! Who is not let in.

use pgweir_tests::{Batch, Ini};

use crate::scene::{Scene, WAYS};

#[test]
fn who_is_not_let_in_is_told_why() {
    for way in WAYS {
        let limited = |ini: Ini| {
            ini.set("max_user_client_connections", 1)
                .set("client_login_timeout", 1)
        };
        let Some(scene) = Scene::new(way, limited) else {
            return;
        };
        let name = &scene.tenant.name;
        let missing = scene.try_login("nowhere").expect_err("no such database");
        // The configuration has a template, so it is PostgreSQL that does not know it.
        let expected = "E(FATAL 3D000 database \"nowhere\" does not exist)";
        assert_eq!(missing, expected, "{way:?}");
        let mut slow = scene.connect();
        slow.send_bytes(&[0, 0, 0]);
        assert_eq!(
            slow.until_closed(),
            way.closed("57014", "client_login_timeout")
        );
        let _first = scene.client();
        let second = scene.try_login(name).expect_err("one is allowed");
        let text = "client connections exceeded (max_user_client_connections)";
        assert_eq!(second, way.closed("53300", text), "{way:?}");

        let Some(scene) = Scene::new(way, |ini| ini) else {
            return;
        };
        let mut holder = scene.client();
        assert_eq!(holder.query("begin"), "C(BEGIN) Z(T)");
        scene.order(&format!("DISABLE {}", scene.tenant.name));
        let disabled = scene
            .try_login(&scene.tenant.name)
            .expect_err("it is disabled");
        let text = format!("database \"{}\" is disabled", scene.tenant.name);
        assert_eq!(disabled, way.closed("57P03", &text));
        assert_eq!(holder.query("commit"), "C(COMMIT) Z(I)");
    }
}

#[test]
fn who_proves_nothing_is_told_as_little_as_postgresql_tells() {
    for way in WAYS {
        let Some(scene) = Scene::new(way, |ini| {
            let users = "\"postgres\" \"right\"\n\"someone\" \"right\"\n";
            ini.set("auth_type", "plain").file("userlist.txt", users)
        }) else {
            return;
        };
        let expected = way.closed("28P01", "password authentication failed");
        for user in ["someone", "nobody"] {
            let mut client = scene.connect();
            client.start_login(&[("user", user), ("database", &scene.tenant.name)]);
            client.finish_login().expect_err("it asks for a password");
            client.send(&Batch::new().password(b"wrong\0"));
            assert_eq!(client.until_closed(), expected, "{user}, {way:?}");
        }

        let Some(scene) = Scene::new(way, |ini| {
            ini.set("auth_type", "hba")
                .set("auth_hba_file", "hba")
                .file(
                    "hba",
                    "host all postgres all trust\nhost all all all reject\n",
                )
        }) else {
            return;
        };
        let rejected = scene
            .try_login(&scene.tenant.name)
            .expect_err("it is rejected");
        assert_eq!(rejected, way.closed("28000", "login rejected"), "{way:?}");
    }
}
