//! The new process: makes clients, servers and listeners of what was handed over.
//!
//! Everything is counted first, and nothing is read, written or opened before [`Adopted::start`]:
//! until then the old process may still take it all back.

mod client;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use pgweir_config::Host;
use pgweir_net::{Address, Listener, Stream, Target};
use pgweir_pool::{Past, Scope, SlotId};
use pgweir_session::Values;
use pgweir_session::handover::Catalogue;
use pgweir_session::prepared::StatementId;
use pgweir_wire::CancelKey;

use super::parcel::{self, Ending, Parcel};
use super::take::{Estate, Kind};
use crate::clients::client::{Client, Lease};
use crate::clients::farewell::Farewell;
use crate::clients::serve;
use crate::process::workers;
use crate::relay::Session;
use crate::servers::close::{self, Goodbye};
use crate::servers::ears::{self, Ear};
use crate::servers::server::{Server, ServerInfo, Work};
use crate::servers::{pools, reset};
use crate::settings::limits;
use crate::shared::{PoolHome, Rules, Shared, lock};

/// A PgBouncer's servers know statements by names up to a number that it does not tell; it counts
/// from one.
const STATEMENTS_OF_PGBOUNCER: StatementId = StatementId(1 << 40);

/// Everything that was handed over, counted and at rest.
pub(crate) struct Adopted {
    shared: Arc<Shared>,
    pub(crate) listeners: Vec<Listener>,
    sessions: Vec<Session>,
    /// Connections that listen for clients.
    ears: Vec<(Arc<Ear>, Lease)>,
    /// Servers by the numbers that they had; what clients hold is taken out.
    servers: HashMap<u64, Lease>,
    /// Which of them a client held.
    lent: Vec<u64>,
    endings: Vec<(SlotId, Arc<ServerInfo>, Option<Stream>, Goodbye)>,
    /// Clients for whom there is no place.
    strangers: Vec<(Arc<Client>, Stream, Farewell)>,
    /// Servers for which there is no pool.
    homeless: Vec<Stream>,
    /// The process id of the old process, if it has told it.
    pub(crate) taken_from: Option<u32>,
    catalogue: Catalogue,
    now: Instant,
}

/// Makes everything, within the limits or beyond them.
///
/// # Errors
/// The text for the log: something cannot be understood.
pub(crate) fn everything(shared: &Arc<Shared>, estate: Estate) -> Result<Adopted, String> {
    if estate.from == Kind::PgBouncer {
        shared.statements.begin_after(STATEMENTS_OF_PGBOUNCER);
    }
    let mut adopted = Adopted {
        shared: Arc::clone(shared),
        listeners: Vec::new(),
        sessions: Vec::new(),
        ears: Vec::new(),
        servers: HashMap::new(),
        lent: Vec::new(),
        endings: Vec::new(),
        strangers: Vec::new(),
        homeless: Vec::new(),
        taken_from: None,
        catalogue: Catalogue::default(),
        now: Instant::now(),
    };
    // Clients come last, because they name their servers.
    let mut clients = Vec::new();
    for (parcel, socket) in estate.parcels {
        match (parcel, socket) {
            (Parcel::Process(process), _) => {
                adopted.taken_from = process.pid;
                process.restore(shared, adopted.now);
            }
            (Parcel::Statement(statement), _) => {
                let catalogue = &mut adopted.catalogue;
                let known = catalogue.adopt(&statement, &shared.statements);
                known.map_err(|error| error.to_string())?;
            }
            (Parcel::Listener, Some(socket)) => adopted.listener(socket)?,
            (Parcel::Server(server), Some(socket)) => adopted.server(*server, socket)?,
            (Parcel::Ear(ear), Some(socket)) => adopted.ear(*ear, socket)?,
            (Parcel::Ending(ending), socket) => adopted.ending(&ending, socket)?,
            (Parcel::Client(client), Some(socket)) => clients.push((client, None, socket)),
            (Parcel::Unanswered(client, unanswered), Some(socket)) => {
                clients.push((client, Some(unanswered), socket));
            }
            (Parcel::Listener | Parcel::Server(_) | Parcel::Ear(_), None)
            | (Parcel::Client(_) | Parcel::Unanswered(..), None) => {
                return Err("a socket was not handed over".to_owned());
            }
        }
    }
    for (client, unanswered, socket) in clients {
        adopted.client(*client, unanswered, socket)?;
    }
    Ok(adopted)
}

