//! `pgweir rotate`: after a password was changed, has the pooler read it and try it.

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Common;
use crate::console::Console;
use crate::doctor::{DIAGNOSIS_MAX, databases, indented, steps};
use crate::table::Table;
use crate::trouble::{Trouble, Verdict};
use crate::{print, quote};

/// After a password was changed: have the pooler read its secrets again, and try them
///
/// The auth_file and what password_from names are read anew, a connection to PostgreSQL is
/// opened with them, and it is said which of them PostgreSQL takes and whether that is a new
/// one. No secret is shown. Servers and clients that are connected stay so. A password that
/// stands in the configuration file itself needs RELOAD before.
///
/// Exit codes: 0 PostgreSQL takes what the pooler has; 1 it does not, or the pooler refuses;
/// 2 the pooler cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Which database [default: every database of the configuration]
    #[arg(value_name = "DATABASE")]
    database: Option<String>,

    /// Whose secret [default: the user whom the database forces, or who uses it most]
    #[arg(long, value_name = "USER")]
    auth: Option<String>,

    #[command(flatten)]
    common: Common,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let mut answers: Vec<(String, Table)> = Vec::new();
    for database in databases(&console, arguments.database.as_deref()).await? {
        let order = order(&database, arguments.auth.as_deref());
        let answer = console.ask(&order, DIAGNOSIS_MAX).await?;
        answers.push((database, answer));
    }
    let bad = answers.iter().any(|(_, answer)| !is_taken(answer));
    match arguments.common.json {
        true => print::json(&as_json(&answers)),
        false => answers.iter().for_each(|(database, answer)| {
            print::out(&format!("{database}\n{}", indented(&steps(answer))));
        }),
    }
    Ok(Verdict::found_if(bad))
}

fn order(database: &str, user: Option<&str>) -> String {
    let as_user = user.map_or(String::new(), |user| format!(" USER {}", quote::name(user)));
    format!("ROTATE {}{as_user}", quote::name(database))
}

/// Whether PostgreSQL takes a secret of the pooler's.
fn is_taken(answer: &Table) -> bool {
    let last = answer.find("step", "rotate");
    last.is_some_and(|row| row.text("outcome") == "ok")
}

fn as_json(answers: &[(String, Table)]) -> Value {
    let one = |(database, answer): &(String, Table)| {
        json!({
            "database": database,
            "taken": is_taken(answer),
            "steps": print::as_json(answer),
        })
    };
    json!({ "databases": answers.iter().map(one).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    #[test]
    fn the_order_is_the_consoles() {
        assert_eq!(order("shop", None), "ROTATE \"shop\"");
        assert_eq!(order("shop", Some("ann")), "ROTATE \"shop\" USER \"ann\"");
    }

    #[test]
    fn the_last_step_decides() {
        let answer = |outcome| {
            table(&format!(
                "step outcome us detail\nauth retried 10 refused\nrotate {outcome} ~ it"
            ))
        };
        assert!(is_taken(&answer("ok")));
        assert!(!is_taken(&answer("failed")));
        assert!(!is_taken(&Table::default()));
    }
}
