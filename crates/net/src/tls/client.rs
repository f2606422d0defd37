//! TLS with us as the client: calling servers.

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::ServerName;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::stream::Stream;
use crate::tls::ALPN;
use crate::tls::chain::Roots;
use crate::tls::error::{HandshakeError, TlsError};
use crate::tls::parameters::Parameters;
use crate::tls::pem::{self, Pem};
use crate::tls::records::RecordSocket;
use crate::tls::verify::{ServerCheck, ServerVerifier};

/// How we call servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSide {
    /// Whether to encrypt, and what to check.
    pub sslmode: SslMode,
    /// The roots that servers' certificates must lead to; without them the system's.
    pub ca: Option<Pem>,
    /// A certificate to show to servers that ask, followed by its chain.
    pub certificate: Option<Pem>,
    /// Its key.
    pub key: Option<Pem>,
    /// What may be negotiated.
    pub parameters: Parameters,
}

/// How much encryption is wanted, in libpq's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SslMode {
    /// Never encrypt.
    Disable,
    /// Encrypt if the server can; the same as `prefer`, as PgBouncer has it.
    Allow,
    /// Encrypt if the server can.
    Prefer,
    /// Encrypt, with anybody: the certificate is not checked, even if there is a CA file.
    Require,
    /// Encrypt with a server that a root vouches for.
    VerifyCa,
    /// And that is the host that was called.
    VerifyFull,
}

impl SslMode {
    /// Whether to ask a server for TLS at all.
    pub fn requests_tls(self) -> bool {
        self > Self::Disable
    }

    /// Whether to give up on a server that has no TLS.
    pub fn requires_tls(self) -> bool {
        self >= Self::Require
    }

    /// Whether a server has to show that it is the host that was called.
    pub fn verifies_host(self) -> bool {
        self == Self::VerifyFull
    }
}

/// Carries out handshakes with servers. Cheap to clone; equal when made from equal settings.
#[derive(Clone, Debug)]
pub struct Connector {
    sslmode: SslMode,
    /// `None` when only TLS versions are configured that cannot be spoken.
    config: Option<Arc<ClientConfig>>,
    warnings: Arc<[String]>,
    fingerprint: [u8; 32],
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Connector {}

impl Connector {
    /// Checks the settings and gets everything ready.
    pub fn new(side: &ClientSide) -> Result<Self, TlsError> {
        let negotiable = side.parameters.parse()?;
        let identity = match (&side.certificate, &side.key) {
            (Some(certificate), Some(key)) => Some(pem::identity(certificate, key)?),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(TlsError::HalfIdentity),
        };
        let given = side.ca.as_ref().map(Roots::from_pem).transpose()?;
        let roots = || given.map_or_else(Roots::of_system, Ok);
        let check = match side.sslmode {
            SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => {
                ServerCheck::Nothing
            }
            SslMode::VerifyCa => ServerCheck::Chain(roots()?),
            SslMode::VerifyFull => ServerCheck::ChainAndName(roots()?),
        };
        let algorithms = negotiable.provider.signature_verification_algorithms;
        let mut config = None;
        if !negotiable.versions.is_empty() {
            let builder = ClientConfig::builder_with_provider(negotiable.provider)
                .with_protocol_versions(&negotiable.versions)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(ServerVerifier { check, algorithms }));
            let mut new = match identity {
                Some(identity) => {
                    builder.with_client_cert_resolver(Arc::new(OneIdentity(Arc::new(identity))))
                }
                None => builder.with_no_client_auth(),
            };
            new.alpn_protocols = vec![ALPN.to_vec()];
            // PostgreSQL never resumes; nothing needs to be kept for it.
            new.resumption = Resumption::disabled();
            config = Some(Arc::new(new));
        }
        Ok(Self {
            sslmode: side.sslmode,
            config,
            warnings: negotiable.warnings.into(),
            fingerprint: side.fingerprint(),
        })
    }

    /// For servers that are no PostgreSQL, and for those before it had a protocol name.
    #[must_use]
    pub fn without_alpn(mut self) -> Self {
        let config = self.config.as_mut().map(Arc::make_mut);
        if let Some(config) = config {
            config.alpn_protocols.clear();
        }
        self
    }

    /// Whether to encrypt, and what is checked.
    pub fn sslmode(&self) -> SslMode {
        self.sslmode
    }

    /// What in the settings was understood but cannot be done.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Carries out a handshake on a plain TCP connection whose server has agreed to TLS. `host` is
    /// the name or address from the configuration: it is what the certificate must be for, and a
    /// name is told to the server (SNI). The caller limits the time.
    pub async fn connect(&self, stream: Stream, host: &str) -> Result<Stream, HandshakeError> {
        let Stream::Tcp(tcp) = stream else {
            return Err(HandshakeError::NotTcp);
        };
        let config = self.config.clone().ok_or(HandshakeError::NoVersion)?;
        let name = match ServerName::try_from(host) {
            Ok(name) => name.to_owned(),
            Err(_) if self.sslmode == SslMode::VerifyFull => {
                return Err(HandshakeError::HostName(host.to_owned()));
            }
            // Where the name is not checked, any will do; an address is not sent.
            Err(_) => ServerName::from(tcp.peer_addr().map_err(HandshakeError::Io)?.ip()),
        };
        let connector = tokio_rustls::TlsConnector::from(config);
        let tls = connector.connect(name, RecordSocket::new(tcp)).await?;
        Ok(Stream::tls(tls, None))
    }
}

/// The same certificate for every server that asks, whatever roots it names: what libpq does.
#[derive(Debug)]
struct OneIdentity(Arc<CertifiedKey>);

impl ResolvesClientCert for OneIdentity {
    fn resolve(
        &self,
        _root_hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ClientSide {
    fn fingerprint(&self) -> [u8; 32] {
        let Self {
            sslmode,
            ca,
            certificate,
            key,
            parameters,
        } = self;
        let mut hash = Sha256::new();
        hash.update([*sslmode as u8]);
        for file in [ca, certificate, key] {
            Pem::fingerprint(file.as_ref(), &mut hash);
        }
        parameters.fingerprint(&mut hash);
        hash.finalize().into()
    }
}
