//! The ways in which the process ends.

use std::sync::Arc;
use std::time::Instant;

use crate::operators::{admin, drain};
use crate::process::notify;
use crate::servers::pools;
use crate::shared::{Hold, Shared, Shutdown};

/// Begins to end in the given way. Once under way it can only become more urgent.
pub(crate) fn begin(shared: &Arc<Shared>, shutdown: Shutdown) {
    if shared.operator.shutdown() != Shutdown::No {
        shared.operator.set_shutdown(Shutdown::Now);
        return;
    }
    let is_suspended = shared.operator.hold() == Hold::Suspended;
    // What has been handed over lives on in another process, which has told systemd of itself.
    if !is_suspended {
        notify::stopping(shutdown);
    }
    let within = shared.config().global.shutdown_drain_timeout.limit();
    if shutdown == Shutdown::WaitForClients
        && !is_suspended
        && let Some(within) = within
    {
        shared.operator.set_shutdown(Shutdown::Drain);
        tokio::spawn(drain::shut_down(Arc::clone(shared), within));
        return;
    }
    shared.operator.set_shutdown(shutdown);
    if is_suspended && shutdown != Shutdown::Now {
        // Nobody leaves who is held.
        admin::resume_all(shared);
    }
    if shutdown == Shutdown::WaitForServers {
        // As PAUSE: servers that come back are closed, and nobody new gets one. The janitor sends away who waits.
        shared.operator.set_hold(Hold::Paused);
        let actions = shared.pools().pause(|_| true, Instant::now());
        pools::perform(shared, actions);
    }
}
