//! The SQLSTATE of each reason.

use pgweir_pool::Refusal;
use pgweir_session::{Expiry, Violation};
use pgweir_wire::{FrameError, SqlState, StartupError};

use super::Farewell;
use crate::process::shortage::Shortage;

impl Farewell {
    /// The SQLSTATE that a server gave, which PgBouncer passes on.
    pub(super) fn inherited_code(&self) -> Option<SqlState> {
        match self {
            Self::Refused(Refusal::Login(failure)) => failure.sqlstate.map(SqlState),
            _ => None,
        }
    }

    /// What drivers know it by.
    pub(super) fn code(&self) -> SqlState {
        match self {
            Self::ClientClosed | Self::ClientGone | Self::ServerLost | Self::ServerEnded => {
                SqlState::CONNECTION_FAILURE
            }
            Self::OutcomeUnknown => SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
            Self::Startup(StartupError::TooLong(_)) => SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            Self::LongLoginMessage => SqlState::PROGRAM_LIMIT_EXCEEDED,
            Self::Header(error) => frame_code(error),
            Self::Violation(violation) => violation_code(violation),
            Self::Short(short) => short.code(),
            Self::Startup(_)
            | Self::BytesBehindRequest(_)
            | Self::LoginMessage
            | Self::ConsoleProtocol(_) => SqlState::PROTOCOL_VIOLATION,
            Self::TlsRequired | Self::NoUser | Self::NoMethod | Self::LoginRejected => {
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION
            }
            Self::NotAllowed => SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            Self::Leaked => SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            Self::Authentication(_) | Self::NoSuchUser => SqlState::INVALID_PASSWORD,
            Self::Parameter(_)
            | Self::ParameterInOptions(_)
            | Self::Options
            | Self::TransactionInStatementMode => SqlState::FEATURE_NOT_SUPPORTED,
            Self::ParameterRefused(refused) => {
                refused.code.unwrap_or(SqlState::INVALID_PARAMETER_VALUE)
            }
            Self::NoDatabase(_) => SqlState::INVALID_CATALOG_NAME,
            Self::TooMany(_) => SqlState::TOO_MANY_CONNECTIONS,
            Self::Configuration | Self::NoLdapOptions => SqlState::INTERNAL_ERROR,
            Self::Expired(expiry) => match expiry {
                Expiry::Login | Expiry::Query => SqlState::QUERY_CANCELED,
                Expiry::QueryWait | Expiry::QueryWhileWaiting => SqlState::TOO_MANY_CONNECTIONS,
                Expiry::Idle => SqlState::IDLE_SESSION_TIMEOUT,
                Expiry::Transaction => SqlState::TRANSACTION_TIMEOUT,
                Expiry::IdleTransaction => SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            },
            Self::Refused(Refusal::Login(failure)) => failure
                .sqlstate
                .map_or(SqlState::CANNOT_CONNECT_NOW, SqlState),
            Self::Refused(Refusal::Crowded(_)) => SqlState::TOO_MANY_CONNECTIONS,
            Self::Refused(Refusal::Failing(failure)) => {
                Shortage::behind(failure).map_or(SqlState::CANNOT_CONNECT_NOW, Shortage::code)
            }
            Self::Refused(Refusal::Closed(_))
            | Self::DatabaseDisabled(_)
            | Self::AuthDatabaseDisabled(_)
            | Self::ShuttingDown => SqlState::CANNOT_CONNECT_NOW,
            Self::DatabaseChanged
            | Self::Killed
            | Self::Terminated
            | Self::Drained
            | Self::DatabaseRemoved
            | Self::Refused(Refusal::Removed)
            | Self::SuspendTimeout
            | Self::NotHeard(_)
            | Self::ServersShuttingDown => SqlState::ADMIN_SHUTDOWN,
            Self::NotReading => SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        }
    }
}

fn violation_code(violation: &Violation) -> SqlState {
    match violation {
        Violation::StatementMissing(_) => SqlState::INVALID_SQL_STATEMENT_NAME,
        Violation::SimpleQuery => SqlState::FEATURE_NOT_SUPPORTED,
        Violation::StatementExists(_) => SqlState::DUPLICATE_PREPARED_STATEMENT,
        Violation::ClientFrame(error) => frame_code(error),
        Violation::ClientMessage(_) | Violation::ClientMalformed(_) => SqlState::PROTOCOL_VIOLATION,
        Violation::ServerFrame(_)
        | Violation::ServerMessage(_)
        | Violation::ServerMalformed(_)
        | Violation::OwnQueryFailed(_)
        | Violation::UndoFailed(_) => SqlState::CONNECTION_FAILURE,
    }
}

/// A length may be one that the protocol allows and a limit does not.
fn frame_code(error: &FrameError) -> SqlState {
    match error {
        FrameError::TooLong { length, .. } if i32::try_from(*length).is_ok() => {
            SqlState::PROGRAM_LIMIT_EXCEEDED
        }
        FrameError::TooLong { .. } | FrameError::TooShort { .. } => SqlState::PROTOCOL_VIOLATION,
    }
}
