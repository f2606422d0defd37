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
mod kind;
mod list;
mod number;
mod password_source;
mod seconds;
mod secret;
mod state_policies;
mod strict_allow;
mod tls;

pub use app_actions::AppActions;
pub use choice::{
    AuthType, ErrorCodes, LeakAction, LeakQuery, ListenMode, LoadBalanceHosts, PoolMode, Preflight,
    ReadyPolicy, SessionState, SslMode, StartupParameters, TargetSessionAttrs,
};
pub use endpoint::{Endpoint, Endpoints};
pub use host::{Host, Hosts};
pub use host_limit::HostLimit;
pub use kind::Kind;
pub use list::List;
pub use number::FileMode;
pub use password_source::PasswordSource;
pub use seconds::Seconds;
pub use secret::Secret;
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
    use std::fmt;
    use std::num::NonZeroU16;

    use proptest::prelude::*;

    use super::*;

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
            assert_round_trip(&List::parse(&text).expect("no zero byte"));
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
