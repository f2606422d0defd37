//! The orders that PgBouncer does not have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgweir_config::{Change, Entry};
use pgweir_console::tables::{self, ClientToEnd};
use pgweir_console::{CommandError, Order, Subject, Target, Verb, Where};

use super::{Outcome, known, wait_until};
use crate::clients::client::Client;
use crate::clients::farewell::Farewell;
use crate::operators::drain::{self, Drained};
use crate::operators::{diagnose, maintenance, rotate, why};
use crate::servers::quarantine;
use crate::settings::overrides;
use crate::shared::{Shared, lock};
use crate::watch::census::describe;

/// Carries an order out.
pub(super) async fn run(
    shared: &Arc<Shared>,
    client: &Client,
    order: &Order,
    out: &mut Vec<u8>,
) -> Result<Outcome, CommandError> {
    match order {
        Order::KillClients { which, dry_run } => {
            let victims = victims(shared, which);
            if *dry_run {
                tables::ENDED.write_reply(victims.iter().map(|(_, row)| row), out);
            } else {
                let count = kill(shared, client, &victims).await;
                order.write_count(count, out);
            }
            return Ok(Outcome::Answered);
        }
        Order::MaintenanceOn {
            database,
            mode,
            message,
            ttl,
        } => {
            known(shared, database, Verb::Maintain)?;
            let message = message.as_deref();
            maintenance::begin(shared, database, *mode, message, *ttl, who(client));
        }
        Order::MaintenanceOff(database) => {
            tracing::info!(peer = %client, "MAINTENANCE OFF '{database}' command issued");
            if !maintenance::end(shared, database) {
                let text = format!("database {database} is not under maintenance");
                return Err(CommandError::Impossible(text));
            }
        }
        Order::Drain { database, within } => {
            known(shared, database, Verb::Drain)?;
            let Drained { ended, cut } = drain(shared, client, database, *within).await;
            tables::ENDED.write_description(out);
            cut.iter().for_each(|row| tables::ENDED.write_row(row, out));
            order.write_count(ended, out);
            return Ok(Outcome::Answered);
        }
        Order::Override {
            target,
            key,
            value,
            ttl,
        } => {
            let change = Change {
                entry: entry(target),
                key: key.clone(),
                value: value.clone(),
            };
            let notice = overrides::set(shared, change, *ttl, who(client))
                .map_err(|error| CommandError::Impossible(error.to_string()))?;
            return Ok(Outcome::Done(notice));
        }
        Order::Diagnose { database, user } => {
            tracing::info!(peer = %client, "DIAGNOSE '{database}' command issued");
            let rows = diagnose::rows(shared, database, user.as_deref()).await?;
            tables::DIAGNOSIS.write_reply(&rows, out);
            return Ok(Outcome::Answered);
        }
        Order::Rotate { database, user } => {
            tracing::info!(peer = %client, "ROTATE '{database}' command issued");
            let rows = rotate::rows(shared, database, user.as_deref()).await?;
            tables::DIAGNOSIS.write_reply(&rows, out);
            return Ok(Outcome::Answered);
        }
        Order::Why(database) => {
            tracing::info!(peer = %client, "WHY '{database}' command issued");
            let rows = why::rows(shared, database).await?;
            tables::WHY.write_reply(&rows, out);
            return Ok(Outcome::Answered);
        }
        Order::Release(id) => {
            if !quarantine::release(shared, *id, &who(client)).await {
                let text = format!("no server with id {id} is in SHOW QUARANTINE");
                return Err(CommandError::Impossible(text));
            }
        }
    }
    Ok(Outcome::Done(None))
}

/// Whose order it is, for the log and for other operators.
fn who(client: &Client) -> String {
    let user = client
        .identity
        .get()
        .map_or("?", |identity| &*identity.user);
    format!("{user}@{}", client.address)
}

fn entry(target: &Target) -> Entry {
    match target {
        Target::Main => Entry::Main,
        Target::Database(name) => Entry::Database(name.clone()),
        Target::User(name) => Entry::User(name.clone()),
    }
}

/// The clients that conditions are about. Consoles and logins are none.
fn victims(shared: &Shared, which: &Where) -> Vec<(Arc<Client>, ClientToEnd)> {
    let now = Instant::now();
    let clients = shared.clients.iter().map(|client| Arc::clone(&client));
    let described = clients.filter_map(|client| {
        let row = describe(shared, &client, now)?;
        Some((client, row))
    });
    let mut victims: Vec<_> = described
        .filter(|(client, row)| which.matches(&subject(client, row)))
        .collect();
    victims.sort_by_key(|(client, _)| client.id);
    victims
}

fn subject<'a>(client: &Client, row: &'a ClientToEnd) -> Subject<'a> {
    Subject {
        app: &row.app,
        user: &row.user,
        database: &row.database,
        address: client.address.ip(),
        state: row.state,
        age: row.age,
        idle: row.idle,
        held: row.held,
    }
}

/// Ends clients at once; how many.
async fn kill(shared: &Shared, by: &Client, victims: &[(Arc<Client>, ClientToEnd)]) -> usize {
    tracing::info!(peer = %by, "KILL CLIENTS command issued: {} clients", victims.len());
    for (victim, _) in victims {
        victim.end(Farewell::Killed);
    }
    wait_until(shared, || {
        !victims
            .iter()
            .any(|(victim, _)| shared.clients.contains_key(&victim.id))
    })
    .await;
    victims.len()
}

async fn drain(shared: &Arc<Shared>, client: &Client, database: &str, within: Duration) -> Drained {
    tracing::info!(peer = %client, "DRAIN '{database}' within {} s", within.as_secs());
    let _closed = ClosedToLogins::new(shared, database);
    let of_database = |client: &Client| {
        let identity = client.identity.get();
        identity.is_some_and(|identity| *identity.database == *database)
    };
    let drained = drain::drain(shared, of_database, within).await;
    tracing::info!(
        "drained '{database}': {} clients sent away, {} of them cut",
        drained.ended,
        drained.cut.len()
    );
    drained
}

/// Keeps logins out for as long as it lives, also if the console that drains goes away.
struct ClosedToLogins<'a> {
    draining: &'a Mutex<HashMap<String, u32>>,
    database: &'a str,
}

impl<'a> ClosedToLogins<'a> {
    fn new(shared: &'a Shared, database: &'a str) -> Self {
        let draining = &shared.operator.draining;
        *lock(draining).entry(database.to_owned()).or_default() += 1;
        Self { draining, database }
    }
}

impl Drop for ClosedToLogins<'_> {
    fn drop(&mut self) {
        let mut draining = lock(self.draining);
        if let Some(orders) = draining.get_mut(self.database) {
            *orders -= 1;
        }
        draining.retain(|_, orders| *orders > 0);
    }
}
