//! Servers for one client alone: replication connections, which cannot be shared or reused, and those
//! on which the pooler itself asks something (control).
//!
//! They take slots and permits like any other server. At a limit a replication client makes room by
//! closing an idle server of its pool, or the one that comes back when it has waited longest. Control is beyond `pool_size`, which is for
//! clients: what holds all servers of a pool must be found out while they are held. It is within every
//! other limit, and nobody makes room for it.

use std::time::Instant;

use crate::action::{Action, Actions, CloseReason};
use crate::gate::Gate;
use crate::lease::Lease;
use crate::pool::{Room, Ticket, Waiting};
use crate::pools::{PoolId, Pools};
use crate::scope::Scope;
use crate::slot::{SlotId, SlotState};

/// For whom a slot is opened.
#[derive(Debug)]
pub(crate) enum Dedication<W> {
    /// For whoever wants it next.
    Nobody,
    /// For this waiter.
    To(Ticket, W),
    /// For a waiter that is gone: nobody else can use it.
    Abandoned,
}

impl<S, W: Clone> Pools<S, W> {
    /// A client wants a server of its own. An [`Action::Serve`] or [`Action::Refuse`] will follow.
    pub fn dedicate(
        &mut self,
        id: PoolId,
        now: Instant,
        waiter: impl FnOnce() -> W,
        actions: &mut Actions<S, W>,
    ) -> Ticket {
        let ticket = self.next_ticket();
        if let Some(refusal) = self.closed_to_clients(id) {
            actions.refuse_at_once(waiter(), refusal);
            return ticket;
        }
        let waiting = Waiting::new(waiter(), now, None);
        self.pool_mut(id).dedicated.push(ticket, waiting);
        self.demand_dedicated(id, now, actions);
        ticket
    }

    /// The pooler itself wants a server. An [`Action::Serve`] or [`Action::Refuse`] will follow.
    ///
    /// # Errors
    /// The limit that is full; nothing if all is held still at this moment.
    pub fn open_control(
        &mut self,
        id: PoolId,
        waiter: W,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) -> Result<Ticket, Option<Scope>> {
        if self.get(id).is_none_or(|pool| pool.gate == Gate::Held) {
            return Err(None);
        }
        let id_of_slot = self.try_slot(id, now)?;
        let ticket = self.next_ticket();
        if let Some(slot) = self.slots.get_mut(id_of_slot) {
            slot.dedication = Dedication::To(ticket, waiter.clone());
            slot.is_control = true;
        }
        let pool = self.pool_mut(id);
        pool.dedicated_opening += 1;
        pool.control += 1;
        actions.push(Action::Open {
            pool: id,
            slot: id_of_slot,
            dedicated_to: Some(waiter),
        });
        Ok(ticket)
    }

    /// Opens servers for clients that want one of their own, as far as the limits allow.
    pub(crate) fn demand_dedicated(
        &mut self,
        id: PoolId,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) {
        while self.pool(id).gate == Gate::Open
            && let Some((ticket, _)) = self.pool(id).dedicated.first()
        {
            let slot = match self.pool(id).room(now) {
                Room::None => None,
                Room::Free | Room::Reserve => self.take_slot(id, now, actions),
            };
            let Some(slot) = slot else {
                if self.is_full(id, now) {
                    self.evict_own(id, now, actions);
                }
                return;
            };
            let waiting = self.pool_mut(id).dedicated.remove(ticket);
            let Some(Waiting { waiter, .. }) = waiting else {
                return;
            };
            if let Some(slot) = self.slots.get_mut(slot) {
                slot.dedication = Dedication::To(ticket, waiter.clone());
            }
            self.pool_mut(id).dedicated_opening += 1;
            actions.push(Action::Open {
                pool: id,
                slot,
                dedicated_to: Some(waiter),
            });
        }
    }

    /// Closes one idle server of the pool, unless enough are being closed already.
    fn evict_own(&mut self, id: PoolId, now: Instant, actions: &mut Actions<S, W>) {
        if self.pool(id).evictions >= self.pool(id).dedicated.len() as u32 {
            return;
        }
        let Some((slot, server)) = self.pool_mut(id).idle.pop_front() else {
            return;
        };
        self.mark_evicted(slot, id, now);
        actions.push(Action::Close {
            slot,
            server,
            reason: CloseReason::Evicted,
        });
    }

    /// Whether a returned server makes room for a client that wants one of its own, because nobody who waits for a
    /// server has waited longer.
    pub(crate) fn is_turn_of_dedicated(&self, id: PoolId, now: Instant) -> bool {
        let pool = self.pool(id);
        let Some((own, _)) = pool.dedicated.first() else {
            return false;
        };
        let waits_longest = pool.waiting.first().is_none_or(|(first, _)| own < first);
        pool.gate == Gate::Open
            && pool.evictions < pool.dedicated.len() as u32
            && waits_longest
            && self.is_full(id, now)
    }

    /// Whether one server less would make room for another. A login that is awaited gives its permit back by itself.
    fn is_full(&self, id: PoolId, now: Instant) -> bool {
        let pool = self.pool(id);
        pool.room(now) == Room::None || self.budget.binding(&pool.scopes.servers).is_some()
    }

    /// Gives a server that was opened for one client to that client, or closes it if the client is
    /// gone. Gives any other server back.
    pub(crate) fn serve_dedicated(
        &mut self,
        slot: SlotId,
        server: S,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) -> Option<S> {
        match self.end_dedication(slot) {
            Dedication::Nobody => return Some(server),
            Dedication::To(_, waiter) => {
                self.set_state(slot, SlotState::Leased, now);
                actions.push(Action::Serve {
                    waiter,
                    lease: Lease::of(slot, server),
                    cause: None,
                });
            }
            Dedication::Abandoned => {
                self.set_state(slot, SlotState::Closing, now);
                actions.push(Action::Close {
                    slot,
                    server,
                    reason: CloseReason::Abandoned,
                });
            }
        }
        None
    }

    /// The opening of a slot has come to its end, good or bad: for whom was it?
    pub(crate) fn end_dedication(&mut self, slot: SlotId) -> Dedication<W> {
        let Some(slot) = self.slots.get_mut(slot) else {
            return Dedication::Nobody;
        };
        let dedication = std::mem::replace(&mut slot.dedication, Dedication::Nobody);
        let pool = slot.pool;
        if !matches!(dedication, Dedication::Nobody) {
            self.pool_mut(pool).dedicated_opening -= 1;
        }
        dedication
    }

    /// The waiter with this ticket is gone.
    pub(crate) fn abandon_dedicated(&mut self, id: PoolId, ticket: Ticket) -> Option<W> {
        if let Some(waiting) = self.pool_mut(id).dedicated.remove(ticket) {
            return Some(waiting.waiter);
        }
        let of_ticket = |dedication: &Dedication<W>| match dedication {
            Dedication::To(of, _) => *of == ticket,
            Dedication::Nobody | Dedication::Abandoned => false,
        };
        let slot = self
            .slots
            .iter_mut()
            .find(|slot| of_ticket(&slot.dedication))?;
        match std::mem::replace(&mut slot.dedication, Dedication::Abandoned) {
            Dedication::To(_, waiter) => Some(waiter),
            Dedication::Nobody | Dedication::Abandoned => None,
        }
    }
}
