//! What time does to pools: lifetimes, idle timeouts, minimum sizes, retries.

use std::time::{Duration, Instant};

use crate::action::{Action, Actions, CloseReason};
use crate::demand::Evict;
use crate::gate::Gate;
use crate::pools::{PoolId, Pools};
use crate::slot::{SlotId, SlotState};

/// What one round of upkeep found to do.
#[derive(Debug)]
pub struct Upkeep<S, W> {
    /// To be carried out.
    pub actions: Actions<S, W>,
    /// Pools that were empty for `pool_idle_timeout` and are gone.
    pub removed: Vec<PoolId>,
}

impl<S, W: Clone> Pools<S, W> {
    /// One round of upkeep, to be done about three times per second. `is_dirty` looks at an idle
    /// server and says whether PostgreSQL has closed it or said something.
    pub fn tick(
        &mut self,
        now: Instant,
        pool_idle_timeout: Option<Duration>,
        mut is_dirty: impl FnMut(&mut S) -> bool,
    ) -> Upkeep<S, W> {
        let mut actions = Actions::default();
        let mut removed = Vec::new();
        let ids: Vec<_> = self.iter().map(|(id, _)| id).collect();
        for id in ids {
            self.look_at_causes(id, now);
            self.close_expired(id, now, &mut actions, &mut is_dirty);
            self.close_surplus(id, now, &mut actions);
            self.shed(id, now, &mut actions);
            self.refuse_while_down(id, now, &mut actions);
            self.keep_minimum(id, now, &mut actions);
            self.demand(id, now, &mut actions);
            if self.is_forgotten(id, now, pool_idle_timeout) {
                self.remove_pool(id);
                removed.push(id);
            }
        }
        if !removed.is_empty() {
            self.forget_limits();
        }
        self.budget.forget_unused();
        // A limit may have been raised.
        self.serve_held_back(now, &mut actions);
        Upkeep { actions, removed }
    }

    /// Closes idle servers that are broken, too old or idle for too long.
    fn close_expired(
        &mut self,
        id: PoolId,
        now: Instant,
        actions: &mut Actions<S, W>,
        is_dirty: &mut impl FnMut(&mut S) -> bool,
    ) {
        for (slot, mut server) in std::mem::take(&mut self.pool_mut(id).idle) {
            match self.expired(id, slot, &mut server, now, is_dirty) {
                Some(reason) => {
                    self.set_state(slot, SlotState::Closing, now);
                    actions.push(Action::Close {
                        slot,
                        server,
                        reason,
                    });
                }
                None => self.pool_mut(id).idle.push_back((slot, server)),
            }
        }
    }

    fn expired(
        &mut self,
        id: PoolId,
        slot: SlotId,
        server: &mut S,
        now: Instant,
        is_dirty: &mut impl FnMut(&mut S) -> bool,
    ) -> Option<CloseReason> {
        let slot = self.slots.get(slot)?;
        let (since, opened_at, obsolete) = (slot.since, slot.opened_at, slot.obsolete);
        let pool = self.pool(id);
        if obsolete {
            return Some(CloseReason::Obsolete);
        }
        if is_dirty(server) {
            return Some(CloseReason::Dirty);
        }
        let idle_for = now.saturating_duration_since(since);
        if pool
            .limits
            .idle_timeout
            .is_some_and(|limit| idle_for > limit)
            && (pool.limits.min == 0 || pool.counts.connected() > pool.limits.min)
        {
            return Some(CloseReason::IdleTimeout);
        }
        let never_used_once_only =
            pool.limits.lifetime == Some(Duration::ZERO) && since == opened_at;
        if !never_used_once_only && pool.lifetime_over(opened_at, now) {
            self.pool_mut(id).last_lifetime_close = Some(now);
            return Some(CloseReason::Lifetime);
        }
        None
    }

    fn close_surplus(&mut self, id: PoolId, now: Instant, actions: &mut Actions<S, W>) {
        let mut closing = 0;
        let excess = self.excess(id);
        self.close_idle(id, CloseReason::Surplus, now, actions, |_| {
            closing += 1;
            closing <= excess
        });
    }

    /// How many servers the pool and the limits it shares are over by, not counting those that
    /// are already being closed.
    pub(crate) fn excess(&self, id: PoolId) -> u32 {
        let pool = self.pool(id);
        let size = pool
            .limits
            .size
            .map_or(u32::MAX, |size| size + pool.limits.reserve);
        let for_clients = pool.counts.connected().saturating_sub(pool.control);
        let over_size = for_clients.saturating_sub(size);
        let scopes = pool.scopes.servers.iter();
        // The exact sum is needed only where a cheap look says that something is over.
        let over = scopes.filter(|scope| self.budget.is_over(scope));
        let over_shared = over.filter_map(|scope| {
            let limit = self.budget.gauge(scope).limit?;
            let open: u32 = self
                .iter()
                .filter(|(_, other)| other.scopes.servers.contains(scope))
                .map(|(_, other)| other.counts.connected() + other.counts.of(SlotState::Opening))
                .sum();
            Some(open.saturating_sub(limit))
        });
        over_shared.fold(over_size, u32::max)
    }

    /// Opens one server if there are fewer than `min_pool_size`.
    fn keep_minimum(&mut self, id: PoolId, now: Instant, actions: &mut Actions<S, W>) {
        let pool = self.pool(id);
        let connected = pool.counts.connected();
        let wanted = connected < pool.limits.min
            && pool.limits.size.is_none_or(|size| connected < size)
            && pool.gate == Gate::Open
            && pool.counts.of(SlotState::Opening) == 0
            && (pool.clients > 0 || pool.limits.min_without_clients);
        if wanted && !self.must_wait_to_retry(id, now) {
            self.open(id, Evict::Never, now, actions);
        }
    }

    fn is_forgotten(&self, id: PoolId, now: Instant, timeout: Option<Duration>) -> bool {
        let pool = self.pool(id);
        pool.clients == 0
            && pool.limits.min == 0
            && !pool.is_wanted()
            && pool.counts.total() == 0
            && (pool.is_retired
                || timeout.is_some_and(|t| now.saturating_duration_since(pool.last_used) > t))
    }

    /// Removes a pool to which nobody is led any more, because its database is gone: its idle servers are closed now, the
    /// others when they come back. It disappears with its last server and client, unless it is [revived](Self::revive).
    pub fn retire(&mut self, id: PoolId, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        if self.get(id).is_none() {
            return actions;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.pool == id) {
            slot.obsolete = true;
        }
        let pool = self.pool_mut(id);
        pool.limits.min = 0;
        pool.is_retired = true;
        self.close_idle(id, CloseReason::Removed, now, &mut actions, |_| true);
        actions
    }

    /// Somebody is led to the pool again before it has disappeared.
    pub fn revive(&mut self, id: PoolId) {
        if self.get(id).is_some() {
            self.pool_mut(id).is_retired = false;
        }
    }
}
