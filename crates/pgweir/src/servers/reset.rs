//! Makes a server fit for the next client after one has left it in any state.
//!
//! A client that vanishes in the middle of a query must not cost a server: the query is canceled,
//! what is owed is read and thrown away, the transaction is rolled back, and the server goes back
//! to the pool. Closing it (and logging in again) is the second choice: that is how login storms
//! start.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgweir_config::PoolMode;
use pgweir_pool::SlotId;
use pgweir_session::{Abandon, ClientSide, Relay, Rules};
use pgweir_wire::TransactionStatus;
use tokio::time::{sleep, timeout};

use crate::clients::cancel;
use crate::clients::cancel::Delivery;
use crate::clients::farewell::{Farewell, Fate};
use crate::servers::close::{self, Busy};
use crate::servers::server::Server;
use crate::servers::{ask, pools};
use crate::shared::{Shared, lock, read};

/// When a cancel is sent again: one that comes before the backend has begun is lost.
const CANCEL_AGAIN: Duration = Duration::from_millis(500);

/// How often to look whether a cancel has arrived; it takes milliseconds.
const CANCEL_POLL: Duration = Duration::from_millis(2);

/// Why a server needs care.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum After {
    /// Its client gave it back properly; `server_reset_query` is due, or a proof that it is quiet.
    Release,
    /// Its client is gone.
    Client,
}

/// Decides what becomes of a server whose client's session has ended.
pub(crate) fn after_client(
    shared: &Arc<Shared>,
    slot: SlotId,
    server: Box<Server>,
    farewell: &Farewell,
) {
    if server.work.is_own {
        let reason = "replication client was closed";
        return close::give_up(shared, slot, server, reason, Busy::Yes);
    }
    match farewell.fate() {
        Fate::Close { reason, busy } => close::give_up(shared, slot, server, reason, busy),
        Fate::Reset => spawn(shared, slot, server, After::Client),
    }
}

/// Cleans the server up in a task of its own, and gives it back.
pub(crate) fn spawn(shared: &Arc<Shared>, slot: SlotId, server: Box<Server>, after: After) {
    let mode = pool_mode(&server);
    let global = &shared.config().global;
    let reset_due = !global.server_reset_query.is_empty()
        && (global.server_reset_query_always || mode == PoolMode::Session);
    let is_clean = !server.work.is_private() || !has_residue(&server);
    if server.relay.may_release() && !server.line.has_unsent() && !reset_due && is_clean {
        return pools::checkin(shared, slot, server, Instant::now());
    }
    shared.pools().resetting(slot, Instant::now());
    let reset_query = reset_due.then(|| global.server_reset_query.clone());
    tokio::spawn(run(Arc::clone(shared), slot, server, after, reset_query));
}

/// Whether the session may hold what its last client has left there.
pub(crate) fn has_residue(server: &Server) -> bool {
    if server.relay.residue().is_settled() {
        return false;
    }
    let memory = lock(&server.info.home.memory);
    server.relay.residue().may_be_there(&memory, Instant::now())
}

fn pool_mode(server: &Server) -> PoolMode {
    read(&server.info.home.rules).settings.pool_mode
}

async fn run(
    shared: Arc<Shared>,
    slot: SlotId,
    mut server: Box<Server>,
    after: After,
    reset_query: Option<String>,
) {
    let patience = shared.config().global.cancel_drain_timeout.duration();
    let cleaning = clean(&shared, slot, &mut server, after, reset_query.as_deref());
    let problem: Cow<'static, str> = match timeout(patience, cleaning).await {
        Ok(Ok(())) => return pools::checkin(&shared, slot, server, Instant::now()),
        Ok(Err(problem)) => problem.into(),
        Err(_) => "client disconnected with queries in progress".into(),
    };
    close::give_up(&shared, slot, server, problem, Busy::Yes);
}

async fn clean(
    shared: &Arc<Shared>,
    slot: SlotId,
    server: &mut Server,
    after: After,
    reset_query: Option<&str>,
) -> Result<(), String> {
    let rules = Rules {
        max_prepared: Some(usize::MAX),
        ..Rules::plain(&shared.tracked, &shared.statements)
    };
    if after == After::Client && !server.relay.is_quiet() {
        let mut out = BytesMut::new();
        if server.relay.abandon(&mut out) == Abandon::Close {
            return Err("client disconnected in the middle of a message".to_owned());
        }
        server.line.queue(&out);
        drain(shared, server, &rules).await?;
    }
    // A late cancel of the client's could hit what we ask now.
    while shared.pools().is_being_canceled(slot) {
        sleep(CANCEL_POLL).await;
    }
    if server.relay.is_in_doubt() {
        ask::run(server, "", &rules).await?;
    }
    if server.relay.status() != TransactionStatus::Idle {
        ask::run(server, "ROLLBACK", &rules).await?;
    }
    if let Some(sql) = reset_query {
        ask::run(server, sql, &rules).await?;
    }
    if reset_query.is_none() && server.work.is_private() && has_residue(server) {
        take_back(server, &rules).await?;
    }
    match server.relay.may_release() {
        true => Ok(()),
        false => Err("server is still in a transaction".to_owned()),
    }
}

/// Takes back what the last client has left in the session: what is known to be there, or all there
/// can be.
async fn take_back(server: &mut Server, rules: &Rules<'_>) -> Result<(), String> {
    match server.relay.cleaning() {
        Some(sql) => {
            ask::run(server, &sql, rules).await?;
            server.relay.settle_undone(Instant::now());
        }
        None => {
            ask::run(server, "DISCARD ALL", rules).await?;
            server.relay.settle_discarded(Instant::now());
        }
    }
    Ok(())
}

/// Cuts short what the server still works on, and throws the answers away.
async fn drain(shared: &Arc<Shared>, server: &mut Server, rules: &Rules<'_>) -> Result<(), String> {
    let mut nobody = ClientSide::default();
    ask::pass_over(server, &mut nobody, rules, Relay::may_cancel).await?;
    while !server.relay.is_quiet() {
        // A query of our own was preparing the server for the client: it is short, and must not
        // fail.
        if !server.relay.is_asking() {
            let delivery = cancel::send(shared, &server.info).await;
            if delivery == Delivery::Doubtful {
                return Err("a cancel request may still arrive".to_owned());
            }
        }
        let quiet = ask::pass_over(server, &mut nobody, rules, Relay::is_quiet);
        if let Ok(result) = timeout(CANCEL_AGAIN, quiet).await {
            return result;
        }
    }
    Ok(())
}
