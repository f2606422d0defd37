//! From what happened when to what it probably was.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::clock;
use super::episodes::{Episode, Matter};
use crate::table::Table;
use crate::{doctor, print, time};

/// Something that would explain episodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Suspicion {
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) evidence: Vec<String>,
    /// What to do.
    pub(super) next: Vec<String>,
    /// Seconds that it explains.
    seconds: u64,
    /// Whether PostgreSQL could not be used, now as well.
    pub(super) fails_now: bool,
}

/// What else is known, beside the samples.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    pub(super) budget: Table,
    pub(super) databases: Table,
    pub(super) config: Table,
    pub(super) leaks: Table,
}

impl Suspicion {
    /// The cause of `pgweir doctor` that is the same, seen at this moment.
    pub(super) fn is_seen_as(&self, cause: &str) -> bool {
        match self.name {
            "silent" => cause == "leak",
            "slow" => matches!(cause, "slow" | "locks"),
            "held" => matches!(cause, "slow" | "locks" | "leak" | "ordered"),
            _ => false,
        }
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "name": self.name,
            "title": self.title,
            "evidence": self.evidence,
            "next": self.next,
            "seconds": self.seconds,
        })
    }
}

/// What would explain them, what explains most seconds first.
pub(super) fn find(episodes: &[Episode], context: &Context) -> Vec<Suspicion> {
    let mut all: Vec<Suspicion> = Vec::new();
    for episode in episodes {
        let Suspect {
            name,
            title,
            evidence,
            next,
        } = suspect(episode, context);
        let seconds = episode.seconds + 1;
        let fails_now = episode.goes_on() && episode.matter == Matter::Failing;
        match all.iter_mut().find(|known| known.name == name) {
            Some(known) => {
                known.seconds += seconds;
                known.fails_now |= fails_now;
                if known.evidence.len() < 5 {
                    known.evidence.push(evidence);
                }
            }
            None => all.push(Suspicion {
                name,
                title,
                evidence: vec![evidence],
                next,
                seconds,
                fails_now,
            }),
        }
    }
    all.sort_by_key(|suspicion| std::cmp::Reverse(suspicion.seconds));
    all
}

/// What one episode looks like.
struct Suspect {
    name: &'static str,
    title: String,
    evidence: String,
    next: Vec<String>,
}

impl Suspect {
    fn new(name: &'static str, title: impl Into<String>, evidence: String) -> Self {
        Self {
            name,
            title: title.into(),
            evidence,
            next: Vec::new(),
        }
    }
}

/// The application that is remembered for most leaks in this database.
fn leaking_application(leaks: &Table, database: &str) -> Option<String> {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for row in leaks.rows().filter(|row| row.text("database") == database) {
        *counts.entry(row.text("application_name")).or_default() += 1;
    }
    let (app, _) = counts.into_iter().max_by_key(|(_, count)| *count)?;
    Some(match app {
        "" => "a nameless application".to_owned(),
        app => app.to_owned(),
    })
}

fn suspect(episode: &Episode, context: &Context) -> Suspect {
    let place = format!("{} at {}", episode.database, clock(&episode.from));
    if let Some(failure) = &episode.failure {
        let evidence = format!("{place}: {failure}");
        let host = doctor::host_of(&context.databases, &context.config, &episode.database);
        let Some(explained) = doctor::explain(failure, &context.budget, host.as_deref()) else {
            let title = "PostgreSQL could not be reached, or did not let the pooler in";
            return Suspect::new("failing", title, evidence);
        };
        return Suspect {
            next: explained.next.iter().map(|&line| line.to_owned()).collect(),
            ..Suspect::new(explained.name, explained.title, evidence)
        };
    }
    if episode.silent_percent() >= 50 {
        let title = match leaking_application(&context.leaks, &episode.database) {
            Some(app) => {
                format!("an application leaks transactions: {app} held servers and said nothing")
            }
            None => "clients held servers in an open transaction and said nothing".to_owned(),
        };
        let percent = episode.silent_percent();
        let text =
            format!("{place}: {percent} % of the servers in use (pgweir leaks --all names them)");
        return Suspect::new("silent", title, text);
    }
    let is_slow = episode.calm_query_us > 0 && episode.query_us_max >= 3 * episode.calm_query_us;
    if is_slow || (episode.calm_query_us == 0 && episode.query_us_max > 1_000_000) {
        let title = "queries took much longer than before, which kept servers busy";
        let micros = |us| time::words(Duration::from_micros(us));
        let text = format!(
            "{place}: {} instead of {} for a query",
            micros(episode.query_us_max),
            micros(episode.calm_query_us)
        );
        return Suspect::new("slow", title, text);
    }
    if episode.calm_queries > 0 && episode.queries_max >= 2 * episode.calm_queries {
        let (most, calm) = (episode.queries_max, episode.calm_queries);
        let text = format!("{place}: {most} queries per second instead of {calm}");
        return Suspect::new("burst", "more was asked than before", text);
    }
    let title = "servers were held all the time, by statements that did not end or for locks";
    let text = format!(
        "{place}: {} in use (pgweir why, while it lasts)",
        print::counted(episode.busy, "server")
    );
    Suspect::new("held", title, text)
}

/// A cause as it is told.
pub(super) struct Shown<'a> {
    pub(super) title: &'a str,
    pub(super) evidence: &'a [String],
    pub(super) next: &'a [String],
    pub(super) is_now: bool,
}

impl<'a> Shown<'a> {
    fn of_now(cause: &'a doctor::Cause) -> Self {
        Self {
            title: &cause.title,
            evidence: &cause.evidence,
            next: &cause.next,
            is_now: true,
        }
    }

    fn of_past(suspicion: &'a Suspicion) -> Self {
        Self {
            title: &suspicion.title,
            evidence: &suspicion.evidence,
            next: &suspicion.next,
            is_now: false,
        }
    }
}

/// What was seen in the samples and what is seen at this moment, the likeliest first: a PostgreSQL
/// that cannot be used explains the rest; and while it `goes_on`, what can be seen now is surer than
/// what was.
pub(super) fn ranked<'a>(
    all: &'a [Suspicion],
    causes_now: &'a [doctor::Cause],
    goes_on: bool,
) -> Vec<Shown<'a>> {
    let (failing, past): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.fails_now);
    let works = failing.is_empty();
    // A crowd is what follows when PostgreSQL cannot be used.
    let now = causes_now.iter();
    let now = now.filter(|cause| works || cause.name != "crowded");
    let now = now.map(Shown::of_now);
    let is_seen = |one: &&Suspicion| causes_now.iter().any(|cause| one.is_seen_as(cause.name));
    let past = past.into_iter().filter(|one| !is_seen(one));
    let past = past.map(Shown::of_past);
    let failing = failing.into_iter().map(Shown::of_past);
    match goes_on {
        true => failing.chain(now).chain(past).collect(),
        false => failing.chain(past).chain(now).collect(),
    }
}
