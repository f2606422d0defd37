//! SHOW PINS: with whom a server stays between transactions, and why.

use std::sync::Arc;

use crate::table::{int4, table};

/// One client with which a server stays.
#[derive(Clone, Debug)]
pub struct PinRow {
    /// The client's number, as in SHOW CLIENTS.
    pub client_id: u32,
    /// Its database.
    pub database: Arc<str>,
    /// Its user.
    pub user: Arc<str>,
    /// Its application_name.
    pub application_name: Arc<str>,
    /// Its address.
    pub address: String,
    /// The process id of the backend that stays with it.
    pub server_pid: i32,
    /// What it has left in the session.
    pub reason: String,
    /// `firm`: until that ends; `loose`: until somebody else needs the server.
    pub stays: &'static str,
    /// Milliseconds since that was found.
    pub pinned_ms: u64,
    /// How many servers of its pool stay with a client.
    pub pinned: u32,
    /// How many of them may be firm.
    pub max_pinned: u32,
}

table!(
    /// SHOW PINS.
    pub PINS: PinRow, "pins", |row| {
        "client_id" Int4 = row.client_id;
        "database" Text = row.database;
        "user" Text = row.user;
        "application_name" Text = row.application_name;
        "addr" Text = row.address;
        "server_pid" Int4 = int4(row.server_pid.unsigned_abs());
        "reason" Text = row.reason;
        "stays" Text = row.stays;
        "pinned_ms" Int8 = row.pinned_ms;
        "pinned" Int4 = int4(row.pinned);
        "max_pinned" Int4 = int4(row.max_pinned);
    }
);
