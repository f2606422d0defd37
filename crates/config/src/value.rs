//! The types a key can have: each reads itself from text and shows itself as text.
//!
//! Reading is as strict and as lenient as PgBouncer's: integers may be octal or hexadecimal,
//! booleans are integers, times are seconds with an optional fraction, words ignore case. Showing
//! gives what SHOW CONFIG prints, and reading that again gives the same value.

mod app_actions;
mod choice;
mod endpoint;
mod host;
mod host_limit;
mod password_source;
mod seconds;
mod state_policies;
mod strict_allow;
mod tls;

use std::fmt;
use std::num::NonZeroU16;

pub use app_actions::AppActions;
pub use choice::{
    AuthType, ErrorCodes, LeakAction, LeakQuery, ListenMode, LoadBalanceHosts, PoolMode, Preflight,
    ReadyPolicy, SessionState, SslMode, StartupParameters, TargetSessionAttrs,
};
pub use endpoint::{Endpoint, Endpoints};
pub use host::{Host, Hosts};
pub use host_limit::HostLimit;
pub use password_source::PasswordSource;
pub use seconds::Seconds;
pub use state_policies::{StatePolicies, StatePolicy};
pub use strict_allow::StrictAllow;
pub use tls::{TlsProtocols, TlsVersion};

/// A value that a configuration file, a connect string or the console's SET can give.
pub trait Value: Sized {
    /// The form of the text, for documentation and for error texts.
    const KIND: Kind;

    /// Reads the value from `text`.
    fn parse(text: &str) -> Result<Self, Invalid>;

    /// The value as SHOW CONFIG prints it; `None` is SQL's NULL.
    fn show(&self) -> Option<String>;

    /// The value as a file writes it: also where it is never shown.
    fn write(&self) -> Option<String> {
        self.show()
    }
}

/// Why a text is not a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The text does not have the form that the key wants.
    #[error("expected {0}")]
    Malformed(Kind),
    /// A number that is well-formed but too small or too large.
    #[error("expected a whole number from {min} to {max}")]
    OutOfRange {
        /// The smallest number that is accepted.
        min: i64,
        /// The largest number that is accepted.
        max: i64,
    },
    /// The console's own database cannot hold secrets.
    #[error("cannot use the reserved \"{0}\" database as an auth_dbname")]
    ReservedDatabase(String),
    /// The word is known, but its meaning was left out when the program was built.
    #[error(
        "it is not in this build; build it in with: cargo build --release --package pgweir \
         --features {feature}"
    )]
    NotBuilt {
        /// The cargo feature that brings it.
        feature: &'static str,
    },
    /// Each of the words is known, but they do not fit.
    #[error("{kind} can be {word}, not {}: {why}", if *word == "pin" { "restore" } else { "pin" })]
    Policy {
        /// A kind of state.
        kind: &'static str,
        /// What does fit.
        word: &'static str,
        /// The reason.
        why: &'static str,
    },
    /// Values travel in messages whose strings end at a zero byte.
    #[error("a value cannot contain a zero byte")]
    ZeroByte,
}

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

