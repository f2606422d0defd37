//! From one sample per second to what happened when.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

use crate::incident::clock;
use crate::table::{Row, Table};
use crate::{print, time};

/// A wait that is shorter is how a pool works.
const WAIT_MIN_MS: u64 = 1_000;

/// Seconds of calm within one episode: attempts to reach PostgreSQL become rare when it stays away.
const CALM_MAX: u64 = 20;

/// What was the matter.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Matter {
    /// Servers could not be opened.
    Failing,
    /// Clients waited for a second or longer.
    Waiting,
}

/// Seconds that belong together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Episode {
    pub(super) database: String,
    pub(super) matter: Matter,
    pub(super) from: String,
    to: String,
    /// From the first to the last of its seconds.
    pub(super) seconds: u64,
    /// Ago, of its last second.
    age: u64,
    waiting: u64,
    wait_ms: u64,
    pub(super) busy: u64,
    /// Sums over its seconds.
    busy_sum: u64,
    silent_sum: u64,
    pub(super) query_us_max: u64,
    pub(super) queries_max: u64,
    /// Mean time and number per second of queries in the calm before it.
    pub(super) calm_query_us: u64,
    pub(super) calm_queries: u64,
    pub(super) failure: Option<String>,
}

/// What happened, in the order of its beginning.
pub(super) fn find(samples: &Table) -> Vec<Episode> {
    let mut by_database: BTreeMap<&str, Vec<Row<'_>>> = BTreeMap::new();
    for row in samples.rows() {
        by_database
            .entry(row.text("database"))
            .or_default()
            .push(row);
    }
    let mut episodes = Vec::new();
    for (database, rows) in by_database {
        episodes.extend(of_database(database, &rows));
    }
    episodes.sort_by(|a, b| a.from.cmp(&b.from));
    episodes
}

fn matter(row: Row<'_>) -> Option<Matter> {
    if row.get("failure").is_some() {
        return Some(Matter::Failing);
    }
    (row.count("oldest_wait_ms") >= WAIT_MIN_MS).then_some(Matter::Waiting)
}

