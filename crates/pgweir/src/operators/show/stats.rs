//! What was counted and how long it took: SHOW STATS, its relatives, SHOW STATS_HIST and SHOW TOTALS.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pgweir_console::Table;
use pgweir_console::tables::{self, LatencyRow, StatsRow, TotalsRow};
use pgweir_stats::LatencyView;

use crate::shared::{Shared, lock};
use crate::watch::totals;

/// Appends a table of them, without the columns that nobody has asked for.
pub(super) fn write(shared: &Shared, table: &Table<StatsRow>, out: &mut Vec<u8>) {
    let with_logins = shared.config().global.show_login_counts;
    let left_out = |column: &str| !with_logins && tables::counts_logins(column);
    table.write_reply_without(left_out, &stats(shared), out);
}

pub(super) fn latencies(shared: &Shared) -> Vec<LatencyRow> {
    let mut views: BTreeMap<Arc<str>, LatencyView> = BTreeMap::new();
    let (homes, remainders) = shared.counted();
    for (name, home) in homes {
        let view = views.entry(name.database).or_default();
        view.add(&home.latencies, &home.totals.snapshot());
    }
    for (name, remainder) in remainders.databases() {
        let view = views.entry(Arc::clone(name)).or_default();
        view.add(&remainder.latencies, &remainder.totals);
    }
    let rows = views.iter();
    rows.flat_map(|(database, view)| LatencyRow::of(database, view))
        .collect()
}

fn stats(shared: &Shared) -> Vec<StatsRow> {
    let now = Instant::now();
    let history = lock(&shared.history);
    let totals = totals::now(shared).by_name;
    totals
        .into_iter()
        .map(|(database, totals)| {
            let averages = history.averages(&database, &totals, now);
            StatsRow {
                database,
                totals,
                averages,
            }
        })
        .collect()
}

/// SHOW TOTALS.
pub(super) fn totals(shared: &Shared) -> Vec<TotalsRow> {
    let totals = totals::now(shared).all;
    let averages = lock(&shared.history).averages_of_all(&totals, Instant::now());
    let with_logins = shared.config().global.show_login_counts;
    tables::totals_rows(&totals, &averages)
        .filter(|row| with_logins || !row.counts_logins())
        .collect()
}
