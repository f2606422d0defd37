//! A connection on which the pooler itself asks PostgreSQL something: one at a time, counted in every
//! limit but `pool_size`, and closed when the question is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_net::Address;
use pgweir_pool::{Actions, SlotId};
use pgweir_session::Rules;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use crate::clients::client::{Client, Lease, Mail};
use crate::servers::close::{self, Busy};
use crate::servers::open::diary::Diary;
use crate::servers::server::Server;
use crate::servers::{ask, pools};
use crate::settings::limits;
use crate::shared::{PoolHome, Shared, lock};

/// How long PostgreSQL may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The connection.
pub(crate) struct Control<'a> {
    shared: &'a Arc<Shared>,
    slot: SlotId,
    server: Option<Box<Server>>,
    _lane: SemaphorePermit<'a>,
}

/// Opens one to where a pool leads. The second value says how far it came.
///
/// # Errors
/// Why there is none.
pub(crate) async fn open<'a>(
    shared: &'a Arc<Shared>,
    home: &PoolHome,
) -> (Result<Control<'a>, String>, Diary) {
    let nothing = Diary::default();
    let Ok(Ok(lane)) = timeout(PATIENCE, shared.control_lane.acquire()).await else {
        let text = "another question of this kind has not been answered yet";
        return (Err(text.to_owned()), nothing);
    };
    let client = nobody(shared);
    let id = client.id;
    client.attach_here().await;
    lock(&shared.diaries).insert(id, Diary::default());
    let lease = take(shared, home, &client).await;
    let diary = lock(&shared.diaries).remove(&id).unwrap_or_default();
    let opened = lease.map(|Lease { slot, server, .. }| Control {
        shared,
        slot,
        server: Some(server),
        _lane: lane,
    });
    (opened, diary)
}

/// Opens a connection that is to stay, for the pooler itself.
///
/// # Errors
/// Why there is none.
pub(crate) async fn open_for_long(shared: &Arc<Shared>, home: &PoolHome) -> Result<Lease, String> {
    let client = nobody(shared);
    client.attach_here().await;
    take(shared, home, &client).await
}

/// How long a server may take to answer what is asked of it before it is used.
pub(crate) fn patience(shared: &Shared) -> Duration {
    let limit = shared.config().global.server_connect_timeout.limit();
    limit.unwrap_or(PATIENCE)
}

/// Somebody for whom a server is opened, and who is no client.
fn nobody(shared: &Shared) -> Arc<Client> {
    let nowhere = Address::Unix {
        peer: None,
        port: 0,
    };
    let id = shared.next_id();
    Arc::new(Client::new(id, nowhere, nowhere, Instant::now()))
}

async fn take(
    shared: &Arc<Shared>,
    home: &PoolHome,
    client: &Arc<Client>,
) -> Result<Lease, String> {
    let mut actions = Actions::default();
    let ticket = {
        let (waiter, now) = (Arc::clone(client), Instant::now());
        let mut pools = shared.pools();
        pools.open_control(home.id, waiter, now, &mut actions)
    };
    let ticket = ticket.map_err(|full| no_room(shared, full))?;
    pools::perform(shared, actions);
    let patience = patience(shared) + Duration::from_secs(1);
    match timeout(patience, pools::wait(shared, client, home, ticket)).await {
        Ok(Ok(Mail::Lease(lease))) => Ok(lease),
        Ok(Ok(Mail::Refused(refusal))) => {
            Err(crate::clients::farewell::Farewell::Refused(*refusal)
                .reason()
                .into_owned())
        }
        Ok(Ok(Mail::Greet)) => Err("no server was given".to_owned()),
        Ok(Err(farewell)) => Err(farewell.reason().into_owned()),
        Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
    }
}

fn no_room(shared: &Shared, full: Option<pgweir_pool::Scope>) -> String {
    match full {
        Some(scope) => {
            let gauge = shared.pools().budget.gauge(&scope);
            let limit = gauge
                .limit
                .map_or("off".to_owned(), |limit| limit.to_string());
            format!(
                "no connection is left for the question: {scope} is {limit}, {} in use",
                gauge.used
            )
        }
        None => "everything is held still at this moment".to_owned(),
    }
}

impl Control<'_> {
    /// Asks a question that is answered with one row.
    pub(crate) async fn row(&mut self, sql: &str) -> Result<Vec<Option<Vec<u8>>>, String> {
        let Some(server) = &mut self.server else {
            return Err("the connection is closed".to_owned());
        };
        row(self.shared, server, sql).await
    }
}

/// Asks a question on any server that nobody uses.
pub(crate) async fn row(
    shared: &Shared,
    server: &mut Server,
    sql: &str,
) -> Result<Vec<Option<Vec<u8>>>, String> {
    let rules = Rules::plain(&shared.tracked, &shared.statements);
    match timeout(PATIENCE, ask::row(server, sql, &rules)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Asks on a server that nobody uses, of this pool or of another one on the same PostgreSQL; nothing if
/// there is none.
pub(crate) async fn ask_idle(
    shared: &Arc<Shared>,
    home: &PoolHome,
    sql: &str,
) -> Option<Result<Vec<Option<Vec<u8>>>, String>> {
    let hosts = limits::hosts(&home.rules());
    let homes = shared.homes().into_values();
    let mut beside: Vec<_> = homes
        .filter(|other| limits::hosts(&other.rules()) == hosts)
        .collect();
    beside.sort_by_key(|other| other.id != home.id);
    let mut lent = beside
        .iter()
        .filter_map(|home| shared.pools().lend_idle(home.id, Instant::now()));
    let (slot, mut server) = { lent.next()? };
    let (shared, sql) = (Arc::clone(shared), sql.to_owned());
    // The server is given back whatever becomes of the console that asks.
    let asking = tokio::spawn(async move {
        let answer = row(&shared, &mut server, &sql).await;
        match server.relay.may_release() {
            true => pools::checkin(&shared, slot, server, Instant::now()),
            false => {
                let reason = "a question of the pooler's was not answered";
                close::give_up(&shared, slot, server, reason, Busy::Yes);
            }
        }
        answer
    });
    Some(asking.await.unwrap_or_else(|error| Err(error.to_string())))
}

impl Drop for Control<'_> {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let reason = "the pooler's question is answered";
            let busy = match server.relay.may_release() {
                true => Busy::No,
                false => Busy::Yes,
            };
            close::give_up(self.shared, self.slot, server, reason, busy);
        }
    }
}
