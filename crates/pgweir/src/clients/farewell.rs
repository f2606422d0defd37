//! Why a client's connection ends, or a request is refused, and how the client is told.
//!
//! The only place that writes error text for clients. In the dialect of PgBouncer every reason is
//! FATAL 08P01 and its text is PgBouncer's; in that of PostgreSQL severity and SQLSTATE say what
//! drivers need to know: whether to retry, and whether the connection is still good.

pub(crate) mod asides;
mod cause;
mod code;
pub(crate) mod detail;
mod fate;

use std::borrow::Cow;
use std::sync::Arc;

use bytes::BytesMut;
use pgweir_config::ErrorCodes;
use pgweir_pool::{Budget, FailureKind, Gauge, Party, Refusal, Scope};
use pgweir_session::{Expiry, Refused, Violation};
use pgweir_wire::backend::Report;
use pgweir_wire::{FrameError, Severity, SqlState, StartupError};

use crate::clients::client::Client;
use crate::clients::farewell::detail::Explanation;
use crate::process::shortage::Shortage;
use crate::shared::Shared;
use crate::watch::strict;

pub(crate) use self::fate::Fate;

/// Why a client's connection ends.
#[derive(Clone, Debug)]
pub(crate) enum Farewell {
    /// The client said Terminate.
    ClientClosed,
    /// The client closed the socket without a word.
    ClientGone,
    /// The first packet cannot be understood.
    Startup(StartupError),
    /// Plain bytes behind a request for encryption: somebody in the middle.
    BytesBehindRequest(&'static str),
    /// The client must use TLS.
    TlsRequired,
    /// No user in the startup packet.
    NoUser,
    /// A startup parameter that is not kept per client.
    Parameter(String),
    /// The same, inside `options`.
    ParameterInOptions(String),
    /// `options` has another form than `-c name=value`.
    Options,
    /// PostgreSQL does not take a parameter of the client's.
    ParameterRefused(Box<Refused>),
    /// The database is in no configuration.
    NoDatabase(Arc<str>),
    /// The database was disabled by an operator.
    DatabaseDisabled(Arc<str>),
    /// The database in which users are looked up was disabled by an operator.
    AuthDatabaseDisabled(String),
    /// A limit on clients, and how it stood.
    TooMany(Box<(Scope, Gauge)>),
    /// The proof was wrong; the text does not say whether the user exists.
    Authentication(Cow<'static, str>),
    /// auth_query knows no such user.
    NoSuchUser,
    /// No HBA rule matches.
    NoMethod,
    /// An HBA rule rejects.
    LoginRejected,
    /// The user may not use the console.
    NotAllowed,
    /// The configuration makes this login impossible; the log says how.
    Configuration,
    /// A message of a length that none has.
    Header(FrameError),
    /// A message in login that does not belong there.
    LoginMessage,
    /// A message in login over the limit for those.
    LongLoginMessage,
    /// A time limit has passed.
    Expired(Expiry),
    /// The pool has no server and will not get one.
    Refused(Refusal),
    /// The server went away while the client held it.
    ServerLost,
    /// The same, and what the client asked for may have been committed or not.
    OutcomeUnknown,
    /// The same, and the server has told the client why: nobody is told twice.
    ServerEnded,
    /// A protocol violation of either side.
    Violation(Violation),
    /// BEGIN in statement mode.
    TransactionInStatementMode,
    /// The client spoke to the console as it does not speak; the console has told it so.
    ConsoleProtocol(&'static str),
    /// `server_fast_close`: its server's configuration has changed.
    DatabaseChanged,
    /// `leak_action = disconnect`: it held a server in silence.
    Leaked,
    /// KILL_CLIENT, or KILL CLIENTS.
    Killed,
    /// Another client has told PostgreSQL to end it, by the process id that this one was told.
    Terminated,
    /// DRAIN, or the end of the process: between two transactions, or at the deadline.
    Drained,
    /// KILL, or the database is no longer configured.
    DatabaseRemoved,
    /// The process ends: nothing new is begun.
    ShuttingDown,
    /// A client that would need a server while the process waits for servers to come free.
    ServersShuttingDown,
    /// The process has too little of something: it cannot even listen to who comes.
    Short(Shortage),
    /// `auth_type = ldap` without `auth_ldap_options`.
    NoLdapOptions,
    /// It could not be held within `suspend_timeout`.
    SuspendTimeout,
    /// The connection that listened for it is gone, and with it notifications, perhaps.
    NotHeard(Arc<str>),
    /// `listen_buffer`: it does not read its notifications.
    NotReading,
}

/// What is sent, before it is bytes.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) severity: Severity,
    pub(crate) code: SqlState,
    pub(crate) text: Cow<'static, str>,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

impl Answer {
    pub(crate) fn write(&self, out: &mut BytesMut) {
        Report {
            severity: self.severity,
            code: self.code,
            message: &self.text,
            detail: self.detail.as_deref(),
            hint: self.hint.as_deref(),
        }
        .write(out);
    }

    /// As it is sent.
    pub(crate) fn message(&self) -> Box<[u8]> {
        let mut out = BytesMut::new();
        self.write(&mut out);
        out[..].into()
    }
}

impl Farewell {
    /// A limit on clients is reached.
    pub(crate) fn too_many(scope: &Scope, budget: &Budget) -> Self {
        Self::TooMany(Box::new((scope.clone(), budget.gauge(scope))))
    }

    /// As [`Self::answer`], with numbers where the dialect has room for them.
    pub(crate) fn explained(
        &self,
        codes: ErrorCodes,
        shared: &Shared,
        client: &Client,
        party: Option<&Party>,
    ) -> Option<Answer> {
        let answer = self.answer(codes)?;
        if let hint @ Some(_) = strict::hint(shared, self) {
            return Some(Answer { hint, ..answer });
        }
        if codes == ErrorCodes::Pgbouncer {
            return Some(answer);
        }
        let Explanation {
            detail,
            hint,
            instead,
        } = detail::explain(shared, client, party, self);
        let answer = Answer {
            detail,
            hint,
            ..answer
        };
        Some(match instead {
            Some((code, reason)) => Answer {
                code,
                text: reason.into(),
                ..answer
            },
            None => answer,
        })
    }

    /// Whether nobody is there to be told why.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(
            self,
            Self::ClientClosed | Self::ClientGone | Self::ConsoleProtocol(_)
        )
    }

    /// What the client is told; `None` if there is nobody, or PostgreSQL has told it.
    pub(crate) fn answer(&self, codes: ErrorCodes) -> Option<Answer> {
        let text = match self {
            silent if silent.is_silent() => return None,
            Self::ServerEnded => return None,
            Self::ParameterRefused(refused) if codes == ErrorCodes::Postgres => {
                refused.message.clone().into()
            }
            // PostgreSQL has no part in it.
            Self::Refused(Refusal::Failing(failure))
                if codes == ErrorCodes::Postgres && failure.kind == FailureKind::Own =>
            {
                failure.message.to_string().into()
            }
            other => other.reason(),
        };
        let code = match codes {
            ErrorCodes::Pgbouncer => self
                .inherited_code()
                .unwrap_or(SqlState::PROTOCOL_VIOLATION),
            ErrorCodes::Postgres => self.code(),
        };
        Some(Answer {
            severity: Severity::Fatal,
            code,
            text,
            detail: None,
            hint: None,
        })
    }

    /// Whether the client can go on after being told. It can where nothing of what it asked has been
    /// run; PgBouncer closes even then.
    pub(crate) fn spares_connection(&self, codes: ErrorCodes) -> bool {
        let not_run = matches!(
            self,
            Self::Refused(_) | Self::Expired(Expiry::QueryWait | Expiry::QueryWhileWaiting)
        );
        not_run && codes == ErrorCodes::Postgres
    }

    /// The reason, in PgBouncer's words: for the client and for the log.
    pub(crate) fn reason(&self) -> Cow<'static, str> {
        match self {
            Self::ClientClosed => "client close request".into(),
            Self::ClientGone => "client unexpected eof".into(),
            Self::Startup(error) => error.to_string().into(),
            Self::BytesBehindRequest(what) => {
                format!("received unencrypted data after {what} request").into()
            }
            Self::TlsRequired => "SSL required".into(),
            Self::NoUser => "no username supplied".into(),
            Self::Parameter(name) => format!("unsupported startup parameter: {name}").into(),
            Self::ParameterInOptions(name) => {
                format!("unsupported startup parameter in options: {name}").into()
            }
            Self::Options => "unsupported options startup parameter: only '-c config=val' and \
                              '--config=val' are allowed"
                .into(),
            Self::ParameterRefused(refused) => {
                format!("invalid server parameter: {}", refused.message).into()
            }
            Self::NoDatabase(name) => format!("no such database: {name}").into(),
            Self::DatabaseDisabled(name) => format!("database \"{name}\" is disabled").into(),
            Self::AuthDatabaseDisabled(name) => {
                format!("authentication database \"{name}\" is disabled").into()
            }
            Self::TooMany(full) => match &full.0 {
                Scope::Clients => "no more connections allowed (max_client_conn)".into(),
                other => format!("client connections exceeded ({})", other.key()).into(),
            },
            Self::Authentication(text) => text.clone(),
            Self::NoSuchUser => "no such user".into(),
            Self::NoMethod => "no authentication method is found".into(),
            Self::LoginRejected => "login rejected".into(),
            Self::NotAllowed => "not allowed".into(),
            Self::Configuration => "bouncer config error".into(),
            Self::Header(error) => header_text(error).into(),
            Self::LoginMessage | Self::LongLoginMessage => "bad packet".into(),
            Self::Expired(expiry) => expiry_text(*expiry).into(),
            Self::Refused(Refusal::Crowded(_)) => "too many clients waiting for a server".into(),
            Self::Refused(Refusal::Closed(message)) => message.to_string().into(),
            Self::Refused(Refusal::Login(failure)) => failure.message.to_string().into(),
            Self::Refused(Refusal::Failing(failure)) => format!(
                "server login has been failing, cached error: {} (server_login_retry)",
                failure.message
            )
            .into(),
            Self::ServerLost | Self::OutcomeUnknown | Self::ServerEnded => {
                "server conn crashed?".into()
            }
            Self::Violation(violation) => violation_text(violation),
            Self::TransactionInStatementMode => {
                "transaction blocks not allowed in statement pooling mode".into()
            }
            Self::ConsoleProtocol(reason) => (*reason).into(),
            Self::DatabaseChanged => "database configuration changed".into(),
            Self::Leaked => "server held in silence (leak_after)".into(),
            Self::Killed => "admin forced disconnect".into(),
            Self::Terminated => "terminating connection due to administrator command".into(),
            Self::Drained => "terminating connection due to administrator command".into(),
            Self::DatabaseRemoved | Self::Refused(Refusal::Removed) => "database removed".into(),
            Self::ShuttingDown => "pooler is shutting down".into(),
            Self::ServersShuttingDown => "server shutting down".into(),
            Self::Short(short) => short.text().into(),
            Self::NoLdapOptions => "auth_ldap_options is null".into(),
            Self::SuspendTimeout => "suspend_timeout".into(),
            Self::NotHeard(why) => {
                format!("terminating connection because notifications may be lost: {why}").into()
            }
            Self::NotReading => {
                "terminating connection because notifications are not read (listen_buffer)".into()
            }
        }
    }
}

