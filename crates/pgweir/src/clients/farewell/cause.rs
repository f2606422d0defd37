//! What ended a client, or kept it without a server, in a word that does not change: for metrics.

use pgweir_pool::{Crowd, Refusal};
use pgweir_session::{Expiry, Violation};
use pgweir_wire::SqlState;

use super::Farewell;
use crate::process::shortage::Shortage;

impl Farewell {
    /// The SQLSTATE that PostgreSQL would give, whatever the dialect.
    pub(crate) fn sqlstate(&self) -> SqlState {
        self.code()
    }

    /// The key, the limit or the event behind it: one word of a fixed list.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ClientGone => "client_gone",
            Self::Startup(_) | Self::LoginMessage | Self::LongLoginMessage | Self::Header(_) => {
                "bad_packet"
            }
            Self::Short(short) => short.cause(),
            Self::BytesBehindRequest(_) => "bytes_before_encryption",
            Self::TlsRequired => "tls_required",
            Self::NoUser => "no_user",
            Self::Parameter(_) | Self::ParameterInOptions(_) | Self::Options => "startup_parameter",
            Self::ParameterRefused(_) => "parameter_value",
            Self::NoDatabase(_) => "no_database",
            Self::DatabaseDisabled(_) | Self::AuthDatabaseDisabled(_) => "database_disabled",
            Self::TooMany(full) => full.0.key(),
            Self::Authentication(_) | Self::NoSuchUser => "authentication",
            Self::NoMethod | Self::LoginRejected => "hba",
            Self::NotAllowed => "console_access",
            Self::Configuration | Self::NoLdapOptions => "configuration",
            Self::Expired(expiry) => match expiry {
                Expiry::Login => "client_login_timeout",
                Expiry::Idle => "client_idle_timeout",
                Expiry::QueryWait => "query_wait_timeout",
                Expiry::QueryWhileWaiting | Expiry::Query => "query_timeout",
                Expiry::Transaction => "transaction_timeout",
                Expiry::IdleTransaction => "idle_transaction_timeout",
            },
            Self::Refused(refusal) => match refusal {
                Refusal::Login(_) => "server_login",
                Refusal::Failing(failure) => {
                    Shortage::behind(failure).map_or("server_down", Shortage::cause)
                }
                Refusal::Closed(_) => "maintenance",
                Refusal::Removed => "database_removed",
                Refusal::Crowded(crowded) => match crowded.crowd {
                    Crowd::PoolQueue => "max_pool_waiting",
                    Crowd::AllQueues => "max_waiting",
                    Crowd::TooLong { .. } => "query_wait_target",
                },
            },
            Self::ServerLost | Self::ServerEnded => "server_lost",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Violation(violation) => match violation {
                Violation::StatementMissing(_) | Violation::StatementExists(_) => {
                    "prepared_statement"
                }
                Violation::SimpleQuery => "disable_pqexec",
                Violation::ClientFrame(_)
                | Violation::ClientMalformed(_)
                | Violation::ClientMessage(_) => "client_protocol",
                Violation::ServerFrame(_)
                | Violation::ServerMessage(_)
                | Violation::ServerMalformed(_) => "server_protocol",
                Violation::OwnQueryFailed(_) | Violation::UndoFailed(_) => "server_parameters",
            },
            Self::TransactionInStatementMode => "statement_mode",
            Self::ConsoleProtocol(_) => "console_protocol",
            Self::DatabaseChanged => "database_changed",
            Self::Leaked => "leak_after",
            Self::Killed | Self::Terminated => "killed",
            Self::Drained => "drained",
            Self::DatabaseRemoved => "database_removed",
            Self::ShuttingDown | Self::ServersShuttingDown => "shutdown",
            Self::SuspendTimeout => "suspend_timeout",
            Self::NotHeard(_) => "listener_lost",
            Self::NotReading => "listen_buffer",
        }
    }
}
