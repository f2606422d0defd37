//! SHOW STATS_HIST: how times are spread, where SHOW STATS has averages only.

use std::sync::Arc;

use pgweir_stats::{LatencyHistogram, LatencyView};

use crate::table::table;

/// One kind of time in one database, in microseconds as in SHOW STATS.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "the fields are the columns")]
pub struct LatencyRow {
    pub database: Arc<str>,
    /// `wait`, `query`, `xact` or `hold`.
    pub time: &'static str,
    pub count: u64,
    pub average: u64,
    pub p50: u64,
    pub p90: u64,
    pub p95: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

table!(
    /// SHOW STATS_HIST.
    pub STATS_HIST: LatencyRow, "stats_hist", |row| {
        "database" Text = row.database;
        "time" Text = row.time;
        "count" Numeric = row.count;
        "avg_us" Numeric = row.average;
        "p50_us" Numeric = row.p50;
        "p90_us" Numeric = row.p90;
        "p95_us" Numeric = row.p95;
        "p99_us" Numeric = row.p99;
        "p999_us" Numeric = row.p999;
        "max_us" Numeric = row.max;
    }
);

impl LatencyRow {
    /// The rows of a database.
    pub fn of(database: &Arc<str>, view: &LatencyView) -> [Self; 4] {
        [
            ("wait", &view.wait),
            ("query", &view.query),
            ("xact", &view.transaction),
            ("hold", &view.hold),
        ]
        .map(|(time, histogram)| Self::read(Arc::clone(database), time, histogram))
    }

    fn read(database: Arc<str>, time: &'static str, histogram: &LatencyHistogram) -> Self {
        let count = histogram.count();
        Self {
            database,
            time,
            count,
            average: histogram.sum_us().checked_div(count).unwrap_or(0),
            p50: histogram.quantile_us(0.5),
            p90: histogram.quantile_us(0.9),
            p95: histogram.quantile_us(0.95),
            p99: histogram.quantile_us(0.99),
            p999: histogram.quantile_us(0.999),
            max: histogram.max_us(),
        }
    }
}
