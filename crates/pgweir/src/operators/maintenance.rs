//! MAINTENANCE: no new transactions of a database begin. Their clients wait for a while, or are
//! refused with the operator's words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_console::MaintenanceMode;
use pgweir_pool::Gate;

use crate::servers::pools;
use crate::shared::{Hold, Operator, Shared, lock};

/// What was ordered for one database.
#[derive(Clone, Debug)]
pub(crate) struct Maintenance {
    pub(crate) mode: MaintenanceMode,
    pub(crate) message: Arc<str>,
    /// Who ordered it.
    pub(crate) by: String,
    pub(crate) since: Instant,
    /// When it ends by itself.
    pub(crate) until: Option<Instant>,
}

impl Operator {
    /// Whether the pools of a database give servers out, all orders considered.
    pub(crate) fn gate(&self, database: &str) -> Gate {
        if self.hold() == Hold::Suspended {
            return Gate::Held;
        }
        let mode = match lock(&self.maintenance).get(database) {
            Some(ordered) if ordered.mode == MaintenanceMode::Reject => {
                return Gate::Closed(Arc::clone(&ordered.message));
            }
            ordered => ordered.map(|ordered| ordered.mode),
        };
        match mode.is_some() || self.is_paused(database) {
            true => Gate::Paused,
            false => Gate::Open,
        }
    }

    /// What a login to a database is refused with by an order, if it is.
    pub(crate) fn refusal_of_logins(&self, database: &str) -> Option<Arc<str>> {
        if lock(&self.draining).contains_key(database) {
            return Some(format!("database \"{database}\" is being drained").into());
        }
        match self.gate(database) {
            Gate::Closed(message) => Some(message),
            Gate::Open | Gate::Paused | Gate::Held => None,
        }
    }

    /// Why clients of a database are kept waiting: the operator's words, or that it is so.
    pub(crate) fn reason_for_hold(&self, database: &str) -> String {
        let maintenance = lock(&self.maintenance);
        maintenance.get(database).map_or_else(
            || format!("database \"{database}\" is paused"),
            |ordered| ordered.message.to_string(),
        )
    }
}

/// Begins, or goes on in another way.
pub(crate) fn begin(
    shared: &Arc<Shared>,
    database: &str,
    mode: MaintenanceMode,
    message: Option<&str>,
    ttl: Option<Duration>,
    by: String,
) {
    let now = Instant::now();
    let of_its_own = || format!("database \"{database}\" is under maintenance");
    let message = message.map_or_else(of_its_own, str::to_owned);
    let limit = ttl.map_or(String::new(), |ttl| format!(" for {} s", ttl.as_secs()));
    tracing::info!(
        "MAINTENANCE ON '{database}' by {by}: mode {}{limit}, message \"{message}\"",
        mode.word()
    );
    let ordered = Maintenance {
        mode,
        message: message.into(),
        by,
        since: now,
        until: ttl.map(|ttl| now + ttl),
    };
    lock(&shared.operator.maintenance).insert(database.to_owned(), ordered);
    apply(shared, database);
}

/// Ends. `false` if there was none.
pub(crate) fn end(shared: &Arc<Shared>, database: &str) -> bool {
    let was_on = lock(&shared.operator.maintenance)
        .remove(database)
        .is_some();
    apply(shared, database);
    was_on
}

/// Ends what has lasted as long as it was to.
pub(crate) fn expire(shared: &Arc<Shared>, now: Instant) {
    let over: Vec<_> = {
        let maintenance = lock(&shared.operator.maintenance);
        let over = maintenance
            .iter()
            .filter(|(_, ordered)| ordered.until.is_some_and(|until| until <= now));
        over.map(|(database, _)| database.clone()).collect()
    };
    for database in over {
        tracing::info!("maintenance of '{database}' is over: its TTL has passed");
        end(shared, &database);
    }
}

fn apply(shared: &Arc<Shared>, database: &str) {
    // Worked out under the lock: another order may come meanwhile, whose gate would be lost.
    let gate = |name: &str| (name == database).then(|| shared.operator.gate(name));
    let actions = shared.pools().set_gates(gate, Instant::now());
    pools::perform(shared, actions);
}
