//! The forms that a value's text can have, and how an error names them.

use std::fmt;

use super::{LeakAction, StatePolicies, StrictAllow};

/// The form of a value's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Words divided by commas.
    List,
    /// A whole number, in decimal, octal (`0777`) or hexadecimal (`0x10`).
    Integer,
    /// 0 or 1; any other whole number counts as 1.
    Boolean,
    /// Seconds, possibly with a fraction.
    Seconds,
    /// Applications, each with what becomes of it.
    AppActions,
    /// Kinds of session state, each with what becomes of it.
    StatePolicies,
    /// Kinds of findings of a strict run, perhaps of single applications.
    StrictAllow,
    /// Permission bits of a file.
    FileMode,
    /// One of these words, in any case.
    Choice(&'static [&'static str]),
    /// A list of TLS versions or a word for such a list.
    Protocols,
    /// Addresses, names and socket directories divided by commas.
    Hosts,
    /// Addresses with their ports and paths of Unix sockets, divided by commas.
    Endpoints,
    /// A number of servers, or a part of what PostgreSQL has.
    HostLimit,
    /// A text that is never shown.
    Secret,
    /// Where a password is read.
    PasswordSource,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text"),
            Self::List => f.write_str("a list divided by commas"),
            Self::Integer => f.write_str("a whole number"),
            Self::Boolean => f.write_str("1 or 0"),
            Self::Seconds => f.write_str("a number of seconds"),
            Self::AppActions => {
                f.write_str("application:action divided by commas; actions are ")?;
                f.write_str(
                    &LeakAction::ALL
                        .iter()
                        .map(|action| action.word())
                        .collect::<Vec<_>>()
                        .join(", "),
                )
            }
            Self::StatePolicies => {
                let policies = StatePolicies::POLICIES.map(|(word, _)| word);
                write!(
                    f,
                    "kind:policy divided by commas; kinds are {}; policies are {}",
                    StatePolicies::KINDS.join(", "),
                    policies.join(", ")
                )
            }
            Self::StrictAllow => write!(
                f,
                "kind or kind:application divided by commas; kinds are {}, and * is all of them",
                StrictAllow::KINDS.join(", ")
            ),
            Self::FileMode => f.write_str("a file mode such as 0777"),
            Self::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Self::Protocols => f.write_str(
                "secure, all, legacy, or a list of tlsv1.0, tlsv1.1, tlsv1.2 and tlsv1.3",
            ),
            Self::Hosts => f.write_str("host names, addresses or socket directories"),
            Self::Endpoints => f.write_str(
                "addresses with a port such as 127.0.0.1:9127, or paths of Unix sockets",
            ),
            Self::HostLimit => f.write_str("a whole number, a percentage such as 80%, or auto"),
            Self::Secret => f.write_str("a secret text"),
            Self::PasswordSource => f.write_str("file:PATH, env:NAME, exec:COMMAND or rds:"),
        }
    }
}
