//! One const per SHOW table, and the plain rows they are filled with.
//!
//! Names, types and order of the columns are PgBouncer's; the tests hold them fixed, because some
//! monitors read by position and others fail on an unexpected type.

mod backends;
mod budget;
mod consumers;
mod databases;
mod findings;
mod internals;
mod latencies;
mod leaks;
mod listeners;
mod orders;
mod pins;
mod pools;
mod questions;
mod recent;
mod sockets;
mod stats;

pub use backends::{BACKENDS, BackendRow};
pub use budget::{BUDGET, BudgetRow};
pub use consumers::{APPS, AppRow, CONSUMERS, ConsumerRow};
pub use databases::{DATABASES, DatabaseRow, PEERS, PeerRow, USERS, UserRow};
pub use findings::{FINDINGS, FindingRow};
pub use internals::{
    CONFIG, ConfigRow, DNS_HOSTS, DNS_ZONES, DnsHostRow, DnsZoneRow, LISTS, ListCounts, ListRow,
    MEM, MEM_CACHES, MemRow, PauseState, STATE, StateRow, VERSION_TABLE,
};
pub use latencies::{LatencyRow, STATS_HIST};
pub use leaks::{HOLDERS, HolderRow, LEAKS, LeakRow};
pub use listeners::{LISTENERS, ListenerRow};
pub use orders::{
    ClientToEnd, ENDED, MAINTENANCE, MaintenanceRow, OVERRIDES, OverrideRow, QUARANTINE,
    QuarantineRow,
};
pub use pins::{PINS, PinRow};
pub use pools::{PEER_POOLS, POOLS, PeerPoolRow, PoolRow};
pub use questions::{DIAGNOSIS, DiagnosisRow, WHY, WhyRow};
pub use recent::{EVENTS, EventRow, SAMPLES, STATEMENTS, SampleRow, StatementRow};
pub use sockets::{
    ACTIVE_SOCKETS, CLIENTS, FDS, FdRow, FdTask, HANDOVER, Replication, SERVERS, SOCKETS,
    SocketBuffers, SocketRow, SocketState, shown_id,
};
pub use stats::{
    STATS, STATS_AVERAGES, STATS_TOTALS, StatsRow, TOTALS, TotalsRow, counts_logins, totals_rows,
};

#[cfg(test)]
mod column_tests;
#[cfg(test)]
mod row_tests;
