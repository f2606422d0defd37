//! The life of one client connection, in a few lines:
//!
//! 1. [`begin_login`] reads what the client begins with, registers it, and makes its login.
//! 2. [`log_in_or_refuse`] logs in (`login`), or says why not; [`purpose_of`] tells what the connection is for.
//! 3. [`live`] runs that: a session (`relay`) until it ends, rests or is put down, or a short visit.
//! 4. [`run_to_end`] is around all of it, so that a panic costs nobody else anything.

mod joining;
mod parting;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use bytes::BytesMut;
use pgweir_console::Access;
use pgweir_net::Accepted;
use pgweir_net::buffer::with_scratch;
use pgweir_wire::CancelKey;

pub(crate) use joining::{Inherited, inherit, register};
use joining::{login_over, open_session, start_idle};
pub(crate) use parting::{forget, turn_away};
use parting::{leave, log_end, tell};

use crate::clients::client::Client;
use crate::clients::conversation::{Conversation, READ_LEN};
use crate::clients::farewell::Farewell;
use crate::clients::login::{Entry, Login};
use crate::clients::{cancel, lot, seats};
use crate::operators::admin;
use crate::relay::{Session, Stop};
use crate::servers::close;
use crate::shared::{Hold, Shared, Shutdown};
use crate::takeover::hold;
use crate::watch::{events, strict};

/// Serves one connection from its first byte to its last, in the thread that it was given.
///
/// Thousands of clients are idle, so what this future holds while one is idle is kept small: login
/// and farewell, which are large and rare, are boxed and gone by then.
#[expect(
    clippy::manual_async_fn,
    reason = "what an async fn is given, its future holds twice"
)]
pub(crate) fn serve(shared: Arc<Shared>, accepted: Accepted) -> impl Future<Output = ()> + Send {
    async move {
        let (client, login) = match begin_login(&shared, accepted) {
            Ok(begun) => begun,
            Err(error) => {
                tracing::error!("cannot watch the socket of a new client: {error}");
                return shared.workers.leave();
            }
        };
        run_to_end(shared, client, login).await;
    }
}

/// Begins with a connection. What its client begins with is mostly there, and is read before the reactor watches it.
///
/// # Errors
/// The reactor cannot watch it.
fn begin_login(
    shared: &Arc<Shared>,
    accepted: Accepted,
) -> io::Result<(Arc<Client>, Pin<Box<impl Beginning + use<>>>)> {
    let begun = with_scratch(|scratch| {
        let len = accepted.read_now(&mut scratch[..READ_LEN]);
        BytesMut::from(&scratch[..len])
    });
    let opened = accepted.open()?;
    let client = register(
        shared,
        Client::of(shared.next_id(), &opened, Instant::now()),
    );
    let talk = Conversation::begun(opened.stream, begun);
    let login = Box::pin(log_in_or_refuse(
        Arc::clone(shared),
        Arc::clone(&client),
        Some(talk),
    ));
    Ok((client, login))
}

/// Goes on with a client that another process has handed over, or that has rested.
pub(crate) fn go_on(session: Session) -> impl Future<Output = ()> + Send {
    let (shared, client) = (Arc::clone(&session.shared), Arc::clone(&session.client));
    let known = Arc::clone(&client);
    let session = Box::pin(async move {
        known.attach_here().await;
        Some(Purpose::Session(Box::new(session)))
    });
    run_to_end(shared, client, session)
}

/// Makes a task for a client that has none, in the thread that has a place for it, which is this one; or forgets it, because
/// its socket is lost.
pub(crate) fn go_on_here(shared: &Shared, client: &Client, session: io::Result<Session>) {
    match session {
        Ok(session) => {
            tokio::spawn(go_on(session));
        }
        Err(error) => {
            tracing::error!(peer = %client, "cannot watch the socket of a client any more: {error}");
            forget(shared, client);
            shared.workers.leave();
        }
    }
}

/// A client's life to its end, even if that is a panic.
#[expect(
    clippy::manual_async_fn,
    reason = "what an async fn is given, its future holds twice"
)]
fn run_to_end(
    shared: Arc<Shared>,
    client: Arc<Client>,
    beginning: Pin<Box<impl Beginning + Send>>,
) -> impl Future<Output = ()> + Send {
    async move {
        let mut life = std::pin::pin!(live(beginning));
        let end = std::future::poll_fn(|cx| {
            let turn = catch_unwind(AssertUnwindSafe(|| life.as_mut().poll(cx)));
            turn.unwrap_or(Poll::Ready(End::Panicked))
        })
        .await;
        shared.workers.leave();
        match end {
            End::Orderly => {}
            // It may have another task by now.
            End::WithoutIt => return,
            End::Panicked => {
                // The panic has been printed. Other clients must not pay for it: what this one held is
                // given back as far as that is safe.
                tracing::error!(peer = %client, "a bug ended this client's task");
                let lent = client.state().link.take();
                if let Some(slot) = lent {
                    close::write_off(&shared, slot);
                }
            }
        }
        forget(&shared, &client);
    }
}

/// How a client's task ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    /// With the client.
    Orderly,
    /// Without it: it rests, or goes on in another thread.
    WithoutIt,
    Panicked,
}

