//! CancelRequest, in both directions.
//!
//! A cancel hits whatever its backend is doing when it arrives. So a server is not lent again
//! while one is on its way: the pool keeps it back until [`end_cancel`](pgweir_pool::Pools::end_cancel), which comes after
//! PostgreSQL has closed the cancel's own connection, and by then the signal has been sent.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgweir_net::{Stream, connect};
use pgweir_session::Phase;
use pgweir_stats::Tally;
use pgweir_wire::{CancelKey, frontend};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::client::Client;
use crate::peers::{self, Destination};
use crate::server::ServerInfo;
use crate::shared::Shared;
use crate::{admin, pools};

/// How long one cancel connection may take; PostgreSQL answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

const SENT: &str = "successfully sent cancel request";

/// A client asks to cancel the query of the client with this key. Gives what became of it, for the
/// log; whoever asked is told nothing, as by PostgreSQL.
pub(crate) async fn handle(shared: &Arc<Shared>, key: &CancelKey) -> &'static str {
    match peers::destination(key, shared.config().global.peer_id) {
        Destination::Here(key) => handle_here(shared, &key).await,
        Destination::Peer(id, key) => peers::forward(shared, id, &key).await,
        Destination::Nowhere => "failed to forward cancel request because its TTL was exhausted",
    }
}

async fn handle_here(shared: &Arc<Shared>, key: &CancelKey) -> &'static str {
    let known = shared
        .cancel_keys
        .get(key)
        .map(|entry| Arc::clone(entry.value()));
    let Some(client) = known else {
        return "failed cancel request";
    };
    cancel(shared, &client).await
}

/// Cancels what a client waits for now. Gives what became of it, for the log.
pub(crate) async fn cancel(shared: &Arc<Shared>, client: &Client) -> &'static str {
    if client.is_console.load(Ordering::Relaxed) {
        // What a console can wait for is a pause that does not come to its end.
        admin::cancel(shared);
        return "cancel request for console client";
    }
    let (phase, request, link) = {
        let state = client.state();
        (state.clocks.phase, state.request, state.link)
    };
    if phase == Phase::Waiting {
        client.cancel_wait(request);
        return "cancel request for waiting client";
    }
    let Some(slot) = link else {
        return "cancel request for idle client";
    };
    let Some(server) = shared.server(slot) else {
        return "cancel request for idle client";
    };
    if !shared.pools().begin_cancel(slot) {
        return "not sending cancel request for client that is now idle";
    }
    tracing::debug!(peer = %client, "canceling the query on server {:#x}", server.id);
    let reason = pass_on(shared, &server).await;
    if reason == SENT {
        server.home.totals.add(&mut Tally {
            cancel_count: 1,
            ..Tally::default()
        });
    }
    let actions = shared.pools().end_cancel(slot, Instant::now());
    pools::perform(shared, actions);
    reason
}

/// Passes a client's request on. `cancel_wait_timeout` is for the way there: what is not sent by
/// then is not sent any more.
async fn pass_on(shared: &Arc<Shared>, server: &ServerInfo) -> &'static str {
    let Some(key) = server.cancel_key.get() else {
        return "failed to send cancel request";
    };
    let wait = shared.config().global.cancel_wait_timeout.limit();
    let opening = async {
        let place = shared.cancel_lane.acquire().await;
        let stream = timeout(PATIENCE, reach(shared, server)).await;
        (place, stream)
    };
    let opened = timeout(wait.unwrap_or(Duration::MAX), opening).await;
    let Ok((_place, stream)) = opened else {
        return "cancel_wait_timeout";
    };
    let delivery = match stream {
        Ok(Ok(stream)) => timeout(PATIENCE, deliver(stream, key)).await,
        Ok(Err(error)) => Ok(Err(error)),
        Err(late) => Err(late),
    };
    match outcome(server, delivery) {
        true => SENT,
        false => "failed to send cancel request",
    }
}

/// Sends a CancelRequest of our own to a server, and waits until PostgreSQL has dealt with it. Such
/// connections count at PostgreSQL like any other for a moment, so there are never more than
/// `max_cancels`.
pub(crate) async fn send(shared: &Arc<Shared>, server: &ServerInfo) {
    let Some(key) = server.cancel_key.get() else {
        return;
    };
    let _place = shared.cancel_lane.acquire().await;
    let attempt = async { deliver(reach(shared, server).await?, key).await };
    outcome(server, timeout(PATIENCE, attempt).await);
}

/// Whether PostgreSQL has the request; if not, the log says why.
fn outcome(server: &ServerInfo, delivery: Result<Result<(), String>, Elapsed>) -> bool {
    match delivery {
        Ok(Ok(())) => return true,
        Ok(Err(error)) => tracing::warn!(peer = %server, "cancel request failed: {error}"),
        Err(_) => tracing::warn!(peer = %server, "cancel request timed out"),
    }
    false
}

/// Sends a CancelRequest, and waits until the other end has dealt with it.
pub(crate) async fn deliver(mut stream: Stream, key: &CancelKey) -> Result<(), String> {
    let mut request = BytesMut::new();
    frontend::cancel_request(&mut request, key);
    stream
        .write_all(&request)
        .await
        .map_err(|error| error.to_string())?;
    // PostgreSQL sends nothing and closes when it has signalled the backend; so does a pooler.
    let _ = stream.read(&mut [0; 16]).await;
    Ok(())
}

async fn reach(shared: &Shared, server: &ServerInfo) -> Result<Stream, String> {
    let mut stream = connect(&server.target, &shared.tcp_options())
        .await
        .map_err(|error| error.to_string())?;
    if server.tls.get().is_none() {
        return Ok(stream);
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream
        .write_all(&request)
        .await
        .map_err(|error| error.to_string())?;
    match stream.read_u8().await.map_err(|error| error.to_string())? {
        b'S' => {}
        _ => return Err("server refused SSL".to_owned()),
    }
    shared
        .tls()
        .encrypt(stream, server.host.as_deref())
        .await
        .map_err(|error| error.to_string())
}
