//! Distributions of times that many tasks record at once.
//!
//! Hot path: the usual transaction, one query that did not wait, costs one atomic addition. That is
//! why it has a distribution of its own, [`Latencies::alone`], which stands for one query, one
//! transaction, one lease and one wait of zero; a reader puts it together again. Sums of queries and
//! transactions are not kept here, because [`crate::Totals`] has them.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::LatencyHistogram;

/// Buckets that each doubling of a time is divided into: a time is known to 1/16.
const STEPS: u64 = 16;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// Times from 2^32 µs on, which is more than an hour, are counted together.
const TOP_BITS: u32 = 32;
/// Times below twice `STEPS` have a bucket each.
const BUCKETS: usize = (2 * STEPS + (TOP_BITS - STEP_BITS - 1) as u64 * STEPS) as usize;

/// A distribution of times in microseconds. It takes no memory before the first record.
#[derive(Debug, Default)]
pub struct Distribution {
    buckets: OnceLock<Box<[AtomicU64; BUCKETS]>>,
}

impl Distribution {
    /// Counts one time.
    #[inline]
    pub fn record(&self, us: u64) {
        let buckets = self.buckets.get_or_init(Self::empty);
        buckets[bucket(us)].fetch_add(1, Relaxed);
    }

    #[cold]
    fn empty() -> Box<[AtomicU64; BUCKETS]> {
        Box::new([const { AtomicU64::new(0) }; BUCKETS])
    }

    /// Adds what another one has counted so far.
    fn add(&self, other: &Self) {
        let Some(counts) = other.buckets.get() else {
            return;
        };
        let buckets = self.buckets.get_or_init(Self::empty);
        for (bucket, count) in buckets.iter().zip(counts.iter()) {
            bucket.fetch_add(count.load(Relaxed), Relaxed);
        }
    }

    /// Whether there was a record.
    pub(crate) fn is_used(&self) -> bool {
        self.buckets.get().is_some()
    }

    /// Adds what was counted so far.
    pub(crate) fn add_to(&self, histogram: &mut LatencyHistogram) {
        let Some(buckets) = self.buckets.get() else {
            return;
        };
        for (index, count) in buckets.iter().enumerate() {
            histogram.record_many(middle(index), count.load(Relaxed));
        }
    }

    fn count(&self) -> u64 {
        let buckets = self.buckets.get();
        buckets.map_or(0, |buckets| buckets.iter().map(|b| b.load(Relaxed)).sum())
    }
}

/// The bucket of a time: its highest bit, and the four bits below that.
#[inline]
fn bucket(us: u64) -> usize {
    let us = us.min((1 << TOP_BITS) - 1);
    if us < 2 * STEPS {
        return us as usize;
    }
    let shift = us.ilog2() - STEP_BITS;
    (u64::from(shift) * STEPS + (us >> shift)) as usize
}

/// The middle of a bucket.
fn middle(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let first = (index % STEPS + STEPS) << shift;
    first + ((1 << shift) >> 1)
}

/// What is recorded of one pool.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Queries that were a transaction of their own and a lease of their own, and had not waited.
    pub alone: Distribution,
    queries: Distribution,
    transactions: Distribution,
    session_transactions: Distribution,
    sessions: Distribution,
    waits: Distribution,
    /// Leases that had not waited, but those that were `alone`.
    unwaited: AtomicU64,
    /// Times in `waits`, `sessions` and `session_transactions`, added up.
    waits_us: AtomicU64,
    sessions_us: AtomicU64,
    session_transactions_us: AtomicU64,
}

impl Latencies {
    /// A query has ended.
    pub fn query(&self, us: u64) {
        self.queries.record(us);
    }

    /// A transaction has ended, and its lease with it.
    pub fn transaction(&self, us: u64) {
        self.transactions.record(us);
    }

    /// A transaction has ended whose client keeps the server.
    pub fn session_transaction(&self, us: u64) {
        self.session_transactions.record(us);
        self.session_transactions_us.fetch_add(us, Relaxed);
    }

    /// A lease has ended otherwise than with a transaction.
    pub fn session(&self, us: u64) {
        self.sessions.record(us);
        self.sessions_us.fetch_add(us, Relaxed);
    }

    /// Adds what another pool has recorded so far.
    pub fn add(&self, other: &Self) {
        let (distributions, sums) = self.parts();
        let (others, others_sums) = other.parts();
        for (own, other) in distributions.into_iter().zip(others) {
            own.add(other);
        }
        for (own, other) in sums.into_iter().zip(others_sums) {
            own.fetch_add(other.load(Relaxed), Relaxed);
        }
    }

    fn parts(&self) -> ([&Distribution; 6], [&AtomicU64; 4]) {
        let Self {
            alone,
            queries,
            transactions,
            session_transactions,
            sessions,
            waits,
            unwaited,
            waits_us,
            sessions_us,
            session_transactions_us,
        } = self;
        let distributions = [
            alone,
            queries,
            transactions,
            session_transactions,
            sessions,
            waits,
        ];
        let sums = [unwaited, waits_us, sessions_us, session_transactions_us];
        (distributions, sums)
    }

