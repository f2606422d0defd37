//! `pgweir top`: how the pools stand, live.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cli::Common;
use crate::console::Console;
use crate::doctor::longest_wait;
use crate::table::{Row, Table};
use crate::trouble::{Trouble, Verdict};
use crate::{leaks, print, time};

/// Clears what was on the terminal and begins at its upper left.
const CLEAR: &str = "\x1b[H\x1b[J";

/// The terminal's second page, and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// How the pools stand, live
///
/// One line for each pool, at its end what all pools of its database do: queries per second,
/// and the mean time of a query and of a transaction. Then the limits that clients wait for,
/// and who has held a server for longest. Ends with Ctrl-C. With --once it prints one look,
/// over one interval, for scripts; where the output is no terminal, looks follow each other.
///
/// Exit codes: 0 it was shown; 2 the pooler cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// One look
    #[arg(long)]
    once: bool,

    /// Between two looks
    #[arg(short, long, value_name = "TIME", value_parser = time::parse, default_value = "1s")]
    interval: Duration,

    /// Pools, and holders, that are shown at most
    #[arg(short, long, value_name = "N", default_value_t = 15)]
    lines: usize,

    #[command(flatten)]
    common: Common,
}

/// What was seen at one moment.
#[derive(Debug, Default)]
struct Look {
    pools: Table,
    totals: Table,
    holders: Table,
    leaks: Table,
    budget: Table,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let is_live = std::io::stdout().is_terminal() && !arguments.once && !arguments.common.json;
    if is_live {
        print::out(ENTER);
    }
    let shown = tokio::select! {
        shown = show(&console, arguments, is_live) => shown,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if is_live {
        print::out(LEAVE);
    }
    shown.map(|()| Verdict::Fine)
}

async fn show(console: &Console, arguments: &Arguments, is_live: bool) -> Result<(), Trouble> {
    let mut before = look(console).await?;
    loop {
        let began = Instant::now();
        sleep(arguments.interval.max(Duration::from_millis(100))).await;
        let after = look(console).await?;
        if arguments.common.json {
            print::out(&format!("{}\n", after.as_json(&before, began.elapsed())));
        } else {
            let clear = if is_live { CLEAR } else { "" };
            let frame = frame(&before, &after, began.elapsed(), arguments.lines);
            print::out(&format!("{clear}{frame}"));
        }
        if arguments.once {
            return Ok(());
        }
        before = after;
    }
}

async fn look(console: &Console) -> Result<Look, Trouble> {
    Ok(Look {
        pools: console.show("POOLS").await?,
        totals: console.show("STATS_TOTALS").await?,
        holders: console.show_if_known("HOLDERS").await?,
        leaks: console.show_if_known("LEAKS").await?.only(leaks::is_silent),
        budget: console.show_if_known("BUDGET").await?,
    })
}

/// What a counter of a database has risen by, per second.
fn rate(before: &Look, after: &Look, database: &str, column: &str, elapsed: Duration) -> f64 {
    risen(before, after, database, column) as f64 / elapsed.as_secs_f64().max(0.001)
}

fn risen(before: &Look, after: &Look, database: &str, column: &str) -> u64 {
    let of = |look: &Look| {
        let row = look.totals.find("database", database);
        row.map_or(0, |row| row.count(column))
    };
    of(after).saturating_sub(of(before))
}

/// Mean time of what was counted between two looks.
fn mean(before: &Look, after: &Look, database: &str, spent: &str, count: &str) -> Duration {
    let count = risen(before, after, database, count);
    let spent = risen(before, after, database, spent);
    Duration::from_micros(spent.checked_div(count).unwrap_or(0))
}

fn busiest_first(pools: &Table) -> Vec<Row<'_>> {
    let mut rows: Vec<_> = pools
        .rows()
        .filter(|row| row.text("database") != "pgbouncer")
        .collect();
    rows.sort_by_key(|row| {
        let (waiting, busy) = (row.count("cl_waiting"), row.count("sv_active"));
        std::cmp::Reverse((waiting, busy, row.count("cl_active")))
    });
    rows
}

