//! From what was found to what is wrong: pure, so that every incident can be told as a table.

mod load;
pub(crate) mod way;

use std::time::Duration;

use serde_json::{Value, json};

use crate::print;
use crate::table::{Row, Table};

/// Everything that was found about one database.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
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
    /// SHOW STATE.
    pub(crate) state: Table,
    /// Its row of SHOW DATABASES; in a look at all of them, the rows of those that matter.
    pub(crate) entry: Table,
    /// Where its servers are, as SHOW BUDGET names it; nothing where that is not one host.
    pub(crate) host: Option<String>,
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
    let mut causes = ordered_so(evidence);
    let seen = [
        way::way(evidence),
        way::strangers(evidence),
        load::locks(evidence),
        load::leaking(evidence),
        load::slow(evidence),
    ];
    causes.extend(seen.into_iter().flatten());
    if causes.is_empty() {
        causes.extend(load::crowded(evidence));
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

/// Orders that are told: a KILL of everything pauses each database by itself.
const ORDERS_MAX: usize = 5;

/// An operator wants it so.
fn ordered_so(evidence: &Evidence) -> Vec<Cause> {
    let cause = |title: String, next: String, waiting: u64| Cause {
        name: "ordered",
        title,
        evidence: vec![format!("{} waiting", print::counted(waiting, "client"))],
        next: vec![next],
        weight: 1_000,
    };
    let waiting_for = |database: &str| {
        let pools = evidence.pools.rows();
        let of_database = pools.filter(|pool| pool.text("database") == database);
        of_database.map(|pool| pool.count("cl_waiting")).sum()
    };
    let mut causes = Vec::new();
    for row in evidence.maintenance.rows() {
        let (database, mode, by) = (row.text("database"), row.text("mode"), row.text("by"));
        causes.push(cause(
            format!("{database} is under maintenance (mode {mode}), ordered by {by}"),
            format!("pgweir maintenance off {database}"),
            waiting_for(database),
        ));
    }
    let is_so = |row: &Row<'_>| row.text("value") == "yes";
    for row in evidence.state.rows().filter(is_so) {
        let order = match row.text("key") {
            "paused" => "paused (PAUSE on the console, or SIGUSR1)",
            "suspended" => "suspended (SUSPEND on the console, or an online restart)",
            _ => continue,
        };
        causes.push(cause(
            format!("every database is {order}"),
            "RESUME on the console".to_owned(),
            waiting(evidence),
        ));
    }
    for row in evidence.entry.rows() {
        let database = row.text("name");
        if row.text("paused") == "1" {
            causes.push(cause(
                format!("{database} is paused (PAUSE or KILL on the console)"),
                format!("RESUME {database} on the console"),
                waiting_for(database),
            ));
        }
        if row.text("disabled") == "1" {
            causes.push(cause(
                format!("{database} is disabled: new clients are refused"),
                format!("ENABLE {database} on the console"),
                waiting_for(database),
            ));
        }
    }
    causes.truncate(ORDERS_MAX);
    causes
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

#[cfg(test)]
mod tests;
