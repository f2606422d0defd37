//! Snapshots for the console.

use std::time::Instant;

use crate::demand::Failure;
use crate::gate::Gate;
use crate::pool::PoolName;
use crate::pools::{PoolId, Pools};
use crate::slot::{Slot, SlotId, SlotState};

/// One pool, counted.
#[derive(Clone, Debug)]
pub struct PoolView {
    /// Which one.
    pub id: PoolId,
    /// Its database and user.
    pub name: PoolName,
    /// Clients that are logged in.
    pub clients: u32,
    /// Clients that wait for a server, in login or after it.
    pub waiting: u32,
    /// Of these, those in login, which are not among the clients yet.
    pub waiting_logins: u32,
    /// When the one that waits longest began to.
    pub oldest_wait: Option<Instant>,
    /// Slots in [`SlotState::Opening`].
    pub opening: u32,
    /// Slots in [`SlotState::Idle`].
    pub idle: u32,
    /// Slots in [`SlotState::Leased`].
    pub leased: u32,
    /// Slots in [`SlotState::Resetting`].
    pub resetting: u32,
    /// Slots in [`SlotState::BeingCanceled`].
    pub being_canceled: u32,
    /// Slots in [`SlotState::Closing`].
    pub closing: u32,
    /// Slots in [`SlotState::Quarantined`].
    pub quarantined: u32,
    /// The most that there ever were, without those that the pooler itself uses.
    pub peak: u32,
    /// Of all these, those that the pooler itself uses, beyond the size of the pool.
    pub control: u32,
    /// Whether nobody is led here any more.
    pub is_retired: bool,
    /// Why there is no server and none can be had, and since when that is so.
    pub failing: Option<(Failure, Instant)>,
}

impl PoolView {
    /// Clients that have logged in and do not wait.
    pub fn active_clients(&self) -> u32 {
        self.clients.saturating_sub(self.queued())
    }

    /// Clients that wait in the queue.
    pub fn queued(&self) -> u32 {
        self.waiting - self.waiting_logins
    }

    /// Servers that have logged in and are not being closed.
    pub fn connected(&self) -> u32 {
        self.idle + self.leased + self.resetting + self.being_canceled
    }

    /// Every connection that PostgreSQL may still count.
    pub fn total(&self) -> u32 {
        self.opening
            + self.idle
            + self.leased
            + self.resetting
            + self.being_canceled
            + self.closing
            + self.quarantined
    }
}

/// One slot.
#[derive(Clone, Copy, Debug)]
pub struct SlotView {
    /// Which one.
    pub id: SlotId,
    /// Its pool.
    pub pool: PoolId,
    /// What it is doing.
    pub state: SlotState,
    /// Since when.
    pub since: Instant,
    /// Whether it is to be closed at the next chance.
    pub obsolete: bool,
}

impl<S, W: Clone> Pools<S, W> {
    /// All pools, by database and user.
    pub fn view(&self) -> Vec<PoolView> {
        let mut views: Vec<_> = self
            .iter()
            .map(|(id, pool)| PoolView {
                id,
                name: pool.name.clone(),
                clients: pool.clients,
                waiting: (pool.waiting.len() + pool.greeting.len() + pool.dedicated.len()) as u32,
                waiting_logins: (pool.greeting.len() + pool.dedicated.len()) as u32,
                oldest_wait: pool.oldest_wait(),
                opening: pool.counts.of(SlotState::Opening),
                idle: pool.counts.of(SlotState::Idle),
                leased: pool.counts.of(SlotState::Leased),
                resetting: pool.counts.of(SlotState::Resetting),
                being_canceled: pool.counts.of(SlotState::BeingCanceled),
                closing: pool.counts.of(SlotState::Closing),
                quarantined: pool.counts.of(SlotState::Quarantined),
                peak: pool.peak,
                control: pool.control,
                is_retired: pool.is_retired,
                failing: self.failing(id).zip(pool.retry.failing_since),
            })
            .collect();
        views.sort_by(|a, b| a.name.cmp(&b.name));
        views
    }

    /// How many clients wait in a pool for a server.
    pub fn waiting(&self, id: PoolId) -> usize {
        self.get(id).map_or(0, |pool| pool.waiting.len())
    }

    /// Whether a pool waits for a permit that others hold.
    pub fn is_anybody_starving(&self) -> bool {
        !self.starving.is_empty()
    }

    /// Whether a pool gives servers out, or will again without an order.
    pub fn lends(&self, id: PoolId) -> bool {
        self.get(id)
            .is_some_and(|pool| matches!(pool.gate, Gate::Open | Gate::Held))
    }

    /// All slots.
    pub fn slots(&self) -> impl Iterator<Item = SlotView> {
        self.slots.iter().map(|(id, slot)| slot_view(id, slot))
    }

    /// One slot.
    pub fn slot(&self, id: SlotId) -> Option<SlotView> {
        self.slots.get(id).map(|slot| slot_view(id, slot))
    }
}

fn slot_view<S, W>(id: SlotId, slot: &Slot<S, W>) -> SlotView {
    SlotView {
        id,
        pool: slot.pool,
        state: slot.state,
        since: slot.since,
        obsolete: slot.obsolete,
    }
}
