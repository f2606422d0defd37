//! `pgweir budget`: whether PostgreSQL has as many connections as a configuration can ask for.

mod plan;
mod postgres;

use std::path::PathBuf;

use clap::Args;
use pgweir_config::Config;
use serde_json::json;

pub(crate) use crate::budget::plan::{Limits, Plan, plan};
use crate::cli::Common;
use crate::console::Console;
use crate::table::Table;
use crate::trouble::{Trouble, Verdict};
use crate::{print, reach};

/// Whether PostgreSQL has as many connections as a configuration can ask for
///
/// Adds up what every database and pool of the configuration can ask of each PostgreSQL
/// host at worst, times the number of poolers that run with it (fleet, or --replicas), and compares that with
/// the host's max_connections less the reserved ones. Where it does not fit, it says which
/// max_host_connections and which pool sizes would.
///
/// What PostgreSQL has is taken from --postgres-max, from the running pooler (SHOW BUDGET),
/// or asked of PostgreSQL itself, where the configuration has a user with a password.
/// Nothing is changed.
///
/// Exit codes: 0 it fits; 1 it does not; 2 the configuration cannot be used, or PostgreSQL's
/// limit is not known.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Arguments {
    /// The configuration file
    #[arg(value_name = "CONFIG")]
    file: Option<PathBuf>,

    /// How many poolers run with this configuration [default: its fleet, or one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replicas: Option<u32>,

    /// How many users log in to each database that forces none [default: those of the files]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    users: Option<u32>,

    /// max_connections of every PostgreSQL
    #[arg(long, value_name = "N")]
    postgres_max: Option<u32>,

    /// Of these, reserved for superusers and others with special rights
    #[arg(long, value_name = "N", default_value_t = 3, requires = "postgres_max")]
    reserved: u32,

    #[command(flatten)]
    common: Common,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<Verdict, Trouble> {
    let file = arguments.file.as_ref().or(arguments.common.config.as_ref());
    let Some(file) = file else {
        let text = "name the configuration: pgweir budget CONFIG".to_owned();
        return Err(Trouble::Usage(text));
    };
    let config = reach::load(file)?;
    let users = arguments.users.unwrap_or_else(|| known_users(&config));
    let common = Common {
        config: Some(file.clone()),
        ..arguments.common.clone()
    };
    let mut plans = Vec::new();
    let told = match arguments.postgres_max {
        Some(_) => Table::default(),
        None => told_by_pooler(&common).await,
    };
    for demand in config.demand() {
        let limits = match arguments.postgres_max {
            Some(max_connections) => Some(Limits {
                max_connections,
                reserved: arguments.reserved,
                source: "as given".to_owned(),
            }),
            None => match limits_in(&told, &demand.host) {
                Some(limits) => Some(limits),
                None => postgres::ask(&config, &demand).await,
            },
        };
        let replicas = arguments.replicas.unwrap_or(demand.poolers);
        plans.push(plan(&demand, users, replicas, limits));
    }
    match arguments.common.json {
        true => print::json(&json!(plans.iter().map(Plan::as_json).collect::<Vec<_>>())),
        false => print::out(
            &plans
                .iter()
                .map(Plan::to_string)
                .collect::<Vec<_>>()
                .join("\n"),
        ),
    }
    verdict(&plans)
}

fn verdict(plans: &[Plan]) -> Result<Verdict, Trouble> {
    if plans.iter().any(|plan| plan.fits() == Some(false)) {
        return Ok(Verdict::Found);
    }
    let unknown = plans.iter().filter(|plan| plan.fits().is_none());
    let hosts: Vec<&str> = unknown.map(|plan| plan.host.as_str()).collect();
    match hosts.is_empty() {
        true => Ok(Verdict::Fine),
        false => Err(Trouble::Unreachable(format!(
            "what PostgreSQL has is not known at {}: give it with --postgres-max",
            hosts.join(", ")
        ))),
    }
}

/// SHOW BUDGET of the pooler that runs with this configuration, if one does.
async fn told_by_pooler(common: &Common) -> Table {
    let Ok(console) = Console::open(common).await else {
        return Table::default();
    };
    console.show_if_known("BUDGET").await.unwrap_or_default()
}

/// What a running pooler knows of a host.
pub(crate) fn limits_in(budget: &Table, host: &str) -> Option<Limits> {
    let of = |name: &str| {
        let mut rows = budget.rows();
        let row = rows.find(|row| row.text("name") == name && row.text("subject") == host)?;
        u32::try_from(row.number("limit")?).ok()
    };
    let max_connections = of("max_connections")?;
    let ordinary = of("max_connections less reserved")?;
    Some(Limits {
        max_connections,
        reserved: max_connections.saturating_sub(ordinary),
        source: "as the running pooler was told".to_owned(),
    })
}

/// Users that can be expected: those of the files.
pub(crate) fn known_users(config: &Config) -> u32 {
    let listed = reach::users_of(config);
    let mut names: std::collections::BTreeSet<&str> = listed.iter().map(|(name, _)| name).collect();
    names.extend(config.users.keys().map(String::as_str));
    u32::try_from(names.len()).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    #[test]
    fn a_running_pooler_knows_what_postgres_has() {
        let budget = table(
            "name subject used limit\n\
             max_connections db:5432 9 100\n\
             max_connections~less~reserved db:5432 9 97",
        );
        let limits = limits_in(&budget, "db:5432").expect("both rows are there");
        assert_eq!((limits.max_connections, limits.reserved), (100, 3));
        assert!(limits_in(&budget, "other:5432").is_none());
    }
}
