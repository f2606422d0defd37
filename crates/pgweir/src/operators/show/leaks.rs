//! SHOW HOLDERS, SHOW PINS and SHOW LEAKS.

use std::time::Instant;

use pgweir_console::tables::{HolderRow, LeakRow, PinRow, shown_id};
use pgweir_pool::leak::{Stage, Suspect};

use crate::clients::client::{Client, State};
use crate::shared::{Shared, lock};
use crate::watch::leaks::{self, Facts, Kind, Subject, millis};

/// Who holds a server now, the longest first.
pub(super) fn holders(shared: &Shared) -> Vec<HolderRow> {
    let now = Instant::now();
    let mut rows: Vec<_> = shared
        .clients
        .iter()
        .filter_map(|client| {
            let state = client.state().clone();
            let server = shared.server(state.link?)?;
            let silence = leaks::silence(&state, true);
            let word = silence.map_or("active", leaks::Kind::state);
            Some(HolderRow {
                held_ms: millis(leaks::held_since(&state), now),
                silent_ms: silence.map_or(0, |_| millis(state.clocks.since, now)),
                ..holder(&client, &state, server.process_id(), word)
            })
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.held_ms));
    rows
}

fn holder(client: &Client, state: &State, process_id: i32, word: &'static str) -> HolderRow {
    let identity = client.identity.get();
    HolderRow {
        client_id: shown_id(client.id),
        database: identity.map_or_else(|| "".into(), |identity| identity.database.clone()),
        user: identity.map_or_else(|| "".into(), |identity| identity.user.clone()),
        application_name: state.application_name.clone(),
        address: client.address.to_string(),
        server_pid: process_id,
        state: word,
        held_ms: 0,
        silent_ms: 0,
    }
}

/// With whom a server stays, the longest first.
pub(super) fn pins(shared: &Shared) -> Vec<PinRow> {
    let now = Instant::now();
    let mut rows: Vec<_> = shared
        .clients
        .iter()
        .filter_map(|client| {
            let state = client.state().clone();
            let pin = state.pin.as_deref().copied()?;
            let server = shared.server(state.link?)?;
            let who = holder(&client, &state, server.process_id(), "idle");
            Some(PinRow {
                client_id: who.client_id,
                database: who.database,
                user: who.user,
                application_name: who.application_name,
                address: who.address,
                server_pid: who.server_pid,
                reason: pin.kinds.to_string(),
                pinned_ms: millis(pin.since, now),
                stays: if pin.is_firm { "firm" } else { "loose" },
                pinned: u32::try_from(lock(&server.home.pins).len()).unwrap_or(u32::MAX),
                max_pinned: server.home.rules().settings.max_pinned,
            })
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.pinned_ms));
    rows
}

/// Open suspicions and those that ended lately.
pub(super) fn leaks(shared: &Shared) -> Vec<LeakRow> {
    let now = Instant::now();
    let leaks = lock(&shared.leaks);
    leaks
        .all()
        .into_iter()
        .map(|suspect| leak(suspect, now))
        .collect()
}

fn leak(suspect: &Suspect<Subject, Facts>, now: Instant) -> LeakRow {
    let facts = &suspect.facts;
    let (stage, until) = match suspect.stage {
        Stage::Suspected => ("suspected", now),
        Stage::Confirmed => ("confirmed", now),
        Stage::Resolved(_) => ("resolved", suspect.at),
    };
    LeakRow {
        id: suspect.id,
        stage,
        holder: HolderRow {
            client_id: facts
                .client
                .as_ref()
                .map_or(0, |client| shown_id(client.id)),
            database: facts.database.clone(),
            user: facts.user.clone(),
            application_name: facts.app.clone(),
            address: facts.address.clone(),
            server_pid: facts.process_id,
            state: facts.kind.state(),
            held_ms: millis(facts.held_since, until),
            silent_ms: match facts.kind {
                Kind::FarTooLong { .. } => 0,
                _ => millis(suspect.since, until),
            },
        },
        first_statement: facts.first.clone(),
        last_statement: facts.last.clone(),
        cause: facts.kind.cause(),
        kind: facts.kind.word(),
    }
}
