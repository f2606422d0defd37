//! Lending servers and taking them back.

use std::time::Instant;

use crate::action::{Action, Actions, CloseReason};
use crate::gate::Gate;
use crate::pool::{Party, Waiting};
use crate::pools::{PoolId, Pools};
use crate::slot::{SlotId, SlotState};
use crate::threads;

/// A server that has been lent to somebody.
#[derive(Debug)]
pub struct Lease<S> {
    /// Its permit.
    pub slot: SlotId,
    /// The server.
    pub server: S,
    /// It was idle so long that it should be checked first.
    pub stale: bool,
}

impl<S> Lease<S> {
    /// Of a server that need not be checked first, because it has just been used.
    pub fn of(slot: SlotId, server: S) -> Self {
        Self {
            slot,
            server,
            stale: false,
        }
    }
}

impl<S, W: Clone> Pools<S, W> {
    /// A client gives its server back, ready for the next one.
    pub fn checkin(&mut self, slot: SlotId, server: S, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        self.settle(slot, server, Fresh::No, now, &mut actions);
        actions
    }

    /// The server is between two clients: being reset or drained. It stays lent in every count.
    pub fn resetting(&mut self, slot: SlotId, now: Instant) {
        self.set_state(slot, SlotState::Resetting, now);
    }

    /// The server is being closed by whoever holds it; [`Self::closed`] will follow.
    pub fn closing(&mut self, slot: SlotId, now: Instant) {
        self.set_state(slot, SlotState::Closing, now);
    }

    /// PostgreSQL did not close the connection in time. It stays counted until it does.
    pub fn quarantined(&mut self, slot: SlotId, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        self.login_over(slot);
        self.set_state(slot, SlotState::Quarantined, now);
        // Its permit may not come back for long: whom it was meant for needs another.
        let needy = self
            .slots
            .get_mut(slot)
            .and_then(|slot| slot.evicted_for.take());
        if let Some(needy) = needy.filter(|&id| self.get(id).is_some()) {
            self.eviction_over(needy);
            self.demand(needy, now, &mut actions);
        }
        self.feed_starving(now, &mut actions);
        actions
    }

