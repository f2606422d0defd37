//! Why a login at a server does not succeed.

use thiserror::Error;

use crate::scram::initiator::{NoMechanism, Rejected};
use crate::scram::keys::TooManyIterations;
use crate::scram::messages::Malformed;

/// Why we could not log in. The texts are PgBouncer's where it has one.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ServerFailure {
    /// What we have cannot answer what the server asks.
    #[error("wrong password type")]
    WrongPasswordType,
    /// The keys of a client's proof belong to another secret than the server's.
    #[error(
        "the SCRAM secret of user \"{user}\" on the server is not the one known here \
         (salt or iteration count differ): copy rolpassword from pg_authid again"
    )]
    OtherSecret {
        /// Whose secret it is.
        user: String,
    },
    /// The server offers nothing that we speak.
    #[error("none of the server's SASL authentication mechanisms are supported")]
    NoMechanism,
    /// Channel binding is required and the server did not offer or do it.
    #[error("channel binding is required, but the server did not do SCRAM-SHA-256-PLUS")]
    ChannelBindingRequired,
    /// The server asks for more work than we do for anybody.
    #[error(transparent)]
    Iterations(#[from] TooManyIterations),
    /// A message of the server cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The server's nonce does not extend ours.
    #[error("invalid SCRAM response (nonce mismatch)")]
    Nonce,
    /// The server reports a failure inside SCRAM.
    #[error("error received from server in SCRAM exchange: {0}")]
    Reported(String),
    /// The server does not know the secret.
    #[error("invalid server signature")]
    Signature,
    /// AuthenticationOk came before the server had proven itself.
    #[error("server ended the SCRAM exchange before it had proven that it knows the password")]
    Unproven,
    /// The server sent something that does not belong here.
    #[error("unexpected authentication request from server")]
    OutOfOrder,
}

impl ServerFailure {
    /// Whether another secret might do.
    pub fn is_about_secret(&self) -> bool {
        match self {
            Self::WrongPasswordType | Self::OtherSecret { .. } | Self::Signature => true,
            Self::NoMechanism
            | Self::ChannelBindingRequired
            | Self::Iterations(_)
            | Self::Malformed(_)
            | Self::Nonce
            | Self::Reported(_)
            | Self::Unproven
            | Self::OutOfOrder => false,
        }
    }
}

impl From<NoMechanism> for ServerFailure {
    fn from(reason: NoMechanism) -> Self {
        match reason {
            NoMechanism::Unknown => Self::NoMechanism,
            NoMechanism::BindingRequired => Self::ChannelBindingRequired,
        }
    }
}

impl From<Rejected> for ServerFailure {
    fn from(rejected: Rejected) -> Self {
        match rejected {
            Rejected::Malformed(malformed) => Self::Malformed(malformed),
            Rejected::Nonce => Self::Nonce,
            Rejected::Error(word) => Self::Reported(word),
            Rejected::Signature => Self::Signature,
        }
    }
}
