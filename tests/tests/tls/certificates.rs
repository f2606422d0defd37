//! Certificates that are replaced, and old ones.

use std::{fs, path::Path, process::Command, time::Duration};

use pgweir_tests::{Begin, Identity, Pooler, SELECT_1, console, eventually, start};
use rustls::pki_types::CertificateDer;

use super::scene::{Scene, rewrite};

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
