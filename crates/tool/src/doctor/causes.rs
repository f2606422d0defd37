//! From what was found to what is wrong: pure, so that every incident can be told as a table.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::leaks::who;
use crate::table::{Row, Table};
use crate::{print, time};

/// Everything that was found about one database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) database: String,
    /// DIAGNOSE.
    pub(crate) diagnosis: Table,
    pub(crate) pools: Table,
    pub(crate) holders: Table,
    /// Those that are open.
    pub(crate) leaks: Table,
    /// WHY.
    pub(crate) why: Table,
    pub(crate) budget: Table,
    pub(crate) maintenance: Table,
    /// Its row of SHOW DATABASES.
    pub(crate) entry: Table,
    /// The way of a client.
    pub(crate) client: Table,
}

/// Something that is wrong.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cause {
    /// Its name, for programs.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) evidence: Vec<String>,
    /// What to do.
    pub(crate) next: Vec<String>,
    /// How much of what is seen it explains: the largest comes first.
    weight: u32,
}

impl Cause {
    pub(crate) fn as_json(&self) -> Value {
        json!({
            "name": self.name,
            "title": self.title,
            "evidence": self.evidence,
            "next": self.next,
        })
    }
}

/// What is wrong, the likeliest first.
pub(crate) fn find(evidence: &Evidence) -> Vec<Cause> {
    let mut causes: Vec<Cause> = [
        ordered_so(evidence),
        way(evidence),
        strangers(evidence),
        locks(evidence),
        leaking(evidence),
        slow(evidence),
    ]
    .into_iter()
    .flatten()
    .collect();
    if causes.is_empty() {
        causes.extend(crowded(evidence));
    }
    if causes.is_empty() {
        causes.extend(client_side(evidence));
    }
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.weight));
    causes
}

/// How long the first in a queue has waited, from SHOW POOLS.
pub(crate) fn longest_wait(pool: Row<'_>) -> Duration {
    let micros = pool.count("maxwait") * 1_000_000 + pool.count("maxwait_us");
    Duration::from_micros(micros)
}

fn waiting(evidence: &Evidence) -> u64 {
    evidence
        .pools
        .rows()
        .map(|pool| pool.count("cl_waiting"))
        .sum()
}

fn failed_step(table: &Table) -> Option<Row<'_>> {
    table.find("outcome", "failed")
}

/// An operator wants it so.
fn ordered_so(evidence: &Evidence) -> Option<Cause> {
    let database = &evidence.database;
    let cause = |title: String, next: String| Cause {
        name: "ordered",
        title,
        evidence: vec![format!(
            "{} waiting",
            print::counted(waiting(evidence), "client")
        )],
        next: vec![next],
        weight: 1_000,
    };
    if let Some(row) = evidence.maintenance.rows().next() {
        let (mode, by) = (row.text("mode"), row.text("by"));
        return Some(cause(
            format!("{database} is under maintenance (mode {mode}), ordered by {by}"),
            format!("pgweir maintenance off {database}"),
        ));
    }
    let entry = evidence.entry.rows().next()?;
    if entry.text("paused") == "1" {
        let title = format!("{database} is paused (PAUSE or KILL on the console)");
        return Some(cause(title, format!("RESUME {database} on the console")));
    }
    if entry.text("disabled") == "1" {
        let title = format!("{database} is disabled: new clients are refused");
        return Some(cause(title, format!("ENABLE {database} on the console")));
    }
    None
}

