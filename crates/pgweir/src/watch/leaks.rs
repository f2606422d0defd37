//! Who keeps what others need, by name: looked for three times per second, told once.
//!
//! Three things are looked for: a server held in silence, a statement that takes far longer than it normally does
//! ([`slow`]), and clients that only become more and never work ([`pgweir_pool::growth`]).
//!
//! What a client has asked stands with its server, in the client's own task. So whoever becomes
//! suspect is asked for it, and named at the next look.

mod facts;
mod slow;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_config::{Config, LeakAction, LeakQuery, PoolMode};
use pgweir_pool::growth::{Growing, Growth, Population, STEPS};
use pgweir_pool::leak::{Leaks, Observed, Stage, Suspect};
use pgweir_pool::{PoolId, SlotId};
use pgweir_session::{Phase, normalized};

pub(crate) use self::facts::{Facts, KINDS, Kind, SpokenWords};
use self::slow::Slow;
use crate::clients::client::{Client, Remedy, State};
use crate::clients::farewell::Farewell;
use crate::shared::{Shared, lock};
use crate::watch::consumers::Consumer;
use crate::watch::strict;

/// Who can be suspected.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Subject {
    /// Whoever holds this server.
    Lease(SlotId),
    /// The clients of one user with one application_name at one address.
    Population(Consumer),
}

/// What is remembered from one look to the next, besides the suspicions.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    slow: Slow,
    growth: Growth<Consumer>,
}

/// Somebody who may become a suspect at this look, if facts about it can be had.
enum Candidate {
    Lease(Arc<Client>, Box<State>, Kind),
    Population(Growing),
}

/// One look at everybody.
pub(crate) fn look(
    shared: &Arc<Shared>,
    watch: &mut Watch,
    populations: &HashMap<Consumer, Population>,
    now: Instant,
) {
    strict::look_at_holds(shared, now);
    let mut candidates = HashMap::new();
    let mut observed = leases(shared, watch, now, &mut candidates);
    observed.extend(growing(shared, watch, populations, now, &mut candidates));
    let news = lock(&shared.leaks).look(now, &observed, |seen| {
        match (&seen.subject, candidates.get(&seen.subject)?) {
            (Subject::Lease(slot), Candidate::Lease(client, state, kind)) => {
                facts::of_lease(shared, &watch.slow, *slot, client, state, *kind)
            }
            (Subject::Population(consumer), Candidate::Population(growing)) => {
                Some(facts::of_population(consumer, growing))
            }
            _ => None,
        }
    });
    for suspect in news {
        tell(shared, &suspect, now);
    }
}

/// Everybody who holds a server.
fn leases(
    shared: &Shared,
    watch: &mut Watch,
    now: Instant,
    candidates: &mut HashMap<Subject, Candidate>,
) -> Vec<Observed<Subject>> {
    let crowded = crowded_pools(shared);
    let (mut seen, mut slow) = (Vec::new(), Slow::default());
    for client in &shared.clients {
        let state = client.state().clone();
        let (Some(slot), Some(route)) = (state.link, client.route()) else {
            continue;
        };
        let rules = route.rules();
        let silent = silence(&state, crowded.contains(&route.home.id));
        let found = match silent {
            Some(kind) => rules
                .settings
                .leak_after
                .map(|limit| (state.clocks.since, limit, kind)),
            None => {
                let lease = (slot, &*client, &state);
                let overdue = watch.slow.look(&mut slow, lease, &route, now);
                overdue.map(|overdue| (overdue.since, overdue.limit, overdue.kind))
            }
        };
        let exempt = &rules.config.global.leak_exempt_apps;
        let found = found.filter(|_| !exempt.names(&state.application_name));
        let subject = Subject::Lease(slot);
        if let Some((_, _, kind)) = found {
            let candidate = Candidate::Lease(Arc::clone(&client), Box::new(state), kind);
            candidates.insert(subject.clone(), candidate);
        }
        seen.push(Observed {
            subject,
            since: found.map(|(since, ..)| since),
            limit: found.map(|(_, limit, _)| limit),
        });
    }
    watch.slow = slow;
    seen
}

