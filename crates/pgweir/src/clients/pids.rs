//! Process ids. A client has one of the pooler's own, which stands in its cancel key; its servers have
//! PostgreSQL's. Where clients name each other's, they stand for the server that such a client holds.
//!
//! A client that holds none is stood in for by an idle server of its pool: if PostgreSQL ends that one,
//! the client ends. So PostgreSQL alone decides who may do it, and says what it always says.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::{Duration, Instant};

use pgweir_net::Input;
use pgweir_net::buffer::with_scratch;
use pgweir_pool::Checkout;
use pgweir_session::{Backends, ClientSide};
use pgweir_wire::tag::{backend as tag, frontend};
use pgweir_wire::{ErrorFields, HEADER_LEN, Header, Reader, SqlState};
use tokio::time::{sleep, timeout};

use crate::clients::client::{Client, Lease, TaskOrder};
use crate::clients::farewell::Farewell;
use crate::servers::close::{self, Busy};
use crate::servers::server::ServerInfo;
use crate::servers::{pools, vacate};
use crate::shared::Shared;

/// How long a server stands in for a client: the signal is on its way already when the client that has
/// asked for it is answered.
const STANDS_IN: Duration = Duration::from_secs(1);

/// How long to wait for a server that can stand in, and how often to look for it in that time.
const STAND_IN_AGAIN: Duration = Duration::from_millis(20);
const STAND_IN_TRIES: u8 = 50;

/// Longer messages are passed on as they are, in bytes.
const FRAME_MAX: usize = 64 * 1024;

impl Backends for Shared {
    fn shown(&self, process_id: i32) -> Option<i32> {
        let mut servers = self.servers.iter();
        let server = servers.find(|server| server.process_id() == process_id)?;
        Some(server.served.load(Relaxed)).filter(|&shown| shown != 0)
    }
}

impl ServerInfo {
    /// A client has the server from now on, who knows itself by this process id.
    #[inline]
    pub(crate) fn note_lease(&self, shown: i32) {
        self.served_before.store(self.served.load(Relaxed), Relaxed);
        self.served.store(shown, Relaxed);
    }
}

impl Client {
    /// The process id that it was told; 0 before that.
    #[inline]
    pub(crate) fn process_id(&self) -> i32 {
        self.cancel_key.get().map_or(0, |key| key.process_id)
    }
}

/// What a client has sent, as far as its first message is concerned.
pub(crate) enum Renumbered {
    /// With the process ids of servers in it.
    Done(Vec<u8>),
    /// More of it has to come first.
    Incomplete,
    /// A server that is to stand in for a client is not there yet; the client is reminded.
    Later,
}

/// Puts the process ids of servers in the place of clients'. `own` is the client's server, and it has
/// been tried so many times before.
pub(crate) fn renumber(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    own: &ServerInfo,
    bytes: &[u8],
    side: &ClientSide,
    tries: u8,
) -> Renumbered {
    let Ok(Some(header)) = Header::peek(bytes, u32::MAX) else {
        return Renumbered::Incomplete;
    };
    let len = header.frame_len();
    if len > FRAME_MAX {
        return Renumbered::Done(bytes.to_vec());
    }
    let Some(frame) = bytes.get(..len) else {
        return Renumbered::Incomplete;
    };
    let mut later = vacate::vacate(shared, own, bytes);
    let signals = signals(frame, side);
    let mut real = |number| match real(shared, client, own, number, signals) {
        Real::Is(process_id) => Some(process_id),
        Real::Unknown => None,
        Real::Later => {
            later = true;
            None
        }
    };
    let renumbered = pgweir_session::renumbered(frame, &mut real);
    if later && tries < STAND_IN_TRIES {
        tokio::spawn(remind(Arc::clone(client)));
        return Renumbered::Later;
    }
    let mut whole = renumbered.unwrap_or_else(|| frame.to_vec());
    whole.extend_from_slice(&bytes[len..]);
    Renumbered::Done(whole)
}

async fn remind(client: Arc<Client>) {
    sleep(STAND_IN_AGAIN).await;
    client.order(TaskOrder::LookAgain);
}

/// The process that a client's stands for.
enum Real {
    Is(i32),
    Unknown,
    Later,
}

