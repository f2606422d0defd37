//! Whether the databases can be served, and if not, why: for logins, for whoever asks over HTTP, and
//! for a look from time to time whether one that was down is there again.

mod reach;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgweir_config::{Config, ErrorCodes, ReadyPolicy};
use pgweir_pool::view::PoolView;
use pgweir_pool::{Failure, FailureKind, Gate, PoolId};

use self::reach::Reach;
use crate::servers::pools;
use crate::shared::{Hold, Shared, Shutdown, lock};
use crate::watch::http;

/// The janitor comes three times per second. If it has not for so long, nothing turns any more.
const STUCK: Duration = Duration::from_secs(10);

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// When that was, in milliseconds since the start.
    looked_ms: AtomicU64,
    /// Databases that have been down so long that clients need not log in to hear of it.
    down: Mutex<BTreeMap<Arc<str>, Failure>>,
    reach: Mutex<Reach>,
}

/// One database.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    pub(crate) name: Arc<str>,
    /// Why its clients are not served; `None` if they are, or wait because an operator wants it.
    pub(crate) why: Option<String>,
    pub(crate) pools: Vec<PoolView>,
}

/// The pooler as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    Active,
    Paused,
    Suspended,
    ShuttingDown,
}

impl State {
    pub(crate) const ALL: [Self; 4] = [
        Self::Active,
        Self::Paused,
        Self::Suspended,
        Self::ShuttingDown,
    ];

