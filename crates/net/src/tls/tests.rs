//! Whole handshakes over real sockets, for every mode, good and bad.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::testing::{Authority, Identity};
use super::*;
use crate::stream::Stream;

mod long;
mod records;

fn server(identity: &Identity) -> ServerSide {
    ServerSide {
        certificate: identity.certificate_pem(),
        key: identity.key_pem(),
        ca: None,
        client_certificate: ClientCertificate::Optional,
        parameters: Parameters::default(),
    }
}

fn client(sslmode: SslMode, ca: Option<&Authority>) -> ClientSide {
    ClientSide {
        sslmode,
        ca: ca.map(Authority::pem),
        certificate: None,
        key: None,
        parameters: Parameters::default(),
    }
}

fn client_with(identity: &Identity) -> ClientSide {
    ClientSide {
        certificate: Some(identity.certificate_pem()),
        key: Some(identity.key_pem()),
        ..client(SslMode::Require, None)
    }
}

async fn tcp_pair() -> (Stream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (Stream::Tcp(near), Stream::Tcp(far))
}

type Outcome = Result<Stream, HandshakeError>;

/// Both ends' outcome of one handshake: the server's, the client's.
async fn handshake(server: &ServerSide, client: &ClientSide, host: &str) -> (Outcome, Outcome) {
    let acceptor = Acceptor::new(server).unwrap();
    let connector = Connector::new(client).unwrap();
    let (near, far) = tcp_pair().await;
    tokio::join!(
        acceptor.accept(far, Hello::AfterRequest),
        connector.connect(near, host)
    )
}

/// As [`handshake`], and then a word in both directions.
async fn talk(server: &ServerSide, client: &ClientSide, host: &str) -> (Stream, Stream) {
    let (far, near) = handshake(server, client, host).await;
    let (mut far, mut near) = (far.unwrap(), near.unwrap());
    for (word, answers) in [(b"ping", false), (b"pong", true)] {
        let (from, to) = if answers {
            (&mut far, &mut near)
        } else {
            (&mut near, &mut far)
        };
        from.write_all(word).await.unwrap();
        from.flush().await.unwrap();
        let mut buf = [0; 4];
        to.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, word);
    }
    (far, near)
}

async fn client_error(server: &ServerSide, client: &ClientSide, host: &str) -> String {
    handshake(server, client, host)
        .await
        .1
        .unwrap_err()
        .to_string()
}

fn with_protocols(list: &str) -> Parameters {
    Parameters {
        protocols: list.to_owned(),
        ..Parameters::default()
    }
}

#[tokio::test]
async fn every_mode_accepts_what_it_should() {
    let root = Authority::root("root");
    for identity in [root.leaf("db", &["localhost"]), root.leaf_v1("localhost")] {
        for protocols in ["tlsv1.2", "tlsv1.3"] {
            let server = ServerSide {
                parameters: with_protocols(protocols),
                ..server(&identity)
            };
            for mode in [SslMode::Allow, SslMode::Prefer, SslMode::Require] {
                let stranger = Authority::root("stranger");
                talk(&server, &client(mode, Some(&stranger)), "elsewhere").await;
                talk(&server, &client(mode, None), "a name with spaces").await;
            }
            talk(
                &server,
                &client(SslMode::VerifyCa, Some(&root)),
                "elsewhere",
            )
            .await;
            let (far, near) = talk(
                &server,
                &client(SslMode::VerifyFull, Some(&root)),
                "localhost",
            )
            .await;
            let version = protocols.replace("tlsv", "TLSv");
            assert_eq!(near.tls_info().unwrap().version, version);
            assert_eq!(near.tls_info(), far.tls_info());
        }
    }
}

#[tokio::test]
async fn verifying_modes_refuse_what_they_should() {
    let root = Authority::root("root");
    let stranger = Authority::root("stranger");
    for identity in [root.leaf("db", &["localhost"]), root.leaf_v1("localhost")] {
        let server = server(&identity);
        for mode in [SslMode::VerifyCa, SslMode::VerifyFull] {
            let error = client_error(&server, &client(mode, Some(&stranger)), "localhost").await;
            assert!(
                error.starts_with("certificate verify failed: unable to get issuer"),
                "{error}"
            );
        }
        let full = client(SslMode::VerifyFull, Some(&root));
        let error = client_error(&server, &full, "elsewhere").await;
        assert_eq!(
            error,
            "certificate verify failed: name \"elsewhere\" not present in server certificate, \
             which has localhost"
        );
        let error = client_error(&server, &full, "not a name").await;
        assert!(error.starts_with("certificate verify failed: "), "{error}");
    }
}

