//! Every answer that is not a table: completions, notices, errors, and the last words to a client
//! that does not speak the console's protocol.

use thiserror::Error;

use crate::command::{Command, Fixed};
use crate::encode::{command_complete, error_response, notice_response, ready_for_query};
use crate::help::HELP;
use crate::order::Order;
use crate::tables::VERSION_TABLE;

/// The longest statement repeated in an error, in bytes. PgBouncer's message buffer ends there too;
/// where it drops the connection we cut the text.
const ECHO_LEN_MAX: usize = 450;

/// Why a command failed. The session goes on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CommandError {
    /// The statement is none of the console's.
    #[error("invalid command '{0}', use SHOW HELP;")]
    Invalid(String),
    /// A word is too long, or the key of a SET is empty.
    #[error("bad arguments")]
    BadArguments,
    /// A stats user tried more than to look.
    #[error("admin access needed")]
    AdminAccessNeeded,
    /// There is no such key, it cannot change at run time, or the value is not one of its.
    #[error("SET failed")]
    SetFailed,
    /// The configuration did not load; the old one stays.
    #[error("RELOAD failed, see logs for additional details")]
    ReloadFailed,
    /// PAUSE, SUSPEND or KILL while the whole pooler is paused or suspended.
    #[error("already suspended/paused")]
    AlreadyPaused,
    /// RESUME without a pause.
    #[error("pooler is not paused/suspended")]
    NotPaused,
    /// RESUME too late.
    #[error("pooler is shutting down")]
    ShuttingDown,
    /// RESUME of a database that runs.
    #[error("database {0} is not paused")]
    DatabaseNotPaused(String),
    /// SUSPEND has to flush buffers, which a paused database would hold back.
    #[error("cannot suspend with paused databases")]
    SuspendWithPausedDatabases,
    /// The database is neither configured nor covered by `*`.
    #[error("no such database: {0}")]
    NoSuchDatabase(String),
    /// The console cannot be commanded away under its own user.
    #[error("cannot {verb} admin db: {database}")]
    AdminDatabase {
        /// What was tried.
        verb: Verb,
        /// The console's name, as given.
        database: String,
    },
    /// DISABLE and ENABLE have no form for all databases.
    #[error("a database is required")]
    DatabaseRequired,
    /// The id of KILL_CLIENT is not a number.
    #[error("invalid client pointer supplied")]
    InvalidClientPointer,
    /// No client has that id.
    #[error("client not found")]
    ClientNotFound,
    /// An order of ours is written wrong: where, and what is expected there.
    #[error("syntax error {0}")]
    Syntax(String),
    /// An order of ours cannot be carried out: why.
    #[error("{0}")]
    Impossible(String),
}

/// What cannot be done to the console's own database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// PAUSE.
    Pause,
    /// DISABLE.
    Disable,
    /// ENABLE.
    Enable,
    /// RECONNECT.
    Reconnect,
    /// KILL.
    Kill,
    /// WAIT_CLOSE.
    WaitClose,
    /// MAINTENANCE.
    Maintain,
    /// DRAIN.
    Drain,
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pause => "pause",
            // PgBouncer's word for both.
            Self::Disable | Self::Enable => "disable",
            Self::Reconnect => "reconnect",
            Self::Kill => "kill",
            Self::WaitClose => "wait in",
            Self::Maintain => "maintain",
            Self::Drain => "drain",
        })
    }
}

/// A remark sent before the completion of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The SET is stored, but the TLS settings do not work together yet.
    TlsNotApplied,
}

/// Why the console hangs up on a client that breaks its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Parse, Bind or Execute.
    #[error("extended query protocol not supported by admin console")]
    ExtendedQuery,
    /// Another message that servers know.
    #[error("unsupported packet type for admin console: {0}")]
    UnsupportedPacket(u8),
    /// A message that nobody knows.
    #[error("unknown pkt")]
    UnknownPacket,
    /// Longer than [`crate::FRAME_LEN_MAX`].
    #[error("incomplete pkt")]
    FrameTooLong,
    /// A Query without its final zero.
    #[error("incomplete query")]
    UnterminatedQuery,
}

