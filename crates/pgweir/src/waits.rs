//! How long clients wait for a server, by what the wait is put down to, for each database as the metrics
//! name it. Also waits that end with nothing: whoever is refused has waited, too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pgweir_pool::Cause;
use pgweir_stats::{LatencyHistogram, Times};

use crate::server::micros;
use crate::shared::lock;

/// The waits for one database.
#[derive(Debug, Default)]
pub(crate) struct WaitTimes {
    causes: [Times; Cause::ALL.len()],
}

/// The waits for each database. As many as there are names of databases in the metrics.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    by_database: Mutex<BTreeMap<Arc<str>, Arc<WaitTimes>>>,
}

impl WaitTimes {
    /// A wait that began at `since` is over. Without a cause it was for no server that can be shared.
    pub(crate) fn note(&self, cause: Option<Cause>, since: Instant, now: Instant) {
        if let Some(cause) = cause {
            let waited = micros(now.saturating_duration_since(since));
            self.causes[cause as usize].record(waited);
        }
    }

    /// What was put down to this cause.
    pub(crate) fn view(&self, cause: Cause) -> LatencyHistogram {
        self.causes[cause as usize].view()
    }
}

impl Waits {
    /// Those for the database that has this name in the metrics.
    pub(crate) fn of(&self, database: &Arc<str>) -> Arc<WaitTimes> {
        let mut by_database = lock(&self.by_database);
        Arc::clone(by_database.entry(Arc::clone(database)).or_default())
    }

    /// By database.
    pub(crate) fn all(&self) -> BTreeMap<Arc<str>, Arc<WaitTimes>> {
        lock(&self.by_database).clone()
    }
}
