//! When a server is opened: demand against room, budget and the memory of failed logins.

use std::sync::Arc;
use std::time::Instant;

use crate::budget::Scope;
use crate::gate::Gate;
use crate::pool::{Pool, Room};
use crate::pools::{Action, Actions, CloseReason, PoolId, Pools};
use crate::slot::{SlotId, SlotState};

/// Servers that one pool opens at the same time, once one of its servers works. Before that it
/// tries one, so that a wrong password is refused once and not twenty times.
const OPENING_MAX: u32 = 4;

/// Why a server could not be had.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// What the server said, or what went wrong on the way.
    pub message: Arc<str>,
    /// The server's SQLSTATE, if it gave one.
    pub sqlstate: Option<[u8; 5]>,
    /// What follows from it.
    pub kind: FailureKind,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureKind {
    /// Not reached, or not ready yet: clients go on waiting.
    Connect,
    /// The server refused the login: waiting clients would be refused too.
    Login,
}

/// Why a client gets no server and need not wait.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The login that the client was waiting for was refused.
    Login(Failure),
    /// The last login failed, no server is left, and it is too early to try again.
    Failing(Failure),
}

/// The memory of failed attempts.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    pub(crate) failure: Option<Failure>,
    pub(crate) last_attempt: Option<Instant>,
}

impl<S, W: Clone> Pools<S, W> {
    /// Opens servers for a pool as far as somebody waits for them and the limits allow.
    pub(crate) fn demand(&mut self, id: PoolId, now: Instant, actions: &mut Actions<S, W>) {
        self.demand_dedicated(id, now, actions);
        while self.wants_server(id, now) && self.open(id, Evict::IfNeeded, now, actions) {}
    }

    /// Whether another server should be opened for those who wait.
    fn wants_server(&self, id: PoolId, now: Instant) -> bool {
        let pool = self.pool(id);
        let opening = pool.counts.of(SlotState::Opening) - pool.dedicated_opening;
        let greeting = usize::from(!pool.greeting.is_empty() && !pool.greeted);
        let waiting = pool.waiting.len().max(greeting) as u32;
        let parallel = if pool.greeted && pool.counts.connected() > 0 {
            OPENING_MAX
        } else {
            1
        };
        pool.gate == Gate::Open
            && opening < waiting.min(parallel)
            && !self.must_wait_to_retry(id, now)
    }

    /// Whether the last attempt failed so recently that the next one has to wait.
    pub(crate) fn must_wait_to_retry(&self, id: PoolId, now: Instant) -> bool {
        let pool = self.pool(id);
        pool.retry.failure.is_some()
            && pool
                .retry
                .last_attempt
                .is_some_and(|last| now.saturating_duration_since(last) < pool.limits.login_retry)
    }

    /// Takes the permits for a new server and orders it. `false` if a limit forbids it.
    pub(crate) fn open(
        &mut self,
        id: PoolId,
        evict: Evict,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) -> bool {
        let slot = match (self.pool(id).room(now), evict) {
            (Room::None, _) => None,
            (Room::Free, Evict::IfNeeded) => self.take_slot(id, now, actions),
            (Room::Free, Evict::Never) => self
                .take_permits(id)
                .is_ok()
                .then(|| self.new_slot(id, now)),
            (Room::Reserve, _) => {
                let slot = self.take_slot(id, now, actions);
                let oldest = self.pool(id).waiting.first_key_value();
                let waiter = oldest.map(|(_, waiting)| waiting.waiter.clone());
                let taking = slot
                    .and(waiter)
                    .map(|waiter| Action::TakingReserve { waiter });
                actions.extend(taking);
                slot
            }
        };
        let Some(slot) = slot else { return false };
        self.pool_mut(id).retry.last_attempt = Some(now);
        actions.push(Action::Open {
            pool: id,
            slot,
            dedicated_to: None,
        });
        true
    }

