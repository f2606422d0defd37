//! Signals, as PgBouncer understands them.

use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::operators::admin;
use crate::process::{notify, shutdown};
use crate::settings::reload;
use crate::shared::{Hold, Shared, Shutdown};

/// The signals that are to end nobody.
pub(crate) struct Harmless {
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

/// The signals that no longer end the process by themselves.
pub(crate) struct Signals {
    harmless: Harmless,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

fn install(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("cannot listen for signals: {error}"))
}

impl Harmless {
    /// From here on these are kept until [`Signals::obey`] runs.
    ///
    /// # Errors
    /// Why the process cannot start.
    pub(crate) fn install() -> Result<Self, String> {
        Ok(Self {
            hangup: install(SignalKind::hangup())?,
            user1: install(SignalKind::user_defined1())?,
            user2: install(SignalKind::user_defined2())?,
        })
    }
}

impl Signals {
    /// From here on the others are kept as well: until now they have ended a process that has begun nothing. Whoever is told
    /// that it serves may send one at once.
    ///
    /// # Errors
    /// Why the process cannot start.
    pub(crate) fn install(harmless: Harmless) -> Result<Self, String> {
        Ok(Self {
            harmless,
            terminate: install(SignalKind::terminate())?,
            interrupt: install(SignalKind::interrupt())?,
            quit: install(SignalKind::quit())?,
        })
    }

    /// Obeys signals until the process ends.
    ///
    /// # Errors
    /// Why the process has to end at once.
    pub(crate) async fn obey(mut self, shared: Arc<Shared>) -> Result<(), String> {
        loop {
            tokio::select! {
                _ = self.harmless.hangup.recv() => {
                    tracing::info!("got SIGHUP, re-reading config");
                    notify::reloading();
                    // The log has what is wrong; there is nobody to tell.
                    let _ = reload::reload(&shared);
                    notify::ready();
                }
                _ = self.terminate.recv() => {
                    let what = "waiting for all clients disconnect";
                    stop(&shared, "SIGTERM", Shutdown::WaitForClients, what)?;
                }
                _ = self.interrupt.recv() => {
                    let what = "waiting for all servers connections to be released";
                    stop(&shared, "SIGINT", Shutdown::WaitForServers, what)?;
                }
                _ = self.quit.recv() => {
                    tracing::info!("got SIGQUIT, fast exit");
                    shared.operator.set_shutdown(Shutdown::Now);
                }
                _ = self.harmless.user1.recv() => pause(&shared),
                _ = self.harmless.user2.recv() => resume(&shared),
            }
        }
    }
}

fn stop(shared: &Arc<Shared>, name: &str, how: Shutdown, what: &str) -> Result<(), String> {
    if shared.operator.shutdown() != Shutdown::No {
        tracing::info!("got {name} while shutting down, fast exit");
    } else {
        tracing::info!("got {name}, shutting down, {what}");
        if shared.operator.hold() == Hold::Suspended {
            // Nobody can leave by himself, and another process may have everything already.
            return Err("suspend was in progress, going down immediately".to_owned());
        }
    }
    shutdown::begin(shared, how);
    Ok(())
}

fn pause(shared: &Arc<Shared>) {
    if shared.operator.shutdown() != Shutdown::No {
        // Nobody could resume any more, and clients would never come to their end.
        tracing::info!("got SIGUSR1 while shutting down, ignoring");
    } else if shared.operator.hold() != Hold::None {
        tracing::info!("got SIGUSR1, but already paused/suspended");
    } else {
        tracing::info!("got SIGUSR1, pausing all activity");
        admin::pause_all(shared);
    }
}

fn resume(shared: &Arc<Shared>) {
    if shared.operator.shutdown() != Shutdown::No {
        tracing::info!("got SIGUSR2 while shutting down, ignoring");
        return;
    }
    match shared.operator.hold() {
        Hold::None => tracing::info!("got SIGUSR2, but not paused/suspended"),
        Hold::Paused => {
            tracing::info!("got SIGUSR2, continuing from PAUSE");
            admin::resume_all(shared);
        }
        Hold::Suspended => {
            tracing::info!("got SIGUSR2, continuing from SUSPEND");
            admin::resume_all(shared);
        }
    }
}
