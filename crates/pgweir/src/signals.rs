//! Signals, as PgBouncer understands them.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};

use crate::shared::{Shared, Shutdown};
use crate::{admin, reload, shutdown};

/// Obeys signals until the process ends.
///
/// # Errors
/// A handler cannot be installed.
pub(crate) async fn run(shared: Arc<Shared>) -> io::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut user1 = signal(SignalKind::user_defined1())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    loop {
        tokio::select! {
            _ = hangup.recv() => {
                tracing::info!("got SIGHUP, re-reading config");
                // The log has what is wrong; there is nobody to tell.
                let _ = reload::reload(&shared);
            }
            _ = terminate.recv() => {
                stop(&shared, "SIGTERM", Shutdown::WaitForClients, "waiting for client disconnects");
            }
            _ = interrupt.recv() => {
                stop(&shared, "SIGINT", Shutdown::WaitForServers, "waiting for server disconnects");
            }
            _ = quit.recv() => {
                tracing::info!("got SIGQUIT, fast exit");
                shared.operator.set_shutdown(Shutdown::Now);
            }
            _ = user1.recv() => {
                if shared.operator.shutdown() != Shutdown::No {
                    tracing::info!("got SIGUSR1 while shutting down, ignoring");
                } else {
                    tracing::info!("got SIGUSR1, pausing all activity");
                    admin::pause_all(&shared);
                }
            }
            _ = user2.recv() => {
                if shared.operator.shutdown() != Shutdown::No {
                    tracing::info!("got SIGUSR2 while shutting down, ignoring");
                } else {
                    tracing::info!("got SIGUSR2, continuing from PAUSE");
                    admin::resume_all(&shared);
                }
            }
        }
    }
}

fn stop(shared: &Arc<Shared>, name: &str, how: Shutdown, what: &str) {
    if shared.operator.shutdown() == Shutdown::No {
        tracing::info!("got {name}, shutting down, {what}");
    } else {
        tracing::info!("got {name} while shutting down, fast exit");
    }
    shutdown::begin(shared, how);
}
