//! What everybody may know of a client: the console, the janitor, whoever has a server for it.
//!
//! The client's own task owns the connection; this record is shared. Others reach the task only
//! through its [`Mailbox`].

use std::fmt;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use pgweir_net::tls::TlsInfo;
use pgweir_net::{Address, Stream};
use pgweir_pool::{Cause, PoolId, Refusal, Scope, SlotId};
use pgweir_session::{Clocks, Phase};
use pgweir_wire::CancelKey;

use crate::farewell::Farewell;
use crate::leaks::SpokenWords;
use crate::pins::Pin;
use crate::server::Server;
use crate::shared::Route;
use crate::strict::FindingKind;
use crate::takeover::hold::HoldAt;

/// A server on its way to, or held by, a client.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The permit.
    pub(crate) slot: SlotId,
    /// The server.
    pub(crate) server: Box<Server>,
    /// It was idle so long that it must be checked first.
    pub(crate) stale: bool,
}

/// What others tell a client's task.
#[derive(Debug)]
pub(crate) enum Mail {
    /// The server it waits for.
    Lease(Lease),
    /// Its pool has had a login.
    Greet,
    /// It gets no server.
    Refused(Box<Refusal>),
}

/// What can be done about a client that is a leak suspect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Remedy {
    /// It is told.
    Notice,
    /// Its transaction is rolled back, and its server serves others.
    Rollback,
    /// The same, in a strict run.
    Strict(FindingKind),
    /// Its query is canceled, if it is still the one that was asked for then.
    Cancel {
        query: Instant,
        /// Within what time such statements normally end.
        usual: Duration,
    },
}

#[derive(Debug, Default)]
struct Mailbox {
    waker: Option<Waker>,
    mail: Option<Mail>,
    /// What the wait for it is put down to.
    cause: Option<Cause>,
    /// The first order to end counts.
    end: Option<Box<Farewell>>,
    /// It is to end as soon as it is between two transactions.
    ends_at_rest: bool,
    /// The server that stays with it is needed elsewhere as soon as it is between two transactions.
    lets_go: bool,
    /// Nobody waits for the next mail any more: who brings it takes it back.
    returns_next: bool,
    /// Orders for somebody who waits.
    wait: Option<WaitOrders>,
    /// It may be a leak suspect. Kept apart, because that is rare.
    suspect: Option<Box<SuspectMail>>,
    /// A server stands in for it, and it is not known yet whether that is ended in its place.
    is_stood_in: bool,
    /// What it has sent is to be looked at again.
    reminded: bool,
    /// Something has happened where it listens.
    notified: bool,
    /// It has been idle for long. Of no interest while the session is put down.
    rests: bool,
    /// Stands until it is taken back.
    hold: Option<HoldAt>,
}

/// Between a client's task and whoever suspects it of a leak.
#[derive(Debug, Default)]
struct SuspectMail {
    /// Somebody wants to know what the client has asked of its server.
    inquired: bool,
    /// What is to be done about it.
    remedy: Option<Remedy>,
    /// What the task has been asked.
    spoken: Option<Box<SpokenWords>>,
}

/// What a client that waits is to do. It is for one request: an order that comes too late must not
/// hit the next one.
#[derive(Clone, Copy, Debug, Default)]
struct WaitOrders {
    request: u32,
    /// To tell its client that it waits.
    notice: bool,
    /// To stop waiting.
    canceled: bool,
}

impl Mailbox {
    /// The orders for a request, which replace those for an earlier one.
    fn wait_orders(&mut self, request: u32) -> &mut WaitOrders {
        let orders = self.wait.get_or_insert_default();
        if orders.request != request {
            *orders = WaitOrders {
                request,
                ..WaitOrders::default()
            };
        }
        orders
    }

    fn is_empty_but_for_hold(&self) -> bool {
        self.mail.is_none()
            && self.end.is_none()
            && !self.ends_at_rest
            && !self.lets_go
            && self.wait.is_none()
            && self
                .suspect
                .as_ref()
                .is_none_or(|mail| mail.remedy.is_none() && !mail.inquired)
            && !self.reminded
            && !self.is_stood_in
    }
}

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

