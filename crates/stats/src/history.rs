//! The two past snapshots that averages are taken against.
//!
//! PgBouncer averages from the period *before* the last full one up to now, so that a figure never
//! rests on a few milliseconds right after a tick. [`History`] keeps both snapshots for every key
//! (a database) and the moments they were taken.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use crate::Snapshot;

/// Snapshots of the last two ticks, for every key.
#[derive(Debug)]
pub struct History<K> {
    older_at: Instant,
    newer_at: Instant,
    past: BTreeMap<K, Past>,
    /// Of all keys that there ever were.
    all: Past,
}

#[derive(Clone, Copy, Debug, Default)]
struct Past {
    older: Snapshot,
    newer: Snapshot,
}

impl<K: Ord> History<K> {
    /// A history that starts now; before the first tick, averages span one second more than that.
    pub fn new(now: Instant) -> Self {
        let older_at = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        Self {
            older_at,
            newer_at: now,
            past: BTreeMap::new(),
            all: Past::default(),
        }
    }

    /// Ends a period (`stats_period`, 60 s by default). Keys that are not in `current` are forgotten.
    /// `all` is of them and of those that have left.
    pub fn tick(
        &mut self,
        current: impl IntoIterator<Item = (K, Snapshot)>,
        all: Snapshot,
        now: Instant,
    ) {
        let mut before = std::mem::take(&mut self.past);
        for (key, newer) in current {
            let older = before.remove(&key).unwrap_or_default().newer;
            self.past.insert(key, Past { older, newer });
        }
        self.all = Past {
            older: self.all.newer,
            newer: all,
        };
        self.older_at = std::mem::replace(&mut self.newer_at, now);
    }

    /// Averages of `key` from the older snapshot up to `current`, taken `now`.
    pub fn averages<Q>(&self, key: &Q, current: &Snapshot, now: Instant) -> Snapshot
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        let older = self.past.get(key).copied().unwrap_or_default().older;
        current.averages(&older, self.elapsed_us(now))
    }

    /// Averages over all keys together, as in `SHOW TOTALS` and the log.
    pub fn averages_of_all(&self, current: &Snapshot, now: Instant) -> Snapshot {
        current.averages(&self.all.older, self.elapsed_us(now))
    }

    fn elapsed_us(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.older_at);
        u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
    }
}

/// PgBouncer's `log_stats` line, made from averages.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    /// What it tells.
    pub averages: &'a Snapshot,
    /// Whether logins are among it: PgBouncer has them only since after 1.25.2.
    pub with_logins: bool,
}

impl fmt::Display for LogLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let averages = self.averages;
        write!(
            f,
            "stats: {} xacts/s, {} queries/s, {} client parses/s, {} server parses/s, {} binds/s, ",
            averages.xact_count,
            averages.query_count,
            averages.client_parse_count,
            averages.server_parse_count,
            averages.bind_count,
        )?;
        if self.with_logins {
            write!(f, "{} client logins/s, ", averages.client_login_count)?;
        }
        write!(
            f,
            "in {} B/s, out {} B/s, xact {} us, query {} us, wait {} us",
            averages.bytes_received,
            averages.bytes_sent,
            averages.xact_time_us,
            averages.query_time_us,
            averages.wait_time_us,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queries(query_count: u64) -> Snapshot {
        Snapshot {
            query_count,
            ..Snapshot::default()
        }
    }

    #[test]
    fn averages_reach_back_to_the_tick_before_the_last() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut history = History::new(start);
        history.tick([("p0", queries(600))], queries(600), at(60));
        history.tick([("p0", queries(1_200))], queries(1_200), at(120));
        // From the tick at 60 s (600 queries) to 180 s.
        assert_eq!(
            history.averages("p0", &queries(3_000), at(180)).query_count,
            20
        );
    }

    #[test]
    fn before_the_first_tick_a_second_is_added() {
        let start = Instant::now();
        let history = History::<&str>::new(start);
        let averages = history.averages("p0", &queries(100), start + Duration::from_secs(1));
        assert_eq!(averages.query_count, 50);
    }

    #[test]
    fn a_key_that_left_starts_anew() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut history = History::new(start);
        history.tick([("p0", queries(600))], queries(600), at(60));
        history.tick([], queries(600), at(120));
        history.tick([("p0", queries(60))], queries(660), at(180));
        assert_eq!(
            history.averages("p0", &queries(120), at(240)).query_count,
            1
        );
    }

    #[test]
    fn all_keys_are_averaged_together_with_those_that_have_left() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut history = History::new(start);
        let both = [("p0", queries(10)), ("p1", queries(20))];
        history.tick(both, queries(30), at(60));
        history.tick([("p0", queries(10))], queries(30), at(120));
        assert_eq!(
            history.averages_of_all(&queries(150), at(120)).query_count,
            2
        );
    }

    #[test]
    fn the_log_line_names_every_figure() {
        let averages = Snapshot {
            xact_count: 3,
            wait_time_us: 7,
            ..Snapshot::default()
        };
        let line = |with_logins| {
            let averages = &averages;
            LogLine {
                averages,
                with_logins,
            }
            .to_string()
        };
        assert_eq!(
            line(false),
            "stats: 3 xacts/s, 0 queries/s, 0 client parses/s, 0 server parses/s, 0 binds/s, \
             in 0 B/s, out 0 B/s, xact 0 us, query 0 us, wait 7 us"
        );
        assert!(line(true).contains(" 0 binds/s, 0 client logins/s, in 0 B/s, "));
    }
}
