//! All pools and the budget they share.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::iter::Chain;
use std::num::NonZeroU64;
use std::time::Instant;
use std::{option, vec};

use slab::Slab;

use crate::budget::Budget;
use crate::cause::Cause;
use crate::dedicated::Dedication;
use crate::demand::{Evict, Failure, FailureKind, Refusal};
use crate::gate::Gate;
use crate::pool::{Party, Pool, PoolLimits, PoolName, PoolScopes, Ticket, Waiting};
use crate::slot::{SlotId, SlotState, Slots};

/// The name of a pool for the life of the process: ids are not used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PoolId {
    pub(crate) index: usize,
    pub(crate) serial: NonZeroU64,
}

/// Something to be done outside.
#[derive(Debug)]
pub enum Action<S, W> {
    /// Connect and log in; then [`Pools::opened`] or [`Pools::open_failed`].
    Open {
        /// For this pool.
        pool: PoolId,
        /// With this permit.
        slot: SlotId,
        /// For this waiter alone, whose wishes shape the login (replication).
        dedicated_to: Option<W>,
    },
    /// The waiter has its server.
    Serve {
        /// Who.
        waiter: W,
        /// With this permit.
        slot: SlotId,
        /// The server.
        server: S,
        /// It was idle so long that it should be checked first.
        stale: bool,
        /// What the wait is put down to; nothing for a server that is for the waiter alone.
        cause: Option<Cause>,
    },
    /// The waiter's pool has had a login: it can be greeted.
    Greet {
        /// Who.
        waiter: W,
        /// What the wait is put down to.
        cause: Cause,
    },
    /// The waiter gets nothing.
    Refuse {
        /// Who.
        waiter: W,
        /// Why.
        refusal: Refusal,
        /// What the wait is put down to, if it was one for a server that others can use, too.
        cause: Option<Cause>,
    },
    /// Close the server; then [`Pools::closed`].
    Close {
        /// Its permit.
        slot: SlotId,
        /// The server.
        server: S,
        /// Why.
        reason: CloseReason,
    },
    /// The waiter is being served from the reserve pool (PgBouncer logs this).
    TakingReserve {
        /// Who has waited.
        waiter: W,
    },
}

/// Why the pool closes a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CloseReason {
    /// Reconnect, or its database was changed.
    Obsolete,
    /// PostgreSQL has closed it, or spoken to it while nobody had asked anything.
    Dirty,
    /// `server_lifetime`
    Lifetime,
    /// `server_idle_timeout`
    IdleTimeout,
    /// Another pool needed the permit.
    Evicted,
    /// A limit was lowered.
    Surplus,
    /// The pool is paused.
    Paused,
    /// The pool is closed to clients.
    Closed,
    /// The pool was removed.
    Removed,
    /// The client that it was opened for is gone.
    Abandoned,
    /// Its pool has no client, and its database is to be left alone.
    Unused,
    /// It came from another pooler, and its last client has given it back.
    Inherited,
}

/// Actions in order. A checkin mostly causes none or one, which allocate nothing.
#[derive(Debug, Default)]
pub enum Actions<S, W> {
    /// Nothing is to be done.
    #[default]
    None,
    /// This.
    One(Action<S, W>),
    /// All of these.
    Many(Vec<Action<S, W>>),
}

impl<S, W> Actions<S, W> {
    pub(crate) fn push(&mut self, action: Action<S, W>) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(action),
            Self::One(first) => Self::Many(vec![first, action]),
            Self::Many(mut actions) => {
                actions.push(action);
                Self::Many(actions)
            }
        };
    }

    /// Somebody who waits gets nothing.
    pub(crate) fn refuse(&mut self, waiting: Waiting<W>, refusal: Refusal, now: Instant) {
        let cause = Some(waiting.cause(now));
        let waiter = waiting.waiter;
        self.push(Action::Refuse {
            waiter,
            refusal,
            cause,
        });
    }

    /// Somebody who has not waited gets nothing, or who wanted a server alone.
    pub(crate) fn refuse_at_once(&mut self, waiter: W, refusal: Refusal) {
        self.push(Action::Refuse {
            waiter,
            refusal,
            cause: None,
        });
    }

    #[cold]
    pub(crate) fn close(&mut self, slot: SlotId, server: S, reason: CloseReason) {
        self.push(Action::Close {
            slot,
            server,
            reason,
        });
    }

    pub(crate) fn extend(&mut self, actions: impl IntoIterator<Item = Action<S, W>>) {
        actions.into_iter().for_each(|action| self.push(action));
    }

    /// Whether there is nothing to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl<S, W> IntoIterator for Actions<S, W> {
    type Item = Action<S, W>;
    type IntoIter = Chain<option::IntoIter<Action<S, W>>, vec::IntoIter<Action<S, W>>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self {
            Self::None => (None, Vec::new()),
            Self::One(action) => (Some(action), Vec::new()),
            Self::Many(actions) => (None, actions),
        };
        one.into_iter().chain(many)
    }
}

