//! All pools and the budget they share: who is there, and what clients ask of them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use crate::action::Actions;
use crate::budget::Budget;
use crate::cause::Cause;
use crate::demand::{Evict, Refusal};
use crate::gate::Gate;
use crate::lease::Lease;
use crate::pool::{Party, Pool, PoolLimits, PoolName, PoolScopes, Ticket, Waiting};
use crate::slot::{SlotId, SlotState, Slots};
use crate::threads::Threads;

/// The name of a pool for the life of the process: ids are not used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PoolId {
    pub(crate) index: usize,
    pub(crate) serial: NonZeroU64,
}

/// The answer to a client that wants a server.
#[derive(Debug)]
pub enum Checkout<S> {
    /// Here it is.
    Ready(Lease<S>),
    /// An [`Action::Serve`](crate::Action::Serve) or [`Action::Refuse`](crate::Action::Refuse) will
    /// follow.
    Wait(Ticket),
    /// It gets none.
    Refused(Refusal),
}

/// The answer to a client in login that wants to know what the pool's servers are like.
#[derive(Debug)]
pub enum Greeting {
    /// A server has logged in before.
    Known,
    /// An [`Action::Greet`](crate::Action::Greet) or [`Action::Refuse`](crate::Action::Refuse) will
    /// follow, after a retry if the last login has failed.
    Wait(Ticket),
}

/// All pools. `S` is a server, `W` a waiting client.
#[derive(Debug)]
pub struct Pools<S, W> {
    /// Every count limit.
    pub budget: Budget,
    pub(crate) threads: Threads<S>,
    pub(crate) slots: Slots<S, W>,
    /// Pools that wait for a permit that others hold, longest first.
    pub(crate) starving: VecDeque<PoolId>,
    /// Pools in which a client waits whose party has a limit: it may have to wait beside an idle
    /// server. A pool stays here a little longer than that is so.
    pub(crate) held_back: BTreeSet<PoolId>,
    pools: Slab<(NonZeroU64, Pool<S, W>)>,
    by_name: HashMap<PoolName, PoolId>,
    next_serial: NonZeroU64,
    last_ticket: u64,
}

impl<S, W> Default for Pools<S, W> {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            threads: Threads::default(),
            slots: Slots::default(),
            starving: VecDeque::new(),
            held_back: BTreeSet::new(),
            pools: Slab::new(),
            by_name: HashMap::new(),
            next_serial: NonZeroU64::MIN,
            last_ticket: 0,
        }
    }
}

impl<S, W: Clone> Pools<S, W> {
    /// No pools yet, which several threads use: each prefers servers and clients of its own.
    pub fn of_threads(threads: Threads<S>) -> Self {
        Self {
            threads,
            ..Self::default()
        }
    }

    /// The pool of this name, made if it is not there.
    pub fn ensure(
        &mut self,
        name: &PoolName,
        scopes: impl FnOnce() -> PoolScopes,
        limits: PoolLimits,
        gate: Gate,
        now: Instant,
    ) -> PoolId {
        if let Some(&id) = self.by_name.get(name) {
            return id;
        }
        let serial = self.next_serial;
        self.next_serial = serial.saturating_add(1);
        let pool = Pool::new(name.clone(), scopes(), limits, gate, now);
        let index = self.pools.insert((serial, pool));
        let id = PoolId { index, serial };
        self.by_name.insert(name.clone(), id);
        id
    }

    /// The pool of this name.
    pub fn find(&self, name: &PoolName) -> Option<PoolId> {
        self.by_name.get(name).copied()
    }

    /// Takes over what a changed configuration says.
    pub fn set_limits(&mut self, id: PoolId, limits: PoolLimits) {
        if self.get(id).is_some() {
            self.pool_mut(id).limits = limits;
        }
    }

    /// Takes over what servers count in that are opened from now on.
    pub fn set_scopes(&mut self, id: PoolId, scopes: PoolScopes) {
        if self.get(id).is_some() {
            let pool = self.pool_mut(id);
            pool.scopes = scopes;
            pool.hosts = Arc::default();
        }
    }

    /// A client has logged in to the pool.
    pub fn client_joined(&mut self, id: PoolId) {
        if self.get(id).is_some() {
            self.pool_mut(id).clients += 1;
        }
    }

    /// A client of the pool is gone.
    pub fn client_left(&mut self, id: PoolId, now: Instant) {
        if self.get(id).is_some() {
            let pool = self.pool_mut(id);
            pool.clients = pool.clients.saturating_sub(1);
            pool.last_used = now;
        }
    }

    /// A client of one pool goes over to another. `false` if that is gone: then it stays.
    pub fn client_moved(&mut self, from: PoolId, to: PoolId, now: Instant) -> bool {
        let is_there = self.get(to).is_some();
        if is_there {
            self.client_joined(to);
            self.client_left(from, now);
        }
        is_there
    }

