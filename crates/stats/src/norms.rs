//! How long statements normally take: a coarse distribution for each of a bounded number of them.
//!
//! Whoever tells [`Norms::record`] tells it of every slow statement and of one in so many others, which then counts
//! for all of them. Old observations fade as new ones come.

use std::collections::HashMap;
use std::time::Duration;

/// Statements of a pool that are known. With 128 bytes each that is 32 KiB.
const STATEMENTS_MAX: usize = 256;

/// One for each power of two of microseconds: up to half an hour, and beyond.
const BUCKETS: usize = 32;

/// Observations of a statement after which something can be expected of it.
const KNOWN_AFTER: u32 = 8;

/// The weight of all observations of a statement at which each is halved.
const WEIGHT_MAX: u32 = 1 << 20;

/// How long one statement takes.
#[derive(Clone, Copy, Debug)]
struct Norm {
    weights: [u32; BUCKETS],
    observations: u32,
    /// Which of the table's observations was its last.
    seen: u64,
}

/// How long the statements of a pool take.
#[derive(Debug, Default)]
pub struct Norms {
    statements: HashMap<u64, Norm>,
    observations: u64,
}

impl Norms {
    /// A statement took `us` microseconds; that stands for `weight` of its kind.
    pub fn record(&mut self, print: u64, us: u64, weight: u32) {
        if self.statements.len() >= STATEMENTS_MAX && !self.statements.contains_key(&print) {
            self.forget_half();
        }
        self.observations += 1;
        let norm = self.statements.entry(print).or_insert(Norm {
            weights: [0; BUCKETS],
            observations: 0,
            seen: 0,
        });
        norm.seen = self.observations;
        norm.observations = norm.observations.saturating_add(1);
        norm.weights[bucket(us)] += weight.min(WEIGHT_MAX);
        if norm.weights.iter().sum::<u32>() > WEIGHT_MAX {
            norm.weights.iter_mut().for_each(|weight| *weight /= 2);
        }
    }

    /// The time within which 99 of 100 such statements end, rounded up to a power of two; `None` if too little is
    /// known of it.
    pub fn usual_max(&self, print: u64) -> Option<Duration> {
        let norm = self.statements.get(&print)?;
        if norm.observations < KNOWN_AFTER {
            return None;
        }
        let all: u64 = norm.weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut below = 0;
        for (at, weight) in norm.weights.iter().enumerate() {
            below += u64::from(*weight);
            if below * 100 >= all * 99 {
                return Some(Duration::from_micros(1 << at));
            }
        }
        None
    }

    /// Those that were not seen for longest make room.
    fn forget_half(&mut self) {
        let mut seen: Vec<u64> = self.statements.values().map(|norm| norm.seen).collect();
        seen.sort_unstable();
        let middle = seen[seen.len() / 2];
        self.statements.retain(|_, norm| norm.seen > middle);
    }
}

/// The number of the first power of two that is no less.
fn bucket(us: u64) -> usize {
    let bits = u64::BITS - us.saturating_sub(1).leading_zeros();
    (bits as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_expected_of_what_was_seen_a_few_times() {
        let mut norms = Norms::default();
        for _ in 0..KNOWN_AFTER - 1 {
            norms.record(1, 900, 1);
        }
        assert_eq!(norms.usual_max(1), None);
        norms.record(1, 900, 1);
        assert_eq!(norms.usual_max(1), Some(Duration::from_micros(1024)));
        assert_eq!(norms.usual_max(2), None);
    }

    #[test]
    fn one_of_a_thousand_is_not_usual_and_one_of_ten_is() {
        let mut norms = Norms::default();
        for _ in 0..100 {
            norms.record(1, 1000, 16);
            norms.record(2, 1000, 16);
        }
        norms.record(1, 5_000_000, 1);
        for _ in 0..200 {
            norms.record(2, 5_000_000, 1);
        }
        assert_eq!(norms.usual_max(1), Some(Duration::from_micros(1024)));
        assert_eq!(norms.usual_max(2), Some(Duration::from_micros(1 << 23)));
    }

    #[test]
    fn what_was_long_ago_fades() {
        let mut norms = Norms::default();
        for us in [1_000_000, 1000] {
            for _ in 0..400_000 {
                norms.record(1, us, 16);
            }
        }
        assert_eq!(norms.usual_max(1), Some(Duration::from_micros(1024)));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_is_used() {
        let mut norms = Norms::default();
        for print in 0..10 * STATEMENTS_MAX as u64 {
            norms.record(print, 10, 1);
            norms.record(u64::MAX, 10, 1);
        }
        assert!(norms.statements.len() <= STATEMENTS_MAX);
        assert_eq!(norms.usual_max(u64::MAX), Some(Duration::from_micros(16)));
    }

    #[test]
    fn every_time_has_its_place() {
        for (us, expected) in [(0, 0), (1, 0), (2, 1), (3, 2), (1024, 10), (1025, 11)] {
            assert_eq!(bucket(us), expected, "{us}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }
}
