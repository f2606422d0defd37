//! What everybody may know of a client: the console, the janitor, whoever has a server for it.
//!
//! The client's own task owns the connection; this record is shared. Others reach the task only
//! through its [`Mailbox`].

mod counted;
mod mailbox;

use std::fmt;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use pgweir_net::tls::TlsInfo;
use pgweir_net::{Address, Opened};
use pgweir_pool::SlotId;
use pgweir_session::{Clocks, Phase};
use pgweir_wire::CancelKey;

use crate::process::workers;
use crate::servers::pins::Pin;
use crate::shared::{Route, lock};

use self::counted::Counted;
use self::mailbox::Mailbox;
pub(crate) use self::mailbox::{Lease, Mail, Remedy, Standing, TaskOrder};

/// What a replication client's own server is asked for at its login.
#[derive(Debug)]
pub(crate) struct Replication {
    pub(crate) kind: ReplicationKind,
    /// Parameters for the startup packet besides user and database.
    pub(crate) parameters: Vec<(String, String)>,
}

/// What is replicated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum ReplicationKind {
    /// `replication=database`: changes of one database.
    Logical,
    /// `replication=yes`: the write-ahead log.
    Physical,
}

impl ReplicationKind {
    /// As it stands in the startup packet.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Logical => "database",
            Self::Physical => "yes",
        }
    }
}

/// Who a client is, known after its startup packet.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) database: Arc<str>,
    pub(crate) user: Arc<str>,
}

/// What changes while a client lives.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) clocks: Clocks,
    /// When the client last asked for something.
    pub(crate) requested_at: Instant,
    /// The server that it holds.
    pub(crate) link: Option<SlotId>,
    /// How many requests have ended: the number of the one that it waits for.
    pub(crate) request: u32,
    /// Whether it has been told that it waits.
    pub(crate) wait_notified: bool,
    /// Whether it has been told to rest, since its last request.
    pub(crate) told_to_rest: bool,
    /// The start of the query that was canceled last because of `query_timeout`: milliseconds after
    /// the client connected.
    pub(crate) cut_short: Option<u32>,
    pub(crate) application_name: Arc<str>,
    /// Why a server stays with it between its transactions.
    pub(crate) pin: Option<Box<Pin>>,
}

impl State {
    /// The request that the client has made is over: it is idle from `now` on.
    #[inline]
    pub(crate) fn end_request(&mut self, now: Instant) {
        self.request = self.request.wrapping_add(1);
        self.told_to_rest = false;
        self.clocks = Clocks {
            phase: Phase::Idle,
            since: now,
            query_start: None,
            transaction_start: None,
        };
    }

    /// Takes the name that the client has set. Whether it may be another.
    pub(crate) fn set_application_name(&mut self, name: Option<&Arc<str>>) -> bool {
        match name {
            Some(name) if !Arc::ptr_eq(name, &self.application_name) => {
                self.application_name = Arc::clone(name);
                true
            }
            Some(_) | None => false,
        }
    }
}

/// The shared record of a client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    /// The number of its socket, to be shown.
    pub(crate) fd: RawFd,
    pub(crate) address: Address,
    pub(crate) local: Address,
    pub(crate) connected_at: Instant,
    pub(crate) identity: OnceLock<Identity>,
    route: Mutex<Option<Arc<Route>>>,
    pub(crate) cancel_key: OnceLock<CancelKey>,
    /// Set for a client that gets a server of its own for replication.
    pub(crate) replication: OnceLock<Box<Replication>>,
    /// Set where TLS is in use.
    pub(crate) tls: OnceLock<Box<TlsInfo>>,
    /// Whether it talks to the console.
    pub(crate) is_console: AtomicBool,
    /// The thread of its task.
    pub(crate) thread: AtomicU16,
    pub(crate) prepared: AtomicU32,
    /// What it counts in, to be given back when it is forgotten, however its task ends.
    counted: Mutex<Counted>,
    state: Mutex<State>,
    has_mail: AtomicBool,
    mailbox: Mutex<Mailbox>,
}

impl Client {
    /// The minute, counted from when it connected.
    pub(crate) fn minute(&self, now: Instant) -> u32 {
        let passed = now.saturating_duration_since(self.connected_at);
        u32::try_from(passed.as_secs() / 60).unwrap_or(u32::MAX)
    }

    /// A client that came in this way, at this moment.
    pub(crate) fn of(id: u64, opened: &Opened, connected_at: Instant) -> Self {
        Self {
            fd: opened.stream.as_fd().as_raw_fd(),
            ..Self::new(id, opened.peer, opened.local, connected_at)
        }
    }

