//! Why TLS could not be set up, and why a handshake failed.

use std::io;

use rustls::CertificateError;

use crate::os_text;

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("failed to load file \"{path}\": {}", os_text(.source))]
    File {
        /// The file.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("failed to load {what} from \"{name}\": {reason}")]
    Content {
        /// What was looked for, such as `private key`.
        what: &'static str,
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key belongs to another certificate.
    #[error("private/public key mismatch: \"{key}\" is not the key of \"{certificate}\"")]
    KeyMismatch {
        /// The certificate's file.
        certificate: String,
        /// The key's file.
        key: String,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("a certificate and its private key must be set together")]
    HalfIdentity,
    /// Clients must show a certificate, but nothing says which ones are good.
    #[error("verifying client certificates needs a CA file")]
    NoClientCa,
    /// An unknown protocol version.
    #[error(
        "invalid TLS protocol \"{word}\": known are tlsv1.0, tlsv1.1, tlsv1.2, tlsv1.3, all, \
         secure and legacy"
    )]
    Protocol {
        /// The word.
        word: String,
    },
    /// A cipher list of TLS 1.3 that cannot be used.
    #[error("failed to set the TLSv1.3 cipher suites: {reason} in \"{list}\"")]
    Tls13Ciphers {
        /// The list.
        list: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A cipher list of TLS 1.2 that leaves nothing.
    #[error("no ciphers for \"{list}\"")]
    Ciphers {
        /// The list.
        list: String,
    },
    /// An unknown curve.
    #[error("failed to set ECDHE curve: \"{name}\" is not known")]
    Curve {
        /// The name.
        name: String,
    },
    /// The TLS library refused what is left after all of the above.
    #[error("TLS settings cannot work together: {0}")]
    Library(#[from] rustls::Error),
}

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's certificate was not good enough.
    #[error("certificate verify failed: {0}")]
    Certificate(String),
    /// The peer gave up, with TLS's word for its reason.
    #[error("handshake failed: the peer sent alert {0}")]
    Alert(String),
    /// The peer broke the protocol or shares none of our versions and ciphers.
    #[error("handshake failed: {0}")]
    Protocol(rustls::Error),
    /// The connection broke.
    #[error("handshake failed: {}", os_text(.0))]
    Io(io::Error),
    /// TLS without SSLRequest is allowed only to clients that name the protocol.
    #[error("direct TLS connection without ALPN protocol \"postgresql\"")]
    NoAlpn,
    /// Only TLS versions are configured that cannot be spoken.
    #[error(
        "handshake failed: of the configured TLS protocols none can be spoken, only TLSv1.2 \
             and TLSv1.3 can"
    )]
    NoVersion,
    /// The host's name cannot stand in a certificate.
    #[error("certificate verify failed: \"{0}\" is not a name that a certificate can have")]
    HostName(String),
    /// TLS is spoken over TCP only, and once.
    #[error("handshake failed: not a plain TCP connection")]
    NotTcp,
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(inner) => Self::from(inner.clone()),
            None => Self::Io(error),
        }
    }
}

impl From<rustls::Error> for HandshakeError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(reason) => Self::Certificate(verify_text(&reason)),
            rustls::Error::NoCertificatesPresented => {
                Self::Certificate("peer did not return a certificate".to_owned())
            }
            rustls::Error::AlertReceived(alert) => Self::Alert(format!("{alert:?}")),
            other => Self::Protocol(other),
        }
    }
}

/// The reason in few words. The library's own text for these lists times and names at length.
fn verify_text(reason: &CertificateError) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "certificate is not yet valid".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "unable to get issuer certificate: no trusted certificate signed it".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "name \"{}\" not present in server certificate, which has {}",
            expected.to_str(),
            if presented.is_empty() {
                "no name".to_owned()
            } else {
                presented.join(", ")
            }
        ),
        CertificateError::BadSignature => "certificate signature failure".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "unsuitable certificate purpose".to_owned()
        }
        CertificateError::Other(reason) => reason.0.to_string(),
        other => other.to_string(),
    }
}
