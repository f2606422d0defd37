//! `pgweir resize`: changes a key of the running pooler for a while, if what follows from it fits.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use pgweir_config::{Change, Config, Entry, SslMode};
use serde_json::json;

use crate::budget::{self, Plan};
use crate::cli::Common;
use crate::console::Console;
use crate::reach;
use crate::table::{Row, Table};
use crate::trouble::{Trouble, Verdict};
use crate::{print, quote, time};

/// Descriptors that each client and its server may need, and some for the rest.
const FILES_OF_A_CLIENT: u64 = 1;

/// KiB that a client at rest takes (docs/benchmarks.md), rounded up; and with TLS, whose library keeps buffers.
const KIB_OF_A_CLIENT: u64 = 3;
const KIB_OF_A_TLS_CLIENT: u64 = 40;

/// Change a key of the running pooler for a while, if what follows from it fits
///
/// The change counts at once, is logged with who ordered it, and is taken back by itself
/// when the time has passed. Before it is made it is looked at as pgweir budget does: one
/// that lets the pools ask for more than PostgreSQL has is refused, because it would make
/// exhaustion worse; and max_client_conn is compared with the limits on open files and
/// memory.
///
///   pgweir resize default_pool_size=40 --ttl 1h
///   pgweir resize pool_size=40 --database shop --ttl 30min
///
/// Exit codes: 0 done; 1 it does not fit, or the pooler refuses; 2 the pooler cannot be
/// asked.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// Which key, and its value
    #[arg(value_name = "KEY=VALUE", value_parser = assignment)]
    change: (String, String),

    /// For how long
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    ttl: Duration,

    /// In the entry of this database
    #[arg(short, long, value_name = "NAME", conflicts_with = "login")]
    database: Option<String>,

    /// In the entry of this user
    #[arg(long, value_name = "USER")]
    login: Option<String>,

    /// Make it even if it does not fit
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    common: Common,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let (key, value) = (key.trim(), value.trim());
    match key.is_empty() || value.is_empty() {
        true => Err("write KEY=VALUE".to_owned()),
        false => Ok((key.to_owned(), value.to_owned())),
    }
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let console = Console::open(&arguments.common).await?;
    let change = change(arguments);
    let doubts = match in_force(&console).await? {
        Some(config) => {
            let budget = console.show_if_known("BUDGET").await?;
            doubts(&config, &change, &budget)?
        }
        None => Vec::new(),
    };
    if !doubts.is_empty() && !arguments.force {
        return Err(Trouble::Unsafe(format!(
            "{}\nnothing was changed; --force makes the change all the same",
            doubts.join("\n")
        )));
    }
    console.order(&order(&change, arguments.ttl)).await?;
    let overrides = console.show("OVERRIDES").await?;
    let made = overrides.only(|row| row.text("key") == change.key && entry_of(row) == change.entry);
    if arguments.common.json {
        print::json(&json!({ "overrides": print::as_json(&made), "doubts": doubts }));
        return Ok(Verdict::Fine);
    }
    for doubt in doubts {
        print::out(&format!("forced although {doubt}\n"));
    }
    print::out(&format!(
        "{} is {} for {}, and then {} again\n",
        change.key,
        change.value,
        time::words(arguments.ttl),
        afterwards(&made, &change.entry),
    ));
    Ok(Verdict::Fine)
}

fn change(arguments: &Arguments) -> Change {
    let (key, value) = arguments.change.clone();
    Change {
        entry: match (&arguments.database, &arguments.login) {
            (Some(database), _) => Entry::Database(database.clone()),
            (None, Some(user)) => Entry::User(user.clone()),
            (None, None) => Entry::Main,
        },
        key: key.to_ascii_lowercase(),
        value,
    }
}

/// Where a row of SHOW OVERRIDES stands.
fn entry_of(row: Row<'_>) -> Entry {
    let subject = row.text("subject").to_owned();
    match row.text("scope") {
        "database" => Entry::Database(subject),
        "user" => Entry::User(subject),
        _ => Entry::Main,
    }
}

/// What a key is when its change is over. An entry that has no value of its own takes it from elsewhere.
fn afterwards<'a>(made: &'a Table, entry: &Entry) -> &'a str {
    let Some(row) = made.rows().next() else {
        return "what it was";
    };
    match (row.get("reverts_to"), entry) {
        (Some(""), _) => "empty",
        (Some(value), _) => value,
        (None, Entry::Main) => "unset",
        (None, Entry::Database(_)) => "what the main section says",
        (None, Entry::User(_)) => "what its database and the main section say",
    }
}

