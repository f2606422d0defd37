//! Why a client was not let in: what it is told, and what only the log may say.

use thiserror::Error;

use crate::scram::acceptor::{BindingMismatch, Rejected};
use crate::scram::keys::TooManyIterations;
use crate::scram::messages::Malformed;
use crate::secret::BadPassword;

/// A failed exchange: what the client is told, and what only the log may say.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{refusal}: {cause}")]
pub struct Failure {
    /// What the client is told.
    pub refusal: Refusal,
    /// What happened. A client must not see this: it tells whether a user exists.
    pub cause: Cause,
}

impl Failure {
    /// What PgBouncer logs of it as an error, before it says what the client is told. Filters that ban addresses
    /// look for these words.
    pub fn log_line(&self) -> Option<String> {
        if self.refusal != Refusal::Sasl {
            return None;
        }
        Some(match &self.cause {
            Cause::WrongPassword | Cause::UnknownUser | Cause::EmptySecret => {
                Refusal::Password.to_string()
            }
            Cause::Md5SecretForScram => {
                "SCRAM authentication failed: user has MD5 secret".to_owned()
            }
            Cause::Nonce => "invalid SCRAM response (nonce does not match)".to_owned(),
            Cause::Malformed(malformed) => format!("malformed SCRAM message ({malformed})"),
            Cause::EmptyPassword
            | Cause::BadPassword(_)
            | Cause::Mechanism(_)
            | Cause::BindingDowngrade
            | Cause::BindingContradiction
            | Cause::BindingType
            | Cause::BindingData
            | Cause::Iterations(_) => self.cause.to_string(),
        })
    }
}

/// What a client is told, in PgBouncer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Cleartext and md5.
    #[error("password authentication failed")]
    Password,
    /// SCRAM.
    #[error("SASL authentication failed")]
    Sasl,
    /// The client sent an empty password, which never is right.
    #[error("empty password returned by client")]
    EmptyPassword,
    /// The client chose a mechanism that was not offered.
    #[error("client selected an invalid SASL authentication mechanism")]
    InvalidMechanism,
}

/// Why an exchange failed, for the log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// There is no such user.
    #[error("no such user")]
    UnknownUser,
    /// The user is known, but its stored secret is empty.
    #[error("the stored secret of this user is empty")]
    EmptySecret,
    /// SCRAM cannot be done with an md5 secret.
    #[error("the stored secret of this user is an md5 hash, which SCRAM cannot use")]
    Md5SecretForScram,
    /// The answer does not fit the secret.
    #[error("wrong password")]
    WrongPassword,
    /// The client sent nothing.
    #[error("empty password")]
    EmptyPassword,
    /// The client sent more than a password can be.
    #[error(transparent)]
    BadPassword(#[from] BadPassword),
    /// The message cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The client chose this mechanism, which was not offered.
    #[error("the client chose mechanism {0:?}, which was not offered")]
    Mechanism(String),
    /// The client believes that channel binding is not offered, but it is.
    #[error("the client did not see that channel binding is offered: the list was tampered with")]
    BindingDowngrade,
    /// Mechanism and header contradict each other.
    #[error("SCRAM mechanism and channel binding flag contradict each other")]
    BindingContradiction,
    /// A type of channel binding that PostgreSQL does not have either.
    #[error("unsupported SCRAM channel binding type (supported is tls-server-end-point)")]
    BindingType,
    /// The client's channel binding data are not ours.
    #[error("SCRAM channel binding does not fit this connection")]
    BindingData,
    /// The nonce is not that of this exchange.
    #[error("SCRAM nonce does not match")]
    Nonce,
    /// Checking the password would take too long.
    #[error("stored secret: {0}")]
    Iterations(#[from] TooManyIterations),
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        let sasl = |cause| Self {
            refusal: Refusal::Sasl,
            cause,
        };
        match rejected {
            Rejected::Malformed(malformed) => sasl(malformed.into()),
            Rejected::Mechanism(name) => Self {
                refusal: Refusal::InvalidMechanism,
                cause: Cause::Mechanism(name),
            },
            Rejected::Binding(BindingMismatch::Downgrade) => sasl(Cause::BindingDowngrade),
            Rejected::Binding(BindingMismatch::Mechanism) => sasl(Cause::BindingContradiction),
            Rejected::Binding(BindingMismatch::Type) => sasl(Cause::BindingType),
            Rejected::Binding(BindingMismatch::Data) => sasl(Cause::BindingData),
            Rejected::Nonce => sasl(Cause::Nonce),
            Rejected::Proof => sasl(Cause::WrongPassword),
        }
    }
}
