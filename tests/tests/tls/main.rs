//! The promise: encryption and certificates work as PgBouncer's do, towards clients and towards PostgreSQL, with the
//! certificates that people have; and they are replaced without anybody being cut off.

mod certificates;
mod scene;
mod servers;
mod vanishing;

use std::time::Duration;

use pgweir_tests::{Authority, Batch, Begin, RawClient, SELECT_1, start};
use scene::{PASSWORD, Scene, console_over_tls};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[test]
fn every_mode_towards_clients_lets_the_right_ones_in() {
    let Some(scene) = Scene::new() else { return };
    for (mode, plain, encrypted) in [
        ("disable", true, false),
        ("allow", true, true),
        ("prefer", true, true),
        ("require", false, true),
    ] {
        let pooler = start(scene.with_certificate().set("client_tls_sslmode", mode));
        let without = scene.psql(&pooler, "sslmode=disable");
        assert_eq!(without.is_ok(), plain, "{mode}: {without:?}");
        if let Err(error) = without {
            assert!(error.contains("SSL required"), "{error}");
        }
        let with = scene.psql(&pooler, "sslmode=require");
        assert_eq!(with.is_ok(), encrypted, "{mode}: {with:?}");
        assert!(scene.psql(&pooler, "sslmode=prefer").is_ok(), "{mode}");
        assert_eq!(
            pooler.log().contains("tls=TLSv1.3/TLS_"),
            encrypted,
            "{mode}"
        );
        let unix = pooler
            .unix_endpoint()
            .psql(&scene.tenant.name, &scene.tenant.name, "select 1");
        assert!(unix.is_ok(), "Unix sockets need no TLS: {unix:?}");
    }
}

#[test]
fn clients_can_verify_the_pooler() {
    let Some(scene) = Scene::new() else { return };
    let stranger = Authority::new("stranger");
    let ini = scene
        .with_certificate()
        .set("client_tls_sslmode", "require")
        .file("stranger.crt", &stranger.pem());
    let pooler = start(ini.clone());
    for verify in ["verify-ca", "verify-full"] {
        let with_root =
            |root: &str| scene.psql(&pooler, &format!("sslmode={verify} sslrootcert={root}"));
        assert_eq!(with_root("ca.crt"), Ok("1".to_owned()));
        let refused = with_root("stranger.crt").expect_err("another authority");
        assert!(refused.contains("certificate verify failed"), "{refused}");
    }

    let elsewhere = scene.authority.leaf("elsewhere", &["elsewhere.example"]);
    let pooler = start(elsewhere.towards_clients(ini));
    let root = "sslrootcert=ca.crt";
    assert!(
        scene
            .psql(&pooler, &format!("sslmode=verify-ca {root}"))
            .is_ok()
    );
    assert!(
        scene
            .psql(&pooler, &format!("sslmode=verify-full {root}"))
            .is_err()
    );
}

#[test]
fn a_certificate_of_the_client_says_who_it_is() {
    let Some(scene) = Scene::new() else { return };
    let name = &scene.tenant.name;
    let stranger = Authority::new("stranger");
    let ini = scene
        .with_certificate()
        .set("client_tls_sslmode", "verify-full")
        .set("client_tls_ca_file", "{dir}/ca.crt")
        .set("auth_type", "cert");
    let ini = scene.authority.leaf(name, &[]).of_client(ini, "mine");
    let ini = scene.authority.leaf("other", &[]).of_client(ini, "other");
    let ini = stranger.leaf(name, &[]).of_client(ini, "strange");
    let pooler = start(ini);
    let with = |whose: &str| {
        scene.psql(
            &pooler,
            &format!("sslmode=require sslcert={whose}.crt sslkey={whose}.key"),
        )
    };
    assert_eq!(with("mine"), Ok("1".to_owned()));
    let refused = "certificate authentication failed";
    let other = with("other").expect_err("another name");
    assert!(other.contains(refused), "{other}");
    assert!(pooler.log().contains("TLS certificate name mismatch"));
    assert!(with("strange").is_err(), "another authority");
    assert!(
        scene.psql(&pooler, "sslmode=require").is_err(),
        "no certificate"
    );
    assert!(scene.psql(&pooler, "sslmode=disable").is_err(), "no TLS");
}