impl Adopted {
    /// Lets everything go on here. The old process has ended.
    pub(crate) async fn start(self) -> Vec<Listener> {
        let Self {
            shared,
            listeners,
            sessions,
            ears,
            mut servers,
            lent,
            endings,
            strangers,
            homeless,
            ..
        } = self;
        close::until_ended(&shared, homeless).await;
        for (slot, info, stream, goodbye) in endings {
            tokio::spawn(close::inherited(
                Arc::clone(&shared),
                slot,
                info,
                stream,
                goodbye,
            ));
        }
        for number in lent {
            // Its client could not be handed over.
            if let Some(Lease { slot, server, .. }) = servers.remove(&number) {
                reset::after_client(&shared, slot, server, &Farewell::ClientGone);
            }
        }
        for Lease { slot, server, .. } in servers.into_values() {
            pools::checkin(&shared, slot, server, Instant::now());
        }
        for (ear, lease) in ears {
            tokio::spawn(ears::run::listen_on(Arc::clone(&shared), ear, lease));
        }
        for (index, session) in sessions.into_iter().enumerate() {
            let seat = shared.workers.seat_of(index);
            seat.spawn(serve::go_on(session));
        }
        for (client, stream, farewell) in strangers {
            let shared = Arc::clone(&shared);
            tokio::spawn(serve::turn_away(shared, client, stream, farewell));
        }
        listeners
    }