fn frame(before: &Look, after: &Look, elapsed: Duration, lines_max: usize) -> String {
    let pools = busiest_first(&after.pools);
    let sum = |column| -> u64 { pools.iter().map(|row| row.count(column)).sum() };
    let mut text = format!(
        "pgweir top: {} at work or idle, {} waiting; servers: {} at work, {} idle, {} logging in\n\n",
        print::counted(sum("cl_active"), "client"),
        sum("cl_waiting"),
        sum("sv_active"),
        sum("sv_idle") + sum("sv_used"),
        sum("sv_login"),
    );
    let heading = [
        "database",
        "user",
        "clients",
        "waiting",
        "wait",
        "busy",
        "idle",
        "login",
        "db queries/s",
        "db query",
        "db xact",
    ];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    for row in pools.iter().take(lines_max) {
        let database = row.text("database");
        let queries = rate(before, after, database, "query_count", elapsed);
        lines.push(vec![
            database.to_owned(),
            row.text("user").to_owned(),
            row.text("cl_active").to_owned(),
            row.text("cl_waiting").to_owned(),
            time::words(longest_wait(*row)),
            row.text("sv_active").to_owned(),
            (row.count("sv_idle") + row.count("sv_used")).to_string(),
            row.text("sv_login").to_owned(),
            format!("{queries:.0}"),
            time::words(mean(before, after, database, "query_time", "query_count")),
            time::words(mean(before, after, database, "xact_time", "xact_count")),
        ]);
    }
    text.push_str(&print::aligned(&lines));
    let left = pools.len().saturating_sub(lines_max);
    if left > 0 {
        let _ = writeln!(text, "... and {left} more");
    }
    limits(after, &mut text);
    holders(after, lines_max, &mut text);
    text
}

fn limits(look: &Look, text: &mut String) {
    let mut reached = look
        .budget
        .rows()
        .filter(|row| row.text("binding") == "yes")
        .peekable();
    if reached.peek().is_some() {
        text.push_str("\nlimits reached:\n");
    }
    for row in reached {
        let _ = writeln!(
            text,
            "  {} {}: {} of {}, {} waiting",
            row.text("name"),
            row.text("subject"),
            row.text("used"),
            row.text("limit"),
            print::counted(row.count("waiting"), "client"),
        );
    }
}

fn holders(look: &Look, lines_max: usize, text: &mut String) {
    if look.holders.is_empty() {
        return;
    }
    let suspects = match look.leaks.cells.len() {
        0 => String::new(),
        count => format!(
            " ({} in silence: pgweir leaks)",
            print::counted(count as u64, "suspect")
        ),
    };
    let _ = writeln!(text, "\nservers held for longest{suspects}:");
    let heading = [
        "held",
        "silent",
        "state",
        "application",
        "address",
        "user",
        "database",
    ];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    for row in look.holders.rows().take(lines_max) {
        let mut line = vec![
            time::millis(row.count("held_ms")),
            time::millis(row.count("silent_ms")),
        ];
        let columns = ["state", "application_name", "addr", "user", "database"];
        line.extend(columns.map(|column| row.text(column).to_owned()));
        lines.push(line);
    }
    text.push_str(&print::aligned(&lines));
}

impl Look {
    fn as_json(&self, before: &Self, elapsed: Duration) -> serde_json::Value {
        let databases = self.totals.rows().map(|row| {
            let database = row.text("database");
            json!({
                "database": database,
                "queries_per_second": rate(before, self, database, "query_count", elapsed),
                "transactions_per_second": rate(before, self, database, "xact_count", elapsed),
            })
        });
        json!({
            "pools": print::as_json(&self.pools),
            "databases": databases.collect::<Vec<_>>(),
            "holders": print::as_json(&self.holders),
            "leaks": print::as_json(&self.leaks),
            "limits_reached": print::as_json(&self.budget.only(|row| row.text("binding") == "yes")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    fn look_at(queries: &str, spent: &str) -> Look {
        Look {
            pools: table(
                "database user cl_active cl_waiting sv_active sv_idle sv_used sv_login maxwait maxwait_us\n\
                 blog ann 1 0 0 1 0 0 0 0\nshop bob 7 2 3 0 0 1 4 0",
            ),
            totals: table(&format!(
                "database query_count query_time xact_count xact_time\nshop {queries} {spent} 0 0"
            )),
            budget: table("name subject used limit waiting binding\npool_size shop/bob 3 3 2 yes"),
            ..Look::default()
        }
    }

    #[test]
    fn who_waits_comes_first_with_rates_and_limits() {
        let (before, after) = (look_at("100", "0"), look_at("300", "400000"));
        let text = frame(&before, &after, Duration::from_secs(2), 10);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].contains("8 clients at work or idle, 2 waiting"),
            "{text}"
        );
        assert!(
            lines[2].ends_with("db queries/s  db query  db xact"),
            "{text}"
        );
        assert!(
            lines[3].starts_with("shop") && lines[3].contains(" 100 "),
            "{text}"
        );
        assert!(lines[3].contains("2 ms"), "{text}");
        assert!(
            text.contains("pool_size shop/bob: 3 of 3, 2 clients waiting"),
            "{text}"
        );
        let short = frame(&before, &after, Duration::from_secs(2), 1);
        assert!(short.contains("... and 1 more"), "{short}");
    }
}
