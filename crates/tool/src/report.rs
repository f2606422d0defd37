//! `pgweir report`: limits beside what was needed of them, for a look once a week.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::Args;
use serde_json::json;

use crate::cli::Common;
use crate::console::Console;
use crate::table::{Row, Table};
use crate::trouble::{Trouble, Verdict};
use crate::{leaks, print, time};

/// A limit of which at most this part was ever used is larger than it has to be, in percent.
const UNUSED: u64 = 30;

/// A limit of which this part was used is nearly reached, in percent.
const TIGHT: u64 = 80;

/// Limits beside what was needed of them, since the pooler was started
///
/// Lists every limit with its highest use, says which are reached or nearly so and which are
/// much larger than what was ever needed, which applications held servers in silence, what
/// is changed for a while and by whom, and what the log has said most often.
///
/// Exit codes: 0 nothing to do; 1 something is advised; 2 the pooler cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
}

/// What a limit looks like after a while.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Advice {
    limit: String,
    text: String,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let budget = console.show("BUDGET").await?;
    let found = console.show("LEAKS").await?;
    let overrides = console.show("OVERRIDES").await?;
    let quarantine = console.show("QUARANTINE").await?;
    let advice = advise(&budget, &found, &quarantine);
    if arguments.common.json {
        print::json(&json!({
            "limits": print::as_json(&budget),
            "leaks_by_application": by_application(&found),
            "overrides": print::as_json(&overrides),
            "quarantine": print::as_json(&quarantine),
            "advice": advice.iter().map(|a| json!({"limit": a.limit, "text": a.text})).collect::<Vec<_>>(),
        }));
    } else {
        print::out(&text(&budget, &found, &overrides, &advice));
    }
    Ok(Verdict::found_if(!advice.is_empty()))
}

/// The most that was used of a limit, as far as it was counted.
fn peak(row: Row<'_>) -> u64 {
    row.number("peak").unwrap_or(0).max(row.count("used"))
}

fn percent(row: Row<'_>) -> Option<u64> {
    let limit = row.number("limit").filter(|limit| *limit > 0)?;
    Some(peak(row).saturating_mul(100) / limit)
}

fn name(row: Row<'_>) -> String {
    match row.text("subject") {
        "" => row.text("name").to_owned(),
        subject => format!("{} of {subject}", row.text("name")),
    }
}

fn advise(budget: &Table, found: &Table, quarantine: &Table) -> Vec<Advice> {
    let mut advice = Vec::new();
    for row in budget.rows() {
        let Some(percent) = percent(row) else {
            continue;
        };
        let (most, limit) = (peak(row), row.text("limit"));
        // What PostgreSQL and the system have is not ours to make smaller.
        // Nor are limits on clients and on logins, which cost nothing while they are not used.
        let is_ours = row.text("source") == "config" && row.number("peak").is_some();
        let of_servers =
            row.text("name").ends_with("_connections") && !row.text("name").contains("client");
        let text = if percent >= 100 && row.text("name") != "pool_size" {
            format!("was reached ({most} of {limit}): clients have waited, or were refused")
        } else if percent >= TIGHT && row.text("name") != "pool_size" {
            format!("is nearly reached: {most} of {limit}")
        } else if is_ours && of_servers && percent <= UNUSED && most > 0 && row.count("limit") >= 10
        {
            format!("is much larger than needed: at most {most} of {limit} were used")
        } else {
            continue;
        };
        advice.push(Advice {
            limit: name(row),
            text,
        });
    }
    for (app, count) in by_application(found) {
        let app = if app.is_empty() {
            "a nameless application".to_owned()
        } else {
            app
        };
        let servers = print::counted(count, "server");
        advice.push(Advice {
            limit: app,
            text: format!("held {servers} in silence: pgweir leaks --all shows its statements"),
        });
    }
    if !quarantine.is_empty() {
        advice.push(Advice {
            limit: "quarantine".to_owned(),
            text: format!(
                "{} not closed by PostgreSQL in time (SHOW QUARANTINE)",
                print::counted(quarantine.cells.len() as u64, "server")
            ),
        });
    }
    advice
}

fn by_application(found: &Table) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let silent = |row: &Row<'_>| matches!(row.text("kind"), "silent" | "");
    for row in found.rows().filter(silent) {
        *counts
            .entry(row.text("application_name").to_owned())
            .or_default() += 1;
    }
    counts
}

fn text(budget: &Table, found: &Table, overrides: &Table, advice: &[Advice]) -> String {
    let mut text = String::from("limits and the highest use of them since the start:\n");
    let mut lines = vec![
        ["limit", "used", "highest", "of", "percent"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for row in budget.rows().filter(|row| row.get("limit").is_some()) {
        lines.push(vec![
            name(row),
            row.text("used").to_owned(),
            row.number("peak")
                .map_or_else(|| "-".to_owned(), |peak| peak.to_string()),
            row.text("limit").to_owned(),
            percent(row).map_or_else(|| "-".to_owned(), |percent| percent.to_string()),
        ]);
    }
    for line in print::aligned(&lines).lines() {
        let _ = writeln!(text, "  {line}");
    }
    let open = found.only(leaks::is_silent).cells.len();
    let _ = writeln!(
        text,
        "\nleaks that are remembered: {}, {open} of them open",
        found.cells.len()
    );
    for row in overrides.rows() {
        let remaining = time::words(std::time::Duration::from_secs(row.count("remaining")));
        let _ = writeln!(
            text,
            "changed for a while: {} = {} by {}, for another {remaining}",
            row.text("key"),
            row.text("value"),
            row.text("by"),
        );
    }
    match advice {
        [] => text.push_str("\nnothing to do\n"),
        advice => {
            text.push_str("\nto look at:\n");
            for Advice { limit, text: told } in advice {
                let _ = writeln!(text, "  - {limit} {told}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    #[test]
    fn limits_are_compared_with_their_peaks() {
        let budget = table(
            "name subject used limit peak source\n\
             max_client_conn - 5 100 100 config\n\
             max_db_connections shop 3 50 4 config\n\
             max_host_connections db:5432 3 10 8 config\n\
             max_user_connections bob 3 10 6 config\n\
             open~files - 50 1024 - system\n\
             pool_size shop/bob 3 3 - config",
        );
        let advice = advise(&budget, &Table::default(), &Table::default());
        let told: Vec<String> = advice
            .iter()
            .map(|a| format!("{} {}", a.limit, a.text))
            .collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("max_client_conn was reached (100 of 100)"));
        assert!(told[1].starts_with("max_db_connections of shop is much larger"));
        assert!(told[2].starts_with("max_host_connections of db:5432 is nearly reached"));
    }

    #[test]
    fn leaks_are_counted_by_application() {
        let found = table("stage application_name\nresolved cron\nconfirmed cron\nresolved web");
        let advice = advise(&Table::default(), &found, &Table::default());
        assert_eq!(advice.len(), 2);
        assert_eq!(advice[0].limit, "cron");
        assert!(advice[0].text.starts_with("held 2 servers in silence"));
    }
}
