//! `pgweir drain`: sends all clients of a database away.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::Common;
use crate::console::Console;
use crate::trouble::{Trouble, Verdict};
use crate::{print, quote, time};

/// How much longer than it was told a drain may take.
const GRACE: Duration = Duration::from_secs(30);

/// Send all clients of a database away, each between two of its transactions
///
/// No transaction that was begun is cut within the time; whoever is left then is ended in
/// the middle, and listed. Logins are refused while it lasts (57P03: another host may serve
/// them). Afterwards the database is as open as before: for keeping it shut there is
/// pgweir maintenance on.
///
/// Exit codes: 0 everybody left between transactions; 1 some had to be cut, or the pooler
/// refuses; 2 the pooler cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Which database
    #[arg(value_name = "DATABASE")]
    database: String,

    /// How long transactions may go on
    #[arg(long, value_name = "TIME", value_parser = time::parse, default_value = "30s")]
    within: Duration,

    #[command(flatten)]
    common: Common,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let within = quote::time(arguments.within);
    let order = format!("DRAIN {} WITHIN {within}", quote::name(&arguments.database));
    let cut = console.ask(&order, arguments.within + GRACE).await?;
    if arguments.common.json {
        print::json(&json!({
            "database": arguments.database,
            "ended": cut.count,
            "cut": print::as_json(&cut),
        }));
        return Ok(Verdict::found_if(!cut.is_empty()));
    }
    if !cut.is_empty() {
        let columns = ["id", "user", "application_name", "addr", "state", "held"];
        print::out(&format!(
            "cut in the middle:\n{}",
            print::columns(&cut, &columns)
        ));
    }
    let gone = print::counted(cut.count, "client");
    print::out(&format!("{gone} of {} sent away\n", arguments.database));
    Ok(Verdict::found_if(!cut.is_empty()))
}