fn order(change: &Change, ttl: Duration) -> String {
    let target = match &change.entry {
        Entry::Main => String::new(),
        Entry::Database(name) => format!(" FOR DATABASE {}", quote::name(name)),
        Entry::User(name) => format!(" FOR USER {}", quote::name(name)),
    };
    let (key, value) = (&change.key, quote::text(&change.value));
    format!("SET {key} = {value}{target} TTL {}", quote::time(ttl))
}

/// The configuration that the pooler runs with, if its file can be read from here; what operators
/// have changed for a while is made on it.
async fn in_force(console: &Console) -> Result<Option<Config>, Trouble> {
    let mut config = match &console.config {
        Some(config) => config.clone(),
        None => {
            let keys = console.show("CONFIG").await?;
            let file = keys
                .find("key", "conffile")
                .map(|row| row.text("value").to_owned());
            match file.map(|file| reach::load(Path::new(&file))) {
                Some(Ok(config)) => config,
                // Another machine, or another user's file.
                Some(Err(_)) | None => return Ok(None),
            }
        }
    };
    for row in console.show_if_known("OVERRIDES").await?.rows() {
        let change = Change {
            entry: entry_of(row),
            key: row.text("key").to_owned(),
            value: row.text("value").to_owned(),
        };
        // What the file says now may not go with it any more; the pooler decides that.
        let _ = config.change(&change);
    }
    Ok(Some(config))
}

/// Why a change should not be made.
fn doubts(config: &Config, change: &Change, budget: &Table) -> Result<Vec<String>, Trouble> {
    let mut changed = config.clone();
    changed
        .change(change)
        .map_err(|error| Trouble::Usage(error.to_string()))?;
    let users = budget::known_users(config);
    let plan_of = |config: &Config| -> Vec<Plan> {
        let demand = config.demand();
        let limits = demand
            .iter()
            .map(|demand| budget::limits_in(budget, &demand.host));
        let demand_and_limits = demand.iter().zip(limits);
        demand_and_limits
            .map(|(demand, limits)| budget::plan(demand, users, demand.poolers, limits))
            .collect()
    };
    let before = plan_of(config);
    let mut doubts = Vec::new();
    for plan in plan_of(&changed) {
        let same_before = before.iter().find(|before| before.host == plan.host);
        let asked_before = same_before.and_then(Plan::of_all);
        // What does not fit anyway may be made smaller.
        let is_less = match (plan.of_all(), same_before) {
            (Some(now), Some(_)) => asked_before.is_none_or(|before| now <= before),
            (None, Some(before)) => before.of_all().is_none(),
            (_, None) => false,
        };
        if plan.fits() == Some(false) && !is_less {
            doubts.push(format!("it does not fit:\n{plan}"));
        }
    }
    doubts.extend(too_few_files(&changed, config, budget));
    doubts.extend(too_little_memory(&changed, config, budget));
    Ok(doubts)
}

/// Whether more clients are let in than there can be open files.
fn too_few_files(changed: &Config, config: &Config, budget: &Table) -> Option<String> {
    let clients = u64::try_from(changed.global.max_client_conn).ok()?;
    if changed.global.max_client_conn <= config.global.max_client_conn {
        return None;
    }
    let files = budget.find("name", "open files")?;
    let limit = files.number("limit")?;
    let others = files.count("used");
    let needed = clients * FILES_OF_A_CLIENT + others;
    (needed > limit).then(|| {
        format!(
            "max_client_conn = {clients} needs more than {needed} open files, and the process may have {limit} \
             (LimitNOFILE, ulimit -n)"
        )
    })
}