/// Logs in and then does what the connection is for.
async fn live(beginning: Pin<Box<impl Beginning>>) -> End {
    match beginning.await {
        None => {}
        Some(Purpose::Session(mut session)) => {
            let farewell = loop {
                match session.run().await {
                    Stop::Ended(farewell) => break farewell,
                    Stop::Held => session = Box::pin(hold::put_down(session)).await,
                    Stop::Rests => match lot::rest(*session) {
                        Ok(()) => return End::WithoutIt,
                        Err(Some(awake)) => session = awake,
                        Err(None) => return End::Orderly,
                    },
                    Stop::ChangesThread => match seats::change(session) {
                        None => return End::WithoutIt,
                        Some(here) => session = here,
                    },
                }
            };
            if let Some(rest) = leave(session, farewell) {
                rest.await;
            }
        }
        Some(Purpose::Visit(visit)) => visit.await,
    }
    End::Orderly
}

async fn visit_console(
    shared: Arc<Shared>,
    client: Arc<Client>,
    mut talk: Conversation,
    access: Access,
) {
    start_idle(&client);
    let farewell = admin::serve(&shared, &client, &mut talk, access).await;
    log_end(&shared, &client, &farewell.reason());
    resume_if_last(&shared, &client);
    forget(&shared, &client);
    let (stream, held) = talk.into_parts();
    tell(&shared, &client, stream, held, &farewell).await;
}

async fn visit_to_cancel(
    shared: Arc<Shared>,
    client: Arc<Client>,
    talk: Conversation,
    key: CancelKey,
) {
    // Nobody waits for it to end, but it counts until then: anybody can send one that waits.
    shared.clients.remove(&client.id);
    let outcome = cancel::handle(&shared, &key).await;
    log_end(&shared, &client, outcome);
    forget(&shared, &client);
    // Only now the socket closes: whoever sent the request waits for that.
    drop(talk);
}

/// A pooler that is suspended takes no new connections: without a console nobody could ever wake it
/// up again.
fn resume_if_last(shared: &Arc<Shared>, client: &Client) {
    let operator = &shared.operator;
    if operator.hold() != Hold::Suspended || operator.shutdown() == Shutdown::Now {
        return;
    }
    let others = shared
        .clients
        .iter()
        .any(|other| other.is_console.load(Ordering::Relaxed) && other.id != client.id);
    if !others || shared.standstill.is_successor(client) {
        tracing::info!("admin disappeared when suspended, doing RESUME");
        admin::resume_all(shared);
    }
}

/// What a connection has turned out to be.
enum Purpose {
    /// A client; few others stay for long.
    Session(Box<Session>),
    /// A console, or a CancelRequest.
    Visit(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// `None` if a login failed: then the client has been told and is gone.
trait Beginning: Future<Output = Option<Purpose>> {}
impl<F: Future<Output = Option<Purpose>>> Beginning for F {}

/// Not an `async fn`: what such a one is given, its future holds twice.
fn log_in_or_refuse(
    shared: Arc<Shared>,
    client: Arc<Client>,
    mut talk: Option<Conversation>,
) -> impl Beginning + Send {
    async move {
        client.attach_here().await;
        let mut login = Login {
            shared: &shared,
            client: &client,
            talk: &mut talk,
        };
        let result = log_in(&mut login).await;
        login_over(&shared, &client);
        match result {
            Ok(entry) => Some(purpose_of(shared, client, entry, talk?)),
            Err(farewell) => {
                refuse(&shared, &client, talk, &farewell).await;
                None
            }
        }
    }
}

/// What a connection is for, after its login.
fn purpose_of(
    shared: Arc<Shared>,
    client: Arc<Client>,
    entry: Entry,
    talk: Conversation,
) -> Purpose {
    match entry {
        Entry::Client(entrance) => {
            Purpose::Session(Box::new(open_session(&shared, &client, *entrance, talk)))
        }
        Entry::Console { access } => {
            Purpose::Visit(Box::pin(visit_console(shared, client, talk, access)))
        }
        Entry::Cancel(key) => Purpose::Visit(Box::pin(visit_to_cancel(shared, client, talk, key))),
    }
}

/// Tells a client why its login failed, the operator too, and forgets it.
async fn refuse(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    talk: Option<Conversation>,
    farewell: &Farewell,
) {
    // A probe that only connects, or a psql that goes to ask for a password, is not worth a line.
    if !matches!(farewell, Farewell::ClientGone) {
        log_end(shared, client, &farewell.reason());
    }
    events::client_error(shared, client, farewell);
    strict::note_farewell(shared, client, farewell);
    forget(shared, client);
    if let Some(talk) = talk {
        let (stream, held) = talk.into_parts();
        tell(shared, client, stream, held, farewell).await;
    }
}

/// A login, unless the client is ordered to end: by an operator, or by the janitor because it takes too long.
async fn log_in(login: &mut Login<'_>) -> Result<Entry, Farewell> {
    let client = login.client;
    tokio::select! {
        result = login.run() => result,
        farewell = client.ordered_to_end() => Err(farewell),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Resting;

    fn size_of_future<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// A login is copied into its box; what few clients need of it is boxed in turn.
    #[test]
    fn a_login_is_not_large() {
        let size = size_of_future(|(shared, client, talk)| log_in_or_refuse(shared, client, talk));
        assert!(size <= 1536, "{size}");
    }

    /// An idle client is its record, and its task or what is kept of it while it rests: what grows them
    /// costs every one of thousands.
    #[test]
    fn an_idle_client_is_small() {
        let size = size_of_future(|(shared, accepted)| serve(shared, accepted));
        // With what tokio adds it is less than a record: the record stays where the task has gone, and shares no
        // page with it.
        assert!(size <= 272, "{size}");
        assert!(size_of::<Client>() <= 496, "{}", size_of::<Client>());
        assert!(size_of::<Resting>() <= 128, "{}", size_of::<Resting>());
    }
}
