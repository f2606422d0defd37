//! SHOW STATS, STATS_TOTALS, STATS_AVERAGES and TOTALS.
//!
//! PgBouncer has four sets of names for the same twelve counters (`total_received` in one table is
//! `bytes_received` in the next and `total_client_bytes` in the third), so each table spells its own.

use std::sync::Arc;

use pgweir_stats::Snapshot;

use crate::table::{Cell, CellWriter, table};

/// The statistics of one database.
#[derive(Clone, Debug, Default)]
pub struct StatsRow {
    /// The database, `pgbouncer` included.
    pub database: Arc<str>,
    /// Counts since the start.
    pub totals: Snapshot,
    /// Averages over the last period; see [`pgweir_stats::History`].
    pub averages: Snapshot,
}

table!(
    /// SHOW STATS; see [`counts_logins`].
    pub STATS: StatsRow, "stats", |stats| {
        "database" Text = stats.database;
        "total_server_assignment_count" Numeric = stats.totals.server_assignment_count;
        "total_xact_count" Numeric = stats.totals.xact_count;
        "total_query_count" Numeric = stats.totals.query_count;
        "total_received" Numeric = stats.totals.bytes_received;
        "total_sent" Numeric = stats.totals.bytes_sent;
        "total_xact_time" Numeric = stats.totals.xact_time_us;
        "total_query_time" Numeric = stats.totals.query_time_us;
        "total_wait_time" Numeric = stats.totals.wait_time_us;
        "total_client_parse_count" Numeric = stats.totals.client_parse_count;
        "total_server_parse_count" Numeric = stats.totals.server_parse_count;
        "total_bind_count" Numeric = stats.totals.bind_count;
        "total_client_login_count" Numeric = stats.totals.client_login_count;
        "avg_server_assignment_count" Numeric = stats.averages.server_assignment_count;
        "avg_xact_count" Numeric = stats.averages.xact_count;
        "avg_query_count" Numeric = stats.averages.query_count;
        "avg_recv" Numeric = stats.averages.bytes_received;
        "avg_sent" Numeric = stats.averages.bytes_sent;
        "avg_xact_time" Numeric = stats.averages.xact_time_us;
        "avg_query_time" Numeric = stats.averages.query_time_us;
        "avg_wait_time" Numeric = stats.averages.wait_time_us;
        "avg_client_parse_count" Numeric = stats.averages.client_parse_count;
        "avg_server_parse_count" Numeric = stats.averages.server_parse_count;
        "avg_bind_count" Numeric = stats.averages.bind_count;
        "avg_client_login_count" Numeric = stats.averages.client_login_count;
    }
);

table!(
    /// SHOW STATS_TOTALS.
    pub STATS_TOTALS: StatsRow, "stats_totals", |stats| {
        "database" Text = stats.database;
        "server_assignment_count" Numeric = stats.totals.server_assignment_count;
        "xact_count" Numeric = stats.totals.xact_count;
        "query_count" Numeric = stats.totals.query_count;
        "bytes_received" Numeric = stats.totals.bytes_received;
        "bytes_sent" Numeric = stats.totals.bytes_sent;
        "xact_time" Numeric = stats.totals.xact_time_us;
        "query_time" Numeric = stats.totals.query_time_us;
        "wait_time" Numeric = stats.totals.wait_time_us;
        "client_parse_count" Numeric = stats.totals.client_parse_count;
        "server_parse_count" Numeric = stats.totals.server_parse_count;
        "bind_count" Numeric = stats.totals.bind_count;
        "client_login_count" Numeric = stats.totals.client_login_count;
    }
);

table!(
    /// SHOW STATS_AVERAGES. Only the last four names say that they are averages.
    pub STATS_AVERAGES: StatsRow, "stats_averages", |stats| {
        "database" Text = stats.database;
        "server_assignment_count" Numeric = stats.averages.server_assignment_count;
        "xact_count" Numeric = stats.averages.xact_count;
        "query_count" Numeric = stats.averages.query_count;
        "bytes_received" Numeric = stats.averages.bytes_received;
        "bytes_sent" Numeric = stats.averages.bytes_sent;
        "xact_time" Numeric = stats.averages.xact_time_us;
        "query_time" Numeric = stats.averages.query_time_us;
        "wait_time" Numeric = stats.averages.wait_time_us;
        "avg_client_parse_count" Numeric = stats.averages.client_parse_count;
        "avg_server_parse_count" Numeric = stats.averages.server_parse_count;
        "avg_bind_count" Numeric = stats.averages.bind_count;
        "avg_client_login_count" Numeric = stats.averages.client_login_count;
    }
);

/// Whether a column is one that PgBouncer has had only since after 1.25.2: those who read that
/// version's statistics by position want to do without.
pub fn counts_logins(column: &str) -> bool {
    column.ends_with("client_login_count")
}

/// One figure of all databases together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TotalsRow {
    prefix: &'static str,
    counter: &'static str,
    value: u64,
}

table!(
    /// SHOW TOTALS.
    pub TOTALS: TotalsRow, "totals", |row| {
        "name" Text = Joined(row.prefix, row.counter);
        "value" Numeric = row.value;
    }
);

/// The rows of SHOW TOTALS: all totals, then all averages.
pub fn totals_rows(totals: &Snapshot, averages: &Snapshot) -> impl Iterator<Item = TotalsRow> {
    [("total_", *totals), ("avg_", *averages)]
        .into_iter()
        .flat_map(|(prefix, snapshot)| {
            figures(&snapshot).map(|(counter, value)| TotalsRow {
                prefix,
                counter,
                value,
            })
        })
}

impl TotalsRow {
    /// As [`counts_logins`], for a row.
    pub fn counts_logins(&self) -> bool {
        counts_logins(self.counter)
    }
}

/// The counters of SHOW TOTALS, with its names and in its order.
fn figures(snapshot: &Snapshot) -> [(&'static str, u64); 12] {
    [
        ("server_assignment_count", snapshot.server_assignment_count),
        ("xact_count", snapshot.xact_count),
        ("query_count", snapshot.query_count),
        ("client_bytes", snapshot.bytes_received),
        ("server_bytes", snapshot.bytes_sent),
        ("xact_time", snapshot.xact_time_us),
        ("query_time", snapshot.query_time_us),
        ("wait_time", snapshot.wait_time_us),
        ("ps_client_parse_count", snapshot.client_parse_count),
        ("ps_server_parse_count", snapshot.server_parse_count),
        ("ps_bind_count", snapshot.bind_count),
        ("client_login_count", snapshot.client_login_count),
    ]
}

struct Joined(&'static str, &'static str);

impl Cell for Joined {
    fn write(&self, cell: CellWriter<'_>) {
        cell.format(format_args!("{}{}", self.0, self.1));
    }
}
