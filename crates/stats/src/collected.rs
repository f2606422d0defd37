//! Families of the metrics as values, for who sends them elsewhere than on a page.

use crate::LatencyHistogram;
use crate::prometheus::{Kind, Value};

/// One family.
#[derive(Clone, Debug)]
pub struct Collected {
    /// Its name.
    pub name: String,
    /// One sentence.
    pub help: String,
    /// What it measures.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: Vec<String>,
    /// Its samples.
    pub points: Vec<Point>,
}

/// One sample.
#[derive(Clone, Debug)]
pub struct Point {
    /// The values of the labels, in the order of the family's.
    pub labels: Vec<String>,
    /// What was measured.
    pub reading: Reading,
}

/// What was measured.
#[derive(Clone, Debug)]
pub enum Reading {
    /// One number.
    Number(Value),
    /// Many times.
    Times {
        /// In the buckets that need no declaration.
        exponential: Exponential,
        /// For each declared bound in microseconds, ascending: how many were at most that long.
        at_most: Vec<(u64, u64)>,
    },
}

/// A distribution of times in seconds. The bucket `n` has what is above `BASE^n` and at most `BASE^(n+1)`: as the
/// exponential histograms of OpenTelemetry have it. The native ones of Prometheus have the same buckets, and number
/// each by where it ends: one more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exponential {
    /// Of zero.
    pub zero: u64,
    /// The number of the first bucket.
    pub offset: i32,
    /// What is in it, and in those that follow.
    pub buckets: Vec<u64>,
    /// All, those of zero too.
    pub count: u64,
    /// Added up.
    pub sum_us: u64,
}

impl Exponential {
    /// Eight buckets for each doubling, so each ends 9 % above where it begins; times are known to a sixteenth.
    pub const SCALE: i32 = 3;

    /// What is zero was shorter than a microsecond. This is the next shorter end of a bucket, in seconds: 2^-20.
    pub const ZERO_THRESHOLD: f64 = 1.0 / 1_048_576.0;

    pub(crate) fn of(histogram: &LatencyHistogram) -> Self {
        let mut exponential = Self {
            count: histogram.count(),
            sum_us: histogram.sum_us(),
            ..Self::default()
        };
        for (us, count) in histogram.recorded() {
            match us {
                0 => exponential.zero += count,
                us => exponential.add(bucket(us), count),
            }
        }
        exponential
    }

    /// Buckets come in ascending order.
    fn add(&mut self, bucket: i32, count: u64) {
        if self.buckets.is_empty() {
            self.offset = bucket;
        }
        let index = usize::try_from(bucket - self.offset).unwrap_or(0);
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, 0);
        }
        self.buckets[index] += count;
    }
}

/// The bucket of a time that is not zero.
fn bucket(us: u64) -> i32 {
    let steps = f64::from(1 << Exponential::SCALE);
    let exponent = (us as f64 / 1e6).log2() * steps;
    exponent.ceil() as i32 - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Distribution;
    use crate::prometheus::Page;

    #[test]
    fn every_time_is_in_the_bucket_around_it() {
        let base = 2_f64.powf(1.0 / 8.0);
        for us in [1, 2, 999, 1_000, 1_000_000, 1_000_001, 3_600_000_000] {
            let seconds = us as f64 / 1e6;
            let bucket = bucket(us);
            let (low, high) = (base.powi(bucket), base.powi(bucket + 1));
            assert!(
                low < seconds * 1.000_001 && seconds <= high * 1.000_001,
                "{us}"
            );
        }
    }

    #[test]
    fn what_was_recorded_is_in_a_bucket_that_it_touches() {
        let base = 2_f64.powf(1.0 / 8.0);
        let mut us = 1;
        while us < 3_000_000_000 {
            let (distribution, mut histogram) = (Distribution::default(), LatencyHistogram::new());
            distribution.record(us);
            distribution.add_to(&mut histogram);
            let exponential = Exponential::of(&histogram);
            let (low, high) = (
                base.powi(exponential.offset),
                base.powi(exponential.offset + 1),
            );
            // Times are known to a sixteenth.
            let seconds = us as f64 / 1e6;
            assert_eq!(exponential.buckets, [1], "{us}");
            assert!(
                low * 15.0 / 16.0 < seconds && seconds < high * 17.0 / 16.0,
                "{us}"
            );
            us += us / 40 + 1;
        }
    }

    #[test]
    fn zero_is_what_is_shorter_than_any_bucket_in_use() {
        let base = 2_f64.powf(1.0 / 8.0);
        let ends = base.powi(bucket(1));
        assert!((ends - Exponential::ZERO_THRESHOLD).abs() < 1e-12, "{ends}");
    }

    #[test]
    fn what_is_collected_is_what_would_be_written() {
        let mut page = Page::collecting();
        let mut times = LatencyHistogram::new();
        times.record(500);
        page.named("x", &["l"], "An x.", Kind::Gauge)
            .sample(&["a\nb"], 3u64);
        page.named("y_seconds", &[], "A y.", Kind::Histogram)
            .histogram(&[], &times, &[100, 1_000]);
        let [x, y] = &page.into_collected()[..] else {
            panic!("two families");
        };
        assert_eq!(
            (x.name.as_str(), x.kind, &x.points[0].labels[..]),
            ("x", Kind::Gauge, &["a\nb".to_owned()][..])
        );
        assert!(matches!(
            x.points[0].reading,
            Reading::Number(Value::Unsigned(3))
        ));
        let Reading::Times {
            exponential,
            at_most,
        } = &y.points[0].reading
        else {
            panic!("a histogram");
        };
        assert_eq!(
            (exponential.count, &at_most[..]),
            (1, &[(100, 0), (1_000, 1)][..])
        );
    }

    #[test]
    fn nothing_is_lost_and_zero_is_apart() {
        let mut histogram = LatencyHistogram::new();
        for us in [0, 0, 10, 500, 500, 2_000_000] {
            histogram.record(us);
        }
        let exponential = Exponential::of(&histogram);
        assert_eq!((exponential.zero, exponential.count), (2, 6));
        assert_eq!(exponential.buckets.iter().sum::<u64>(), 4);
        assert_eq!(exponential.buckets.first(), Some(&1));
        assert_eq!(exponential.buckets.last(), Some(&1));
        assert_eq!(exponential.sum_us, 2_001_010);
        let empty = Exponential::of(&LatencyHistogram::new());
        assert_eq!(empty, Exponential::default());
    }
}
