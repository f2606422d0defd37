//! A connection to PostgreSQL, and what everybody may know of it.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pgweir_net::tls::TlsInfo;
use pgweir_net::{Address, Buffered, Target};
use pgweir_session::{Relay, Values};
use pgweir_stats::{Books, Tally};
use pgweir_wire::CancelKey;

use crate::clients::welcome::Welcome;
use crate::process::workers;
use crate::shared::{PoolHome, Rules, Shared};
use crate::watch::events;

/// A server that is logged in. It moves by value: into a client's task, and back to the pool.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) line: Buffered,
    pub(crate) relay: Relay,
    pub(crate) info: Arc<ServerInfo>,
    pub(crate) work: Work,
    /// The thread whose reactor watches its socket.
    pub(crate) thread: u16,
}

impl Server {
    /// Whether another thread watches its socket, which can move here.
    #[inline]
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.thread != workers::here() && self.line.can_move()
    }

    /// Lets this thread's reactor watch its socket.
    ///
    /// # Errors
    /// As the operating system says; the connection is lost.
    pub(crate) fn come_here(self: Box<Self>) -> io::Result<Box<Self>> {
        let Self {
            line,
            relay,
            info,
            work,
            thread: _,
        } = *self;
        Ok(Box::new(Self {
            line: line.move_here()?,
            relay,
            info,
            work,
            thread: workers::here(),
        }))
    }

    /// Gives the pool what has been counted.
    #[inline]
    pub(crate) fn report_tally(&mut self, shared: &Shared, home: &PoolHome) {
        let counted = self.relay.take_tally();
        let tally = &mut self.work.tally;
        tally.client_parse_count += counted.client_parses;
        tally.server_parse_count += counted.server_parses;
        tally.bind_count += counted.binds;
        tally.error_count += counted.errors;
        home.totals.add(tally);
        if counted.errors > 0 {
            events::server_errors(shared, home, self.relay.take_error_classes());
        }
    }
}

/// What a server does for the client that has it. It stands here, and not with the client, because
/// there are few servers and many idle clients.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) stage: Stage,
    /// What holds for this client, since the lease began.
    pub(crate) rules: Arc<Rules>,
    pub(crate) tally: Tally,
    /// The server is this client's alone, for life (replication).
    pub(crate) is_own: bool,
    pub(crate) query_start: Option<Instant>,
    pub(crate) transaction_start: Option<Instant>,
    /// When the lease began, unless that is told otherwise.
    pub(crate) leased_at: Option<Instant>,
    /// How long the client had waited for the lease, until that is told.
    pub(crate) wait_us: Option<u64>,
    /// Bytes that have moved for the present query, beyond its first ones.
    pub(crate) moved: u64,
    /// Decides which queries of the fast ones stand for the others.
    pub(crate) lot: u32,
    /// It has not answered any client yet.
    pub(crate) is_new: bool,
    /// It has been sent something of its client's in this lease, which is lost with it.
    pub(crate) has_asked: bool,
    /// What its session holds is being looked for once more, because the first look was canceled.
    pub(crate) looks_again: bool,
}

/// A query that has ended, and what of it matters beyond the counters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noted {
    /// How long the server has had it, in microseconds.
    pub(crate) us: u64,
    /// How many queries it stands for, if its time is to be remembered.
    pub(crate) weight: Option<u32>,
}

/// A query that takes so many microseconds is always remembered with its time.
const SLOW_US: u64 = 10_000;

/// Of the others, one in so many: a power of two.
const SAMPLED: u32 = 16;

/// What a server has been asked by the pooler, before it serves its client or in the middle of a session.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Show that it is still there.
    Check,
    /// Take over the client's parameters, which were these.
    Fit(Values),
    /// Take them over again in the middle of a session: the client has reset them, or something was taken back.
    Refit,
    /// Do something else in the middle of a session: what the client's next message needs, or to take back what the
    /// client has left.
    Comply,
    /// Forget what others have drawn from sequences.
    Forget,
    /// Say what its session holds, when a transaction has ended.
    Look,
    /// Give what it listens to to the connection that listens for many.
    Move(Step),
    /// Serve.
    Serve,
}

/// How far a server has given away what it listens to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// The other connection does not listen yet; the server owes nothing.
    Asked,
    /// The mark is on its way.
    Marking,
    /// It stops to listen.
    Ending,
}

impl Work {
    /// None yet.
    pub(crate) fn none(rules: Arc<Rules>) -> Self {
        Self {
            stage: Stage::Serve,
            rules,
            tally: Tally::default(),
            is_own: false,
            query_start: None,
            transaction_start: None,
            leased_at: None,
            wait_us: None,
            moved: 0,
            lot: 1,
            is_new: false,
            has_asked: false,
            looks_again: false,
        }
    }

    /// What is to be noted of a query of `us` microseconds: that it is the first of the server, that it
    /// is slow, or that it stands for others.
    #[inline]
    fn noted(&mut self, us: u64) -> Option<Noted> {
        let weight = self.weight_of(us);
        let is_apart = self.is_new || us >= self.rules.slow_us;
        (is_apart || weight.is_some()).then_some(Noted { us, weight })
    }