fn expiry_text(expiry: Expiry) -> &'static str {
    match expiry {
        Expiry::Login => "client_login_timeout",
        Expiry::Idle => "client_idle_timeout",
        Expiry::QueryWait => "query_wait_timeout",
        Expiry::QueryWhileWaiting => "query_timeout",
        Expiry::Query => "query timeout",
        Expiry::Transaction => "transaction timeout",
        Expiry::IdleTransaction => "idle transaction timeout",
    }
}

/// PgBouncer shows what it has read instead of a header.
fn header_text(error: &FrameError) -> String {
    let (FrameError::TooShort { tag, length } | FrameError::TooLong { tag, length, .. }) = error;
    format!("bad packet header: '{tag:02x}{length:08x}'")
}

fn violation_text(violation: &Violation) -> Cow<'static, str> {
    match violation {
        Violation::StatementMissing(_) => "prepared statement did not exist".into(),
        Violation::SimpleQuery => "PQexec disallowed".into(),
        Violation::StatementExists(_) => "prepared statement name is already in use".into(),
        Violation::ClientFrame(error) => header_text(error).into(),
        Violation::ClientMalformed(_) => "bad packet".into(),
        Violation::ClientMessage(_) => "unknown pkt".into(),
        Violation::ServerFrame(_) | Violation::ServerMessage(_) | Violation::ServerMalformed(_) => {
            "unexpected packet from server".into()
        }
        Violation::OwnQueryFailed(text) | Violation::UndoFailed(text) => {
            format!("invalid server parameter: {text}").into()
        }
    }
}
