//! Transactions that last too long, and leak suspects, in a strict run.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use pgweir_pool::SlotId;
use pgweir_session::Phase;

use super::{Finding, FindingKind, enter};
use crate::clients::client::{Client, Remedy, State};
use crate::shared::{Shared, lock};
use crate::watch::leaks::{self, Facts, SpokenWords};

/// Leases whose transaction has been named already, by when it began.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    asked: HashSet<(SlotId, Instant)>,
    named: HashSet<(SlotId, Instant)>,
}

/// Looks for transactions that last for longer than `strict_hold`: once a client's task has said what it has
/// asked for, it is entered, and the transaction is taken away as soon as it is its client's turn.
pub(crate) fn look_at_holds(shared: &Shared, now: Instant) {
    let Some(strict) = &shared.strict else {
        return;
    };
    let Some(limit) = shared.config().global.strict_hold.limit() else {
        return;
    };
    let mut holds = lock(&strict.holds);
    let mut next = Holds::default();
    for client in &shared.clients {
        let state = client.state().clone();
        let (Some(slot), Some(since)) = (state.link, state.clocks.transaction_start) else {
            continue;
        };
        let lasts = now.saturating_duration_since(since);
        if lasts < limit || client.replication.get().is_some() {
            continue;
        }
        let hold = (slot, since);
        let is_named = holds.named.contains(&hold);
        if is_named
            || (holds.asked.contains(&hold) && name(shared, &client, &state, lasts.as_secs()))
        {
            next.named.insert(hold);
            take(&client, &state);
        } else {
            client.inquire();
            next.asked.insert(hold);
        }
    }
    *holds = next;
}

/// Enters a transaction, if its client's task has said what it is.
fn name(shared: &Shared, client: &Arc<Client>, state: &State, seconds: u64) -> bool {
    let Some(spoken) = client.take_spoken() else {
        return false;
    };
    let SpokenWords { first, last, .. } = *spoken;
    let mut statement = first;
    if last != statement {
        statement.extend_from_slice(b"; ");
        statement.extend_from_slice(&last);
    }
    let doing = match state.clocks.phase {
        Phase::IdleInTransaction => "is silent in it",
        _ => "works in it",
    };
    let detail = format!("It has lasted for {seconds} s (strict_hold), and the client {doing}.");
    super::note(shared, client, FindingKind::Hold, &statement, &detail);
    true
}

/// Takes the transaction away if its client is silent; otherwise the next look tries again.
fn take(client: &Client, state: &State) {
    let app = &state.application_name;
    let is_allowed = client.route().is_none_or(|route| {
        let allow = &route.rules().config.global.strict_allow;
        allow.covers(FindingKind::Hold.word(), app)
    });
    if !is_allowed && state.clocks.phase == Phase::IdleInTransaction {
        client.remedy(Remedy::Strict(FindingKind::Hold));
    }
}

/// A leak suspect, which is a finding unless that is allowed. A client that is silent in its transaction loses it.
pub(crate) fn suspected(shared: &Shared, facts: &Facts) -> bool {
    let mut statement = facts.first.clone();
    if facts.last != facts.first {
        statement = format!("{statement}; {}", facts.last);
    }
    let finding = Finding {
        kind: FindingKind::Leak,
        database: Arc::clone(&facts.database),
        user: Arc::clone(&facts.user),
        application: Arc::clone(&facts.app),
        address: facts.address.clone(),
        statement: statement.clone(),
        detail: facts.kind.cause().into_owned(),
    };
    let is_found = enter(shared, finding, statement.as_bytes(), &facts.peer());
    if is_found
        && facts.kind == leaks::Kind::InTransaction
        && let Some(client) = &facts.client
    {
        client.remedy(Remedy::Strict(FindingKind::Leak));
    }
    is_found
}