impl Value for String {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.contains('\0') {
            return Err(Invalid::ZeroByte);
        }
        Ok(text.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for bool {
    const KIND: Kind = Kind::Boolean;

    fn parse(text: &str) -> Result<Self, Invalid> {
        whole_number(text)
            .map(|number| number != 0)
            .ok_or(Invalid::Malformed(Self::KIND))
    }

    fn show(&self) -> Option<String> {
        Some(u8::from(*self).to_string())
    }
}

/// Integers differ in nothing but their range.
macro_rules! integers {
    ($($ty:ty)*) => { $(
        impl Value for $ty {
            const KIND: Kind = Kind::Integer;

            fn parse(text: &str) -> Result<Self, Invalid> {
                let number = whole_number(text).ok_or(Invalid::Malformed(Self::KIND))?;
                let (min, max) = (i64::from(<$ty>::MIN), i64::from(<$ty>::MAX));
                Self::try_from(number).map_err(|_| Invalid::OutOfRange { min, max })
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )* };
}

integers! { i32 u16 u32 }

/// A port that can be connected to.
impl Value for NonZeroU16 {
    const KIND: Kind = Kind::Integer;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let number = whole_number(text).ok_or(Invalid::Malformed(Self::KIND))?;
        let port = u16::try_from(number).ok().and_then(Self::new);
        port.ok_or(Invalid::OutOfRange {
            min: 1,
            max: u16::MAX.into(),
        })
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A whole number as C's `strtol` reads it with base 0, saturating where it would.
fn whole_number(text: &str) -> Option<i64> {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let hex = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let (radix, digits) = match (hex, digits.strip_prefix('0')) {
        (Some(rest), _) => (16, rest),
        (None, Some(rest)) if !rest.is_empty() => (8, rest),
        (None, _) => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let magnitude = i64::from_str_radix(digits, radix).unwrap_or(i64::MAX);
    Some(if negative { -magnitude } else { magnitude })
}

/// Permission bits of the listening Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Value for FileMode {
    const KIND: Kind = Kind::FileMode;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let number = whole_number(text).ok_or(Invalid::Malformed(Self::KIND))?;
        match u32::try_from(number) {
            Ok(mode) if mode <= 0o7777 => Ok(Self(mode)),
            Ok(_) | Err(_) => Err(Invalid::OutOfRange {
                min: 0,
                max: 0o7777,
            }),
        }
    }

    /// In decimal, as PgBouncer prints it.
    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

/// Words divided by commas or white space, kept as they were written. Lists of the same words are
/// the same.
#[derive(Debug, Clone, Eq, Default)]
pub struct List(String);

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl List {
    /// The words, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0
            .split(|c: char| c == ',' || c.is_ascii_whitespace())
            .filter(|word| !word.is_empty())
    }

    /// Whether `word` stands in the list.
    pub fn contains(&self, word: &str) -> bool {
        self.iter().any(|listed| listed == word)
    }

    /// Whether `name` stands in the list: a word, or all that stands between two commas, because names may have blanks.
    pub fn names(&self, name: &str) -> bool {
        let mut between_commas = self.0.split(',').map(str::trim);
        !name.is_empty() && (self.contains(name) || between_commas.any(|listed| listed == name))
    }

    /// Whether no word stands in the list.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for List {
    const KIND: Kind = Kind::List;

    fn parse(text: &str) -> Result<Self, Invalid> {
        String::parse(text).map(Self)
    }

    fn show(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// The database in which `auth_query` runs: any but the console's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthDatabase(String);

impl AuthDatabase {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for AuthDatabase {
    const KIND: Kind = Kind::Text;

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text == crate::CONSOLE_DATABASE {
            return Err(Invalid::ReservedDatabase(text.to_owned()));
        }
        String::parse(text).map(Self)
    }

    fn show(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// A password, or none at all. It never appears in logs: neither `Debug` nor `show` tells it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for those who have to send or hash it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

impl Value for Secret {
    const KIND: Kind = Kind::Secret;

    fn parse(text: &str) -> Result<Self, Invalid> {
        String::parse(text).map(Self)
    }

    fn show(&self) -> Option<String> {
        // That there is none is no secret.
        Some(if self.0.is_empty() { "" } else { "****" }.to_owned())
    }

    fn write(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

/// A key that need not have a value: no default, or not named in this scope.
impl<T: Value> Value for Option<T> {
    const KIND: Kind = T::KIND;

    fn parse(text: &str) -> Result<Self, Invalid> {
        T::parse(text).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }

    fn write(&self) -> Option<String> {
        self.as_ref().and_then(T::write)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn integers_read_octal_and_hexadecimal() {
        assert_eq!(i32::parse("0777"), Ok(511));
        assert_eq!(i32::parse("0x1f"), Ok(31));
        assert_eq!(i32::parse("-5"), Ok(-5));
        assert_eq!(i32::parse("0"), Ok(0));
        assert_eq!(i32::parse("+7"), Ok(7));
    }

    #[test]
    fn integers_refuse_trailing_text() {
        for text in ["", "5x", "08", "5 ", "0x", "-", "--1", "1.5", "+-1"] {
            assert_eq!(
                i32::parse(text),
                Err(Invalid::Malformed(Kind::Integer)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn integers_out_of_range_name_the_range() {
        let range = Invalid::OutOfRange {
            min: -2147483648,
            max: 2147483647,
        };
        assert_eq!(i32::parse("99999999999999999999"), Err(range.clone()));
        assert_eq!(i32::parse("2147483648"), Err(range));
        assert_eq!(
            NonZeroU16::parse("0"),
            Err(Invalid::OutOfRange { min: 1, max: 65535 })
        );
    }

    #[test]
    fn any_integer_but_zero_is_true() {
        assert_eq!(bool::parse("2"), Ok(true));
        assert_eq!(bool::parse("0"), Ok(false));
        assert_eq!(bool::parse("true"), Err(Invalid::Malformed(Kind::Boolean)));
    }

    #[test]
    fn file_modes_are_read_in_octal_and_shown_in_decimal() {
        let mode = FileMode::parse("0777").expect("a mode");
        assert_eq!(mode, FileMode(0o777));
        assert_eq!(mode.show().as_deref(), Some("511"));
    }

    #[test]
    fn lists_keep_their_text_and_divide_at_commas_and_blanks() {
        let list = List::parse("a b, PostgreSQL JDBC Driver,c").expect("a list");
        for name in ["a", "b", "PostgreSQL JDBC Driver", "c"] {
            assert!(list.names(name), "{name}");
        }
        assert!(!list.names("") && !list.names("d"));
        let list = List::parse(" search_path, intervalstyle").expect("a list");
        assert_eq!(
            list.iter().collect::<Vec<_>>(),
            ["search_path", "intervalstyle"]
        );
        assert_eq!(list.show().as_deref(), Some(" search_path, intervalstyle"));
        assert_eq!(List::parse("search_path intervalstyle"), Ok(list.clone()));
        assert!(!list.contains("search"));
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = Secret::parse("hunter2").expect("a secret");
        assert!(!format!("{secret:?}{:?}", secret.show()).contains("hunter2"));
        assert_eq!(secret.write().as_deref(), Some("hunter2"));
    }

    #[test]
    fn zero_bytes_are_refused() {
        assert_eq!(String::parse("a\0b"), Err(Invalid::ZeroByte));
    }

    /// Every law about one value: what is shown reads back as the same value.
    pub(super) fn assert_round_trip<T: Value + PartialEq + fmt::Debug>(value: &T) {
        let shown = value.show().expect("not NULL");
        assert_eq!(T::parse(&shown).as_ref(), Ok(value), "shown as {shown:?}");
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(number: i32, unsigned: u32, port: u16, yes: bool, text in "[^\0]*") {
            assert_round_trip(&number);
            assert_round_trip(&unsigned);
            assert_round_trip(&port);
            assert_round_trip(&yes);
            assert_round_trip(&FileMode(unsigned & 0o7777));
            assert_round_trip(&text);
            assert_round_trip(&List(text));
        }

        #[test]
        fn no_text_makes_a_value_panic(text: String) {
            let _ = i32::parse(&text);
            let _ = bool::parse(&text);
            let _ = NonZeroU16::parse(&text);
            let _ = FileMode::parse(&text);
            let _ = Seconds::parse(&text);
            let _ = TlsProtocols::parse(&text);
            let _ = Hosts::parse(&text);
            let _ = PoolMode::parse(&text);
        }
    }
}
