//! The promise: encryption and certificates work as PgBouncer's do, towards clients and towards PostgreSQL, with the
//! certificates that people have; and they are replaced without anybody being cut off.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use pgweir_tests::{
    Authority, Batch, Begin, Cluster, ClusterOptions, Identity, Ini, Pooler, RawClient, SELECT_1,
    Tenant, TlsWire, console, eventually, start,
};
use rustls::pki_types::CertificateDer;

const PASSWORD: &str = "correct horse";

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
fn certificates_of_version_1_that_only_have_a_common_name_work() {
    let Some(scene) = Scene::new() else { return };
    let Some(old) = old_certificates(&["localhost", &scene.tenant.name]) else {
        pgweir_tests::skip("the openssl command is missing, or makes no certificates of version 1");
        return;
    };
    let ini = scene
        .tenant
        .ini()
        .file("ca.crt", &old.ca)
        .set("client_tls_ca_file", "{dir}/ca.crt")
        .set("client_tls_sslmode", "verify-full")
        .set("auth_type", "cert");
    let ini = old.leaves[0].towards_clients(ini);
    let pooler = start(old.leaves[1].of_client(ini, "mine"));
    let mut endpoint = pooler.endpoint();
    endpoint.host = "localhost".to_owned();
    let conninfo = format!(
        "dbname={} sslmode=verify-full sslrootcert=ca.crt sslcert=mine.crt sslkey=mine.key",
        scene.tenant.name
    );
    let answer = endpoint.psql(&conninfo, &scene.tenant.name, "select 1");
    assert_eq!(
        answer.map_err(|error| error.to_string()),
        Ok("1".to_owned())
    );
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
fn clients_that_vanish_over_tls_leave_nothing_behind() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(
        scene
            .with_certificate()
            .set("client_tls_sslmode", "require")
            .set("server_tls_sslmode", "require")
            .set("default_pool_size", 2),
    );
    let watch = scene.tenant.watch();
    let mut crowd: Vec<RawClient> = (0..10)
        .map(|_| scene.tls_client(&pooler, Begin::Asked))
        .collect();
    for client in &mut crowd {
        client.send(&Batch::new().query("select pg_sleep(20)"));
    }
    assert!(crowd[0].is_silent_for(Duration::from_millis(200)));
    drop(crowd);
    let mut client = scene.tls_client(&pooler, Begin::Asked);
    let asked = Instant::now();
    assert_eq!(client.query("select 1"), SELECT_1);
    assert!(asked.elapsed() < Duration::from_secs(2));
    let seen = watch.end();
    assert!(seen.most <= 2, "{seen:?}");
}

#[test]
fn clients_that_vanish_in_a_handshake_leave_nothing_behind() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(
        scene
            .with_certificate()
            .set("client_tls_sslmode", "require"),
    );
    for round in 0..10 {
        let mut client = RawClient::connect(pooler.port);
        client.send_bytes(&SSL_REQUEST);
        assert_eq!(client.read_byte(), Ok(b'S'));
        if round % 2 == 0 {
            // The beginning of a handshake record.
            client.send_bytes(&[0x16, 3, 1, 2, 0, 1]);
        }
    }
    drop(scene.tls_client(&pooler, Begin::Asked));
    eventually(
        Duration::from_secs(2),
        || pooler.console("show clients").rows.len(),
        |count| *count == 1,
    );
    let log = pooler.log();
    assert!(!log.contains("unexpected eof while reading"), "{log}");
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

#[test]
fn reload_takes_a_new_certificate_and_cuts_nobody_off() {
    let Some(scene) = Scene::new() else { return };
    let ini = scene
        .with_certificate()
        .set("client_tls_sslmode", "require")
        // Where PostgreSQL is just being asked for its limits, a larger pool would open another server.
        .set("default_pool_size", 1);
    let pooler = start(ini.clone());
    let mut early = scene.tls_client(&pooler, Begin::Asked);
    assert_eq!(early.query("begin"), "C(BEGIN) Z(T)");
    let server = early.value("select pg_backend_pid()");
    let before = scene.certificate_of(&pooler);

    let renewed = scene
        .authority
        .leaf("localhost", &["localhost", "127.0.0.1"]);
    pooler
        .reload(renewed.towards_clients(ini.clone()))
        .expect("RELOAD");

    let after = scene.certificate_of(&pooler);
    assert_ne!(before, after);
    assert_eq!(after, renewed.der);
    assert_eq!(early.query("commit"), "C(COMMIT) Z(I)");
    assert_eq!(early.value("select pg_backend_pid()"), server);
    assert_eq!(scene.tenant.backends(), 1);

    // One of two files was replaced: what works goes on.
    let half = renewed
        .towards_clients(ini.clone())
        .file("server.key", &scene.leaf.key);
    assert!(pooler.reload(half).is_err());
    assert_eq!(scene.certificate_of(&pooler), after);
    assert_eq!(early.query("select 1"), SELECT_1);

    pooler.reload(ini).expect("RELOAD");
    assert_eq!(scene.certificate_of(&pooler), before);
    assert_eq!(early.query("select 1"), SELECT_1);
}

