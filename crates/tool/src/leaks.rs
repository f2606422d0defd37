//! `pgweir leaks`: who holds a server connection and says nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::cli::Common;
use crate::console::Console;
use crate::table::{Row, Table};
use crate::trouble::{Trouble, Verdict};
use crate::{print, time};

/// Who holds a server connection and says nothing
///
/// Shows leak suspects: clients that hold a server in silence (an open transaction without a
/// query, or a session that keeps its server while others wait), statements that take far
/// longer than they normally do, and clients of one application that only become more and
/// never work. Each is named by application, address and user, with its first and last
/// statement and the likely cause.
///
/// Exit codes: 0 nobody; 1 there is a suspect; 2 the pooler cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Only this database
    #[arg(value_name = "DATABASE")]
    database: Option<String>,

    /// Also those that have ended lately
    #[arg(long)]
    all: bool,

    /// Also list everybody who has held a server for so long
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    held: Option<Duration>,

    #[command(flatten)]
    common: Common,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let wanted = |row: Row<'_>| {
        let database = arguments.database.as_deref();
        database.is_none_or(|database| row.text("database") == database)
    };
    let all = console.show("LEAKS").await?.only(wanted);
    let open = all.only(is_open);
    let shown = if arguments.all { &all } else { &open };
    let holders = match arguments.held {
        None => Table::default(),
        Some(held) => {
            let held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
            let holders = console.show("HOLDERS").await?.only(wanted);
            holders.only(|row| row.count("held_ms") >= held_ms)
        }
    };
    if arguments.common.json {
        print::json(&json!({
            "leaks": print::as_json(shown),
            "holders": print::as_json(&holders),
        }));
    } else {
        print::out(&story(shown));
        if let Some(held) = arguments.held {
            print::out(&holding(&holders, held));
        }
    }
    Ok(Verdict::found_if(!open.is_empty()))
}

/// Whether a suspicion has not ended.
pub(crate) fn is_open(leak: Row<'_>) -> bool {
    matches!(leak.text("stage"), "suspected" | "confirmed")
}

/// Whether it is about a server that is held in silence now, and not about a slow statement or unused clients.
pub(crate) fn is_silent(leak: Row<'_>) -> bool {
    // Poolers before there were other kinds do not name it.
    is_open(leak) && matches!(leak.text("kind"), "silent" | "")
}

/// Who it is, in words.
pub(crate) fn who(row: Row<'_>) -> String {
    let app = match row.text("application_name") {
        "" => "a nameless application".to_owned(),
        app => format!("app={app}"),
    };
    let (user, database) = (row.text("user"), row.text("database"));
    let database = match database {
        "" => String::new(),
        name => format!(", database {name}"),
    };
    format!("{app} at {} (user {user}{database})", row.text("addr"))
}

fn story(leaks: &Table) -> String {
    if leaks.is_empty() {
        return "nobody is suspected of a leak\n".to_owned();
    }
    let mut text = String::new();
    let mut by_app: BTreeMap<&str, u32> = BTreeMap::new();
    for leak in leaks.rows() {
        *by_app.entry(leak.text("application_name")).or_default() += 1;
        text.push_str(&one(leak));
    }
    if by_app.len() > 1 || leaks.cells.len() > 1 {
        let counts: Vec<_> = by_app
            .iter()
            .map(|(app, count)| {
                format!(
                    "{} {count}",
                    if app.is_empty() { "(nameless)" } else { app }
                )
            })
            .collect();
        text.push_str(&format!("\nby application: {}\n", counts.join(", ")));
    }
    text
}

fn one(leak: Row<'_>) -> String {
    let (id, stage) = (leak.text("id"), leak.text("stage"));
    if leak.text("kind") == "growing" {
        return format!(
            "#{id} {stage}: {}, for {}\n   {}\n",
            who(leak),
            time::millis(leak.count("held_ms")),
            leak.text("cause")
        );
    }
    let mut text = format!(
        "#{id} {stage}: {}, client {}, server pid {}\n   {}, held {}, silent {}\n",
        who(leak),
        leak.text("client_id"),
        leak.text("server_pid"),
        leak.text("state"),
        time::millis(leak.count("held_ms")),
        time::millis(leak.count("silent_ms")),
    );
    for (name, column) in [("first", "first_statement"), ("last", "last_statement")] {
        let statement = leak.text(column);
        if !statement.is_empty() {
            text.push_str(&format!("   {name}: {statement}\n"));
        }
    }
    text.push_str(&format!("   {}\n", leak.text("cause")));
    if is_open(leak) {
        let client = leak.text("client_id");
        text.push_str(&format!("   to end it: pgweir kill --client {client}\n"));
    }
    text
}

fn holding(holders: &Table, held: Duration) -> String {
    let held = time::words(held);
    if holders.is_empty() {
        return format!("\nnobody has held a server for {held}\n");
    }
    let heading = [
        "held",
        "silent",
        "state",
        "application",
        "address",
        "user",
        "database",
        "server pid",
        "client",
    ];
    let mut lines = vec![heading.map(str::to_owned).to_vec()];
    for row in holders.rows() {
        let mut line = vec![
            time::millis(row.count("held_ms")),
            time::millis(row.count("silent_ms")),
        ];
        let columns = [
            "state",
            "application_name",
            "addr",
            "user",
            "database",
            "server_pid",
            "client_id",
        ];
        line.extend(columns.map(|column| row.text(column).to_owned()));
        lines.push(line);
    }
    format!("\nheld for {held} or longer:\n{}", print::aligned(&lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    const COLUMNS: &str = "id stage client_id database user application_name addr server_pid state held_ms silent_ms \
                           first_statement last_statement cause";

    #[test]
    fn a_leak_is_told_with_who_what_and_what_to_do() {
        let leaks = table(&format!(
            "{COLUMNS}\n3 confirmed 17 shop bob report 10.1.2.3:55 4711 idle~in~transaction 360000 300000 begin \
             insert~into~t~values~(?) COMMIT~is~missing"
        ));
        let text = story(&leaks);
        for part in [
            "#3 confirmed: app=report at 10.1.2.3:55 (user bob, database shop)",
            "idle in transaction, held 6 min, silent 5 min",
            "last: insert into t values (?)",
            "COMMIT is missing",
            "pgweir kill --client 17",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn a_population_has_nobody_who_could_be_killed() {
        let leaks = table(
            "id stage client_id database user application_name addr held_ms kind cause\n\
             4 suspected 0 \"\" bob report 10.1.2.3 360000 growing they~become~more",
        );
        let text = story(&leaks);
        assert!(text.contains("app=report at 10.1.2.3") && text.contains("they become more"));
        assert!(!text.contains("kill"), "{text}");
    }

    #[test]
    fn what_has_ended_is_no_suspect() {
        let leaks = table("id stage\n1 resolved\n2 suspected");
        assert_eq!(leaks.only(is_open).cells.len(), 1);
        assert_eq!(story(&Table::default()), "nobody is suspected of a leak\n");
    }
}
