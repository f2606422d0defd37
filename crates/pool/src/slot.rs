//! Slots: one per TCP connection to PostgreSQL, from before it is opened until it is closed.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use crate::dedicated::Dedication;
use crate::pool::Party;
use crate::pools::PoolId;
use crate::scope::Scope;

/// The name of a slot. A slot that has ended keeps no name: an old one finds nothing.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct SlotId {
    index: usize,
    serial: NonZeroU64,
}

impl SlotId {
    /// A number that no other slot of this process ever has.
    pub fn serial(self) -> u64 {
        self.serial.get()
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlotState {
    /// Connecting or logging in.
    Opening,
    /// In the pool, free.
    Idle,
    /// Lent to a client.
    Leased,
    /// Between two clients: being reset or drained.
    Resetting,
    /// Returned, but a CancelRequest for it is still on its way.
    BeingCanceled,
    /// Told to end; PostgreSQL has not closed the socket yet.
    Closing,
    /// Told to end, and PostgreSQL did not close in time. Still counted.
    Quarantined,
}

impl SlotState {
    /// How many states there are.
    pub(crate) const COUNT: usize = 7;

    /// Whether a client may still get this server: it is neither ending nor ended.
    pub fn is_open(self) -> bool {
        match self {
            Self::Opening | Self::Idle | Self::Leased | Self::Resetting | Self::BeingCanceled => {
                true
            }
            Self::Closing | Self::Quarantined => false,
        }
    }
}

/// A slot's books. `S` is here only while the server is parked for a cancel request.
#[derive(Debug)]
pub(crate) struct Slot<S, W> {
    serial: NonZeroU64,
    pub(crate) pool: PoolId,
    pub(crate) state: SlotState,
    pub(crate) since: Instant,
    pub(crate) opened_at: Instant,
    /// What it counts in, besides its pool.
    pub(crate) scopes: Arc<[Scope]>,
    /// The same for a host that was chosen after the slot was taken.
    pub(crate) host: Option<Scope>,
    /// What it counts in until it has logged in.
    pub(crate) login: Option<Scope>,
    /// Who is charged for the lease.
    pub(crate) party: Option<Party>,
    /// CancelRequests on their way to this server.
    pub(crate) cancels: u32,
    /// To be closed at the next chance (reconnect, changed configuration).
    pub(crate) obsolete: bool,
    /// To be closed when it is given back: nobody knows what it has been through.
    pub(crate) single_use: bool,
    /// The pooler itself uses it: it is beyond the size of its pool.
    pub(crate) is_control: bool,
    /// The pool that waits for the permit of this slot, if it was evicted for one.
    pub(crate) evicted_for: Option<PoolId>,
    pub(crate) parked: Option<S>,
    /// For whom it is opened.
    pub(crate) dedication: Dedication<W>,
}

impl<S, W> Slot<S, W> {
    /// What it counts in for as long as it is there, besides its pool.
    pub(crate) fn counts_in(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.iter().chain(&self.host)
    }

    /// The number of this slot, which no other ever has.
    pub(crate) fn serial(&self) -> u64 {
        self.serial.get()
    }
}

/// All slots, and how many are in each state.
#[derive(Debug)]
pub(crate) struct Slots<S, W> {
    slab: Slab<Slot<S, W>>,
    next_serial: NonZeroU64,
}

impl<S, W> Default for Slots<S, W> {
    fn default() -> Self {
        Self {
            slab: Slab::new(),
            next_serial: NonZeroU64::MIN,
        }
    }
}

impl<S, W> Slots<S, W> {
    /// A new slot, in state [`SlotState::Opening`].
    pub(crate) fn insert(
        &mut self,
        pool: PoolId,
        scopes: Arc<[Scope]>,
        login: Option<Scope>,
        now: Instant,
    ) -> SlotId {
        let serial = self.next_serial;
        self.next_serial = serial.saturating_add(1);
        let index = self.slab.insert(Slot {
            serial,
            pool,
            state: SlotState::Opening,
            since: now,
            opened_at: now,
            scopes,
            host: None,
            login,
            party: None,
            cancels: 0,
            obsolete: false,
            single_use: false,
            is_control: false,
            evicted_for: None,
            parked: None,
            dedication: Dedication::Nobody,
        });
        SlotId { index, serial }
    }

    pub(crate) fn get(&self, id: SlotId) -> Option<&Slot<S, W>> {
        self.slab
            .get(id.index)
            .filter(|slot| slot.serial == id.serial)
    }

    pub(crate) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot<S, W>> {
        self.slab
            .get_mut(id.index)
            .filter(|slot| slot.serial == id.serial)
    }

    pub(crate) fn remove(&mut self, id: SlotId) -> Option<Slot<S, W>> {
        self.get(id)?;
        Some(self.slab.remove(id.index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot<S, W>)> {
        self.slab.iter().map(|(index, slot)| {
            (
                SlotId {
                    index,
                    serial: slot.serial,
                },
                slot,
            )
        })
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot<S, W>> {
        self.slab.iter_mut().map(|(_, slot)| slot)
    }
}

/// How many slots of a pool are in each state.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct StateCounts([u32; SlotState::COUNT]);

impl StateCounts {
    pub(crate) fn of(&self, state: SlotState) -> u32 {
        self.0[state as usize]
    }

    pub(crate) fn add(&mut self, state: SlotState) {
        self.0[state as usize] += 1;
    }

    pub(crate) fn remove(&mut self, state: SlotState) {
        debug_assert!(
            self.of(state) > 0,
            "a slot left a state in which there was none"
        );
        self.0[state as usize] = self.0[state as usize].saturating_sub(1);
    }

    /// Every connection that PostgreSQL may still count.
    pub(crate) fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// Connections that are logged in and not ending.
    pub(crate) fn connected(&self) -> u32 {
        self.of(SlotState::Idle)
            + self.of(SlotState::Leased)
            + self.of(SlotState::Resetting)
            + self.of(SlotState::BeingCanceled)
    }
}