#[tokio::test]
async fn the_server_hears_why_it_was_refused() {
    let root = Authority::root("root");
    let full = client(SslMode::VerifyFull, Some(&Authority::root("stranger")));
    let (far, _) = handshake(&server(&root.leaf("db", &["db"])), &full, "db").await;
    assert_eq!(
        far.unwrap_err().to_string(),
        "handshake failed: the peer sent alert UnknownCA"
    );
}

#[tokio::test]
async fn a_common_name_counts_only_without_alternative_names() {
    let root = Authority::root("root");
    let full = client(SslMode::VerifyFull, Some(&root));
    talk(&server(&root.leaf("localhost", &[])), &full, "localhost").await;
    talk(
        &server(&root.leaf("*.db.example", &[])),
        &full,
        "one.db.example",
    )
    .await;
    client_error(
        &server(&root.leaf("localhost", &["db"])),
        &full,
        "localhost",
    )
    .await;
    // An address among the alternative names says nothing about names.
    talk(
        &server(&root.leaf("localhost", &["127.0.0.1"])),
        &full,
        "localhost",
    )
    .await;
}

#[tokio::test]
async fn an_address_matches_an_address_or_the_common_name() {
    let root = Authority::root("root");
    let full = client(SslMode::VerifyFull, Some(&root));
    talk(
        &server(&root.leaf("db", &["127.0.0.1"])),
        &full,
        "127.0.0.1",
    )
    .await;
    talk(&server(&root.leaf("db", &["::1"])), &full, "::1").await;
    talk(&server(&root.leaf("127.0.0.1", &[])), &full, "127.0.0.1").await;
    talk(&server(&root.leaf_v1("127.0.0.1")), &full, "127.0.0.1").await;
    for wrong in [
        root.leaf("127.0.0.1", &["127.0.0.2"]),
        root.leaf_v1("*.0.0.1"),
    ] {
        let error = client_error(&server(&wrong), &full, "127.0.0.1").await;
        assert!(error.contains("name \"127.0.0.1\" not present"), "{error}");
    }
}

#[test]
fn a_key_must_be_its_certificates() {
    let root = Authority::root("root");
    for (one, other) in [
        (root.leaf_v1("db"), root.leaf_v1("db")),
        (root.leaf("db", &[]), root.leaf("db", &[])),
    ] {
        let mixed = ServerSide {
            key: other.key_pem(),
            ..server(&one)
        };
        let error = Acceptor::new(&mixed).unwrap_err().to_string();
        assert!(error.starts_with("private/public key mismatch"), "{error}");
    }
}

/// A server that shows a certificate whose key it does not have.
#[tokio::test]
async fn a_stolen_certificate_is_no_use() {
    #[derive(Debug)]
    struct Thief(Arc<CertifiedKey>);
    impl ResolvesServerCert for Thief {
        fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(self.0.clone())
        }
    }
    let root = Authority::root("root");
    let thiefs = root.leaf("thief", &["thief"]);
    let thiefs = pem::identity(&thiefs.certificate_pem(), &thiefs.key_pem()).unwrap();
    for stolen in [root.leaf_v1("db"), root.leaf("db", &["db"])] {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let mixed = CertifiedKey::new(stolen.chain.clone(), thiefs.key.clone());
            let config = ServerConfig::builder_with_provider(Arc::new(parameters::provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(Thief(Arc::new(mixed))));
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            for mode in [SslMode::Require, SslMode::VerifyFull] {
                let connector = Connector::new(&client(mode, Some(&root))).unwrap();
                let (near, Stream::Tcp(far)) = tcp_pair().await else {
                    panic!("not TCP")
                };
                let (_, near) = tokio::join!(acceptor.accept(far), connector.connect(near, "db"));
                assert_eq!(
                    near.unwrap_err().to_string(),
                    "certificate verify failed: certificate signature failure"
                );
            }
        }
    }
}

