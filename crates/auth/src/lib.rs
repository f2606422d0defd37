//! Who may log in, and how we log in ourselves.
//!
//! Authentication exchanges as pure state machines for both sides: [`ClientAuthentication`] asks a
//! client for proof of its password, [`ServerAuthentication`] answers when PostgreSQL asks us.
//! Besides them the files that steer authentication: [`userlist`] (who has which secret), [`hba`]
//! (who is asked for what) and [`ident`] (which operating system user may be which database user).
//! [`ldap`] is what it takes to let an LDAP server judge a password.
//!
//! Nothing here does I/O, reads a clock or draws random numbers. Payloads of messages come in and
//! go out; random bytes are arguments; the one slow computation, SCRAM's password hashing, is
//! handed out as a [`SaltedPasswordJob`] that any thread can run and whose result can be kept.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod basic;
mod client;
mod exchange;
pub mod hba;
pub mod ident;
pub mod ldap;
mod md5;
mod mock;
mod rds;
mod scram;
mod secret;
mod server;
mod tokens;
pub mod userlist;

pub use basic::BasicCredentials;
pub use client::{
    AwaitingKeys, Cause, ClientAuthentication, ClientLogin, Failure, PasswordMethod, Policy, Proof,
    Refusal, Step, Success, read_password,
};
pub use exchange::{Challenge, ChannelBinding, Mechanism, Nonce};
pub use mock::ProcessKey;
pub use rds::{AwsCredentials, rds_region, rds_token};
pub use scram::keys::{Fingerprint, Iterations, Key, Keys, SaltedPasswordJob, TooManyIterations};
pub use scram::messages::Malformed;
pub use secret::{BadPassword, Md5Secret, Password, ScramSecret, Secret, SecretKind};
pub use server::{
    Answer, ServerAuthentication, ServerAwaitingKeys, ServerFailure, ServerLogin, ServerSecret,
    ServerStep,
};
