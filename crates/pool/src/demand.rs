//! When a server is opened: demand against room, budget and the memory of failed logins.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::action::{Action, Actions};
use crate::dedicated::Dedication;
use crate::gate::Gate;
use crate::pool::{PoolScopes, Room};
use crate::pools::{PoolId, Pools};
use crate::scope::Scope;
use crate::slot::{SlotId, SlotState};
use crate::standing::Crowded;

/// Servers that one pool opens at the same time, once one of its servers works. Before that it
/// tries one, so that a wrong password is refused once and not twenty times.
const OPENING_MAX: u32 = 4;

/// When a server that could not be reached is tried again for the first time, and the shortest pause there is.
const FIRST_RETRY: Duration = Duration::from_millis(200);

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
    /// PostgreSQL has no connection to spare: clients wait until it has.
    Busy,
    /// The pooler has no file or memory to spare: as if PostgreSQL was not reached, but it is not to
    /// blame.
    Own,
}

/// Why a client gets no server and need not wait.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The login that the client was waiting for was refused.
    Login(Failure),
    /// The last login failed, no server is left, and it is too early to try again.
    Failing(Failure),
    /// Too many others wait.
    Crowded(Box<Crowded>),
    /// An operator has closed the pool, and says why.
    Closed(Arc<str>),
    /// The pool was removed after the client was led to it.
    Removed,
}

/// The memory of failed attempts.
#[derive(Debug, Default)]
pub(crate) struct Retry {
    pub(crate) failure: Option<Failure>,
    /// Since when no attempt has worked.
    pub(crate) failing_since: Option<Instant>,
    pub(crate) last_attempt: Option<Instant>,
    /// Attempts that have failed since one worked.
    failures: u32,
}

impl Retry {
    pub(crate) fn note(&mut self, failure: Failure, now: Instant) {
        self.failure = Some(failure);
        self.failing_since.get_or_insert(now);
        self.failures = self.failures.saturating_add(1);
    }

    pub(crate) fn forget(&mut self) {
        self.failure = None;
        self.failing_since = None;
        self.failures = 0;
    }

