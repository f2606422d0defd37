//! What must hold, whatever happens.
//!
//! - L1: PostgreSQL never has more connections than the limits say, by its own count.
//! - L2: a client gets one ReadyForQuery per Query and Sync, at most one error per batch, its
//!   replies in order, and only its own.
//! - L3: a client's tracked parameters are in force on whatever server answers it.
//! - L4: the pool's books balance ([`pgweir_pool::Pools::audit`]).
//! - L5: whoever waits is served in the end, and no server is lost on the way.
//! - L6: a statement that a client has prepared and not closed can be executed at any time. (A
//!   client that hears of a missing statement has a reply that it did not ask for: L2.)
//! - L7: nobody is sent away who has done nothing wrong, unless his server has died.
//! - L8: nothing of what was refused is run.

use pgweir_pool::Imbalance;
use pgweir_wire::Header;
use thiserror::Error;

pub use crate::sql::Token;

/// A law that did not hold.
#[derive(Clone, Debug, Error)]
pub enum Broken {
    /// L1
    #[error("L1: pool {pool} has {of_pool} connections, PostgreSQL {all} in all")]
    TooManyConnections {
        /// The pool whose connection was the last one.
        pool: usize,
        /// How many it has.
        of_pool: u32,
        /// How many there are.
        all: u32,
    },
    /// L2, seen by PostgreSQL.
    #[error("L2: {0}")]
    CrossTalk(String),
    /// L2, L6
    #[error("L2: client {client} got '{tag}' ({what}) while it awaited {awaited}")]
    WrongReply {
        /// Who.
        client: usize,
        /// The tag of the reply.
        tag: char,
        /// What is wrong with it.
        what: String,
        /// What the client awaited.
        awaited: String,
    },
    /// L8
    #[error("L8: {0} was refused and has been run")]
    RanRefused(Token),
    /// L3
    #[error("L3: client {client} set {mine}, but {token} ran with {there}")]
    ForeignSettings {
        /// Who.
        client: usize,
        /// The statement.
        token: Token,
        /// The parameters that the client has set.
        mine: String,
        /// Those that were in force.
        there: String,
    },
    /// L4
    #[error("L4: {0}")]
    Books(#[from] Imbalance),
    /// L5: somebody waits for ever.
    #[error("L5: life does not come to an end: {0}")]
    Starved(String),
    /// L5: a server that worked was closed instead of being cleaned up.
    #[error("L5: backend {backend} was given up: {why}")]
    GivenUp {
        /// Which one.
        backend: usize,
        /// Why.
        why: String,
    },
    /// L5: at the end PostgreSQL and the pool count differently.
    #[error("L5: PostgreSQL has {there} connections, the pool {ours}")]
    Lost {
        /// PostgreSQL's count.
        there: u32,
        /// The pool's count.
        ours: u32,
    },
    /// An assertion of the pool's or the relay's own; its message was printed.
    #[error("something panicked")]
    Panic,
    /// L7
    #[error("L7: client {client} was sent away: {why}")]
    SentAway {
        /// Who.
        client: usize,
        /// Why.
        why: String,
    },
}

/// A frame as a trace shows it.
pub(crate) fn show(tag: u8, body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body)
        .chars()
        .map(|c| if c.is_control() { '.' } else { c })
        .take(90)
        .collect();
    format!("{}[{text}]", tag as char)
}

/// Frames as a trace shows them.
pub(crate) fn show_all(mut bytes: &[u8]) -> String {
    let mut shown = Vec::new();
    while let Ok(Some((header, body))) = Header::whole(bytes, u32::MAX) {
        shown.push(show(header.tag, body));
        bytes = &bytes[header.frame_len()..];
    }
    if !bytes.is_empty() {
        shown.push(format!("and {} bytes", bytes.len()));
    }
    shown.join(" ")
}