/// PostgreSQL is not reached, or does not let the pooler in.
fn way(evidence: &Evidence) -> Option<Cause> {
    let failed = failed_step(&evidence.diagnosis)?;
    let (step, detail) = (failed.text("step"), failed.text("detail"));
    let target = evidence.diagnosis.find("step", "target");
    let target = target.map_or("", |row| row.text("detail"));
    let mut facts = vec![format!("{step}: {detail}")];
    if !target.is_empty() {
        facts.push(format!("tried: {target}"));
    }
    let has = |text: &str| detail.to_lowercase().contains(text);
    let (name, title, next): (_, _, Vec<&str>) = match step {
        "dns" => (
            "dns",
            "the name of PostgreSQL's host has no address",
            vec![
                "look the name up from this machine; correct host= of the entry, or the name server",
            ],
        ),
        "tcp" if has("refused") => (
            "postgres_down",
            "PostgreSQL is down: its machine answers, and nothing listens on the port",
            vec![
                "start PostgreSQL, or correct port= of the entry; the pooler goes on by itself when it is back",
            ],
        ),
        "tcp" if has("no such file") => (
            "postgres_down",
            "PostgreSQL is down: its Unix socket is not there",
            vec!["start PostgreSQL, or correct the directory in host= of the entry"],
        ),
        "tcp" => (
            "unreachable",
            "PostgreSQL's machine does not answer: it is down, or packets are dropped on the way",
            vec!["look at the machine, then at firewalls, security groups and network policies"],
        ),
        "tls" if has("expired") => (
            "certificate_expired",
            "PostgreSQL's certificate has expired",
            vec![
                "renew the server's certificate (ssl_cert_file) and reload PostgreSQL; nothing has to be done here",
            ],
        ),
        "tls" if has("issuer") || has("signed") || has("authority") => (
            "certificate_unknown",
            "PostgreSQL's certificate is signed by nobody whom the pooler trusts",
            vec!["set server_tls_ca_file to the authority's certificate, and RELOAD"],
        ),
        "tls" if has("name") => (
            "certificate_name",
            "PostgreSQL's certificate is for another name",
            vec![
                "use a name of the certificate in host= of the entry, or server_tls_sslmode = verify-ca",
            ],
        ),
        "tls" => (
            "tls",
            "PostgreSQL and the pooler do not agree on TLS",
            vec![
                "compare server_tls_sslmode and server_tls_protocols with PostgreSQL's ssl settings",
            ],
        ),
        "auth" if has("28p01") || has("password authentication failed") => (
            "password",
            "PostgreSQL refuses the pooler's password: it was changed on one side only",
            vec![
                "put the new password where the pooler has it from (see: tried), or back into PostgreSQL",
                "then RELOAD: no restart is needed, and servers that are connected go on",
            ],
        ),
        "auth" if has("failed to answer authreq") || has("server login failed") => (
            "password",
            "the pooler has no password that fits what PostgreSQL asks for",
            vec![
                "put the password, in plain text or as PostgreSQL stores it, where the pooler has it from (see: tried)",
            ],
        ),
        "auth" if has("28000") || has("pg_hba") => (
            "pg_hba",
            "pg_hba.conf has no line that lets the pooler in",
            vec![
                "add a line for this user, database and the pooler's address, and reload PostgreSQL",
            ],
        ),
        "auth" if has("3d000") => (
            "no_database",
            "PostgreSQL has no such database",
            vec!["correct dbname= of the entry, or create the database"],
        ),
        "auth" if has("57p03") => (
            "starting",
            "PostgreSQL is starting up, shutting down or recovering",
            vec!["wait: the pooler tries again by itself; PostgreSQL's log says how far it is"],
        ),
        // What is left of them is somebody else's: see `strangers`.
        "auth" if has("53300") || has("too many") || has("remaining connection slots") => {
            return None;
        }
        "permit" => (
            "own_limit",
            "the pooler's own limit leaves no connection for the examination",
            vec!["look at the limit that is named: pgweir budget shows what would fit"],
        ),
        "auth" => (
            "login",
            "PostgreSQL does not let the pooler in",
            vec!["PostgreSQL's log says more about it"],
        ),
        _ => (
            "query",
            "PostgreSQL lets the pooler in and then does not answer",
            vec!["look at PostgreSQL's log and at its machine's load"],
        ),
    };
    Some(Cause {
        name,
        title: title.to_owned(),
        evidence: facts,
        next: next.into_iter().map(str::to_owned).collect(),
        weight: 900,
    })
}

/// PostgreSQL's connections are taken by others.
fn strangers(evidence: &Evidence) -> Option<Cause> {
    let failed = failed_step(&evidence.diagnosis);
    let refused = failed.map(|row| row.text("detail").to_lowercase());
    let refused = refused.is_some_and(|detail| {
        let signs = ["53300", "too many", "remaining connection slots"];
        signs.iter().any(|sign| detail.contains(sign))
    });
    let detail = failed.map_or("", |row| row.text("detail"));
    if refused && detail.contains("for role") {
        return Some(Cause {
            name: "role_limit",
            title: "the role's CONNECTION LIMIT in PostgreSQL is reached".to_owned(),
            evidence: vec![detail.to_owned()],
            next: vec![
                "ALTER ROLE ... CONNECTION LIMIT, or a lower pool_size for this user".to_owned(),
            ],
            weight: 850,
        });
    }
    let sessions = evidence.diagnosis.find("step", "sessions");
    let told = sessions.map_or("", |row| row.text("detail"));
    let full = refused || is_full(told);
    if !full {
        return None;
    }
    let own: u64 = evidence
        .budget
        .rows()
        .filter(|row| row.text("name") == "pool_size")
        .map(|row| row.count("used"))
        .sum();
    let max = evidence.budget.find("name", "max_connections");
    let max = max.and_then(|row| row.number("limit"));
    // Where PostgreSQL could be asked, it says who they are.
    let own = numbers(told).map_or(own, |(_, _, _, own)| own);
    let max = numbers(told).map(|(_, max, _, _)| max).or(max);
    let mut facts = Vec::new();
    if refused {
        facts.push(detail.to_owned());
    }
    facts.push(match max {
        Some(max) => format!(
            "this pooler has {} of PostgreSQL's {max}",
            print::counted(own, "connection")
        ),
        None => format!("this pooler has {}", print::counted(own, "connection")),
    });
    if !told.is_empty() {
        facts.push(told.to_owned());
    }
    let mostly_own = max.is_some_and(|max| own * 2 > max);
    let (name, title, next) = match mostly_own {
        true => (
            "over_budget",
            "this pooler has taken nearly all of PostgreSQL's connections",
            "pgweir budget: it says which max_host_connections fits",
        ),
        false => (
            "foreign_sessions",
            "PostgreSQL's connections are taken by sessions that do not come through this pooler",
            "end or shorten them where they come from (those that are named), and bring them behind the pooler",
        ),
    };
    Some(Cause {
        name,
        title: title.to_owned(),
        evidence: facts,
        next: vec![next.to_owned()],
        weight: 850,
    })
}

