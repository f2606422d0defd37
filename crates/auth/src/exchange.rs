//! The words both exchanges share: what an authenticating side sends, and what it needs for that.

use std::fmt;

/// What an authenticating side sends: the kinds of Authentication message that ask for more.
///
/// We send these to clients, PostgreSQL sends them to us.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the peer waits for this message"]
pub enum Challenge {
    /// AuthenticationCleartextPassword.
    CleartextPassword,
    /// AuthenticationMD5Password.
    Md5Password {
        /// To be mixed into the hash.
        salt: [u8; 4],
    },
    /// AuthenticationSASL: the mechanisms offered, best first. Names that we do not know are left
    /// out, so a list may be empty.
    Sasl(Vec<Mechanism>),
    /// AuthenticationSASLContinue.
    SaslContinue(Vec<u8>),
    /// AuthenticationSASLFinal.
    SaslFinal(Vec<u8>),
}

/// A SASL mechanism that we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// SCRAM with SHA-256 (RFC 7677).
    ScramSha256,
    /// The same, bound to the TLS connection underneath (RFC 5929).
    ScramSha256Plus,
}

impl Mechanism {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    /// The mechanism of that name, if we speak it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::ScramSha256, Self::ScramSha256Plus]
            .into_iter()
            .find(|m| m.name() == name)
    }
}

/// Whether SCRAM can be bound to the TLS connection underneath.
///
/// The data is that of type `tls-server-end-point`: the hash of the certificate of the side that
/// accepted the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// No TLS, or binding is not wanted.
    #[default]
    Unavailable,
    /// Used when the peer can.
    Available(Vec<u8>),
    /// Without it the exchange fails.
    Required(Vec<u8>),
}

impl ChannelBinding {
    pub(crate) fn data(&self) -> Option<&[u8]> {
        match self {
            Self::Unavailable => None,
            Self::Available(data) | Self::Required(data) => Some(data),
        }
    }
}

/// Fresh random bytes for one SCRAM exchange.
///
/// 18 bytes as in PostgreSQL: they become 24 characters of base64. They must be unpredictable and
/// never be used twice.
#[derive(Clone, Copy)]
pub struct Nonce(pub [u8; 18]);

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonce(..)")
    }
}
