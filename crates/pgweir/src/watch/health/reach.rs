//! Whether PostgreSQL can be reached at all, where nobody has a server of it: a connection is opened from
//! time to time, and closed without a word. PostgreSQL logs nothing of that, unless it logs every
//! connection, and it takes none of `max_connections`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_config::{Config, Database};
use pgweir_pool::Failure;
use pgweir_pool::view::PoolView;

use crate::servers::open;
use crate::shared::{Shared, lock};

/// How soon one that was not reached is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of one PostgreSQL, or of several that are hosts of one database.
#[derive(Debug, Default)]
struct Known {
    is_asking: bool,
    asked_at: Option<Instant>,
    /// Why it was not reached, and since when that is so.
    unreached: Option<(Failure, Instant)>,
}

/// By the names of the hosts, as their limits are.
#[derive(Debug, Default)]
pub(super) struct Reach {
    known: BTreeMap<String, Known>,
}

impl Reach {
    /// Why a database was not reached when it was last tried, and since when.
    pub(super) fn unreached(&self, config: &Config, name: &str) -> Option<(Failure, Instant)> {
        let database = config.database(name)?;
        let known = self.known.get(&destination(config, &database))?;
        known.unreached.clone()
    }
}

fn destination(config: &Config, database: &Database) -> String {
    database
        .host_names(&config.global.unix_socket_dir)
        .join(",")
}

/// Asks where nobody has a server and nothing was heard for a while.
pub(super) fn look(
    shared: &Arc<Shared>,
    config: &Arc<Config>,
    pools: &BTreeMap<Arc<str>, Vec<PoolView>>,
    now: Instant,
) {
    let destinations = destinations(config, pools);
    let mut reach = lock(&shared.health.reach);
    reach
        .known
        .retain(|name, _| destinations.contains_key(name));
    let seldom = config.global.server_login_retry.duration().max(AGAIN);
    for (name, database) in destinations {
        let Some(database) = database else {
            reach.known.remove(&name);
            continue;
        };
        let known = reach.known.entry(name.clone()).or_default();
        let pause = known.unreached.as_ref().map_or(seldom, |_| AGAIN);
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < pause;
        if !known.is_asking && !known.asked_at.is_some_and(is_fresh) {
            known.is_asking = true;
            tokio::spawn(ask(Arc::clone(shared), Arc::clone(config), name, database));
        }
    }
}

/// Where databases are, each with one of them; with none where somebody has a server, so that nothing
/// need be asked.
fn destinations(
    config: &Config,
    pools: &BTreeMap<Arc<str>, Vec<PoolView>>,
) -> BTreeMap<String, Option<Database>> {
    let mut destinations = BTreeMap::new();
    let names = config.databases.keys().map(String::as_str);
    for name in names.chain(pools.keys().map(|name| &**name)) {
        let Some(database) = config.database(name) else {
            continue;
        };
        let of_database = pools.get(name).map_or(&[][..], Vec::as_slice);
        let is_served = of_database.iter().any(|pool| pool.connected() > 0);
        let place = destinations.entry(destination(config, &database));
        let place = place.or_insert_with(|| Some(database.into_owned()));
        if is_served {
            *place = None;
        }
    }
    destinations
}

async fn ask(shared: Arc<Shared>, config: Arc<Config>, name: String, database: Database) {
    let reached = open::reach(&shared, &config, &database).await;
    let now = Instant::now();
    let mut reach = lock(&shared.health.reach);
    let Some(known) = reach.known.get_mut(&name) else {
        return;
    };
    known.is_asking = false;
    known.asked_at = Some(now);
    known.unreached = match (reached, known.unreached.take()) {
        (Ok(()), _) => None,
        (Err(failure), Some((_, since))) => Some((failure, since)),
        (Err(failure), None) => Some((failure, now)),
    };
}
