//! Who uses how much: everybody is counted when the janitor comes round.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pgweir_session::Phase;
use pgweir_stats::usage::{Headcount, Usage};

use crate::client::{Client, State};
use crate::farewell::Farewell;
use crate::shared::{Shared, lock};

/// Who is charged: clients that an operator would call the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Consumer {
    pub(crate) user: Arc<str>,
    pub(crate) app: Arc<str>,
    /// `None` on a Unix socket.
    pub(crate) address: Option<IpAddr>,
}

/// All of them.
pub(crate) type All = Usage<Consumer>;

/// Counts everybody.
pub(crate) fn look(shared: &Shared, now: Instant) {
    let mut headcounts: HashMap<Consumer, Headcount> = HashMap::new();
    for client in &shared.clients {
        let state = client.state().clone();
        if state.clocks.phase == Phase::Login || client.is_console.load(Ordering::Relaxed) {
            continue;
        }
        let Some(consumer) = consumer(&client, &state) else {
            continue;
        };
        let headcount = headcounts.entry(consumer).or_default();
        headcount.clients += 1;
        headcount.holding += u32::from(state.link.is_some());
        headcount.waiting += u32::from(state.clocks.phase == Phase::Waiting);
    }
    lock(&shared.consumers).look(now, headcounts);
}

fn consumer(client: &Client, state: &State) -> Option<Consumer> {
    Some(Consumer {
        user: Arc::clone(&client.identity.get()?.user),
        app: Arc::clone(&state.application_name),
        address: client.address.ip(),
    })
}

/// A client that waits for a server ends; what it says of the client's patience if it went by itself.
pub(crate) fn note_gone(shared: &Shared, client: &Client, farewell: &Farewell) {
    if !matches!(farewell, Farewell::ClientGone | Farewell::ClientClosed) {
        return;
    }
    let state = client.state().clone();
    let waited = Instant::now().saturating_duration_since(state.clocks.since);
    if let Some(consumer) = consumer(client, &state) {
        lock(&shared.consumers).gave_up(&consumer, waited);
    }
}
