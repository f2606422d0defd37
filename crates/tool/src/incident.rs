//! `pgweir incident`: what happened lately, as a time line with ranked causes; also while PostgreSQL is down.

mod bundle;
mod episodes;
mod redact;
mod suspicions;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Common;
use crate::console::Console;
use crate::incident::episodes::Episode;
use crate::incident::suspicions::{Context, Shown, Suspicion};
use crate::table::{Row, Table};
use crate::trouble::{Trouble, Verdict};
use crate::{doctor, leaks, print, time, why};

/// Groups of log lines that are printed.
const EVENTS_SHOWN: usize = 15;

/// Tables of the console that a bundle has.
const TABLES: [&str; 21] = [
    "SAMPLES",
    "EVENTS",
    "STATEMENTS",
    "POOLS",
    "HOLDERS",
    "LEAKS",
    "CONSUMERS",
    "APPS",
    "BUDGET",
    "DATABASES",
    "USERS",
    "CLIENTS",
    "SERVERS",
    "STATS",
    "MAINTENANCE",
    "OVERRIDES",
    "QUARANTINE",
    "DNS_HOSTS",
    "STATE",
    "LISTS",
    "CONFIG",
];

/// What happened lately, as a time line with the likeliest causes
///
/// The pooler keeps one sample per second and database, and counts what it logs, for a
/// quarter of an hour. From these it is told when clients waited and for how long, when
/// PostgreSQL could not be reached, who held servers in silence, and what was logged how
/// often; then which cause explains most of it. PostgreSQL need not be up for that.
///
/// --bundle FILE writes the report, all tables and the configuration in force, without
/// secrets, into a tar archive for whoever looks at it later.
///
/// Exit codes: 0 nothing happened; 1 something did; 2 the pooler cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Only this database
    #[arg(value_name = "DATABASE")]
    database: Option<String>,

    /// How far to look back: a quarter of an hour at most
    #[arg(long, value_name = "TIME", value_parser = time::parse, default_value = "15m")]
    last: Duration,

    /// Write everything into this tar archive
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,

    #[command(flatten)]
    common: Common,
}

