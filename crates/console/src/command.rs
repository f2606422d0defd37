//! The commands of the console and who may run them.

use crate::order::Order;
use crate::reply::CommandError;
use crate::table::{Column, ColumnType, Table};

/// What a console user may do. There is no third kind: others are turned away at login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// In `admin_users`, or the pooler's own uid over the Unix socket: everything.
    Admin,
    /// In `stats_users`: SHOW, except the secrets of SHOW FDS.
    Stats,
}

/// One parsed statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// A command for the pooler.
    Run(Command),
    /// A question whose answer never changes; the session answers it by itself.
    Answer(Fixed),
}

/// A command whose effect or answer is the pooler's.
///
/// Database names are as given: whether there is such a database is for the pooler to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `SHOW word`, one of the tables.
    Show(Show),
    /// `SET key = value`, a change of one configuration key until the next restart.
    Set {
        /// The key, not yet known to exist.
        key: String,
        /// The value, not yet parsed.
        value: String,
    },
    /// Read the configuration files again.
    Reload,
    /// Stop handing out servers, of one database or all; answered when all are released.
    Pause(Option<String>),
    /// Undo a pause or suspend.
    Resume(Option<String>),
    /// Flush all buffers and stop listening; answered when that is done.
    Suspend,
    /// Stop where everything stands and hand it over: what a successor of our own kind asks for
    /// instead of SUSPEND and SHOW FDS.
    Handover,
    /// Refuse new clients of a database.
    Disable(String),
    /// Undo a disable.
    Enable(String),
    /// Replace servers as they are released.
    Reconnect(Option<String>),
    /// Drop clients and servers at once, and leave the database paused.
    Kill(Option<String>),
    /// Disconnect the client that SHOW CLIENTS shows with this id, see [`crate::tables::shown_id`].
    KillClient(u64),
    /// Wait until all servers that RECONNECT or RELOAD marked are closed.
    WaitClose(Option<String>),
    /// End the pooler.
    Shutdown(ShutdownMode),
    /// What PgBouncer does not have.
    Order(Order),
}

/// The form in which HANDOVER tells what it hands over; the command's argument.
pub const HANDOVER_VERSION: &str = "2";

/// When a shutdown ends connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownMode {
    /// At once, without an answer: the connection just ends.
    Now,
    /// When each server is released, as PAUSE does.
    WaitForServers,
    /// When the clients have left by themselves.
    WaitForClients,
}

/// A statement with a constant answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// `SHOW HELP`.
    Help,
    /// `SHOW VERSION`.
    Version,
    /// `SHOW` of a setting that drivers ask every server for.
    ShowSetting(ClientSetting),
    /// `SET` of such a setting: accepted from anybody, without effect.
    SetIgnored,
}

macro_rules! shows {
    ($(#[doc = $doc:literal] $variant:ident $word:literal;)+) => {
        /// The tables that SHOW knows.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Show {
            $(#[doc = $doc] $variant,)+
        }

        impl Show {
            /// Every table.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word after SHOW, in lower case.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// What the table shows, in one sentence.
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Self::$variant => $doc.trim_ascii(),)+
                }
            }
        }
    };
}

