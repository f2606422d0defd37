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
/// much larger than what was ever needed, how large a pool had to be, which applications
/// held servers in silence or gave up waiting, which statements took long, and what is
/// changed for a while and by whom.
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
    let apps = console.show("APPS").await?;
    let statements = console.show_if_known("STATEMENTS").await?;
    let times = console.show_if_known("STATS_HIST").await?;
    let stats = console.show("STATS").await?;
    let config = console.show("CONFIG").await?;
    let mut advice = advise(&budget, &found, &quarantine, &times);
    advice.extend(impatient(&apps, &config));
    if arguments.common.json {
        print::json(&json!({
            "limits": print::as_json(&budget),
            "leaks_by_application": by_application(&found),
            "overrides": print::as_json(&overrides),
            "quarantine": print::as_json(&quarantine),
            "slow_statements": print::as_json(&statements),
            "advice": advice.iter().map(|a| json!({"limit": a.limit, "text": a.text})).collect::<Vec<_>>(),
        }));
    } else {
        print::out(&text(&budget, &found, &overrides, &advice));
        print::out(&more(&stats, &times, &statements));
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

fn advise(budget: &Table, found: &Table, quarantine: &Table, times: &Table) -> Vec<Advice> {
    let mut advice = Vec::new();
    for row in budget.rows() {
        let Some(percent) = percent(row) else {
            continue;
        };
        let (most, limit) = (peak(row), row.text("limit"));
        // What PostgreSQL and the system have is not ours to make smaller.
        // Nor are limits on clients and on logins, which cost nothing while they are not used.
        let is_set = matches!(row.text("source"), "config" | "fleet");
        let is_ours = is_set && row.number("peak").is_some();
        let of_servers =
            row.text("name").ends_with("_connections") && !row.text("name").contains("client");
        let text = if percent >= 100 && row.text("name") != "pool_size" {
            format!("was reached ({most} of {limit}): clients have waited, or were refused")
        } else if percent >= TIGHT && row.text("name") != "pool_size" {
            format!("is nearly reached: {most} of {limit}")
        } else if row.text("name") == "pool_size" && percent >= 100 && waits(row, times) {
            format!(
                "was used up, and clients waited for longer than {WAIT_MAX_MS} ms: more servers help if \
                 PostgreSQL has room for them (pgweir budget), shorter transactions in any case"
            )
        } else if row.text("name") == "pool_size"
            && is_ours
            && percent <= UNUSED
            && most > 0
            && row.count("limit") >= 10
        {
            let size = enough(most);
            format!("was never needed: {most} servers of {limit} at most; {size} would do")
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

/// A wait of one client in a hundred that is worth a larger pool.
const WAIT_MAX_MS: u64 = 100;

/// Whether clients of a pool's database waited for long.
fn waits(pool: Row<'_>, times: &Table) -> bool {
    let database = pool.text("subject").split('/').next().unwrap_or_default();
    times.rows().any(|time| {
        time.text("database") == database
            && time.text("time") == "wait"
            && time.count("p99_us") >= WAIT_MAX_MS * 1_000
    })
}

/// A size that leaves half as much again as was ever needed, and two more.
fn enough(most: u64) -> u64 {
    most + most.div_ceil(2) + 2
}

/// Applications whose clients went while they waited, sooner than `query_wait_timeout` would have
/// told them why.
fn impatient(apps: &Table, config: &Table) -> Vec<Advice> {
    let limit = config.find("key", "query_wait_timeout");
    let limit = limit.map_or("", |row| row.text("value"));
    let limit_ms = limit
        .parse::<f64>()
        .map_or(0.0, |seconds| seconds * 1_000.0);
    let gave_up = apps.rows().filter(|row| row.count("gave_up") > 0);
    let sooner =
        gave_up.filter(|row| limit_ms == 0.0 || (row.count("gave_up_after_ms") as f64) < limit_ms);
    let advice = |row: Row<'_>| {
        let after = time::millis(row.count("gave_up_after_ms"));
        let clients = print::counted(row.count("gave_up"), "client");
        Advice {
            limit: match row.text("application_name") {
                "" => "a nameless application".to_owned(),
                app => app.to_owned(),
            },
            text: format!(
                "does not wait for query_wait_timeout ({limit} s): {clients} left the queue after {after} at most; \
                 a timeout below the application's own tells it what was missing"
            ),
        }
    };
    sooner.map(advice).collect()
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

/// Slow statements that are listed.
const STATEMENTS_MAX: usize = 5;

/// What was slow, and how many servers the load needs by itself.
fn more(stats: &Table, times: &Table, statements: &Table) -> String {
    let mut text = String::new();
    for row in stats.rows() {
        let database = row.text("database");
        let holds = times
            .rows()
            .find(|time| time.text("database") == database && time.text("time") == "hold");
        // In session pooling one lease has many transactions.
        let (rate, hold_us) = (
            row.count("avg_server_assignment_count"),
            holds.map_or(0, |time| time.count("avg_us")),
        );
        if rate == 0 || hold_us == 0 {
            continue;
        }
        // Little's law.
        let busy = rate as f64 * hold_us as f64 / 1_000_000.0;
        let hold_ms = hold_us as f64 / 1_000.0;
        let _ = writeln!(
            text,
            "{database}: {rate} leases per second, each of a server for {hold_ms:.1} ms: \
             {busy:.1} servers in use on average"
        );
    }
    for row in statements.rows().take(STATEMENTS_MAX) {
        let _ = writeln!(
            text,
            "slow: {} times, {} each, {} at most, in {} for {}: {}",
            row.text("count"),
            time::millis(row.count("mean_ms")),
            time::millis(row.count("max_ms")),
            row.text("database"),
            row.text("application_name"),
            row.text("statement"),
        );
    }
    text
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
             pool_size shop/bob 3 3 3 config\n\
             pool_size shop/ann 1 40 4 config\n\
             pool_size blog/bob 3 3 3 config",
        );
        let times = table("database time p99_us\nshop wait 200000\nblog wait 10");
        let advice = advise(&budget, &Table::default(), &Table::default(), &times);
        let told: Vec<String> = advice
            .iter()
            .map(|a| format!("{} {}", a.limit, a.text))
            .collect();
        assert_eq!(told.len(), 5, "{told:?}");
        assert!(told[3].starts_with("pool_size of shop/bob was used up, and clients waited"));
        assert!(told[4].ends_with("4 servers of 40 at most; 8 would do"));
        assert!(told[0].starts_with("max_client_conn was reached (100 of 100)"));
        assert!(told[1].starts_with("max_db_connections of shop is much larger"));
        assert!(told[2].starts_with("max_host_connections of db:5432 is nearly reached"));
    }

    #[test]
    fn what_the_load_needs_is_leases_times_hold() {
        let stats =
            table("database avg_server_assignment_count avg_xact_count\nshop 200 9000\nidle 0 0");
        let times = table("database time avg_us\nshop hold 40000\nshop wait 7");
        let slow = table(
            "database application_name count mean_ms max_ms statement\nshop web 3 1500 2000 select~pg_sleep(?)",
        );
        let text = more(&stats, &times, &slow);
        assert!(
            text.contains(
                "200 leases per second, each of a server for 40.0 ms: 8.0 servers in use"
            ),
            "{text}"
        );
        assert!(text.contains("slow: 3 times"), "{text}");
        assert!(!text.contains("idle"), "{text}");
    }

    #[test]
    fn who_does_not_wait_long_enough_is_told() {
        let apps = table(
            "application_name gave_up gave_up_after_ms\nweb 3 5000\nbatch 1 200000\nidle 0 0",
        );
        let config = table("key value\nquery_wait_timeout 120");
        let advice = impatient(&apps, &config);
        assert_eq!(advice.len(), 1);
        assert_eq!(advice[0].limit, "web");
        assert!(
            advice[0].text.contains("3 clients left the queue after 5"),
            "{advice:?}"
        );
    }

    #[test]
    fn leaks_are_counted_by_application() {
        let found = table("stage application_name\nresolved cron\nconfirmed cron\nresolved web");
        let advice = advise(
            &Table::default(),
            &found,
            &Table::default(),
            &Table::default(),
        );
        assert_eq!(advice.len(), 2);
        assert_eq!(advice[0].limit, "cron");
        assert!(advice[0].text.starts_with("held 2 servers in silence"));
    }
}