/// Everything that the console has said.
struct Record {
    tables: Vec<(&'static str, Table)>,
    why: Table,
}

impl Record {
    fn table(&self, name: &str) -> &Table {
        static EMPTY: Table = Table {
            columns: Vec::new(),
            cells: Vec::new(),
            count: 0,
        };
        let mut tables = self.tables.iter();
        tables
            .find(|(known, _)| *known == name)
            .map_or(&EMPTY, |(_, table)| table)
    }
}

/// What is concluded from it.
struct Report {
    last: Duration,
    episodes: Vec<Episode>,
    suspicions: Vec<Suspicion>,
    events: Table,
    leaks: Table,
    why: Table,
    causes_now: Vec<doctor::Cause>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let record = record(&console, arguments.database.as_deref()).await?;
    let report = conclude(&record, arguments);
    if let Some(file) = &arguments.bundle {
        let files = bundle_of(&record, &report);
        bundle::write(file, &files).map_err(|error| {
            Trouble::Usage(format!("{} cannot be written: {error}", file.display()))
        })?;
    }
    match arguments.common.json {
        true => print::json(&report.as_json()),
        false => print::out(&report.to_text()),
    }
    if let Some(file) = arguments.bundle.as_ref().filter(|_| !arguments.common.json) {
        print::out(&format!("\neverything is in {}\n", file.display()));
    }
    Ok(Verdict::found_if(report.found()))
}

async fn record(console: &Console, database: Option<&str>) -> Result<Record, Trouble> {
    let mut tables = Vec::new();
    for name in TABLES {
        tables.push((
            name,
            redact::table(name, console.show_if_known(name).await?),
        ));
    }
    let mut record = Record {
        tables,
        why: Table::default(),
    };
    // PostgreSQL is asked only about databases in which clients wait now.
    for name in crowded(record.table("POOLS"), database) {
        if let Ok(table) = why::ask(console, &name).await {
            record.why.columns.clone_from(&table.columns);
            record.why.cells.extend(table.cells);
        }
    }
    Ok(record)
}

fn crowded(pools: &Table, database: Option<&str>) -> Vec<String> {
    let waiting = pools.rows().filter(|row| row.count("cl_waiting") > 0);
    let mut names: Vec<String> = waiting.map(|row| row.text("database").to_owned()).collect();
    names.retain(|name| database.is_none_or(|database| database == name));
    names.dedup();
    names
}

fn conclude(record: &Record, arguments: &Arguments) -> Report {
    let seconds = arguments.last.as_secs();
    let with_waiters = crowded(record.table("POOLS"), None);
    // Without a name, what was ordered for one database matters where its clients wait.
    let is_of_interest = |row: Row<'_>| match arguments.database.as_deref() {
        Some(database) => row.text("name") == database,
        None => with_waiters
            .iter()
            .any(|database| database == row.text("name")),
    };
    let of_database = |row: Row<'_>| {
        let database = arguments.database.as_deref();
        database.is_none_or(|database| row.text("database") == database)
    };
    let is_recent = |row: Row<'_>| row.count("age") <= seconds;
    let samples = record
        .table("SAMPLES")
        .only(|row| is_recent(row) && of_database(row));
    let episodes = episodes::find(&samples);
    // A line of the log names its database in the prefix of its client or server.
    let is_about = |row: Row<'_>| {
        let database = arguments.database.as_deref();
        let peer = row.text("peer");
        database.is_none_or(|database| peer.is_empty() || peer.contains(&format!(" {database}/")))
    };
    let leaks = record.table("LEAKS").only(of_database);
    let context = Context {
        budget: record.table("BUDGET").clone(),
        databases: record.table("DATABASES").clone(),
        config: record.table("CONFIG").clone(),
        leaks: leaks.clone(),
    };
    let suspicions = suspicions::find(&episodes, &context);
    let evidence = doctor::Evidence {
        pools: record.table("POOLS").only(of_database),
        holders: record.table("HOLDERS").only(of_database),
        leaks: leaks.only(leaks::is_silent),
        why: record.why.clone(),
        budget: record.table("BUDGET").clone(),
        maintenance: record.table("MAINTENANCE").only(of_database),
        state: record.table("STATE").clone(),
        entry: record.table("DATABASES").only(is_of_interest),
        ..doctor::Evidence::default()
    };
    Report {
        last: arguments.last,
        causes_now: doctor::causes_of(&evidence),
        episodes,
        suspicions,
        events: record
            .table("EVENTS")
            .only(|row| is_recent(row) && is_about(row)),
        leaks,
        why: record.why.clone(),
    }
}

impl Report {
    /// Whether something happened.
    fn found(&self) -> bool {
        !self.episodes.is_empty() || !self.causes_now.is_empty()
    }

    fn to_text(&self) -> String {
        let mut text = format!("the last {}\n", time::words(self.last));
        if self.episodes.is_empty() {
            text.push_str("\nno client waited for a second or longer, and PostgreSQL was reached whenever it was tried\n");
        } else {
            text.push_str("\ntime line:\n");
        }
        for episode in &self.episodes {
            let _ = writeln!(text, "  {episode}");
        }
        let causes = self.causes();
        if !causes.is_empty() {
            text.push_str("\nlikeliest causes:\n");
        }
        for (number, cause) in causes.iter().enumerate() {
            let now = if cause.is_now {
                " (at this moment)"
            } else {
                ""
            };
            let _ = writeln!(text, "  {}. {}{now}", number + 1, cause.title);
            for line in cause.evidence {
                let _ = writeln!(text, "     - {line}");
            }
            for line in cause.next {
                let _ = writeln!(text, "     next: {line}");
            }
        }
        self.add_leaks(&mut text);
        self.add_events(&mut text);
        text
    }