/// The limits that a client counts in.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Like clients hold one copy, once they are in. `None` is none.
    scopes: Option<Arc<Vec<Scope>>>,
    /// The pool that it has joined.
    pub(crate) pool: Option<PoolId>,
}

impl Counted {
    /// It counts in these.
    pub(crate) fn of(scopes: Vec<Scope>) -> Self {
        Self {
            scopes: Some(Arc::new(scopes)),
            pool: None,
        }
    }

    /// All of them.
    pub(crate) fn scopes(&self) -> &[Scope] {
        self.scopes.as_ref().map_or(&[], |scopes| scopes)
    }

    fn scopes_mut(&mut self) -> &mut Vec<Scope> {
        Arc::make_mut(self.scopes.get_or_insert_default())
    }

    /// It counts in these as well.
    pub(crate) fn add(&mut self, scopes: impl IntoIterator<Item = Scope>) {
        self.scopes_mut().extend(scopes);
    }

    /// It counts in this one no more. Whether it did.
    pub(crate) fn remove(&mut self, scope: &Scope) -> bool {
        let at = self.scopes().iter().position(|other| other == scope);
        at.is_some_and(|at| {
            self.scopes_mut().remove(at);
            true
        })
    }

    /// Holds one copy with the last one that did so here.
    pub(crate) fn share(&mut self, last: &mut Option<Arc<Vec<Scope>>>) {
        match *last == self.scopes {
            true => self.scopes.clone_from(last),
            false => {
                self.scopes_mut().shrink_to_fit();
                last.clone_from(&self.scopes);
            }
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
    pub(crate) route: OnceLock<Arc<Route>>,
    pub(crate) cancel_key: OnceLock<CancelKey>,
    /// Set for a client that gets a server of its own for replication.
    pub(crate) replication: OnceLock<Box<Replication>>,
    /// Set where TLS is in use.
    pub(crate) tls: OnceLock<Box<TlsInfo>>,
    /// Whether it talks to the console.
    pub(crate) is_console: AtomicBool,
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

    /// A client on this socket, that connected at this moment.
    pub(crate) fn on(id: u64, stream: &Stream, address: Address, connected_at: Instant) -> Self {
        let local = stream.local_address(address.port()).unwrap_or(address);
        Self {
            fd: stream.as_fd().as_raw_fd(),
            ..Self::new(id, address, local, connected_at)
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
            route: OnceLock::new(),
            cancel_key: OnceLock::new(),
            replication: OnceLock::new(),
            tls: OnceLock::new(),
            is_console: AtomicBool::new(false),
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it counts in.
    pub(crate) fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers which task to wake. A task keeps its waker for life.
    pub(crate) fn attach(&self, waker: &Waker) {
        self.mailbox().waker = Some(waker.clone());
    }

    /// Gives the task something it waits for; comes back if it does not wait any more.
    #[must_use]
    pub(crate) fn deliver(&self, mail: Mail, cause: Option<Cause>) -> Option<Mail> {
        let mut mailbox = self.mailbox();
        if std::mem::take(&mut mailbox.returns_next) {
            return Some(mail);
        }
        debug_assert!(
            mailbox.mail.is_none(),
            "a client waits for one thing at a time"
        );
        mailbox.mail = Some(mail);
        mailbox.cause = cause;
        self.ring(mailbox);
        None
    }

    /// The task does not want the mail that is on its way, or here already.
    pub(crate) fn decline_mail(&self) -> Option<Mail> {
        self.take(|mailbox| {
            let mail = mailbox.mail.take();
            mailbox.returns_next = mail.is_none();
            mail
        })
    }

    /// Tells the task to end.
    pub(crate) fn end(&self, farewell: Farewell) {
        let mut mailbox = self.mailbox();
        mailbox.end.get_or_insert_with(|| Box::new(farewell));
        self.ring(mailbox);
    }

    /// Tells the task to end as soon as it is between two transactions.
    pub(crate) fn end_at_rest(&self) {
        let mut mailbox = self.mailbox();
        if !std::mem::replace(&mut mailbox.ends_at_rest, true) {
            self.ring(mailbox);
        }
    }

    /// Whether it has been told so.
    pub(crate) fn ends_at_rest(&self) -> bool {
        self.mailbox().ends_at_rest
    }

    /// Tells the task to give up the server that stays with it, as soon as it is between two
    /// transactions.
    pub(crate) fn let_go(&self) {
        let mut mailbox = self.mailbox();
        if !std::mem::replace(&mut mailbox.lets_go, true) {
            self.ring(mailbox);
        }
    }

    /// Whether it has been told so.
    pub(crate) fn lets_go(&self) -> bool {
        self.mailbox().lets_go
    }

    /// It has done so, or nothing stays with it.
    pub(crate) fn has_let_go(&self) {
        self.take(|mailbox| mailbox.lets_go = false);
    }

    /// Tells the task what is to be done about its client, which is a leak suspect.
    pub(crate) fn remedy(&self, how: Remedy) {
        let mut mailbox = self.mailbox();
        mailbox.suspect.get_or_insert_default().remedy = Some(how);
        self.ring(mailbox);
    }

    /// What is to be done about the client as a leak suspect, if anything.
    pub(crate) fn take_remedy(&self) -> Option<Remedy> {
        self.take(|mailbox| mailbox.suspect.as_mut()?.remedy.take())
    }

    /// Tells the waiting task that its query is not wanted any more.
    pub(crate) fn cancel_wait(&self, request: u32) {
        let mut mailbox = self.mailbox();
        mailbox.wait_orders(request).canceled = true;
        self.ring(mailbox);
    }

    /// Tells the waiting task to tell its client that it waits.
    pub(crate) fn notify_wait(&self, request: u32) {
        let mut mailbox = self.mailbox();
        mailbox.wait_orders(request).notice = true;
        self.ring(mailbox);
    }

    /// Tells the task to put its session down. Stands until [`Self::release`].
    pub(crate) fn hold(&self, at: HoldAt) {
        let mut mailbox = self.mailbox();
        if mailbox.hold != Some(at) {
            mailbox.hold = Some(at);
            self.ring(mailbox);
        }
    }

    /// The task may go on.
    pub(crate) fn release(&self) {
        let mut mailbox = self.mailbox();
        if mailbox.hold.take().is_some() {
            self.ring(mailbox);
        }
    }

    /// Whether the task is to put its session down, and where.
    pub(crate) fn hold_order(&self) -> Option<HoldAt> {
        self.mailbox().hold
    }

    /// Whether something else has come than the order to hold.
    pub(crate) fn has_other_mail(&self) -> bool {
        !self.mailbox().is_empty_but_for_hold()
    }

    /// Resolves when something else comes than the order to hold. For the client's own task.
    pub(crate) async fn other_mail(&self) {
        std::future::poll_fn(|_| match self.has_other_mail() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Resolves when somebody has told the client to end. For the client's own task.
    pub(crate) async fn ordered_to_end(&self) -> Farewell {
        std::future::poll_fn(|_| match self.take_end() {
            Some(farewell) => Poll::Ready(farewell),
            None => Poll::Pending,
        })
        .await
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

    fn ring(&self, mailbox: MutexGuard<'_, Mailbox>) {
        self.has_mail.store(true, Ordering::Release);
        let waker = mailbox.waker.clone();
        drop(mailbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Something has happened where the client listens. That can wait while the session is put down.
    pub(crate) fn notify(&self) {
        let mut mailbox = self.mailbox();
        if !std::mem::replace(&mut mailbox.notified, true) {
            self.ring(mailbox);
        }
    }

    /// Whether something has, which is told once.
    pub(crate) fn take_notified(&self) -> bool {
        self.take(|mailbox| std::mem::take(&mut mailbox.notified))
    }

    /// Whether it has been idle for so long, and has not been told to rest since its last request.
    pub(crate) fn is_to_rest(&self, now: Instant, after: Duration) -> bool {
        let mut state = self.state();
        let is_idle = state.clocks.phase == Phase::Idle && state.link.is_none();
        let is_long = now.saturating_duration_since(state.clocks.since) >= after;
        if !is_idle || !is_long || self.is_console.load(Ordering::Relaxed) {
            return false;
        }
        !std::mem::replace(&mut state.told_to_rest, true)
    }

    /// Tells the task to rest if nothing stands in its way.
    pub(crate) fn rest(&self) {
        let mut mailbox = self.mailbox();
        mailbox.rests = true;
        self.ring(mailbox);
    }

    /// Whether it has been told so, which is told once.
    pub(crate) fn take_rest(&self) -> bool {
        self.take(|mailbox| std::mem::take(&mut mailbox.rests))
    }

    /// Asks the task what its client has asked of the server that it holds.
    pub(crate) fn inquire(&self) {
        let mut mailbox = self.mailbox();
        mailbox.suspect.get_or_insert_default().inquired = true;
        self.ring(mailbox);
    }

    /// A server begins to stand in for it, or has done so: meanwhile it asks for none.
    pub(crate) fn stand_in(&self, begins: bool) {
        let mut mailbox = self.mailbox();
        mailbox.is_stood_in = begins;
        self.ring(mailbox);
    }

    /// Whether a server stands in for it.
    pub(crate) fn is_stood_in(&self) -> bool {
        self.take(|mailbox| mailbox.is_stood_in)
    }

    /// Tells the task to look again at what its client has sent.
    pub(crate) fn remind(&self) {
        let mut mailbox = self.mailbox();
        mailbox.reminded = true;
        self.ring(mailbox);
    }

    /// Whether it has been told so.
    pub(crate) fn take_reminder(&self) -> bool {
        self.take(|mailbox| std::mem::take(&mut mailbox.reminded))
    }

    /// Whether somebody asks that.
    pub(crate) fn take_inquiry(&self) -> bool {
        self.take(|mailbox| {
            let suspect = mailbox.suspect.as_mut();
            suspect.is_some_and(|suspect| std::mem::take(&mut suspect.inquired))
        })
    }

    /// The answer.
    pub(crate) fn answer_inquiry(&self, spoken: SpokenWords) {
        let mut mailbox = self.mailbox();
        mailbox.suspect.get_or_insert_default().spoken = Some(Box::new(spoken));
    }

    /// The answer, once it is there.
    pub(crate) fn take_spoken(&self) -> Option<Box<SpokenWords>> {
        let mut mailbox = self.mailbox();
        let mut mail = mailbox.suspect.take()?;
        let spoken = mail.spoken.take();
        mailbox.suspect = (mail.remedy.is_some() || mail.inquired).then_some(mail);
        spoken
    }

    /// Whether there may be something in the mailbox. Cheap enough to ask at every turn.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// The order to end, if there is one.
    pub(crate) fn take_end(&self) -> Option<Farewell> {
        self.take(|mailbox| mailbox.end.take())
            .map(|farewell| *farewell)
    }

    /// The thing waited for, if it is there, and what the wait is put down to.
    pub(crate) fn take_mail(&self) -> Option<(Mail, Option<Cause>)> {
        self.take(|mailbox| Some((mailbox.mail.take()?, mailbox.cause.take())))
    }

    /// Whether the present request was canceled, and whether the client should be told that it waits.
    pub(crate) fn take_wait_orders(&self) -> (bool, bool) {
        let request = self.state().request;
        let orders = self.take(|mailbox| mailbox.wait.take());
        match orders.filter(|orders| orders.request == request) {
            Some(orders) => (orders.canceled, orders.notice),
            None => (false, false),
        }
    }

    fn take<T>(&self, f: impl FnOnce(&mut Mailbox) -> T) -> T {
        let mut mailbox = self.mailbox();
        let taken = f(&mut mailbox);
        let empty = mailbox.is_empty_but_for_hold()
            && mailbox.hold.is_none()
            && !mailbox.notified
            && !mailbox.rests;
        self.has_mail.store(!empty, Ordering::Release);
        taken
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
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
