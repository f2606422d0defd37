//! DIAGNOSE: how far a connection to PostgreSQL comes, step by step, and what PostgreSQL says of itself
//! when it is reached.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_console::CommandError;
use pgweir_console::tables::DiagnosisRow;
use pgweir_pool::Bound;
use serde_json::Value;

use crate::clients::farewell::detail;
use crate::servers::control;
use crate::servers::open::diary::{Diary, Entry};
use crate::servers::open::secret;
use crate::shared::{PoolHome, Rules, Shared, lock};

/// Strangers that are named.
const STRANGERS_MAX: usize = 8;

/// A failure that is older says little.
const FAILURE_MAX: Duration = Duration::from_secs(3_600);

/// Carries the order out.
pub(crate) async fn rows(
    shared: &Arc<Shared>,
    database: &str,
    user: Option<&str>,
) -> Result<Vec<DiagnosisRow>, CommandError> {
    let home = home(shared, database, user)?;
    let rules = home.rules();
    let mut rows = vec![info("target", target(shared, &home, &rules).await)];
    rows.extend(standing(shared, &home));
    let failed_before = lock(&home.last_failure).clone();
    let (opened, diary) = control::open(shared, &home).await;
    rows.extend(diary.entries().iter().map(step));
    match opened {
        Ok(mut control) => {
            rows.push(first_query(&mut control).await);
            let answer = control.row(&question(&own_pids(shared))).await;
            rows.extend(answer.ok().and_then(|row| sessions(&row)));
        }
        Err(why) => {
            // Where there are steps, they say it better.
            if diary.failure().is_none() {
                rows.push(failed("permit", why));
            }
            // Servers that were there before may still answer.
            let sql = question(&own_pids(shared));
            let answer = control::ask_idle(shared, &home, &sql).await;
            rows.extend(answer.and_then(|answer| sessions(&answer.ok()?)));
        }
    }
    rows.extend(past(failed_before));
    Ok(rows)
}

/// As whom: the user who was named, whom the entry forces, who has used it most, who may look users up,
/// or the only one there is.
pub(crate) fn home(
    shared: &Shared,
    database: &str,
    user: Option<&str>,
) -> Result<Arc<PoolHome>, CommandError> {
    let none = || CommandError::NoSuchDatabase(database.to_owned());
    let config = shared.config();
    let settings = config.resolve_database(database).ok_or_else(none)?;
    let views = shared.pools().view();
    let of_database = views.iter().filter(|view| *view.name.database == *database);
    let busiest = of_database.max_by_key(|view| (view.clients, view.total()));
    let busiest = busiest.map(|view| view.name.user.to_string());
    let files = shared.files();
    // Whoever administers the pooler need not be known to PostgreSQL.
    let global = &config.global;
    let is_operator =
        |name: &str| global.admin_users.contains(name) || global.stats_users.contains(name);
    let with_secret = files.users.iter().map(|(name, _)| name.to_owned());
    let user = user
        .map(str::to_owned)
        .or_else(|| config.database(database)?.keys.user.clone())
        .or(busiest)
        .or(settings.auth_user)
        .or_else(|| with_secret.min_by_key(|name| (is_operator(name), name.clone())));
    let Some(user) = user else {
        let text = format!("nobody is known who may use {database}: DIAGNOSE {database} USER name");
        return Err(CommandError::Impossible(text));
    };
    let route = shared.route(database, &user).map_err(|_| none())?;
    Ok(Arc::clone(&route.home))
}

pub(crate) fn info(step: &'static str, detail: String) -> DiagnosisRow {
    DiagnosisRow {
        step,
        outcome: "info",
        took: None,
        detail,
    }
}

pub(crate) fn failed(step: &'static str, detail: String) -> DiagnosisRow {
    DiagnosisRow {
        outcome: "failed",
        ..info(step, detail)
    }
}

pub(crate) fn step(entry: &Entry) -> DiagnosisRow {
    DiagnosisRow {
        step: entry.step,
        outcome: entry.ending.word(),
        took: Some(entry.took),
        detail: entry.detail.clone(),
    }
}

async fn target(shared: &Shared, home: &PoolHome, rules: &Rules) -> String {
    let hosts = rules
        .database
        .host_names(&rules.config.global.unix_socket_dir);
    let with = match secret::known(shared, home, rules, rules.first_host(), None).await {
        Ok(found) => {
            let found: Vec<String> = found.iter().map(secret::Found::described).collect();
            format!("with {}", found.join(", then with "))
        }
        Err(reason) => reason,
    };
    format!(
        "database {} at {} as user {}, {with}",
        rules.database.dbname(),
        hosts.join(", "),
        home.name.user,
    )
}

