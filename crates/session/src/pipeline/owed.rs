//! What is owed: to which message there will be a reply, and what the client gets to see of it.

use serde::{Deserialize, Serialize};

/// Which message the server answers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Awaited {
    /// Parse → ParseComplete.
    Parse,
    /// Bind → BindComplete.
    Bind,
    /// Describe → RowDescription or NoData.
    Describe,
    /// Execute → CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// Close → CloseComplete.
    Close,
    /// Sync → ReadyForQuery.
    Sync,
    /// Query → … ReadyForQuery.
    Query,
    /// FunctionCall → … ReadyForQuery.
    FunctionCall,
    /// CopyDone or CopyFail, to which there is no reply: marks where a COPY IN ends.
    CopyEnd,
    /// Nobody knows: it was sent, if anything was, before this process had the connection.
    Unknown,
}

impl Awaited {
    /// Whether ReadyForQuery is the reply's end.
    pub(crate) fn ends_with_ready(self) -> bool {
        match self {
            Self::Sync | Self::Query | Self::FunctionCall | Self::Unknown => true,
            Self::Parse
            | Self::Bind
            | Self::Describe
            | Self::Execute
            | Self::Close
            | Self::CopyEnd => false,
        }
    }
}

/// What the client gets to see of a reply.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Reply {
    /// The server's reply.
    Forward,
    /// Nothing: the pooler asked, not the client.
    Skip,
    /// The pooler's own: the server was not asked.
    Fake,
}

/// A reply that the server owes, or that the pooler does.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Owed {
    pub(super) awaited: Awaited,
    pub(super) reply: Reply,
    /// Whether the first of the pipeline's changes comes with it.
    pub(super) changes: bool,
    /// Whether it may make the server forget its prepared statements.
    pub(super) forgets: bool,
}