    /// The likeliest first.
    fn causes(&self) -> Vec<Shown<'_>> {
        let goes_on = self.episodes.iter().any(Episode::goes_on);
        suspicions::ranked(&self.suspicions, &self.causes_now, goes_on)
    }

    fn add_leaks(&self, text: &mut String) {
        if self.leaks.is_empty() {
            return;
        }
        text.push_str("\nservers held in silence:\n");
        for leak in self.leaks.rows() {
            let _ = writeln!(
                text,
                "  #{} {}: {}, silent for {}, last: {}",
                leak.text("id"),
                leak.text("stage"),
                leaks::who(leak),
                time::millis(leak.count("silent_ms")),
                leak.text("last_statement"),
            );
        }
    }

    fn add_events(&self, text: &mut String) {
        if self.events.is_empty() {
            return;
        }
        text.push_str("\nlogged most often:\n");
        let heading = ["times", "first", "last", "level", "text"];
        let mut lines = vec![heading.map(str::to_owned).to_vec()];
        for event in counted(&self.events).into_iter().take(EVENTS_SHOWN) {
            lines.push(event);
        }
        for line in print::aligned(&lines).lines() {
            let _ = writeln!(text, "  {line}");
        }
    }

    fn as_json(&self) -> Value {
        json!({
            "seconds": self.last.as_secs(),
            "episodes": self.episodes.iter().map(Episode::as_json).collect::<Vec<_>>(),
            "first": self.causes().first().map(|cause| cause.title),
            "causes": self.suspicions.iter().map(Suspicion::as_json).collect::<Vec<_>>(),
            "now": self.causes_now.iter().map(doctor::Cause::as_json).collect::<Vec<_>>(),
            "why": print::as_json(&self.why),
            "leaks": print::as_json(&self.leaks),
            "events": print::as_json(&self.events),
        })
    }
}

/// Events of all minutes together, those that were said most often first.
fn counted(events: &Table) -> Vec<Vec<String>> {
    let mut groups: Vec<(String, u64, Row<'_>, Row<'_>)> = Vec::new();
    for event in events.rows() {
        let pattern: String = event
            .text("text")
            .chars()
            .filter(|c| !c.is_ascii_digit())
            .collect();
        let pattern = format!("{} {pattern}", event.text("level"));
        match groups.iter_mut().find(|(known, ..)| *known == pattern) {
            Some((_, count, _, last)) => {
                *count += event.count("count");
                *last = event;
            }
            None => groups.push((pattern, event.count("count"), event, event)),
        }
    }
    groups.sort_by_key(|(_, count, ..)| std::cmp::Reverse(*count));
    let line = |(_, count, first, last): (String, u64, Row<'_>, Row<'_>)| {
        vec![
            count.to_string(),
            clock(first.text("first")).to_owned(),
            clock(last.text("last")).to_owned(),
            last.text("level").to_owned(),
            last.text("text").to_owned(),
        ]
    };
    groups.into_iter().map(line).collect()
}

/// The time of day in a time.
pub(crate) fn clock(time: &str) -> &str {
    time.split(' ').nth(1).unwrap_or(time)
}

fn bundle_of(record: &Record, report: &Report) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        ("report.txt".to_owned(), report.to_text().into_bytes()),
        (
            "report.json".to_owned(),
            format!("{:#}\n", report.as_json()).into_bytes(),
        ),
    ];
    for (name, table) in &record.tables {
        let text = format!("{:#}\n", print::as_json(table));
        files.push((
            format!("tables/{}.json", name.to_lowercase()),
            text.into_bytes(),
        ));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    #[test]
    fn events_of_several_minutes_are_added_up() {
        let events = table(
            "first last age count level text\n\
             2026-01-01~10:00:01~UTC 2026-01-01~10:00:09~UTC 70 3 WARNING waited~5~s\n\
             2026-01-01~10:00:02~UTC 2026-01-01~10:00:02~UTC 69 1 ERROR lost\n\
             2026-01-01~10:01:01~UTC 2026-01-01~10:01:09~UTC 10 4 WARNING waited~12~s",
        );
        let lines = counted(&events);
        assert_eq!(
            lines[0],
            ["7", "10:00:01", "10:01:09", "WARNING", "waited 12 s"]
        );
        assert_eq!(lines.len(), 2);
    }
}