    pub(crate) fn new(id: u64, address: Address, local: Address, now: Instant) -> Self {
        let clocks = Clocks {
            phase: Phase::Login,
            since: now,
            query_start: None,
            transaction_start: None,
        };
        Self {
            id,
            fd: -1,
            address,
            local,
            connected_at: now,
            identity: OnceLock::new(),
            route: Mutex::new(None),
            cancel_key: OnceLock::new(),
            replication: OnceLock::new(),
            tls: OnceLock::new(),
            is_console: AtomicBool::new(false),
            thread: AtomicU16::new(workers::here()),
            prepared: AtomicU32::new(0),
            counted: Mutex::new(Counted::default()),
            state: Mutex::new(State {
                clocks,
                requested_at: now,
                link: None,
                request: 0,
                wait_notified: false,
                told_to_rest: false,
                cut_short: None,
                application_name: Arc::default(),
                pin: None,
            }),
            has_mail: AtomicBool::new(false),
            mailbox: Mutex::new(Mailbox::default()),
        }
    }

    /// The state, to read or change. Held for a few lines only.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Where its login has led, if it was let in.
    pub(crate) fn route(&self) -> Option<Arc<Route>> {
        lock(&self.route).clone()
    }

    /// Its login leads there, from now on.
    pub(crate) fn set_route(&self, route: &Arc<Route>) {
        *lock(&self.route) = Some(Arc::clone(route));
    }

    /// What it counts in.
    pub(crate) fn counted(&self) -> MutexGuard<'_, Counted> {
        lock(&self.counted)
    }

    /// The user `pgbouncer` (or `pgweir`) on the Unix socket, being the system user that we run as:
    /// it could read our memory anyway.
    pub(crate) fn is_own_user(&self) -> bool {
        let own = rustix::process::getuid().as_raw();
        let named = self
            .identity
            .get()
            .is_some_and(|identity| matches!(&*identity.user, "pgbouncer" | "pgweir"));
        named
            && self
                .address
                .peer_credentials()
                .is_some_and(|peer| peer.uid == own)
    }

    /// Whether it has been told that it is in.
    pub(crate) fn is_greeted(&self) -> bool {
        self.cancel_key.get().is_some()
    }

    /// Whether it has been idle for so long and is to rest now. That is said once after each request.
    pub(crate) fn mark_to_rest(&self, now: Instant, after: Duration) -> bool {
        let mut state = self.state();
        let is_idle = state.clocks.phase == Phase::Idle && state.link.is_none();
        let is_long = now.saturating_duration_since(state.clocks.since) >= after;
        if !is_idle || !is_long || self.is_console.load(Ordering::Relaxed) {
            return false;
        }
        !std::mem::replace(&mut state.told_to_rest, true)
    }

    /// Whether it has been here for so long, has no server now, and another thread could serve it: what is encrypted
    /// stays where it is.
    pub(crate) fn may_change_thread(&self, now: Instant, after: Duration) -> bool {
        let is_free = {
            let state = self.state();
            state.link.is_none() && !state.told_to_rest
        };
        is_free
            && self.is_greeted()
            && self.tls.get().is_none()
            && !self.is_console.load(Ordering::Relaxed)
            && now.saturating_duration_since(self.connected_at) >= after
    }
}

impl fmt::Display for Client {
    /// The prefix of its log lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (database, user) = match self.identity.get() {
            Some(identity) => (&*identity.database, &*identity.user),
            None => ("(nodb)", "(nouser)"),
        };
        write!(f, "C-{:#x}: {database}/{user}@{}", self.id, self.address)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn who_stays_and_has_no_server_may_change_its_thread() {
        let (now, after) = (Instant::now(), Duration::from_secs(1));
        let nowhere = Address::Tcp((IpAddr::V4(Ipv4Addr::LOCALHOST), 0).into());
        let client = Client::new(1, nowhere, nowhere, now);
        let may = |elapsed| client.may_change_thread(now + elapsed, after);
        assert!(!may(after), "it logs in");
        let key = CancelKey {
            process_id: 1,
            secret: Arc::default(),
        };
        client.cancel_key.set(key).expect("the first");
        assert!(may(after));
        assert!(!may(after / 2), "it may leave soon");
        client.state().told_to_rest = true;
        assert!(!may(after), "it would be woken for it");
        client.state().end_request(now);
        client.is_console.store(true, Ordering::Relaxed);
        assert!(!may(after), "nobody moves a console");
    }
}