fn real(
    shared: &Arc<Shared>,
    asking: &Arc<Client>,
    own: &ServerInfo,
    number: i32,
    signals: bool,
) -> Real {
    let meant = signals.then(|| meant(shared, own, number)).flatten();
    let shown = meant.unwrap_or(number);
    if shown == asking.process_id() {
        return Real::Is(own.process_id());
    }
    let mut keys = shared.cancel_keys.iter();
    let Some(found) = keys.find(|entry| entry.key().process_id == shown) else {
        return Real::Unknown;
    };
    let target = Arc::clone(found.value());
    drop((found, keys));
    let link = target.state().link;
    match link {
        Some(slot) => match shared.server(slot) {
            Some(server) if server.target == own.target => Real::Is(server.process_id()),
            Some(_) | None => Real::Unknown,
        },
        None if signals => stand_in(shared, asking, own, target),
        None => Real::Unknown,
    }
}

/// Whether a message, or the statement that it binds, may send a signal. Otherwise it looks for what a
/// process does, and a client without a server does nothing.
fn signals(frame: &[u8], side: &ClientSide) -> bool {
    let statement = match frame.first() {
        Some(&frontend::BIND) => {
            let mut reader = Reader::new(&frame[HEADER_LEN..]);
            match (reader.string(), reader.string()) {
                (Ok(_), Ok(b"")) => side.unnamed.get(),
                (Ok(_), Ok(name)) => side.statements.get(name).map(|known| &*known.definition),
                _ => None,
            }
        }
        _ => None,
    };
    let text = statement.unwrap_or(frame).to_ascii_lowercase();
    let text = String::from_utf8_lossy(&text);
    ["pg_terminate_backend", "pg_cancel_backend"]
        .iter()
        .any(|name| text.contains(name))
}

/// Whom the number of a server stands for that no other client holds: who had it last, and has asked it
/// for its number then.
fn meant(shared: &Shared, own: &ServerInfo, number: i32) -> Option<i32> {
    if number == own.process_id() {
        return Some(own.served_before.load(Relaxed)).filter(|&shown| shown != 0);
    }
    let shown = shared.shown(number)?;
    let mut servers = shared.servers.iter();
    let server = servers.find(|server| server.process_id() == number)?;
    let serial = *server.key();
    if server.target != own.target {
        return None;
    }
    drop((server, servers));
    let holds = |client: &Client| {
        let link = client.state().link;
        link.is_some_and(|slot| slot.serial() == serial)
    };
    let is_held = shared.clients.iter().any(|client| holds(&client));
    (!is_held).then_some(shown)
}

/// Takes an idle server of the client's pool.
fn stand_in(
    shared: &Arc<Shared>,
    asking: &Arc<Client>,
    own: &ServerInfo,
    target: Arc<Client>,
) -> Real {
    let Some(route) = target.route() else {
        return Real::Unknown;
    };
    let home = &route.home;
    let lease = match pools::checkout(shared, asking, home, None, Instant::now()) {
        Checkout::Ready(lease) => lease,
        Checkout::Wait(ticket) => {
            pools::abandon_wait(shared, asking, home, ticket, None);
            return Real::Later;
        }
        Checkout::Refused(_) => return Real::Unknown,
    };
    if lease.server.info.target != own.target {
        pools::checkin(shared, lease.slot, lease.server, Instant::now());
        return Real::Unknown;
    }
    let process_id = lease.server.info.process_id();
    target.stand_in(true);
    tokio::spawn(watch(Arc::clone(shared), lease, target));
    Real::Is(process_id)
}

/// Sees whether PostgreSQL ends a server that stands in for a client.
async fn watch(shared: Arc<Shared>, mut lease: Lease, target: Arc<Client>) {
    let line = &mut lease.server.line;
    let mut said = Vec::new();
    let ends = std::future::poll_fn(|cx| {
        with_scratch(|scratch| {
            loop {
                match line.poll_read(cx, scratch) {
                    Poll::Ready(Ok(Input::End) | Err(_)) => return Poll::Ready(()),
                    Poll::Ready(Ok(input)) => said.extend_from_slice(input.bytes(scratch)),
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
    });
    let has_ended = timeout(STANDS_IN, ends).await.is_ok();
    if is_terminated(&said) {
        target.end(Farewell::Terminated);
    }
    target.stand_in(false);
    if !has_ended && said.is_empty() {
        return pools::checkin(&shared, lease.slot, lease.server, Instant::now());
    }
    let reason = "terminated in the place of a client";
    close::give_up(&shared, lease.slot, lease.server, reason, Busy::Gone);
}

/// Whether a server has said that somebody has ended it.
fn is_terminated(said: &[u8]) -> bool {
    let Ok(Some(header)) = Header::peek(said, u32::MAX) else {
        return false;
    };
    let body = said.get(HEADER_LEN..header.frame_len()).unwrap_or_default();
    header.tag == tag::ERROR_RESPONSE
        && ErrorFields::parse(body).sqlstate() == Some(SqlState::ADMIN_SHUTDOWN)
}
