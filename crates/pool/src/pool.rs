//! One pool: the servers and waiting clients of one (database, user).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cause::{Cause, Stretches};
use crate::demand::Retry;
use crate::gate::Gate;
use crate::line::Line;
use crate::lines::Lines;
use crate::scope::Scope;
use crate::share::Share;
use crate::slot::{SlotId, SlotState, StateCounts};

/// A pool is named by its database and its user.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PoolName {
    /// The database as clients name it.
    pub database: Arc<str>,
    /// The user that logs in to the server.
    pub user: Arc<str>,
}

/// What the configuration says about a pool. A time of `None` is no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PoolLimits {
    /// `pool_size`; `None` is no limit.
    pub size: Option<u32>,
    /// `min_pool_size`
    pub min: u32,
    /// Whether `min` holds even when no client is there (databases with a forced user).
    pub min_without_clients: bool,
    /// `reserve_pool_size`
    pub reserve: u32,
    /// `reserve_pool_timeout`; `None` switches the reserve off.
    pub reserve_after: Option<Duration>,
    /// `server_lifetime`; zero is one use only.
    pub lifetime: Option<Duration>,
    /// `server_idle_timeout`
    pub idle_timeout: Option<Duration>,
    /// `server_login_retry`
    pub login_retry: Duration,
    /// `server_check_delay`; `None` where there is no check query.
    pub check_after: Option<Duration>,
    /// `server_round_robin`: the server that was idle longest goes first.
    pub round_robin: bool,
    /// `pool_weight`: its share of a limit that it shares with other pools, as a part of the sum of
    /// all their weights. Zero counts as one.
    pub weight: u32,
    /// `max_pool_waiting`; `None` is no limit.
    pub max_waiting: Option<u32>,
    /// `query_wait_target`: how long clients should have to wait at most. While the queue does not
    /// get empty, those who have waited longer are refused.
    pub wait_target: Option<Duration>,
    /// `server_down_timeout`: how long clients wait while no login works.
    pub down_timeout: Option<Duration>,
}

impl Default for PoolLimits {
    /// No limit at all.
    fn default() -> Self {
        Self {
            size: None,
            min: 0,
            min_without_clients: false,
            reserve: 0,
            reserve_after: None,
            lifetime: None,
            idle_timeout: None,
            login_retry: Duration::ZERO,
            check_after: None,
            round_robin: false,
            weight: 1,
            max_waiting: None,
            wait_target: None,
            down_timeout: None,
        }
    }
}

/// What the servers of a pool count in, besides the pool itself.
#[derive(Clone, Debug)]
pub struct PoolScopes {
    /// From before they are opened until PostgreSQL has closed them.
    pub servers: Arc<[Scope]>,
    /// While they are connecting and logging in.
    pub login: Option<Scope>,
}

/// Those who are charged for a lease: the application and the address of a client, where they have
/// a limit.
pub type Party = Arc<[Scope]>;

/// A place in a queue. Lower tickets are older.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Ticket(pub(crate) u64);

#[derive(Debug)]
pub(crate) struct Waiting<W> {
    pub(crate) waiter: W,
    pub(crate) since: Instant,
    pub(crate) party: Option<Party>,
    /// What it has waited for.
    pub(crate) stretches: Stretches,
}

impl<W> Waiting<W> {
    pub(crate) fn new(waiter: W, since: Instant, party: Option<Party>) -> Self {
        Self {
            waiter,
            since,
            party,
            stretches: Stretches::new(Cause::Login, since),
        }
    }
}

