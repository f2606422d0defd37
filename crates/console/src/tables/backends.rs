//! SHOW BACKENDS: whose PostgreSQL's connections are.

use std::time::Duration;

use crate::table::table;

/// Connections of one PostgreSQL that belong together, or what else is to be said of it.
#[derive(Clone, Debug, Default)]
pub struct BackendRow {
    /// Which PostgreSQL.
    pub host: String,
    /// `own`: servers of a pool; `ghost`: a server that PostgreSQL does not have; `orphan`: a backend that was a
    /// server and is counted no more; `unclaimed`: one from the pooler's address, as a user of its pools, that
    /// is not known; `foreign`: all others; `headroom`: what is left; `hidden`, `unknown`: what could not be found out.
    pub kind: &'static str,
    /// How many connections.
    pub backends: i64,
    /// The process, if it is about one.
    pub process_id: Option<i32>,
    /// Their database.
    pub database: String,
    /// Their user.
    pub user: String,
    /// Their application_name.
    pub application_name: String,
    /// Where they come from, as PostgreSQL sees it.
    pub address: String,
    /// What the process does.
    pub state: String,
    /// How old the oldest of them is.
    pub age: Option<Duration>,
    /// What that means.
    pub detail: String,
}

table!(
    /// SHOW BACKENDS.
    pub BACKENDS: BackendRow, "backends", |row| {
        "host" Text = row.host;
        "kind" Text = row.kind;
        "backends" Int8 = row.backends;
        "pid" Int4 = row.process_id;
        "database" Text = row.database;
        "user" Text = row.user;
        "application_name" Text = row.application_name;
        "addr" Text = row.address;
        "state" Text = row.state;
        "age_ms" Int8 = row.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
        "detail" Text = row.detail;
    }
);
