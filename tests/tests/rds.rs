//! The promise: with the cargo feature `rds` the pooler makes tokens of Amazon RDS by itself, for each login and the host
//! that it is at, and tells them to no server that has not been verified; and a build without it says so.
//!
//! PostgreSQL is played: RDS alone can check such a token. What is checked here is what reaches it; the signature is
//! held against published examples where it is made.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use pgweir_tests::{Ini, Pooler, RawClient, Service, Tenant, eventually, self_signed_tls, skip};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const SOON: Duration = Duration::from_secs(10);

const KEY: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
    ("AWS_SECRET_ACCESS_KEY", "hunter2"),
];

/// Nothing if this pgweir has been built without it.
#[track_caller]
fn start(env: &[(&str, &str)], ini: Ini) -> Option<Pooler> {
    match Pooler::start_with_env(env, ini) {
        Ok(pooler) if !pooler.log().contains("--features rds") => Some(pooler),
        Err(error) if !error.to_string().contains("--features rds") => panic!("{error}"),
        Ok(_) | Err(_) => {
            skip("this pgweir has been built without tokens of RDS (cargo build --features rds)");
            None
        }
    }
}

/// Plays a PostgreSQL that asks for a password in clear, takes none, and has TLS or not.
struct Played {
    port: u16,
    /// Who vouches for it: it itself.
    authority: String,
    passwords: Receiver<String>,
}

impl Played {
    fn start(with_tls: bool) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (sender, passwords) = channel();
        let tls = self_signed_tls();
        let cert = CertificateDer::from_pem_slice(tls.cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(tls.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the default versions")
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .expect("they belong together");
        let config = Arc::new(config);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if !with_tls {
                    // What comes here is in clear.
                    let mut seen = Vec::new();
                    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
                    let _ = stream.write_all(b"");
                    let mut ask = [0; 8];
                    if stream.read_exact(&mut ask).is_ok() && ask[4..] == [4, 210, 22, 47] {
                        let _ = stream.write_all(b"N");
                    } else {
                        seen.extend(ask);
                    }
                    let _ = stream.read_to_end(&mut seen);
                    let _ = sender.send(String::from_utf8_lossy(&seen).into_owned());
                    continue;
                }
                let mut ask = [0; 8];
                if stream.read_exact(&mut ask).is_err() || stream.write_all(b"S").is_err() {
                    continue;
                }
                let Ok(connection) = ServerConnection::new(Arc::clone(&config)) else {
                    continue;
                };
                let _ = talk(StreamOwned::new(connection, stream), &sender);
            }
        });
        Self {
            port,
            authority: tls.cert,
            passwords,
        }
    }

    #[track_caller]
    fn password(&self) -> String {
        let password = self.passwords.recv_timeout(Duration::from_secs(20));
        password.expect("somebody logs in")
    }
}

fn talk(mut wire: impl Read + Write, passwords: &Sender<String>) -> std::io::Result<()> {
    let mut length = [0; 4];
    wire.read_exact(&mut length)?;
    let mut startup = vec![0; u32::from_be_bytes(length) as usize - 4];
    wire.read_exact(&mut startup)?;
    wire.write_all(b"R\0\0\0\x08\0\0\0\x03")?;
    wire.flush()?;
    let mut head = [0; 5];
    wire.read_exact(&mut head)?;
    let mut password =
        vec![0; u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4];
    wire.read_exact(&mut password)?;
    password.pop();
    let _ = passwords.send(String::from_utf8_lossy(&password).into_owned());
    let error = b"SFATAL\0C28000\0MPAM authentication failed for user\0\0";
    wire.write_all(b"E")?;
    wire.write_all(&(error.len() as u32 + 4).to_be_bytes())?;
    wire.write_all(error)?;
    wire.flush()
}

/// The database `shop` for the user `app`, whose token this is.
fn ini(tenant: &Tenant, played: &Played, source: &str, mode: &str) -> Ini {
    at_hosts(tenant, played, "127.0.0.1", source, mode)
}

fn at_hosts(tenant: &Tenant, played: &Played, hosts: &str, source: &str, mode: &str) -> Ini {
    let entry = format!(
        "host={hosts} port={} dbname=shop user=app password_from={source}",
        played.port
    );
    tenant
        .ini()
        .database("shop", &entry)
        .file("ca.crt", &played.authority)
        .set("server_tls_ca_file", "{dir}/ca.crt")
        .set("server_tls_sslmode", mode)
        .set("server_login_retry", 1)
}

/// Somebody wants a server. What it is told is of no interest.
fn want(pooler: &Pooler, tenant: &Tenant) -> JoinHandle<Result<(), String>> {
    let mut client = RawClient::connect(pooler.port);
    let (user, database) = (tenant.name.as_str(), "shop");
    client.start_login(&[("user", user), ("database", database)]);
    thread::spawn(move || client.finish_login())
}

#[track_caller]
fn check(token: &str, port: u16, id: &str, region: &str) {
    let head = format!(
        "127.0.0.1:{port}/?Action=connect&DBUser=app&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={id}%2F"
    );
    assert!(token.starts_with(&head), "{token}");
    let scope = format!("%2F{region}%2Frds-db%2Faws4_request&X-Amz-Date=2");
    assert!(token.contains(&scope), "{token}");
    assert!(token.contains("&X-Amz-Expires=900&"), "{token}");
    let (_, signature) = token
        .rsplit_once("&X-Amz-Signature=")
        .expect("it is signed");
    assert_eq!(signature.len(), 64);
}

