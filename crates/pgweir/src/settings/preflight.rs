//! Whether PostgreSQL has as many connections as the configuration can ask for: said with numbers
//! before it matters, and with `preflight = enforce` a condition of starting.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use pgweir_config::{Config, HostDemand, Preflight};
use pgweir_net::Address;
use tokio::time::timeout;

use crate::clients::client::Client;
use crate::servers::pools;
use crate::servers::survey::HostFacts;
use crate::shared::{Shared, lock};

/// What was said last of a host: it is said again when it has changed.
pub(crate) type Said = HashMap<Arc<str>, String>;

/// At the start: asks every PostgreSQL that can be asked, if a start depends on it.
///
/// # Errors
/// The text for the log; the program must not start.
pub(crate) async fn at_start(shared: &Arc<Shared>) -> Result<(), String> {
    let config = shared.config();
    if config.global.preflight != Preflight::Enforce {
        return Ok(());
    }
    for demand in config.demand() {
        ask(shared, &config, &demand).await?;
        let facts = lock(&shared.facts).hosts.get(&*demand.host).copied();
        let Some(facts) = facts else {
            return Err(format!(
                "preflight = enforce, but PostgreSQL at {} did not tell its limits",
                demand.host
            ));
        };
        if let Some(text) = trouble(shared, &demand, &facts) {
            return Err(text);
        }
    }
    Ok(())
}

/// Logs in as somebody whose secret is known, so that PostgreSQL can be asked.
async fn ask(shared: &Arc<Shared>, config: &Config, demand: &HostDemand) -> Result<(), String> {
    let host = &demand.host;
    let entries = demand.databases.iter();
    let login = entries.filter_map(|entry| {
        let database = config.databases.get(&entry.database)?;
        let user = database.keys.user.clone();
        let user = user.or_else(|| config.resolve_database(&entry.database)?.auth_user);
        Some((entry.database.clone(), user?))
    });
    let Some((database, user)) = { login }.next() else {
        return Err(format!(
            "preflight = enforce needs a database with user= or auth_user at {host}, to ask PostgreSQL for its limits"
        ));
    };
    let failed = |why: &str| {
        format!(
            "preflight = enforce, but PostgreSQL at {host} cannot be asked as {user} in {database}: {why}"
        )
    };
    let route = shared
        .route(&database, &user)
        .map_err(|_| failed("no such database"))?;
    let nobody = Address::Unix {
        peer: None,
        port: 0,
    };
    let client = Arc::new(Client::new(
        shared.next_id(),
        nobody,
        nobody,
        Instant::now(),
    ));
    client.attach_here().await;
    let patience = config.global.server_connect_timeout.limit();
    let greeting = pools::greet(shared, &client, &route.home);
    let greeted = match patience {
        Some(patience) => timeout(patience, greeting)
            .await
            .map_err(|_| failed("it does not answer"))?,
        None => greeting.await,
    };
    greeted.map_err(|farewell| failed(&farewell.reason()))
}

/// Looks at every host about which something is known, and logs what is new.
pub(crate) fn look(shared: &Shared) {
    let config = shared.config();
    if config.global.preflight == Preflight::Off {
        return;
    }
    for demand in config.demand() {
        let host: Arc<str> = demand.host.as_str().into();
        let facts = lock(&shared.facts).hosts.get(&host).copied();
        let text = facts.and_then(|facts| trouble(shared, &demand, &facts));
        let mut said = lock(&shared.preflight_said);
        match text {
            None => {
                said.remove(&host);
            }
            Some(text) => {
                if said.get(&host) != Some(&text) {
                    tracing::warn!("preflight: {text}");
                    said.insert(host, text);
                }
            }
        }
    }
}

/// What is wrong with a demand, in numbers.
fn trouble(shared: &Shared, demand: &HostDemand, facts: &HostFacts) -> Option<String> {
    let users = known_users(shared);
    let ordinary = facts.ordinary();
    let asked = demand.servers(users, Some(ordinary));
    let asked = asked.map(|asked| asked.saturating_mul(demand.poolers));
    if asked.is_some_and(|asked| asked <= ordinary) {
        return None;
    }
    let asked = asked.map_or("any number of".to_owned(), |asked| asked.to_string());
    let parts: Vec<_> = demand
        .databases
        .iter()
        .map(|part| {
            let servers = part.servers(users);
            let servers = servers.map_or("no limit".to_owned(), |count| count.to_string());
            match (part.per_user, part.pool) {
                (true, Some(pool)) => format!("{} {servers} ({pool} for each user)", part.database),
                _ => format!("{} {servers}", part.database),
            }
        })
        .collect();
    let fleet = match demand.poolers {
        1 => String::new(),
        poolers => format!(" in each of {poolers} poolers"),
    };
    Some(format!(
        "{asked} servers can be asked for at {} with {users} users ({}{fleet}), and PostgreSQL has {ordinary} connections for \
         ordinary users (max_connections {}, {} of them reserved): set max_host_connections, or lower pool_size",
        demand.host,
        parts.join(", "),
        facts.max_connections,
        facts.reserved
    ))
}

/// Users that can be expected: those of the files, and those who are here.
fn known_users(shared: &Shared) -> u32 {
    let config = shared.config();
    let files = shared.files();
    let mut users: std::collections::BTreeSet<String> = config.users.keys().cloned().collect();
    users.extend(files.users.iter().map(|(name, _)| name.to_owned()));
    users.extend(shared.homes().into_keys().map(|name| name.user.to_string()));
    u32::try_from(users.len()).unwrap_or(u32::MAX).max(1)
}
