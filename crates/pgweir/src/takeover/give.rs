//! The old process: describes everything it has, and passes the sockets.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_auth::{Secret, ServerSecret};
use pgweir_console::tables;
use pgweir_net::{Listener, Stream};
use pgweir_pool::{Scope, SlotId};
use pgweir_session::handover::Bytes;
use tokio::time::timeout;

use super::hold;
use super::parcel::{
    Age, Buffers, Client, Ear, Ending, LearntSecret, Parcel, Process, Relay, Replication, Welcome,
    key_bytes,
};
use super::successor::{in_time, unless_let_go};
use crate::clients::client::{Lease, ReplicationKind};
use crate::relay::Session;
use crate::servers::close::{self, Busy};
use crate::servers::ears;
use crate::servers::server::Server;
use crate::shared::{Shared, lock};

/// How often to look whether servers have ended, if nobody rings.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Parcels without a socket are collected up to this size before they are written.
const WRITE_AT: usize = 64 * 1024;

/// Writes all parcels, after everything has been held.
pub(crate) async fn parcels(shared: &Arc<Shared>, stream: &mut Stream) -> io::Result<()> {
    let held = Everything::lend(shared);
    let releases = held.releases;
    let written = unless_let_go(shared, releases, write(&held.parcels(), stream)).await;
    held.put_back();
    written
}

async fn write(parcels: &[Sent<'_>], stream: &mut Stream) -> io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let mut out = Vec::new();
    tables::HANDOVER.write_description(&mut out);
    for Sent { parcel, socket } in parcels {
        debug_assert_eq!(parcel.has_socket(), socket.is_some());
        let text = serde_json::to_string(parcel).map_err(io::Error::other)?;
        if let Some(socket) = socket {
            in_time(stream.write_all(&out)).await?;
            out.clear();
            tables::HANDOVER.write_row(&text, &mut out);
            in_time(stream.write_with_fd(&out, *socket)).await?;
            out.clear();
        } else {
            tables::HANDOVER.write_row(&text, &mut out);
            if out.len() >= WRITE_AT {
                in_time(stream.write_all(&out)).await?;
                out.clear();
            }
        }
    }
    in_time(stream.write_all(&out)).await
}

/// Ends the servers that a successor like PgBouncer has not been told of, and waits until PostgreSQL
/// has closed them: nobody will count them any more.
pub(crate) async fn end_what_stays(shared: &Arc<Shared>) {
    let Everything {
        sessions,
        servers,
        ears,
        ..
    } = Everything::lend(shared);
    let of_sessions = sessions
        .into_values()
        .filter(|session| !is_plain_to_others(session));
    let lent = of_sessions.filter_map(|session| session.into_server());
    let idle = servers
        .into_iter()
        .map(|(slot, server)| Lease::of(slot, server));
    let encrypted = idle.filter(|lease| lease.server.info.tls.get().is_some());
    let ears = ears.into_iter().map(|(_, lease)| lease);
    for Lease { slot, server, .. } in lent.chain(encrypted).chain(ears) {
        let reason = "it cannot be handed over";
        close::give_up(shared, slot, server, reason, Busy::Yes);
    }
    let patience = shared.config().global.server_close_timeout.duration();
    let ended = async {
        while !shared.endings.is_empty() {
            let _ = timeout(LOOK_AGAIN, shared.ended.notified()).await;
        }
    };
    if timeout(patience, ended).await.is_err() {
        tracing::warn!("PostgreSQL has not closed all that could not be handed over");
    }
}

struct Sent<'a> {
    parcel: Parcel,
    socket: Option<BorrowedFd<'a>>,
}

/// Everything that is held, taken out of the places where others could touch it.
pub(super) struct Everything<'a> {
    shared: &'a Arc<Shared>,
    pub(super) listeners: Vec<Arc<Listener>>,
    pub(super) sessions: HashMap<u64, Box<Session>>,
    pub(super) servers: Vec<(SlotId, Box<Server>)>,
    ears: Vec<(Arc<ears::Ear>, Lease)>,
    endings: Vec<(SlotId, Option<OwnedFd>)>,
    /// How often all had been let go before.
    pub(super) releases: u64,
    now: Instant,
}