    /// A client got its server after so long. Said once per lease.
    pub fn wait(&self, us: u64) {
        match us {
            0 => {
                self.unwaited.fetch_add(1, Relaxed);
            }
            us => {
                self.waits.record(us);
                self.waits_us.fetch_add(us, Relaxed);
            }
        }
    }
}

/// What was recorded, of one pool or of several together.
#[derive(Clone, Debug, Default)]
pub struct LatencyView {
    /// From a client's wish for a server until it had one.
    pub wait: LatencyHistogram,
    /// Queries, from when they were asked: of the first one of a transaction the wait is a part, as in
    /// PgBouncer's query time.
    pub query: LatencyHistogram,
    /// Transactions, from when they had a server.
    pub transaction: LatencyHistogram,
    /// Leases, from checkout to checkin.
    pub hold: LatencyHistogram,
}

impl LatencyView {
    /// Adds one pool; its times of queries and transactions, added up, are in `totals`.
    pub fn add(&mut self, latencies: &Latencies, totals: &crate::Snapshot) {
        let alone = &latencies.alone;
        for histogram in [&mut self.query, &mut self.transaction, &mut self.hold] {
            alone.add_to(histogram);
        }
        latencies.queries.add_to(&mut self.query);
        latencies.transactions.add_to(&mut self.transaction);
        latencies.transactions.add_to(&mut self.hold);
        let of_sessions = &latencies.session_transactions;
        of_sessions.add_to(&mut self.transaction);
        latencies.sessions.add_to(&mut self.hold);
        latencies.waits.add_to(&mut self.wait);
        let unwaited = latencies.unwaited.load(Relaxed) + alone.count();
        self.wait.record_many(0, unwaited);
        let sum = |sum: &AtomicU64| sum.load(Relaxed);
        self.wait.add_sum(sum(&latencies.waits_us));
        self.query.add_sum(totals.query_time_us);
        self.transaction.add_sum(totals.xact_time_us);
        let of_sessions = sum(&latencies.session_transactions_us);
        let of_leases = totals.xact_time_us.saturating_sub(of_sessions);
        self.hold.add_sum(of_leases + sum(&latencies.sessions_us));
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.wait.count() + self.query.count() + self.hold.count() == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Snapshot;

    #[test]
    fn buckets_follow_one_another_without_a_gap() {
        let mut last = bucket(0);
        for us in 1..200_000 {
            let next = bucket(us);
            assert!(next == last || next == last + 1, "{us}");
            last = next;
        }
        assert_eq!(bucket((1 << TOP_BITS) - 1), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_usual_transaction_is_one_record_and_four_counts() {
        let latencies = Latencies::default();
        latencies.alone.record(1_000);
        let totals = Snapshot {
            query_time_us: 1_000,
            xact_time_us: 1_000,
            ..Snapshot::default()
        };
        let mut view = LatencyView::default();
        view.add(&latencies, &totals);
        let counts = [&view.wait, &view.query, &view.transaction, &view.hold].map(|h| h.count());
        assert_eq!(counts, [1; 4]);
        assert_eq!((view.wait.max_us(), view.wait.sum_us()), (0, 0));
        assert_eq!((view.query.sum_us(), view.hold.sum_us()), (1_000, 1_000));
    }

    #[test]
    fn a_lease_is_a_transaction_or_a_session() {
        let latencies = Latencies::default();
        latencies.wait(300);
        latencies.transaction(500);
        latencies.wait(0);
        latencies.session_transaction(10);
        latencies.session_transaction(20);
        latencies.session(10_000);
        let totals = Snapshot {
            xact_time_us: 530,
            ..Snapshot::default()
        };
        let mut view = LatencyView::default();
        view.add(&latencies, &totals);
        assert_eq!((view.wait.count(), view.wait.sum_us()), (2, 300));
        assert_eq!(view.wait.counts_at_most(&[100]), [1]);
        assert_eq!(
            (view.transaction.count(), view.transaction.sum_us()),
            (3, 530)
        );
        assert_eq!((view.hold.count(), view.hold.sum_us()), (2, 10_500));
    }

    #[test]
    fn what_was_added_is_seen_as_if_it_had_been_recorded_there() {
        let record = |latencies: &Latencies| {
            latencies.alone.record(1_000);
            latencies.query(10);
            latencies.wait(300);
            latencies.wait(0);
            latencies.transaction(500);
            latencies.session_transaction(20);
            latencies.session(10_000);
        };
        let (added, twice) = (Latencies::default(), Latencies::default());
        for _ in 0..2 {
            let one = Latencies::default();
            record(&one);
            added.add(&one);
            record(&twice);
        }
        let seen = |latencies: &Latencies| {
            let mut view = LatencyView::default();
            view.add(latencies, &Snapshot::default());
            [view.wait, view.query, view.transaction, view.hold]
                .map(|h| (h.count(), h.sum_us(), h.quantile_us(0.5)))
        };
        assert_eq!(seen(&added), seen(&twice));
    }

    proptest! {
        #[test]
        fn a_time_is_known_to_a_sixteenth(us in 0..1_u64 << TOP_BITS) {
            let middle = middle(bucket(us));
            prop_assert_eq!(bucket(middle), bucket(us));
            prop_assert!(middle.abs_diff(us) <= us / STEPS, "{} for {}", middle, us);
        }
    }
}
