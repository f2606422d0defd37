//! SHOW LISTENERS: the connections that listen for clients.

use std::sync::Arc;

use crate::table::{int4, table};

/// One such connection.
#[derive(Clone, Debug)]
pub struct ListenerRow {
    /// The database that it listens in.
    pub database: Arc<str>,
    /// The user that it is logged in as.
    pub user: Arc<str>,
    /// `opening`, `open`, `idle` when nobody needs it, or `closing`.
    pub state: &'static str,
    /// The process id of its backend; 0 before that is known.
    pub server_pid: i32,
    /// Channels that it listens to.
    pub channels: u32,
    /// Clients that it listens for.
    pub clients: u32,
    /// Notifications that it has passed on, one for each client that got it.
    pub delivered: u64,
    /// Bytes of notifications that clients have not taken yet.
    pub buffered: u64,
    /// Clients that were ended because they did not read.
    pub ended: u64,
    /// Milliseconds since it was asked for.
    pub open_ms: u64,
}

table!(
    /// SHOW LISTENERS.
    pub LISTENERS: ListenerRow, "listeners", |row| {
        "database" Text = row.database;
        "user" Text = row.user;
        "state" Text = row.state;
        "server_pid" Int4 = int4(row.server_pid.unsigned_abs());
        "channels" Int4 = int4(row.channels);
        "clients" Int4 = int4(row.clients);
        "delivered" Int8 = row.delivered;
        "buffered" Int8 = row.buffered;
        "ended" Int8 = row.ended;
        "open_ms" Int8 = row.open_ms;
    }
);
