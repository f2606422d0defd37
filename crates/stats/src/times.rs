//! A distribution with its exact sum, for what is not on the way of every query.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{Distribution, LatencyHistogram};

/// Times in microseconds.
#[derive(Debug, Default)]
pub struct Times {
    distribution: Distribution,
    sum_us: AtomicU64,
}

impl Times {
    /// Something has taken so long.
    pub fn record(&self, us: u64) {
        self.distribution.record(us);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// What was recorded, if anything was.
    pub fn view(&self) -> Option<LatencyHistogram> {
        if !self.distribution.is_used() {
            return None;
        }
        let mut view = LatencyHistogram::default();
        self.distribution.add_to(&mut view);
        view.add_sum(self.sum_us.load(Relaxed));
        Some(view)
    }
}