/// The books of one pool.
#[derive(Debug)]
pub(crate) struct Pool<S, W> {
    pub(crate) name: PoolName,
    pub(crate) scopes: PoolScopes,
    /// Its hosts, once all of several were found full: a server counts in that of one of them.
    pub(crate) hosts: Arc<[Scope]>,
    pub(crate) limits: PoolLimits,
    pub(crate) gate: Gate,
    pub(crate) idle: VecDeque<(SlotId, S)>,
    pub(crate) waiting: Lines<W>,
    /// Since when somebody has been waiting all the time.
    pub(crate) queued_since: Option<Instant>,
    /// Clients in login that wait to learn what this pool's servers are like.
    pub(crate) greeting: Line<W>,
    /// Clients that wait for a server of their own.
    pub(crate) dedicated: Line<W>,
    /// Servers that are being opened for one of them.
    pub(crate) dedicated_opening: u32,
    /// Slots that the pooler itself uses.
    pub(crate) control: u32,
    /// Whether a server has logged in since the pool was made or reconnected.
    pub(crate) greeted: bool,
    pub(crate) counts: StateCounts,
    pub(crate) retry: Retry,
    pub(crate) last_lifetime_close: Option<Instant>,
    /// The most servers that it ever had for clients.
    pub(crate) peak: u32,
    /// Clients of this pool, whatever they do.
    pub(crate) clients: u32,
    /// Permits of other pools' servers that are being closed for this one.
    pub(crate) evictions: u32,
    pub(crate) share: Share,
    pub(crate) last_used: Instant,
    /// Nobody is led here any more: it is removed when nobody and nothing is left in it.
    pub(crate) is_retired: bool,
}

impl<S, W> Pool<S, W> {
    pub(crate) fn new(
        name: PoolName,
        scopes: PoolScopes,
        limits: PoolLimits,
        gate: Gate,
        now: Instant,
    ) -> Self {
        Self {
            name,
            scopes,
            hosts: Arc::default(),
            limits,
            gate,
            idle: VecDeque::new(),
            waiting: Lines::default(),
            queued_since: None,
            greeting: Line::default(),
            dedicated: Line::default(),
            dedicated_opening: 0,
            control: 0,
            greeted: false,
            counts: StateCounts::default(),
            retry: Retry::default(),
            last_lifetime_close: None,
            peak: 0,
            clients: 0,
            evictions: 0,
            share: Share::new(now),
            last_used: now,
            is_retired: false,
        }
    }

    /// Whether anybody waits for anything here.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.waiting.is_empty() || !self.greeting.is_empty() || !self.dedicated.is_empty()
    }

    /// When the client that waits longest began to wait.
    pub(crate) fn oldest_wait(&self) -> Option<Instant> {
        self.waiting.first().map(|(_, waiting)| waiting.since)
    }

    /// Whether the pool may hold one more server by its own limits, and at the cost of what.
    pub(crate) fn room(&self, now: Instant) -> Room {
        let Some(size) = self.limits.size else {
            return Room::Free;
        };
        let total = self.total_for_clients();
        if total < size || (!self.greeted && total == 0) {
            Room::Free
        } else if self.ceiling(now).is_some_and(|ceiling| total < ceiling) {
            Room::Reserve
        } else {
            Room::None
        }
    }

    /// Logins that are under way for whoever waits.
    pub(crate) fn opening_for_all(&self) -> u32 {
        let all = self.counts.of(SlotState::Opening);
        all.saturating_sub(self.dedicated_opening)
    }

    /// Slots that count in the size of the pool.
    pub(crate) fn total_for_clients(&self) -> u32 {
        self.counts.total().saturating_sub(self.control)
    }

    /// How many servers the pool may hold now: its size, and the reserve once somebody has waited
    /// long enough for it.
    pub(crate) fn ceiling(&self, now: Instant) -> Option<u32> {
        let size = self.limits.size?;
        let waited_enough = self.limits.reserve_after.is_some_and(|after| {
            self.oldest_wait()
                .is_some_and(|since| now.saturating_duration_since(since) >= after)
        });
        Some(if waited_enough {
            size + self.limits.reserve
        } else {
            size
        })
    }

    /// Whether a server is over its lifetime at `now`. Ends are spread over the lifetime, so that
    /// a pool that was opened at once is not closed at once.
    pub(crate) fn lifetime_over(&self, opened_at: Instant, now: Instant) -> bool {
        let Some(lifetime) = self.limits.lifetime else {
            return false;
        };
        if lifetime.is_zero() {
            return true;
        }
        if now.saturating_duration_since(opened_at) < lifetime {
            return false;
        }
        let spacing = lifetime / self.limits.size.unwrap_or(1).max(1);
        self.last_lifetime_close
            .is_none_or(|last| now.saturating_duration_since(last) >= spacing)
    }
}

/// Whether a pool may hold one more server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Room {
    /// Within `pool_size`.
    Free,
    /// Within `reserve_pool_size`.
    Reserve,
    /// No.
    None,
}