    /// How much there is, for the log.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} clients, {} servers and {} listening sockets",
            self.sessions.len() + self.strangers.len(),
            self.shared.servers.len() + self.homeless.len(),
            self.listeners.len()
        )
    }

    fn listener(&mut self, socket: OwnedFd) -> Result<(), String> {
        let global = &self.shared.config().global;
        let options = self.shared.tcp_options();
        let mut listener = Listener::from_fd(socket, global.listen_port, &options)
            .map_err(|error| error.to_string())?;
        listener.own_file();
        tracing::info!("got pooler socket: {}", listener.name());
        self.listeners.push(listener);
        Ok(())
    }

    fn server(&mut self, server: parcel::Server, socket: OwnedFd) -> Result<(), String> {
        let (number, is_lent) = (server.number, server.is_lent);
        if let Some(lease) = self.lease(server, socket, false)? {
            if is_lent {
                self.lent.push(number);
            }
            self.servers.insert(number, lease);
        }
        Ok(())
    }

    fn ear(&mut self, ear: parcel::Ear, socket: OwnedFd) -> Result<(), String> {
        let Some(lease) = self.lease(ear.server, socket, true)? else {
            return Ok(());
        };
        let channels = ear.channels.into_iter().map(Arc::from);
        let home = &lease.server.info.home;
        let encoding = ear.encoding.map(Arc::from);
        let adopted = ears::adopt(&self.shared, home, encoding, ear.marks.into(), channels);
        self.ears.push((adopted, lease));
        Ok(())
    }

    /// A server with its slot; nothing if there is no pool for it.
    fn lease(
        &mut self,
        server: parcel::Server,
        socket: OwnedFd,
        is_control: bool,
    ) -> Result<Option<Lease>, String> {
        let stream = stream(socket)?;
        let Ok(route) = self.shared.route(&server.database, &server.user) else {
            self.homeless.push(stream);
            return Ok(None);
        };
        let (home, tracked) = (&route.home, &self.shared.tracked);
        let rules = home.rules();
        let leads_here =
            server.destination == Some(rules.destination()) && *home.name.user == *server.user;
        let past = match (&server.relay, server.is_obsolete || !leads_here) {
            (parcel::Relay::Unknown(_), _) => Past::Unknown,
            (parcel::Relay::Known(_), true) => Past::Outdated,
            (parcel::Relay::Known(_), false) => Past::Known,
        };
        let relay = match server.relay {
            parcel::Relay::Known(state) => {
                pgweir_session::Relay::restore(*state, tracked, &self.catalogue)
                    .map_err(|error| error.to_string())?
            }
            parcel::Relay::Unknown(values) => {
                let values = Values::restore(&values, tracked);
                match server.is_lent {
                    true => pgweir_session::Relay::unknown(values),
                    false => pgweir_session::Relay::new(values),
                }
            }
        };
        let welcome = server.welcome.map(|said| Arc::new(said.restore(tracked)));
        if let Some(welcome) = welcome.as_ref().filter(|_| past == Past::Known) {
            *lock(&home.welcome) = Some(Arc::clone(welcome));
        }
        let opened = server.opened.moment(self.now);
        let counted = self.counted(&rules, past, server.host.as_deref(), opened);
        let counted = pgweir_pool::Inherited {
            is_control,
            ..counted
        };
        let name = host_name(&rules, server.host.as_deref());
        let info = self.info(home, opened, Some(&stream), &server.cancel_key.0, name);
        let slot = self.slot(home, counted, &info);
        if let Some(welcome) = welcome {
            let _ = info.welcome.set(welcome);
        }
        // What nobody knows may be a query as well.
        let query = match relay.owes_unknown() {
            true => Some(self.now),
            false => server.query.map(|age| age.moment(self.now)),
        };
        let server_work = Work {
            query_start: query,
            transaction_start: server.transaction.map(|age| age.moment(self.now)),
            is_own: server.is_own,
            ..Work::none(rules)
        };
        Ok(Some(Lease {
            slot,
            server: Box::new(Server {
                line: server.buffers.restore(stream),
                relay,
                info,
                work: server_work,
                thread: workers::here(),
            }),
            stale: false,
        }))
    }

    fn ending(&mut self, ending: &Ending, socket: Option<OwnedFd>) -> Result<(), String> {
        let stream = socket.map(stream).transpose()?;
        let Ok(route) = self.shared.route(&ending.database, &ending.user) else {
            self.homeless.extend(stream);
            return Ok(());
        };
        let (home, key) = (&route.home, &ending.cancel_key.0);
        let host = ending.host.as_deref();
        let counted = self.counted(&home.rules(), Past::Outdated, host, self.now);
        let info = self.info(home, self.now, stream.as_ref(), key, None);
        let slot = self.slot(home, counted, &info);
        self.shared.pools().closing(slot, self.now);
        let goodbye = match ending.is_encrypted {
            true => Goodbye::Silent,
            false => Goodbye::Terminate,
        };
        self.endings.push((slot, info, stream, goodbye));
        Ok(())
    }

    /// What a server counts in besides its pool.
    fn counted(
        &self,
        rules: &Rules,
        past: Past,
        host: Option<&str>,
        opened_at: Instant,
    ) -> pgweir_pool::Inherited {
        let known = limits::hosts(rules);
        let host = known.iter().find(|known| Some(&***known) == host);
        pgweir_pool::Inherited {
            past,
            is_control: false,
            // The only one is the pool's own affair.
            host: host
                .filter(|_| known.len() > 1)
                .map(|host| Scope::HostServers(Arc::clone(host))),
            opened_at,
        }
    }

    /// A server counts from here on.
    fn slot(
        &self,
        home: &PoolHome,
        counted: pgweir_pool::Inherited,
        info: &Arc<ServerInfo>,
    ) -> SlotId {
        let slot = self.shared.pools().inherit(home.id, counted, self.now);
        self.shared.servers.insert(slot.serial(), Arc::clone(info));
        slot
    }

    /// A peer that has gone has no address any more; whoever reads will see that.
    fn info(
        &self,
        home: &Arc<PoolHome>,
        opened: Instant,
        stream: Option<&Stream>,
        key: &[u8],
        host: Option<Arc<str>>,
    ) -> Arc<ServerInfo> {
        let nowhere = || Target::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let target = stream.and_then(|stream| stream.peer_target().ok());
        let port = home.rules().database.port();
        let address = stream.and_then(|stream| stream.peer_address(port).ok());
        let local = stream.and_then(|stream| stream.local_address(port).ok());
        if let (Some(host), Some(ip)) = (&host, address.and_then(|address| address.ip())) {
            self.shared.resolver.remember(host, ip);
        }
        Arc::new(ServerInfo {
            id: self.shared.next_id(),
            home: Arc::clone(home),
            fd: stream.map_or_else(OnceLock::new, |s| s.as_fd().as_raw_fd().into()),
            target: target.unwrap_or_else(nowhere),
            host,
            address: address.unwrap_or(Address::Unix { peer: None, port }),
            connected_at: opened,
            local: local.map_or_else(OnceLock::new, OnceLock::from),
            tls: OnceLock::new(),
            certificate_expiry: OnceLock::new(),
            cancel_key: CancelKey::parse(key).map_or_else(OnceLock::new, OnceLock::from),
            welcome: OnceLock::new(),
            served: AtomicI32::new(0),
            served_before: AtomicI32::new(0),
            prepared: AtomicUsize::new(0),
        })
    }
}

/// The name by which a server was reached, as far as that is certain: `told` is a host and its port.
fn host_name(rules: &Rules, told: Option<&str>) -> Option<Arc<str>> {
    if let Some((host, _port)) = told.and_then(|told| told.rsplit_once(':')) {
        return Some(host.into());
    }
    match rules.database.keys.host.as_ref()?.list() {
        [Host::Tcp(name)] => Some(name.as_str().into()),
        _ => None,
    }
}

fn stream(socket: OwnedFd) -> Result<Stream, String> {
    Stream::from_fd(socket).map_err(|error| format!("cannot use a socket: {error}"))
}
