//! `pgweir doctor`: examines the way from a client to PostgreSQL, and names the first thing that is wrong.

mod causes;
mod client;
mod verify;

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Common;
use crate::console::Console;
pub(crate) use crate::doctor::causes::way::{explain, host_of};
pub(crate) use crate::doctor::causes::{Cause, Evidence, find as causes_of, longest_wait};
use crate::table::{Row, Table};
use crate::trouble::{Trouble, Verdict};
use crate::{print, quote, time, why};

/// How long a diagnosis may take: the pooler waits for PostgreSQL as long as for any login.
pub(crate) const DIAGNOSIS_MAX: Duration = Duration::from_secs(90);

/// Examine the way from a client to PostgreSQL, and name what is wrong first
///
/// From the pooler's side it opens a connection as a pool would: DNS, TCP, TLS, auth, first
/// query, each timed and explained (console: DIAGNOSE). From a client's side it logs in
/// through the pooler, if a user with a password is known. It then looks at who waits and
/// for which limit, at leaks, at locks, and at whose PostgreSQL's connections are, and
/// prints the causes it finds, the likeliest first, with what to do next.
///
/// --auth USER tries the secret that the pooler has for USER, without showing it.
/// --verify --for 5m watches for that time, and ends with 0 only if nobody waited, nothing
/// failed and nobody held a server in silence.
///
/// Exit codes: 0 nothing is wrong; 1 something is; 2 the pooler itself cannot be asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Which database [default: every database of the configuration]
    #[arg(value_name = "DATABASE")]
    database: Option<String>,

    /// Try the secret that the pooler has for this user
    #[arg(long, value_name = "USER")]
    auth: Option<String>,

    /// Watch for a while, and say whether all was well
    #[arg(long)]
    verify: bool,

    /// For how long
    #[arg(long = "for", value_name = "TIME", value_parser = time::parse, default_value = "10s", requires = "verify")]
    watch: Duration,

    #[command(flatten)]
    common: Common,
}

/// All that was found about one database.
struct Examination {
    database: String,
    evidence: Evidence,
    causes: Vec<Cause>,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let databases = databases(&console, arguments.database.as_deref()).await?;
    let mut examinations = Vec::new();
    for database in databases {
        let evidence = examine(&console, &database, arguments.auth.as_deref()).await?;
        examinations.push(Examination {
            causes: causes::find(&evidence),
            database,
            evidence,
        });
    }
    let mut found = examinations
        .iter()
        .any(|examination| !examination.causes.is_empty());
    if !arguments.common.json {
        examinations.iter().for_each(tell);
    }
    let mut watched = None;
    if arguments.verify {
        let seen = verify::watch(&console, arguments.watch).await?;
        found |= !seen.is_well();
        if !arguments.common.json {
            print::out(&seen.to_string());
        }
        watched = Some(seen);
    }
    if arguments.common.json {
        let list: Vec<Value> = examinations.iter().map(Examination::as_json).collect();
        print::json(&json!({
            "databases": list,
            "verify": watched.map(|seen| seen.as_json()),
            "well": !found,
        }));
    }
    Ok(Verdict::found_if(found))
}

/// The databases to look at: templates have no name that could be looked at.
pub(crate) async fn databases(
    console: &Console,
    named: Option<&str>,
) -> Result<Vec<String>, Trouble> {
    if let Some(name) = named {
        return Ok(vec![name.to_owned()]);
    }
    let table = console.show("DATABASES").await?;
    let names = table.rows().map(|row| row.text("name").to_owned());
    let names: Vec<String> = names.filter(|name| name != "pgbouncer").collect();
    match names.is_empty() {
        true => Err(Trouble::Usage(
            "the configuration names no database, and nobody has used one: name it".to_owned(),
        )),
        false => Ok(names),
    }
}

