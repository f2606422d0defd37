//! What the process itself has too little of: no fault of PostgreSQL's, nor of a client's. One table for both
//! directions: clients that come, and servers that are opened.

use std::io;

use pgweir_pool::{Failure, FailureKind};
use pgweir_wire::SqlState;
use rustix::io::Errno;

use crate::operators::show;

/// What the kernel had none of for another socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Shortage {
    /// The limit on open files, of the process or of the machine.
    Files,
    Memory,
}

impl Shortage {
    /// What accept(2), socket(2) or connect(2) was short of, if it failed for that.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_io_error(error)? {
            Errno::MFILE | Errno::NFILE => Some(Self::Files),
            Errno::NOMEM | Errno::NOBUFS => Some(Self::Memory),
            _ => None,
        }
    }

    /// What made an attempt to open a server fail, if it was not PostgreSQL.
    pub(crate) fn behind(failure: &Failure) -> Option<Self> {
        if failure.kind != FailureKind::Own {
            return None;
        }
        match failure.sqlstate.map(SqlState) {
            Some(SqlState::OUT_OF_MEMORY) => Some(Self::Memory),
            _ => Some(Self::Files),
        }
    }

    /// An attempt to open a server that failed for it.
    pub(crate) fn failure(self) -> Failure {
        Failure {
            message: self.text().into(),
            sqlstate: Some(self.code().0),
            kind: FailureKind::Own,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Files => "the pooler can open no more files",
            Self::Memory => "the pooler is out of memory",
        }
    }

    pub(crate) fn code(self) -> SqlState {
        match self {
            Self::Files => SqlState::INSUFFICIENT_RESOURCES,
            Self::Memory => SqlState::OUT_OF_MEMORY,
        }
    }

    /// For metrics.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::Files => "open_files",
            Self::Memory => "memory",
        }
    }

    /// How much there is, where that can be known.
    pub(crate) fn detail(self) -> Option<String> {
        match self {
            Self::Files => {
                let (used, limit) = show::budget::files();
                limit.map(|limit| format!("open files is {limit}, {used} in use."))
            }
            Self::Memory => None,
        }
    }

    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Files => "Close what is not needed, or raise the process's limit.",
            Self::Memory => "The machine, or the group of processes, has too little memory.",
        }
    }
}

#[cfg(test)]
mod tests {
    use pgweir_config::ErrorCodes;
    use pgweir_pool::Refusal;
    use pgweir_wire::Severity;

    use super::*;
    use crate::clients::farewell::Farewell;

    const SHORTAGES: [(Errno, &str, &str); 4] = [
        (Errno::MFILE, "53000", "open_files"),
        (Errno::NFILE, "53000", "open_files"),
        (Errno::NOMEM, "53200", "memory"),
        (Errno::NOBUFS, "53200", "memory"),
    ];

    /// What is told: the code, the text and the word for metrics.
    #[track_caller]
    fn told(farewell: &Farewell, codes: ErrorCodes) -> (String, String, &'static str) {
        let answer = farewell.answer(codes).expect("somebody is told");
        assert_eq!(answer.severity, Severity::Fatal);
        let code = String::from_utf8_lossy(&answer.code.0).into_owned();
        (code, answer.text.into_owned(), farewell.cause())
    }

    #[test]
    fn who_comes_is_told_of_files_or_of_memory() {
        for (errno, code, cause) in SHORTAGES {
            let short = Shortage::of(&errno.into()).expect("it is one");
            let farewell = Farewell::Short(short);
            let text = short.text().to_owned();
            let expected = (code.to_owned(), text.clone(), cause);
            assert_eq!(told(&farewell, ErrorCodes::Postgres), expected, "{errno}");
            let expected = ("08P01".to_owned(), text, cause);
            assert_eq!(told(&farewell, ErrorCodes::Pgbouncer), expected, "{errno}");
            assert!(!farewell.spares_connection(ErrorCodes::Postgres));
        }
    }

    #[test]
    fn who_needs_a_server_is_told_of_files_or_of_memory_and_not_of_postgresql() {
        for (errno, code, cause) in SHORTAGES {
            let short = Shortage::of(&errno.into()).expect("it is one");
            let failure = short.failure();
            assert_eq!(Shortage::behind(&failure), Some(short));
            let farewell = Farewell::Refused(Refusal::Failing(failure));
            let expected = (code.to_owned(), short.text().to_owned(), cause);
            assert_eq!(told(&farewell, ErrorCodes::Postgres), expected, "{errno}");
            assert!(farewell.spares_connection(ErrorCodes::Postgres), "{errno}");
        }
    }

    #[test]
    fn what_others_have_done_is_no_shortage() {
        for errno in [Errno::CONNREFUSED, Errno::CONNABORTED, Errno::ACCESS] {
            assert_eq!(Shortage::of(&errno.into()), None, "{errno}");
        }
        let refused = Failure {
            kind: FailureKind::Busy,
            ..Shortage::Memory.failure()
        };
        assert_eq!(Shortage::behind(&refused), None);
    }
}
