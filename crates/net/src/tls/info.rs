//! What a handshake agreed on, in the names that OpenSSL gives it.

use std::fmt;

use rustls::{CipherSuite, CommonState, ProtocolVersion};

/// The protocol version and cipher suite of a connection, such as `TLSv1.3` and
/// `TLS_AES_256_GCM_SHA384`. Printed as `TLSv1.3/TLS_AES_256_GCM_SHA384`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// The protocol version.
    pub version: &'static str,
    /// The cipher suite.
    pub cipher: &'static str,
}

impl TlsInfo {
    pub(crate) fn of(state: &CommonState) -> Self {
        let version = match state.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            // Nothing else is ever negotiated.
            Some(_) | None => "unknown",
        };
        let cipher = state
            .negotiated_cipher_suite()
            .and_then(|suite| openssl_name(suite.suite()))
            .unwrap_or("unknown");
        Self { version, cipher }
    }
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.version, self.cipher)
    }
}

/// The cipher suites that can be spoken, with OpenSSL's names.
const NAMES: [(&str, CipherSuite); 9] = [
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-RSA-CHACHA20-POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
];

/// OpenSSL's name of a cipher suite.
fn openssl_name(suite: CipherSuite) -> Option<&'static str> {
    NAMES
        .iter()
        .find(|(_, known)| *known == suite)
        .map(|(name, _)| *name)
}

/// The cipher suite with this name, if it can be spoken.
pub(crate) fn suite_named(name: &str) -> Option<CipherSuite> {
    NAMES
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, suite)| *suite)
}