shows! {
    /// The configuration keys.
    Config "config";
    /// The databases.
    Databases "databases";
    /// The pools.
    Pools "pools";
    /// The client connections.
    Clients "clients";
    /// The server connections.
    Servers "servers";
    /// The users.
    Users "users";
    /// The peers that share cancel requests.
    Peers "peers";
    /// The pools that forward cancel requests to peers.
    PeerPools "peer_pools";
    /// The file descriptors, with secrets: for admins alone.
    Fds "fds";
    /// All connections with their buffers.
    Sockets "sockets";
    /// The connections that hold unsent or unread bytes.
    ActiveSockets "active_sockets";
    /// Counts of internal lists.
    Lists "lists";
    /// Memory of internal caches.
    Mem "mem";
    /// Whether the pooler is active, paused or suspended.
    State "state";
    /// Host names looked up.
    DnsHosts "dns_hosts";
    /// DNS zones watched.
    DnsZones "dns_zones";
    /// Totals and averages of each database.
    Stats "stats";
    /// Totals of each database.
    StatsTotals "stats_totals";
    /// Averages of each database.
    StatsAverages "stats_averages";
    /// Totals and averages of all databases together.
    Totals "totals";
    /// Every number that limits anything, and its use.
    Budget "budget";
    /// How times of each database are spread, in microseconds: waits for a server, queries, transactions, holds.
    StatsHist "stats_hist";
    /// Whose the connections of each PostgreSQL are: ours, what of them does not agree, others', and what is left.
    Backends "backends";
    /// Who uses how much: clients, servers, share of the time that servers are held.
    Consumers "consumers";
    /// Every application: the pools it seems to have, how much of them it needs, how long it waits.
    Apps "apps";
    /// Who holds a server now.
    Holders "holders";
    /// Who holds, or has held, a server in silence.
    Leaks "leaks";
    /// The connections that listen for clients: LISTEN outside session pooling.
    Listeners "listeners";
    /// What a strict run has found.
    Findings "findings";
    /// The databases in which no new transactions begin.
    Maintenance "maintenance";
    /// The keys that are changed for a while.
    Overrides "overrides";
    /// The clients with which a server stays, and why.
    Pins "pins";
    /// The servers that did not close in time.
    Quarantine "quarantine";
    /// How the pools of each database stood, second by second, for a quarter of an hour.
    Samples "samples";
    /// What the log has said lately, counted minute by minute.
    Events "events";
    /// Statements that took longer than log_min_duration_statement, by their text; those that cost most.
    Statements "statements";
}

impl Show {
    /// Whether it is a table that PgBouncer does not have.
    pub const fn is_native(self) -> bool {
        matches!(
            self,
            Self::Backends
                | Self::Budget
                | Self::Consumers
                | Self::Apps
                | Self::Holders
                | Self::StatsHist
                | Self::Leaks
                | Self::Listeners
                | Self::Findings
                | Self::Maintenance
                | Self::Overrides
                | Self::Pins
                | Self::Quarantine
                | Self::Samples
                | Self::Events
                | Self::Statements
        )
    }
}

impl Show {
    /// The table of that name, in any case.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|show| show.word().eq_ignore_ascii_case(word))
    }
}

macro_rules! client_settings {
    ($($variant:ident $name:literal $value:literal;)+) => {
        /// A setting of a PostgreSQL session that drivers set or ask for without being told to.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the names are PostgreSQL's")]
        pub enum ClientSetting {
            $($variant,)+
        }

        impl ClientSetting {
            /// Every setting.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// PostgreSQL's name of it, in lower case.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The table of one text cell that SHOW answers with.
            pub(crate) fn table(self) -> &'static Table<()> {
                match self {
                    $(Self::$variant => &Table {
                        name: $name,
                        columns: &[Column {
                            name: $name,
                            kind: ColumnType::Text,
                            cell: |(), cell| cell.text($value),
                        }],
                    },)+
                }
            }
        }
    };
}

client_settings! {
    ClientEncoding "client_encoding" "UTF-8";
    DefaultTransactionIsolation "default_transaction_isolation" "read committed";
    StandardConformingStrings "standard_conforming_strings" "on";
    DateStyle "datestyle" "ISO";
    TimeZone "timezone" "GMT";
}

impl ClientSetting {
    /// The setting of that name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|setting| setting.name().eq_ignore_ascii_case(name))
    }
}

