//! Towards PostgreSQL.

use std::time::Duration;

use pgweir_tests::{Authority, RawClient, Tenant, console, start};

use super::scene::{IS_ENCRYPTED, PASSWORD, PID, Scene, rewrite};

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
