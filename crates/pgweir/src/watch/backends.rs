//! Whose PostgreSQL's connections are: the books and `pg_stat_activity` side by side.
//!
//! Asked when SHOW BACKENDS is, and every `reconcile_period` by the pooler itself, on a server that nobody uses; on a
//! connection of the pooler's own where there is none, for the pooler itself only with `reconcile_control`.

mod compare;
mod rows;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_console::tables::BackendRow;
use pgweir_pool::SlotState;

use self::compare::{Answer, Books, Findings};
use crate::servers::control;
use crate::servers::server::ServerInfo;
use crate::settings::limits;
use crate::shared::{PoolHome, Shared, lock};

/// Servers that are counted no more and still remembered.
const GONE_MAX: usize = 1000;

/// What the pooler knows of all PostgreSQLs, besides its servers.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    gone: VecDeque<Gone>,
    /// What the last look has found, by host.
    pub(crate) found: BTreeMap<Arc<str>, Counts>,
    /// Ghosts and orphans that the log has named.
    told: HashSet<(Arc<str>, i32)>,
    asked_at: Option<Instant>,
    is_asking: bool,
}

/// How many there are, when it was asked last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) own: i64,
    pub(crate) ghosts: i64,
    pub(crate) orphans: i64,
    pub(crate) unclaimed: i64,
    pub(crate) foreign: i64,
}

#[derive(Debug)]
struct Gone {
    host: Arc<str>,
    process_id: i32,
    at: Instant,
}

/// A server is counted no more.
pub(crate) fn note_gone(shared: &Shared, info: &ServerInfo) {
    let hosts = limits::hosts(&info.home.rules());
    let (Some(host), process_id @ 1..) = (hosts.into_iter().next(), info.process_id()) else {
        return;
    };
    let mut backends = lock(&shared.backends);
    if backends.gone.len() >= GONE_MAX {
        backends.gone.pop_front();
    }
    backends.gone.push_back(Gone {
        host,
        process_id,
        at: Instant::now(),
    });
}

/// Whether a backend was a server of ours and is counted no more. It has been doing what it does for `age`, so it is
/// not somebody else with an old number.
pub(crate) fn was_ours(shared: &Shared, process_id: i32, age: Duration) -> bool {
    let backends = lock(&shared.backends);
    let mut gone = backends.gone.iter();
    gone.any(|gone| gone.process_id == process_id && gone.at.elapsed() < age)
}

/// SHOW BACKENDS.
pub(crate) async fn show(shared: &Arc<Shared>) -> Vec<BackendRow> {
    let mut rows = Vec::new();
    for (host, home) in hosts(shared) {
        match look(shared, &host, &home, MayOpen::Yes).await {
            Ok((answer, findings)) => {
                note(shared, &host, &findings);
                rows.extend(rows::of_host(shared, &host, &answer, &findings));
            }
            Err(why) => rows.push(rows::unknown(&host, &why)),
        }
    }
    rows.extend(several_hosts(shared));
    rows
}

/// Looks by itself, if it is time to.
pub(crate) fn refresh(shared: &Arc<Shared>, now: Instant) {
    let config = shared.config();
    let Some(period) = config.global.reconcile_period.limit() else {
        return;
    };
    let mut backends = lock(&shared.backends);
    let age = |at: Instant| now.saturating_duration_since(at);
    // At the start there is nothing yet that could disagree.
    let is_due = age(backends.asked_at.unwrap_or(shared.started_at)) >= period;
    if backends.is_asking || !is_due {
        return;
    }
    (backends.is_asking, backends.asked_at) = (true, Some(now));
    drop(backends);
    let may_open = match config.global.reconcile_control {
        true => MayOpen::Yes,
        false => MayOpen::No,
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        for (host, home) in hosts(&shared) {
            if books(&shared, &host).open.is_empty() {
                continue;
            }
            match look(&shared, &host, &home, may_open).await {
                Ok((_, findings)) => note(&shared, &host, &findings),
                Err(why) => tracing::debug!("{host} was not asked for its backends: {why}"),
            }
        }
        lock(&shared.backends).is_asking = false;
    });
}

/// Whether a connection may be opened where no server is idle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum MayOpen {
    Yes,
    No,
}

/// PostgreSQLs that have pools, each with one of them. A pool with several hosts is at none.
fn hosts(shared: &Shared) -> BTreeMap<Arc<str>, Arc<PoolHome>> {
    let homes = shared.homes().into_values();
    let known = homes.filter_map(|home| Some((only_host(&home)?, home)));
    known.collect()
}