#[test]
fn a_renewed_certificate_is_used_without_a_reload() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(
        scene
            .with_certificate()
            .set("client_tls_sslmode", "require"),
    );
    let mut early = scene.tls_client(&pooler, Begin::Asked);
    let before = scene.certificate_of(&pooler);
    let renewed = scene
        .authority
        .leaf("localhost", &["localhost", "127.0.0.1"]);

    // Half renewed: what works goes on, and that is told once.
    rewrite(&pooler, "server.crt", &renewed.cert);
    let log = eventually(
        Duration::from_secs(5),
        || pooler.log(),
        |log| log.contains("those before stay in force"),
    );
    assert!(log.contains("those before stay in force"), "{log}");
    assert_eq!(scene.certificate_of(&pooler), before);

    rewrite(&pooler, "server.key", &renewed.key);
    let shown = eventually(
        Duration::from_secs(5),
        || scene.certificate_of(&pooler),
        |shown| *shown == renewed.der,
    );
    assert_eq!(shown, renewed.der);
    let log = pooler.log();
    assert_eq!(log.matches("stay in force").count(), 1, "{log}");
    assert_eq!(early.query("select 1"), SELECT_1);
}

#[test]
fn tls_towards_clients_can_be_turned_on_by_set() {
    let Some(scene) = Scene::new() else { return };
    let pooler = start(scene.authority_file(scene.tenant.ini()));
    let mut operator = console(&pooler);
    let dir = pooler.socket_dir.display().to_string();
    for (name, text) in [
        ("server.crt", &scene.leaf.cert),
        ("server.key", &scene.leaf.key),
    ] {
        let path = pooler.socket_dir.join(name);
        fs::write(&path, text).expect("root, or the same user");
        give(&path, &pooler);
    }
    let incomplete = operator.query("set client_tls_sslmode = 'require'");
    assert_eq!(
        incomplete,
        "N(00000 TLS settings could not be applied, still using old configuration) \
         C(SET client_tls_sslmode=require) Z(I)"
    );
    operator.query(&format!("set client_tls_key_file = '{dir}/server.key'"));
    let complete = operator.query(&format!("set client_tls_cert_file = '{dir}/server.crt'"));
    assert!(complete.starts_with("C(SET "), "{complete}");
    assert_eq!(
        scene.psql(&pooler, "sslmode=verify-full sslrootcert=ca.crt"),
        Ok("1".to_owned())
    );
    assert!(scene.psql(&pooler, "sslmode=disable").is_err());
}

#[test]
fn every_mode_towards_postgresql_does_what_it_says() {
    let Some(scene) = Scene::new() else { return };
    for (mode, encrypted) in [
        ("disable", "f"),
        ("allow", "t"),
        ("prefer", "t"),
        ("require", "t"),
        ("verify-ca", "t"),
        ("verify-full", "t"),
    ] {
        let pooler = start(
            scene
                .authority_file(scene.tenant.ini())
                .set("server_tls_sslmode", mode)
                .set("server_tls_ca_file", "{dir}/ca.crt"),
        );
        let mut client = scene.tenant.client(&pooler);
        assert_eq!(client.value(IS_ENCRYPTED), encrypted, "{mode}");
        let servers = console(&pooler).table("show servers");
        let tls = servers.iter().next().and_then(|server| server.get("tls"));
        assert_eq!(
            tls.is_some_and(|tls| tls.starts_with("TLSv1.3/")),
            encrypted == "t"
        );
    }
}

#[test]
fn a_postgresql_that_cannot_be_verified_is_not_used() {
    let Some(scene) = Scene::new() else { return };
    let stranger = Authority::new("stranger");
    let ini = scene
        .tenant
        .ini()
        .file("ca.crt", &stranger.pem())
        .set("server_tls_sslmode", "verify-full")
        .set("server_tls_ca_file", "{dir}/ca.crt")
        // Without being told it would not be tried again in time.
        .set("server_login_retry", 30)
        .set("query_wait_timeout", 60);
    let pooler = start(ini);
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[
        ("user", &scene.tenant.name),
        ("database", &scene.tenant.name),
    ]);
    assert!(
        client.is_silent_for(Duration::from_millis(1200)),
        "it waits"
    );
    assert!(
        pooler.log().contains("certificate verify failed"),
        "{}",
        pooler.log()
    );

    // The file counts as soon as it is another one.
    rewrite(&pooler, "ca.crt", &scene.authority.pem());
    assert_eq!(client.finish_login(), Ok(()));
    assert_eq!(client.value(IS_ENCRYPTED), "t");
}