impl Command {
    /// The tag of CommandComplete, but for SET, which repeats its key and value after it.
    pub const fn tag(&self) -> &'static str {
        match self {
            Self::Show(_) => "SHOW",
            Self::Set { .. } => "SET",
            Self::Reload => "RELOAD",
            Self::Pause(_) => "PAUSE",
            Self::Resume(_) => "RESUME",
            Self::Suspend => "SUSPEND",
            Self::Handover => "HANDOVER",
            Self::Disable(_) => "DISABLE",
            Self::Enable(_) => "ENABLE",
            Self::Reconnect(_) => "RECONNECT",
            Self::Kill(_) => "KILL",
            Self::KillClient(_) => "KILL_CLIENT",
            Self::WaitClose(_) => "WAIT_CLOSE",
            Self::Shutdown(_) => "SHUTDOWN",
            Self::Order(order) => order.tag(),
        }
    }

    /// Who may run it.
    pub const fn access(&self) -> Access {
        match self {
            Self::Show(Show::Fds) => Access::Admin,
            Self::Show(_) => Access::Stats,
            Self::Set { .. }
            | Self::Reload
            | Self::Pause(_)
            | Self::Resume(_)
            | Self::Suspend
            | Self::Handover
            | Self::Disable(_)
            | Self::Enable(_)
            | Self::Reconnect(_)
            | Self::Kill(_)
            | Self::KillClient(_)
            | Self::WaitClose(_)
            | Self::Shutdown(_)
            | Self::Order(_) => Access::Admin,
        }
    }
}

impl Access {
    /// Lets a parsed statement pass or refuses it.
    ///
    /// A bad argument of an admin's command is refused like the command itself, since PgBouncer looks
    /// at who asks before it looks at the argument. Bad grammar is told to everybody.
    pub fn admit(self, parsed: Result<Statement, CommandError>) -> Result<Statement, CommandError> {
        let needed = match &parsed {
            Ok(Statement::Run(command)) => command.access(),
            Ok(Statement::Answer(_)) => Self::Stats,
            Err(CommandError::DatabaseRequired | CommandError::InvalidClientPointer) => Self::Admin,
            Err(_) => Self::Stats,
        };
        match (self, needed) {
            (Self::Stats, Self::Admin) => Err(CommandError::AdminAccessNeeded),
            (Self::Admin, _) | (Self::Stats, Self::Stats) => parsed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::parse;

    fn refusal(access: Access, text: &str) -> Option<String> {
        access
            .admit(parse(text))
            .err()
            .map(|error| error.to_string())
    }

    #[test]
    fn stats_users_may_only_look() {
        for text in [
            "set verbose=0",
            "reload",
            "pause",
            "resume",
            "suspend",
            "handover 2",
            "kill",
            "kill_client 1",
            "disable p0",
            "enable p0",
            "reconnect",
            "wait_close",
            "shutdown",
            "show fds",
            "disable",
            "enable",
            "kill_client",
            "kill_client abc",
            "disable \"\"",
            "set foo=1",
        ] {
            assert_eq!(
                refusal(Access::Stats, text).as_deref(),
                Some("admin access needed"),
                "{text}"
            );
        }
        for show in Show::ALL.iter().filter(|&&show| show != Show::Fds) {
            assert_eq!(
                refusal(Access::Stats, &format!("show {}", show.word())),
                None
            );
        }
    }

    #[test]
    fn anybody_may_set_what_is_ignored() {
        for setting in ClientSetting::ALL {
            let parsed = parse(&format!("SET {} = x", setting.name()));
            assert_eq!(
                Access::Stats.admit(parsed),
                Ok(Statement::Answer(Fixed::SetIgnored))
            );
        }
    }

    #[test]
    fn bad_grammar_is_told_to_everybody() {
        for text in [
            "reload foo",
            "shutdown foo",
            "suspend foo",
            "averyveryverylongcommand",
        ] {
            assert_eq!(refusal(Access::Stats, text), refusal(Access::Admin, text));
            assert_ne!(
                refusal(Access::Stats, text).as_deref(),
                Some("admin access needed")
            );
        }
    }

    #[test]
    fn admins_may_do_everything() {
        for show in Show::ALL {
            assert_eq!(
                refusal(Access::Admin, &format!("show {}", show.word())),
                None
            );
        }
        assert_eq!(refusal(Access::Admin, "shutdown"), None);
        assert_eq!(
            refusal(Access::Admin, "disable").as_deref(),
            Some("a database is required")
        );
    }
}