/// Populations that only grow.
fn growing(
    shared: &Shared,
    watch: &mut Watch,
    populations: &HashMap<Consumer, Population>,
    now: Instant,
    candidates: &mut HashMap<Subject, Candidate>,
) -> Vec<Observed<Subject>> {
    let config = shared.config();
    let Some(window) = config.global.leak_after.limit() else {
        return Vec::new();
    };
    let growing = watch.growth.look(now, window, populations).into_iter();
    let counts =
        growing.filter(|(consumer, _)| !config.global.leak_exempt_apps.names(&consumer.app));
    let seen = counts.map(|(consumer, growing)| {
        let subject = Subject::Population(consumer);
        candidates.insert(subject.clone(), Candidate::Population(growing));
        Observed {
            subject,
            since: Some(growing.since),
            limit: Some(window * STEPS),
        }
    });
    seen.collect()
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
fn tell(shared: &Arc<Shared>, suspect: &Suspect<Subject, Facts>, now: Instant) {
    let Suspect {
        id, facts, stage, ..
    } = suspect;
    let passed = now.saturating_duration_since(suspect.since).as_secs();
    let who = format!("{} {}", facts.name(now), facts.kind.lasts(passed));
    let peer = &*facts.peer();
    match stage {
        Stage::Suspected => tracing::warn!(
            peer,
            "leak suspect #{id}: {who} state=\"{}\"{}: {}",
            facts.kind.state(),
            facts.statements(),
            facts.kind.cause()
        ),
        Stage::Confirmed => tracing::warn!(
            peer,
            "leak #{id} confirmed: {who}{}",
            facts.last_statement()
        ),
        Stage::Resolved(end) => {
            let end = facts.end(shared, *end);
            tracing::info!(peer, "leak suspect #{id} resolved after {passed}s: {end}");
        }
    }
    if *stage == Stage::Suspected && !strict::suspected(shared, facts) {
        facts
            .client
            .iter()
            .for_each(|client| act(client, facts.kind));
    }
}

/// `leak_action`
fn act(client: &Client, kind: Kind) {
    let Some(route) = client.route() else {
        return;
    };
    let rules = route.rules();
    let (app, query) = {
        let state = client.state();
        (
            Arc::clone(&state.application_name),
            state.clocks.query_start,
        )
    };
    let of_app = rules.config.global.leak_action_apps.of(&app);
    let action = of_app.unwrap_or(rules.settings.leak_action);
    match (action, kind, query) {
        (
            LeakAction::Cancel | LeakAction::CancelRollback,
            Kind::FarTooLong { usual },
            Some(query),
        ) => {
            client.remedy(Remedy::Cancel { query, usual });
        }
        (_, Kind::FarTooLong { .. } | Kind::OnlyGrows { .. }, _)
        | (LeakAction::Log | LeakAction::Cancel, ..) => {}
        // Its server is its session: it cannot go on without.
        (LeakAction::Rollback | LeakAction::CancelRollback, ..)
            if rules.settings.pool_mode == PoolMode::Session =>
        {
            client.end(Farewell::Leaked)
        }
        (LeakAction::Notice, ..) => client.remedy(Remedy::Notice),
        (LeakAction::Rollback | LeakAction::CancelRollback, ..) => client.remedy(Remedy::Rollback),
        (LeakAction::Disconnect, ..) => client.end(Farewell::Leaked),
    }
}

/// Suspicions for the console.
pub(crate) type All = Leaks<Subject, Facts>;

/// Milliseconds from then to now.
pub(crate) fn millis(since: Instant, now: Instant) -> u64 {
    let passed: Duration = now.saturating_duration_since(since);
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}