/// The answer to a client that wants a server.
#[derive(Debug)]
pub enum Checkout<S> {
    /// Here it is.
    Ready {
        /// Its permit.
        slot: SlotId,
        /// The server.
        server: S,
        /// It was idle so long that it should be checked first.
        stale: bool,
    },
    /// An [`Action::Serve`] or [`Action::Refuse`] will follow.
    Wait(Ticket),
    /// It gets none.
    Refused(Refusal),
}

/// The answer to a client in login that wants to know what the pool's servers are like.
#[derive(Debug)]
pub enum Greeting {
    /// A server has logged in before.
    Known,
    /// An [`Action::Greet`] or [`Action::Refuse`] will follow, after a retry if the last login has
    /// failed.
    Wait(Ticket),
}

/// All pools. `S` is a server, `W` a waiting client.
#[derive(Debug)]
pub struct Pools<S, W> {
    /// Every count limit.
    pub budget: Budget,
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
            self.pool_mut(id).scopes = scopes;
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
            && let Some((slot, server, stale)) = self.pop_idle(id, now)
        {
            self.charge(slot, party);
            return Checkout::Ready {
                slot,
                server,
                stale,
            };
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
        if self.pool(id).greeted {
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
        let Some(id) = self.slots.get(slot).map(|slot| slot.pool) else {
            return actions;
        };
        // What a replication login is refused for may not concern anybody else.
        match self.end_dedication(slot) {
            Dedication::Nobody => {}
            Dedication::To(_, waiter) => {
                actions.refuse_at_once(waiter, Refusal::Login(failure));
                self.free(slot, now, &mut actions);
                return actions;
            }
            Dedication::Abandoned => {
                self.free(slot, now, &mut actions);
                return actions;
            }
        }
        let pool = self.pool_mut(id);
        let usable = pool.counts.connected() > 0 && pool.greeted;
        if failure.kind == FailureKind::Login && !usable {
            let refusal = Refusal::Login(failure.clone());
            self.refuse_waiting(id, &refusal, |_| true, now, &mut actions);
        }
        self.pool_mut(id).retry.note(failure, now);
        self.free(slot, now, &mut actions);
        if self.get(id).is_some() {
            self.refuse_while_down(id, now, &mut actions);
        }
        actions
    }

    /// PostgreSQL has closed the connection: the permit comes back.
    pub fn closed(&mut self, slot: SlotId, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        self.free(slot, now, &mut actions);
        actions
    }

    /// The failure that new clients are refused with: the last login failed and no server is left.
    /// A PostgreSQL that has no connection to spare is busy, not down: clients wait for it. So they
    /// do while the pool is paused, because nobody tries then.
    pub(crate) fn failing(&self, id: PoolId) -> Option<Failure> {
        let pool = self.pool(id);
        let others = pool.counts.total() - pool.counts.of(SlotState::Opening);
        if others > 0 || pool.gate != Gate::Open {
            return None;
        }
        let failure = pool.retry.failure.as_ref();
        failure
            .filter(|failure| failure.kind != FailureKind::Busy)
            .cloned()
    }

    fn free(&mut self, slot: SlotId, now: Instant, actions: &mut Actions<S, W>) {
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
            let pool = self.pool_mut(needy);
            pool.evictions = pool.evictions.saturating_sub(1);
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
        let pool = self
            .pools
            .get_mut(id.index)
            .filter(|(serial, _)| *serial == id.serial);
        &mut pool
            .expect("a pool with clients or servers is not removed")
            .1
    }

    pub(crate) fn remove_pool(&mut self, id: PoolId) {
        if self.get(id).is_some() {
            let (_, pool) = self.pools.remove(id.index);
            self.by_name.remove(&pool.name);
            self.held_back.remove(&id);
        }
    }
}

/// Whether a server comes from its login or from a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fresh {
    Yes,
    No,
}
