//! WHY: what the clients of a database wait for, and whom its servers wait for in PostgreSQL.
//!
//! PostgreSQL knows which backend blocks which; the pooler knows which client is behind a backend.

mod blockers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_console::CommandError;
use pgweir_console::tables::{WhyRow, shown_id};
use pgweir_session::normalized;

use crate::clients::client::{Client, State};
use crate::clients::farewell::detail;
use crate::operators::show;
use crate::operators::why::blockers::{Backend, Blocker};
use crate::servers::control;
use crate::shared::Shared;
use crate::watch::backends;
use crate::watch::leaks::{self, Kind};

/// How long a client's task may take to say what its client has asked.
const TO_SAY: Duration = Duration::from_millis(300);

/// Who has held a server for a shorter time is not worth a word.
const HELD_MIN: Duration = Duration::from_secs(1);

/// Holders of a kind that are named.
const NAMED_MAX: usize = 5;

/// A client of ours that holds a server.
struct Holder {
    client: Arc<Client>,
    state: State,
    pid: i32,
    database: Arc<str>,
    /// Silent, and since when.
    silence: Option<(Kind, Duration)>,
    held: Duration,
    last: String,
}

/// Carries the order out.
pub(crate) async fn rows(
    shared: &Arc<Shared>,
    database: &str,
) -> Result<Vec<WhyRow>, CommandError> {
    let config = shared.config();
    let Some(entry) = config.database(database) else {
        return Err(CommandError::NoSuchDatabase(database.to_owned()));
    };
    let mut rows = queues(shared, database);
    let backends = match ask(shared, database).await {
        Ok(backends) => backends,
        Err(why) => {
            rows.push(WhyRow {
                kind: "unknown",
                text: format!("PostgreSQL could not be asked who waits for a lock: {why}"),
                ..WhyRow::default()
            });
            Vec::new()
        }
    };
    let now = Instant::now();
    let mut holders = holders(shared, now);
    let blockers = blockers::find(&backends, entry.dbname());
    let of_interest = |holder: &Holder| {
        let is_slow = &*holder.database == database && holder.held >= HELD_MIN;
        is_slow || blockers.iter().any(|blocker| blocker.pid == holder.pid)
    };
    holders.retain(of_interest);
    learn_statements(shared, &mut holders).await;
    rows.extend(
        blockers
            .iter()
            .map(|blocker| lock_row(shared, blocker, &holders, &backends)),
    );
    let unblamed = |holder: &&Holder| {
        let is_waiting = backends
            .iter()
            .any(|b| b.pid == holder.pid && !b.blocked_by.is_empty());
        let is_blamed = blockers.iter().any(|blocker| blocker.pid == holder.pid);
        &*holder.database == database && !is_waiting && !is_blamed
    };
    let others: Vec<&Holder> = holders.iter().filter(unblamed).collect();
    let silent = others.iter().filter(|holder| holder.silence.is_some());
    let slow = others.iter().filter(|holder| holder.silence.is_none());
    rows.extend(
        silent
            .take(NAMED_MAX)
            .map(|holder| holder_row("silent", holder)),
    );
    rows.extend(
        slow.take(NAMED_MAX)
            .map(|holder| holder_row("slow", holder)),
    );
    if rows.is_empty() {
        rows.push(WhyRow {
            kind: "none",
            text: format!("no client of {database} waits for a server, and no server for a lock"),
            ..WhyRow::default()
        });
    }
    Ok(rows)
}

/// Pools in which clients wait, and for what.
fn queues(shared: &Shared, database: &str) -> Vec<WhyRow> {
    let now = Instant::now();
    let standings: Vec<_> = {
        let pools = shared.pools();
        let views = pools.view().into_iter();
        let crowded = views.filter(|view| *view.name.database == *database && view.waiting > 0);
        crowded
            .filter_map(|view| pools.standing(view.id, None, now))
            .collect()
    };
    let row = |standing: pgweir_pool::Standing| {
        let longest = standing.oldest_wait.map_or(String::new(), |wait| {
            format!(
                " The first in the queue has waited {:.1} s.",
                wait.as_secs_f64()
            )
        });
        WhyRow {
            kind: "pool",
            waiting: standing.waiting.into(),
            user: standing.pool.user.to_string(),
            held_ms: None,
            text: format!("{}{longest}", detail::standing_text(shared, &standing)),
            ..WhyRow::default()
        }
    };
    standings.into_iter().map(row).collect()
}

