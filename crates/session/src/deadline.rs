//! Every time limit on a client, in one place.
//!
//! The limits are PgBouncer's keys of the same names; zero there is `None` here. Nothing here
//! reads a clock: a sweep asks [`Deadlines::expired`] for each client a few times per second.

use std::time::{Duration, Instant};

/// Where a client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// Not logged in yet.
    Login,
    /// Logged in, holding no server, nothing asked.
    Idle,
    /// Waiting for a server.
    Waiting,
    /// Holding a server that is working (or, in session mode, between transactions).
    Active,
    /// Holding a server that waits for the client in the middle of a transaction.
    IdleInTransaction,
}

/// A client's moments.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Where it is.
    pub phase: Phase,
    /// When it came to be there, or in [`Phase::IdleInTransaction`] when the server last spoke.
    pub since: Instant,
    /// When the query that is running or waiting was asked.
    pub query_start: Option<Instant>,
    /// When the running transaction began.
    pub transaction_start: Option<Instant>,
}

impl Clocks {
    /// From `now` on the client waits for a server. `false` if it has waited before: the server that it was to get was
    /// lost, or another process had it.
    pub fn begin_wait(&mut self, now: Instant) -> bool {
        if self.phase == Phase::Waiting {
            return false;
        }
        self.phase = Phase::Waiting;
        self.since = now;
        self.query_start = Some(now);
        true
    }

    /// From `now` on the pooler asks the client's server something of its own: meanwhile the client waits, and a cancel
    /// must not hit that.
    pub fn begin_asking(&mut self, now: Instant) {
        self.phase = Phase::Waiting;
        self.since = now;
    }
}

/// The limits that hold for a client.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Deadlines {
    /// `client_login_timeout`
    pub login: Option<Duration>,
    /// `client_idle_timeout`
    pub idle: Option<Duration>,
    /// `query_wait_timeout`
    pub query_wait: Option<Duration>,
    /// `query_timeout`; also limits the wait for a server.
    pub query: Option<Duration>,
    /// `transaction_timeout`
    pub transaction: Option<Duration>,
    /// `idle_transaction_timeout`
    pub idle_transaction: Option<Duration>,
}

/// Which limit has passed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expiry {
    /// `client_login_timeout`
    Login,
    /// `client_idle_timeout`
    Idle,
    /// `query_wait_timeout`
    QueryWait,
    /// `query_timeout`, while waiting for a server.
    QueryWhileWaiting,
    /// `query_timeout`, while the server works.
    Query,
    /// `transaction_timeout`
    Transaction,
    /// `idle_transaction_timeout`
    IdleTransaction,
}

/// How long a query that was canceled because of `query_timeout` may go on before its client is
/// ended: one that reads a COPY from a silent client does not notice.
const CANCEL_PATIENCE: Duration = Duration::from_secs(3);

impl Deadlines {
    /// Whether a query that has been canceled because of its limit has gone on for too long after it.
    pub fn ignores_cancel(&self, query_start: Instant, now: Instant) -> bool {
        let lasts = now.saturating_duration_since(query_start);
        lasts >= self.query.unwrap_or_default() + CANCEL_PATIENCE
    }

    /// The limit that has passed at `now` for a client that has not been greeted. Its login is limited as a whole, and what it
    /// waits for in it as any wait is.
    pub fn expired_in_login(
        &self,
        clocks: &Clocks,
        connected_at: Instant,
        now: Instant,
    ) -> Option<Expiry> {
        let login = Clocks {
            phase: Phase::Login,
            since: connected_at,
            ..*clocks
        };
        let expired = self.expired(&login, now);
        expired.or_else(|| self.expired(clocks, now))
    }

