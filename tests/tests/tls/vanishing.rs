//! Clients that are gone without a word.

use std::time::{Duration, Instant};

use pgweir_tests::{Batch, Begin, RawClient, SELECT_1, eventually, start};

use super::{SSL_REQUEST, scene::Scene};

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
