//! Values that are one word out of a few.

use super::{Invalid, Kind, Value};

/// Declares an enum whose variants are words of the configuration.
macro_rules! choices {
    ($(
        $(#[$meta:meta])+
        pub enum $name:ident {
            $( #[doc = $doc:literal] $variant:ident = $word:literal $(needs $feature:tt)?, )+
        }
    )+) => { $(
        $(#[$meta])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( #[doc = $doc] $variant, )+ }

        impl $name {
            /// Every variant, in the order of the documentation.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )+ ];

            /// The word that stands for the variant.
            pub const fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )+ }
            }

            /// The cargo feature without which the word is refused, if this build lacks it.
            pub const fn lacks(self) -> Option<&'static str> {
                match self { $( Self::$variant => lacks!($($feature)?), )+ }
            }
        }

        impl Value for $name {
            const KIND: Kind = Kind::Choice(&[ $( $word, )+ ]);

            fn parse(text: &str) -> Result<Self, Invalid> {
                let matches = |choice: &&Self| choice.word().eq_ignore_ascii_case(text);
                let choice = Self::ALL.iter().find(matches).copied();
                let choice = choice.ok_or(Invalid::Malformed(Self::KIND))?;
                match choice.lacks() {
                    Some(feature) => Err(Invalid::NotBuilt { feature }),
                    None => Ok(choice),
                }
            }

            fn show(&self) -> Option<String> {
                Some(self.word().to_owned())
            }
        }
    )+ };
}

macro_rules! lacks {
    () => {
        None
    };
    ($feature:tt) => {
        if cfg!(feature = $feature) {
            None
        } else {
            Some($feature)
        }
    };
}

