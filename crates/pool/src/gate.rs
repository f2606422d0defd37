//! Pause, resume, close, reconnect: the operator's hand on a database.

use std::sync::Arc;
use std::time::Instant;

use crate::action::{Action, Actions, CloseReason};
use crate::demand::Refusal;
use crate::pools::{PoolId, Pools};
use crate::slot::SlotState;

/// Whether a pool gives servers out.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Gate {
    /// It does.
    #[default]
    Open,
    /// Clients wait until it is opened again, and servers that come back are closed.
    Paused,
    /// Clients wait until it is opened again, and servers that come back are kept.
    Held,
    /// Clients are refused with this message.
    Closed(Arc<str>),
}

impl<S, W: Clone> Pools<S, W> {
    /// Stops giving servers of these pools out, and closes the idle ones.
    pub fn pause(&mut self, pools: impl Fn(&str) -> bool, now: Instant) -> Actions<S, W> {
        self.set_gates(|database| pools(database).then_some(Gate::Paused), now)
    }

    /// Gives servers of these pools out again.
    pub fn resume(&mut self, pools: impl Fn(&str) -> bool, now: Instant) -> Actions<S, W> {
        self.set_gates(|database| pools(database).then_some(Gate::Open), now)
    }

    /// Gives the pools of each database their gate; `None` leaves them alone.
    pub fn set_gates(
        &mut self,
        gate: impl Fn(&str) -> Option<Gate>,
        now: Instant,
    ) -> Actions<S, W> {
        let mut actions = Actions::default();
        for id in self.ids_of(|_| true) {
            if let Some(gate) = gate(&self.pool(id).name.database) {
                self.set_gate(id, gate, now, &mut actions);
            }
        }
        actions
    }

    fn set_gate(&mut self, id: PoolId, gate: Gate, now: Instant, actions: &mut Actions<S, W>) {
        let was = std::mem::replace(&mut self.pool_mut(id).gate, gate.clone());
        match gate {
            Gate::Open => {
                if was != Gate::Open && !self.pool(id).waiting.is_empty() {
                    // Whoever had to wait for the gate is no sign of overload.
                    self.pool_mut(id).queued_since = Some(now);
                }
                self.serve_waiting(id, now, actions);
                self.demand(id, now, actions);
            }
            Gate::Held => {}
            Gate::Paused => self.close_idle(id, CloseReason::Paused, now, actions, |_| true),
            Gate::Closed(message) => {
                self.close_idle(id, CloseReason::Closed, now, actions, |_| true);
                let refusal = Refusal::Closed(message);
                self.refuse_waiting(id, &refusal, |_| true, now, actions);
                for waiting in std::mem::take(&mut self.pool_mut(id).dedicated).into_values() {
                    actions.refuse_at_once(waiting.waiter, refusal.clone());
                }
            }
        }
    }

    /// What clients that ask now are refused with, if the pool is closed.
    pub(crate) fn closed_to_clients(&self, id: PoolId) -> Option<Refusal> {
        // Whoever was led to it before it was removed has to come again.
        let Some(pool) = self.get(id) else {
            return Some(Refusal::Removed);
        };
        match &pool.gate {
            Gate::Closed(message) => Some(Refusal::Closed(Arc::clone(message))),
            Gate::Open | Gate::Paused | Gate::Held => None,
        }
    }

    /// Marks every server of these pools to be closed as soon as nobody holds it; the idle ones are
    /// closed at once. The next login decides anew what the pool's servers are like.
    pub fn reconnect(&mut self, pools: impl Fn(&str) -> bool, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        for id in self.ids_of(pools) {
            self.pool_mut(id).greeted = false;
            for slot in self.slots.iter_mut().filter(|slot| slot.pool == id) {
                slot.obsolete = true;
            }
            self.close_idle(id, CloseReason::Obsolete, now, &mut actions, |_| true);
        }
        actions
    }

    /// Closes the servers of pools that have no client, and says which pools these are.
    pub fn close_unused(
        &mut self,
        pools: impl Fn(PoolId) -> bool,
        now: Instant,
    ) -> (Vec<PoolId>, Actions<S, W>) {
        let (mut unused, mut actions) = (Vec::new(), Actions::default());
        for id in self.ids_of(|_| true) {
            if pools(id) && self.pool(id).clients == 0 {
                self.close_idle(id, CloseReason::Unused, now, &mut actions, |_| true);
                unused.push(id);
            }
        }
        (unused, actions)
    }

    /// Marks single servers, by the serial and the state of their slots, to be closed as soon as nobody
    /// holds them: their host has moved, or is not what it was. The next tick closes the idle ones. Says how
    /// many were not marked before.
    pub fn outdate(&mut self, is_outdated: impl Fn(u64, SlotState) -> bool) -> usize {
        let slots = self.slots.iter_mut();
        let outdated =
            slots.filter(|slot| !slot.obsolete && is_outdated(slot.serial(), slot.state));
        outdated.map(|slot| slot.obsolete = true).count()
    }

    /// Whether servers that were marked by [`Self::reconnect`] are still lent or opening.
    pub fn has_obsolete(&self, pools: impl Fn(&str) -> bool) -> bool {
        let ids = self.ids_of(pools);
        self.slots
            .iter()
            .any(|(_, slot)| slot.obsolete && slot.state.is_open() && ids.contains(&slot.pool))
    }

    /// Whether a server of these pools is lent to a client or about to be, or has not ended yet although
    /// it was told to. One that does not end in time is not waited for.
    pub fn is_busy(&self, pools: impl Fn(&str) -> bool) -> bool {
        let busy = [
            SlotState::Leased,
            SlotState::Resetting,
            SlotState::BeingCanceled,
            SlotState::Closing,
        ];
        self.ids_of(pools)
            .into_iter()
            .any(|id| busy.iter().any(|&state| self.pool(id).counts.of(state) > 0))
    }

    pub(crate) fn ids_of(&self, pools: impl Fn(&str) -> bool) -> Vec<PoolId> {
        self.iter()
            .filter(|(_, pool)| pools(&pool.name.database))
            .map(|(id, _)| id)
            .collect()
    }

    /// Closes the idle servers of a pool for which `which` holds (given how long they were idle).
    pub(crate) fn close_idle(
        &mut self,
        id: PoolId,
        reason: CloseReason,
        now: Instant,
        actions: &mut Actions<S, W>,
        mut which: impl FnMut(&mut Self) -> bool,
    ) {
        while !self.pool(id).idle.is_empty() && which(self) {
            let Some((slot, server)) = self.pool_mut(id).idle.pop_front() else {
                break;
            };
            self.set_state(slot, SlotState::Closing, now);
            actions.push(Action::Close {
                slot,
                server,
                reason,
            });
        }
    }
}