    /// How many queries one of `us` microseconds is to stand for, if it is to be remembered.
    #[inline]
    fn weight_of(&mut self, us: u64) -> Option<u32> {
        if us >= SLOW_US {
            return Some(1);
        }
        // Knuth's generator: which one it is must not go in step with what a client does.
        self.lot = self.lot.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.lot >> (u32::BITS - SAMPLED.ilog2()) == 0).then_some(SAMPLED)
    }

    /// Whether what the client leaves in the session is to be kept from others.
    #[inline]
    pub(crate) fn is_private(&self) -> bool {
        self.rules.keeps_private && !self.is_own
    }

    /// A lease begins at `now`, for something that was asked at `asked`.
    pub(crate) fn begin(&mut self, stage: Stage, asked: Instant, now: Instant) {
        self.stage = stage;
        self.query_start = Some(asked);
        self.transaction_start = Some(now);
        self.moved = 0;
        self.has_asked = false;
        self.tally.server_assignment_count += 1;
        self.leased_at = Some(now);
        let waited = match now > asked {
            true => micros(now - asked),
            false => 0,
        };
        self.tally.wait_time_us += waited;
        self.wait_us = Some(waited);
        if matches!(self.stage, Stage::Serve) {
            self.count_first_query();
        }
    }

    /// A query and its transaction count from when the server serves them.
    pub(crate) fn count_first_query(&mut self) {
        (self.tally.query_count, self.tally.xact_count) = (1, 1);
    }

    /// Another query begins at `now`, and with it a transaction if none goes on.
    pub(crate) fn begin_query(&mut self, now: Instant) {
        self.query_start = Some(now);
        self.moved = 0;
        self.tally.query_count += 1;
        if self.transaction_start.is_none() {
            self.transaction_start = Some(now);
            self.tally.xact_count += 1;
        }
    }

    /// A query has ended at `now`, and the transaction as well if the server is `idle`; the lease too
    /// if the server `leaves`. Returns what is to be noted of the query, if anything.
    pub(crate) fn end_query(
        &mut self,
        idle: bool,
        leaves: bool,
        now: Instant,
        books: Books<'_>,
    ) -> Option<Noted> {
        let since = |start: Instant| micros(now.saturating_duration_since(start));
        let query_start = self.query_start.take();
        let transaction_start = match idle {
            true => self.transaction_start.take(),
            false => None,
        };
        let query_us = query_start.map(since);
        self.tally.query_time_us += query_us.unwrap_or(0);
        let transaction_us = match query_start == transaction_start {
            true => query_us,
            false => transaction_start.map(since),
        };
        self.tally.xact_time_us += transaction_us.unwrap_or(0);
        let noted = query_us.and_then(|us| self.noted(us)).map(|noted| Noted {
            // It may have been asked for before there was a server.
            us: self
                .leased_at
                .map_or(noted.us, |leased| noted.us.min(since(leased))),
            ..noted
        });
        if leaves {
            self.leased_at = None;
        }
        match (query_us, self.wait_us) {
            (Some(took), Some(0)) if leaves && query_start == transaction_start => {
                self.wait_us = None;
                books.alone(took);
            }
            _ => self.record(query_us, transaction_us, leaves, books),
        }
        noted
    }

    /// What is not the usual case: a query, perhaps with the end of a transaction, perhaps the first
    /// of a lease.
    fn record(
        &mut self,
        query_us: Option<u64>,
        transaction_us: Option<u64>,
        leaves: bool,
        books: Books<'_>,
    ) {
        if let Some(us) = query_us {
            books.query(us);
        }
        match transaction_us {
            Some(us) if leaves => books.transaction(us),
            Some(us) => books.session_transaction(us),
            None => {}
        }
        if let Some(us) = self.wait_us.take() {
            books.wait(us);
        }
    }

    /// A lease has ended otherwise than with a transaction.
    pub(crate) fn end_lease(&mut self, now: Instant, books: Books<'_>) {
        if let Some(start) = self.leased_at.take() {
            books.session(micros(now.saturating_duration_since(start)));
        }
        if let Some(us) = self.wait_us.take() {
            books.wait(us);
        }
    }
}

/// For counters.
pub(crate) fn micros(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000 + u64::from(duration.subsec_micros())
}

/// The shared record of a server.
#[derive(Debug)]
pub(crate) struct ServerInfo {
    pub(crate) id: u64,
    pub(crate) home: Arc<PoolHome>,
    /// The number of its socket, to be shown; once connected.
    pub(crate) fd: OnceLock<RawFd>,
    /// Where it was reached, and where its CancelRequests go.
    pub(crate) target: Target,
    /// The host name that its certificate must show.
    pub(crate) host: Option<Arc<str>>,
    pub(crate) address: Address,
    pub(crate) connected_at: Instant,
    /// Our end, once connected.
    pub(crate) local: OnceLock<Address>,
    /// Once encrypted, if at all.
    pub(crate) tls: OnceLock<TlsInfo>,
    /// When the certificate expires that it has shown, in seconds since 1970.
    pub(crate) certificate_expiry: OnceLock<i64>,
    /// Once logged in.
    pub(crate) cancel_key: OnceLock<CancelKey>,
    /// The process id of the client that had it last, as that client knows it.
    pub(crate) served: AtomicI32,
    /// The same of the lease before.
    pub(crate) served_before: AtomicI32,
    /// What it said of itself, once logged in.
    pub(crate) welcome: OnceLock<Arc<Welcome>>,
    /// How many prepared statements it had been taught when it was last given back.
    pub(crate) prepared: AtomicUsize,
}

impl ServerInfo {
    /// The backend's process id, as its cancel key says.
    pub(crate) fn process_id(&self) -> i32 {
        self.cancel_key.get().map_or(0, |key| key.process_id)
    }
}

impl fmt::Display for ServerInfo {
    /// The prefix of its log lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.home.name;
        write!(
            f,
            "S-{:#x}: {}/{}@{}",
            self.id, name.database, name.user, self.address
        )
    }
}
