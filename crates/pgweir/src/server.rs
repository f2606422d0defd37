//! A connection to PostgreSQL, and what everybody may know of it.

use std::fmt;
use std::os::fd::RawFd;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pgweir_net::tls::TlsInfo;
use pgweir_net::{Address, Buffered, Target};
use pgweir_session::{Relay, Values};
use pgweir_stats::Tally;
use pgweir_wire::CancelKey;

use crate::shared::{PoolHome, Rules, Welcome};

/// A server that is logged in. It moves by value: into a client's task, and back to the pool.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) line: Buffered,
    pub(crate) relay: Relay,
    pub(crate) info: Arc<ServerInfo>,
    pub(crate) work: Work,
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
}

/// What a server has to do before it serves.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// Show that it is still there.
    Check,
    /// Take over the client's parameters, which were these.
    Fit(Values),
    /// Take them over again in the middle of a session, because the client has reset them.
    Refit,
    /// Forget what others have drawn from sequences.
    Forget,
    /// Say what its session holds, when a transaction has ended.
    Look,
    /// Serve.
    Serve,
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
        }
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
        self.tally.server_assignment_count += 1;
        if now > asked {
            self.tally.wait_time_us += micros(now - asked);
        }
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
        self.tally.query_count += 1;
        if self.transaction_start.is_none() {
            self.transaction_start = Some(now);
            self.tally.xact_count += 1;
        }
    }

    /// A query has ended at `now`, and the transaction as well if the server is `idle`.
    pub(crate) fn end_query(&mut self, idle: bool, now: Instant) {
        let query_start = self.query_start.take();
        let mut took = 0;
        if let Some(start) = query_start {
            took = micros(now.saturating_duration_since(start));
            self.tally.query_time_us += took;
        }
        if idle && let Some(start) = self.transaction_start.take() {
            if query_start != Some(start) {
                took = micros(now.saturating_duration_since(start));
            }
            self.tally.xact_time_us += took;
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
    /// Once logged in.
    pub(crate) cancel_key: OnceLock<CancelKey>,
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