impl<'a> Everything<'a> {
    pub(super) fn lend(shared: &'a Arc<Shared>) -> Self {
        let copy = |socket: &Option<OwnedFd>| socket.as_ref().and_then(|fd| fd.try_clone().ok());
        let endings = shared.endings.iter();
        Self {
            // Before anything is taken: what is let go meanwhile goes home in the end.
            releases: shared.standstill.releases(),
            shared,
            listeners: lock(&shared.listeners).clone(),
            sessions: shared.standstill.lend_sessions(),
            servers: std::mem::take(&mut lock(&shared.standstill.servers)),
            ears: ears::lend(shared),
            endings: endings
                .map(|entry| (*entry.key(), copy(entry.value())))
                .collect(),
            now: Instant::now(),
        }
    }

    pub(super) fn put_back(self) {
        hold::put_back_idle(self.shared, self.servers, self.releases);
        ears::put_back(self.ears);
        self.shared.standstill.put_back(self.sessions);
    }

    fn parcels(&self) -> Vec<Sent<'_>> {
        let process = Process::of(self.shared, self.now);
        let mut all = vec![unsocketed(Parcel::Process(process))];
        let statements = self.shared.statements.all().into_iter();
        all.extend(statements.map(|statement| unsocketed(Parcel::Statement(statement.state()))));
        all.extend(self.listeners.iter().map(|listener| Sent {
            parcel: Parcel::Listener,
            socket: Some(listener.as_fd()),
        }));
        let lent = self
            .sessions
            .values()
            .filter_map(|session| session.server());
        all.extend(lent.map(|(slot, server)| self.server(slot, server, true)));
        let idle = self.servers.iter();
        all.extend(idle.map(|(slot, server)| self.server(*slot, server, false)));
        all.extend(self.ears.iter().map(|(ear, lease)| self.ear(ear, lease)));
        let endings = self.endings.iter();
        all.extend(endings.filter_map(|(slot, socket)| self.ending(*slot, socket.as_ref())));
        all.extend(self.clients());
        all
    }

    /// Those that wait come in the order of their waiting. TLS clients stay: only this process has
    /// their keys.
    fn clients(&self) -> impl Iterator<Item = Sent<'_>> {
        let mut sessions: Vec<_> = self.sessions.values().filter(|s| is_plain(s)).collect();
        sessions.sort_by_key(|session| session.waits_since());
        sessions.into_iter().filter_map(|session| {
            let identity = session.client.identity.get()?;
            let replication = session.client.replication.get();
            let waits = session.waits_since().is_some();
            let client = Client {
                server: session.server().map(|(_, server)| server.info.id),
                database: identity.database.to_string(),
                // It need not be the one that the client asked for.
                user: session.route.user.to_string(),
                cancel_key: key_bytes(session.client.cancel_key.get()),
                side: session.side().state(&self.shared.tracked),
                buffers: Buffers::of(&session.line),
                notifications: Bytes(
                    session
                        .subscription()
                        .map_or_else(Vec::new, |subscription| subscription.messages()),
                ),
                replication: replication.map(|wish| match wish.kind {
                    ReplicationKind::Logical => Replication::Logical,
                    ReplicationKind::Physical => Replication::Physical,
                }),
                connected: Age::of(session.client.connected_at, self.now),
                since: Age::of(session.client.state().clocks.since, self.now),
                waits,
                secret: learnt_secret(session),
            };
            let client = Box::new(client);
            Some(Sent {
                parcel: match session.unanswered() {
                    None => Parcel::Client(client),
                    Some(unanswered) => Parcel::Unanswered(client, unanswered),
                },
                socket: Some(session.line.stream().as_fd()),
            })
        })
    }

    /// A TLS server cannot serve another process, but there it can end.
    fn server<'s>(&self, slot: SlotId, server: &'s Server, is_lent: bool) -> Sent<'s> {
        let (info, stream) = (&server.info, server.line.stream());
        let name = &info.home.name;
        let age = |moment: Option<Instant>| moment.map(|moment| Age::of(moment, self.now));
        let parcel = if stream.tls_info().is_some() {
            Parcel::Ending(Ending {
                database: name.database.to_string(),
                user: name.user.to_string(),
                cancel_key: key_bytes(info.cancel_key.get()),
                host: self.host_of(slot),
                has_socket: true,
                is_encrypted: true,
            })
        } else {
            let tracked = &self.shared.tracked;
            Parcel::Server(Box::new(super::parcel::Server {
                number: info.id,
                is_lent,
                is_own: server.work.is_own,
                database: name.database.to_string(),
                user: name.user.to_string(),
                cancel_key: key_bytes(info.cancel_key.get()),
                relay: Relay::Known(Box::new(server.relay.state(tracked))),
                buffers: Buffers::of(&server.line),
                welcome: info.welcome.get().map(|said| Welcome::of(said, tracked)),
                opened: Age::of(info.connected_at, self.now),
                host: self.host_of(slot),
                destination: Some(info.home.rules().destination()),
                is_obsolete: self.shared.pools().is_obsolete(slot),
                query: age(server.work.query_start),
                transaction: age(server.work.transaction_start),
            }))
        };
        Sent {
            parcel,
            socket: Some(stream.as_fd()),
        }
    }

    /// What listens with TLS ends as any other server, and those that listen by it are not handed over.
    fn ear<'s>(&self, ear: &ears::Ear, lease: &'s Lease) -> Sent<'s> {
        let mut sent = self.server(lease.slot, &lease.server, false);
        sent.parcel = match sent.parcel {
            Parcel::Server(server) => {
                let (marks, channels) = ear.hears();
                Parcel::Ear(Box::new(Ear {
                    server: *server,
                    encoding: ear.encoding.as_ref().map(|name| name.to_string()),
                    marks: marks.to_string(),
                    channels: channels.iter().map(|name| name.to_string()).collect(),
                }))
            }
            other => other,
        };
        sent
    }

    fn host_of(&self, slot: SlotId) -> Option<String> {
        match self.shared.pools().host_of(slot)? {
            Scope::HostServers(host) => Some(host.to_string()),
            _ => None,
        }
    }

    fn ending<'s>(&self, slot: SlotId, socket: Option<&'s OwnedFd>) -> Option<Sent<'s>> {
        let info = self.shared.servers.get(&slot.serial())?;
        let name = &info.home.name;
        Some(Sent {
            parcel: Parcel::Ending(Ending {
                database: name.database.to_string(),
                user: name.user.to_string(),
                cancel_key: key_bytes(info.cancel_key.get()),
                host: self.host_of(slot),
                has_socket: socket.is_some(),
                is_encrypted: info.tls.get().is_some(),
            }),
            socket: socket.map(|socket| socket.as_fd()),
        })
    }
}