    /// A client wants a server. `party` is charged for it; `waiter` is called if it has to wait.
    pub fn checkout(
        &mut self,
        id: PoolId,
        now: Instant,
        party: Option<&Party>,
        waiter: impl FnOnce() -> W,
        actions: &mut Actions<S, W>,
    ) -> Checkout<S> {
        if self.may_lend(party)
            && let Some(lease) = self.pop_idle(id, now)
        {
            self.charge(lease.slot, party);
            return Checkout::Ready(lease);
        }
        if let Some(refusal) = self.closed_to_clients(id) {
            return Checkout::Refused(refusal);
        }
        if let Some(failure) = self.failing(id) {
            // Nobody else may be waiting, so the next attempt has to be ordered here.
            if !self.must_wait_to_retry(id, now) && self.pool(id).counts.of(SlotState::Opening) == 0
            {
                self.open(id, Evict::IfNeeded, now, actions);
            }
            return Checkout::Refused(Refusal::Failing(failure));
        }
        match self.enqueue(id, now, party, waiter) {
            Ok(ticket) => {
                self.demand(id, now, actions);
                self.note_cause(id, party, now);
                Checkout::Wait(ticket)
            }
            Err(refusal) => Checkout::Refused(refusal),
        }
    }

    /// A client in login wants to know what the servers of the pool are like.
    pub fn greet(
        &mut self,
        id: PoolId,
        now: Instant,
        waiter: impl FnOnce() -> W,
        actions: &mut Actions<S, W>,
    ) -> Greeting {
        if self.get(id).is_some_and(|pool| pool.greeted) {
            return Greeting::Known;
        }
        let ticket = self.next_ticket();
        if let Some(refusal) = self.closed_to_clients(id) {
            actions.refuse_at_once(waiter(), refusal);
            return Greeting::Wait(ticket);
        }
        let waiting = Waiting::new(waiter(), now, None);
        self.pool_mut(id).greeting.push(ticket, waiting);
        self.demand(id, now, actions);
        self.note_greeting_cause(id, now);
        Greeting::Wait(ticket)
    }

    /// A client no longer wants what it was waiting for. `None` if it has been answered already:
    /// then the answer is on its way, and a server in it must be given back. With the client comes
    /// what its wait is put down to, if it was one for a server that others can use, too.
    pub fn leave_queue(
        &mut self,
        id: PoolId,
        ticket: Ticket,
        now: Instant,
    ) -> Option<(W, Option<Cause>)> {
        self.get(id)?;
        let queued = self.dequeue(id, ticket);
        let queued = queued.or_else(|| self.pool_mut(id).greeting.remove(ticket));
        if let Some(waiting) = queued {
            let cause = waiting.cause(now);
            return Some((waiting.waiter, Some(cause)));
        }
        let waiter = self.abandon_dedicated(id, ticket)?;
        Some((waiter, None))
    }

    pub(crate) fn set_state(&mut self, id: SlotId, state: SlotState, now: Instant) {
        let Some(slot) = self.slots.get_mut(id) else {
            debug_assert!(false, "a slot that has ended cannot change");
            return;
        };
        let (old, pool) = (slot.state, slot.pool);
        slot.state = state;
        slot.since = now;
        let counts = &mut self.pool_mut(pool).counts;
        counts.remove(old);
        counts.add(state);
    }

    pub(crate) fn next_ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PoolId, &Pool<S, W>)> {
        self.pools.iter().map(|(index, (serial, pool))| {
            (
                PoolId {
                    index,
                    serial: *serial,
                },
                pool,
            )
        })
    }

    pub(crate) fn get(&self, id: PoolId) -> Option<&Pool<S, W>> {
        self.pools
            .get(id.index)
            .filter(|(serial, _)| *serial == id.serial)
            .map(|(_, pool)| pool)
    }

    /// A pool that is known to be there: it has clients or slots, and so is never removed.
    pub(crate) fn pool(&self, id: PoolId) -> &Pool<S, W> {
        self.get(id)
            .expect("a pool with clients or servers is not removed")
    }

    pub(crate) fn pool_mut(&mut self, id: PoolId) -> &mut Pool<S, W> {
        self.get_mut(id)
            .expect("a pool with clients or servers is not removed")
    }

    pub(crate) fn get_mut(&mut self, id: PoolId) -> Option<&mut Pool<S, W>> {
        self.pools
            .get_mut(id.index)
            .filter(|(serial, _)| *serial == id.serial)
            .map(|(_, pool)| pool)
    }

    /// Forgets the limits of databases and users that have no pool any more.
    pub(crate) fn forget_limits(&mut self) {
        let pools = self.pools.iter().map(|(_, (_, pool))| pool);
        let known = pools.flat_map(|pool| pool.scopes.servers.iter()).collect();
        self.budget.keep_limits_on_servers(&known);
    }

    pub(crate) fn remove_pool(&mut self, id: PoolId) {
        if self.get(id).is_some() {
            let (_, pool) = self.pools.remove(id.index);
            self.by_name.remove(&pool.name);
            self.held_back.remove(&id);
        }
    }
}
