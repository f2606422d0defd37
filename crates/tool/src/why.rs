//! `pgweir why`: what the clients of a database wait for.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::Common;
use crate::console::Console;
use crate::table::Table;
use crate::trouble::{Trouble, Verdict};
use crate::{print, quote};

/// How long the pooler may have to wait for PostgreSQL's answer.
pub(crate) const WHY_MAX: Duration = Duration::from_secs(40);

/// What the clients of a database wait for
///
/// Joins what the pooler knows (who waits for a server and for which limit, who holds one
/// and says nothing, whose statement has been running for long) with what PostgreSQL knows
/// (which session blocks which), and names the client behind the session that all others
/// wait for. PostgreSQL is asked on an idle server connection; where there is none, on one
/// more, which is closed at once and counts in every limit but pool_size.
///
/// Exit codes: 0 nobody waits; 1 somebody does; 2 the pooler cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Which database
    #[arg(value_name = "DATABASE")]
    database: String,

    #[command(flatten)]
    common: Common,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let table = ask(&console, &arguments.database).await?;
    match arguments.common.json {
        true => {
            print::json(&json!({ "database": arguments.database, "why": print::as_json(&table) }))
        }
        false => print::out(&story(&table)),
    }
    let waits = table.rows().any(|row| row.count("waiting") > 0);
    Ok(Verdict::found_if(waits))
}

pub(crate) async fn ask(console: &Console, database: &str) -> Result<Table, Trouble> {
    let order = format!("WHY {}", quote::name(database));
    console.ask(&order, WHY_MAX).await
}

fn story(table: &Table) -> String {
    table
        .rows()
        .map(|row| format!("{}\n", row.text("text")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    #[test]
    fn a_row_is_a_line() {
        let table = table("kind waiting text\nlock 2 two~servers~wait\nsilent 0 bob~is~silent");
        assert_eq!(story(&table), "two servers wait\nbob is silent\n");
    }
}