#[tokio::test]
async fn clients_certificates_are_checked_when_shown() {
    let root = Authority::root("root");
    let stranger = Authority::root("root");
    for protocols in ["tlsv1.2", "tlsv1.3"] {
        let optional = ServerSide {
            ca: Some(root.pem()),
            parameters: with_protocols(protocols),
            ..server(&root.leaf_v1("localhost"))
        };
        let required = ServerSide {
            client_certificate: ClientCertificate::Required,
            ..optional.clone()
        };
        for identity in [root.leaf("ann", &[]), root.leaf_v1("ann")] {
            for server in [&optional, &required] {
                let (far, _near) = talk(server, &client_with(&identity), "localhost").await;
                let certificate = far.peer_certificate().unwrap();
                assert_eq!(certificate.common_name().as_deref(), Some("ann"));
                assert_eq!(certificate.der(), identity.leaf().as_ref());
            }
        }
        for identity in [stranger.leaf("ann", &[]), stranger.leaf_v1("ann")] {
            for server in [&optional, &required] {
                let (far, _) = handshake(server, &client_with(&identity), "localhost").await;
                let error = far.unwrap_err().to_string();
                assert!(error.starts_with("certificate verify failed: "), "{error}");
            }
        }
        let nobody = client(SslMode::Require, None);
        let (far, _near) = talk(&optional, &nobody, "localhost").await;
        assert!(far.peer_certificate().is_none());
        let (far, _) = handshake(&required, &nobody, "localhost").await;
        assert_eq!(
            far.unwrap_err().to_string(),
            "certificate verify failed: peer did not return a certificate"
        );
    }
}

#[tokio::test]
async fn without_a_ca_file_no_client_is_asked_for_a_certificate() {
    let root = Authority::root("root");
    let identity = root.leaf("ann", &[]);
    let (far, _near) = talk(&server(&identity), &client_with(&identity), "localhost").await;
    assert!(far.peer_certificate().is_none());
    let required = ServerSide {
        client_certificate: ClientCertificate::Required,
        ..server(&identity)
    };
    assert!(matches!(
        Acceptor::new(&required),
        Err(TlsError::NoClientCa)
    ));
}

#[tokio::test]
async fn negotiates_the_configured_cipher() {
    let root = Authority::root("root");
    let mut server = server(&root.leaf("db", &["db"]));
    let client = client(SslMode::Require, None);
    for cipher in ["TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_256_GCM_SHA384"] {
        server.parameters.tls13_ciphers = cipher.to_owned();
        let (far, _near) = talk(&server, &client, "db").await;
        assert_eq!(
            far.tls_info().unwrap().to_string(),
            format!("TLSv1.3/{cipher}")
        );
    }
    server.parameters.protocols = "tlsv1.2".to_owned();
    server.parameters.ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305".to_owned();
    let (far, _near) = talk(&server, &client, "db").await;
    assert_eq!(
        far.tls_info().unwrap().to_string(),
        "TLSv1.2/ECDHE-ECDSA-CHACHA20-POLY1305"
    );
}

#[tokio::test]
async fn versions_that_cannot_be_spoken_fail_at_the_handshake() {
    let root = Authority::root("root");
    let old = ServerSide {
        parameters: with_protocols("tlsv1.0"),
        ..server(&root.leaf("db", &["db"]))
    };
    assert_eq!(Acceptor::new(&old).unwrap().warnings().len(), 1);
    let (far, near) = handshake(&old, &client(SslMode::Require, None), "db").await;
    assert!(matches!(far, Err(HandshakeError::NoVersion)));
    near.unwrap_err();
}

#[tokio::test]
async fn both_ends_compute_the_same_channel_binding() {
    let root = Authority::root("root");
    let identity = root.leaf("db", &["db"]);
    let (far, near) = talk(&server(&identity), &client(SslMode::Require, None), "db").await;
    let expected = Sha256::digest(identity.leaf()).to_vec();
    assert_eq!(far.server_end_point_binding().as_ref(), Some(&expected));
    assert_eq!(near.server_end_point_binding().as_ref(), Some(&expected));
}

#[tokio::test]
async fn direct_tls_goes_on_from_bytes_already_read() {
    let root = Authority::root("root");
    let acceptor = Acceptor::new(&server(&root.leaf("db", &["db"]))).unwrap();
    let connector = Connector::new(&client(SslMode::Require, None)).unwrap();
    for first_read in [1, 5, 64, 4096] {
        let (near, mut far) = tcp_pair().await;
        let accept = async {
            let mut received = vec![0; first_read];
            let n = far.read(&mut received).await.unwrap();
            acceptor
                .accept(
                    far,
                    Hello::Direct {
                        received: &received[..n],
                    },
                )
                .await
        };
        let (far, near) = tokio::join!(accept, connector.connect(near, "db"));
        let (mut far, mut near) = (far.unwrap(), near.unwrap());
        near.write_all(b"hello").await.unwrap();
        near.flush().await.unwrap();
        let mut buf = [0; 5];
        far.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, b"hello");
    }
}

