//! What orders of operators did and do: whom they end, and what holds for a while.

use std::sync::Arc;
use std::time::Duration;

use crate::order::{MaintenanceMode, Target};
use crate::table::{UnixTime, table};
use crate::where_clause::ClientState;

/// A client that an order ends, or would end.
#[derive(Clone, Debug)]
pub struct ClientToEnd {
    /// Its id in SHOW CLIENTS.
    pub id: u32,
    /// The database that it named.
    pub database: Arc<str>,
    /// As whom it logged in.
    pub user: Arc<str>,
    /// Its application_name.
    pub app: Arc<str>,
    /// Where it is.
    pub address: String,
    /// What it does.
    pub state: ClientState,
    /// How long it has been connected.
    pub age: Duration,
    /// How long ago it last asked for something.
    pub idle: Duration,
    /// How long it has held its server, if it holds one.
    pub held: Option<Duration>,
}

table!(
    /// KILL CLIENTS ... DRY RUN, and those that DRAIN had to cut.
    pub ENDED: ClientToEnd, "clients", |row| {
        "id" Int8 = row.id;
        "database" Text = row.database;
        "user" Text = row.user;
        "application_name" Text = row.app;
        "addr" Text = row.address;
        "state" Text = row.state.word();
        "age" Int8 = row.age.as_secs();
        "idle" Int8 = row.idle.as_secs();
        "held" Int8 = row.held.map(|held| held.as_secs());
    }
);

/// A database in which no new transactions begin.
#[derive(Clone, Debug)]
pub struct MaintenanceRow {
    /// Which.
    pub database: String,
    /// What becomes of clients.
    pub mode: MaintenanceMode,
    /// What those who are refused are told.
    pub message: String,
    /// Clients that wait now.
    pub waiting: u32,
    /// Servers that are still lent.
    pub busy: u32,
    /// Who ordered it.
    pub by: String,
    /// When.
    pub since: UnixTime,
    /// When it ends by itself.
    pub remaining: Option<Duration>,
}

table!(
    /// SHOW MAINTENANCE.
    pub MAINTENANCE: MaintenanceRow, "maintenance", |row| {
        "database" Text = row.database;
        "mode" Text = row.mode.word();
        "message" Text = row.message;
        "waiting" Int8 = row.waiting;
        "busy" Int8 = row.busy;
        "by" Text = row.by;
        "since" Text = row.since;
        "remaining" Int8 = row.remaining.map(whole_seconds);
    }
);

/// A key that is changed for a while.
#[derive(Clone, Debug)]
pub struct OverrideRow {
    /// The key.
    pub key: String,
    /// Where it stands.
    pub target: Target,
    /// Its value now, `None` for NULL.
    pub value: Option<String>,
    /// Its value afterwards, `None` for NULL.
    pub reverts_to: Option<String>,
    /// Who ordered it.
    pub by: String,
    /// When.
    pub since: UnixTime,
    /// When it ends.
    pub remaining: Duration,
}

table!(
    /// SHOW OVERRIDES.
    pub OVERRIDES: OverrideRow, "overrides", |row| {
        "key" Text = row.key;
        "scope" Text = row.target.place();
        "subject" Text = row.target.name();
        "value" Text = row.value;
        "reverts_to" Text = row.reverts_to;
        "by" Text = row.by;
        "since" Text = row.since;
        "remaining" Int8 = whole_seconds(row.remaining);
    }
);

/// A server that did not close in time.
#[derive(Clone, Debug)]
pub struct QuarantineRow {
    /// What RELEASE calls it.
    pub id: u64,
    /// Which PostgreSQL.
    pub server: String,
    /// The database as clients name it.
    pub database: Arc<str>,
    /// Its user.
    pub user: Arc<str>,
    /// The process id of its backend; zero if it never logged in.
    pub backend: i32,
    /// Since when.
    pub since: UnixTime,
}

table!(
    /// SHOW QUARANTINE.
    pub QUARANTINE: QuarantineRow, "quarantine", |row| {
        "id" Int8 = row.id;
        "server" Text = row.server;
        "database" Text = row.database;
        "user" Text = row.user;
        "backend_pid" Int4 = row.backend;
        "since" Text = row.since;
    }
);

impl Target {
    fn place(&self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Database(_) => "database",
            Self::User(_) => "user",
        }
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Main => None,
            Self::Database(name) | Self::User(name) => Some(name),
        }
    }
}

/// What remains is rounded up: zero is over.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_millis().div_ceil(1_000) as u64
}
