//! Between clients and the pool: asks it, and carries out what it decides.

use std::sync::Arc;
use std::time::Instant;

use pgweir_pool::{Action, Actions, CloseReason, SlotId};

use crate::client::{Client, Lease, Mail};
use crate::server::Server;
use crate::shared::Shared;
use crate::{close, open};

/// Carries out what the pool has decided. Never called while the pools are locked.
pub(crate) fn perform(shared: &Arc<Shared>, actions: Actions<Box<Server>, Arc<Client>>) {
    for action in actions {
        match action {
            Action::Open { pool, slot } => open::spawn(shared, pool, slot),
            Action::Serve { waiter, slot, server, stale } => {
                waiter.deliver(Mail::Lease(Lease { slot, server, stale }));
            }
            Action::Greet { waiter } => waiter.deliver(Mail::Greet),
            Action::Refuse { waiter, refusal } => waiter.deliver(Mail::Refused(refusal)),
            Action::Close { slot, server, reason } => {
                close::spawn(shared, slot, server, close_text(reason), close::Busy::No);
            }
            Action::TakingReserve { waiter } => {
                tracing::warn!(peer = %waiter, "taking connection from reserve_pool");
            }
        }
    }
}

/// Gives a server back that is ready for the next client.
pub(crate) fn checkin(shared: &Arc<Shared>, slot: SlotId, server: Box<Server>, now: Instant) {
    {
        let mut loan = crate::shared::lock(&server.info.loan);
        loan.client = None;
        loan.requested_at = now;
        loan.prepared = server.relay.statement_count();
    }
    let actions = shared.pools().checkin(slot, server, now);
    perform(shared, actions);
}

fn close_text(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Obsolete => "database configuration changed",
        CloseReason::Lifetime => "server lifetime over",
        CloseReason::IdleTimeout => "server idle timeout",
        CloseReason::Evicted => "evicted",
        CloseReason::Surplus => "too many servers in the pool",
        CloseReason::Paused => "pause mode",
        CloseReason::Removed => "database removed",
    }
}