    /// A slot with the permits that it needs. Where a shared limit is full, an idle server of another
    /// pool is closed, and the pool asks again when its permit comes back.
    pub(crate) fn take_slot(
        &mut self,
        id: PoolId,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) -> Option<SlotId> {
        match self.take_permits(id) {
            Ok(()) => Some(self.new_slot(id, now)),
            Err(full) => {
                self.starve(id);
                self.evict(&full, id, now, actions);
                None
            }
        }
    }

    /// Takes one unit of everything that the pool's servers count in.
    fn take_permits(&mut self, id: PoolId) -> Result<(), Scope> {
        let scopes = std::mem::take(&mut self.pool_mut(id).scopes);
        let taken = self.budget.take(&scopes).map_err(Clone::clone);
        self.pool_mut(id).scopes = scopes;
        taken
    }

    fn new_slot(&mut self, id: PoolId, now: Instant) -> SlotId {
        let pool = self.pool_mut(id);
        pool.counts.add(SlotState::Opening);
        pool.last_used = now;
        self.slots.insert(id, now)
    }

    /// Notes that a pool waits for a shared limit. Who waits longest in this list is asked first
    /// when a permit comes back.
    fn starve(&mut self, id: PoolId) {
        if !self.starving.contains(&id) {
            self.starving.push_back(id);
        }
    }

    /// Closes the server that has been idle longest among those that hold a permit of `full`, so
    /// that the permit comes back for pool `needy`.
    fn evict(&mut self, full: &Scope, needy: PoolId, now: Instant, actions: &mut Actions<S, W>) {
        if self.pool(needy).evictions >= self.pool(needy).waiting.len().max(1) as u32 {
            return;
        }
        let idle_longest = self
            .iter()
            .filter(|(id, pool)| *id != needy && pool.scopes.contains(full))
            .filter_map(|(id, pool)| {
                let &(slot, _) = pool.idle.front()?;
                Some((self.slots.get(slot)?.since, id))
            })
            .min_by_key(|(since, _)| *since);
        let Some((_, rich)) = idle_longest else {
            return;
        };
        let Some((slot, server)) = self.pool_mut(rich).idle.pop_front() else {
            return;
        };
        self.mark_evicted(slot, needy, now);
        actions.push(Action::Close {
            slot,
            server,
            reason: CloseReason::Evicted,
        });
    }

    pub(crate) fn mark_evicted(&mut self, slot: SlotId, needy: PoolId, now: Instant) {
        self.set_state(slot, SlotState::Closing, now);
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.evicted_for = Some(needy);
            self.pool_mut(needy).evictions += 1;
        }
    }

    /// A permit came back: asks the pools that wait for a shared limit, in turn.
    pub(crate) fn feed_starving(&mut self, now: Instant, actions: &mut Actions<S, W>) {
        for _ in 0..self.starving.len() {
            let Some(id) = self.starving.pop_front() else {
                break;
            };
            if self.get(id).is_some_and(Pool::is_wanted) {
                // If the limit is still full this puts the pool back at the end of the list.
                self.demand(id, now, actions);
            }
        }
    }

    /// The pool to which a returned server's permit should go instead of to a client of its own
    /// pool: one that waits for a limit that both share and holds clearly less of it.
    pub(crate) fn poorer(&self, id: PoolId) -> Option<PoolId> {
        let rich = self.pool(id);
        self.starving.iter().copied().find(|&other| {
            let Some(poor) = self.get(other) else {
                return false;
            };
            let shared = || {
                let mut full = rich
                    .scopes
                    .iter()
                    .filter(|s| self.budget.binding(&[(*s).clone()]).is_some());
                full.any(|scope| poor.scopes.contains(scope))
            };
            let has = poor.counts.total() + poor.evictions;
            let first = poor.oldest_wait() < rich.oldest_wait();
            other != id
                && !poor.waiting.is_empty()
                && poor.gate == Gate::Open
                && (has + 1 < rich.counts.total() || (has == 0 && first))
                && shared()
        })
    }
}

/// Whether opening a server may cost another pool an idle one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Evict {
    /// Somebody is waiting.
    IfNeeded,
    /// Only to have one ready: not at another's cost.
    Never,
}
