//! Limits that several pools share: whose turn it is, and who has to give something up.
//!
//! Every pool's *service* is the time that its servers have existed, divided by its weight. Among
//! pools that wait for the same limit the one with the least service comes first. A permit is
//! taken from a pool for another in two cases: where the other holds so much less, for its weight,
//! that it would still not hold more afterwards; and, for the remainder that cannot be divided (one
//! permit for three pools), when its service has fallen behind by a [`QUANTUM`].

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::action::{Action, Actions, CloseReason};
use crate::demand::Evict;
use crate::gate::Gate;
use crate::pool::{Pool, Room};
use crate::pools::{PoolId, Pools};
use crate::scope::Scope;
use crate::slot::{SlotId, SlotState};

/// Seconds of service by which a pool may fall behind another before a permit changes hands.
const QUANTUM: f64 = 0.2;

/// A pool that has not wanted more than it had for so long does not compete any more. (Upkeep lets
/// every pool say what it wants three times per second.)
const CONTENTION_END: Duration = Duration::from_secs(1);

/// What a pool has had of shared limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Seconds that its servers have existed, divided by its weight, until `counted_at`.
    service: f64,
    counted_at: Instant,
    /// When the pool last wanted more than there was.
    starved_at: Option<Instant>,
}

impl Share {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            service: 0.0,
            counted_at: now,
            starved_at: None,
        }
    }

    fn is_contending(&self, now: Instant) -> bool {
        self.starved_at
            .is_some_and(|at| now.saturating_duration_since(at) < CONTENTION_END)
    }
}

impl<S, W> Pool<S, W> {
    fn weight(&self) -> u32 {
        self.limits.weight.max(1)
    }

    fn service(&self, now: Instant) -> f64 {
        let seconds = now
            .saturating_duration_since(self.share.counted_at)
            .as_secs_f64();
        self.share.service + seconds * f64::from(self.counts.total()) / f64::from(self.weight())
    }

    /// To be called before the number of servers changes.
    pub(crate) fn count_service(&mut self, now: Instant) {
        self.share.service = self.service(now);
        self.share.counted_at = now;
    }

    /// What its servers count in, besides the pool.
    fn shared(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.servers.iter().chain(&*self.hosts)
    }

    fn shares(&self, scope: &Scope) -> bool {
        self.shared().any(|shared| shared == scope)
    }

    /// What it holds, or is about to get.
    fn has(&self) -> u32 {
        self.counts.total() + self.evictions
    }
}

impl<S, W: Clone> Pools<S, W> {
    /// Notes that a pool waits for a limit that it shares, to be asked when a permit comes back.
    pub(crate) fn starve(&mut self, id: PoolId, now: Instant) {
        if !self.pool(id).share.is_contending(now) {
            self.begin_contention(id, now);
        }
        self.pool_mut(id).share.starved_at = Some(now);
        if !self.starving.contains(&id) {
            self.starving.push_back(id);
        }
    }

    /// A pool begins to want more than there is: from now on its service counts.
    fn begin_contention(&mut self, id: PoolId, now: Instant) {
        let rivals = self.sharing_with(id);
        let contending = rivals.iter().map(|&rival| self.pool(rival));
        let services = contending
            .filter(|rival| rival.share.is_contending(now))
            .map(|rival| rival.service(now));
        match services.min_by(f64::total_cmp) {
            // Nobody saves service up while he does not want any.
            Some(least) => {
                let pool = self.pool_mut(id);
                pool.count_service(now);
                pool.share.service = pool.share.service.max(least);
            }
            // What each had while there was enough for all does not matter.
            None => {
                for rival in rivals.into_iter().chain([id]) {
                    self.pool_mut(rival).share = Share::new(now);
                }
            }
        }
    }

    /// The other pools that count in one of this pool's shared limits.
    fn sharing_with(&self, id: PoolId) -> Vec<PoolId> {
        let shares = |pool: &Pool<S, W>| pool.shared().any(|scope| self.pool(id).shares(scope));
        let others = self.iter().filter(|(other, _)| *other != id);
        others
            .filter(|(_, pool)| shares(pool))
            .map(|(other, _)| other)
            .collect()
    }

    /// A permit came back: asks the pools that wait for a shared limit, the one with the least
    /// service first.
    pub(crate) fn feed_starving(&mut self, now: Instant, actions: &mut Actions<S, W>) {
        let mut starving: Vec<_> = std::mem::take(&mut self.starving)
            .into_iter()
            .filter(|&id| self.get(id).is_some_and(Pool::is_wanted))
            .collect();
        let service = |id: &PoolId| self.pool(*id).service(now);
        starving.sort_by(|a, b| service(a).total_cmp(&service(b)));
        // Those that get nothing stay in the list, without losing their place.
        self.starving = VecDeque::from(starving.clone());
        for id in starving {
            self.starving.retain(|&other| other != id);
            if self.get(id).is_some() {
                self.demand(id, now, actions);
            }
        }
    }

