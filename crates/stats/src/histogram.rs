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

    /// How many latencies were at most as long as each of these ascending limits, to the histogram's two digits.
    pub fn counts_at_most(&self, limits_us: &[u64]) -> Vec<u64> {
        let mut recorded = self.recorded().peekable();
        let mut count = 0;
        let mut count_to = |limit_us: u64| {
            while let Some((_, more)) = recorded.next_if(|(us, _)| *us <= limit_us) {
                count += more;
            }
            count
        };
        let limits = limits_us.iter().map(|&limit_us| match limit_us {
            HIGHEST_US.. => u64::MAX,
            limit_us => self.histogram.highest_equivalent(limit_us),
        });
        limits.map(&mut count_to).collect()
    }

    /// The latencies that were counted, to two digits, in ascending order, and how many of each.
    pub(crate) fn recorded(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.histogram.iter_recorded();
        recorded.map(|bucket| {
            let us = self.histogram.median_equivalent(bucket.value_iterated_to());
            (us, bucket.count_at_value())
        })
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
        assert_eq!(histogram.counts_at_most(&[1_000_000, u64::MAX]), [0, 1]);
    }

    #[test]
    fn clearing_forgets_everything() {
        let mut histogram = of(&[5]);
        histogram.clear();
        assert_eq!((histogram.count(), histogram.sum_us()), (0, 0));
    }

    proptest! {
        #[test]
        fn counts_are_those_that_a_limit_includes(
            latencies in proptest::collection::vec(0..10_000_u64, 0..50),
            mut limits in proptest::collection::vec(0..10_000_u64, 0..10),
        ) {
            limits.sort_unstable();
            let histogram = of(&latencies);
            let counts = histogram.counts_at_most(&limits);
            for (limit, count) in limits.into_iter().zip(counts) {
                // Two digits are less than one in a hundred.
                let at_most = |limit: u64| latencies.iter().filter(|&&us| us <= limit).count() as u64;
                let (least, most) = (at_most(limit), at_most(limit + limit / 100));
                prop_assert!((least..=most).contains(&count), "{} for {}", count, limit);
            }
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
