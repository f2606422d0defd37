//! Why a connection cannot go on, and who is to blame.

use pgweir_wire::FrameError;
use thiserror::Error;

/// Why a connection cannot go on.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Violation {
    /// The client sent a length that no message has, or that is over the limit.
    #[error("client sent {0}")]
    ClientFrame(FrameError),
    /// The client sent a message that does not belong here.
    #[error("client sent an unexpected message, type {0}")]
    ClientMessage(u8),
    /// The client sent a message that ends in the middle of a field.
    #[error("client sent a malformed message, type {0}")]
    ClientMalformed(u8),
    /// The client sent a simple query, which the configuration does not allow.
    #[error("client used \"Query\" packet type")]
    SimpleQuery,
    /// The client gave a name to two statements.
    #[error("prepared statement '{0}' was already prepared")]
    StatementExists(String),
    /// The client used a name that stands for nothing.
    #[error("prepared statement '{0}' did not exist")]
    StatementMissing(String),
    /// The server sent a length that no message has.
    #[error("server sent {0}")]
    ServerFrame(FrameError),
    /// The server answered something that it was not asked.
    #[error("server sent an unexpected message, type {0}")]
    ServerMessage(u8),
    /// The server sent a message that ends in the middle of a field.
    #[error("server sent a malformed message, type {0}")]
    ServerMalformed(u8),
    /// The server refused a query of the pooler's own; carries the server's message.
    #[error("server refused the pooler's own query: {0}")]
    OwnQueryFailed(String),
    /// The server did not take back what other clients had requested; carries its message.
    #[error("server kept the parameters of another client: {0}")]
    UndoFailed(String),
}

impl Violation {
    /// Whether the client is to blame, so that the server is as good as before.
    pub fn is_clients(&self) -> bool {
        match self {
            Self::ClientFrame(_)
            | Self::ClientMessage(_)
            | Self::ClientMalformed(_)
            | Self::SimpleQuery
            | Self::StatementExists(_)
            | Self::StatementMissing(_) => true,
            Self::ServerFrame(_)
            | Self::ServerMessage(_)
            | Self::ServerMalformed(_)
            | Self::OwnQueryFailed(_)
            | Self::UndoFailed(_) => false,
        }
    }
}
