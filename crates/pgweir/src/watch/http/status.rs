//! Health and status, in JSON.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use pgweir_config::CONSOLE_DATABASE;
use pgweir_pool::PoolName;
use pgweir_pool::leak::Stage;
use serde_json::{Map, Value, json};

use crate::operators::show;
use crate::shared::{PoolHome, Shared, lock};
use crate::watch::health::{self, Database, State};
use crate::watch::leaks;

/// Databases, limits and clients that are listed; there may be any number of them.
const LISTED_MAX: usize = 200;

/// Applications that are listed.
const APPLICATIONS_MAX: usize = 20;

/// Kinds of errors that are listed.
const ERRORS_MAX: usize = 20;

/// What of the past is shown: a quarter of an hour.
const HISTORY_PARTS: u32 = 60;
const HISTORY_PART_SECONDS: u64 = 15;

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
        "applications": applications(shared),
        "errors": errors(shared),
        "history": history(shared, now),
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

/// Who has servers and who waits, by application.
fn applications(shared: &Shared) -> Vec<Value> {
    let mut rows = show::consumers::apps(shared);
    rows.retain(|row| row.clients > 0);
    rows.sort_by_key(|row| Reverse((row.servers, row.waiting, row.clients)));
    let rows = rows.iter().take(APPLICATIONS_MAX);
    let row = |row: &pgweir_console::tables::AppRow| {
        json!({
            "application_name": &*row.application_name,
            "clients": row.clients,
            "servers": row.servers,
            "waiting": row.waiting,
            "peak_servers": row.peak_servers,
        })
    };
    rows.map(row).collect()
}

/// What clients were told, and why servers could not be opened; what happened most first.
fn errors(shared: &Shared) -> Vec<Value> {
    let events = lock(&shared.events).clone();
    let error = |side, database: &str, code: &[u8], cause: &str, count| {
        let code = String::from_utf8_lossy(code);
        let row = json!({
            "side": side,
            "database": database,
            "sqlstate": code,
            "cause": cause,
            "count": count,
        });
        (count, row)
    };
    let of_clients = events.client_errors.iter();
    let of_clients = of_clients
        .map(|((database, code, cause), count)| error("client", database, code, cause, count));
    let of_logins = events.login_failures.iter();
    let of_logins = of_logins.map(|((database, code), count)| {
        let code: &[u8] = code.as_ref().map_or(b"", |code| code);
        let cause = match code.is_empty() {
            true => "PostgreSQL was not reached",
            false => "PostgreSQL refused the login",
        };
        error("server", database, code, cause, count)
    });
    let mut rows: Vec<(u64, Value)> = of_clients.chain(of_logins).collect();
    rows.sort_by_key(|(count, _)| Reverse(*count));
    let rows = rows.into_iter().take(ERRORS_MAX);
    rows.map(|(_, row)| row).collect()
}

/// The last quarter of an hour in parts of it, the oldest first: the worst second of each.
fn history(shared: &Shared, now: Instant) -> Value {
    let parts = HISTORY_PARTS as usize;
    let mut waiting = vec![0_u32; parts];
    let mut longest_ms = vec![0_u64; parts];
    let mut busy = vec![0_u32; parts];
    // One second, over all databases.
    let mut second: Option<(Instant, u32, u32)> = None;
    let part_of = |at: Instant| {
        let age = now.saturating_duration_since(at).as_secs() / HISTORY_PART_SECONDS;
        let age = usize::try_from(age).unwrap_or(parts);
        parts.saturating_sub(1 + age)
    };
    for (at, sample) in lock(&shared.samples).all() {
        let part = part_of(at);
        let (before, waited, worked) = second.unwrap_or((at, 0, 0));
        let (waited, worked) = match before == at {
            true => (waited + sample.waiting, worked + sample.busy),
            false => (sample.waiting, sample.busy),
        };
        second = Some((at, waited, worked));
        let oldest = u64::try_from(sample.oldest_wait.as_millis()).unwrap_or(u64::MAX);
        waiting[part] = waiting[part].max(waited);
        busy[part] = busy[part].max(worked);
        longest_ms[part] = longest_ms[part].max(oldest);
    }
    json!({
        "part_s": HISTORY_PART_SECONDS,
        "waiting": waiting,
        "longest_wait_ms": longest_ms,
        "busy": busy,
    })
}

fn text(page: &Value) -> String {
    format!("{page:#}\n")
}