fn of_database(database: &str, rows: &[Row<'_>]) -> Vec<Episode> {
    let mut episodes: Vec<Episode> = Vec::new();
    let mut calm = Calm::default();
    for row in rows {
        let Some(matter) = matter(*row) else {
            calm.note(*row);
            continue;
        };
        let age = row.count("age");
        let goes_on = |episode: &&mut Episode| {
            let is_near = episode.age.saturating_sub(age) <= CALM_MAX;
            // Clients that wait while PostgreSQL is away are one and the same matter.
            let is_same = episode.matter == matter || episode.matter == Matter::Failing;
            is_near && is_same
        };
        match episodes.last_mut().filter(goes_on) {
            Some(episode) => episode.add(*row),
            None => {
                let mut episode = Episode::begin(database, matter, *row, &calm);
                episode.add(*row);
                episodes.push(episode);
            }
        }
    }
    episodes
}

/// Seconds in which nothing was the matter.
#[derive(Debug, Default)]
struct Calm {
    seconds: u64,
    queries: u64,
    spent_us: u64,
}

impl Calm {
    fn note(&mut self, row: Row<'_>) {
        self.seconds += 1;
        self.queries += row.count("queries");
        self.spent_us += row.count("queries") * row.count("query_us");
    }
}

impl Episode {
    fn begin(database: &str, matter: Matter, row: Row<'_>, calm: &Calm) -> Self {
        Self {
            database: database.to_owned(),
            matter,
            from: row.text("time").to_owned(),
            to: String::new(),
            seconds: 0,
            age: row.count("age"),
            waiting: 0,
            wait_ms: 0,
            busy: 0,
            busy_sum: 0,
            silent_sum: 0,
            query_us_max: 0,
            queries_max: 0,
            calm_query_us: calm.spent_us.checked_div(calm.queries).unwrap_or(0),
            calm_queries: calm.queries.checked_div(calm.seconds).unwrap_or(0),
            failure: None,
        }
    }

    fn add(&mut self, row: Row<'_>) {
        self.to = row.text("time").to_owned();
        self.seconds += self.age.saturating_sub(row.count("age"));
        self.age = row.count("age");
        self.waiting = self.waiting.max(row.count("waiting"));
        self.wait_ms = self.wait_ms.max(row.count("oldest_wait_ms"));
        self.busy = self.busy.max(row.count("busy"));
        self.busy_sum += row.count("busy");
        self.silent_sum += row.count("silent");
        self.query_us_max = self.query_us_max.max(row.count("query_us"));
        self.queries_max = self.queries_max.max(row.count("queries"));
        if let Some(failure) = row.get("failure") {
            self.failure = Some(failure.to_owned());
        }
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "database": self.database,
            "matter": match self.matter { Matter::Failing => "failing", Matter::Waiting => "waiting" },
            "from": self.from,
            "to": self.to,
            "goes_on": self.goes_on(),
            "clients_waiting_max": self.waiting,
            "wait_ms_max": self.wait_ms,
            "servers_busy_max": self.busy,
            "silent_percent": self.silent_percent(),
            "query_us_max": self.query_us_max,
            "failure": self.failure,
        })
    }

    /// Whether it has not ended.
    pub(super) fn goes_on(&self) -> bool {
        self.age <= 2
    }

    /// Which part of the servers in use was held in silence.
    pub(super) fn silent_percent(&self) -> u64 {
        (self.silent_sum * 100)
            .checked_div(self.busy_sum)
            .unwrap_or(0)
            .min(100)
    }
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let until = if self.goes_on() {
            "now"
        } else {
            clock(&self.to)
        };
        write!(f, "{} to {until}  {}: ", clock(&self.from), self.database)?;
        match (&self.failure, self.matter) {
            (Some(failure), Matter::Failing) => {
                write!(f, "servers could not be opened ({failure})")?
            }
            _ => write!(f, "clients waited")?,
        }
        if self.waiting > 0 {
            let waiting = print::counted(self.waiting, "client");
            let wait = time::millis(self.wait_ms);
            write!(f, "; up to {waiting} in the queue, the first for {wait}")?;
        }
        if self.busy > 0 {
            let busy = print::counted(self.busy, "server");
            write!(
                f,
                "; {busy} in use, {} % of them held in silence",
                self.silent_percent()
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::suspicions::{self, Context};

    /// Second by second: time of day from the age, then what is given.
    fn samples(seconds: &[&str]) -> Table {
        let columns =
            "time age database waiting oldest_wait_ms busy silent queries query_us failure\n";
        let rows: Vec<String> = seconds
            .iter()
            .enumerate()
            .map(|(second, rest)| {
                let age = 100 - second;
                format!("2026-01-01~10:00:{second:02}~UTC {age} shop {rest}")
            })
            .collect();
        crate::testing::table(&format!("{columns}{}", rows.join("\n")))
    }

    const CALM: &str = "0 0 1 0 100 500 -";

    fn names(seconds: &[&str]) -> Vec<&'static str> {
        let episodes = find(&samples(seconds));
        suspicions::find(&episodes, &Context::default())
            .iter()
            .map(|suspicion| suspicion.name)
            .collect()
    }

    #[test]
    fn calm_seconds_are_no_episode() {
        assert_eq!(find(&samples(&[CALM; 20])), []);
        assert_eq!(find(&samples(&["3 900 3 0 100 500 -"; 5])), []);
    }

    #[test]
    fn seconds_that_belong_together_are_one_episode() {
        let waiting = "4 2500 3 0 100 500 -";
        let mut seconds = vec![CALM; 5];
        seconds.extend([waiting, waiting, CALM, waiting]);
        seconds.extend([CALM; 30]);
        seconds.push(waiting);
        let episodes = find(&samples(&seconds));
        assert_eq!(episodes.len(), 2);
        let text = episodes[0].to_string();
        assert!(
            text.starts_with("10:00:05 to 10:00:08  shop: clients waited; up to 4 clients"),
            "{text}"
        );
        assert_eq!(episodes[0].seconds, 3);
    }

    #[test]
    fn a_failure_explains_the_waits_after_it() {
        let failing = "0 0 0 0 0 0 tcp:~Connection~refused";
        let waiting = "4 2500 0 0 0 0 -";
        let seconds = [CALM, failing, waiting, waiting, failing, waiting];
        let episodes = find(&samples(&seconds));
        assert_eq!(episodes.len(), 1);
        let text = episodes[0].to_string();
        assert!(
            text.contains("could not be opened (tcp: Connection refused); up to 4"),
            "{text}"
        );
        assert_eq!(names(&seconds), ["postgres_down"]);
    }

    #[test]
    fn a_failure_is_called_by_its_name() {
        for (failure, name) in [
            ("tls:~certificate~has~expired", "certificate_expired"),
            ("auth:~password~authentication~failed~(28P01)", "password"),
            (
                "auth:~sorry,~too~many~clients~already~(53300)",
                "postgres_full",
            ),
            (
                "auth:~too~many~connections~for~role~\"bob\"~(53300)",
                "role_limit",
            ),
            ("secret:~no~password~can~be~read", "secret"),
            ("?:~whatever", "failing"),
        ] {
            assert_eq!(names(&[CALM, &format!("1 0 0 0 0 0 {failure}")]), [name]);
        }
        let mut context = Context {
            budget: crate::testing::table(
                "name subject used limit\nmax_connections other:5432 99 400\n\
                 max_connections db:5432 99 100\nmax_host_connections db:5432 80 -",
            ),
            databases: crate::testing::table("name host port\nshop db 5432"),
            config: Table::default(),
            leaks: crate::testing::table("database application_name\nshop cron\nblog web"),
        };
        let full = "1 0 0 0 0 0 auth:~sorry,~too~many~clients~already~(53300)";
        let episodes = find(&samples(&[CALM, full]));
        let own = suspicions::find(&episodes, &context);
        assert_eq!(own[0].name, "over_budget");
        assert!(!own[0].next.is_empty());
        let silent = find(&samples(&[CALM, "4 2500 3 3 5 500 -"]));
        let named = suspicions::find(&silent, &context);
        assert!(
            named[0].title.contains("leaks transactions: cron held"),
            "{named:?}"
        );
        context.leaks = Table::default();
        assert!(
            suspicions::find(&silent, &context)[0]
                .title
                .starts_with("clients held")
        );
    }

    #[test]
    fn the_cause_is_what_differs_from_the_calm() {
        assert_eq!(names(&[CALM, CALM, "4 2500 3 3 5 500 -"]), ["silent"]);
        assert_eq!(names(&[CALM, CALM, "4 2500 3 0 5 90000 -"]), ["slow"]);
        assert_eq!(names(&[CALM, CALM, "4 2500 3 0 900 600 -"]), ["burst"]);
        assert_eq!(names(&[CALM, CALM, "4 2500 3 0 0 0 -"]), ["held"]);
    }

    #[test]
    fn what_explains_most_comes_first() {
        let silent = "4 2500 3 3 5 500 -";
        let mut seconds = vec![CALM, "4 2500 3 0 5 90000 -"];
        seconds.extend([CALM; 25]);
        seconds.extend([silent; 10]);
        assert_eq!(names(&seconds), ["silent", "slow"]);
    }
}
