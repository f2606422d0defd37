//! CancelRequest, in both directions.
//!
//! A cancel hits whatever its backend is doing when it arrives. So a server is not lent again
//! while one is on its way: the pool keeps it back until [`end_cancel`](pgweir_pool::Pools::end_cancel), which comes after
//! PostgreSQL has closed the cancel's own connection, and by then the signal has been sent. Where that cannot be awaited,
//! the server is closed when its client gives it back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgweir_net::{Stream, connect};
use pgweir_pool::SlotId;
use pgweir_session::Phase;
use pgweir_stats::Tally;
use pgweir_wire::{CancelKey, frontend};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::clients::client::Client;
use crate::clients::peers::{self, Destination};
use crate::operators::admin;
use crate::servers::pools;
use crate::servers::server::ServerInfo;
use crate::shared::Shared;

/// How long one cancel connection may take; PostgreSQL answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

const SENT: &str = "successfully sent cancel request";
const NOT_SENT: &str = "failed to send cancel request";

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
    // From here on nobody else gets the server; in between somebody may have got it.
    let reason = match is_served_by(client, slot) {
        true => pass_on(shared, client, slot, &server).await,
        false => "not sending cancel request for client that is now idle",
    };
    let actions = shared.pools().end_cancel(slot, Instant::now());
    pools::perform(shared, actions);
    reason
}

/// Whether the server works for the client, and not on a question of the pooler's.
fn is_served_by(client: &Client, slot: SlotId) -> bool {
    let state = client.state();
    state.link == Some(slot) && state.clocks.phase != Phase::Waiting
}

/// Passes a client's request on. `cancel_wait_timeout` is for the way there: what is not sent by
/// then is not sent any more.
async fn pass_on(
    shared: &Arc<Shared>,
    client: &Client,
    slot: SlotId,
    server: &ServerInfo,
) -> &'static str {
    tracing::debug!(peer = %client, "canceling the query on server {:#x}", server.id);
    let Some(key) = server.cancel_key.get() else {
        return NOT_SENT;
    };
    let wait = shared.config().global.cancel_wait_timeout.limit();
    let underway = &server.home.cancels;
    let opening = async {
        let waiting = underway.wait();
        let place = shared.cancel_lane.acquire().await;
        drop(waiting);
        let _connecting = underway.connect();
        let stream = timeout(PATIENCE, reach(shared, server)).await;
        (place, stream)
    };
    let opened = timeout(wait.unwrap_or(Duration::MAX), opening).await;
    let Ok((_place, stream)) = opened else {
        return "cancel_wait_timeout";
    };
    let _sent = underway.send();
    match send_on(server, stream, key).await {
        Delivery::Done => {
            server.home.totals.add(&mut Tally {
                cancel_count: 1,
                ..Tally::default()
            });
            SENT
        }
        Delivery::Failed => NOT_SENT,
        Delivery::Doubtful => {
            shared.pools().spoil(slot);
            NOT_SENT
        }
    }
}

/// Sends a CancelRequest of our own to a server, and waits until PostgreSQL has dealt with it. Such
/// connections count at PostgreSQL like any other for a moment, so there are never more than
/// `max_cancels`.
pub(crate) async fn send(shared: &Arc<Shared>, server: &ServerInfo) -> Delivery {
    let Some(key) = server.cancel_key.get() else {
        return Delivery::Failed;
    };
    let _place = shared.cancel_lane.acquire().await;
    let stream = timeout(PATIENCE, reach(shared, server)).await;
    send_on(server, stream, key).await
}

/// What became of a CancelRequest.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Delivery {
    /// PostgreSQL has dealt with it.
    Done,
    /// It was not sent.
    Failed,
    /// It was sent, and may be read at any time.
    Doubtful,
}

/// Sends a CancelRequest on a connection that was to be opened for it; the log says why that fails.
async fn send_on(
    server: &ServerInfo,
    stream: Result<Result<Stream, String>, Elapsed>,
    key: &CancelKey,
) -> Delivery {
    let (failure, delivery) = match stream {
        Ok(Ok(stream)) => match timeout(PATIENCE, deliver(stream, key)).await {
            Ok(Ok(())) => return Delivery::Done,
            Ok(Err(error)) => (Some(error), Delivery::Doubtful),
            Err(_) => (None, Delivery::Doubtful),
        },
        Ok(Err(error)) => (Some(error), Delivery::Failed),
        Err(_) => (None, Delivery::Failed),
    };
    match failure {
        Some(error) => tracing::warn!(peer = %server, "cancel request failed: {error}"),
        None => tracing::warn!(peer = %server, "cancel request timed out"),
    }
    delivery
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
