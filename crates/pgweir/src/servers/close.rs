//! Ends a server connection: until PostgreSQL has closed it, its slot is taken.
//!
//! [CancelRequest if it is busy] → Terminate → half-close → read until the end. PostgreSQL closes
//! the socket when the backend process is gone, so the end of the stream is the proof that the
//! backend no longer counts. If it does not come in time the slot is quarantined: still counted,
//! and freed when the end comes after all, or when an operator releases it.

use std::borrow::Cow;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use pgweir_net::Stream;
use pgweir_pool::SlotId;
use pgweir_stats::Tally;
use pgweir_wire::frontend;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::clients::cancel;
use crate::servers::pools;
use crate::servers::server::{Server, ServerInfo};
use crate::shared::Shared;
use crate::watch::series::OTHER;
use crate::watch::{backends, events};

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

/// Closes a server that whoever held it has marked as closing. A reason that is put together for the
/// occasion is for the log alone.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    slot: SlotId,
    server: Box<Server>,
    reason: impl Into<Cow<'static, str>>,
    busy: Busy,
) {
    let reason = reason.into();
    let counted = match &reason {
        Cow::Borrowed(reason) => reason,
        Cow::Owned(_) => OTHER,
    };
    events::disconnect(shared, &server.info.home, counted);
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
    reason: impl Into<Cow<'static, str>>,
    busy: Busy,
) {
    shared.pools().closing(slot, Instant::now());
    spawn(shared, slot, server, reason, busy);
}

async fn run(shared: Arc<Shared>, slot: SlotId, mut server: Box<Server>, busy: Busy) {
    let ending = Ending::begin(&shared, slot, Some(server.line.stream()));
    if busy == Busy::Yes && server.relay.may_cancel() {
        let _ = cancel::send(&shared, &server.info).await;
    }
    let goodbye = goodbye_to(&server);
    end(&shared, slot, server.line.stream_mut(), goodbye).await;
    drop(ending);
    free(&shared, slot);
}

/// How a server is told that its connection ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Goodbye {
    /// By the message for that.
    Terminate,
    /// By the end of the stream: on a TLS connection that came from another process nothing can be
    /// said, and in the middle of a message that would be read as a part of it.
    Silent,
}

fn goodbye_to(server: &Server) -> Goodbye {
    match server.relay.is_between_requests() && !server.line.has_unsent() {
        true => Goodbye::Terminate,
        false => Goodbye::Silent,
    }
}

/// Ends the connection of a login that has failed. If PostgreSQL does not close it in time it is still there.
pub(crate) async fn end_login(
    shared: &Arc<Shared>,
    slot: SlotId,
    mut stream: Stream,
) -> Option<Stuck> {
    let ending = Ending::begin(shared, slot, Some(&stream));
    let ended = ends_in_time(shared, &mut stream, Goodbye::Terminate).await;
    (!ended).then_some(Stuck { stream, ending })
}

/// A connection that PostgreSQL has not closed in time, and its slot.
pub(crate) struct Stuck {
    stream: Stream,
    ending: Ending,
}

impl Stuck {
    /// Frees the slot, which is quarantined, when the end comes after all.
    pub(crate) fn wait_for_end(self) {
        tokio::spawn(async move {
            let Self { mut stream, ending } = self;
            let (shared, slot) = (Arc::clone(&ending.shared), ending.slot);
            end_or_release(&shared, slot, &mut stream).await;
            drop(ending);
            shared.servers.remove(&slot.serial());
            give_back(&shared, slot);
        });
    }
}

fn quarantine(shared: &Arc<Shared>, slot: SlotId) {
    let actions = shared.pools().quarantined(slot, Instant::now());
    pools::perform(shared, actions);
}

/// Says goodbye and reads until the peer has closed; quarantines the slot if that takes long.
async fn end(shared: &Arc<Shared>, slot: SlotId, stream: &mut Stream, goodbye: Goodbye) {
    if !ends_in_time(shared, stream, goodbye).await {
        quarantine(shared, slot);
        end_or_release(shared, slot, stream).await;
    }
}