    /// Closes the server that has been idle longest among those that hold a permit of `full`, or of another host
    /// of the pool if that is one of several, so that the permit comes back for pool `needy`.
    pub(crate) fn evict(
        &mut self,
        full: &Scope,
        needy: PoolId,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) {
        if self.pool(needy).evictions >= self.wanted(needy).max(1) {
            return;
        }
        let hosts = Arc::clone(&self.pool(needy).hosts);
        let full_ones = match hosts.contains(full) {
            true => &*hosts,
            false => std::slice::from_ref(full),
        };
        let idle_longest = self
            .iter()
            .filter(|(id, _)| *id != needy)
            .filter_map(|(id, pool)| {
                let place = self.idle_in(pool, full_ones)?;
                let (slot, _) = pool.idle[place];
                Some((self.slots.get(slot)?.since, id, place))
            })
            .min_by_key(|(since, ..)| *since);
        let Some((_, rich, place)) = idle_longest else {
            return;
        };
        if !self.budget.may_switch(full, now) {
            return;
        }
        let Some((slot, server)) = self.pool_mut(rich).idle.remove(place) else {
            return;
        };
        self.mark_evicted(slot, needy, now);
        actions.push(Action::Close {
            slot,
            server,
            reason: CloseReason::Evicted,
        });
    }

    /// The place of the server that has been idle longest among those of a pool that count in one of these. Only where
    /// the pool has several hosts do its servers differ in that.
    fn idle_in(&self, pool: &Pool<S, W>, scopes: &[Scope]) -> Option<usize> {
        if pool
            .scopes
            .servers
            .iter()
            .any(|scope| scopes.contains(scope))
        {
            return (!pool.idle.is_empty()).then_some(0);
        }
        let host = |(slot, _): &(SlotId, S)| self.slots.get(*slot)?.host.as_ref();
        let mut hosts = pool.idle.iter().map_while(host);
        hosts.position(|host| scopes.contains(host))
    }

    pub(crate) fn mark_evicted(&mut self, slot: SlotId, needy: PoolId, now: Instant) {
        self.set_state(slot, SlotState::Closing, now);
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.evicted_for = Some(needy);
            self.pool_mut(needy).evictions += 1;
        }
    }

    /// A server that was closed for pool `needy` has ended, or does not end.
    pub(crate) fn eviction_over(&mut self, needy: PoolId) {
        let pool = self.pool_mut(needy);
        pool.evictions = pool.evictions.saturating_sub(1);
    }

    /// A server was closed for pool `needy`, whose clients have been served meanwhile, and nobody else
    /// wants the permit: the pool gets the server that it asked for, or there would be one less than
    /// before.
    pub(crate) fn replace_evicted(
        &mut self,
        needy: PoolId,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) {
        let Some(pool) = self.get(needy) else { return };
        let is_opening = pool.counts.of(SlotState::Opening) > 0;
        let is_useful = pool.clients > 0 && pool.idle.is_empty();
        let has_room = matches!(pool.room(now), Room::Free);
        if is_useful && has_room && !is_opening && !self.must_wait_to_retry(needy, now) {
            self.open(needy, Evict::Never, now, actions);
        }
    }

    /// The pool to which the permit of a returned server of pool `id` goes instead of to a client of that.
    pub(crate) fn poorer(&mut self, slot: SlotId, id: PoolId, now: Instant) -> Option<PoolId> {
        let waiting = self.starving.iter().copied();
        let entitled = waiting.filter(|&other| {
            let is_other = other != id;
            is_other && self.is_entitled(other, id, now) && self.lacks(other, slot).is_some()
        });
        let service = |id: &PoolId| self.pool(*id).service(now);
        let poorest = entitled.min_by(|a, b| service(a).total_cmp(&service(b)))?;
        let scope = self.lacks(poorest, slot)?.clone();
        self.budget.may_switch(&scope, now).then_some(poorest)
    }

    /// Whether a pool that waits has a claim on a permit of another that serves.
    fn is_entitled(&self, poor: PoolId, rich: PoolId, now: Instant) -> bool {
        let (Some(poor_pool), rich_pool) = (self.get(poor), self.pool(rich)) else {
            return false;
        };
        if poor_pool.gate != Gate::Open || self.wanted(poor) <= poor_pool.evictions {
            return false;
        }
        // Holdings for equal weights, so that integers can be compared.
        let poor_has =
            |more: u32| u64::from(poor_pool.has() + more) * u64::from(rich_pool.weight());
        let rich_has = |less: u32| {
            u64::from(rich_pool.counts.total().saturating_sub(less)) * u64::from(poor_pool.weight())
        };
        let clearly_less = poor_has(1) <= rich_has(1);
        let fallen_behind = poor_has(0) < rich_has(0).max(1)
            && rich_pool.service(now) - poor_pool.service(now) > QUANTUM;
        clearly_less || fallen_behind
    }

    /// The limit that a server holds a permit of, and that the pool shares and that is full.
    fn lacks(&self, poor: PoolId, slot: SlotId) -> Option<&Scope> {
        let (pool, hosts) = (self.pool(poor), self.full_hosts(poor));
        let is_full = |scope| self.budget.gauge(scope).is_full();
        let mut held = self.slots.get(slot)?.counts_in();
        held.find(|scope| {
            hosts.contains(scope) || pool.scopes.servers.contains(scope) && is_full(scope)
        })
    }
}
