//! What becomes of the server that a client leaves behind.

use std::borrow::Cow;

use super::Farewell;
use crate::servers::close::Busy;

/// What becomes of a server whose client has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// It is made fit for the next client.
    Reset,
    /// Nobody may get it again.
    Close {
        reason: Cow<'static, str>,
        busy: Busy,
    },
}

impl Farewell {
    /// What becomes of the server that the client held, if it held one.
    pub(crate) fn fate(&self) -> Fate {
        match self {
            Self::ServerLost | Self::OutcomeUnknown | Self::ServerEnded => Fate::Close {
                reason: "server conn crashed?".into(),
                busy: Busy::Gone,
            },
            // Our books and the server disagree, or a message was cut.
            Self::Violation(violation) if !violation.is_clients() => Fate::Close {
                reason: violation.to_string().into(),
                busy: Busy::Yes,
            },
            Self::DatabaseChanged | Self::DatabaseRemoved => Fate::Close {
                reason: "database configuration changed".into(),
                busy: Busy::Yes,
            },
            Self::Violation(_)
            | Self::ClientClosed
            | Self::ClientGone
            | Self::Startup(_)
            | Self::BytesBehindRequest(_)
            | Self::TlsRequired
            | Self::NoUser
            | Self::Parameter(_)
            | Self::ParameterInOptions(_)
            | Self::Options
            | Self::ParameterRefused(_)
            | Self::NoDatabase(_)
            | Self::DatabaseDisabled(_)
            | Self::AuthDatabaseDisabled(_)
            | Self::TooMany(_)
            | Self::Authentication(_)
            | Self::NoSuchUser
            | Self::NoMethod
            | Self::LoginRejected
            | Self::NotAllowed
            | Self::Configuration
            | Self::Header(_)
            | Self::LoginMessage
            | Self::LongLoginMessage
            | Self::Expired(_)
            | Self::Refused(_)
            | Self::TransactionInStatementMode
            | Self::ConsoleProtocol(_)
            | Self::Leaked
            | Self::Killed
            | Self::Terminated
            | Self::Drained
            | Self::ShuttingDown
            | Self::ServersShuttingDown
            | Self::Short(_)
            | Self::NoLdapOptions
            | Self::SuspendTimeout
            | Self::NotHeard(_)
            | Self::NotReading => Fate::Reset,
        }
    }
}