#[tokio::test]
async fn direct_tls_needs_the_protocols_name() {
    let root = Authority::root("root");
    let acceptor = Acceptor::new(&server(&root.leaf("db", &["db"]))).unwrap();
    let plain = Connector::new(&client(SslMode::Require, None))
        .unwrap()
        .without_alpn();
    let (near, far) = tcp_pair().await;
    let (far, _near) = tokio::join!(
        acceptor.accept(far, Hello::Direct { received: &[] }),
        plain.connect(near, "db")
    );
    assert!(matches!(far, Err(HandshakeError::NoAlpn)));
    let (near, far) = tcp_pair().await;
    let (far, near) = tokio::join!(
        acceptor.accept(far, Hello::AfterRequest),
        plain.connect(near, "db")
    );
    assert!(far.is_ok() && near.is_ok());
}

#[tokio::test]
async fn a_broken_hello_is_answered_with_an_alert() {
    let root = Authority::root("root");
    let acceptor = Acceptor::new(&server(&root.leaf("db", &["db"]))).unwrap();
    let (mut near, mut far) = tcp_pair().await;
    // A record that holds a ClientHello of one byte.
    near.write_all(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00")
        .await
        .unwrap();
    let mut received = [0; 64];
    let n = far.read(&mut received).await.unwrap();
    let hello = Hello::Direct {
        received: &received[..n],
    };
    assert!(matches!(
        acceptor.accept(far, hello).await,
        Err(HandshakeError::Protocol(_))
    ));
    let mut alert = Vec::new();
    near.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert.first(), Some(&21), "{alert:?}");
}

