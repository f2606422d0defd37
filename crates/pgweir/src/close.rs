//! Ends a server connection: until PostgreSQL has closed it, its slot is taken.
//!
//! [CancelRequest if it is busy] → Terminate → half-close → read until the end. PostgreSQL closes
//! the socket when the backend process is gone, so the end of the stream is the proof that the
//! backend no longer counts. If it does not come in time the slot is quarantined: still counted,
//! and freed when the end comes after all.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use pgweir_net::Stream;
use pgweir_pool::SlotId;
use pgweir_wire::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::client::Client;
use crate::server::Server;
use crate::shared::Shared;
use crate::{cancel, pools};

/// Whether the server may be working on something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Busy {
    /// It was idle.
    No,
    /// It may be: cancel first if that does no harm, or the backend runs on.
    Yes,
    /// PostgreSQL has closed it already.
    Gone,
}

/// Closes a server that whoever held it has marked as closing.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    slot: SlotId,
    server: Box<Server>,
    reason: &str,
    busy: Busy,
) {
    if shared.config().global.log_disconnections {
        let age = server.info.connected_at.elapsed().as_secs();
        tracing::info!(peer = %server.info, "closing because: {reason} (age={age}s)");
    }
    tokio::spawn(run(Arc::clone(shared), slot, server, busy));
}

/// Closes a server that a client holds: its slot is still lent.
pub(crate) fn give_up(
    shared: &Arc<Shared>,
    slot: SlotId,
    server: Box<Server>,
    reason: &str,
    busy: Busy,
) {
    shared.pools().closing(slot, Instant::now());
    spawn(shared, slot, server, reason, busy);
}

async fn run(shared: Arc<Shared>, slot: SlotId, mut server: Box<Server>, busy: Busy) {
    if busy == Busy::Yes && server.relay.may_cancel() {
        cancel::send(&shared, &server.info).await;
    }
    wait_for_end(&shared, slot, server.line.stream_mut()).await;
    free(&shared, slot);
}

/// Says goodbye and reads until the peer has closed; quarantines the slot if that takes long.
pub(crate) async fn wait_for_end(shared: &Arc<Shared>, slot: SlotId, stream: &mut Stream) {
    let patience = shared.config().global.server_close_timeout.duration();
    let mut goodbye = BytesMut::new();
    frontend::terminate(&mut goodbye);
    let ending = async {
        // The peer may be gone already; then reading finds the end at once.
        let _ = stream.write_all(&goodbye).await;
        let _ = stream.shutdown().await;
        read_to_end(stream).await;
    };
    if timeout(patience, ending).await.is_err() {
        shared.pools().quarantined(slot, Instant::now());
        tracing::warn!(
            "PostgreSQL has not closed a connection within {} s: its slot stays taken",
            patience.as_secs()
        );
        read_to_end(stream).await;
    }
}

async fn read_to_end(stream: &mut Stream) {
    let mut sink = [0; 4096];
    while let Ok(1..) = stream.read(&mut sink).await {}
}

/// A task that held a server has panicked, and the socket went with it. Whether the backend is gone
/// cannot be seen any more, so the slot stays taken for as long as a backend may take to end.
pub(crate) fn write_off(shared: &Arc<Shared>, client: &Client) {
    let Some(slot) = client.state().link.take() else {
        return;
    };
    shared.pools().quarantined(slot, Instant::now());
    let shared = Arc::clone(shared);
    let patience = shared.config().global.server_close_timeout.duration();
    tokio::spawn(async move {
        tokio::time::sleep(patience).await;
        free(&shared, slot);
    });
}

/// The connection is gone: its slot comes back.
pub(crate) fn free(shared: &Arc<Shared>, slot: SlotId) {
    shared.servers.remove(&slot.serial());
    let actions = shared.pools().closed(slot, Instant::now());
    pools::perform(shared, actions);
    shared.ended.notify_waiters();
}