/// Whether more clients are let in than there is memory for, were they all at rest. What they have on the way comes on top.
fn too_little_memory(changed: &Config, config: &Config, budget: &Table) -> Option<String> {
    let more = changed.global.max_client_conn - config.global.max_client_conn;
    let more = u64::try_from(more).ok().filter(|&more| more > 0)?;
    let clients = budget
        .find("name", "max_client_conn")
        .map_or(0, |row| row.count("used"));
    let before = u64::try_from(config.global.max_client_conn).unwrap_or(0);
    let to_come = more + before.saturating_sub(clients);
    let memory = budget.find("name", "memory (KiB)")?;
    let limit = memory.number("limit")?;
    let each = match changed.global.client_tls_sslmode {
        SslMode::Disable => KIB_OF_A_CLIENT,
        _ => KIB_OF_A_TLS_CLIENT,
    };
    let (used, needed) = (memory.count("used"), to_come * each);
    (used + needed > limit).then(|| {
        format!(
            "{to_come} clients more take {needed} KiB of memory at rest, and of {limit} KiB that the process may have {used} are \
             used"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;
    use pgweir_config::Phase;

    fn config(text: &str) -> Config {
        let mut config = Config::new("a.ini");
        let read = config.load(Phase::Start, &mut |_| Ok(text.to_owned()));
        read.expect("a configuration");
        config
    }

    fn main(key: &str, value: &str) -> Change {
        Change {
            entry: Entry::Main,
            key: key.to_owned(),
            value: value.to_owned(),
        }
    }

    fn hundred() -> Table {
        table(
            "name subject used limit\n\
             open~files - 50 1024\n\
             max_connections db:5432 9 100\n\
             max_connections~less~reserved db:5432 9 97",
        )
    }

    #[test]
    fn what_does_not_fit_is_doubted_and_what_helps_is_not() {
        let fits = config("[databases]\na = host=db\n[pgbouncer]\ndefault_pool_size = 90\n");
        let doubts_of = |config: &Config, key: &str, value: &str| {
            doubts(config, &main(key, value), &hundred()).expect("a change")
        };
        assert_eq!(
            doubts_of(&fits, "default_pool_size", "97"),
            Vec::<String>::new()
        );
        assert_eq!(doubts_of(&fits, "default_pool_size", "98").len(), 1);
        let too_large = config("[databases]\na = host=db\n[pgbouncer]\ndefault_pool_size = 500\n");
        assert_eq!(doubts_of(&too_large, "default_pool_size", "200").len(), 0);
        assert_eq!(doubts_of(&too_large, "default_pool_size", "600").len(), 1);
        assert_eq!(doubts_of(&fits, "query_timeout", "5").len(), 0);
    }

    #[test]
    fn clients_need_files() {
        let config = config("[databases]\na = host=db\n[pgbouncer]\n");
        let doubts_of = |value: &str| {
            let change = main("max_client_conn", value);
            doubts(&config, &change, &hundred()).expect("a change")
        };
        assert_eq!(doubts_of("900").len(), 0);
        assert!(doubts_of("1000")[0].contains("LimitNOFILE"));
    }

    #[test]
    fn clients_need_memory() {
        let plain = config("[databases]\na = host=db\n[pgbouncer]\nmax_client_conn = 100\n");
        let budget = table(
            "name subject used limit\n\
             memory~(KiB) - 20000 32000\n\
             max_client_conn - 10 100",
        );
        let doubts_of = |config: &Config, value: &str| {
            doubts(config, &main("max_client_conn", value), &budget).expect("a change")
        };
        // 12000 KiB are left, for 3 KiB each.
        assert_eq!(doubts_of(&plain, "4000").len(), 0);
        let told = doubts_of(&plain, "5000");
        assert!(
            told[0].contains("4990 clients more take 14970 KiB"),
            "{told:?}"
        );
        let mut with_tls = plain;
        with_tls.global.client_tls_sslmode = SslMode::Require;
        assert_eq!(doubts_of(&with_tls, "1000").len(), 1);
        assert_eq!(doubts_of(&with_tls, "50").len(), 0);
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused() {
        let config = config("[databases]\na = host=db\n[pgbouncer]\n");
        let error = doubts(&config, &main("pol_size", "1"), &hundred());
        assert!(matches!(error, Err(Trouble::Usage(_))));
    }

    #[test]
    fn what_comes_afterwards_is_told_of_the_entry_that_was_changed() {
        let overrides = table(
            "key scope subject reverts_to\nquery_timeout main - 5\nquery_timeout user ann -\n\
             query_timeout user bob 7\nquery_timeout database ann -",
        );
        let query_timeout = |entry: Entry| {
            let made = overrides.only(|row| entry_of(row) == entry);
            afterwards(&made, &entry).to_owned()
        };
        assert_eq!(query_timeout(Entry::Main), "5");
        assert_eq!(query_timeout(Entry::User("bob".to_owned())), "7");
        assert_eq!(
            query_timeout(Entry::User("ann".to_owned())),
            "what its database and the main section say"
        );
        assert_eq!(
            query_timeout(Entry::Database("ann".to_owned())),
            "what the main section says"
        );
        assert_eq!(
            query_timeout(Entry::Database("bob".to_owned())),
            "what it was"
        );
    }

    #[test]
    fn the_order_is_the_consoles() {
        let change = Change {
            entry: Entry::Database("shop".to_owned()),
            ..main("pool_size", "40")
        };
        assert_eq!(
            order(&change, Duration::from_secs(3600)),
            "SET pool_size = '40' FOR DATABASE \"shop\" TTL '3600000ms'"
        );
    }
}
