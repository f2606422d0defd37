//! Who holds a server in silence, by name: looked for three times per second, told once.
//!
//! What a client has asked stands with its server, in the client's own task. So whoever becomes
//! suspect is asked for it, and named at the next look.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_config::{Config, LeakAction, LeakQuery, PoolMode};
use pgweir_pool::leak::{End, Holder, Leaks, Stage, Suspect};
use pgweir_pool::{PoolId, SlotId};
use pgweir_session::{Phase, normalized};

use crate::client::{Client, EndSilence, State};
use crate::farewell::Farewell;
use crate::shared::{Shared, lock};

/// What is known of a suspect.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) client: Arc<Client>,
    pub(crate) app: Arc<str>,
    pub(crate) process_id: i32,
    pub(crate) held_since: Instant,
    pub(crate) first: String,
    pub(crate) last: String,
    pub(crate) kind: Kind,
}

/// Which kind of silence it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A transaction is open.
    InTransaction,
    /// A session keeps its server between two transactions, and others wait.
    BetweenTransactions,
}

impl Kind {
    /// The likely cause, in words.
    pub(crate) fn cause(self) -> &'static str {
        match self {
            Self::InTransaction => {
                "the client is connected and silent inside a transaction: COMMIT or ROLLBACK is missing, or it does \
                 something slow in between"
            }
            Self::BetweenTransactions => {
                "the session keeps its server between two transactions while others wait: a connection that was not \
                 given back to its pool"
            }
        }
    }

    pub(crate) fn state(self) -> &'static str {
        match self {
            Self::InTransaction => "idle in transaction",
            Self::BetweenTransactions => "idle",
        }
    }
}

/// One look at everybody.
pub(crate) fn look(shared: &Arc<Shared>, now: Instant) {
    let crowded = crowded_pools(shared);
    let mut silent: HashMap<SlotId, (Arc<Client>, State, Kind)> = HashMap::new();
    let mut holders = Vec::new();
    for client in &shared.clients {
        let state = client.state().clone();
        let (Some(slot), Some(route)) = (state.link, client.route.get()) else {
            continue;
        };
        let kind = silence(&state, crowded.contains(&route.home.id));
        let rules = route.rules();
        let exempt = &rules.config.global.leak_exempt_apps;
        let limit = rules.settings.leak_after;
        holders.push(Holder {
            slot,
            silent_since: kind.map(|_| state.clocks.since),
            limit: limit.filter(|_| !exempt.contains(&state.application_name)),
        });
        if let Some(kind) = kind {
            silent.insert(slot, (Arc::clone(&client), state, kind));
        }
    }
    let news = lock(&shared.leaks).look(now, &holders, |holder| {
        let (client, state, kind) = silent.get(&holder.slot)?;
        facts(shared, holder.slot, client, state, *kind)
    });
    for suspect in news {
        tell(shared, &suspect, now);
    }
}

/// Pools in which somebody waits.
fn crowded_pools(shared: &Shared) -> HashSet<PoolId> {
    let views = shared.pools().view();
    let crowded = views.into_iter().filter(|view| view.waiting > 0);
    crowded.map(|view| view.id).collect()
}

/// Whether a holder is silent. Bytes that move are no silence, and a session that nobody waits for
/// may keep its server.
pub(crate) fn silence(state: &State, is_crowded: bool) -> Option<Kind> {
    match state.clocks.phase {
        Phase::IdleInTransaction => Some(Kind::InTransaction),
        Phase::Active if state.clocks.query_start.is_none() && is_crowded => {
            Some(Kind::BetweenTransactions)
        }
        Phase::Active | Phase::Login | Phase::Idle | Phase::Waiting => None,
    }
}

/// Everything about a suspect, or nothing yet: then its task has been asked.
fn facts(
    shared: &Shared,
    slot: SlotId,
    client: &Arc<Client>,
    state: &State,
    kind: Kind,
) -> Option<Facts> {
    let Some(spoken) = client.take_spoken() else {
        client.inquire();
        return None;
    };
    let config = shared.config();
    let show = |sql: &[u8]| shown(&config, sql);
    Some(Facts {
        client: Arc::clone(client),
        app: Arc::clone(&state.application_name),
        process_id: shared.server(slot).map_or(0, |server| server.process_id()),
        held_since: held_since(state),
        first: show(&spoken.first),
        last: show(&spoken.last),
        kind,
    })
}

/// A statement as `leak_query` lets it be shown.
pub(crate) fn shown(config: &Config, sql: &[u8]) -> String {
    match config.global.leak_query {
        LeakQuery::Normalized => normalized(sql),
        LeakQuery::Raw => String::from_utf8_lossy(sql).into_owned(),
        LeakQuery::Off => String::new(),
    }
}

/// Since when a holder has its server, as far as that is known: since its transaction began.
pub(crate) fn held_since(state: &State) -> Instant {
    state.clocks.transaction_start.unwrap_or(state.clocks.since)
}

/// One line in the log for everything that is news, and what is to be done about it.
fn tell(shared: &Arc<Shared>, suspect: &Suspect<Facts>, now: Instant) {
    let Facts {
        client,
        app,
        process_id,
        held_since,
        first,
        last,
        kind,
    } = &suspect.facts;
    let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
    let (id, held, silent) = (
        suspect.id,
        seconds(*held_since),
        seconds(suspect.silent_since),
    );
    let who = format!("app={app} server_pid={process_id} held={held}s silent={silent}s");
    match suspect.stage {
        Stage::Suspected => tracing::warn!(
            peer = %client,
            "leak suspect #{id}: {who} state=\"{}\" first=\"{first}\" last=\"{last}\": {}",
            kind.state(),
            kind.cause()
        ),
        Stage::Confirmed => {
            tracing::warn!(peer = %client, "leak #{id} confirmed: {who} last=\"{last}\"")
        }
        Stage::Resolved(end) => {
            let end = match end {
                End::WentOn => "the client went on",
                End::GaveBack if shared.clients.contains_key(&client.id) => {
                    "the client gave its server back"
                }
                End::GaveBack => "the client is gone",
            };
            tracing::info!(peer = %client, "leak suspect #{id} resolved after {silent}s: {end}");
        }
    }
    if suspect.stage == Stage::Suspected {
        act(client);
    }
}

/// `leak_action`
fn act(client: &Client) {
    let Some(route) = client.route.get() else {
        return;
    };
    let settings = &route.rules().settings;
    match settings.leak_action {
        LeakAction::Log => {}
        // Its server is its session: it cannot go on without.
        LeakAction::Rollback if settings.pool_mode == PoolMode::Session => {
            client.end(Farewell::Leaked)
        }
        LeakAction::Notice => client.end_silence(EndSilence::Notice),
        LeakAction::Rollback => client.end_silence(EndSilence::Rollback),
        LeakAction::Disconnect => client.end(Farewell::Leaked),
    }
}

/// Suspicions for the console.
pub(crate) type All = Leaks<Facts>;

/// The first and the last statement of a client, as they were sent.
#[derive(Debug, Default)]
pub(crate) struct SpokenWords {
    pub(crate) first: Vec<u8>,
    pub(crate) last: Vec<u8>,
}

/// Milliseconds from then to now.
pub(crate) fn millis(since: Instant, now: Instant) -> u64 {
    let passed: Duration = now.saturating_duration_since(since);
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}
