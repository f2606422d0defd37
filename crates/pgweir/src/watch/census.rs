//! Who is there: one client in an operator's words, and who has most of what is scarce, counted over
//! all clients or servers when a refusal has to say it.
//!
//! A storm of refusals must not make one count each, so an answer is kept for a second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgweir_console::ClientState;
use pgweir_console::tables::{ClientToEnd, shown_id};
use pgweir_pool::{Bound, Scope, Standing};
use pgweir_session::Phase;

use crate::clients::client::Client;
use crate::servers::server::ServerInfo;
use crate::settings::limits;
use crate::shared::{Shared, lock};

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(1);

/// Answers that are kept at most.
const ANSWERS_MAX: usize = 256;

/// Somebody's part of something.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Application and address.
    pub(crate) who: String,
    /// How many.
    pub(crate) count: u32,
}

/// Answers of the last second.
#[derive(Debug, Default)]
pub(crate) struct Census(HashMap<String, (Instant, Option<Part>)>);

/// The application and address with most clients in `scope`.
pub(crate) fn largest_client(shared: &Shared, scope: &Scope) -> Option<Part> {
    kept(shared, scope.to_string(), || {
        let id = shared.pools().budget.id(scope);
        let clients = shared.clients.iter();
        let counted =
            clients.filter(|client| client.counted().ids().any(|other| Some(other) == id));
        largest(counted.map(|client| who(&client)))
    })
}

/// The application and address with most servers of those for which a pool's clients wait.
pub(crate) fn largest_holder(shared: &Shared, standing: &Standing) -> Option<Part> {
    let name = &standing.pool;
    let counts = |server: &ServerInfo| match &standing.bound {
        Bound::PoolSize { .. } => server.home.name == *name,
        Bound::Shared(Scope::DatabaseServers(database), _) => {
            server.home.name.database == *database
        }
        Bound::Shared(Scope::UserServers(user), _) => server.home.name.user == *user,
        Bound::Shared(Scope::HostServers(host), _) => {
            limits::hosts(&server.home.rules()).contains(host)
        }
        // Who holds those of a party is in its name, and nobody holds the others.
        Bound::Shared(..) | Bound::Party(..) | Bound::Failing(_) | Bound::Paused | Bound::Login => {
            false
        }
    };
    let key = format!(
        "{}/{} {:?}",
        name.database,
        name.user,
        kind(&standing.bound)
    );
    kept(shared, key, || {
        let holders = shared.clients.iter().filter_map(|client| {
            let slot = client.state().link?;
            let server = shared.servers.get(&slot.serial())?;
            counts(&server).then(|| who(&client))
        });
        largest(holders)
    })
}

fn kind(bound: &Bound) -> String {
    match bound {
        Bound::Shared(scope, _) | Bound::Party(scope, _) => scope.to_string(),
        Bound::PoolSize { .. } => "pool_size".to_owned(),
        Bound::Failing(_) | Bound::Paused | Bound::Login => String::new(),
    }
}

fn kept(shared: &Shared, key: String, count: impl FnOnce() -> Option<Part>) -> Option<Part> {
    let now = Instant::now();
    let is_fresh = |at: &Instant| now.saturating_duration_since(*at) < KEPT;
    if let Some((at, part)) = lock(&shared.census).0.get(&key)
        && is_fresh(at)
    {
        return part.clone();
    }
    let part = count();
    let mut census = lock(&shared.census);
    if census.0.len() >= ANSWERS_MAX {
        census.0.retain(|_, (at, _)| is_fresh(at));
    }
    if census.0.len() < ANSWERS_MAX {
        census.0.insert(key, (now, part.clone()));
    }
    part
}

type Who = (Arc<str>, Option<IpAddr>);

fn who(client: &Client) -> Who {
    (
        Arc::clone(&client.state().application_name),
        client.address.ip(),
    )
}

fn largest(holders: impl Iterator<Item = Who>) -> Option<Part> {
    let mut counts: HashMap<Who, u32> = HashMap::new();
    for who in holders {
        *counts.entry(who).or_default() += 1;
    }
    let ((app, address), count) = counts
        .into_iter()
        .max_by(|(a, m), (b, n)| (m, b).cmp(&(n, a)))?;
    let app = match &*app {
        "" => "a nameless application".to_owned(),
        app => format!("application {app}"),
    };
    let address = address.map_or("a Unix socket".to_owned(), |ip| ip.to_string());
    Some(Part {
        who: format!("{app} at {address}"),
        count,
    })
}

/// A client as operators see it; `None` for consoles and for whoever has not logged in yet.
pub(crate) fn describe(shared: &Shared, client: &Client, now: Instant) -> Option<ClientToEnd> {
    if client.is_console.load(Ordering::Relaxed) {
        return None;
    }
    let identity = client.identity.get()?;
    let state = client.state().clone();
    let doing = match state.clocks.phase {
        Phase::Login => return None,
        Phase::Waiting => ClientState::Waiting,
        Phase::IdleInTransaction => ClientState::IdleInTransaction,
        Phase::Active if state.clocks.query_start.is_some() => ClientState::Active,
        // A session between two transactions keeps its server.
        Phase::Idle | Phase::Active => ClientState::Idle,
    };
    let since = |at: Instant| now.saturating_duration_since(at);
    let lent = state.link.and_then(|slot| shared.pools().slot(slot));
    let held = lent.map(|slot| since(slot.since));
    Some(ClientToEnd {
        id: shown_id(client.id),
        database: Arc::clone(&identity.database),
        user: Arc::clone(&identity.user),
        app: state.application_name,
        address: client.address.to_string(),
        state: doing,
        age: since(client.connected_at),
        idle: since(state.requested_at),
        held,
    })
}
