//! Distributions of latencies, in microseconds.

use hdrhistogram::Histogram;

/// The shortest latency told apart from zero, in microseconds.
const LOWEST_US: u64 = 1;
/// The longest latency told apart from longer ones: one hour, in microseconds.
const HIGHEST_US: u64 = 3_600_000_000;
/// Two digits hold a percentile to 1 %, in about 26 KiB.
const SIGNIFICANT_DIGITS: u8 = 2;

/// A histogram of latencies from 1 µs to 1 h, exact to two digits.
///
/// A longer latency counts as one hour, so no record is ever lost or refused.
#[derive(Clone, Debug)]
pub struct LatencyHistogram {
    histogram: Histogram<u64>,
    sum_us: u64,
}

impl LatencyHistogram {
    /// An empty histogram.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(LOWEST_US, HIGHEST_US, SIGNIFICANT_DIGITS)
            .expect("the bounds are constants that the histogram accepts");
        Self {
            histogram,
            sum_us: 0,
        }
    }

    /// Counts one latency.
    pub fn record(&mut self, latency_us: u64) {
        self.histogram.saturating_record(latency_us);
        self.sum_us = self.sum_us.saturating_add(latency_us);
    }

    /// Counts one latency so many times, but for the sum; see [`Self::add_sum`].
    pub fn record_many(&mut self, latency_us: u64, times: u64) {
        if times > 0 {
            self.histogram.saturating_record_n(latency_us, times);
        }
    }

    /// Adds to the sum what is known of it otherwise.
    pub fn add_sum(&mut self, sum_us: u64) {
        self.sum_us = self.sum_us.saturating_add(sum_us);
    }

    /// Adds all that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        self.histogram
            .add(&other.histogram)
            .expect("all histograms have the same bounds");
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.histogram.reset();
        self.sum_us = 0;
    }

    /// The latency that a share `quantile` (0.0 to 1.0) of all records does not exceed; 0 if empty.
    pub fn quantile_us(&self, quantile: f64) -> u64 {
        self.histogram.value_at_quantile(quantile)
    }

    /// How many latencies were at most each of these limits, which ascend, to the histogram's two
    /// digits: what was counted is gone through once.
    pub fn counts_at_most(&self, limits_us: &[u64]) -> impl Iterator<Item = u64> {
        debug_assert!(limits_us.is_sorted(), "{limits_us:?}");
        let mut recorded = self.histogram.iter_recorded().peekable();
        let mut count = 0;
        limits_us.iter().map(move |&limit_us| {
            if limit_us >= HIGHEST_US {
                return self.count();
            }
            let is_within = |value| self.histogram.lowest_equivalent(value) <= limit_us;
            while let Some(bucket) = recorded.next_if(|it| is_within(it.value_iterated_to())) {
                count += bucket.count_at_value();
            }
            count
        })
    }

    /// The latencies that were counted, to two digits, in ascending order, and how many of each.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.histogram.iter_recorded();
        recorded.map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
    }

    /// How many latencies were counted.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// All latencies added up, exact.
    pub fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The longest latency counted; 0 if empty.
    pub fn max_us(&self) -> u64 {
        self.histogram.max()
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(latencies_us: &[u64]) -> LatencyHistogram {
        let mut histogram = LatencyHistogram::new();
        latencies_us
            .iter()
            .for_each(|&latency| histogram.record(latency));
        histogram
    }

    fn count_at_most(histogram: &LatencyHistogram, limit_us: u64) -> u64 {
        match limit_us {
            HIGHEST_US.. => histogram.count(),
            _ => histogram.histogram.count_between(0, limit_us),
        }
    }

    #[test]
    fn quantiles_are_exact_to_two_digits() {
        let histogram = of(&(1..=1_000).collect::<Vec<_>>());
        let p99 = histogram.quantile_us(0.99);
        assert!((980..=1_000).contains(&p99), "{p99}");
        assert_eq!(histogram.quantile_us(0.0), 1);
    }

    #[test]
    fn an_empty_histogram_answers_zero() {
        let histogram = LatencyHistogram::new();
        assert_eq!(
            (
                histogram.count(),
                histogram.quantile_us(0.5),
                histogram.max_us()
            ),
            (0, 0, 0)
        );
    }

    #[test]
    fn longer_than_an_hour_counts_as_an_hour() {
        let histogram = of(&[u64::MAX]);
        assert_eq!(histogram.count(), 1);
        assert!(histogram.max_us() >= HIGHEST_US);
        let counts: Vec<u64> = histogram.counts_at_most(&[1_000_000, u64::MAX]).collect();
        assert_eq!(counts, [0, 1]);
    }

    #[test]
    fn clearing_forgets_everything() {
        let mut histogram = of(&[5]);
        histogram.clear();
        assert_eq!((histogram.count(), histogram.sum_us()), (0, 0));
    }

    proptest! {
        #[test]
        fn limits_can_be_counted_together(
            latencies in proptest::collection::vec(0..2 * HIGHEST_US, 0..50),
            small in proptest::collection::vec(0..3_000u64, 0..50),
            mut limits in proptest::collection::vec(0..2 * HIGHEST_US, 0..20),
        ) {
            limits.extend([0, 1, 127, 128, 255, 256, 257, 1_000, 2_500]);
            limits.sort_unstable();
            let histogram = of(&[latencies, small].concat());
            let together: Vec<u64> = histogram.counts_at_most(&limits).collect();
            let each = limits.iter().map(|&limit| count_at_most(&histogram, limit));
            prop_assert_eq!(together, each.collect::<Vec<_>>());
        }

        #[test]
        fn merging_is_recording_both(
            left in proptest::collection::vec(0..u64::MAX / 100, 0..50),
            right in proptest::collection::vec(0..u64::MAX / 100, 0..50),
            quantile in 0.0..=1.0f64,
        ) {
            let mut merged = of(&left);
            merged.merge(&of(&right));
            let both = of(&[left, right].concat());
            prop_assert_eq!(merged.count(), both.count());
            prop_assert_eq!(merged.sum_us(), both.sum_us());
            prop_assert_eq!(merged.quantile_us(quantile), both.quantile_us(quantile));
        }
    }
}
