//! Clients wait although PostgreSQL is reached: locks, leaks, slow queries, or simply too many at once.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Cause, Evidence, longest_wait, waiting};
use crate::leaks::who;
use crate::table::Row;
use crate::{print, quote, time};

/// Servers wait for a lock.
pub(super) fn locks(evidence: &Evidence) -> Option<Cause> {
    let mut rows = evidence.why.rows();
    let worst = rows.find(|row| row.text("kind") == "lock")?;
    let blocked = worst.count("waiting");
    let busy: u64 = evidence
        .pools
        .rows()
        .map(|pool| pool.count("sv_active"))
        .sum();
    let pid = worst.text("server_pid");
    let (whom, next) = match (worst.number("client_id"), worst.number("server_pid")) {
        (Some(client), _) => (
            format!("one session, pid {pid}"),
            vec![
                format!(
                    "pgweir kill --client {client} ends it: its transaction is rolled back, and the others go on"
                ),
                "find out why it keeps its transaction open".to_owned(),
            ],
        ),
        (None, Some(_)) => (
            format!("one session, pid {pid}"),
            vec![format!(
                "it is not behind this pooler: SELECT pg_cancel_backend({pid}), and if that is not enough \
                 pg_terminate_backend({pid})"
            )],
        ),
        (None, None) => (
            "a prepared transaction".to_owned(),
            vec![finish_prepared(worst)],
        ),
    };
    // One server that waits for another is everyday life; a queue behind them is not.
    let is_serious = blocked >= 2 || waiting(evidence) > 0;
    is_serious.then(|| Cause {
        name: "locks",
        title: format!(
            "a lock pile-up: {} for {whom}",
            if blocked == 1 {
                "1 server waits".to_owned()
            } else {
                format!("{blocked} servers wait")
            },
        ),
        evidence: vec![
            worst.text("text").to_owned(),
            format!(
                "{} in the queue of the pool",
                print::counted(waiting(evidence), "client")
            ),
        ],
        next,
        weight: 700 + share(blocked, busy),
    })
}

/// How a prepared transaction ends: it has no session that could be.
fn finish_prepared(row: Row<'_>) -> String {
    let statement = row.text("last_statement");
    match statement.strip_prefix("PREPARE TRANSACTION ") {
        Some(gid) => format!(
            "as its coordinator has decided, in that database as user {}: COMMIT PREPARED {gid}, or ROLLBACK PREPARED {gid}",
            row.text("user")
        ),
        None => "find it in pg_prepared_xacts, and as its coordinator has decided: COMMIT PREPARED or ROLLBACK PREPARED"
            .to_owned(),
    }
}

/// Clients hold servers and say nothing.
pub(super) fn leaking(evidence: &Evidence) -> Option<Cause> {
    // Suspects are certain. Where clients wait, a silence that is still short counts as well.
    let crowded = waiting(evidence) > 0;
    let silent = evidence.holders.only(|row| {
        let long = row.count("silent_ms") >= 1_000 && row.text("state") != "active";
        long && crowded
    });
    let shown = match (silent.is_empty(), evidence.leaks.is_empty()) {
        (true, true) => return None,
        (true, false) => &evidence.leaks,
        (false, _) => &silent,
    };
    let mut kinds: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for row in shown.rows() {
        *kinds.entry(kind(row)).or_default() += 1;
    }
    let ((app, state), count) = kinds.into_iter().max_by_key(|(_, count)| *count)?;
    let mut facts = vec![format!(
        "{} held in silence, {count} of them by it; {} waiting",
        print::counted(shown.cells.len() as u64, "server"),
        print::counted(waiting(evidence), "client"),
    )];
    let alike = shown.rows().filter(|row| kind(*row) == (app, state));
    let longest = alike.max_by_key(|row| row.count("silent_ms"));
    if let Some(row) = longest {
        facts.push(format!(
            "the longest: {}, {state}, silent for {}",
            who(row),
            time::millis(row.count("silent_ms"))
        ));
    }
    let why = evidence
        .why
        .rows()
        .filter(|row| row.text("kind") == "silent");
    let mut of_app = why.filter(|row| row.text("application_name") == app);
    let statement =
        of_app.find_map(|row| row.get("last_statement").filter(|text| !text.is_empty()));
    facts.extend(statement.map(|statement| format!("its last statement: {statement}")));
    let held = match longest.map_or(0, |row| row.count("silent_ms")) {
        60_000.. => "1min",
        10_000.. => "10s",
        _ => "1s",
    };
    let busy = evidence.holders.cells.len() as u64;
    let named = if app.is_empty() {
        "a nameless application"
    } else {
        app
    };
    let quoted = quote::shell(app);
    let (does, whom, cures) = match state {
        // In session pooling a client keeps its server between two transactions as well.
        "idle" => (
            "keeps servers between transactions",
            format!("--state idle --held {held} --idle {held}"),
            [
                "in the application: give connections back to its pool, and close those that are not used",
                "client_idle_timeout ends such clients by itself; with pool_mode = transaction others use their servers",
            ],
        ),
        _ => (
            "leaks transactions",
            format!("--state 'idle in transaction' --held {held}"),
            [
                "in the application: COMMIT or ROLLBACK on every path, errors included, and give connections back",
                "idle_transaction_timeout, or leak_action = rollback or disconnect, deals with such clients by itself",
            ],
        ),
    };
    let mut next = vec![format!(
        "pgweir kill --app {quoted} {whom} --dry-run, then without --dry-run"
    )];
    next.extend(cures.map(str::to_owned));
    Some(Cause {
        name: "leak",
        title: format!("an application {does}: {named} holds servers and says nothing"),
        evidence: facts,
        next,
        weight: 500 + share(shown.cells.len() as u64, busy) + if crowded { 50 } else { 0 },
    })
}

