//! What the pools want done outside: servers opened and closed, and answers to those who wait.

use std::iter::Chain;
use std::time::Instant;
use std::{option, vec};

use crate::cause::Cause;
use crate::demand::Refusal;
use crate::lease::Lease;
use crate::pool::Waiting;
use crate::pools::PoolId;
use crate::slot::SlotId;

/// Something to be done outside.
#[derive(Debug)]
pub enum Action<S, W> {
    /// Connect and log in; then [`Pools::opened`](crate::Pools::opened) or
    /// [`Pools::open_failed`](crate::Pools::open_failed).
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
        /// The server.
        lease: Lease<S>,
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
    /// Close the server; then [`Pools::closed`](crate::Pools::closed).
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
