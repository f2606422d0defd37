//! SHOW SAMPLES, SHOW EVENTS and SHOW STATEMENTS: what was, for an operator who comes late.

use std::sync::Arc;
use std::time::Duration;

use crate::table::{UnixTime, table};

/// A database in one second of the last quarter of an hour.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the fields are the columns")]
pub struct SampleRow {
    pub time: UnixTime,
    /// How long ago that was.
    pub age: Duration,
    pub database: Arc<str>,
    pub clients: u32,
    pub waiting: u32,
    /// How long the first in the queue had waited.
    pub oldest_wait: Duration,
    /// Servers that worked for clients.
    pub busy: u32,
    pub idle: u32,
    pub opening: u32,
    pub closing: u32,
    /// Clients that held a server in a transaction and had said nothing for a second.
    pub silent: u32,
    pub queries: u64,
    pub transactions: u64,
    /// Mean time of the queries of that second.
    pub query_us: u64,
    /// Why the last opening of a server failed, if it did so in that second.
    pub failure: Option<String>,
}

table!(
    /// SHOW SAMPLES.
    pub SAMPLES: SampleRow, "samples", |row| {
        "time" Text = row.time;
        "age" Int8 = row.age.as_secs();
        "database" Text = row.database;
        "clients" Int8 = row.clients;
        "waiting" Int8 = row.waiting;
        "oldest_wait_ms" Int8 = u64::try_from(row.oldest_wait.as_millis()).unwrap_or(u64::MAX);
        "busy" Int8 = row.busy;
        "idle" Int8 = row.idle;
        "opening" Int8 = row.opening;
        "closing" Int8 = row.closing;
        "silent" Int8 = row.silent;
        "queries" Int8 = row.queries;
        "transactions" Int8 = row.transactions;
        "query_us" Int8 = row.query_us;
        "failure" Text = row.failure;
    }
);

/// Something that was logged, and how often within one minute.
#[derive(Clone, Debug, Default)]
pub struct EventRow {
    /// When it was first said.
    pub first: UnixTime,
    /// When it was said last.
    pub last: UnixTime,
    /// How many seconds ago that was.
    pub age: u64,
    /// How often.
    pub count: u64,
    /// Its level in the log.
    pub level: &'static str,
    /// About whom, the last time.
    pub peer: String,
    /// What was said the last time.
    pub text: String,
}

table!(
    /// SHOW EVENTS.
    pub EVENTS: EventRow, "events", |row| {
        "first" Text = row.first;
        "last" Text = row.last;
        "age" Int8 = row.age;
        "count" Int8 = row.count;
        "level" Text = row.level;
        "peer" Text = row.peer;
        "text" Text = row.text;
    }
);

/// A statement that took long.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the fields are the columns")]
pub struct StatementRow {
    pub database: Arc<str>,
    pub user: Arc<str>,
    /// Who asked for it the last time.
    pub application_name: Arc<str>,
    pub count: u64,
    /// Times at the server, in milliseconds.
    pub total_ms: u64,
    pub mean_ms: u64,
    pub max_ms: u64,
    pub statement: String,
}

table!(
    /// SHOW STATEMENTS.
    pub STATEMENTS: StatementRow, "statements", |row| {
        "database" Text = row.database;
        "user" Text = row.user;
        "application_name" Text = row.application_name;
        "count" Int8 = row.count;
        "total_ms" Int8 = row.total_ms;
        "mean_ms" Int8 = row.mean_ms;
        "max_ms" Int8 = row.max_ms;
        "statement" Text = row.statement;
    }
);
