//! Orders that hold the pools, and those that let them go: PAUSE, RESUME, SUSPEND and what a successor asks.

use std::sync::Arc;
use std::time::Instant;

use pgweir_config::CONSOLE_DATABASE;
use pgweir_console::{CommandError, Verb};

use super::{Which, log_command, to_pause, wait_until};
use crate::clients::client::Client;
use crate::servers::pools;
use crate::shared::{Hold, Shared, Shutdown, lock};
use crate::takeover::hold::{self, HoldAt};
use crate::takeover::successor::{Told, give};

pub(super) async fn pause(
    shared: &Arc<Shared>,
    client: &Client,
    database: Option<&str>,
) -> Result<(), CommandError> {
    let which = to_pause(shared, client, database, "PAUSE", Verb::Pause)?;
    match &which {
        Which::All => pause_all(shared),
        Which::One(name) => {
            lock(&shared.operator.paused).insert(name.clone());
            let actions = shared
                .pools()
                .pause(|database| database == name, Instant::now());
            pools::perform(shared, actions);
        }
    }
    wait_until(shared, || {
        let resumed = match &which {
            Which::All => shared.operator.hold() == Hold::None,
            Which::One(name) => !shared.operator.is_paused(name),
        };
        resumed || !shared.pools().is_busy(|name| which.covers(name))
    })
    .await;
    Ok(())
}

/// PAUSE of everything, without waiting for it.
pub(crate) fn pause_all(shared: &Arc<Shared>) {
    shared.operator.set_hold(Hold::Paused);
    let actions = shared.pools().pause(|_| true, Instant::now());
    pools::perform(shared, actions);
}

pub(super) fn resume(
    shared: &Arc<Shared>,
    client: &Client,
    database: Option<&str>,
) -> Result<(), CommandError> {
    log_command(client, "RESUME", database);
    match database {
        None if shared.operator.shutdown() != Shutdown::No => {
            return Err(CommandError::ShuttingDown);
        }
        None if shared.operator.hold() == Hold::None => return Err(CommandError::NotPaused),
        None => resume_all(shared),
        Some(name) => {
            if shared.config().database(name).is_none() && name != CONSOLE_DATABASE {
                return Err(CommandError::NoSuchDatabase(name.to_owned()));
            }
            if !lock(&shared.operator.paused).remove(name) {
                return Err(CommandError::DatabaseNotPaused(name.to_owned()));
            }
            apply_gates(shared, |database| database == name);
        }
    }
    Ok(())
}

/// RESUME of everything; databases that were paused by name stay so.
pub(crate) fn resume_all(shared: &Arc<Shared>) {
    let was_suspended = shared.operator.hold() == Hold::Suspended;
    shared.operator.set_hold(Hold::None);
    if was_suspended {
        hold::release(shared);
    }
    apply_gates(shared, |_| true);
}

/// Opens the pools of these databases, unless another order keeps them shut.
fn apply_gates(shared: &Arc<Shared>, which: impl Fn(&str) -> bool) {
    let gate = |database: &str| which(database).then(|| shared.operator.gate(database));
    let actions = shared.pools().set_gates(gate, Instant::now());
    pools::perform(shared, actions);
}

/// A console's query is canceled: if that is a pause or suspend, it is taken back.
pub(crate) fn cancel(shared: &Arc<Shared>) {
    if shared.operator.hold() != Hold::None && shared.operator.shutdown() == Shutdown::No {
        resume_all(shared);
    }
}

/// Whether everything may be held. Nobody could resume while the process is on its way out, and it would never get there.
pub(super) fn may_hold(shared: &Shared) -> Result<(), CommandError> {
    match (shared.operator.hold(), shared.operator.shutdown()) {
        (Hold::None, Shutdown::No) => Ok(()),
        (Hold::None, _) => Err(CommandError::ShuttingDown),
        (Hold::Paused | Hold::Suspended, _) => Err(CommandError::AlreadyPaused),
    }
}

pub(super) fn may_suspend(shared: &Shared) -> Result<(), CommandError> {
    may_hold(shared)?;
    if !lock(&shared.operator.paused).is_empty() {
        return Err(CommandError::SuspendWithPausedDatabases);
    }
    Ok(())
}

/// A successor asks for everything. It must be our own user: it gets all sockets and secrets.
pub(super) async fn hand_over(shared: &Arc<Shared>, client: &Client) -> Result<(), CommandError> {
    if !client.is_own_user() {
        return Err(CommandError::AdminAccessNeeded);
    }
    may_suspend(shared)?;
    tracing::info!(peer = %client, "HANDOVER command issued");
    shared.standstill.set_successor(client, Told::All);
    hold::everything(shared, HoldAt::Anywhere).await;
    // Somebody may have been faster.
    match give(shared, client) {
        true => Ok(()),
        false => Err(CommandError::NotPaused),
    }
}

/// Whether this console has been given everything, and somebody has resumed since or does so at this moment.
pub(super) fn was_taken_back(shared: &Shared, client: &Client) -> bool {
    let is_held = shared.operator.hold() == Hold::Suspended;
    shared.standstill.was_taken_back(client) || (shared.standstill.is_successor(client) && !is_held)
}
