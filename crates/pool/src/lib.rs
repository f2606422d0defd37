//! The pool manager as a value: which client gets which server, and when one is opened or closed.
//!
//! [`Pools`] holds every pool and the [`budget`] they share. It knows no sockets, no tasks and no
//! clock: a server is an opaque `S`, a waiting client an opaque `W`, and every method that depends
//! on time takes `now`. What has to be done outside is returned as [`Action`]s.
//!
//! Invariants (checked by [`Pools::audit`]):
//! - Every TCP connection to PostgreSQL has exactly one slot, from before it is opened until
//!   PostgreSQL has closed it. A slot is the permit: the limits count slots and nothing else.
//! - A slot is in exactly one state, and every count shown anywhere is a count of slots.
//! - Nobody waits in a pool that has an idle server, unless the pool is paused.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod action;
mod audit;
pub mod budget;
mod cause;
mod dedicated;
mod demand;
mod gate;
mod gauge;
pub mod growth;
mod inherit;
pub mod leak;
mod lease;
mod line;
mod lines;
mod maintain;
mod outcome;
mod pool;
mod pools;
mod queue;
mod scope;
mod share;
mod slot;
mod standing;
mod threads;
pub mod view;

#[cfg(test)]
mod tests;

pub use action::{Action, Actions, CloseReason};
pub use audit::Imbalance;
pub use budget::{Budget, GaugeId};
pub use cause::Cause;
pub use demand::{Failure, FailureKind, Refusal};
pub use gate::Gate;
pub use gauge::Gauge;
pub use inherit::{Inherited, Past};
pub use lease::Lease;
pub use maintain::Upkeep;
pub use pool::{Party, PoolLimits, PoolName, PoolScopes, Ticket};
pub use pools::{Checkout, Greeting, PoolId, Pools};
pub use scope::{Kind, Scope};
pub use slot::{SlotId, SlotState};
pub use standing::{Bound, Crowd, Crowded, Standing};
pub use threads::Threads;