/// `PostgreSQL has 97 of 100 connections in use (3 reserved): 5 from this pooler, ...`: all, max, reserved, own.
fn numbers(told: &str) -> Option<(u64, u64, u64, u64)> {
    let mut numbers = told
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|word| word.parse().ok());
    let mut next = || numbers.next();
    Some((next()?, next()?, next()?, next()?))
}

fn is_full(told: &str) -> bool {
    numbers(told).is_some_and(|(all, max, reserved, _)| all + reserved >= max)
}

/// Servers wait for a lock.
fn locks(evidence: &Evidence) -> Option<Cause> {
    let mut rows = evidence.why.rows();
    let worst = rows.find(|row| row.text("kind") == "lock")?;
    let blocked = worst.count("waiting");
    let busy: u64 = evidence
        .pools
        .rows()
        .map(|pool| pool.count("sv_active"))
        .sum();
    let client = worst.number("client_id");
    let next = match client {
        Some(client) => vec![
            format!(
                "pgweir kill --client {client} ends it: its transaction is rolled back, and the others go on"
            ),
            "find out why it keeps its transaction open".to_owned(),
        ],
        None => vec![format!(
            "it is not behind this pooler: SELECT pg_cancel_backend({0}), and if that is not enough pg_terminate_backend({0})",
            worst.text("server_pid")
        )],
    };
    // One server that waits for another is everyday life; a queue behind them is not.
    let is_serious = blocked >= 2 || waiting(evidence) > 0;
    is_serious.then(|| Cause {
        name: "locks",
        title: format!(
            "a lock pile-up: {} for one session, pid {}",
            if blocked == 1 {
                "1 server waits".to_owned()
            } else {
                format!("{blocked} servers wait")
            },
            worst.text("server_pid")
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

/// Clients hold servers and say nothing.
fn leaking(evidence: &Evidence) -> Option<Cause> {
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
    let mut by_app: BTreeMap<&str, u64> = BTreeMap::new();
    for row in shown.rows() {
        *by_app.entry(row.text("application_name")).or_default() += 1;
    }
    let (app, count) = by_app.iter().max_by_key(|(_, count)| **count)?;
    let mut facts = vec![format!(
        "{} held in silence, {count} of them by it; {} waiting",
        print::counted(shown.cells.len() as u64, "server"),
        print::counted(waiting(evidence), "client"),
    )];
    let of_app = shown
        .rows()
        .filter(|row| row.text("application_name") == *app);
    let longest = of_app.max_by_key(|row| row.count("silent_ms"));
    if let Some(row) = longest {
        facts.push(format!(
            "the longest: {}, {}, silent for {}",
            who(row),
            row.text("state"),
            time::millis(row.count("silent_ms"))
        ));
    }
    let why = evidence
        .why
        .rows()
        .filter(|row| row.text("kind") == "silent");
    let mut of_app = why.filter(|row| row.text("application_name") == *app);
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
    Some(Cause {
        name: "leak",
        title: format!("an application leaks transactions: {named} holds servers and says nothing"),
        evidence: facts,
        next: vec![
            format!("pgweir kill --app '{app}' --state 'idle in transaction' --held {held} --dry-run, then without --dry-run"),
            "in the application: COMMIT or ROLLBACK on every path, errors included, and give connections back".to_owned(),
            "idle_transaction_timeout, or leak_action = disconnect, ends such clients by themselves".to_owned(),
        ],
        weight: 500 + share(shown.cells.len() as u64, busy) + if crowded { 50 } else { 0 },
    })
}

/// All servers are at work, and their statements take long.
fn slow(evidence: &Evidence) -> Option<Cause> {
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
fn crowded(evidence: &Evidence) -> Option<Cause> {
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

/// PostgreSQL is well, and a client still does not get through.
fn client_side(evidence: &Evidence) -> Option<Cause> {
    let failed = failed_step(&evidence.client)?;
    let (step, detail) = (failed.text("step"), failed.text("detail"));
    let next = match step {
        "auth" if detail.contains("SSL required") => {
            "clients have to use TLS (client_tls_sslmode): sslmode=require"
        }
        "auth" => {
            "compare the client's user and password with the auth_file or auth_query, and with the HBA rules"
        }
        "dns" | "tcp" | "socket" => {
            "compare listen_addr and listen_port with where the client connects"
        }
        _ => "look at the pooler's log",
    };
    Some(Cause {
        name: "client",
        title: "a client does not get through the pooler, although PostgreSQL is well".to_owned(),
        evidence: vec![format!("{step}: {detail}")],
        next: vec![next.to_owned()],
        weight: 90,
    })
}

/// A part in percent.
fn share(part: u64, whole: u64) -> u32 {
    let percent = (part * 100).checked_div(whole.max(part)).unwrap_or(0);
    u32::try_from(percent).unwrap_or(100)
}

#[cfg(test)]
mod tests;