/// Asks PostgreSQL on a server that nobody uses; where there is none, on one of the pooler's own.
async fn ask(shared: &Arc<Shared>, database: &str) -> Result<Vec<Backend>, String> {
    let mut homes = shared.homes().into_values();
    let Some(first) = homes.find(|home| *home.name.database == *database) else {
        return Err(format!("{database} has no pool yet"));
    };
    // Locks are known to every session of the same PostgreSQL.
    if let Some(answer) = control::ask_idle(shared, &first, blockers::QUESTION).await {
        return blockers::read(&answer?);
    }
    let (opened, _) = control::open(shared, &first).await;
    let row = opened?.row(blockers::QUESTION).await?;
    blockers::read(&row)
}

/// Everybody who holds a server, the longest first.
fn holders(shared: &Shared, now: Instant) -> Vec<Holder> {
    let held = show::sockets::holders(shared).into_iter();
    let mut holders: Vec<Holder> = held
        .filter_map(|(slot, client)| {
            let server = shared.server(slot)?;
            let state = client.state().clone();
            let since = leaks::held_since(&state);
            let silence = leaks::silence(&state, true);
            let silent = now.saturating_duration_since(state.clocks.since);
            Some(Holder {
                silence: silence.map(|kind| (kind, silent)),
                held: now.saturating_duration_since(since),
                pid: server.process_id(),
                database: Arc::clone(&server.home.name.database),
                last: String::new(),
                state,
                client,
            })
        })
        .collect();
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.held));
    holders
}

/// Asks the clients' tasks what their clients have asked last.
async fn learn_statements(shared: &Shared, holders: &mut [Holder]) {
    for holder in holders.iter() {
        holder.client.inquire();
    }
    let deadline = Instant::now() + TO_SAY;
    let mut missing: Vec<usize> = (0..holders.len()).collect();
    while !missing.is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
        missing.retain(|&at| {
            let holder = &mut holders[at];
            let Some(spoken) = holder.client.take_spoken() else {
                return true;
            };
            holder.last = leaks::shown(&shared.config(), &spoken.last);
            false
        });
    }
}

fn doing(holder: &Holder) -> &'static str {
    holder.silence.map_or("active", |(kind, _)| kind.state())
}

/// A client in words.
fn who(holder: &Holder) -> String {
    let app = match &*holder.state.application_name {
        "" => "a nameless application".to_owned(),
        app => format!("app={app}"),
    };
    format!("{app} at {}", holder.client.address)
}

fn user(holder: &Holder) -> String {
    let identity = holder.client.identity.get();
    identity.map_or_else(String::new, |identity| identity.user.to_string())
}

fn last(statement: &str) -> String {
    match statement {
        "" => String::new(),
        statement => format!(", last statement: {statement}"),
    }
}

fn holder_row(kind: &'static str, holder: &Holder) -> WhyRow {
    let text = match holder.silence {
        Some((_, silent)) => format!(
            "{} has held server pid {} for {} and said nothing for {}, {}{}",
            who(holder),
            holder.pid,
            words(holder.held),
            words(silent),
            doing(holder),
            last(&holder.last)
        ),
        None => format!(
            "{} has kept server pid {} busy for {}{}",
            who(holder),
            holder.pid,
            words(holder.held),
            last(&holder.last)
        ),
    };
    WhyRow {
        kind,
        text,
        ..described(holder)
    }
}

