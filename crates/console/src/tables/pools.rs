//! SHOW POOLS and SHOW PEER_POOLS.

use std::sync::Arc;
use std::time::Duration;

use crate::table::{int4, table};

/// One pool: the connections of one user to one database, counted by state.
#[derive(Clone, Debug, Default)]
#[expect(
    missing_docs,
    reason = "the fields are the columns, which PgBouncer's manual describes"
)]
pub struct PoolRow {
    pub database: Arc<str>,
    pub user: Arc<str>,
    pub cl_active: usize,
    pub cl_waiting: usize,
    pub cl_active_cancel_req: usize,
    pub cl_waiting_cancel_req: usize,
    pub sv_active: usize,
    pub sv_active_cancel: usize,
    pub sv_being_canceled: usize,
    pub sv_idle: usize,
    pub sv_used: usize,
    pub sv_tested: usize,
    pub sv_login: usize,
    /// How long the first client in the queue has waited.
    pub maxwait: Duration,
    /// The mode in force, not the one configured for the database.
    pub pool_mode: &'static str,
    /// `None` unless the database has a list of hosts.
    pub load_balance_hosts: Option<&'static str>,
}

table!(
    /// SHOW POOLS.
    pub POOLS: PoolRow, "pools", |pool| {
        "database" Text = pool.database;
        "user" Text = pool.user;
        "cl_active" Int4 = int4(pool.cl_active);
        "cl_waiting" Int4 = int4(pool.cl_waiting);
        "cl_active_cancel_req" Int4 = int4(pool.cl_active_cancel_req);
        "cl_waiting_cancel_req" Int4 = int4(pool.cl_waiting_cancel_req);
        "sv_active" Int4 = int4(pool.sv_active);
        "sv_active_cancel" Int4 = int4(pool.sv_active_cancel);
        "sv_being_canceled" Int4 = int4(pool.sv_being_canceled);
        "sv_idle" Int4 = int4(pool.sv_idle);
        "sv_used" Int4 = int4(pool.sv_used);
        "sv_tested" Int4 = int4(pool.sv_tested);
        "sv_login" Int4 = int4(pool.sv_login);
        "maxwait" Int4 = int4(pool.maxwait.as_secs());
        "maxwait_us" Int4 = int4(pool.maxwait.subsec_micros());
        "pool_mode" Text = pool.pool_mode;
        "load_balance_hosts" Text = pool.load_balance_hosts;
    }
);

/// One pool that forwards cancel requests to a peer.
#[derive(Clone, Debug, Default)]
#[expect(
    missing_docs,
    reason = "the fields are the columns, which PgBouncer's manual describes"
)]
pub struct PeerPoolRow {
    pub peer_id: u32,
    pub cl_active_cancel_req: usize,
    pub cl_waiting_cancel_req: usize,
    pub sv_active_cancel: usize,
    pub sv_login: usize,
}

table!(
    /// SHOW PEER_POOLS.
    pub PEER_POOLS: PeerPoolRow, "peer_pools", |pool| {
        "peer_id" Int4 = int4(pool.peer_id);
        "cl_active_cancel_req" Int4 = int4(pool.cl_active_cancel_req);
        "cl_waiting_cancel_req" Int4 = int4(pool.cl_waiting_cancel_req);
        "sv_active_cancel" Int4 = int4(pool.sv_active_cancel);
        "sv_login" Int4 = int4(pool.sv_login);
    }
);