fn unsocketed(parcel: Parcel) -> Sent<'static> {
    Sent {
        parcel,
        socket: None,
    }
}

/// Whether a session can be told to a process that knows nothing of those who listen without a server.
pub(super) fn is_plain_to_others(session: &Session) -> bool {
    is_plain(session) && session.subscription().is_none()
}

/// Whether neither the client nor the server that it holds, nor the one that listens for it, speaks TLS.
fn is_plain(session: &Session) -> bool {
    let subscription = session.subscription();
    if subscription.is_some_and(|subscription| subscription.ear().is_encrypted()) {
        return false;
    }
    let encrypted = |line: &pgweir_net::Buffered| line.stream().tls_info().is_some();
    !encrypted(&session.line)
        && !session
            .server()
            .is_some_and(|(_, server)| encrypted(&server.line))
}

/// What the pool's servers are logged in with, if this client has taught it.
fn learnt_secret(session: &Session) -> LearntSecret {
    let home = &session.route.home;
    let is_own = |user: &str| *home.name.user == *user;
    let identity = session.client.identity.get();
    if !identity.is_some_and(|identity| is_own(&identity.user)) {
        return LearntSecret::default();
    }
    let (secret, keys) = match lock(&home.secret).clone() {
        None => return LearntSecret::default(),
        Some(ServerSecret::Plain(password)) => (Secret::Plain(password), None),
        Some(ServerSecret::Md5(secret)) => (Secret::Md5(secret), None),
        Some(ServerSecret::Scram(secret)) => (Secret::Scram(secret), None),
        Some(ServerSecret::Keys(keys)) => (Secret::Scram(keys.secret), Some(keys.client_key)),
    };
    LearntSecret {
        password: Some(Bytes(secret.expose().to_vec())),
        scram_client_key: keys.map(|key| Bytes(key.expose().to_vec())),
    }
}
