//! SHOW CONSUMERS and SHOW APPS: who uses how much of what is shared.

use std::sync::Arc;

use crate::table::table;

/// The clients of one user with one application_name at one address.
#[derive(Clone, Debug)]
pub struct ConsumerRow {
    /// Their user.
    pub user: Arc<str>,
    /// Their application_name.
    pub application_name: Arc<str>,
    /// Their address, without the port.
    pub address: String,
    /// How many there are.
    pub clients: u32,
    /// How many of them hold a server.
    pub servers: u32,
    /// How many of them wait for one.
    pub waiting: u32,
    /// Their share of the time that servers were held lately, in percent.
    pub held_percent: u32,
    /// The most clients there were.
    pub peak_clients: u32,
    /// The most servers they held.
    pub peak_servers: u32,
}

table!(
    /// SHOW CONSUMERS.
    pub CONSUMERS: ConsumerRow, "consumers", |row| {
        "user" Text = row.user;
        "application_name" Text = row.application_name;
        "addr" Text = row.address;
        "clients" Int4 = row.clients;
        "servers" Int4 = row.servers;
        "waiting" Int4 = row.waiting;
        "held_percent" Int4 = row.held_percent;
        "peak_clients" Int4 = row.peak_clients;
        "peak_servers" Int4 = row.peak_servers;
    }
);

/// One application, seen from here.
#[derive(Clone, Debug)]
pub struct AppRow {
    /// Its application_name.
    pub application_name: Arc<str>,
    /// How many addresses it comes from.
    pub addresses: u32,
    /// How many clients it has.
    pub clients: u32,
    /// The most clients there were from one address: the size of its own pool, by the look of it.
    pub pool_size: u32,
    /// How many servers it holds.
    pub servers: u32,
    /// The most servers that one address held: as many connections as its pool needs.
    pub peak_servers: u32,
    /// How many of its clients wait for a server.
    pub waiting: u32,
    /// The part of its connections' time in which they hold no server, in percent.
    pub idle_percent: u32,
    /// Clients that went away while they waited.
    pub gave_up: u64,
    /// How long the last of them had waited, in milliseconds; 0 if none has gone away.
    pub gave_up_after_ms: u64,
}

table!(
    /// SHOW APPS.
    pub APPS: AppRow, "apps", |row| {
        "application_name" Text = row.application_name;
        "addresses" Int4 = row.addresses;
        "clients" Int4 = row.clients;
        "pool_size" Int4 = row.pool_size;
        "servers" Int4 = row.servers;
        "peak_servers" Int4 = row.peak_servers;
        "waiting" Int4 = row.waiting;
        "idle_percent" Int4 = row.idle_percent;
        "gave_up" Int8 = row.gave_up;
        "gave_up_after_ms" Int8 = row.gave_up_after_ms;
    }
);