#[test]
fn a_user_can_be_among_the_alternative_names_but_stars_are_nobody() {
    let Some(scene) = Scene::new() else { return };
    let name = &scene.tenant.name;
    let ini = scene
        .with_certificate()
        .set("client_tls_sslmode", "verify-full")
        .set("client_tls_ca_file", "{dir}/ca.crt")
        .set("auth_type", "cert")
        .file(
            "userlist.txt",
            &format!("\"{name}\" \"\"\n\"a.example.com\" \"\"\n"),
        );
    let leaf = |common_name: &str, names: &[&str]| scene.authority.leaf(common_name, names);
    let ini = leaf("x", &["y.example", name]).of_client(ini, "alternative");
    let ini = leaf(&name.to_uppercase(), &[]).of_client(ini, "loud");
    let ini = leaf("*.example.com", &["*.example.com"]).of_client(ini, "star");
    let pooler = start(ini);
    let login = |whose: &str, user: &str| {
        let tls = format!("sslmode=require sslcert={whose}.crt sslkey={whose}.key");
        let conninfo = format!("dbname={name} {tls}");
        let answer = pooler.try_psql(&conninfo, user, "select 1");
        answer.map_err(|error| error.to_string())
    };
    assert_eq!(login("alternative", name), Ok("1".to_owned()));
    for (whose, user) in [("loud", &**name), ("star", "a.example.com")] {
        let refused = login(whose, user).expect_err("another name");
        assert!(
            refused.contains("certificate authentication failed"),
            "{refused}"
        );
    }
}

#[test]
fn hba_rules_know_encryption_and_map_certificates() {
    let Some(scene) = Scene::new() else { return };
    let name = &scene.tenant.name;
    let ini = scene
        .with_certificate()
        .set("client_tls_sslmode", "prefer")
        .set("client_tls_ca_file", "{dir}/ca.crt")
        .set("auth_type", "hba")
        .set("auth_hba_file", "{dir}/hba.conf")
        .set("auth_ident_file", "{dir}/ident.conf")
        .file(
            "hba.conf",
            "hostssl all all 127.0.0.1/32 cert map=staff\nhostnossl all all 127.0.0.1/32 reject\n",
        )
        .file("ident.conf", &format!("staff robot {name}\n"));
    let ini = scene.authority.leaf("robot", &[]).of_client(ini, "robot");
    let ini = scene.authority.leaf(name, &[]).of_client(ini, "mine");
    let pooler = start(ini);
    let with = |whose: &str| {
        scene.psql(
            &pooler,
            &format!("sslmode=require sslcert={whose}.crt sslkey={whose}.key"),
        )
    };
    assert_eq!(with("robot"), Ok("1".to_owned()));
    assert!(with("mine").is_err(), "the map does not name it");
    let plain = scene
        .psql(&pooler, "sslmode=disable")
        .expect_err("rejected");
    assert!(plain.contains("login rejected"), "{plain}");
}

#[test]
fn scram_is_bound_to_the_channel() {
    let Some(scene) = Scene::new() else { return };
    let secrets = [PASSWORD.to_owned(), scene.scram_secret()];
    for secret in secrets {
        let line = format!("\"{}\" \"{secret}\"\n", scene.tenant.name);
        let pooler = start(
            scene
                .with_certificate()
                .file("userlist.txt", &line)
                .set("client_tls_sslmode", "allow")
                .set("auth_type", "scram-sha-256"),
        );
        let with = |more: &str| scene.psql(&pooler, &format!("password='{PASSWORD}' {more}"));
        assert_eq!(
            with("sslmode=require channel_binding=require"),
            Ok("1".to_owned())
        );
        assert_eq!(
            with("sslmode=require channel_binding=disable"),
            Ok("1".to_owned())
        );
        assert_eq!(
            with("sslmode=disable channel_binding=prefer"),
            Ok("1".to_owned())
        );
        let wrong = "password=wrong sslmode=require channel_binding=require";
        assert!(scene.psql(&pooler, wrong).is_err());
    }
}

