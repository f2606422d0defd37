//! How a pool stands: what keeps it from having one more server, in numbers. What a refused client
//! is told and what SHOW BUDGET marks are both this.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::demand::Failure;
use crate::gate::Gate;
use crate::gauge::Gauge;
use crate::pool::{Party, PoolName};
use crate::pools::{PoolId, Pools};
use crate::scope::Scope;
use crate::slot::SlotState;

/// What a client waits for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Bound {
    /// The pool has as many servers as it may have: `pool_size`, with the reserve where that is open.
    PoolSize {
        /// Servers, those that are being closed among them.
        used: u32,
        /// How many there may be.
        limit: u32,
    },
    /// A limit that the pool shares with others.
    Shared(Scope, Gauge),
    /// A limit on what the client's application or address may hold.
    Party(Scope, Gauge),
    /// The last login failed; the next attempt comes in a while.
    Failing(Failure),
    /// An operator has paused or closed the pool.
    Paused,
    /// Nothing: a server is on its way.
    Login,
}

/// How a pool stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Which pool.
    pub pool: PoolName,
    /// What the next client has to wait for.
    pub bound: Bound,
    /// How many wait.
    pub waiting: u32,
    /// How long the one that waits longest has been waiting.
    pub oldest_wait: Option<Duration>,
}

/// Why a client is not let into the queue, or not left in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Crowd {
    /// `max_pool_waiting`
    PoolQueue,
    /// `max_waiting`
    AllQueues,
    /// `query_wait_target`
    TooLong {
        /// How long the client has waited.
        waited: Duration,
        /// How long it should have to wait at most.
        target: Duration,
    },
}

/// A refusal because of too many others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Crowded {
    /// What was too much.
    pub crowd: Crowd,
    /// How the pool stood.
    pub standing: Standing,
}

impl<S, W: Clone> Pools<S, W> {
    /// How a pool stands for a client of this party; `None` if there is no such pool any more.
    pub fn standing(&self, id: PoolId, party: Option<&Party>, now: Instant) -> Option<Standing> {
        let pool = self.get(id)?;
        Some(Standing {
            pool: pool.name.clone(),
            bound: self.bound(id, party, now),
            waiting: pool.waiting.len() as u32,
            oldest_wait: pool
                .oldest_wait()
                .map(|since| now.saturating_duration_since(since)),
        })
    }

    /// How many wait for each of the limits on what applications and addresses may hold.
    pub fn held_back(&self) -> HashMap<Scope, u32> {
        let mut counts = HashMap::new();
        for (_, pool) in self.iter() {
            for party in pool.waiting.values().filter_map(|w| w.party.as_ref()) {
                if let Some(full) = self.budget.binding(party) {
                    *counts.entry(full.clone()).or_default() += 1;
                }
            }
        }
        counts
    }

    /// What keeps the pool from serving one more client.
    pub(crate) fn bound(&self, id: PoolId, party: Option<&Party>, now: Instant) -> Bound {
        let pool = self.pool(id);
        if pool.gate != Gate::Open {
            return Bound::Paused;
        }
        if let Some(full) = party.and_then(|party| self.budget.binding(party)) {
            return Bound::Party(full.clone(), self.budget.gauge(full));
        }
        if let Some(failure) = &pool.retry.failure
            && pool.counts.connected() == 0
        {
            return Bound::Failing(failure.clone());
        }
        if let Some(limit) = pool.ceiling(now)
            && pool.total_for_clients() >= limit
        {
            let used = pool.total_for_clients();
            // Who has just given up may have been the one for whom the reserve was open.
            let most = pool.limits.size.unwrap_or(limit) + pool.limits.reserve;
            let limit = limit.max(used.min(most));
            return Bound::PoolSize { used, limit };
        }
        // A login that is under way will serve somebody before any limit is asked again.
        let is_opening = pool.counts.of(SlotState::Opening) > pool.waiting.len() as u32;
        let login = pool.scopes.login.as_slice();
        let scopes = pool.scopes.servers.iter().chain(self.full_hosts(id));
        let mut scopes = scopes.chain(login);
        if !is_opening && let Some(full) = scopes.find(|scope| self.budget.gauge(scope).is_full()) {
            return Bound::Shared(full.clone(), self.budget.gauge(full));
        }
        // After a failure nobody knows whether it will.
        match &pool.retry.failure {
            Some(failure) => Bound::Failing(failure.clone()),
            None => Bound::Login,
        }
    }
}
