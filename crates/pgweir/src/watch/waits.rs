//! How long clients wait for a server, by what the wait is put down to. Also waits that end with nothing: whoever is refused has waited, too.

use std::time::Instant;

use pgweir_pool::Cause;
use pgweir_stats::{LatencyHistogram, Times};

use crate::servers::server::micros;

/// The waits of one pool.
#[derive(Debug, Default)]
pub(crate) struct WaitTimes {
    causes: [Times; Cause::ALL.len()],
}

impl WaitTimes {
    /// A wait that began at `since` is over. Without a cause it was for no server that can be shared.
    pub(crate) fn note(&self, cause: Option<Cause>, since: Instant, now: Instant) {
        if let Some(cause) = cause {
            let waited = micros(now.saturating_duration_since(since));
            self.causes[cause as usize].record(waited);
        }
    }

    /// What was put down to this cause, if anything was.
    pub(crate) fn view(&self, cause: Cause) -> Option<LatencyHistogram> {
        self.causes[cause as usize].view()
    }
}
