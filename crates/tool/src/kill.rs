//! `pgweir kill`: ends clients.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::Common;
use crate::console::Console;
use crate::table::Table;
use crate::trouble::{Trouble, Verdict};
use crate::{print, quote, time};

/// How long the last of many clients may take to go.
const KILL_MAX: Duration = Duration::from_secs(60);

/// End clients, chosen by what they are and do
///
/// All conditions have to hold, and there has to be one. A client that is ended in the
/// middle of a transaction has it rolled back; its server connection is cleaned and stays
/// in the pool. Idle server connections are the pool itself and need no killing:
/// server_idle_timeout trims them, and RECONNECT on the console replaces them.
///
/// Conditions can also be written as the console reads them:
///   pgweir kill "app = 'report' AND state = 'idle in transaction' AND held > '5min'"
///
/// Exit codes: 0 done, or listed; 1 nobody fits, or the pooler refuses; 2 the conditions
/// make no sense, or the pooler cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Conditions in the console's words
    #[arg(value_name = "CONDITIONS")]
    conditions: Vec<String>,

    /// Only list who would be ended
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// This client alone: its id in SHOW CLIENTS and in pgweir leaks
    #[arg(long, value_name = "ID", help_heading = "Which clients")]
    client: Option<u32>,

    /// Of this application_name
    #[arg(long, value_name = "NAME", help_heading = "Which clients")]
    app: Option<String>,

    /// Of this database
    #[arg(short, long, value_name = "NAME", help_heading = "Which clients")]
    database: Option<String>,

    /// Logged in as this user
    #[arg(long, value_name = "USER", help_heading = "Which clients")]
    login: Option<String>,

    /// At this address, in this network, or on the Unix socket (unix)
    #[arg(long, value_name = "PLACE", help_heading = "Which clients")]
    address: Option<String>,

    /// In this state: active, idle, "idle in transaction", waiting
    #[arg(long, value_name = "STATE", help_heading = "Which clients")]
    state: Option<String>,

    /// Holding a server for longer than this
    #[arg(long, value_name = "TIME", value_parser = time::parse, help_heading = "Which clients")]
    held: Option<Duration>,

    /// Without a request for longer than this
    #[arg(long, value_name = "TIME", value_parser = time::parse, help_heading = "Which clients")]
    idle: Option<Duration>,

    /// Connected for longer than this
    #[arg(long, value_name = "TIME", value_parser = time::parse, help_heading = "Which clients")]
    age: Option<Duration>,

    #[command(flatten)]
    common: Common,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let conditions = conditions(arguments);
    match (arguments.client, conditions.is_empty()) {
        (Some(id), true) => kill_one(arguments, id).await,
        (None, false) => kill_many(arguments, &conditions).await,
        (Some(_), false) => Err(Trouble::Usage(
            "--client names one client, other conditions make no sense beside it".to_owned(),
        )),
        (None, true) => Err(Trouble::Usage(
            "say which clients: by --app, --held or another condition (pgweir kill --help)"
                .to_owned(),
        )),
    }
}

/// The conditions as the console reads them.
fn conditions(arguments: &Arguments) -> String {
    let equal = |field: &str, value: &Option<String>| {
        let value = value.as_ref()?;
        Some(format!("{field} = {}", quote::text(value)))
    };
    let longer = |field: &str, value: Option<Duration>| {
        let value = value?;
        Some(format!("{field} > {}", quote::time(value)))
    };
    let named = [
        equal("app", &arguments.app),
        equal("database", &arguments.database),
        equal("user", &arguments.login),
        equal("address", &arguments.address),
        equal("state", &arguments.state),
        longer("held", arguments.held),
        longer("idle", arguments.idle),
        longer("age", arguments.age),
    ];
    let mut all: Vec<String> = named.into_iter().flatten().collect();
    if !arguments.conditions.is_empty() {
        all.push(arguments.conditions.join(" "));
    }
    all.join(" AND ")
}

async fn kill_one(arguments: &Arguments, id: u32) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let clients = console.show("CLIENTS").await?;
    let client = clients.only(|row| row.count("id") == u64::from(id));
    if client.is_empty() {
        return Err(Trouble::Refused(format!("there is no client {id}")));
    }
    if !arguments.dry_run {
        console.ask(&format!("KILL_CLIENT {id}"), KILL_MAX).await?;
    }
    tell(arguments, &client, if arguments.dry_run { 0 } else { 1 });
    Ok(Verdict::Fine)
}

async fn kill_many(arguments: &Arguments, conditions: &str) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let order = format!("KILL CLIENTS WHERE {conditions}");
    let listed = console.order(&format!("{order} DRY RUN")).await;
    let listed = listed.map_err(|trouble| match trouble {
        // The console says where a condition makes no sense.
        Trouble::Refused(text) if text.starts_with("syntax error") => Trouble::Usage(text),
        other => other,
    })?;
    let ended = match arguments.dry_run || listed.is_empty() {
        true => 0,
        false => console.ask(&order, KILL_MAX).await?.count,
    };
    tell(arguments, &listed, ended);
    Ok(Verdict::found_if(listed.is_empty()))
}

fn tell(arguments: &Arguments, listed: &Table, ended: u64) {
    if arguments.common.json {
        return print::json(&json!({
            "clients": print::as_json(listed),
            "ended": ended,
            "dry_run": arguments.dry_run,
        }));
    }
    if !listed.is_empty() {
        let columns = [
            "id",
            "database",
            "user",
            "application_name",
            "addr",
            "state",
            "age",
            "idle",
            "held",
        ];
        let known: Vec<&str> = columns
            .into_iter()
            .filter(|name| listed.columns.iter().any(|column| column == name))
            .collect();
        print::out(&print::columns(listed, &known));
    }
    let would_end = print::counted(listed.cells.len() as u64, "client");
    print::out(&match (listed.is_empty(), arguments.dry_run) {
        (true, _) => "no client fits\n".to_owned(),
        (false, true) => format!("{would_end} would be ended\n"),
        (false, false) => format!("{} ended\n", print::counted(ended, "client")),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn parsed(words: &[&str]) -> String {
        let words = ["pgweir", "kill"].iter().chain(words);
        match Cli::try_parse_from(words).expect("a command line").command {
            Command::Kill(arguments) => conditions(&arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_conditions_of_the_console() {
        assert_eq!(
            parsed(&[
                "--app",
                "it's",
                "--held",
                "5min",
                "--state",
                "idle in transaction"
            ]),
            "app = 'it''s' AND state = 'idle in transaction' AND held > '300000ms'"
        );
        assert_eq!(
            parsed(&["--database", "shop", "age > '1h'", "AND user != bob"]),
            "database = 'shop' AND age > '1h' AND user != bob"
        );
        assert_eq!(parsed(&[]), "");
    }
}
