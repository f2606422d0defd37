//! How the pools stood, second by second, for the last quarter of an hour: what an operator who comes
//! late can still look at. Bounded in time and in databases.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_session::Phase;
use pgweir_stats::Snapshot;

use crate::shared::{Shared, lock};
use crate::watch::{leaks, totals};

/// Seconds that are kept.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// Databases that are told apart in one second, those in trouble and those with most clients first.
const DATABASES_MAX: usize = 16;

/// A client that has been silent in a transaction for less is at work.
const SILENT_MIN: Duration = Duration::from_secs(1);

/// A database in one second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) database: Arc<str>,
    pub(crate) clients: u32,
    pub(crate) waiting: u32,
    pub(crate) oldest_wait: Duration,
    /// Servers at work for clients.
    pub(crate) busy: u32,
    pub(crate) idle: u32,
    pub(crate) opening: u32,
    pub(crate) closing: u32,
    /// Clients that hold a server in a transaction and have said nothing for a second.
    pub(crate) silent: u32,
    /// Of the last second.
    pub(crate) queries: u64,
    /// Of the last second.
    pub(crate) transactions: u64,
    /// Mean time of the queries of the last second.
    pub(crate) query_us: u64,
    /// The step at which the last opening failed, if that was in the last second.
    pub(crate) failure: Option<String>,
}

/// All that is kept.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    ring: VecDeque<(Instant, Vec<Sample>)>,
    totals: BTreeMap<Arc<str>, Snapshot>,
}

impl Samples {
    /// The oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Instant, &Sample)> {
        let seconds = self.ring.iter();
        seconds.flat_map(|(at, samples)| samples.iter().map(|sample| (*at, sample)))
    }

    fn is_due(&self, now: Instant) -> bool {
        let last = self.ring.back();
        last.is_none_or(|(at, _)| now.saturating_duration_since(*at) >= PERIOD)
    }

    fn add(&mut self, now: Instant, mut samples: Vec<Sample>) {
        samples.sort_by_key(|sample| {
            std::cmp::Reverse((sample.failure.is_some(), sample.waiting, sample.clients))
        });
        samples.truncate(DATABASES_MAX);
        self.ring.push_back((now, samples));
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > KEPT;
        while self.ring.front().is_some_and(|(at, _)| is_old(at)) {
            self.ring.pop_front();
        }
    }
}

/// One look, if it is time for one.
pub(crate) fn look(shared: &Shared, now: Instant) {
    let last = {
        let samples = lock(&shared.samples);
        if !samples.is_due(now) {
            return;
        }
        samples.ring.back().map(|(at, _)| *at)
    };
    let mut by_database = pools(shared, now);
    count_silent(shared, now, &mut by_database);
    note_failures(shared, last, &mut by_database);
    let totals = totals::now(shared).by_name;
    let mut samples = lock(&shared.samples);
    let all_before = std::mem::replace(&mut samples.totals, totals.clone());
    for (database, after) in totals {
        let before = all_before.get(&database).copied();
        let Some(sample) = by_database.get_mut(&database) else {
            continue;
        };
        let before = before.unwrap_or_default();
        sample.queries = after.query_count.saturating_sub(before.query_count);
        sample.transactions = after.xact_count.saturating_sub(before.xact_count);
        let spent = after.query_time_us.saturating_sub(before.query_time_us);
        sample.query_us = spent.checked_div(sample.queries).unwrap_or(0);
    }
    samples.add(now, by_database.into_values().collect());
}

fn pools(shared: &Shared, now: Instant) -> BTreeMap<Arc<str>, Sample> {
    let mut by_database: BTreeMap<Arc<str>, Sample> = BTreeMap::new();
    for view in shared.pools().view() {
        let database = &view.name.database;
        let sample = by_database.entry(Arc::clone(database)).or_default();
        let wait = view
            .oldest_wait
            .map(|since| now.saturating_duration_since(since));
        sample.database = Arc::clone(database);
        sample.clients += view.clients;
        sample.waiting += view.waiting;
        sample.oldest_wait = sample.oldest_wait.max(wait.unwrap_or_default());
        sample.busy += view.leased + view.resetting + view.being_canceled;
        sample.idle += view.idle;
        sample.opening += view.opening;
        sample.closing += view.closing + view.quarantined;
    }
    by_database
}

fn count_silent(shared: &Shared, now: Instant, by_database: &mut BTreeMap<Arc<str>, Sample>) {
    for client in &shared.clients {
        let state = client.state().clone();
        let since = state.clocks.since;
        if state.clocks.phase != Phase::IdleInTransaction
            || leaks::silence(&state, false).is_none()
            || now.saturating_duration_since(since) < SILENT_MIN
        {
            continue;
        }
        let database = client.identity.get().map(|identity| &identity.database);
        if let Some(sample) = database.and_then(|name| by_database.get_mut(name)) {
            sample.silent += 1;
        }
    }
}

/// Failures since the last look, which may be a little longer ago than a second.
fn note_failures(
    shared: &Shared,
    last: Option<Instant>,
    by_database: &mut BTreeMap<Arc<str>, Sample>,
) {
    for home in shared.homes().into_values() {
        let failure = lock(&home.last_failure);
        let Some((at, diary)) = &*failure else {
            continue;
        };
        let is_new = last.is_none_or(|last| *at >= last);
        if let Some(entry) = diary.failure().filter(|_| is_new)
            && let Some(sample) = by_database.get_mut(&home.name.database)
        {
            sample.failure = Some(format!("{}: {}", entry.step, entry.detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_databases_are_bounded() {
        let (mut samples, start) = (Samples::default(), Instant::now());
        for second in 0..2_000_u32 {
            let now = start + second * PERIOD;
            assert!(samples.is_due(now));
            let many = (0..40).map(|clients| Sample {
                clients,
                ..Sample::default()
            });
            samples.add(now, many.collect());
            assert!(!samples.is_due(now + PERIOD / 2));
        }
        assert_eq!(samples.ring.len(), 901);
        assert_eq!(samples.all().count(), 901 * DATABASES_MAX);
        assert!(samples.all().all(|(_, sample)| sample.clients >= 24));
    }
}