#[test]
fn a_postgresql_without_tls_is_refused_where_tls_is_required() {
    let Some(tenant) = Tenant::new() else { return };
    for (mode, works) in [("prefer", true), ("require", false)] {
        let pooler = start(
            tenant
                .ini()
                .set("server_tls_sslmode", mode)
                .set("server_login_retry", 1)
                .set("query_wait_timeout", 1),
        );
        let parameters = [("user", &*tenant.name), ("database", &*tenant.name)];
        let login = RawClient::try_login(pooler.port, &parameters);
        assert_eq!(login.is_ok(), works, "{mode}");
        assert_eq!(pooler.log().contains("server refused SSL"), !works);
    }
}

#[test]
fn the_pooler_shows_postgresql_its_own_certificate() {
    let Some(scene) = Scene::new() else { return };
    let name = &scene.tenant.name;
    scene
        .tenant
        .root()
        .rows(&format!("grant wants_cert to {name}"));
    let ini = scene
        .tenant
        .ini()
        .set("server_tls_sslmode", "require")
        .set("server_tls_cert_file", "{dir}/me.crt")
        .set("server_tls_key_file", "{dir}/me.key");
    let pooler = start(scene.authority.leaf(name, &[]).of_client(ini.clone(), "me"));
    assert_eq!(scene.tenant.client(&pooler).value(IS_ENCRYPTED), "t");

    let wrong = scene.authority.leaf("somebody", &[]).of_client(ini, "me");
    let pooler = start(wrong);
    let parameters = [("user", &**name), ("database", &**name)];
    let said = RawClient::try_login(pooler.port, &parameters).map(|_| ());
    assert!(
        matches!(&said, Err(text) if text.contains("certificate authentication failed")),
        "{said:?}"
    );
}

#[test]
fn scram_towards_postgresql_is_bound_to_the_channel() {
    let Some(scene) = Scene::new() else { return };
    let name = &scene.tenant.name;
    let secret = scene.scram_secret();
    scene
        .tenant
        .root()
        .rows(&format!("grant wants_scram to {name}"));
    for (secret, auth_type) in [(PASSWORD, "plain"), (&*secret, "scram-sha-256")] {
        let pooler = start(
            scene
                .with_certificate()
                .file("userlist.txt", &format!("\"{name}\" \"{secret}\"\n"))
                .set("auth_type", auth_type)
                .set("client_tls_sslmode", "require")
                .set("server_tls_sslmode", "require"),
        );
        let answer = scene.psql(&pooler, &format!("password='{PASSWORD}' sslmode=require"));
        assert_eq!(answer, Ok("1".to_owned()), "{auth_type}");
    }
}

#[test]
fn servers_are_replaced_when_their_encryption_changes_and_only_then() {
    let Some(scene) = Scene::new() else { return };
    let ini = scene.tenant.ini().set("default_pool_size", 1);
    let pooler = start(ini.clone().set("server_tls_sslmode", "disable"));
    let mut client = scene.tenant.client(&pooler);
    let first = client.value(PID);
    pooler
        .reload(ini.clone().set("server_tls_sslmode", "disable"))
        .expect("RELOAD");
    assert_eq!(client.value(PID), first);

    pooler
        .reload(ini.set("server_tls_sslmode", "require"))
        .expect("RELOAD");
    assert_ne!(client.value(PID), first);
    assert_eq!(client.value(IS_ENCRYPTED), "t");
}

const PID: &str = "select pg_backend_pid()";
const IS_ENCRYPTED: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

struct Scene {
    tenant: Tenant,
    authority: &'static Authority,
    /// What the pooler shows its clients.
    leaf: Identity,
}

impl Scene {
    fn new() -> Option<Self> {
        let (postgres, authority) = tls_postgres()?;
        Some(Self {
            tenant: Tenant::of(postgres),
            authority,
            leaf: authority.leaf("localhost", &["localhost", "127.0.0.1"]),
        })
    }

    fn authority_file(&self, ini: Ini) -> Ini {
        ini.file("ca.crt", &self.authority.pem())
    }

    fn with_certificate(&self) -> Ini {
        let ini = self.authority_file(self.tenant.ini());
        self.leaf.towards_clients(ini)
    }

