//! Servers that another process has opened and hands over, and holding everything still for that.

use std::time::Instant;

use crate::gate::Gate;
use crate::pools::{PoolId, Pools};
use crate::scope::Scope;
use crate::slot::{SlotId, SlotState};

/// A server that exists already.
#[derive(Clone, Debug)]
pub struct Inherited {
    /// What is known of it.
    pub past: Past,
    /// Its host, where the pool has several.
    pub host: Option<Scope>,
    /// Whether the pooler itself uses it, so that it is beyond the size of its pool.
    pub is_control: bool,
    /// When it logged in.
    pub opened_at: Instant,
}

/// What is known of an inherited server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Past {
    /// Everything: it is as good as one of our own.
    Known,
    /// Where it leads is not what the configuration says now: it is replaced as soon as nobody holds
    /// it.
    Outdated,
    /// Nothing of what earlier sessions have left on it: it ends with its present client.
    Unknown,
}

impl<S, W: Clone> Pools<S, W> {
    /// Nothing is lent, opened or closed any more, until [`Self::resume`]. What is given back stays.
    pub fn hold(&mut self) {
        for id in self.ids_of(|_| true) {
            self.pool_mut(id).gate = Gate::Held;
        }
    }

    /// Lends every idle server to the caller, who gives it back with [`Self::checkin`].
    pub fn take_idle(&mut self, now: Instant) -> Vec<(SlotId, S)> {
        let mut taken = Vec::new();
        for id in self.ids_of(|_| true) {
            taken.extend(std::mem::take(&mut self.pool_mut(id).idle));
        }
        for (slot, _) in &taken {
            self.set_state(*slot, SlotState::Leased, now);
        }
        taken
    }

    /// A server that exists already: it counts from now on, even beyond the limits, and is lent to
    /// the caller.
    pub fn inherit(&mut self, id: PoolId, inherited: Inherited, now: Instant) -> SlotId {
        let Inherited {
            past,
            host,
            is_control,
            opened_at,
        } = inherited;
        let servers = self.pool(id).scopes.servers.clone();
        self.budget.take_unlimited(&servers);
        self.budget.take_unlimited(host.as_slice());
        let slot = self.new_slot(id, now);
        self.set_state(slot, SlotState::Leased, now);
        if let Some(slot) = self.slots.get_mut(slot) {
            // It has logged in elsewhere.
            slot.login = None;
            slot.host = host;
            slot.opened_at = opened_at;
            slot.obsolete = past == Past::Outdated;
            slot.single_use = past == Past::Unknown;
            slot.is_control = is_control;
        }
        self.pool_mut(id).control += u32::from(is_control);
        self.pool_mut(id).greeted |= past == Past::Known;
        slot
    }

    /// The host of a server, where its pool has several.
    pub fn host_of(&self, slot: SlotId) -> Option<&Scope> {
        self.slots.get(slot)?.host.as_ref()
    }
}
