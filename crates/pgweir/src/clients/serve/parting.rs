//! A client goes, or is sent away, and is told why.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgweir_net::{Buffered, Stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::clients::client::Client;
use crate::clients::farewell::Farewell;
use crate::relay::{self, Remains, Session};
use crate::shared::Shared;
use crate::watch::{events, strict};

/// How long a client that is being sent away may take to read why.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// Sends a client away that has no session and gets none.
pub(crate) async fn turn_away(
    shared: Arc<Shared>,
    client: Arc<Client>,
    stream: Stream,
    farewell: Farewell,
) {
    events::client_error(&shared, &client, &farewell);
    log_end(&shared, &client, &farewell.reason());
    forget(&shared, &client);
    tell(&shared, &client, stream, BytesMut::new(), &farewell).await;
}

/// Ends a session. What is left to do is to be done by the client's task: nothing, if its client wants to hear nothing more.
pub(super) fn leave(
    session: Box<Session>,
    farewell: Farewell,
) -> Option<Pin<Box<impl Future<Output = ()> + Send>>> {
    let (shared, client) = (Arc::clone(&session.shared), Arc::clone(&session.client));
    events::client_error(&shared, &client, &farewell);
    strict::note_farewell(&shared, &client, &farewell);
    log_end(&shared, &client, &farewell.reason());
    let Remains { line, can_be_told } = session.into_remains(&farewell);
    forget(&shared, &client);
    let hears_more = !farewell.is_silent() || !line.is_drained() || line.stream().says_goodbye();
    (can_be_told && hears_more).then(|| Box::pin(see_off(shared, client, line, farewell)))
}

/// Lets a client read what is on its way to it, and tells it why it goes.
async fn see_off(shared: Arc<Shared>, client: Arc<Client>, mut line: Buffered, farewell: Farewell) {
    let drained = std::future::poll_fn(|cx| line.poll_drain(cx));
    if timeout(FAREWELL_PATIENCE, drained)
        .await
        .is_ok_and(|result| result.is_ok())
    {
        let stream = line.into_stream();
        tell(&shared, &client, stream, BytesMut::new(), &farewell).await;
    }
}

/// From here on the client is in no list and in no count. Harmless when done twice.
pub(crate) fn forget(shared: &Shared, client: &Client) {
    shared.clients.remove(&client.id);
    if let Some(key) = client.cancel_key.get() {
        shared.cancel_keys.remove(key);
    }
    let counted = std::mem::take(&mut *client.counted());
    if counted.ids().next().is_none() {
        return;
    }
    let mut pools = shared.pools();
    pools.budget.leave(counted.ids());
    if let Some(pool) = counted.pool {
        pools.client_left(pool, Instant::now());
    }
    drop(pools);
    shared.ended.notify_waiters();
}

/// Says in the log why a connection has ended.
pub(super) fn log_end(shared: &Shared, client: &Client, reason: &str) {
    let global = &shared.config().global;
    if global.log_disconnections {
        let age = client.connected_at.elapsed().as_secs();
        tracing::info!(peer = %client, "closing because: {reason} (age={age}s)");
    }
}

/// Says why, behind what is still to be said, and closes so that the client can read it: a socket that
/// is closed while the peer's bytes wait in it is reset, and the text would be lost.
pub(super) async fn tell(
    shared: &Shared,
    client: &Client,
    mut stream: Stream,
    mut out: BytesMut,
    farewell: &Farewell,
) {
    let codes = relay::error_codes(client.route().as_ref(), shared);
    match farewell.explained(codes, shared, client, None) {
        Some(answer) => {
            if shared.config().global.log_pooler_errors {
                tracing::warn!(peer = %client, "pooler error: {}", answer.text);
            }
            answer.write(&mut out);
        }
        // PostgreSQL has told it why.
        None if !farewell.is_silent() => {}
        None => {
            if stream.says_goodbye() {
                let _ = timeout(FAREWELL_PATIENCE, stream.shutdown()).await;
            }
            return;
        }
    }
    let closing = Box::pin(async {
        stream.write_all(&out).await?;
        stream.shutdown().await?;
        let mut sink = [0; 1024];
        while stream.read(&mut sink).await? > 0 {}
        Ok::<_, std::io::Error>(())
    });
    // Whoever does not read within the time has lost the text, but nothing else.
    let _ = timeout(FAREWELL_PATIENCE, closing).await;
}
