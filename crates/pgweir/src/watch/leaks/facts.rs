//! What is known of a leak suspect, and how it is told.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_pool::SlotId;
use pgweir_pool::growth::Growing;
use pgweir_pool::leak::End;

use super::slow::Slow;
use super::{held_since, shown};
use crate::clients::client::{Client, State};
use crate::shared::Shared;
use crate::watch::consumers::Consumer;

/// What is known of a suspect.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Nobody alone, if it is about a population.
    pub(crate) client: Option<Arc<Client>>,
    pub(crate) database: Arc<str>,
    pub(crate) user: Arc<str>,
    pub(crate) app: Arc<str>,
    pub(crate) address: String,
    pub(crate) process_id: i32,
    pub(crate) held_since: Instant,
    pub(crate) first: String,
    pub(crate) last: String,
    pub(crate) kind: Kind,
}

/// What it is suspected for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A transaction is open, and its client silent.
    InTransaction,
    /// A session keeps its server between two transactions, and others wait.
    BetweenTransactions,
    /// A statement takes far longer than such statements normally do.
    FarTooLong {
        /// 99 of 100 of them end within this time.
        usual: Duration,
    },
    /// A population of clients becomes more and more, and does nothing.
    OnlyGrows {
        clients: u32,
        unused: u32,
        /// How many were unused when it began.
        before: u32,
    },
}

/// Every [`Kind::word`].
pub(crate) const KINDS: [&str; 3] = ["silent", "slow", "growing"];

/// The first and the last statement of a client, as they were sent, and what else its task knows.
#[derive(Debug, Default)]
pub(crate) struct SpokenWords {
    pub(crate) first: Vec<u8>,
    pub(crate) last: Vec<u8>,
    /// The last one as a number, without its literals.
    pub(crate) print: Option<u64>,
    /// When the query was asked for that is under way.
    pub(crate) query: Option<Instant>,
    /// Bytes that have moved for it.
    pub(crate) moved: u64,
}

/// Everything about who holds a server, or nothing yet: then its task has been asked.
pub(super) fn of_lease(
    shared: &Shared,
    slow: &Slow,
    slot: SlotId,
    client: &Arc<Client>,
    state: &State,
    kind: Kind,
) -> Option<Facts> {
    let answer;
    let spoken = match kind {
        Kind::FarTooLong { .. } => slow.spoken(slot)?,
        _ => {
            answer = client.take_spoken();
            answer.as_deref().or_else(|| {
                client.inquire();
                None
            })?
        }
    };
    let (config, identity) = (shared.config(), client.identity.get()?);
    Some(Facts {
        client: Some(Arc::clone(client)),
        database: Arc::clone(&identity.database),
        user: Arc::clone(&identity.user),
        app: Arc::clone(&state.application_name),
        address: client.address.to_string(),
        process_id: shared.server(slot).map_or(0, |server| server.process_id()),
        held_since: held_since(state),
        first: shown(&config, &spoken.first),
        last: shown(&config, &spoken.last),
        kind,
    })
}

/// Everything about a population.
pub(super) fn of_population(consumer: &Consumer, growing: &Growing) -> Facts {
    let address = consumer.address.map(|ip| ip.to_string());
    Facts {
        client: None,
        database: "".into(),
        user: Arc::clone(&consumer.user),
        app: Arc::clone(&consumer.app),
        address: address.unwrap_or_else(|| "unix".to_owned()),
        process_id: 0,
        held_since: growing.since,
        first: String::new(),
        last: String::new(),
        kind: Kind::OnlyGrows {
            clients: growing.now.clients,
            unused: growing.now.unused,
            before: growing.before,
        },
    }
}

impl Facts {
    /// The prefix of its lines in the log.
    pub(crate) fn peer(&self) -> String {
        let client = self.client.as_ref();
        client.map_or_else(String::new, |client| client.to_string())
    }

    /// Who it is, as far as the prefix does not say it.
    pub(super) fn name(&self, now: Instant) -> String {
        let Self { app, .. } = self;
        match self.client {
            Some(_) => format!(
                "app={app} server_pid={} held={}s",
                self.process_id,
                now.saturating_duration_since(self.held_since).as_secs()
            ),
            None => format!("app={app} user={} addr={}", self.user, self.address),
        }
    }

    /// Its statements, if it has any.
    pub(super) fn statements(&self) -> String {
        match self.client {
            Some(_) => format!(" first=\"{}\" last=\"{}\"", self.first, self.last),
            None => String::new(),
        }
    }

    /// The last of them.
    pub(super) fn last_statement(&self) -> String {
        match self.client {
            Some(_) => format!(" last=\"{}\"", self.last),
            None => String::new(),
        }
    }

    /// How the suspicion has ended, in words.
    pub(super) fn end(&self, shared: &Shared, end: End) -> &'static str {
        let is_there = |client: &Arc<Client>| shared.clients.contains_key(&client.id);
        match (end, self.kind, &self.client) {
            (End::WentOn, Kind::FarTooLong { .. }, _) => {
                "the statement has ended, or rows move again"
            }
            (_, Kind::OnlyGrows { .. }, _) => "they are used, closed, or not becoming more",
            (End::WentOn, ..) => "the client went on",
            (End::GaveBack, _, Some(client)) if is_there(client) => {
                "the client gave its server back"
            }
            (End::GaveBack, ..) => "the client is gone",
        }
    }
}

impl Kind {
    /// The likely cause, in words.
    pub(crate) fn cause(self) -> Cow<'static, str> {
        match self {
            Self::InTransaction => {
                "the client is connected and silent inside a transaction: COMMIT or ROLLBACK is missing, or it does \
                 something slow in between"
                    .into()
            }
            Self::BetweenTransactions => {
                "the session keeps its server between two transactions while others wait: a connection that was not \
                 given back to its pool"
                    .into()
            }
            Self::FarTooLong { usual } => format!(
                "99 of 100 such statements end within {usual:?}, and no row moves: it waits for a lock (WHY says \
                 whose), has another plan than usual, or more to do"
            )
            .into(),
            Self::OnlyGrows {
                clients,
                unused,
                before,
            } => format!(
                "{unused} of {clients} clients ask for nothing, and become more and never fewer (they were {before}): \
                 connections are opened and forgotten; client_idle_timeout would end them"
            )
            .into(),
        }
    }

    /// What a client does meanwhile.
    pub(crate) fn state(self) -> &'static str {
        match self {
            Self::InTransaction => "idle in transaction",
            Self::BetweenTransactions | Self::OnlyGrows { .. } => "idle",
            Self::FarTooLong { .. } => "active",
        }
    }

    /// The rule that it breaks, in a word.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::InTransaction | Self::BetweenTransactions => "silent",
            Self::FarTooLong { .. } => "slow",
            Self::OnlyGrows { .. } => "growing",
        }
    }

    /// For how long it does so.
    pub(super) fn lasts(self, seconds: u64) -> String {
        let word = match self {
            Self::FarTooLong { .. } => "running",
            other => other.word(),
        };
        format!("{word}={seconds}s")
    }
}