/// Of which application a holder is, and what it does.
fn kind(row: Row<'_>) -> (&str, &str) {
    (row.text("application_name"), row.text("state"))
}

/// All servers are at work, and their statements take long.
pub(super) fn slow(evidence: &Evidence) -> Option<Cause> {
    if waiting(evidence) == 0 {
        return None;
    }
    let blocked: u64 = evidence
        .why
        .rows()
        .filter(|row| row.text("kind") == "lock")
        .map(|row| row.count("waiting"))
        .sum();
    let at_work = evidence
        .holders
        .only(|row| row.text("state") == "active" && row.count("held_ms") >= 1_000);
    let count = (at_work.cells.len() as u64).saturating_sub(blocked);
    let busy = evidence.holders.cells.len() as u64;
    if count == 0 || count * 2 < busy {
        return None;
    }
    let mut by_app: BTreeMap<&str, u64> = BTreeMap::new();
    for row in at_work.rows() {
        *by_app.entry(row.text("application_name")).or_default() += 1;
    }
    let (app, most) = by_app.iter().max_by_key(|(_, count)| **count)?;
    let longest = at_work
        .rows()
        .map(|row| row.count("held_ms"))
        .max()
        .unwrap_or(0);
    let mut facts = vec![
        format!(
            "{count} of {busy} servers in use have been at work for more than a second, the longest for {}; {most} for {}",
            time::millis(longest),
            if app.is_empty() {
                "a nameless application"
            } else {
                app
            }
        ),
        format!("{} waiting", print::counted(waiting(evidence), "client")),
    ];
    let slow = evidence.why.rows().filter(|row| row.text("kind") == "slow");
    facts.extend(slow.take(3).map(|row| row.text("text").to_owned()));
    Some(Cause {
        name: "slow",
        title: "a storm of slow queries keeps all servers busy".to_owned(),
        evidence: facts,
        next: vec![
            "look at the statements above: EXPLAIN them, and look for what has changed (data, index, plan, load)".to_owned(),
            "query_timeout ends them by themselves: pgweir resize query_timeout=30 --ttl 1h".to_owned(),
            "a larger pool does not help a PostgreSQL that is busy: it makes every query slower".to_owned(),
        ],
        weight: 550 + share(count, busy),
    })
}

/// Clients wait, and nothing of the above is seen: there are too few servers.
pub(super) fn crowded(evidence: &Evidence) -> Option<Cause> {
    let count = waiting(evidence);
    let longest = evidence.pools.rows().map(longest_wait).max()?;
    if count == 0 || longest < Duration::from_secs(1) {
        return None;
    }
    let reached = evidence
        .budget
        .rows()
        .filter(|row| row.text("binding") == "yes");
    let mut facts: Vec<String> = reached
        .map(|row| {
            let (name, subject) = (row.text("name"), row.text("subject"));
            format!(
                "{name} {subject}: {} of {}",
                row.text("used"),
                row.text("limit")
            )
        })
        .collect();
    let queue = print::counted(count, "client");
    facts.push(format!(
        "{queue} waiting, the first for {}",
        time::words(longest)
    ));
    Some(Cause {
        name: "crowded",
        title: "more is asked at once than the pool has servers for: the limit is reached by short work".to_owned(),
        evidence: facts,
        next: vec!["pgweir budget says whether PostgreSQL has room; then pgweir resize KEY=VALUE --ttl 1h".to_owned()],
        weight: 100,
    })
}

/// A part in percent.
fn share(part: u64, whole: u64) -> u32 {
    let percent = (part * 100).checked_div(whole.max(part)).unwrap_or(0);
    u32::try_from(percent).unwrap_or(100)
}
