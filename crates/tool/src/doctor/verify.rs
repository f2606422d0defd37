//! `--verify`: whether all was well for a while.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::console::Console;
use crate::table::Table;
use crate::trouble::Trouble;
use crate::{leaks, print, time};

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// A wait that is shorter is how a pool works.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    watched: Duration,
    looks: u64,
    /// The longest wait, and where.
    waits: Vec<String>,
    errors: Vec<String>,
    leaks: Vec<String>,
}

/// Looks once a second.
pub(super) async fn watch(console: &Console, watched: Duration) -> Result<Seen, Trouble> {
    let began = Instant::now();
    let mut seen = Seen {
        watched,
        ..Seen::default()
    };
    loop {
        let pools = console.show("POOLS").await?;
        let leaks = console.show("LEAKS").await?;
        seen.look(&pools, &leaks);
        if began.elapsed() >= watched {
            break;
        }
        sleep(PERIOD.min(watched)).await;
    }
    let samples = console.show_if_known("SAMPLES").await?;
    let events = console.show_if_known("EVENTS").await?;
    seen.look_back(&samples, &events, watched.as_secs());
    Ok(seen)
}

impl Seen {
    pub(super) fn is_well(&self) -> bool {
        self.waits.is_empty() && self.errors.is_empty() && self.leaks.is_empty()
    }

    fn look(&mut self, pools: &Table, open: &Table) {
        self.looks += 1;
        for pool in pools.rows() {
            let wait = super::causes::longest_wait(pool);
            if pool.count("cl_waiting") > 0 && wait > WAIT_MAX {
                let (database, user) = (pool.text("database"), pool.text("user"));
                note(
                    &mut self.waits,
                    format!("clients waited in {database}/{user}"),
                );
            }
        }
        for leak in open.rows().filter(|leak| leaks::is_silent(*leak)) {
            note(
                &mut self.leaks,
                format!("a server is held in silence by {}", leaks::who(leak)),
            );
        }
    }

    /// What happened between two looks.
    fn look_back(&mut self, samples: &Table, events: &Table, seconds: u64) {
        let long = u64::try_from(WAIT_MAX.as_millis()).unwrap_or(0);
        for sample in samples
            .rows()
            .filter(|row| row.count("age") < seconds.max(1))
        {
            let database = sample.text("database");
            if sample.count("oldest_wait_ms") > long {
                note(&mut self.waits, format!("clients waited in {database}"));
            }
            if let Some(failure) = sample.get("failure") {
                note(
                    &mut self.errors,
                    format!("a server of {database} could not be opened: {failure}"),
                );
            }
        }
        for event in events
            .rows()
            .filter(|row| row.count("age") < seconds.max(1))
        {
            if matches!(event.text("level"), "WARNING" | "ERROR" | "FATAL") {
                note(&mut self.errors, event.text("text").to_owned());
            }
        }
    }

    pub(super) fn as_json(&self) -> Value {
        json!({
            "seconds": self.watched.as_secs(),
            "looks": self.looks,
            "well": self.is_well(),
            "waits": self.waits,
            "errors": self.errors,
            "leaks": self.leaks,
        })
    }
}

/// Notes something once.
fn note(list: &mut Vec<String>, text: String) {
    if !list.contains(&text) {
        list.push(text);
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watched = time::words(self.watched);
        if self.is_well() {
            return writeln!(
                f,
                "verified for {watched}: nobody waited, nothing failed, no leaks"
            );
        }
        writeln!(f, "NOT WELL within {watched}:")?;
        for line in self.waits.iter().chain(&self.errors).chain(&self.leaks) {
            writeln!(f, "  - {line}")?;
        }
        let parts = [
            print::counted(self.waits.len() as u64, "pool"),
            print::counted(self.errors.len() as u64, "kind"),
            print::counted(self.leaks.len() as u64, "leak"),
        ];
        writeln!(
            f,
            "  {} with waits, {} of errors, {}",
            parts[0], parts[1], parts[2]
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    #[test]
    fn a_wait_a_failure_or_a_leak_is_not_well() {
        let nothing = Table::default();
        let pools = |wait: &str| {
            table(&format!(
                "database user cl_waiting maxwait maxwait_us\nshop bob 2 {wait} 0"
            ))
        };
        let mut seen = Seen::default();
        seen.look(&pools("0"), &nothing);
        assert!(seen.is_well());
        seen.look(&pools("2"), &nothing);
        assert!(!seen.is_well());

        let mut seen = Seen::default();
        let events = table("age level text\n5 WARNING lost\n50 ERROR old\n5 LOG fine");
        seen.look_back(&nothing, &events, 10);
        assert_eq!(seen.errors, ["lost"]);

        let mut seen = Seen::default();
        seen.look(&pools("0"), &table("stage application_name\nconfirmed x"));
        assert_eq!(seen.leaks.len(), 1);
        assert!(seen.to_string().starts_with("NOT WELL"));
    }
}
