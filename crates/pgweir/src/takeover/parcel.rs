//! What a process tells the next of each thing that it hands over.
//!
//! A parcel is one text on the console; where it is about a socket, the socket comes with it. What
//! a PgBouncer tells with `SHOW FDS` is put into the same form. When a parcel comes to mean something
//! else, [`HANDOVER_VERSION`] changes: then two processes talk as PgBouncers do.
//!
//! [`HANDOVER_VERSION`]: pgweir_console::HANDOVER_VERSION

use std::time::{Duration, Instant};

use pgweir_console::MaintenanceMode;
use pgweir_session::handover::{Bytes, ClientState, StatementState, ValuesState};
use pgweir_session::prepared::StatementId;
use pgweir_session::{RelayState, Values};
use pgweir_wire::CancelKey;
use serde::{Deserialize, Serialize};

use crate::clients::welcome;
use crate::operators::maintenance;
use crate::relay::Unanswered;
use crate::shared::{Shared, lock};

/// One thing that is handed over. It may hold secrets, hence without `Debug`.
#[derive(Deserialize, Serialize)]
pub(crate) enum Parcel {
    /// Comes first.
    Process(Process),
    /// A prepared statement that others name by its id.
    Statement(StatementState),
    /// A listening socket.
    Listener,
    /// A server with its socket.
    Server(Box<Server>),
    /// A server that is to end, or does already, with its socket if that is still known.
    Ending(Ending),
    /// A connection that listens for clients, with its socket.
    Ear(Box<Ear>),
    /// A client with its socket.
    Client(Box<Client>),
    /// The same of one that is to be answered something first. An earlier version does not know of it, and takes nothing
    /// over then.
    Unanswered(Box<Client>, Unanswered),
}

/// The process as a whole.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Process {
    /// The statement that was named last.
    pub(crate) last_statement: u64,
    pub(crate) pid: Option<u32>,
    /// Databases that an operator has disabled, and those under maintenance.
    #[serde(default)]
    disabled: Vec<String>,
    #[serde(default)]
    maintenance: Vec<Maintenance>,
}

/// MAINTENANCE of a database.
#[derive(Debug, Deserialize, Serialize)]
struct Maintenance {
    database: String,
    /// Whether its clients are refused; else they wait.
    rejects: bool,
    message: String,
    by: String,
    since: Age,
    /// After which time it ends by itself.
    left: Option<Duration>,
}

/// A client.
#[derive(Deserialize, Serialize)]
pub(crate) struct Client {
    /// The number of the server that it holds.
    pub(crate) server: Option<u64>,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) cancel_key: Bytes,
    pub(crate) side: ClientState,
    pub(crate) buffers: Buffers,
    /// What has come for it where it listens, and it has not been told.
    pub(crate) notifications: Bytes,
    /// Whether it has a server of its own, and for which kind of replication.
    pub(crate) replication: Option<Replication>,
    pub(crate) connected: Age,
    /// Since when it does what it does.
    pub(crate) since: Age,
    /// Whether that is to wait for a server.
    #[serde(default)]
    pub(crate) waits: bool,
    pub(crate) secret: LearntSecret,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Replication {
    Logical,
    Physical,
}

/// What a client has taught us to log in with, where the configuration does not have it.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct LearntSecret {
    /// As `auth_file` would have it.
    pub(crate) password: Option<Bytes>,
    pub(crate) scram_client_key: Option<Bytes>,
}

/// A server that can serve.
#[derive(Deserialize, Serialize)]
pub(crate) struct Server {
    /// Any number that no other server of the process has.
    pub(crate) number: u64,
    /// Whether a client holds it, and whether for life.
    pub(crate) is_lent: bool,
    pub(crate) is_own: bool,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) cancel_key: Bytes,
    pub(crate) relay: Relay,
    pub(crate) buffers: Buffers,
    pub(crate) welcome: Option<Welcome>,
    pub(crate) opened: Age,
    /// Its host, where its database has several.
    pub(crate) host: Option<String>,
    /// Where it leads, in the words of the configuration that it was opened with.
    pub(crate) destination: Option<String>,
    /// Whether it was to be replaced.
    pub(crate) is_obsolete: bool,
    /// Since when it works on a query and in a transaction.
    pub(crate) query: Option<Age>,
    pub(crate) transaction: Option<Age>,
}

/// A server that listens for clients.
#[derive(Deserialize, Serialize)]
pub(crate) struct Ear {
    pub(crate) server: Server,
    /// Its client_encoding, where that was set.
    pub(crate) encoding: Option<String>,
    /// The channel of its marks.
    pub(crate) marks: String,
    pub(crate) channels: Vec<String>,
}