impl CommandError {
    /// The error for a statement that is none of the console's.
    pub fn invalid(text: &str) -> Self {
        let mut end = text.len().min(ECHO_LEN_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Self::Invalid(text[..end].to_owned())
    }

    /// The SQLSTATE that PgBouncer sends with it; for our own errors, PostgreSQL's.
    pub const fn sqlstate(&self) -> &'static str {
        match self {
            Self::ReloadFailed => "F0000",
            Self::Syntax(_) => "42601",
            Self::Impossible(_) => "22023",
            Self::Invalid(_)
            | Self::BadArguments
            | Self::AdminAccessNeeded
            | Self::SetFailed
            | Self::AlreadyPaused
            | Self::NotPaused
            | Self::ShuttingDown
            | Self::DatabaseNotPaused(_)
            | Self::SuspendWithPausedDatabases
            | Self::NoSuchDatabase(_)
            | Self::AdminDatabase { .. }
            | Self::DatabaseRequired
            | Self::InvalidClientPointer
            | Self::ClientNotFound => PROTOCOL_VIOLATION,
        }
    }

    /// Appends the error and ReadyForQuery.
    pub fn write(&self, out: &mut Vec<u8>) {
        error_response(out, "ERROR", self.sqlstate(), &self.to_string());
        ready_for_query(out);
    }
}

impl Command {
    /// Appends the completion of this command and ReadyForQuery.
    ///
    /// Not for SHOW, which ends with its table, nor for an immediate SHUTDOWN, which has no answer but
    /// the end of the connection.
    pub fn write_done(&self, notice: Option<Notice>, out: &mut Vec<u8>) {
        debug_assert!(!matches!(self, Self::Show(_)), "a table ends itself");
        if let Some(Notice::TlsNotApplied) = notice {
            let text = "TLS settings could not be applied, still using old configuration";
            notice_response(out, text, None);
        }
        match self {
            Self::Set { key, value } => command_complete(out, &format!("SET {key}={value}")),
            other => command_complete(out, other.tag()),
        }
        ready_for_query(out);
    }
}

impl Order {
    /// Appends the completion of an order that has ended so many clients, and ReadyForQuery.
    pub fn write_count(&self, count: usize, out: &mut Vec<u8>) {
        command_complete(out, &format!("{} {count}", self.tag()));
        ready_for_query(out);
    }
}

impl Fixed {
    /// Appends the whole answer.
    pub fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Help => {
                notice_response(out, "Console usage", Some(HELP));
                command_complete(out, "SHOW");
                ready_for_query(out);
            }
            Self::Version => VERSION_TABLE.write_reply(&[()], out),
            Self::ShowSetting(setting) => setting.table().write_reply(&[()], out),
            Self::SetIgnored => {
                notice_response(out, "SET ignored", None);
                command_complete(out, "SET");
                ready_for_query(out);
            }
        }
    }
}

impl ProtocolError {
    /// Appends the last words; the caller closes after them.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        if let Some(error) = self.error() {
            // Two errors with a ReadyForQuery between: odd, but what clients of PgBouncer see.
            error_response(out, "ERROR", PROTOCOL_VIOLATION, &error);
            ready_for_query(out);
        }
        error_response(out, "FATAL", PROTOCOL_VIOLATION, self.reason());
    }

    /// The error that comes before the last one, if there are two.
    pub fn error(self) -> Option<String> {
        match self {
            Self::ExtendedQuery | Self::UnsupportedPacket(_) => Some(self.to_string()),
            Self::UnknownPacket | Self::FrameTooLong | Self::UnterminatedQuery => None,
        }
    }

    /// Why the connection ends, as the client and the log are told.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ExtendedQuery | Self::UnsupportedPacket(_) => "bad packet",
            Self::UnknownPacket => "unknown pkt",
            Self::FrameTooLong => "incomplete pkt",
            Self::UnterminatedQuery => "incomplete query",
        }
    }
}

/// The SQLSTATE PgBouncer uses for nearly everything.
const PROTOCOL_VIOLATION: &str = "08P01";

#[cfg(test)]
mod tests {
    use super::*;

    fn written(error: &CommandError) -> Vec<u8> {
        let mut out = Vec::new();
        error.write(&mut out);
        out
    }