choices! {
    /// When a server goes back to its pool.
    pub enum PoolMode {
        /// When the client disconnects.
        Session = "session",
        /// When the transaction ends.
        Transaction = "transaction",
        /// When the statement ends; transaction blocks are refused.
        Statement = "statement",
    }

    /// What becomes of a client that holds a server in silence, or for far longer than its statement
    /// normally takes.
    pub enum LeakAction {
        /// The log names it.
        Log = "log",
        /// A silent client is told with a notice, too.
        Notice = "notice",
        /// A statement that takes far too long is canceled.
        Cancel = "cancel",
        /// The same, and the transaction of a silent client is rolled back.
        CancelRollback = "cancel+rollback",
        /// The transaction of a silent client is rolled back and it keeps its connection; in session mode it is ended.
        Rollback = "rollback",
        /// A silent client is ended.
        Disconnect = "disconnect",
    }

    /// How statements are shown where their literals may be somebody's secrets.
    pub enum LeakQuery {
        /// Literals are question marks.
        Normalized = "normalized",
        /// As they are.
        Raw = "raw",
        /// Not at all.
        Off = "off",
    }

    /// What becomes of a configuration that can ask for more servers than PostgreSQL has.
    pub enum Preflight {
        /// Nothing is said.
        Off = "off",
        /// The log says so.
        Warn = "warn",
        /// The program does not start with it.
        Enforce = "enforce",
    }

    /// When a pooler calls itself ready, as far as its databases count.
    pub enum ReadyPolicy {
        /// When one of them works, or there is none.
        Any = "any",
        /// When all of them work.
        All = "all",
        /// Whatever they do.
        Process = "process",
    }

    /// How clients prove who they are.
    pub enum AuthType {
        /// Not at all, and the user name does not matter.
        Any = "any",
        /// Not at all, but the user must be known.
        Trust = "trust",
        /// With the password in clear text.
        Plain = "plain",
        /// With an md5 hash, or SCRAM where the stored secret is a SCRAM verifier.
        Md5 = "md5",
        /// With a TLS certificate.
        Cert = "cert",
        /// As the rules in auth_hba_file say.
        Hba = "hba",
        /// With SCRAM-SHA-256.
        ScramSha256 = "scram-sha-256",
        /// With a password that an LDAP server checks.
        Ldap = "ldap",
        /// With a password that PAM checks.
        Pam = "pam" needs "pam",
    }

    /// How much TLS a connection needs; each mode asks for more than the one before it.
    pub enum SslMode {
        /// No TLS.
        Disable = "disable",
        /// TLS if the other side insists.
        Allow = "allow",
        /// TLS if the other side can.
        Prefer = "prefer",
        /// TLS, but any certificate will do.
        Require = "require",
        /// TLS with a certificate from a known authority.
        VerifyCa = "verify-ca",
        /// TLS with a certificate from a known authority for this very name.
        VerifyFull = "verify-full",
    }

    /// Which host of a list the next server is opened to.
    pub enum LoadBalanceHosts {
        /// The same host until it fails.
        Disable = "disable",
        /// Each in turn.
        RoundRobin = "round-robin",
    }

    /// What PostgreSQL has to be for a pool's servers, in libpq's words.
    pub enum TargetSessionAttrs {
        /// It does not matter.
        Any = "any",
        /// Transactions may write unless they say otherwise.
        ReadWrite = "read-write",
        /// They may not.
        ReadOnly = "read-only",
        /// It is not in hot standby mode.
        Primary = "primary",
        /// It is in hot standby mode.
        Standby = "standby",
        /// The same, and if no host is, any of them.
        PreferStandby = "prefer-standby",
    }

    /// Which SQLSTATEs and texts clients are told.
    pub enum ErrorCodes {
        /// PgBouncer's: 08P01 for everything.
        Pgbouncer = "pgbouncer",
        /// What PostgreSQL would say in the same situation.
        Postgres = "postgres",
    }

    /// What becomes of what a client leaves in a server's session.
    pub enum SessionState {
        /// No other client has it.
        Private = "private",
        /// Whoever has the server next has it.
        Pgbouncer = "pgbouncer",
    }

    /// Who listens for a client that has executed LISTEN.
    pub enum ListenMode {
        /// One connection of the database, for all of them.
        Shared = "shared",
        /// Its server, which stays with it.
        Pin = "pin",
    }

    /// What becomes of startup parameters that are neither tracked nor ignored.
    pub enum StartupParameters {
        /// The client is not let in.
        Refuse = "refuse",
        /// They are in force on every server that the client gets, and on no other client's.
        Apply = "apply",
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::assert_round_trip;
    use super::*;

    #[test]
    fn words_are_read_in_any_case() {
        assert_eq!(AuthType::parse("SCRAM-SHA-256"), Ok(AuthType::ScramSha256));
        assert_eq!(SslMode::parse("Verify-CA"), Ok(SslMode::VerifyCa));
    }

    #[test]
    fn other_words_are_refused_with_the_list_of_right_ones() {
        let error = PoolMode::parse("sesion").expect_err("misspelt");
        assert_eq!(
            error.to_string(),
            "expected one of session, transaction, statement"
        );
    }

    #[test]
    fn a_word_that_needs_another_build_says_so() {
        let expected = match AuthType::Pam.lacks() {
            Some(feature) => Err(Invalid::NotBuilt { feature }),
            None => Ok(AuthType::Pam),
        };
        assert_eq!(AuthType::parse("PAM"), expected);
        assert_eq!(AuthType::Pam.lacks().is_none(), cfg!(feature = "pam"));
        let text = Invalid::NotBuilt { feature: "pam" }.to_string();
        assert!(text.contains("--features pam"), "{text}");
    }

    #[test]
    fn modes_are_ordered_by_strictness() {
        assert!(SslMode::VerifyFull > SslMode::Require);
        assert!(SslMode::Disable < SslMode::Allow);
    }

    #[test]
    fn what_is_shown_reads_back() {
        PoolMode::ALL.iter().for_each(assert_round_trip);
        let built = AuthType::ALL
            .iter()
            .filter(|method| method.lacks().is_none());
        built.for_each(assert_round_trip);
        SslMode::ALL.iter().for_each(assert_round_trip);
        LoadBalanceHosts::ALL.iter().for_each(assert_round_trip);
        TargetSessionAttrs::ALL.iter().for_each(assert_round_trip);
        ErrorCodes::ALL.iter().for_each(assert_round_trip);
        StartupParameters::ALL.iter().for_each(assert_round_trip);
        SessionState::ALL.iter().for_each(assert_round_trip);
        ListenMode::ALL.iter().for_each(assert_round_trip);
    }
}
