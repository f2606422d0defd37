//! The sums that must hold at every moment.

use thiserror::Error;

use crate::gate::Gate;
use crate::pools::Pools;
use crate::slot::{SlotState, StateCounts};

/// A sum that does not hold. There is no repairing it: it is a bug of ours.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Imbalance {
    /// A pool's counts are not those of its slots.
    #[error("pool {0}: counts differ from its slots")]
    Counts(String),
    /// A pool's idle list is not its idle slots.
    #[error("pool {0}: {1} idle servers but {2} idle slots")]
    Idle(String, usize, u32),
    /// A shared gauge is not the sum over its pools.
    #[error("{scope}: gauge says {gauge}, the pools hold {held}")]
    Gauge {
        /// Which one.
        scope: String,
        /// What the gauge says.
        gauge: u32,
        /// What the pools hold.
        held: u32,
    },
    /// Somebody waits although a server is idle.
    #[error("pool {0}: a client waits beside an idle server")]
    WaitsBesideIdle(String),
}

impl<S, W: Clone> Pools<S, W> {
    /// Checks the books.
    ///
    /// # Errors
    /// The first sum that does not hold.
    pub fn audit(&self) -> Result<(), Imbalance> {
        for (id, pool) in self.iter() {
            let name = || format!("{}/{}", pool.name.database, pool.name.user);
            let mut counts = StateCounts::default();
            for (_, slot) in self.slots.iter().filter(|(_, slot)| slot.pool == id) {
                counts.add(slot.state);
            }
            if counts != pool.counts {
                return Err(Imbalance::Counts(name()));
            }
            let idle = counts.of(SlotState::Idle);
            if pool.idle.len() != idle as usize {
                return Err(Imbalance::Idle(name(), pool.idle.len(), idle));
            }
            if idle > 0 && !pool.waiting.is_empty() && pool.gate == Gate::Open {
                return Err(Imbalance::WaitsBesideIdle(name()));
            }
            for scope in &pool.scopes {
                let of_scope = self
                    .iter()
                    .filter(|(_, other)| other.scopes.contains(scope));
                let held = of_scope.map(|(_, other)| other.counts.total()).sum();
                let gauge = self.budget.gauge(scope).used;
                if gauge != held {
                    return Err(Imbalance::Gauge {
                        scope: scope.to_string(),
                        gauge,
                        held,
                    });
                }
            }
        }
        Ok(())
    }
}