/// What is known of a server's work.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Relay {
    /// All of it.
    Known(Box<RelayState>),
    /// Some of its parameters.
    Unknown(ValuesState),
}

/// What a server said at its login.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Welcome {
    pub(crate) untracked: Vec<(Bytes, Bytes)>,
    pub(crate) tracked: ValuesState,
}

/// A server whose end is waited for.
#[derive(Deserialize, Serialize)]
pub(crate) struct Ending {
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) cancel_key: Bytes,
    pub(crate) host: Option<String>,
    /// Whether its socket comes with this.
    pub(crate) has_socket: bool,
    /// Whether the socket speaks TLS, of which only the old process has the keys.
    pub(crate) is_encrypted: bool,
}

/// Bytes that were read and not used, and that were to be written.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Buffers {
    pub(crate) unread: Bytes,
    pub(crate) unsent: Bytes,
}

impl Process {
    pub(crate) fn of(shared: &Shared, now: Instant) -> Self {
        let maintenance = lock(&shared.operator.maintenance);
        let maintenance = maintenance.iter().map(|(database, ordered)| Maintenance {
            database: database.clone(),
            rejects: ordered.mode == MaintenanceMode::Reject,
            message: ordered.message.to_string(),
            by: ordered.by.clone(),
            since: Age::of(ordered.since, now),
            left: ordered
                .until
                .map(|until| until.saturating_duration_since(now)),
        });
        Self {
            last_statement: shared.statements.last_id().0,
            pid: Some(std::process::id()),
            disabled: lock(&shared.operator.disabled).iter().cloned().collect(),
            maintenance: maintenance.collect(),
        }
    }

    /// Goes on where it was, before there is any pool.
    pub(crate) fn restore(self, shared: &Shared, now: Instant) {
        shared
            .statements
            .begin_after(StatementId(self.last_statement));
        lock(&shared.operator.disabled).extend(self.disabled);
        let maintenance = self.maintenance.into_iter().map(|ordered| {
            let told = maintenance::Maintenance {
                mode: match ordered.rejects {
                    true => MaintenanceMode::Reject,
                    false => MaintenanceMode::Hold,
                },
                message: ordered.message.into(),
                by: ordered.by,
                since: ordered.since.moment(now),
                until: ordered.left.and_then(|left| now.checked_add(left)),
            };
            (ordered.database, told)
        });
        lock(&shared.operator.maintenance).extend(maintenance);
    }
}

impl Buffers {
    pub(crate) fn of(line: &pgweir_net::Buffered) -> Self {
        Self {
            unread: Bytes(line.unread().to_vec()),
            unsent: Bytes(line.unsent().to_vec()),
        }
    }

    pub(crate) fn restore(self, stream: pgweir_net::Stream) -> pgweir_net::Buffered {
        let mut line = pgweir_net::Buffered::new(stream);
        line.put_back_bytes(&self.unread.0);
        line.queue(&self.unsent.0);
        line
    }
}

/// A moment, told as how long ago it was: the clocks of two processes have nothing else in common.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Age {
    us: u64,
}

impl Age {
    pub(crate) fn of(moment: Instant, now: Instant) -> Self {
        let age = now.saturating_duration_since(moment);
        Self {
            us: u64::try_from(age.as_micros()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn moment(self, now: Instant) -> Instant {
        now.checked_sub(Duration::from_micros(self.us))
            .unwrap_or(now)
    }
}

impl Parcel {
    /// Whether a socket comes with it.
    pub(crate) fn has_socket(&self) -> bool {
        match self {
            Self::Process(_) | Self::Statement(_) => false,
            Self::Listener | Self::Server(_) | Self::Ear(_) => true,
            Self::Client(_) | Self::Unanswered(..) => true,
            Self::Ending(ending) => ending.has_socket,
        }
    }
}

impl Welcome {
    pub(crate) fn of(welcome: &welcome::Welcome, tracked: &pgweir_session::Tracked) -> Self {
        let untracked = welcome.untracked.iter();
        Self {
            untracked: untracked
                .map(|(name, value)| (Bytes(name.clone()), Bytes(value.clone())))
                .collect(),
            tracked: welcome.tracked.state(tracked),
        }
    }

    pub(crate) fn restore(self, tracked: &pgweir_session::Tracked) -> welcome::Welcome {
        let untracked = self.untracked.into_iter();
        let untracked = untracked.map(|(name, value)| (name.0, value.0)).collect();
        welcome::Welcome::new(untracked, Values::restore(&self.tracked, tracked))
    }
}

/// A key as it stands in BackendKeyData.
pub(crate) fn key_bytes(key: Option<&CancelKey>) -> Bytes {
    Bytes(key.map_or_else(Vec::new, |key| {
        [&key.process_id.to_be_bytes(), &*key.secret].concat()
    }))
}