    /// How long the next attempt has to wait. A server that cannot be reached is tried again soon,
    /// and then ever more seldom up to `server_login_retry`: mostly it is restarting. One that
    /// refuses the login will go on refusing it. Without a pause a single client would keep a processor busy.
    fn pause(&self, login_retry: Duration) -> Duration {
        let longest = login_retry.max(FIRST_RETRY);
        match self.failure.as_ref().map(|failure| failure.kind) {
            None => Duration::ZERO,
            Some(FailureKind::Login) => longest,
            Some(FailureKind::Connect | FailureKind::Busy | FailureKind::Own) => {
                let doublings = self.failures.saturating_sub(1).min(16);
                longest.min(FIRST_RETRY * 2_u32.pow(doublings))
            }
        }
    }
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
        let opening = pool.opening_for_all();
        let wanted = self.wanted_for_all(id);
        let parallel = if pool.greeted && pool.counts.connected() > 0 {
            OPENING_MAX
        } else {
            1
        };
        pool.gate == Gate::Open
            && opening < wanted.min(parallel)
            && pool.room(now) != Room::None
            && !self.must_wait_to_retry(id, now)
    }

    /// Tries whether a pool that has no server can have one again, although nobody asks: those who
    /// would ask may have been sent elsewhere because it has none.
    pub fn probe(&mut self, id: PoolId, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        let due = self.get(id).is_some()
            && self.failing(id).is_some()
            && self.pool(id).counts.of(SlotState::Opening) == 0
            && !self.must_wait_to_retry(id, now);
        if due {
            self.open(id, Evict::Never, now, &mut actions);
        }
        actions
    }

    /// Something has changed that may let servers log in: a login that was refused is forgotten, and
    /// the next client that asks is not refused for it.
    pub fn try_again(&mut self, id: PoolId) {
        let Some(pool) = self.get(id) else { return };
        let failure = pool.retry.failure.as_ref();
        if failure.is_some_and(|failure| failure.kind == FailureKind::Login) {
            self.pool_mut(id).retry = Retry::default();
        }
    }

    /// Whether the last attempt failed so recently that the next one has to wait.
    pub(crate) fn must_wait_to_retry(&self, id: PoolId, now: Instant) -> bool {
        let pool = self.pool(id);
        let pause = pool.retry.pause(pool.limits.login_retry);
        let last = pool.retry.last_attempt;
        last.is_some_and(|last| now.saturating_duration_since(last) < pause)
    }

    /// Takes the permits for a new server and orders it. `false` if a limit or the gate forbids it.
    pub(crate) fn open(
        &mut self,
        id: PoolId,
        evict: Evict,
        now: Instant,
        actions: &mut Actions<S, W>,
    ) -> bool {
        if self.pool(id).gate != Gate::Open {
            return false;
        }
        let slot = match (self.pool(id).room(now), evict) {
            (Room::None, _) => None,
            (Room::Free, Evict::IfNeeded) => self.take_slot(id, now, actions),
            (Room::Free, Evict::Never) => self.try_slot(id, now).ok(),
            (Room::Reserve, _) => {
                let slot = self.take_slot(id, now, actions);
                let oldest = self.pool(id).waiting.first();
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
        match self.try_slot(id, now) {
            Ok(slot) => Some(slot),
            Err(full) => {
                self.starve(id, now);
                // A login gives its permit back by itself, and soon.
                if !matches!(full, Scope::HostLogins(_)) {
                    self.evict(&full, id, now, actions);
                }
                None
            }
        }
    }

    /// A slot with one unit of everything that a new server of the pool counts in, or the limit that is full. Where
    /// permits of hosts are scarce one is kept for the slot, so that nobody takes it before the host is chosen.
    pub(crate) fn try_slot(&mut self, id: PoolId, now: Instant) -> Result<SlotId, Scope> {
        let PoolScopes { servers, login } = self.pool(id).scopes.clone();
        if let Some(full) = self.budget.binding(login.as_slice()) {
            return Err(full.clone());
        }
        if let Some(full) = self.full_hosts(id).first() {
            return Err(full.clone());
        }
        self.budget.take(&servers).map_err(Clone::clone)?;
        self.budget.take_unlimited(login.as_slice());
        let slot = self.new_slot(id, now);
        let hosts = Arc::clone(&self.pool(id).hosts);
        let _ = hosts.iter().any(|host| self.choose_host(slot, host));
        Ok(slot)
    }

    pub(crate) fn new_slot(&mut self, id: PoolId, now: Instant) -> SlotId {
        let pool = self.pool_mut(id);
        pool.count_service(now);
        pool.counts.add(SlotState::Opening);
        pool.last_used = now;
        let PoolScopes { servers, login } = pool.scopes.clone();
        self.slots.insert(id, servers, login, now)
    }

    /// The host of a slot has been chosen among several: the slot counts in its limit from now on.
    /// `false` if that is full.
    pub fn choose_host(&mut self, id: SlotId, host: &Scope) -> bool {
        let scopes = std::slice::from_ref(host);
        let Some(slot) = self.slots.get_mut(id) else {
            return false;
        };
        if slot.host.as_ref() == Some(host) {
            return true;
        }
        let taken = self.budget.take(scopes).is_ok();
        if taken {
            let kept = slot.host.replace(host.clone());
            self.budget.give_back(kept.as_slice());
        }
        taken
    }

    /// Every host of a slot's pool was full, and none was asked: the slot comes back, and the pool waits for a
    /// permit of one of them as for any other.
    pub fn no_host(
        &mut self,
        slot: SlotId,
        hosts: Arc<[Scope]>,
        failure: Failure,
        now: Instant,
    ) -> Actions<S, W> {
        let mut actions = Actions::default();
        let Some(id) = self.slots.get(slot).map(|slot| slot.pool) else {
            return actions;
        };
        self.pool_mut(id).hosts = hosts;
        match self.end_dedication(slot) {
            Dedication::Nobody | Dedication::Abandoned => {}
            Dedication::To(_, waiter) => actions.refuse_at_once(waiter, Refusal::Login(failure)),
        }
        self.free(slot, now, &mut actions);
        actions
    }

    /// The hosts of a pool, if there are several and none has room.
    pub(crate) fn full_hosts(&self, id: PoolId) -> &[Scope] {
        let hosts = &*self.pool(id).hosts;
        let is_full = |host| self.budget.gauge(host).is_full();
        match hosts.iter().all(is_full) {
            true => hosts,
            false => &[],
        }
    }

    /// The host of a slot was not the right one: the slot does not count there any more, and another
    /// one can be chosen.
    pub fn leave_host(&mut self, id: SlotId, now: Instant) -> Actions<S, W> {
        let mut actions = Actions::default();
        if let Some(host) = self.slots.get_mut(id).and_then(|slot| slot.host.take()) {
            self.budget.give_back(&[host]);
            self.feed_starving(now, &mut actions);
        }
        actions
    }

    /// The login of a slot has come to its end, good or bad.
    pub(crate) fn login_over(&mut self, id: SlotId) {
        let login = self.slots.get_mut(id).and_then(|slot| slot.login.take());
        self.budget.give_back(login.as_slice());
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
