//! What a refused client is told beyond the reason: which limit, its value, how much of it is used,
//! who holds most of it, and when to try again. Never what others ask, and no secrets; and whoever has proven nothing
//! yet is not told who else is there.

use std::time::{Duration, Instant};

use pgweir_pool::{
    Bound, Crowd, Crowded, Failure, FailureKind, Gauge, Party, Refusal, Scope, Standing,
};
use pgweir_session::Expiry;
use pgweir_wire::SqlState;

use super::Farewell;
use crate::clients::client::Client;
use crate::operators::show;
use crate::process::shortage::Shortage;
use crate::shared::Shared;
use crate::watch::census;

/// A DETAIL and a HINT.
#[derive(Debug, Default)]
pub(crate) struct Explanation {
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// What made the client wait until it could wait no longer, where that were not others.
    pub(crate) instead: Option<(SqlState, String)>,
}

/// Said wherever nothing of a request has reached a server.
const NOT_RUN: &str = "Nothing of the request has been run.";

/// Explains a refusal; what is no refusal needs no explanation.
pub(crate) fn explain(
    shared: &Shared,
    client: &Client,
    party: Option<&Party>,
    farewell: &Farewell,
) -> Explanation {
    match farewell {
        Farewell::TooMany(full) => {
            let (scope, gauge) = &**full;
            let holder = is_met_after_proof(scope).then(|| census::largest_client(shared, scope));
            Explanation {
                detail: Some(format!(
                    "{}{}.",
                    reading(scope, gauge),
                    held(holder.flatten(), "has")
                )),
                hint: Some(format!("Retry later, or raise {}.", scope.key())),
                instead: None,
            }
        }
        Farewell::Short(short) => Explanation {
            detail: short.detail(),
            hint: Some(short.hint().to_owned()),
            instead: None,
        },
        Farewell::OutcomeUnknown => Explanation {
            detail: Some(
                "PostgreSQL may have committed the transaction before it was lost.".to_owned(),
            ),
            hint: Some("See whether it is there before you repeat it.".to_owned()),
            instead: None,
        },
        Farewell::ParameterRefused(refused) => Explanation {
            detail: refused.detail.clone(),
            hint: refused.hint.clone(),
            instead: None,
        },
        Farewell::Refused(Refusal::Crowded(crowded)) => {
            let Crowded { crowd, standing } = &**crowded;
            let mut detail = crowd_text(*crowd);
            // Before the proof it was to be looked up.
            if client.route().is_some() {
                detail += " ";
                detail += &standing_text(shared, standing);
            }
            waiting_explained(detail, standing)
        }
        Farewell::Refused(Refusal::Failing(failure) | Refusal::Login(failure)) => Explanation {
            detail: None,
            hint: Some(match (Shortage::behind(failure), failure.sqlstate) {
                (Some(short), _) => short.hint().to_owned(),
                (None, Some(_)) => "PostgreSQL refuses the pooler's login.".to_owned(),
                (None, None) => {
                    "PostgreSQL cannot be reached; it is tried again by itself.".to_owned()
                }
            }),
            instead: None,
        },
        Farewell::Expired(Expiry::QueryWait | Expiry::QueryWhileWaiting) => {
            let now = Instant::now();
            let home = client.route().map(|route| route.home.id);
            let standing = home.and_then(|id| shared.pools().standing(id, party, now));
            let Some(standing) = standing else {
                return Explanation::default();
            };
            let waited = now.saturating_duration_since(client.state().clocks.since);
            let detail = format!(
                "Waited {} for a server. {}",
                seconds(waited),
                standing_text(shared, &standing)
            );
            let database = &standing.pool.database;
            let instead = match &standing.bound {
                // Another pooler may serve them.
                Bound::Paused => Some((
                    SqlState::CANNOT_CONNECT_NOW,
                    shared.operator.reason_for_hold(database),
                )),
                Bound::Failing(failure) => Shortage::behind(failure)
                    .map(|short| (short.code(), failure.message.to_string())),
                Bound::PoolSize { .. } | Bound::Shared(..) | Bound::Party(..) | Bound::Login => {
                    None
                }
            };
            Explanation {
                instead,
                ..waiting_explained(detail, &standing)
            }
        }
        _ => Explanation::default(),
    }
}

/// Whether a limit on clients is one that connections meet when they have proven who they are.
fn is_met_after_proof(scope: &Scope) -> bool {
    !matches!(
        scope,
        Scope::Clients | Scope::Logins | Scope::AddressClients(_)
    )
}

fn waiting_explained(detail: String, standing: &Standing) -> Explanation {
    let hint = match standing.oldest_wait {
        Some(wait) => format!(
            "Retry after {}: so long the first in the queue has been waiting.",
            seconds(wait.max(Duration::from_secs(1)))
        ),
        None => "Retry in a moment.".to_owned(),
    };
    Explanation {
        detail: Some(format!("{detail} {NOT_RUN}")),
        hint: Some(hint),
        instead: None,
    }
}

fn crowd_text(crowd: Crowd) -> String {
    match crowd {
        Crowd::PoolQueue => "The queue of the pool is full (max_pool_waiting).".to_owned(),
        Crowd::AllQueues => "The queues are full (max_waiting).".to_owned(),
        Crowd::TooLong { waited, target } => format!(
            "Waited {}, and query_wait_target is {}.",
            seconds(waited),
            seconds(target)
        ),
    }
}

/// How a pool stands, in a sentence.
pub(crate) fn standing_text(shared: &Shared, standing: &Standing) -> String {
    let name = &standing.pool;
    let pool = format!("{}/{}", name.database, name.user);
    let bound = match &standing.bound {
        Bound::PoolSize { used, limit } => format!("pool_size of {pool} is {limit}, {used} in use"),
        Bound::Shared(scope, gauge) | Bound::Party(scope, gauge) => reading(scope, gauge),
        Bound::Failing(failure) => failure_text(shared, standing, failure),
        Bound::Paused => format!("database \"{}\" is paused", name.database),
        Bound::Login => "a login to PostgreSQL is under way".to_owned(),
    };
    let holder = census::largest_holder(shared, standing);
    format!(
        "{bound}, {} waiting in {pool}{}.",
        standing.waiting,
        held(holder, "holds")
    )
}

/// Where PostgreSQL's own limit is known by number, it is named as SHOW BUDGET names it.
fn failure_text(shared: &Shared, standing: &Standing, failure: &Failure) -> String {
    let message = &failure.message;
    match failure.kind {
        FailureKind::Own => format!("no connection to PostgreSQL can be opened: {message}"),
        FailureKind::Connect | FailureKind::Login => {
            format!("the last login to PostgreSQL failed: {message}")
        }
        FailureKind::Busy => {
            let reached = show::budget::reached_in_postgres(shared, &standing.pool);
            let reached = reached.map_or_else(String::new, |reached| format!(" ({reached})"));
            format!("the last login to PostgreSQL failed: {message}{reached}")
        }
    }
}

fn reading(scope: &Scope, gauge: &Gauge) -> String {
    let limit = gauge
        .limit
        .map_or("off".to_owned(), |limit| limit.to_string());
    format!("{scope} is {limit}, {} in use", gauge.used)
}

fn held(holder: Option<census::Part>, verb: &str) -> String {
    holder.map_or_else(String::new, |part| {
        format!("; {} {verb} {} of them", part.who, part.count)
    })
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
