//! What a wait for a server is put down to.
//!
//! A wait may have several causes one after the other. They are looked at when it begins and at every
//! [`Pools::tick`], three times per second; what held the client back for the longest stretch counts.

use std::time::{Duration, Instant};

use crate::pool::{Party, Waiting};
use crate::pools::{PoolId, Pools};
use crate::scope::Scope;
use crate::standing::Bound;

/// What a client waits for, as one of a few.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Cause {
    /// A server is on its way.
    Login,
    /// No server is idle, and the pool has as many as it may have.
    PoolSize,
    /// `max_db_connections`
    DatabaseServers,
    /// `max_user_connections`
    UserServers,
    /// `max_host_connections`
    HostServers,
    /// `max_host_logins`
    HostLogins,
    /// `max_app_connections`
    AppServers,
    /// `max_address_connections`
    AddressServers,
    /// The last login failed, and the next attempt comes in a while.
    ServerDown,
    /// An operator has paused the pool.
    Paused,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Login,
        Self::PoolSize,
        Self::DatabaseServers,
        Self::UserServers,
        Self::HostServers,
        Self::HostLogins,
        Self::AppServers,
        Self::AddressServers,
        Self::ServerDown,
        Self::Paused,
    ];

    /// As it is shown: a limit by its key.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::PoolSize => "pool_size",
            Self::DatabaseServers => "max_db_connections",
            Self::UserServers => "max_user_connections",
            Self::HostServers => "max_host_connections",
            Self::HostLogins => "max_host_logins",
            Self::AppServers => "max_app_connections",
            Self::AddressServers => "max_address_connections",
            Self::ServerDown => "server_down",
            Self::Paused => "paused",
        }
    }

    fn of(bound: &Bound) -> Self {
        match bound {
            Bound::PoolSize { .. } => Self::PoolSize,
            Bound::Shared(scope, _) | Bound::Party(scope, _) => Self::of_limit(scope),
            Bound::Failing(_) => Self::ServerDown,
            Bound::Paused => Self::Paused,
            Bound::Login => Self::Login,
        }
    }

    fn of_limit(scope: &Scope) -> Self {
        match scope {
            Scope::DatabaseServers(_) => Self::DatabaseServers,
            Scope::UserServers(_) => Self::UserServers,
            Scope::HostServers(_) => Self::HostServers,
            Scope::HostLogins(_) => Self::HostLogins,
            Scope::AppServers(_) => Self::AppServers,
            Scope::AddressServers(_) => Self::AddressServers,
            Scope::Clients
            | Scope::DatabaseClients(_)
            | Scope::UserClients(_)
            | Scope::AppClients(_)
            | Scope::AddressClients(_)
            | Scope::Logins
            | Scope::Waiting
            | Scope::Cancels => {
                debug_assert!(false, "{scope} does not keep a client waiting for a server");
                Self::PoolSize
            }
        }
    }

    /// For a client before which so many wait, itself counted: a login that is under way serves
    /// somebody before a limit is asked again.
    fn at(self, place: u32, opening: u32) -> Self {
        match self {
            Self::ServerDown | Self::Paused | Self::AppServers | Self::AddressServers => self,
            _ if place <= opening => Self::Login,
            _ => self,
        }
    }
}

/// The causes that one wait has had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretches {
    cause: Cause,
    since: Instant,
    /// The longest stretch that is over.
    longest: Option<(Cause, Duration)>,
}

impl Stretches {
    pub(crate) fn new(cause: Cause, now: Instant) -> Self {
        Self {
            cause,
            since: now,
            longest: None,
        }
    }

    fn look(&mut self, cause: Cause, now: Instant) {
        if cause == self.cause {
            return;
        }
        let stretch = now.saturating_duration_since(self.since);
        if self.longest.is_none_or(|(_, longest)| longest < stretch) {
            self.longest = Some((self.cause, stretch));
        }
        (self.cause, self.since) = (cause, now);
    }

    /// What the wait is put down to, if it ends now.
    pub(crate) fn end(&self, now: Instant) -> Cause {
        match self.longest {
            Some((cause, longest)) if longest > now.saturating_duration_since(self.since) => cause,
            Some(_) | None => self.cause,
        }
    }
}

impl<W> Waiting<W> {
    /// What the wait is put down to, if it ends now.
    pub(crate) fn cause(&self, now: Instant) -> Cause {
        self.stretches.end(now)
    }
}

impl<S, W: Clone> Pools<S, W> {
    /// What the client that has just come to the end of the queue begins to wait for.
    pub(crate) fn note_cause(&mut self, id: PoolId, party: Option<&Party>, now: Instant) {
        let here = (self.threads.here)();
        let bound = Cause::of(&self.bound(id, party, now));
        let place = self.pool(id).waiting.len() as u32;
        let cause = bound.at(place, self.pool(id).opening_for_all());
        if let Some(last) = self.pool_mut(id).waiting.last_mut(here) {
            last.stretches = Stretches::new(cause, now);
        }
    }

    /// The same of the client that has just come to wait for the pool's first login.
    pub(crate) fn note_greeting_cause(&mut self, id: PoolId, now: Instant) {
        let cause = Cause::of(&self.bound(id, None, now)).at(1, self.pool(id).opening_for_all());
        if let Some(last) = self.pool_mut(id).greeting.last_mut() {
            last.stretches = Stretches::new(cause, now);
        }
    }

    /// Looks at what everybody in the pool waits for.
    pub(crate) fn look_at_causes(&mut self, id: PoolId, now: Instant) {
        let pool = self.pool(id);
        if pool.waiting.is_empty() && pool.greeting.is_empty() {
            return;
        }
        let common = Cause::of(&self.bound(id, None, now));
        let opening = self.pool(id).opening_for_all();
        let pool = self.pool_mut(id);
        let mut waiting = std::mem::take(&mut pool.waiting);
        let mut greeting = std::mem::take(&mut pool.greeting);
        let mut place = 0;
        for waiting in waiting.in_order_mut() {
            place += 1;
            let held_back = waiting
                .party
                .as_ref()
                .and_then(|party| self.budget.binding(party))
                .filter(|_| common != Cause::Paused);
            let cause = held_back.map_or(common, Cause::of_limit);
            waiting.stretches.look(cause.at(place, opening), now);
        }
        for (_, waiting) in greeting.iter_mut() {
            waiting.stretches.look(common.at(1, opening), now);
        }
        let pool = self.pool_mut(id);
        (pool.waiting, pool.greeting) = (waiting, greeting);
    }
}