#[tokio::test]
async fn an_abrupt_end_is_an_end_and_an_idle_stream_shows_it() {
    let root = Authority::root("root");
    for protocols in ["tlsv1.2", "tlsv1.3"] {
        let server = ServerSide {
            parameters: with_protocols(protocols),
            ..server(&root.leaf("db", &["db"]))
        };
        let (mut far, mut near) = talk(&server, &client(SslMode::Require, None), "db").await;
        let mut buf = [0; 16];
        let silent = near.try_read_idle(&mut buf).unwrap_err();
        assert_eq!(silent.kind(), std::io::ErrorKind::WouldBlock);
        far.write_all(b"stray").await.unwrap();
        far.flush().await.unwrap();
        // Dropping closes the socket without TLS's farewell.
        drop(far);
        let mut seen = Vec::new();
        for _ in 0..200 {
            match near.try_read_idle(&mut buf) {
                Ok(0) => break,
                Ok(n) => seen.extend_from_slice(&buf[..n]),
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(seen, b"stray");
        assert_eq!(near.read(&mut buf).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_half_close_over_tls_leaves_the_other_direction_open() {
    let root = Authority::root("root");
    let (mut far, mut near) = talk(
        &server(&root.leaf("db", &["db"])),
        &client(SslMode::Require, None),
        "db",
    )
    .await;
    near.shutdown().await.unwrap();
    assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
    far.write_all(b"late").await.unwrap();
    far.flush().await.unwrap();
    let mut buf = [0; 4];
    near.read_exact(&mut buf).await.unwrap();
    assert_eq!(&buf, b"late");
}

#[tokio::test]
async fn carries_more_than_fits_anywhere() {
    let root = Authority::root("root");
    let (mut far, mut near) = talk(
        &server(&root.leaf("db", &["db"])),
        &client(SslMode::Require, None),
        "db",
    )
    .await;
    let sent: Vec<u8> = (0..4_000_000u32).map(|i| (i % 251) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
        near
    });
    let mut read = Vec::new();
    far.read_to_end(&mut read).await.unwrap();
    assert!(read == expected);
    writer.await.unwrap();
}

#[test]
fn names_what_is_wrong_with_files() {
    let root = Authority::root("root");
    let good = server(&root.leaf("db", &["db"]));
    let error = Pem::read("/nowhere/server.crt").unwrap_err().to_string();
    assert_eq!(
        error,
        "failed to load file \"/nowhere/server.crt\": No such file or directory"
    );

    let said = |side: ServerSide| Acceptor::new(&side).unwrap_err().to_string();
    let junk = Pem::from_bytes("junk.pem", b"junk".to_vec());
    assert_eq!(
        said(ServerSide {
            certificate: junk.clone(),
            ..good.clone()
        }),
        "failed to load certificate from \"junk.pem\": no certificate in the file"
    );
    assert_eq!(
        said(ServerSide {
            key: junk.clone(),
            ..good.clone()
        }),
        "failed to load private key from \"junk.pem\": no private key in the file"
    );
    assert_eq!(
        said(ServerSide {
            ca: Some(junk),
            ..good.clone()
        }),
        "failed to load certificate from \"junk.pem\": no certificate in the file"
    );
    let locked =
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----";
    let locked = Pem::from_bytes("locked.key", locked.to_vec());
    assert!(
        said(ServerSide {
            key: locked,
            ..good
        })
        .contains("the key is encrypted")
    );
    let half = ClientSide {
        certificate: Some(root.leaf("ann", &[]).certificate_pem()),
        ..client(SslMode::Require, None)
    };
    assert!(matches!(Connector::new(&half), Err(TlsError::HalfIdentity)));
}

#[test]
fn settings_are_equal_by_what_is_in_the_files() {
    let root = Authority::root("root");
    let (one, other) = (root.leaf("db", &["db"]), root.leaf("db", &["db"]));
    let make = |identity: &Identity| Acceptor::new(&server(identity)).unwrap();
    assert_eq!(make(&one), make(&one));
    assert_ne!(make(&one), make(&other));

    let connector = |side: &ClientSide| Connector::new(side).unwrap();
    let prefer = client(SslMode::Prefer, None);
    assert_eq!(connector(&prefer), connector(&prefer));
    assert_ne!(connector(&prefer), connector(&client(SslMode::Allow, None)));
    assert_ne!(
        connector(&prefer),
        connector(&client(SslMode::Prefer, Some(&root)))
    );
    let old = ClientSide {
        parameters: with_protocols("tlsv1.0"),
        ..prefer.clone()
    };
    assert_ne!(connector(&prefer), connector(&old));
}

#[test]
fn debug_output_shows_no_key() {
    let side = server(&Authority::root("root").leaf("db", &["db"]));
    assert!(!format!("{side:?}").contains("BEGIN"));
}

#[tokio::test]
async fn certificates_made_by_openssl_work_on_both_sides() {
    for ca_key in ["ecparam -name prime256v1 -genkey", "genrsa 2048"] {
        let Some(made) = made_by_openssl(ca_key) else {
            eprintln!("SKIPPED: the openssl command is missing or makes no X.509 v1 certificates");
            return;
        };
        works_on_both_sides(made.path()).await;
    }
}

async fn works_on_both_sides(made: &Path) {
    let pem = |name: &str| Pem::read(made.join(name).to_str().unwrap()).unwrap();
    for protocols in ["tlsv1.2", "tlsv1.3"] {
        let server = ServerSide {
            certificate: pem("server.crt"),
            key: pem("server.key"),
            ca: Some(pem("ca.crt")),
            client_certificate: ClientCertificate::Required,
            parameters: with_protocols(protocols),
        };
        let full = ClientSide {
            sslmode: SslMode::VerifyFull,
            ca: Some(pem("ca.crt")),
            certificate: Some(pem("client.crt")),
            key: Some(pem("client.key")),
            parameters: Parameters::default(),
        };
        let (far, near) = talk(&server, &full, "localhost").await;
        assert_eq!(
            far.peer_certificate().unwrap().common_name().as_deref(),
            Some("bouncer")
        );
        assert_eq!(
            near.server_end_point_binding(),
            far.server_end_point_binding()
        );
        let stranger = ClientSide {
            ca: Some(Authority::root("root").pem()),
            ..full
        };
        let error = client_error(&server, &stranger, "localhost").await;
        assert!(error.starts_with("certificate verify failed: "), "{error}");
    }
    // A server that uses the CA's own certificate, as after `openssl req -x509`.
    let own_root = ServerSide {
        certificate: pem("ca.crt"),
        key: pem("ca.key"),
        ca: None,
        client_certificate: ClientCertificate::None,
        parameters: Parameters::default(),
    };
    let full = ClientSide {
        ca: Some(pem("ca.crt")),
        ..client(SslMode::VerifyFull, None)
    };
    talk(&own_root, &full, "TestCA").await;
}

/// A CA (ca.*), and version 1 certificates for a server, with an EC key in SEC1 form, and for a
/// client, with an RSA key in PKCS#1 form.
fn made_by_openssl(ca_key: &str) -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().ok()?;
    let script = "set -e
        openssl $CA_KEY > ca.key
        openssl req -new -x509 -days 30 -key ca.key -subj /CN=TestCA -out ca.crt
        openssl ecparam -name prime256v1 -genkey -out server.key
        openssl req -new -key server.key -subj /O=db/CN=localhost -out server.csr
        openssl genrsa -traditional -out client.key 2048
        openssl req -new -key client.key -subj /O=dev/CN=bouncer -out client.csr
        for side in server client; do
            openssl x509 -req -days 30 -in $side.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
                -out $side.crt
            openssl x509 -in $side.crt -noout -text | grep -q 'Version: 1'
        done";
    let output = Command::new("sh")
        .args(["-c", script])
        .env("CA_KEY", ca_key)
        .current_dir(dir.path())
        .output()
        .ok()?;
    output.status.success().then_some(dir)
}