    #[test]
    fn every_error_has_pgbouncers_text() {
        let database = || "p0".to_owned();
        let about_console = |verb| CommandError::AdminDatabase {
            verb,
            database: "pgbouncer".to_owned(),
        };
        let table = [
            (
                CommandError::invalid("foo"),
                "invalid command 'foo', use SHOW HELP;",
            ),
            (CommandError::BadArguments, "bad arguments"),
            (CommandError::AdminAccessNeeded, "admin access needed"),
            (CommandError::SetFailed, "SET failed"),
            (
                CommandError::ReloadFailed,
                "RELOAD failed, see logs for additional details",
            ),
            (CommandError::AlreadyPaused, "already suspended/paused"),
            (CommandError::NotPaused, "pooler is not paused/suspended"),
            (CommandError::ShuttingDown, "pooler is shutting down"),
            (
                CommandError::DatabaseNotPaused(database()),
                "database p0 is not paused",
            ),
            (
                CommandError::SuspendWithPausedDatabases,
                "cannot suspend with paused databases",
            ),
            (
                CommandError::NoSuchDatabase(database()),
                "no such database: p0",
            ),
            (
                about_console(Verb::Pause),
                "cannot pause admin db: pgbouncer",
            ),
            (
                about_console(Verb::Disable),
                "cannot disable admin db: pgbouncer",
            ),
            (
                about_console(Verb::Enable),
                "cannot disable admin db: pgbouncer",
            ),
            (
                about_console(Verb::Reconnect),
                "cannot reconnect admin db: pgbouncer",
            ),
            (about_console(Verb::Kill), "cannot kill admin db: pgbouncer"),
            (
                about_console(Verb::WaitClose),
                "cannot wait in admin db: pgbouncer",
            ),
            (CommandError::DatabaseRequired, "a database is required"),
            (
                CommandError::InvalidClientPointer,
                "invalid client pointer supplied",
            ),
            (CommandError::ClientNotFound, "client not found"),
        ];
        for (error, text) in table {
            assert_eq!(error.to_string(), text);
            let reload = error == CommandError::ReloadFailed;
            assert_eq!(error.sqlstate(), if reload { "F0000" } else { "08P01" });
        }
    }

    #[test]
    fn an_error_has_three_fields_and_is_followed_by_ready() {
        assert_eq!(
            written(&CommandError::invalid("fifteenchars_15")),
            b"E\0\0\0FSERROR\0C08P01\0Minvalid command 'fifteenchars_15', use SHOW HELP;\0\0\
              Z\0\0\0\x05I"
        );
        assert_eq!(
            written(&CommandError::BadArguments),
            b"E\0\0\0\"SERROR\0C08P01\0Mbad arguments\0\0Z\0\0\0\x05I"
        );
    }

    #[test]
    fn a_long_statement_is_cut_between_characters() {
        let text = "é".repeat(300);
        let CommandError::Invalid(echo) = CommandError::invalid(&text) else {
            unreachable!()
        };
        assert_eq!(echo.len(), 450);
        assert!(text.starts_with(&echo));
    }

    #[test]
    fn set_repeats_key_and_value() {
        let mut out = Vec::new();
        let set = Command::Set {
            key: "verbose".to_owned(),
            value: "0".to_owned(),
        };
        set.write_done(None, &mut out);
        assert_eq!(out, b"C\0\0\0\x12SET verbose=0\0Z\0\0\0\x05I");
    }

    #[test]
    fn tls_settings_that_do_not_work_yet_are_noticed() {
        let mut out = Vec::new();
        let set = Command::Set {
            key: "client_tls_sslmode".to_owned(),
            value: "require".to_owned(),
        };
        set.write_done(Some(Notice::TlsNotApplied), &mut out);
        assert!(out.starts_with(
            b"N\0\0\0VSNOTICE\0C00000\0MTLS settings could not be applied, still using old \
              configuration\0\0C"
        ));
    }

    #[test]
    fn other_commands_complete_with_their_name() {
        let mut out = Vec::new();
        Command::Pause(None).write_done(None, &mut out);
        assert_eq!(out, b"C\0\0\0\nPAUSE\0Z\0\0\0\x05I");
    }

    #[test]
    fn ignored_settings_are_noticed() {
        let mut out = Vec::new();
        Fixed::SetIgnored.write(&mut out);
        assert_eq!(
            out,
            b"N\0\0\0!SNOTICE\0C00000\0MSET ignored\0\0C\0\0\0\x08SET\0Z\0\0\0\x05I"
        );
    }
}
