//! The sums that must hold at every moment.

use std::collections::HashMap;

use thiserror::Error;

use crate::gate::Gate;
use crate::pools::{PoolId, Pools};
use crate::scope::Scope;
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
        let mut of_pools: HashMap<PoolId, StateCounts> = HashMap::new();
        for (_, slot) in self.slots.iter() {
            of_pools.entry(slot.pool).or_default().add(slot.state);
        }
        for (id, pool) in self.iter() {
            let name = || format!("{}/{}", pool.name.database, pool.name.user);
            let counts = of_pools.remove(&id).unwrap_or_default();
            if counts != pool.counts {
                return Err(Imbalance::Counts(name()));
            }
            let idle = counts.of(SlotState::Idle);
            if pool.idle.len() != idle as usize {
                return Err(Imbalance::Idle(name(), pool.idle.len(), idle));
            }
            if idle > 0 && self.servable(id) > 0 && pool.gate == Gate::Open {
                return Err(Imbalance::WaitsBesideIdle(name()));
            }
        }
        self.audit_gauges()
    }

    /// Every gauge that counts slots is the number of slots that count in it.
    fn audit_gauges(&self) -> Result<(), Imbalance> {
        let mut held: HashMap<&Scope, u32> = HashMap::new();
        for (_, slot) in self.slots.iter() {
            let party = slot.party.iter().flat_map(|party| party.iter());
            let scopes = slot.counts_in().chain(&slot.login);
            for scope in scopes.chain(party) {
                *held.entry(scope).or_default() += 1;
            }
        }
        for (_, pool) in self.iter() {
            *held.entry(&Scope::Waiting).or_default() += pool.waiting.len() as u32;
        }
        for (scope, gauge) in self.budget.iter() {
            let counts_here = match scope {
                Scope::HostServers(_)
                | Scope::DatabaseServers(_)
                | Scope::UserServers(_)
                | Scope::AppServers(_)
                | Scope::AddressServers(_)
                | Scope::HostLogins(_)
                | Scope::Waiting => true,
                Scope::Clients
                | Scope::DatabaseClients(_)
                | Scope::UserClients(_)
                | Scope::AppClients(_)
                | Scope::AddressClients(_)
                | Scope::Logins
                | Scope::Cancels => false,
            };
            let held = held.get(scope).copied().unwrap_or(0);
            if counts_here && gauge.used != held {
                return Err(Imbalance::Gauge {
                    scope: scope.to_string(),
                    gauge: gauge.used,
                    held,
                });
            }
        }
        Ok(())
    }
}
