//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677, 5929) as PostgreSQL uses them.
//!
//! The [`acceptor`] is the side that checks a proof (SCRAM's server), the [`initiator`] the side
//! that gives one (SCRAM's client). Both are chains of types: each message consumes one state and
//! makes the next.

pub(crate) mod acceptor;
pub(crate) mod base64;
pub(crate) mod initiator;
pub(crate) mod keys;
pub(crate) mod messages;
pub(crate) mod saslprep;
