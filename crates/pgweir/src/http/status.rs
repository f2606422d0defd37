//! Health and status, in JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pgweir_config::CONSOLE_DATABASE;
use pgweir_pool::PoolName;
use pgweir_pool::leak::Stage;
use serde_json::{Map, Value, json};

use crate::health::{self, Database, State};
use crate::shared::{PoolHome, Shared, lock};
use crate::{leaks, show};

/// Databases, limits and clients that are listed; there may be any number of them.
const LISTED_MAX: usize = 200;

/// `/livez`
pub(super) fn alive(shared: &Shared) -> (bool, String) {
    let alive = health::is_alive(shared, Instant::now());
    (alive, text(&json!({ "alive": alive })))
}

/// `/readyz`
pub(super) fn ready(shared: &Shared) -> (bool, String) {
    let databases = health::databases(shared, Instant::now());
    let ready = health::is_ready(shared, &databases);
    let state = State::now(shared);
    let mut why: Vec<String> = match state {
        State::Active | State::Paused => Vec::new(),
        State::Suspended | State::ShuttingDown => vec![state.word().to_owned()],
    };
    let broken = databases.iter().filter_map(|database| {
        let why = database.why.as_ref()?;
        Some(format!("{}: {why}", database.name))
    });
    why.extend(broken.take(LISTED_MAX));
    let states: Map<String, Value> = databases
        .iter()
        .take(LISTED_MAX)
        .map(|database| (database.name.to_string(), database_state(database)))
        .collect();
    let page = json!({
        "ready": ready,
        "state": state.word(),
        "policy": shared.config().global.ready_policy.word(),
        "why": why,
        "databases": states,
    });
    (ready, text(&page))
}

/// `/readyz?db=NAME`; `None` if there is no such database.
pub(super) fn database_ready(shared: &Shared, name: &str) -> Option<(bool, String)> {
    if name == CONSOLE_DATABASE {
        return None;
    }
    shared.config().database(name)?;
    let databases = health::databases(shared, Instant::now());
    let known = databases.iter().find(|database| *database.name == *name);
    let why = known.and_then(|database| database.why.clone());
    let open = matches!(State::now(shared), State::Active | State::Paused);
    let ready = open && why.is_none();
    let why = match open {
        true => why,
        false => Some(State::now(shared).word().to_owned()),
    };
    let page = json!({ "ready": ready, "database": name, "why": why });
    Some((ready, text(&page)))
}

fn database_state(database: &Database) -> Value {
    match &database.why {
        None => json!({ "ready": true }),
        Some(why) => json!({ "ready": false, "why": why }),
    }
}

/// `/status.json`
pub(super) fn page(shared: &Shared) -> String {
    let now = Instant::now();
    let databases = health::databases(shared, now);
    let homes = shared.homes();
    let page = json!({
        "product": "pgweir",
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": now.saturating_duration_since(shared.started_at).as_secs(),
        "state": State::now(shared).word(),
        "ready": health::is_ready(shared, &databases),
        "clients": shared.clients.len(),
        "servers": shared.servers.len(),
        "databases": listed(&databases, |database| of_database(&homes, database, now)),
        "limits": listed(&show::budget::rows(shared), limit),
        "leak_suspects": leak_suspects(shared, now),
    });
    text(&page)
}

fn listed<T>(all: &[T], shown: impl Fn(&T) -> Value) -> Vec<Value> {
    all.iter().take(LISTED_MAX).map(shown).collect()
}

fn of_database(
    homes: &BTreeMap<PoolName, Arc<PoolHome>>,
    database: &Database,
    now: Instant,
) -> Value {
    let sum = |count: fn(&pgweir_pool::view::PoolView) -> u32| -> u32 {
        database.pools.iter().map(count).sum()
    };
    let oldest = database
        .pools
        .iter()
        .filter_map(|pool| pool.oldest_wait)
        .min();
    let oldest = oldest.map(|since| now.saturating_duration_since(since).as_secs_f64());
    let pools = listed(&database.pools, |pool| {
        json!({
            "user": &*pool.name.user,
            "clients": pool.clients,
            "waiting": pool.waiting,
            "servers": pool.total(),
            "limit": homes.get(&pool.name).and_then(|home| home.rules().settings.pool_size),
            "busy": pool.leased,
            "idle": pool.idle,
        })
    });
    json!({
        "name": &*database.name,
        "ready": database.why.is_none(),
        "why": database.why,
        "clients": sum(|pool| pool.clients),
        "waiting": sum(|pool| pool.waiting),
        "servers": sum(|pool| pool.total()),
        "busy": sum(|pool| pool.leased),
        "idle": sum(|pool| pool.idle),
        "oldest_waiter_s": oldest,
        "pools": pools,
    })
}

fn limit(row: &pgweir_console::tables::BudgetRow) -> Value {
    json!({
        "limit": row.name,
        "subject": row.subject,
        "source": row.source,
        "used": row.used,
        "max": row.limit,
        "peak": row.peak,
        "waiting": row.waiting,
        "binding": row.binding,
    })
}

/// Who is suspected, without what they have asked: statements may hold secrets.
fn leak_suspects(shared: &Shared, now: Instant) -> Vec<Value> {
    let suspects = lock(&shared.leaks);
    let open = suspects.all().into_iter().filter_map(|suspect| {
        let stage = match suspect.stage {
            Stage::Suspected => "suspected",
            Stage::Confirmed => "confirmed",
            Stage::Resolved(_) => return None,
        };
        let facts = &suspect.facts;
        Some(json!({
            "id": suspect.id,
            "stage": stage,
            "kind": facts.kind.word(),
            "database": &*facts.database,
            "user": &*facts.user,
            "application_name": &*facts.app,
            "address": &*facts.address,
            "server_pid": facts.process_id,
            "silent_s": leaks::millis(suspect.since, now) / 1000,
        }))
    });
    open.take(LISTED_MAX).collect()
}

fn text(page: &Value) -> String {
    format!("{page:#}\n")
}
