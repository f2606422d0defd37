//! `pgweir maintenance`: keeps new transactions out of a database for a while.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cli::Common;
use crate::console::Console;
use crate::leaks::who;
use crate::table::Table;
use crate::trouble::{Trouble, Verdict};
use crate::{print, quote, time};

/// How often it is looked whether servers have come back.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Let no new transactions of a database begin, for a restart of PostgreSQL or a failover
///
/// Transactions under way go to their end, and their server connections are closed. Clients
/// stay connected: with --mode hold they wait, with --mode reject they are told 57P03 and
/// the message. A hold ends by itself, after 15 minutes if nothing else is said.
///
/// Exit codes: 0 done; 1 with --wait: transactions are still under way, or the pooler
/// refuses; 2 the pooler cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Begin
    On(On),
    /// End
    Off {
        /// Which database
        #[arg(value_name = "DATABASE")]
        database: String,

        #[command(flatten)]
        common: Common,
    },
    /// Show which databases are under maintenance
    Status {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Debug)]
struct On {
    /// Which database
    #[arg(value_name = "DATABASE")]
    database: String,

    /// What becomes of clients that want to begin something
    #[arg(long, value_enum, default_value_t = Mode::Hold)]
    mode: Mode,

    /// What clients that are refused are told
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,

    /// When it ends by itself
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    ttl: Option<Duration>,

    /// Wait so long for transactions to end, and say who is left
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    wait: Option<Duration>,

    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// They wait
    Hold,
    /// They are refused
    Reject,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    match &arguments.what {
        What::On(on) => begin(on).await,
        What::Off { database, common } => {
            let console = Console::open(common).await?;
            let order = format!("MAINTENANCE OFF {}", quote::name(database));
            console.order(&order).await?;
            match common.json {
                true => print::json(&json!({ "database": database, "maintenance": false })),
                false => print::out(&format!("{database} is open\n")),
            }
            Ok(Verdict::Fine)
        }
        What::Status { common } => {
            let console = Console::open(common).await?;
            let table = console.show("MAINTENANCE").await?;
            match common.json {
                true => print::json(&print::as_json(&table)),
                false => print::out(&status(&table)),
            }
            Ok(Verdict::Fine)
        }
    }
}

async fn begin(on: &On) -> Result<Verdict, Trouble> {
    let console = Console::open(&on.common).await?;
    console.order(&order(on)).await?;
    let left = match on.wait {
        Some(patience) => until_quiet(&console, &on.database, patience).await?,
        None => Table::default(),
    };
    let table = console.show("MAINTENANCE").await?;
    let table = table.only(|row| row.text("database") == on.database);
    if on.common.json {
        print::json(&json!({
            "maintenance": print::as_json(&table),
            "still_busy": print::as_json(&left),
        }));
    } else {
        print::out(&status(&table));
        for row in left.rows() {
            let held = time::millis(row.count("held_ms"));
            let state = row.text("state");
            print::out(&format!("still busy: {}, {state}, for {held}\n", who(row)));
        }
    }
    Ok(Verdict::found_if(!left.is_empty()))
}

fn order(on: &On) -> String {
    let mode = match on.mode {
        Mode::Hold => "hold",
        Mode::Reject => "reject",
    };
    let mut order = format!("MAINTENANCE ON {} MODE {mode}", quote::name(&on.database));
    if let Some(message) = &on.message {
        order.push_str(&format!(" MESSAGE {}", quote::text(message)));
    }
    if let Some(ttl) = on.ttl {
        order.push_str(&format!(" TTL {}", quote::time(ttl)));
    }
    order
}

/// Waits until nobody holds a server of the database; who still does.
async fn until_quiet(
    console: &Console,
    database: &str,
    patience: Duration,
) -> Result<Table, Trouble> {
    let deadline = Instant::now() + patience;
    loop {
        let holders = console.show("HOLDERS").await?;
        let left = holders.only(|row| row.text("database") == database);
        if left.is_empty() || Instant::now() >= deadline {
            return Ok(left);
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn status(table: &Table) -> String {
    if table.is_empty() {
        return "no database is under maintenance\n".to_owned();
    }
    let one = |row: crate::table::Row<'_>| {
        let until = match row.number("remaining") {
            Some(seconds) => format!("ends in {}", time::words(Duration::from_secs(seconds))),
            None => "until it is ended".to_owned(),
        };
        format!(
            "{}: mode {}, {until}, {} waiting, {} still busy, ordered by {}: {}\n",
            row.text("database"),
            row.text("mode"),
            print::counted(row.count("waiting"), "client"),
            print::counted(row.count("busy"), "server"),
            row.text("by"),
            row.text("message"),
        )
    };
    table.rows().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use crate::testing::table;
    use clap::Parser as _;

    fn on(words: &[&str]) -> String {
        let words = ["pgweir", "maintenance", "on"].iter().chain(words);
        let cli = Cli::try_parse_from(words).expect("a command line");
        match cli.command {
            Command::Maintenance(Arguments { what: What::On(on) }) => order(&on),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_order_is_the_consoles() {
        assert_eq!(on(&["shop"]), "MAINTENANCE ON \"shop\" MODE hold");
        assert_eq!(
            on(&[
                "shop",
                "--mode",
                "reject",
                "--message",
                "it's off",
                "--ttl",
                "2h"
            ]),
            "MAINTENANCE ON \"shop\" MODE reject MESSAGE 'it''s off' TTL '7200000ms'"
        );
    }

    #[test]
    fn a_status_is_a_sentence() {
        let table = table(
            "database mode message waiting busy by since remaining\nshop hold back~soon 1 2 ops now 90",
        );
        assert_eq!(
            status(&table),
            "shop: mode hold, ends in 90 s, 1 client waiting, 2 servers still busy, ordered by ops: back soon\n"
        );
    }
}