    fn psql(&self, pooler: &Pooler, conninfo: &str) -> Result<String, String> {
        let name = &self.tenant.name;
        pooler
            .try_psql(&format!("dbname={name} {conninfo}"), name, "select 1")
            .map_err(|error| error.to_string())
    }

    /// What PostgreSQL stores for the tenant's password.
    fn scram_secret(&self) -> String {
        let mut root = self.tenant.root();
        let name = &self.tenant.name;
        root.rows(&format!("alter role {name} password '{PASSWORD}'"));
        root.value(&format!(
            "select rolpassword from pg_authid where rolname = '{name}'"
        ))
    }

    fn tls_client(&self, pooler: &Pooler, begin: Begin) -> RawClient {
        let wire = self.tls_wire(pooler, begin);
        let mut client = RawClient::on(Box::new(wire), pooler.port).expect("a socket");
        client.start_login(&[("user", &self.tenant.name), ("database", &self.tenant.name)]);
        assert_eq!(client.finish_login(), Ok(()));
        client
    }

    /// The certificate that a new client is shown.
    fn certificate_of(&self, pooler: &Pooler) -> CertificateDer<'static> {
        self.tls_wire(pooler, Begin::Asked).peer_certificate()
    }

    fn tls_wire(&self, pooler: &Pooler, begin: Begin) -> TlsWire {
        TlsWire::connect(pooler.port, &self.authority.der, begin)
    }
}

/// Replaces one of the files that the pooler was started with.
fn rewrite(pooler: &Pooler, name: &str, text: &str) {
    let path = pooler.ini_path().with_file_name(name);
    std::fs::write(path, text).expect("it is written");
}

fn console_over_tls(scene: &Scene, pooler: &Pooler) -> RawClient {
    let wire = scene.tls_wire(pooler, Begin::Asked);
    let mut client = RawClient::on(Box::new(wire), pooler.port).expect("a socket");
    client.start_login(&[("user", "postgres"), ("database", "pgbouncer")]);
    assert_eq!(client.finish_login(), Ok(()));
    client
}

/// The PostgreSQL with TLS that the tests of this file share, and who signed its certificate.
fn tls_postgres() -> Option<(&'static Cluster, &'static Authority)> {
    static SHARED: OnceLock<Option<(Cluster, Authority)>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        let authority = Authority::new("authority");
        let leaf = authority.leaf("postgresql", &["localhost", "127.0.0.1"]);
        let postgres = Cluster::start_or_skip(ClusterOptions {
            hba: vec![
                "hostssl all +wants_cert 127.0.0.1/32 cert".to_owned(),
                "host all +wants_scram 127.0.0.1/32 scram-sha-256".to_owned(),
            ],
            tls: Some(leaf.of_postgresql(&authority)),
            ..ClusterOptions::default()
        })?;
        postgres.psql("postgres", "create role wants_cert");
        postgres.psql("postgres", "create role wants_scram");
        Some((postgres, authority))
    });
    shared
        .as_ref()
        .map(|(postgres, authority)| (postgres, authority))
}

/// Certificates as the openssl command makes them when it is asked for nothing special: version 1, no names but the
/// common one. Many private authorities have made theirs so.
struct OldCertificates {
    ca: String,
    leaves: Vec<Identity>,
}

fn old_certificates(common_names: &[&str]) -> Option<OldCertificates> {
    let dir = tempfile::tempdir().expect("a directory");
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(dir.path());
        command
            .output()
            .ok()
            .filter(|output| output.status.success())
    };
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).ok();
    openssl("ecparam -name prime256v1 -genkey -noout -out ca.key")?;
    openssl("req -new -x509 -key ca.key -subj /CN=OldAuthority -days 30 -out ca.crt")?;
    let mut leaves = Vec::new();
    for name in common_names {
        openssl("ecparam -name prime256v1 -genkey -noout -out leaf.key")?;
        openssl(&format!(
            "req -new -key leaf.key -subj /CN={name} -out leaf.csr"
        ))?;
        openssl(
            "x509 -req -in leaf.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out leaf.crt",
        )?;
        let shown = openssl("x509 -in leaf.crt -noout -text")?;
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        if !text.contains("Version: 1 ") {
            return None;
        }
        leaves.push(Identity {
            der: CertificateDer::from(Vec::new()),
            cert: read("leaf.crt")?,
            key: read("leaf.key")?,
        });
    }
    Some(OldCertificates {
        ca: read("ca.crt")?,
        leaves,
    })
}

/// Hands a file over to the user that the pooler runs as.
fn give(path: &Path, pooler: &Pooler) {
    if let pgweir_tests::Account::Unprivileged { uid, gid } = pooler.endpoint().account {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("root may");
    }
}