    /// The limit that has passed at `now`, if any.
    pub fn expired(&self, clocks: &Clocks, now: Instant) -> Option<Expiry> {
        let over = |start: Instant, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_duration_since(start) > limit)
        };
        let over_since =
            |start: Option<Instant>, limit| start.is_some_and(|start| over(start, limit));
        match clocks.phase {
            Phase::Login => over(clocks.since, self.login).then_some(Expiry::Login),
            Phase::Idle => over(clocks.since, self.idle).then_some(Expiry::Idle),
            Phase::Waiting => {
                let asked = clocks.query_start.unwrap_or(clocks.since);
                if over(asked, self.query) {
                    Some(Expiry::QueryWhileWaiting)
                } else {
                    over(asked, self.query_wait).then_some(Expiry::QueryWait)
                }
            }
            Phase::Active => {
                if over_since(clocks.query_start, self.query) {
                    Some(Expiry::Query)
                } else {
                    over_since(clocks.transaction_start, self.transaction)
                        .then_some(Expiry::Transaction)
                }
            }
            Phase::IdleInTransaction => {
                if over(clocks.since, self.idle_transaction) {
                    Some(Expiry::IdleTransaction)
                } else {
                    over_since(clocks.transaction_start, self.transaction)
                        .then_some(Expiry::Transaction)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn expired(phase: Phase, limits: Deadlines, age: Duration) -> Option<Expiry> {
        let start = Instant::now();
        let clocks = Clocks {
            phase,
            since: start,
            query_start: Some(start),
            transaction_start: Some(start),
        };
        limits.expired(&clocks, start + age)
    }

    #[test]
    fn what_the_pooler_asks_is_not_counted_from_when_its_client_came_to_rest() {
        let now = Instant::now();
        let mut clocks = Clocks {
            phase: Phase::Active,
            since: now,
            query_start: None,
            transaction_start: None,
        };
        let limits = Deadlines {
            query_wait: Some(SECOND),
            ..Deadlines::default()
        };
        let later = now + 10 * SECOND;
        clocks.begin_asking(later);
        assert_eq!(limits.expired(&clocks, later), None);
        let waited = Some(Expiry::QueryWait);
        assert_eq!(limits.expired(&clocks, later + 2 * SECOND), waited);
    }

    #[test]
    fn a_login_is_limited_as_a_whole_and_while_it_waits() {
        let connected_at = Instant::now();
        let limits = Deadlines {
            login: Some(3 * SECOND),
            query_wait: Some(SECOND),
            ..Deadlines::default()
        };
        let clocks = |phase, since| Clocks {
            phase,
            since: connected_at + since,
            query_start: None,
            transaction_start: None,
        };
        let expired =
            |clocks, age| limits.expired_in_login(&clocks, connected_at, connected_at + age);
        let waits = |since| clocks(Phase::Waiting, since);
        assert_eq!(expired(waits(2 * SECOND), 3 * SECOND), None);
        assert_eq!(expired(waits(SECOND), 3 * SECOND), Some(Expiry::QueryWait));
        let too_late = 4 * SECOND;
        for clocks in [waits(3 * SECOND), clocks(Phase::Login, 3 * SECOND)] {
            assert_eq!(expired(clocks, too_late), Some(Expiry::Login));
        }
    }

    #[test]
    fn no_limit_never_expires() {
        for phase in [Phase::Login, Phase::Idle, Phase::Waiting, Phase::Active] {
            assert_eq!(
                expired(phase, Deadlines::default(), 1_000_000 * SECOND),
                None
            );
        }
    }

    #[test]
    fn a_limit_passes_only_after_its_time() {
        let limits = Deadlines {
            idle: Some(SECOND),
            ..Deadlines::default()
        };
        assert_eq!(expired(Phase::Idle, limits, SECOND), None);
        assert_eq!(expired(Phase::Idle, limits, 2 * SECOND), Some(Expiry::Idle));
        assert_eq!(expired(Phase::Active, limits, 2 * SECOND), None);
    }

    #[test]
    fn a_canceled_query_has_a_little_more_time() {
        let limits = Deadlines {
            query: Some(SECOND),
            ..Deadlines::default()
        };
        let start = Instant::now();
        assert!(!limits.ignores_cancel(start, start + 2 * SECOND));
        assert!(limits.ignores_cancel(start, start + SECOND + CANCEL_PATIENCE));
    }

    #[test]
    fn query_timeout_limits_the_wait_too() {
        let limits = Deadlines {
            query: Some(SECOND),
            ..Deadlines::default()
        };
        assert_eq!(
            expired(Phase::Waiting, limits, 2 * SECOND),
            Some(Expiry::QueryWhileWaiting)
        );
        assert_eq!(
            expired(Phase::Active, limits, 2 * SECOND),
            Some(Expiry::Query)
        );
    }

    #[test]
    fn query_timeout_spares_a_client_that_is_idle_in_transaction() {
        let limits = Deadlines {
            query: Some(SECOND),
            ..Deadlines::default()
        };
        assert_eq!(expired(Phase::IdleInTransaction, limits, 2 * SECOND), None);
    }
}