fn only_host(home: &PoolHome) -> Option<Arc<str>> {
    match &*limits::hosts(&home.rules()) {
        [host] => Some(Arc::clone(host)),
        _ => None,
    }
}

fn several_hosts(shared: &Shared) -> Option<BackendRow> {
    let homes = shared.homes().into_values();
    let names: HashSet<_> = homes
        .filter(|home| only_host(home).is_none())
        .map(|home| home.name.database.to_string())
        .collect();
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_unstable();
    let why = "several hosts are configured, and which of them a server is on is not followed";
    (!names.is_empty()).then(|| rows::unknown(&names.join(", "), why))
}

/// What the books say of a host now.
fn books(shared: &Shared, host: &Arc<str>) -> Books {
    let states: HashMap<u64, SlotState> = {
        let pools = shared.pools();
        let slots = pools.slots();
        slots.map(|slot| (slot.id.serial(), slot.state)).collect()
    };
    let mut books = Books::default();
    for server in &shared.servers {
        let state = states.get(server.key());
        if only_host(&server.home).as_ref() != Some(host) || server.process_id() == 0 {
            continue;
        }
        if state.is_some_and(|state| state.is_open()) {
            books.open.insert(server.process_id(), *server.key());
        } else {
            books.closing.insert(server.process_id());
        }
    }
    for home in shared.homes().into_values() {
        if only_host(&home).as_ref() == Some(host) {
            let database = home.rules().database.dbname().to_owned();
            books.logins.insert((database, home.name.user.to_string()));
        }
    }
    let backends = lock(&shared.backends);
    let gone = backends.gone.iter().filter(|gone| gone.host == *host);
    books.gone = gone
        .map(|gone| (gone.process_id, gone.at.elapsed()))
        .collect();
    books
}

async fn look(
    shared: &Arc<Shared>,
    host: &Arc<str>,
    home: &PoolHome,
    may_open: MayOpen,
) -> Result<(Answer, Findings), String> {
    let before = books(shared, host);
    let question = compare::question(&before.ours());
    let idle = control::ask_idle(shared, home, &question).await;
    let row = match (idle, may_open) {
        (Some(Ok(row)), _) => row,
        (Some(Err(why)), MayOpen::No) => return Err(why),
        (None, MayOpen::No) => return Err("no server is idle".to_owned()),
        // The server that was asked may be one that PostgreSQL does not have.
        (_, MayOpen::Yes) => {
            let (opened, _) = control::open(shared, home).await;
            let mut control = opened?;
            let row = control.row(&question).await?;
            let answer = compare::read(&row)?;
            let findings = compare::compare(&before, &answer, &books(shared, host));
            return Ok((answer, findings));
        }
    };
    let answer = compare::read(&row)?;
    let findings = compare::compare(&before, &answer, &books(shared, host));
    Ok((answer, findings))
}

/// Keeps the counts, and names in the log what was not there before.
fn note(shared: &Shared, host: &Arc<str>, findings: &Findings) {
    let count = |backends: &[compare::Backend]| backends.iter().map(|backend| backend.count).sum();
    let counts = Counts {
        own: findings.own,
        ghosts: findings.ghosts.len() as i64,
        orphans: count(&findings.orphans),
        unclaimed: count(&findings.unclaimed),
        foreign: count(&findings.foreign),
    };
    let mut backends = lock(&shared.backends);
    backends.found.insert(Arc::clone(host), counts);
    let ghosts = findings.ghosts.iter().copied();
    let orphans = findings.orphans.iter().map(|orphan| orphan.pid);
    let present: HashSet<i32> = ghosts.chain(orphans).collect();
    backends
        .told
        .retain(|(at, pid)| at != host || present.contains(pid));
    let news: HashSet<i32> = present
        .into_iter()
        .filter(|pid| backends.told.insert((Arc::clone(host), *pid)))
        .collect();
    drop(backends);
    for pid in findings.ghosts.iter().filter(|pid| news.contains(pid)) {
        tracing::warn!(
            "{host} has no backend {pid}, which is a server here: its connection is dead and not closed"
        );
    }
    for orphan in findings.orphans.iter().filter(|o| news.contains(&o.pid)) {
        let age = orphan.age.map_or(0, |age| age.as_secs());
        tracing::warn!(
            "{host} still has backend {}, {} ({age} s old), which was a server here and is counted no more",
            orphan.pid,
            orphan.state
        );
    }
}