#[test]
fn tls_may_begin_with_the_first_byte() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(
        scene
            .with_certificate()
            .set("client_tls_sslmode", "require"),
    );
    let mut client = scene.tls_client(&pooler, Begin::Direct);
    assert_eq!(client.query("select 1"), SELECT_1);
    let clients = console_over_tls(&scene, &pooler).table("show clients");
    let shown = clients.find("database", &scene.tenant.name).expect("a row");
    assert!(
        shown
            .get("tls")
            .is_some_and(|tls| tls.starts_with("TLSv1.3/")),
        "{clients}"
    );
}

#[test]
fn a_direct_hello_may_come_in_pieces() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(
        scene
            .with_certificate()
            .set("client_tls_sslmode", "require"),
    );
    let mut client = scene.tls_client(&pooler, Begin::DirectInPieces);
    assert_eq!(client.query("select 1"), SELECT_1);
}

#[test]
fn plain_bytes_behind_a_request_for_encryption_end_the_connection() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(scene.with_certificate().set("client_tls_sslmode", "allow"));
    let mut client = RawClient::connect(pooler.port);
    let mut bytes = SSL_REQUEST.to_vec();
    bytes.extend(b"smuggled");
    client.send_bytes(&bytes);
    assert_eq!(
        client.until_end().0,
        "E(FATAL 08P01 received unencrypted data after SSL request)"
    );
}

#[test]
fn much_passes_through_tls_in_both_directions() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(
        scene
            .with_certificate()
            .set("client_tls_sslmode", "require")
            .set("server_tls_sslmode", "require"),
    );
    let mut client = scene.tls_client(&pooler, Begin::Asked);
    let value = "v".repeat(20_000_000);
    client.send(&Batch::new().query(&format!("select '{value}'")));
    let answer = client.until_ready();
    assert_eq!(answer.len(), 4);
    assert_eq!(answer[1].values(), [value]);
    assert_eq!(client.query("select 1"), SELECT_1);
}

#[test]
fn waiting_and_canceling_work_over_tls() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(
        scene
            .with_certificate()
            .set("client_tls_sslmode", "require")
            .set("server_tls_sslmode", "require")
            .set("default_pool_size", 1),
    );
    let mut working = scene.tls_client(&pooler, Begin::Asked);
    let mut waiting = scene.tls_client(&pooler, Begin::Asked);
    working.send(&Batch::new().query("select pg_sleep(20)"));
    assert!(working.is_silent_for(Duration::from_millis(200)));
    waiting.send(&Batch::new().query("select 1"));
    // libpq 15 sends its cancels in clear text, whatever the server demands.
    working.cancel();
    let canceled = pgweir_tests::story(&working.until_ready());
    assert!(
        canceled.ends_with("E(57014 canceling statement due to user request) Z(I)"),
        "{canceled}"
    );
    assert_eq!(pgweir_tests::story(&waiting.until_ready()), SELECT_1);
}

#[test]
fn versions_and_suites_can_be_chosen() {
    let Some(scene) = Scene::new() else { return };
    let ini = scene
        .with_certificate()
        .set("client_tls_sslmode", "require");
    for (key, value, logged) in [
        ("client_tls_protocols", "tlsv1.2", "tls=TLSv1.2/"),
        ("client_tls_protocols", "tlsv1.3", "tls=TLSv1.3/"),
        (
            "client_tls13_ciphers",
            "TLS_CHACHA20_POLY1305_SHA256",
            "tls=TLSv1.3/TLS_CHACHA20_POLY1305_SHA256",
        ),
        (
            "client_tls13_ciphers",
            "TLS_AES_128_GCM_SHA256",
            "tls=TLSv1.3/TLS_AES_128_GCM_SHA256",
        ),
    ] {
        let pooler = start(ini.clone().set(key, value));
        assert_eq!(scene.psql(&pooler, "sslmode=require"), Ok("1".to_owned()));
        assert!(pooler.log().contains(logged), "{}", pooler.log());
    }
}
