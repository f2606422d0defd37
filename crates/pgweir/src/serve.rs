//! The life of one client connection, in a few lines.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgweir_net::{Address, Buffered, Stream};
use pgweir_pool::Scope;
use pgweir_session::Expiry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::client::{Client, Counted};
use crate::conversation::Conversation;
use crate::farewell::Farewell;
use crate::login::{Entrance, Entry, Login};
use crate::relay::{self, Session};
use crate::shared::Shared;
use crate::{admin, cancel, close, limits};

/// How long a client that is being sent away may take to read why.
const FAREWELL_PATIENCE: Duration = Duration::from_secs(1);

/// Serves one connection from its first byte to its last.
///
/// Thousands of clients are idle, so what this future holds while one is idle is kept small: login
/// and farewell, which are large and rare, are boxed and gone by then.
pub(crate) fn serve(
    shared: Arc<Shared>,
    stream: Stream,
    address: Address,
) -> impl Future<Output = ()> + Send {
    let client = register(&shared, &stream, address);
    let login = Box::pin(enter(Arc::clone(&shared), Arc::clone(&client), stream));
    async move {
        let mut life = std::pin::pin!(live(&shared, &client, login));
        let end = std::future::poll_fn(|cx| {
            let turn = catch_unwind(AssertUnwindSafe(|| life.as_mut().poll(cx)));
            turn.map_or(Poll::Ready(End::Panicked), |poll| {
                poll.map(|()| End::Orderly)
            })
        })
        .await;
        if end == End::Panicked {
            // The panic has been printed. Other clients must not pay for it: what this one held is
            // given back as far as that is safe.
            tracing::error!(peer = %client, "a bug ended this client's task");
            close::write_off(&shared, &client);
        }
        forget(&shared, &client);
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Orderly,
    Panicked,
}

/// From here on the client is listed and counted.
fn register(shared: &Shared, stream: &Stream, address: Address) -> Arc<Client> {
    let local = stream.local_address(address.port()).unwrap_or(address);
    let client = Arc::new(Client::new(
        shared.next_id(),
        address,
        local,
        Instant::now(),
    ));
    shared.clients.insert(client.id, Arc::clone(&client));
    let scopes = limits::of_connection(&address);
    shared.pools().budget.take_unlimited(&scopes);
    client.counted().scopes = scopes;
    client
}

/// Logs in and then does what the connection is for.
async fn live(shared: &Arc<Shared>, client: &Arc<Client>, login: Pin<Box<impl Enter>>) {
    let Some((entry, talk)) = login.await else {
        return;
    };
    match entry {
        Entry::Client(entrance) => {
            let mut session = begin(shared, client, *entrance, talk);
            let farewell = session.run().await;
            Box::pin(leave(session, farewell)).await;
        }
        Entry::Console { access } => {
            start_idle(client);
            let farewell = Box::pin(admin::serve(shared, client, talk, access)).await;
            log_end(shared, client, &farewell);
        }
        Entry::Cancel(key) => {
            forget(shared, client);
            Box::pin(cancel::handle(shared, &key)).await;
            // Only now the socket closes: whoever sent the request waits for that.
            drop(talk);
        }
    }
}

/// What a login resolves to. `None` if it failed: then the client has been told and is gone.
trait Enter: Future<Output = Option<(Entry, Conversation)>> {}
impl<F: Future<Output = Option<(Entry, Conversation)>>> Enter for F {}

async fn enter(
    shared: Arc<Shared>,
    client: Arc<Client>,
    stream: Stream,
) -> Option<(Entry, Conversation)> {
    std::future::poll_fn(|cx| {
        client.attach(cx.waker());
        Poll::Ready(())
    })
    .await;
    let mut login = Login {
        shared: &shared,
        client: &client,
        talk: Some(Conversation::new(stream)),
    };
    let limit = shared.config().global.client_login_timeout.limit();
    let result = match limit {
        Some(limit) => timeout(limit, login.run()).await,
        None => Ok(login.run().await),
    };
    login_over(&shared, &client);
    let farewell = match result {
        Ok(Ok(entry)) => return Some((entry, login.talk?)),
        Ok(Err(farewell)) => farewell,
        Err(_) => Farewell::Expired(Expiry::Login),
    };
    let talk = login.talk;
    log_end(&shared, &client, &farewell);
    forget(&shared, &client);
    if let Some(talk) = talk {
        tell(&shared, &client, talk.stream, &farewell).await;
    }
    None
}

/// The client counts among those that log in no more.
fn login_over(shared: &Shared, client: &Client) {
    let mut counted = client.counted();
    let login = counted.scopes.extract_if(.., |s| *s == Scope::Logins);
    let login: Vec<_> = login.collect();
    drop(counted);
    shared.pools().budget.give_back(&login);
}

fn begin(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    entrance: Entrance,
    talk: Conversation,
) -> Session {
    let Entrance { route, side, own } = entrance;
    let mut line = Buffered::new(talk.stream);
    line.put_back_bytes(&talk.unread);
    shared.pools().client_joined(route.home.id);
    client.counted().pool = Some(route.home.id);
    start_idle(client);
    let party = {
        let app = Arc::clone(&client.state().application_name);
        limits::party(&shared.pools().budget, &app, &client.address)
    };
    let (shared, client) = (Arc::clone(shared), Arc::clone(client));
    let mut session = Session::new(shared, client, route, line, side, party);
    if let Some(lease) = own {
        session.take_own(lease);
    }
    session
}

fn start_idle(client: &Client) {
    let mut state = client.state();
    state.clocks.phase = pgweir_session::Phase::Idle;
    state.clocks.since = Instant::now();
}

async fn leave(session: Session, farewell: Farewell) {
    let (shared, client) = (Arc::clone(&session.shared), Arc::clone(&session.client));
    log_end(&shared, &client, &farewell);
    let mut remains = session.into_remains(&farewell);
    forget(&shared, &client);
    if remains.can_be_told {
        let drained = std::future::poll_fn(|cx| remains.line.poll_drain(cx));
        if timeout(FAREWELL_PATIENCE, drained)
            .await
            .is_ok_and(|result| result.is_ok())
        {
            tell(&shared, &client, remains.line.into_stream(), &farewell).await;
        }
    }
}

/// From here on the client is in no list and in no count. Harmless when done twice.
fn forget(shared: &Shared, client: &Client) {
    shared.clients.remove(&client.id);
    if let Some(key) = client.cancel_key.get() {
        shared.cancel_keys.remove(key);
    }
    let Counted { scopes, pool } = std::mem::take(&mut *client.counted());
    let mut pools = shared.pools();
    pools.budget.give_back(&scopes);
    if let Some(pool) = pool {
        pools.client_left(pool, Instant::now());
    }
    drop(pools);
    shared.ended.notify_waiters();
}

fn log_end(shared: &Shared, client: &Client, farewell: &Farewell) {
    let global = &shared.config().global;
    if global.log_disconnections {
        let age = client.connected_at.elapsed().as_secs();
        tracing::info!(peer = %client, "closing because: {} (age={age}s)", farewell.reason());
    }
}

/// Says why, and closes so that the client can still read it: a socket that is closed while the
/// peer's bytes wait in it is reset, and the text would be lost.
async fn tell(shared: &Shared, client: &Client, mut stream: Stream, farewell: &Farewell) {
    let codes = relay::error_codes(client.route.get(), shared);
    if let Some(answer) = farewell.explained(codes, shared, client, None) {
        if shared.config().global.log_pooler_errors {
            tracing::warn!(peer = %client, "pooler error: {}", answer.text);
        }
        let mut out = BytesMut::new();
        answer.write(&mut out);
        let closing = async {
            stream.write_all(&out).await?;
            stream.shutdown().await?;
            let mut sink = [0; 1024];
            while stream.read(&mut sink).await? > 0 {}
            Ok::<_, std::io::Error>(())
        };
        // Whoever does not read within the time has lost the text, but nothing else.
        let _ = timeout(FAREWELL_PATIENCE, closing).await;
    } else if stream.tls_info().is_some() {
        // TLS has a farewell of its own; for a plain socket, closing it is all there is to say.
        let _ = timeout(FAREWELL_PATIENCE, stream.shutdown()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F: Future>(_: impl Fn(Arc<Shared>, Stream, Address) -> F) -> usize {
        size_of::<F>()
    }

    /// An idle client is its task and its record: what grows them costs every one of thousands.
    #[test]
    fn an_idle_client_is_small() {
        assert!(size_of_future(serve) <= 512, "{}", size_of_future(serve));
        assert!(size_of::<Client>() <= 512, "{}", size_of::<Client>());
    }
}