    pub(crate) fn now(shared: &Shared) -> Self {
        match (shared.operator.shutdown(), shared.operator.hold()) {
            (Shutdown::No, Hold::None) => Self::Active,
            (Shutdown::No, Hold::Paused) => Self::Paused,
            (Shutdown::No, Hold::Suspended) => Self::Suspended,
            (
                Shutdown::WaitForServers
                | Shutdown::WaitForClients
                | Shutdown::Drain
                | Shutdown::Now,
                _,
            ) => Self::ShuttingDown,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// Whether the process works.
pub(crate) fn is_alive(shared: &Shared, now: Instant) -> bool {
    let looked = Duration::from_millis(shared.health.looked_ms.load(Ordering::Relaxed));
    now.saturating_duration_since(shared.started_at + looked) < STUCK
}

/// Whether new clients should come here.
pub(crate) fn is_ready(shared: &Shared, databases: &[Database]) -> bool {
    let open = match State::now(shared) {
        State::Active | State::Paused => true,
        State::Suspended | State::ShuttingDown => false,
    };
    let mut works = databases.iter().map(|database| database.why.is_none());
    open && match shared.config().global.ready_policy {
        ReadyPolicy::Process => true,
        ReadyPolicy::All => works.all(|works| works),
        ReadyPolicy::Any => databases.is_empty() || works.any(|works| works),
    }
}

/// All databases that are configured or in use, by name.
pub(crate) fn databases(shared: &Shared, now: Instant) -> Vec<Database> {
    let config = shared.config();
    let mut of_database = pools_by_database(shared);
    let mut names: BTreeSet<Arc<str>> = of_database.keys().cloned().collect();
    names.extend(lock(&shared.autodbs).keys().cloned());
    names.extend(config.databases.keys().map(|name| Arc::from(name.as_str())));
    let database = |name: Arc<str>| {
        let pools = of_database.remove(&name).unwrap_or_default();
        Database {
            why: why_not(shared, &name, &pools, now),
            name,
            pools,
        }
    };
    names.into_iter().map(database).collect()
}

fn pools_by_database(shared: &Shared) -> BTreeMap<Arc<str>, Vec<PoolView>> {
    let views = shared.pools().view();
    let mut of_database: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for view in views.into_iter().filter(|view| !view.is_retired) {
        let name = Arc::clone(&view.name.database);
        of_database.entry(name).or_default().push(view);
    }
    of_database
}

fn why_not(shared: &Shared, name: &str, pools: &[PoolView], now: Instant) -> Option<String> {
    if shared.operator.is_disabled(name) {
        return Some("disabled by an operator".to_owned());
    }
    if let Some(message) = shared.operator.refusal_of_logins(name) {
        return Some(message.to_string());
    }
    let (trouble, failure, since) = match failing(pools) {
        Some((_, failure, since)) => ("no server login", failure.clone(), since),
        None if pools.iter().any(|pool| pool.connected() > 0) => return None,
        None => {
            let unreached = lock(&shared.health.reach).unreached(&shared.config(), name);
            let (failure, since) = unreached?;
            ("not reached", failure, since)
        }
    };
    let seconds = now.saturating_duration_since(since).as_secs();
    let code = failure.sqlstate.map_or(String::new(), |code| {
        format!(" ({})", String::from_utf8_lossy(&code))
    });
    let message = failure.message;
    Some(format!("{trouble} for {seconds} s: {message}{code}"))
}

/// What keeps a database from having any server, in which of its pools, and since when. PostgreSQL
/// that is not reached concerns all of them; a refused login may concern one user only.
fn failing(pools: &[PoolView]) -> Option<(PoolId, &Failure, Instant)> {
    if pools.iter().any(|pool| pool.connected() > 0) {
        return None;
    }
    let failing = || {
        pools.iter().filter_map(|pool| {
            let (failure, since) = pool.failing.as_ref()?;
            Some((pool.id, failure, *since))
        })
    };
    let unreached = failing().find(|(_, failure, _)| failure.kind == FailureKind::Connect);
    unreached.or_else(|| {
        let all = failing().count() == pools.len();
        failing().next().filter(|_| all)
    })
}

/// A look at everything, for the janitor.
pub(crate) fn look(shared: &Arc<Shared>, now: Instant) {
    let config = shared.config();
    let since_start = now.saturating_duration_since(shared.started_at).as_millis();
    let since_start = u64::try_from(since_start).unwrap_or(u64::MAX);
    shared
        .health
        .looked_ms
        .store(since_start, Ordering::Relaxed);
    if shared.operator.hold() != Hold::None || !is_watched(&config) {
        return;
    }
    let of_database = pools_by_database(shared);
    for (name, pools) in &of_database {
        if let Some((pool, failure, _)) = failing(pools)
            && is_worth_a_probe(shared, &config, name, pool, failure)
        {
            let actions = shared.pools().probe(pool, now);
            pools::perform(shared, actions);
        }
    }
    reach::look(shared, &config, &of_database, now);
    let down = match down_timeout(&config) {
        Some(timeout) => down(shared, &config, &of_database, now, timeout),
        None => BTreeMap::new(),
    };
    *lock(&shared.health.down) = down;
}

/// Whether there may be such a database: one that PostgreSQL has refused from the first may be a name that a client has
/// made up.
fn is_worth_a_probe(
    shared: &Shared,
    config: &Config,
    name: &str,
    pool: PoolId,
    failure: &Failure,
) -> bool {
    let is_refused = match failure.kind {
        FailureKind::Connect | FailureKind::Own => false,
        FailureKind::Login | FailureKind::Busy => true,
    };
    let has_served = || {
        let home = shared.home_of(pool);
        home.is_some_and(|home| lock(&home.welcome).is_some())
    };
    !is_refused || config.databases.contains_key(name) || has_served()
}

/// Databases whose PostgreSQL has not been reached for so long.
fn down(
    shared: &Shared,
    config: &Config,
    of_database: &BTreeMap<Arc<str>, Vec<PoolView>>,
    now: Instant,
    timeout: Duration,
) -> BTreeMap<Arc<str>, Failure> {
    let reach = lock(&shared.health.reach);
    let configured = config.databases.keys().map(|name| Arc::from(name.as_str()));
    let names: BTreeSet<Arc<str>> = of_database.keys().cloned().chain(configured).collect();
    let failure = |name: &str| {
        let pools = of_database.get(name).map_or(&[][..], Vec::as_slice);
        if let Some((_, failure, since)) = failing(pools) {
            return Some((failure.clone(), since));
        }
        let is_served = pools.iter().any(|pool| pool.connected() > 0);
        reach.unreached(config, name).filter(|_| !is_served)
    };
    let lasts = |since| now.saturating_duration_since(since) >= timeout;
    let down = names.into_iter().filter_map(|name| {
        let (failure, since) = failure(&name)?;
        (failure.kind == FailureKind::Connect && lasts(since)).then_some((name, failure))
    });
    down.collect()
}

/// Whether it matters that a database is down which nobody asks for.
fn is_watched(config: &Config) -> bool {
    let global = &config.global;
    down_timeout(config).is_some()
        || http::is_on(global) && global.ready_policy != ReadyPolicy::Process
}

/// After which time clients are told at once that a database is down; PgBouncer lets them log in.
fn down_timeout(config: &Config) -> Option<Duration> {
    let global = &config.global;
    let timeout = global.server_down_timeout.limit();
    timeout.filter(|_| global.error_codes == ErrorCodes::Postgres)
}

/// Why a login to a database leads nowhere, where that is known before it begins: what `pg_isready`
/// and those who count on its answer want to hear.
pub(crate) fn refusal(shared: &Shared, database: &str) -> Option<Failure> {
    let failure = lock(&shared.health.down).get(database).cloned()?;
    // Whoever waits for an operator is not told of anything else.
    (shared.operator.gate(database) == Gate::Open).then_some(failure)
}
