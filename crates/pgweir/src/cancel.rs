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
use pgweir_wire::{CancelKey, frontend};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::peers::{self, Destination};
use crate::server::ServerInfo;
use crate::shared::Shared;
use crate::{admin, pools};

/// How long one cancel connection may take; PostgreSQL answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client asks to cancel the query of the client with this key. Unknown keys and idle clients
/// are ignored in silence, as PostgreSQL does.
pub(crate) async fn handle(shared: &Arc<Shared>, key: &CancelKey) {
    match peers::destination(key, shared.config().global.peer_id) {
        Destination::Here(key) => handle_here(shared, &key).await,
        Destination::Peer(id, key) => peers::forward(shared, id, &key).await,
        Destination::Nowhere => tracing::debug!("cancel request was passed on too often"),
    }
}

async fn handle_here(shared: &Arc<Shared>, key: &CancelKey) {
    let known = shared
        .cancel_keys
        .get(key)
        .map(|entry| Arc::clone(entry.value()));
    let Some(client) = known else {
        tracing::debug!("cancel request for an unknown key");
        return;
    };
    if client.is_console.load(Ordering::Relaxed) {
        // What a console can wait for is a pause that does not come to its end.
        return admin::cancel(shared);
    }
    let (phase, request, link) = {
        let state = client.state();
        (state.clocks.phase, state.request, state.link)
    };
    if phase == Phase::Waiting {
        client.cancel_wait(request);
        return;
    }
    let Some(slot) = link else { return };
    let Some(server) = shared.server(slot) else {
        return;
    };
    if !shared.pools().begin_cancel(slot) {
        return;
    }
    tracing::debug!(peer = %client, "canceling the query on server {:#x}", server.id);
    let wait = shared.config().global.cancel_wait_timeout.limit();
    match timeout(wait.unwrap_or(Duration::MAX), shared.cancel_lane.acquire()).await {
        Ok(_place) => transmit(shared, &server).await,
        Err(_) => tracing::info!(peer = %client, "closing because: cancel_wait_timeout"),
    }
    let actions = shared.pools().end_cancel(slot, Instant::now());
    pools::perform(shared, actions);
}

/// Sends a CancelRequest to a server, and waits until PostgreSQL has dealt with it. Such connections
/// count at PostgreSQL like any other for a moment, so there are never more than `max_cancels`.
pub(crate) async fn send(shared: &Arc<Shared>, server: &ServerInfo) {
    let _place = shared.cancel_lane.acquire().await;
    transmit(shared, server).await;
}

async fn transmit(shared: &Arc<Shared>, server: &ServerInfo) {
    let Some(key) = server.cancel_key.get() else {
        return;
    };
    let attempt = async {
        let mut stream = reach(shared, server).await?;
        let mut request = BytesMut::new();
        frontend::cancel_request(&mut request, key);
        stream
            .write_all(&request)
            .await
            .map_err(|error| error.to_string())?;
        // PostgreSQL sends nothing and closes when it has signalled the backend.
        let _ = stream.read(&mut [0; 16]).await;
        Ok::<_, String>(())
    };
    match timeout(PATIENCE, attempt).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(peer = %server, "cancel request failed: {error}"),
        Err(_) => tracing::warn!(peer = %server, "cancel request timed out"),
    }
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