async fn ends_in_time(shared: &Shared, stream: &mut Stream, goodbye: Goodbye) -> bool {
    let patience = shared.config().global.server_close_timeout.duration();
    let ended = timeout(patience, say_goodbye(stream, goodbye)).await;
    if ended.is_err() {
        tracing::warn!(
            "PostgreSQL has not closed a connection within {} s: its slot stays taken",
            patience.as_secs()
        );
    }
    ended.is_ok()
}

/// Waits for the end of a connection in quarantine, or until an operator says that it is gone.
async fn end_or_release(shared: &Shared, slot: SlotId, stream: &mut Stream) {
    tokio::select! {
        () = read_to_end(stream) => {}
        () = shared.quarantine.release_of(slot) => {}
    }
}

async fn say_goodbye(stream: &mut Stream, goodbye: Goodbye) {
    if goodbye == Goodbye::Terminate {
        let mut out = BytesMut::new();
        frontend::terminate(&mut out);
        // The peer may be gone already; then reading finds the end at once.
        let _ = stream.write_all(&out).await;
    }
    let _ = stream.shutdown().await;
    read_to_end(stream).await;
}

/// Waits for the end of a server that another process was closing, or could not hand over. Without
/// its socket the slot stays taken for as long as a backend may take to end.
pub(crate) async fn inherited(
    shared: Arc<Shared>,
    slot: SlotId,
    info: Arc<ServerInfo>,
    stream: Option<Stream>,
    goodbye: Goodbye,
) {
    let ending = Ending::begin(&shared, slot, stream.as_ref());
    match stream {
        Some(mut stream) => {
            // It may be in the middle of a query.
            let _ = cancel::send(&shared, &info).await;
            end(&shared, slot, &mut stream, goodbye).await;
        }
        None => {
            let patience = shared.config().global.server_close_timeout.duration();
            tokio::time::sleep(patience).await;
        }
    }
    drop(ending);
    free(&shared, slot);
}

/// Ends servers for which there is no pool to count them in, and waits for that.
pub(crate) async fn until_ended(shared: &Shared, streams: Vec<Stream>) {
    let patience = shared.config().global.server_close_timeout.duration();
    let deadline = tokio::time::Instant::now() + patience;
    for mut stream in streams {
        let ending = say_goodbye(&mut stream, Goodbye::Terminate);
        if tokio::time::timeout_at(deadline, ending).await.is_err() {
            tracing::warn!("PostgreSQL has not closed a connection that has no pool any more");
        }
    }
}

/// The end of a server, of which a successor is told: it has to count the server until then.
struct Ending {
    shared: Arc<Shared>,
    slot: SlotId,
}

impl Ending {
    /// From here on the socket, if it is still there, is only read to its end.
    fn begin(shared: &Arc<Shared>, slot: SlotId, stream: Option<&Stream>) -> Self {
        // Without a descriptor to spare, a successor counts the server for a while.
        let socket = stream.and_then(|stream| stream.as_fd().try_clone_to_owned().ok());
        shared.endings.insert(slot, socket);
        Self {
            shared: Arc::clone(shared),
            slot,
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.shared.endings.remove(&self.slot);
    }
}

async fn read_to_end(stream: &mut Stream) {
    let mut sink = [0; 4096];
    while let Ok(1..) = stream.read(&mut sink).await {}
}

/// A server is lost with its socket. Whether the backend is gone
/// cannot be seen any more, so the slot stays taken for as long as a backend may take to end.
pub(crate) fn write_off(shared: &Arc<Shared>, slot: SlotId) {
    quarantine(shared, slot);
    let shared = Arc::clone(shared);
    let patience = shared.config().global.server_close_timeout.duration();
    tokio::spawn(async move {
        let ending = Ending::begin(&shared, slot, None);
        let _ = timeout(patience, shared.quarantine.release_of(slot)).await;
        drop(ending);
        free(&shared, slot);
    });
}

/// The connection is gone: its slot comes back.
pub(crate) fn free(shared: &Arc<Shared>, slot: SlotId) {
    if let Some((_, info)) = shared.servers.remove(&slot.serial()) {
        backends::note_gone(shared, &info);
        info.home.totals.add(&mut Tally {
            server_close_count: 1,
            ..Tally::default()
        });
    }
    give_back(shared, slot);
}

fn give_back(shared: &Arc<Shared>, slot: SlotId) {
    let actions = shared.pools().closed(slot, Instant::now());
    pools::perform(shared, actions);
    shared.ended.notify_waiters();
}
