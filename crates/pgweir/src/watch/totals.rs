//! What all pools of a database have counted together, also those that are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgweir_config::CONSOLE_DATABASE;
use pgweir_stats::{Snapshot, Tally};

use crate::shared::Shared;

/// Counters now.
pub(crate) struct DatabaseTotals {
    /// Of every database, the console's among them.
    pub(crate) by_name: BTreeMap<Arc<str>, Snapshot>,
    /// Of all databases that there ever were.
    pub(crate) all: Snapshot,
}

pub(crate) fn now(shared: &Shared) -> DatabaseTotals {
    let (homes, remainders) = shared.counted();
    let mut by_name: BTreeMap<Arc<str>, Snapshot> = BTreeMap::new();
    for (name, home) in homes {
        *by_name.entry(name.database).or_default() += home.totals.snapshot();
    }
    for (name, remainder) in remainders.databases() {
        *by_name.entry(Arc::clone(name)).or_default() += remainder.totals;
    }
    let console = shared.console_totals.snapshot();
    by_name.insert(CONSOLE_DATABASE.into(), console);
    let all = by_name.values().copied().sum::<Snapshot>() + remainders.ended;
    DatabaseTotals { by_name, all }
}

/// Counts a console that is used, as one transaction and one query. PgBouncer never sees the first
/// query of a console end, so it counts no other.
pub(crate) fn count_console_session(shared: &Shared) {
    let mut tally = Tally {
        xact_count: 1,
        query_count: 1,
        ..Tally::default()
    };
    shared.console_totals.add(&mut tally);
}
