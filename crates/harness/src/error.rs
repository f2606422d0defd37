//! Everything that can go wrong here, with what the failing program said.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use crate::NotFound;

/// Why something could not be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no PostgreSQL server on this machine.
    #[error(transparent)]
    NotFound(#[from] NotFound),

    /// The server was found, but not this client program of PostgreSQL.
    #[error(
        "{program} not found, neither in {bin_dir} nor in PATH; it comes with PostgreSQL's client packages \
         (Debian, Ubuntu: sudo apt-get install postgresql)"
    )]
    NoProgram {
        /// `psql` or `pgbench`.
        program: &'static str,
        /// Where the server's own programs are.
        bin_dir: PathBuf,
    },

    /// There is no pooler to start.
    #[error("no pooler to start: {0}; build it with `cargo build -p pgweir` or set PGWEIR_BIN")]
    NoPooler(String),

    /// Running as root, and there is nobody to run as instead.
    #[error(
        "PostgreSQL and pgweir refuse to run as root, and neither the user postgres nor the user nobody \
         exists; create one (useradd --system postgres) or run this as an ordinary user"
    )]
    NobodyToRunAs,

    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, to what.
        doing: String,
        /// What the system said.
        source: io::Error,
    },

    /// A program ended with an error.
    #[error("{command}\nended with {status}:\n{output}")]
    Failed {
        /// The command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its standard error, or else its standard output.
        output: String,
    },

    /// A program did not end in time and was killed.
    #[error(
        "{command}\ndid not end within {limit:?} and was killed; until then it said:\n{output}"
    )]
    TooSlow {
        /// The command line.
        command: String,
        /// The deadline.
        limit: Duration,
        /// Both its outputs.
        output: String,
    },

    /// A server or the pooler ended while it should run.
    #[error("{name} ended with {status}; its log {log} says:\n{tail}")]
    Exited {
        /// `postgres` or the pooler's file name.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },

    /// A server or the pooler runs but did not do what was waited for.
    #[error("{name} did not {what} within {limit:?}; its log {log} says:\n{tail}")]
    NotReady {
        /// `postgres` or the pooler's file name.
        name: String,
        /// What was waited for.
        what: String,
        /// The deadline.
        limit: Duration,
        /// The log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
}

/// Puts the name of an action on an [`io::Error`].
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Io {
            doing: what(),
            source,
        })
    }
}

/// What a test wants: the value, or the error at the line that asked for it. A closure given to `unwrap_or_else`
/// would put its own line there.
#[track_caller]
pub(crate) fn must<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}