/// Who waits in the pool, and for what limit.
fn standing(shared: &Shared, home: &PoolHome) -> Option<DiagnosisRow> {
    let standing = shared.pools().standing(home.id, None, Instant::now())?;
    let is_news =
        standing.waiting > 0 || matches!(standing.bound, Bound::Failing(_) | Bound::Paused);
    is_news.then(|| info("pool", detail::standing_text(shared, &standing)))
}

async fn first_query(control: &mut control::Control<'_>) -> DiagnosisRow {
    let began = Instant::now();
    let answer = control.row("SELECT pg_catalog.version()").await;
    let took = began.elapsed();
    match answer {
        Ok(row) => DiagnosisRow {
            step: "query",
            outcome: "ok",
            took: Some(took),
            detail: text(row.first())
                .split(" on ")
                .next()
                .unwrap_or_default()
                .to_owned(),
        },
        Err(why) => DiagnosisRow {
            took: Some(took),
            ..failed("query", why)
        },
    }
}

/// Whose the connections of this PostgreSQL are.
fn sessions(row: &[Option<Vec<u8>>]) -> Option<DiagnosisRow> {
    let answer: Value = serde_json::from_str(&text(row.first())).ok()?;
    let number = |name: &str| answer[name].as_u64().unwrap_or(0);
    let mut detail = format!(
        "PostgreSQL has {} of {} connections in use ({} reserved): {} from this pooler, {} from elsewhere",
        number("all"),
        number("max"),
        number("reserved"),
        number("own"),
        number("all").saturating_sub(number("own")),
    );
    let strangers = answer["others"].as_array().map_or(&[][..], Vec::as_slice);
    let named: Vec<String> = strangers.iter().take(STRANGERS_MAX).map(stranger).collect();
    if !named.is_empty() {
        detail.push_str(": ");
        detail.push_str(&named.join("; "));
    }
    Some(info("sessions", detail))
}

fn stranger(group: &Value) -> String {
    let word = |name: &str| group[name].as_str().unwrap_or_default().to_owned();
    let app = match word("app") {
        app if app.is_empty() => "a nameless application".to_owned(),
        app => format!("application {app}"),
    };
    let place = match word("addr") {
        addr if addr.is_empty() => String::new(),
        addr => format!(" at {addr}"),
    };
    format!("{} of {app}, user {}{place}", group["n"], word("user"))
}

fn text(cell: Option<&Option<Vec<u8>>>) -> String {
    let bytes = cell.and_then(Option::as_deref).unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

/// Process ids of every backend that this pooler has.
pub(crate) fn own_pids(shared: &Shared) -> Vec<i32> {
    let servers = shared.servers.iter();
    let pids = servers.map(|server| server.process_id());
    pids.filter(|&pid| pid != 0).collect()
}

fn question(own: &[i32]) -> String {
    let own: Vec<String> = own.iter().map(i32::to_string).collect();
    // What another role's backend is doing is hidden from ordinary users, its type as well. Unlike clients', the launcher
    // of logical replication has no database.
    format!(
        "WITH b AS (SELECT pid = pg_catalog.pg_backend_pid() OR pid = ANY ('{{{}}}'::int[]) AS own, usename, \
         application_name, client_addr FROM pg_catalog.pg_stat_activity WHERE usename IS NOT NULL \
         AND datname IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'), \
         g AS (SELECT count(*) AS n, usename, application_name, client_addr FROM b WHERE NOT own \
         GROUP BY usename, application_name, client_addr ORDER BY n DESC LIMIT 20) \
         SELECT pg_catalog.json_build_object('max', current_setting('max_connections')::int, \
         'reserved', current_setting('superuser_reserved_connections')::int \
         + coalesce(current_setting('reserved_connections', true), '0')::int, \
         'all', (SELECT count(*) FROM b), 'own', (SELECT count(*) FROM b WHERE own), \
         'others', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('n', n, 'user', usename, \
         'app', application_name, 'addr', pg_catalog.host(client_addr))), '[]') FROM g))",
        own.join(",")
    )
}

/// The last failure before this one.
fn past(failure: Option<(Instant, Diary)>) -> Option<DiagnosisRow> {
    let (at, diary) = failure?;
    let age = at.elapsed();
    let entry = diary.failure().filter(|_| age < FAILURE_MAX)?;
    Some(info(
        "last failure",
        format!(
            "{} s before: {}: {}",
            age.as_secs(),
            entry.step,
            entry.detail
        ),
    ))
}
