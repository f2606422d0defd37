//! One limit and its use.

use std::time::{Duration, Instant};

/// How often a permit may be taken from one pool for another, on the average. Every switch costs a
/// login: without a bound, pools that share a limit could spend their time on logins.
const SWITCHES_PER_PERMIT_AND_SECOND: u32 = 5;

/// A limit and its use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Gauge {
    /// How many there are now.
    pub used: u32,
    /// The most there have been.
    pub peak: u32,
    /// How many there may be; `None` is no limit.
    pub limit: Option<u32>,
    /// When the switches made so far are worn off.
    switched_until: Option<Instant>,
}

impl Gauge {
    /// A gauge as it reads.
    pub fn reading(used: u32, peak: u32, limit: Option<u32>) -> Self {
        Self {
            used,
            peak,
            limit,
            switched_until: None,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.used > limit)
    }

    /// Whether nothing more can be taken.
    pub fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.used >= limit)
    }

    /// Whether a permit may go from one pool to another now; if so, that is counted. As many as
    /// there are permits may go at once, and then as many a second as the average allows.
    pub(crate) fn may_switch(&mut self, now: Instant) -> bool {
        let permits = self.limit.unwrap_or(u32::MAX).max(1);
        let spacing =
            Duration::from_secs(1) / SWITCHES_PER_PERMIT_AND_SECOND.saturating_mul(permits);
        let until = self.switched_until.map_or(now, |until| until.max(now));
        let burst = Duration::from_secs(1) / SWITCHES_PER_PERMIT_AND_SECOND;
        let allowed = until.saturating_duration_since(now) < burst;
        if allowed {
            self.switched_until = Some(until + spacing);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_change_hands_at_a_bounded_rate() {
        let mut gauge = Gauge::reading(0, 0, Some(2));
        let start = Instant::now();
        let mut switches = 0;
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            switches += u32::from(gauge.may_switch(now));
        }
        let expected = 10 * 2 * SWITCHES_PER_PERMIT_AND_SECOND + 2;
        assert!((expected - 2..=expected).contains(&switches), "{switches}");
    }
}
