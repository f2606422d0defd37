//! SHOW DATABASES, SHOW USERS and SHOW PEERS: what is configured and how much of it is used.

use std::sync::Arc;

use crate::table::{Padded, int4, table};

/// One configured database. Limits are the effective ones; 0 means no limit.
#[derive(Clone, Debug, Default)]
#[expect(
    missing_docs,
    reason = "the fields are the columns, which PgBouncer's manual describes"
)]
pub struct DatabaseRow {
    pub name: Arc<str>,
    /// `None` for a Unix socket in the default place.
    pub host: Option<String>,
    pub port: u16,
    pub database: String,
    pub force_user: Option<String>,
    pub pool_size: u32,
    pub min_pool_size: u32,
    pub reserve_pool_size: u32,
    /// In seconds.
    pub server_lifetime: u64,
    /// `None` if the database leaves it to the user or the global setting.
    pub pool_mode: Option<&'static str>,
    /// `None` unless `host` is a list.
    pub load_balance_hosts: Option<&'static str>,
    pub max_connections: u32,
    pub current_connections: usize,
    pub max_client_connections: u32,
    pub current_client_connections: usize,
    pub paused: bool,
    pub disabled: bool,
}

table!(
    /// SHOW DATABASES.
    pub DATABASES: DatabaseRow, "databases", |database| {
        "name" Text = database.name;
        "host" Text = database.host;
        "port" Int4 = int4(database.port);
        "database" Text = database.database;
        "force_user" Text = database.force_user;
        "pool_size" Int4 = int4(database.pool_size);
        "min_pool_size" Int4 = int4(database.min_pool_size);
        "reserve_pool_size" Int4 = int4(database.reserve_pool_size);
        "server_lifetime" Int4 = int4(database.server_lifetime);
        "pool_mode" Text = database.pool_mode;
        "load_balance_hosts" Text = database.load_balance_hosts;
        "max_connections" Int4 = int4(database.max_connections);
        "current_connections" Int4 = int4(database.current_connections);
        "max_client_connections" Int4 = int4(database.max_client_connections);
        "current_client_connections" Int4 = int4(database.current_client_connections);
        "paused" Int4 = database.paused;
        "disabled" Int4 = database.disabled;
    }
);

/// One known user. Limits are the effective ones; 0 means no limit.
#[derive(Clone, Debug, Default)]
#[expect(
    missing_docs,
    reason = "the fields are the columns, which PgBouncer's manual describes"
)]
pub struct UserRow {
    pub name: Arc<str>,
    /// `None` if not set for this user.
    pub pool_size: Option<u32>,
    /// `None` if not set for this user.
    pub reserve_pool_size: Option<u32>,
    /// `None` if not set for this user.
    pub pool_mode: Option<&'static str>,
    pub max_user_connections: u32,
    pub current_connections: usize,
    pub max_user_client_connections: u32,
    pub current_client_connections: usize,
}

table!(
    /// SHOW USERS.
    pub USERS: UserRow, "users", |user| {
        "name" Text = user.name;
        "pool_size" Text = Padded(user.pool_size);
        "reserve_pool_size" Text = Padded(user.reserve_pool_size);
        "pool_mode" Text = user.pool_mode;
        "max_user_connections" Int4 = int4(user.max_user_connections);
        "current_connections" Int4 = int4(user.current_connections);
        "max_user_client_connections" Int4 = int4(user.max_user_client_connections);
        "current_client_connections" Int4 = int4(user.current_client_connections);
    }
);

/// One peer that cancel requests may be meant for.
#[derive(Clone, Debug, Default)]
#[expect(
    missing_docs,
    reason = "the fields are the columns, which PgBouncer's manual describes"
)]
pub struct PeerRow {
    pub peer_id: u32,
    pub host: Option<String>,
    pub port: u16,
    pub pool_size: u32,
}

table!(
    /// SHOW PEERS.
    pub PEERS: PeerRow, "peers", |peer| {
        "peer_id" Int4 = int4(peer.peer_id);
        "host" Text = peer.host;
        "port" Int4 = int4(peer.port);
        "pool_size" Int4 = int4(peer.pool_size);
    }
);