async fn examine(
    console: &Console,
    database: &str,
    user: Option<&str>,
) -> Result<Evidence, Trouble> {
    // What stands in the way of clients is seen before the diagnosis can change anything.
    let of_database = |row: Row<'_>| row.text("database") == database;
    let pools = console.show("POOLS").await?.only(of_database);
    let holders = console.show("HOLDERS").await?.only(of_database);
    let leaks = console.show("LEAKS").await?.only(of_database);
    let leaks = leaks.only(crate::leaks::is_silent);
    let why = why::ask(console, database).await?;
    let as_user = user.map_or(String::new(), |user| format!(" USER {}", quote::name(user)));
    let order = format!("DIAGNOSE {}{as_user}", quote::name(database));
    let diagnosis = console.ask(&order, DIAGNOSIS_MAX).await?;
    let budget = console.show("BUDGET").await?;
    let maintenance = console.show("MAINTENANCE").await?.only(of_database);
    let state = console.show("STATE").await?;
    let entries = console.show("DATABASES").await?;
    let entry = entries.only(|row| row.text("name") == database);
    let config = console.show("CONFIG").await?;
    let probe = client::Probe {
        database,
        user,
        pools: &pools,
        is_forced: entry.rows().any(|row| row.get("force_user").is_some()),
    };
    let client = client::log_in(console, &probe).await;
    Ok(Evidence {
        diagnosis,
        pools,
        holders,
        leaks,
        why,
        budget,
        maintenance,
        state,
        host: host_of(&entry, &config, database),
        entry,
        client,
    })
}

fn tell(examination: &Examination) {
    let Examination {
        database,
        evidence,
        causes,
    } = examination;
    let mut text = format!("{database}\n  from the pooler to PostgreSQL:\n");
    text.push_str(&indented(&steps(&evidence.diagnosis)));
    text.push_str("  from a client through the pooler:\n");
    text.push_str(&indented(&steps(&evidence.client)));
    text.push_str("  how it stands:\n");
    text.push_str(&indented(&standing(evidence)));
    match causes.as_slice() {
        [] => text.push_str("  nothing is wrong\n"),
        causes => {
            text.push_str("  WHAT IS WRONG, the likeliest first:\n");
            for (number, cause) in causes.iter().enumerate() {
                text.push_str(&format!("  {}. {}\n", number + 1, cause.title));
                for line in &cause.evidence {
                    text.push_str(&format!("     - {line}\n"));
                }
                for line in &cause.next {
                    text.push_str(&format!("     next: {line}\n"));
                }
            }
        }
    }
    print::out(&text);
}

pub(crate) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// Steps with their times.
pub(crate) fn steps(diagnosis: &Table) -> String {
    let lines: Vec<Vec<String>> = diagnosis
        .rows()
        .map(|row| {
            let took = row
                .number("us")
                .filter(|_| row.text("outcome") != "skipped");
            let took = took.map_or(String::new(), |us| time::words(Duration::from_micros(us)));
            let outcome = match row.text("outcome") {
                "failed" => "FAILED",
                "info" => "",
                outcome => outcome,
            };
            vec![
                row.text("step").to_owned(),
                outcome.to_owned(),
                took,
                row.text("detail").to_owned(),
            ]
        })
        .collect();
    print::aligned(&lines)
}

fn standing(evidence: &Evidence) -> String {
    let mut text = String::new();
    for pool in evidence.pools.rows() {
        let idle = pool.count("sv_idle") + pool.count("sv_used");
        text.push_str(&format!(
            "pool of {}: {} connected, {} waiting (the first for {}); servers: {} at work, {idle} idle, {} logging in\n",
            pool.text("user"),
            print::counted(pool.count("cl_active") + pool.count("cl_waiting"), "client"),
            pool.text("cl_waiting"),
            time::words(causes::longest_wait(pool)),
            pool.text("sv_active"),
            pool.text("sv_login"),
        ));
    }
    for row in evidence
        .budget
        .rows()
        .filter(|row| row.text("binding") == "yes")
    {
        text.push_str(&format!(
            "limit reached: {} {}: {} of {}\n",
            row.text("name"),
            row.text("subject"),
            row.text("used"),
            row.text("limit"),
        ));
    }
    for row in evidence.why.rows() {
        text.push_str(row.text("text"));
        text.push('\n');
    }
    for leak in evidence.leaks.rows() {
        text.push_str(&format!(
            "leak {}: {}, silent for {}\n",
            leak.text("stage"),
            crate::leaks::who(leak),
            time::millis(leak.count("silent_ms")),
        ));
    }
    text
}

impl Examination {
    fn as_json(&self) -> Value {
        let evidence = &self.evidence;
        json!({
            "database": self.database,
            "causes": self.causes.iter().map(Cause::as_json).collect::<Vec<_>>(),
            "pooler_to_postgres": print::as_json(&evidence.diagnosis),
            "client_to_pooler": print::as_json(&evidence.client),
            "pools": print::as_json(&evidence.pools),
            "why": print::as_json(&evidence.why),
            "leaks": print::as_json(&evidence.leaks),
            "limits_reached": print::as_json(&evidence.budget.only(|row| row.text("binding") == "yes")),
        })
    }
}