    /// Whether the server is to be closed rather than kept (session mode asks this while it holds
    /// one: `server_fast_close`).
    pub fn is_obsolete(&self, slot: SlotId) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.obsolete)
    }

    /// A CancelRequest for the holder of this server sets out. `false` if nobody holds it: then
    /// there is nothing to cancel, and the request would hit somebody else. While the pools are held
    /// none sets out, because nobody here would keep the server back until it has arrived.
    pub fn begin_cancel(&mut self, id: SlotId) -> bool {
        let pool = self.slots.get(id).and_then(|slot| self.get(slot.pool));
        let is_held = pool.is_some_and(|pool| pool.gate == Gate::Held);
        match self.slots.get_mut(id) {
            Some(slot) if slot.state == SlotState::Leased && !is_held => {
                slot.cancels += 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether a CancelRequest is on its way to this server. Until it has arrived it could hit
    /// what the pooler itself asks in order to reset the server.
    pub fn is_being_canceled(&self, slot: SlotId) -> bool {
        self.slots.get(slot).is_some_and(|slot| slot.cancels > 0)
    }

    /// A CancelRequest has been sent to this server of which nobody knows when it will arrive: no other client gets it.
    pub fn spoil(&mut self, slot: SlotId) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.obsolete = true;
        }
    }

    /// The CancelRequest has arrived, or failed to. If the server has been given back meanwhile,
    /// it was kept from the next client until now.
    pub fn end_cancel(&mut self, id: SlotId, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        let Some(slot) = self.slots.get_mut(id) else {
            return actions;
        };
        slot.cancels = slot.cancels.saturating_sub(1);
        if slot.cancels == 0
            && let Some(server) = slot.parked.take()
        {
            self.settle(id, server, Fresh::No, now, &mut actions);
        }
        actions
    }

    /// Finds a returned or new server its place: closed, parked, with the next waiter, or idle.
    pub(crate) fn settle(
        &mut self,
        id: SlotId,
        server: S,
        fresh: Fresh,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) {
        let Some(slot) = self.slots.get_mut(id) else {
            debug_assert!(false, "a server without a slot was given back");
            return;
        };
        if slot.cancels > 0 {
            slot.parked = Some(server);
            self.set_state(id, SlotState::BeingCanceled, now);
            return;
        }
        let (pool_id, opened_at) = (slot.pool, slot.opened_at);
        let marked = match (slot.single_use, slot.obsolete) {
            (true, _) => Some(CloseReason::Inherited),
            (false, true) => Some(CloseReason::Obsolete),
            (false, false) => None,
        };
        let discharged = self.discharge(id);
        let origin = (pool_id, opened_at, marked, fresh);
        self.place(id, server, origin, now, actions);
        if discharged {
            self.serve_held_back(now, actions);
        }
    }

    /// The next place of a server that nobody holds. What is marked is closed.
    fn place(
        &mut self,
        id: SlotId,
        server: S,
        (pool_id, opened_at, marked, fresh): (PoolId, Instant, Option<CloseReason>, Fresh),
        now: Instant,
        actions: &mut Actions<S, W>,
    ) {
        if let Some(reason) = marked.or_else(|| self.must_close(pool_id, opened_at, fresh, now)) {
            self.set_state(id, SlotState::Closing, now);
            return actions.close(id, server, reason);
        }
        if !self.starving.is_empty()
            && let Some(needy) = self.poorer(id, pool_id, now)
        {
            self.mark_evicted(id, needy, now);
            return actions.close(id, server, CloseReason::Evicted);
        }
        if !self.pool(pool_id).dedicated.is_empty() && self.is_turn_of_dedicated(pool_id, now) {
            self.mark_evicted(id, pool_id, now);
            return actions.close(id, server, CloseReason::Evicted);
        }
        if !self.pool(pool_id).waiting.is_empty() {
            self.shed(pool_id, now, actions);
            if self.pool(pool_id).gate == Gate::Open
                && let Some(waiting) = self.dequeue_next(pool_id, now)
            {
                self.set_state(id, SlotState::Leased, now);
                self.charge(id, waiting.party.as_ref());
                let cause = Some(waiting.cause(now));
                actions.push(Action::Serve {
                    waiter: waiting.waiter,
                    lease: Lease::of(id, server),
                    cause,
                });
                return;
            }
        }
        self.pool_mut(pool_id).idle.push_back((id, server));
        self.set_state(id, SlotState::Idle, now);
    }

    fn must_close(
        &mut self,
        id: PoolId,
        opened_at: Instant,
        fresh: Fresh,
        now: Instant,
    ) -> Option<CloseReason> {
        match self.pool(id).gate {
            Gate::Open | Gate::Held => {}
            Gate::Paused => return Some(CloseReason::Paused),
            Gate::Closed(_) => return Some(CloseReason::Closed),
        }
        if fresh == Fresh::No && self.pool(id).lifetime_over(opened_at, now) {
            self.pool_mut(id).last_lifetime_close = Some(now);
            return Some(CloseReason::Lifetime);
        }
        self.has_surplus(id).then_some(CloseReason::Surplus)
    }

    /// Whether a limit that the pool's servers count in has been lowered below their number.
    fn has_surplus(&self, id: PoolId) -> bool {
        let pool = self.pool(id);
        let size = pool
            .limits
            .size
            .map_or(u32::MAX, |size| size + pool.limits.reserve);
        let over = pool.counts.connected().saturating_sub(pool.control) > size
            || pool
                .scopes
                .servers
                .iter()
                .any(|scope| self.budget.is_over(scope));
        over && self.excess(id) > 0
    }

    /// Lends an idle server to the pooler itself, if there is one; it comes back by
    /// [`Self::checkin`] like any other.
    pub fn lend_idle(&mut self, id: PoolId, now: Instant) -> Option<(SlotId, S)> {
        self.get(id)?;
        let Lease { slot, server, .. } = self.pop_idle(id, now)?;
        Some((slot, server))
    }

    /// Gives idle servers to those who wait (after a pause, or for permission).
    pub(crate) fn serve_waiting(&mut self, id: PoolId, now: Instant, actions: &mut Actions<S, W>) {
        while self.servable(id) > 0 {
            let Some(lease) = self.pop_idle(id, now) else {
                break;
            };
            let Some(waiting) = self.dequeue_next(id, now) else {
                debug_assert!(false, "somebody may be served");
                break;
            };
            self.charge(lease.slot, waiting.party.as_ref());
            let cause = Some(waiting.cause(now));
            actions.push(Action::Serve {
                waiter: waiting.waiter,
                lease,
                cause,
            });
        }
    }

    /// A party has given something back: who was held back by its limit may be served now.
    pub(crate) fn serve_held_back(&mut self, now: Instant, actions: &mut Actions<S, W>) {
        for id in std::mem::take(&mut self.held_back) {
            if self.get(id).is_none() {
                continue;
            }
            self.held_back.insert(id);
            self.serve_waiting(id, now, actions);
            self.demand(id, now, actions);
            let is_free = |waiting: &Waiting<W>| waiting.party.is_none();
            if self.pool(id).waiting.values().all(is_free) {
                self.held_back.remove(&id);
            }
        }
    }

    /// Charges a party for a lease, until that is over. Done for every lease but those of inherited
    /// servers.
    pub fn charge(&mut self, id: SlotId, party: Option<&Party>) {
        let Some(party) = party else { return };
        if let Some(slot) = self.slots.get_mut(id) {
            debug_assert!(slot.party.is_none(), "one party is charged for a lease");
            self.budget.take_unlimited(party);
            slot.party = Some(Party::clone(party));
        }
    }

    /// The lease is over. Whether somebody was charged for it.
    pub(crate) fn discharge(&mut self, id: SlotId) -> bool {
        let party = self.slots.get_mut(id).and_then(|slot| slot.party.take());
        party.is_some_and(|party| {
            self.budget.give_back(&party);
            true
        })
    }

    /// Takes an idle server: the one used last (its caches are warm) or one like it that is near, or with `round_robin` the
    /// one idle longest.
    pub(crate) fn pop_idle(&mut self, id: PoolId, now: Instant) -> Option<Lease<S>> {
        let watches = self.threads.watches;
        let pool = self.get_mut(id)?;
        if pool.gate != Gate::Open {
            return None;
        }
        let popped = match pool.limits.round_robin {
            true => pool.idle.pop_front(),
            false => threads::take_last(&mut pool.idle, |(_, server)| watches(server)),
        };
        let (slot, server) = popped?;
        let check_after = pool.limits.check_after;
        let idle_since = self.slots.get(slot).map_or(now, |slot| slot.since);
        let stale = check_after.is_some_and(|after| {
            after.is_zero() || now.saturating_duration_since(idle_since) > after
        });
        self.set_state(slot, SlotState::Leased, now);
        Some(Lease {
            slot,
            server,
            stale,
        })
    }
}

/// Whether a server comes from its login or from a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fresh {
    Yes,
    No,
}
