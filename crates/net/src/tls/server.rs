//! TLS with us as the server: answering clients.

use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerConnection};
use rustls::sign::CertifiedKey;
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;

use crate::stream::Stream;
use crate::tls::ALPN;
use crate::tls::certificate;
use crate::tls::chain::Roots;
use crate::tls::error::{HandshakeError, TlsError};
use crate::tls::parameters::Parameters;
use crate::tls::pem::{self, Pem};
use crate::tls::records::RecordSocket;
use crate::tls::verify::ClientVerifier;

/// How we answer clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSide {
    /// Our certificate, followed by its chain.
    pub certificate: Pem,
    /// Its key.
    pub key: Pem,
    /// The roots that clients' certificates must lead to.
    pub ca: Option<Pem>,
    /// Whether clients show a certificate.
    pub client_certificate: ClientCertificate,
    /// What may be negotiated.
    pub parameters: Parameters,
}

/// Whether clients show a certificate. One that is shown is always checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// It is not asked for.
    None,
    /// It is asked for where there is a CA file to check it with, and a client may have none.
    Optional,
    /// A client without one is refused.
    Required,
}

/// How a client began to speak TLS.
#[derive(Clone, Copy, Debug)]
pub enum Hello<'a> {
    /// With SSLRequest, which was answered; what the client sends next is TLS.
    AfterRequest,
    /// At once. The client must name the protocol `postgresql` (ALPN), because without SSLRequest
    /// nothing else says that it did not mean to talk to a web server.
    Direct {
        /// What was read from the connection before it was clear that it is TLS.
        received: &'a [u8],
    },
}

/// Answers clients' handshakes. Cheap to clone; equal when made from equal settings.
#[derive(Clone, Debug)]
pub struct Acceptor {
    /// `None` when only TLS versions are configured that cannot be spoken.
    config: Option<Arc<ServerConfig>>,
    end_point_binding: Option<Arc<[u8]>>,
    warnings: Arc<[String]>,
    fingerprint: [u8; 32],
}

impl PartialEq for Acceptor {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Acceptor {}

impl Acceptor {
    /// Checks the settings and gets everything ready.
    pub fn new(side: &ServerSide) -> Result<Self, TlsError> {
        let negotiable = side.parameters.parse()?;
        let identity = pem::identity(&side.certificate, &side.key)?;
        let end_point_binding = identity
            .cert
            .first()
            .and_then(|leaf| certificate::end_point_binding(leaf));
        // The CA file is read even when nobody is asked for a certificate: a broken one should be
        // told of now, not on the day it is needed.
        let roots = side.ca.as_ref().map(Roots::from_pem).transpose()?;
        let algorithms = negotiable.provider.signature_verification_algorithms;
        let verifier = match (side.client_certificate, roots) {
            (ClientCertificate::Required, None) => return Err(TlsError::NoClientCa),
            (ClientCertificate::Required, Some(roots)) => {
                Some(ClientVerifier::new(roots, true, algorithms))
            }
            (ClientCertificate::Optional, Some(roots)) => {
                Some(ClientVerifier::new(roots, false, algorithms))
            }
            (ClientCertificate::Optional, None) | (ClientCertificate::None, _) => None,
        };
        let mut config = None;
        if !negotiable.versions.is_empty() {
            let builder = ServerConfig::builder_with_provider(negotiable.provider)
                .with_protocol_versions(&negotiable.versions)?;
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier),
                None => builder.with_no_client_auth(),
            };
            let mut new = builder.with_cert_resolver(Arc::new(OneIdentity(Arc::new(identity))));
            new.alpn_protocols = vec![ALPN.to_vec()];
            new.ignore_client_order = true;
            // As PostgreSQL does: no resumption, so every connection is authenticated afresh.
            new.session_storage = Arc::new(NoServerSessionStorage {});
            new.send_tls13_tickets = 0;
            config = Some(Arc::new(new));
        }
        Ok(Self {
            config,
            end_point_binding: end_point_binding.map(Into::into),
            warnings: negotiable.warnings.into(),
            fingerprint: side.fingerprint(),
        })
    }

    /// What in the settings was understood but cannot be done.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Carries out a handshake on a plain TCP connection. The caller limits its time.
    pub async fn accept(&self, stream: Stream, hello: Hello<'_>) -> Result<Stream, HandshakeError> {
        let Stream::Tcp(tcp) = stream else {
            return Err(HandshakeError::NotTcp);
        };
        let config = self.config.clone().ok_or(HandshakeError::NoVersion)?;
        let acceptor = tokio_rustls::TlsAcceptor::from(config);
        let tls = match hello {
            Hello::AfterRequest => acceptor.accept(RecordSocket::new(tcp)).await?,
            Hello::Direct { received } => {
                let tls = accept_from(&acceptor, tcp, received).await?;
                if tls.get_ref().1.alpn_protocol() != Some(ALPN) {
                    return Err(HandshakeError::NoAlpn);
                }
                tls
            }
        };
        Ok(Stream::tls(tls, self.end_point_binding.clone()))
    }
}

/// A handshake whose first bytes have been read already. They are handed to the library before it
/// begins; if they are wrong, that is the end and the alert is sent here, because the library would
/// first wait for more.
async fn accept_from(
    acceptor: &tokio_rustls::TlsAcceptor,
    tcp: TcpStream,
    received: &[u8],
) -> Result<tokio_rustls::server::TlsStream<RecordSocket>, HandshakeError> {
    let mut refused = None;
    let accept = acceptor.accept_with(RecordSocket::new(tcp), |connection| {
        if let Err(error) = feed(connection, received) {
            let mut alert = Vec::new();
            // Writing into memory cannot fail.
            let _ = connection.write_tls(&mut alert);
            refused = Some((error, alert));
        }
    });
    let Some((error, alert)) = refused else {
        return Ok(accept.await?);
    };
    if let Some(socket) = accept.get_ref() {
        // The connection ends here; a peer that cannot take the alert at once goes without it.
        let _ = socket.tcp().try_write(&alert);
    }
    Err(error)
}

fn feed(connection: &mut ServerConnection, mut received: &[u8]) -> Result<(), HandshakeError> {
    while !received.is_empty() {
        let read = connection.read_tls(&mut received)?;
        connection.process_new_packets()?;
        if read == 0 {
            return Err(HandshakeError::Io(io::ErrorKind::InvalidData.into()));
        }
    }
    Ok(())
}

/// The same certificate for everybody.
#[derive(Debug)]
struct OneIdentity(Arc<CertifiedKey>);

impl ResolvesServerCert for OneIdentity {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

impl ServerSide {
    fn fingerprint(&self) -> [u8; 32] {
        let Self {
            certificate,
            key,
            ca,
            client_certificate,
            parameters,
        } = self;
        let mut hash = Sha256::new();
        Pem::fingerprint(Some(certificate), &mut hash);
        Pem::fingerprint(Some(key), &mut hash);
        Pem::fingerprint(ca.as_ref(), &mut hash);
        hash.update([*client_certificate as u8]);
        parameters.fingerprint(&mut hash);
        hash.finalize().into()
    }
}
