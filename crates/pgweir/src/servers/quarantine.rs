//! Servers that did not close in time, and the operator's word that one of them is gone.
//!
//! Whoever closes a server owns its slot until the end of the stream. RELEASE only tells that task
//! to wait no longer, so a slot is freed once.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use pgweir_pool::view::SlotView;
use pgweir_pool::{SlotId, SlotState};
use tokio::sync::Notify;

use crate::shared::{Shared, lock};

/// Whose quarantine is over because somebody said so.
#[derive(Debug, Default)]
pub(crate) struct Quarantine {
    released: Mutex<HashSet<u64>>,
    rung: Notify,
}

/// How long a released slot may take to be free; its task needs one turn.
const TURN: Duration = Duration::from_millis(20);

impl Quarantine {
    /// Resolves when an operator has released this slot.
    pub(crate) async fn release_of(&self, slot: SlotId) {
        loop {
            let rung = self.rung.notified();
            if lock(&self.released).remove(&slot.serial()) {
                return;
            }
            rung.await;
        }
    }

    fn release(&self, slot: SlotId) {
        lock(&self.released).insert(slot.serial());
        self.rung.notify_waiters();
    }
}

/// The quarantined slots, the oldest first.
pub(crate) fn slots(shared: &Shared) -> Vec<SlotView> {
    let slots = shared.pools();
    let quarantined = slots
        .slots()
        .filter(|slot| slot.state == SlotState::Quarantined);
    let mut quarantined: Vec<_> = quarantined.collect();
    quarantined.sort_by_key(|slot| slot.id.serial());
    quarantined
}

/// Counts a quarantined server no more. `false` if there is none of this number.
pub(crate) async fn release(shared: &Shared, id: u64, by: &str) -> bool {
    let find = || {
        slots(shared)
            .into_iter()
            .find(|slot| slot.id.serial() == id)
    };
    let Some(slot) = find() else { return false };
    let server = shared.servers.get(&id).map(|info| info.to_string());
    tracing::warn!(
        "RELEASE {id} by {by}: {} is counted no more, {} s after it should have closed; if its backend is \
         still there, PostgreSQL has one connection more than the limits say",
        server.unwrap_or_else(|| "a server".to_owned()),
        Instant::now()
            .saturating_duration_since(slot.since)
            .as_secs()
    );
    shared.quarantine.release(slot.id);
    while find().is_some() {
        tokio::time::sleep(TURN).await;
    }
    true
}
