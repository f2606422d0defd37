//! Who uses how much: everybody is counted when the janitor comes round.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use pgweir_pool::growth::Population;
use pgweir_session::Phase;
use pgweir_stats::usage::{Headcount, Usage};

use crate::clients::client::{Client, State};
use crate::clients::farewell::Farewell;
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

/// Counts everybody. Returns how many clients each has, and how many of these have asked for nothing for
/// `leak_after`.
pub(crate) fn look(shared: &Shared, now: Instant) -> HashMap<Consumer, Population> {
    let unused_after = shared.config().global.leak_after.duration();
    let mut unused: HashMap<Consumer, u32> = HashMap::new();
    let mut headcounts: HashMap<Consumer, Headcount> = HashMap::new();
    for client in &shared.clients {
        let state = client.state().clone();
        if state.clocks.phase == Phase::Login || client.is_console.load(Ordering::Relaxed) {
            continue;
        }
        let Some(consumer) = consumer(&client, &state) else {
            continue;
        };
        let idle = now.saturating_duration_since(state.requested_at);
        if state.link.is_none() && state.clocks.phase == Phase::Idle && idle >= unused_after {
            *unused.entry(consumer.clone()).or_default() += 1;
        }
        let headcount = headcounts.entry(consumer).or_default();
        headcount.clients += 1;
        headcount.holding += u32::from(state.link.is_some());
        headcount.waiting += u32::from(state.clocks.phase == Phase::Waiting);
    }
    let populations = headcounts.iter().map(|(consumer, headcount)| {
        let population = Population {
            clients: headcount.clients,
            unused: unused.get(consumer).copied().unwrap_or(0),
        };
        (consumer.clone(), population)
    });
    let populations = populations.collect();
    let applications = by_application(&headcounts);
    let passed = lock(&shared.consumers).look(now, headcounts);
    let mut known = lock(&shared.applications);
    for (name, headcount) in applications {
        let application = known.of(&name, now);
        application.spend(passed, headcount.holding, headcount.waiting);
    }
    populations
}

fn by_application(headcounts: &HashMap<Consumer, Headcount>) -> HashMap<Arc<str>, Headcount> {
    let mut applications: HashMap<Arc<str>, Headcount> = HashMap::new();
    for (consumer, headcount) in headcounts {
        let sum = applications.entry(Arc::clone(&consumer.app)).or_default();
        sum.holding += headcount.holding;
        sum.waiting += headcount.waiting;
    }
    applications
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