fn described(holder: &Holder) -> WhyRow {
    WhyRow {
        server_pid: Some(holder.pid),
        client_id: Some(shown_id(holder.client.id)),
        application_name: holder.state.application_name.to_string(),
        user: user(holder),
        address: holder.client.address.to_string(),
        state: doing(holder).to_owned(),
        held_ms: Some(u64::try_from(holder.held.as_millis()).unwrap_or(u64::MAX)),
        last_statement: holder.last.clone(),
        ..WhyRow::default()
    }
}

/// Who is waited for: one of our clients, or somebody else.
fn lock_row(
    shared: &Shared,
    blocker: &Blocker<'_>,
    holders: &[Holder],
    backends: &[Backend],
) -> WhyRow {
    let count = blocker.waiting.len();
    let waiting = match count {
        1 => "1 server waits".to_owned(),
        count => format!("{count} servers wait"),
    };
    let applications = blockers::by_application(&blocker.waiting, backends);
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    if blocker.pid <= 0 {
        return prepared_row(blocker, count, &waiting, &applications);
    }
    let pid = blocker.pid;
    if let Some(holder) = holders.iter().find(|holder| holder.pid == pid) {
        let text = format!(
            "{waiting} for pid {pid}, held {} by {} (user {}), {}{}; waiting: {applications}",
            words(holder.held),
            who(holder),
            user(holder),
            doing(holder),
            last(&holder.last)
        );
        return WhyRow {
            kind: "lock",
            waiting: count,
            text,
            ..described(holder)
        };
    }
    let stranger = blocker.backend;
    let (app, user, address, state, age, query) = match stranger {
        Some(b) => (
            b.app.as_str(),
            b.user.as_str(),
            b.address.as_str(),
            b.state.as_str(),
            b.age,
            b.query.as_str(),
        ),
        None => ("", "", "", "", Duration::ZERO, ""),
    };
    let past = match backends::was_ours(shared, pid, age) {
        true => " any more, although it was a server of it (SHOW BACKENDS)",
        false => "",
    };
    let app_text = if app.is_empty() {
        "a nameless application"
    } else {
        app
    };
    let place = if address.is_empty() {
        "its own machine"
    } else {
        address
    };
    let query = normalized(query.as_bytes());
    let state_text = if state.is_empty() {
        "in a state that is hidden from this user"
    } else {
        state
    };
    WhyRow {
        kind: "lock",
        waiting: count,
        server_pid: Some(pid),
        application_name: app.to_owned(),
        user: user.to_owned(),
        address: address.to_owned(),
        state: state.to_owned(),
        held_ms: Some(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        text: format!(
            "{waiting} for pid {pid}, which is not behind this pooler{past}: {app_text} at {place} (user {user}), \
             {state_text}, its transaction began {} before{}; waiting: {applications}",
            words(age),
            last(&query)
        ),
        last_statement: query,
        ..WhyRow::default()
    }
}

/// A prepared transaction is waited for: no session is left that could be ended.
fn prepared_row(blocker: &Blocker<'_>, count: u64, waiting: &str, applications: &str) -> WhyRow {
    let row = WhyRow {
        kind: "lock",
        waiting: count,
        state: "prepared".to_owned(),
        ..WhyRow::default()
    };
    let (Some(prepared), Some(gid)) = (blocker.backend, blockers::gid(blocker)) else {
        let text = format!(
            "{waiting} for a prepared transaction (pg_prepared_xacts): COMMIT PREPARED or ROLLBACK PREPARED; \
             waiting: {applications}"
        );
        return WhyRow { text, ..row };
    };
    let (user, age) = (&prepared.user, words(prepared.age));
    WhyRow {
        user: user.clone(),
        held_ms: Some(u64::try_from(prepared.age.as_millis()).unwrap_or(u64::MAX)),
        last_statement: prepared.query.clone(),
        text: format!(
            "{waiting} for a prepared transaction of user {user}, prepared {age} before: COMMIT PREPARED {gid} or \
             ROLLBACK PREPARED {gid}; waiting: {applications}"
        ),
        ..row
    }
}

fn words(time: Duration) -> String {
    match time.as_secs() {
        0..=9 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}