#[test]
fn a_token_of_the_environments_key_reaches_the_server() {
    let Some(tenant) = Tenant::new() else { return };
    let played = Played::start(true);
    let ini = ini(&tenant, &played, "rds:region=eu-west-1", "verify-full");
    let Some(pooler) = start(&KEY, ini) else {
        return;
    };
    want(&pooler, &tenant);
    check(&played.password(), played.port, "AKIDEXAMPLE", "eu-west-1");
    let log = pooler.log();
    assert!(!log.contains("hunter2") && !log.contains("X-Amz-Signature"));
}

#[test]
fn credentials_are_those_that_the_container_is_given() {
    let Some(tenant) = Tenant::new() else { return };
    let played = Played::start(true);
    let service = Service::start(|_| {
        let answer = r#"{"AccessKeyId":"AKIDGIVEN","SecretAccessKey":"s","Token":"to/ken","Expiration":"x"}"#;
        (200, answer.to_owned())
    });
    let url = format!("http://127.0.0.1:{}/creds", service.port);
    let env = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer Of-It"),
        ("AWS_REGION", "us-east-2"),
    ];
    let ini = ini(&tenant, &played, "rds:", "verify-full");
    let Some(pooler) = start(&env, ini) else {
        return;
    };
    want(&pooler, &tenant);
    let token = played.password();
    check(&token, played.port, "AKIDGIVEN", "us-east-2");
    assert!(token.contains("&X-Amz-Security-Token=to%2Fken&"), "{token}");
    let call = service.next();
    assert_eq!(call.line, "GET /creds");
    assert!(
        call.head.contains("authorization: bearer of-it"),
        "{call:?}"
    );
}

#[test]
fn credentials_are_those_of_the_machine_where_there_are_no_others() {
    let Some(tenant) = Tenant::new() else { return };
    let played = Played::start(true);
    let service = Service::start(|call| {
        let with_token = call.head.contains("x-aws-ec2-metadata-token: session");
        let answer = match call.line.as_str() {
            "PUT /latest/api/token" => "session",
            "GET /latest/meta-data/iam/security-credentials/" if with_token => "pooler\n",
            "GET /latest/meta-data/iam/security-credentials/pooler" if with_token => {
                r#"{"AccessKeyId":"AKIDMACHINE","SecretAccessKey":"s","Token":"t"}"#
            }
            _ => return (401, String::new()),
        };
        (200, answer.to_owned())
    });
    let url = format!("http://127.0.0.1:{}", service.port);
    let env = [
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str()),
        ("AWS_REGION", "us-east-2"),
    ];
    let Some(pooler) = start(&env, ini(&tenant, &played, "rds:", "verify-full")) else {
        return;
    };
    want(&pooler, &tenant);
    check(&played.password(), played.port, "AKIDMACHINE", "us-east-2");
}

#[test]
fn without_tls_no_token_is_told() {
    let Some(tenant) = Tenant::new() else { return };
    for mode in ["disable", "prefer"] {
        let played = Played::start(false);
        let ini = ini(&tenant, &played, "rds:region=eu-west-1", mode);
        let Some(pooler) = start(&KEY, ini) else {
            return;
        };
        want(&pooler, &tenant);
        let seen = played.password();
        assert!(!seen.contains("X-Amz"), "{mode}: {seen}");
        eventually(
            SOON,
            || pooler.log(),
            |log| log.contains("goes over TLS only"),
        );
    }
}

#[test]
fn a_server_that_is_not_verified_is_told_no_token() {
    let Some(tenant) = Tenant::new() else { return };
    for mode in ["require", "verify-ca"] {
        let played = Played::start(true);
        let ini = ini(&tenant, &played, "rds:region=eu-west-1", mode);
        let Some(pooler) = start(&KEY, ini) else {
            return;
        };
        want(&pooler, &tenant);
        eventually(
            SOON,
            || pooler.log(),
            |log| log.contains("set server_tls_sslmode to verify-full"),
        );
        assert!(played.passwords.try_recv().is_err(), "{mode}");
    }
}

#[test]
fn a_token_is_for_the_host_that_it_is_sent_to() {
    let Some(tenant) = Tenant::new() else { return };
    let played = Played::start(true);
    let source = "rds:region=eu-west-1";
    let ini = at_hosts(
        &tenant,
        &played,
        "127.0.0.1,localhost",
        source,
        "verify-full",
    );
    let Some(pooler) = start(&KEY, ini) else {
        return;
    };
    // It is refused, perhaps with a second one, and then the next host is tried.
    let hosts: Vec<String> = (0..3)
        .map(|_| {
            let asking = want(&pooler, &tenant);
            let token = played.password();
            // Whoever came before that is refused would be refused with it.
            let refused = asking.join().expect("no panic");
            assert!(refused.is_err(), "nobody is let in here");
            let (host, _) = token.split_once(':').expect("a host with its port");
            host.to_owned()
        })
        .collect();
    for host in ["127.0.0.1", "localhost"] {
        assert!(hosts.iter().any(|of| of == host), "{hosts:?}");
    }
}

#[test]
fn a_build_without_it_says_how_to_get_one() {
    let Some(tenant) = Tenant::new() else { return };
    let entry = "host=127.0.0.1 user=app password_from=rds:";
    let said = match Pooler::start(tenant.ini().database("shop", entry)) {
        Ok(pooler) => pooler.log(),
        Err(error) => error.to_string(),
    };
    if !said.contains("--features rds") {
        return skip("this pgweir has been built with tokens of RDS");
    }
    assert!(said.contains("password_from"), "{said}");
}
