//! How the opening of a server ends, and how its connection does: a server that has logged in, an attempt that
//! has failed, a permit that comes back.

use std::time::Instant;

use crate::action::{Action, Actions};
use crate::dedicated::Dedication;
use crate::demand::{Failure, FailureKind, Refusal};
use crate::gate::Gate;
use crate::lease::Fresh;
use crate::pools::{PoolId, Pools};
use crate::slot::SlotId;

impl<S, W: Clone> Pools<S, W> {
    /// A server has logged in.
    pub fn opened(&mut self, slot: SlotId, server: S, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        let Some(id) = self.slots.get(slot).map(|slot| slot.pool) else {
            debug_assert!(false, "a server without a slot was opened");
            return actions;
        };
        self.login_over(slot);
        let Some(server) = self.serve_dedicated(slot, server, now, &mut actions) else {
            self.feed_starving(now, &mut actions);
            return actions;
        };
        let obsolete = self.slots.get(slot).is_some_and(|slot| slot.obsolete);
        let pool = self.pool_mut(id);
        pool.retry.forget();
        pool.peak = pool.peak.max(pool.total_for_clients());
        if !obsolete {
            pool.greeted = true;
            for waiting in std::mem::take(&mut pool.greeting).into_values() {
                let cause = waiting.cause(now);
                let waiter = waiting.waiter;
                actions.push(Action::Greet { waiter, cause });
            }
        }
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.opened_at = now;
        }
        self.settle(slot, server, Fresh::Yes, now, &mut actions);
        self.feed_starving(now, &mut actions);
        self.demand(id, now, &mut actions);
        actions
    }

    /// A server could not be had, and no connection is left of the attempt.
    pub fn open_failed(&mut self, slot: SlotId, failure: Failure, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        if self.slots.get(slot).is_some() {
            self.note_failure(slot, failure, now, &mut actions);
            self.free(slot, now, &mut actions);
        }
        actions
    }

    /// A server could not be had, and PostgreSQL has not closed the connection in time: it stays counted
    /// until [`Self::closed`], and nobody waits for that.
    pub fn open_stuck(&mut self, slot: SlotId, failure: Failure, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        self.note_failure(slot, failure, now, &mut actions);
        actions.extend(self.quarantined(slot, now));
        actions
    }

    /// Tells those whom it concerns that a login has failed.
    fn note_failure(
        &mut self,
        slot: SlotId,
        failure: Failure,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) {
        let Some(id) = self.slots.get(slot).map(|slot| slot.pool) else {
            return;
        };
        // What a replication login is refused for may not concern anybody else.
        match self.end_dedication(slot) {
            Dedication::Nobody => {}
            Dedication::To(_, waiter) => {
                return actions.refuse_at_once(waiter, Refusal::Login(failure));
            }
            Dedication::Abandoned => return,
        }
        let pool = self.pool_mut(id);
        let usable = pool.counts.connected() > 0 && pool.greeted;
        if failure.kind == FailureKind::Login && !usable {
            let refusal = Refusal::Login(failure.clone());
            self.refuse_waiting(id, &refusal, |_| true, now, actions);
        }
        self.pool_mut(id).retry.note(failure, now);
        self.refuse_while_down(id, now, actions);
    }

    /// PostgreSQL has closed the connection: the permit comes back.
    pub fn closed(&mut self, slot: SlotId, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        self.free(slot, now, &mut actions);
        actions
    }

    /// The failure that new clients are refused with: the last login failed and no server is left, but for
    /// those that are ending.
    /// A PostgreSQL that has no connection to spare is busy, not down: clients wait for it. So they
    /// do while the pool is paused, because nobody tries then.
    pub(crate) fn failing(&self, id: PoolId) -> Option<Failure> {
        let pool = self.pool(id);
        if pool.counts.connected() > 0 || pool.gate != Gate::Open {
            return None;
        }
        let failure = pool.retry.failure.as_ref();
        failure
            .filter(|failure| failure.kind != FailureKind::Busy)
            .cloned()
    }

    pub(crate) fn free(&mut self, slot: SlotId, now: Instant, actions: &mut Actions<S, W>) {
        self.login_over(slot);
        self.discharge(slot);
        let Some(ended) = self.slots.remove(slot) else {
            debug_assert!(false, "a slot was freed twice");
            return;
        };
        let pool = self.pool_mut(ended.pool);
        pool.count_service(now);
        pool.counts.remove(ended.state);
        pool.control -= u32::from(ended.is_control);
        self.budget.give_back(&ended.scopes);
        self.budget.give_back(ended.host.as_slice());
        let needy = ended.evicted_for.filter(|&id| self.get(id).is_some());
        if let Some(needy) = needy {
            self.eviction_over(needy);
            self.demand(needy, now, actions);
        }
        self.feed_starving(now, actions);
        if self.get(ended.pool).is_some() {
            self.demand(ended.pool, now, actions);
        }
        self.serve_held_back(now, actions);
        if let Some(needy) = needy {
            self.replace_evicted(needy, now, actions);
        }
    }
}
