//! Connections, one a row: SHOW CLIENTS, SHOW SERVERS, and both in SHOW SOCKETS.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgweir_console::tables::{Replication, SocketBuffers, SocketRow, SocketState};
use pgweir_pool::view::SlotView;
use pgweir_pool::{SlotId, SlotState};
use pgweir_session::Phase;

use super::pools::is_used;
use super::unix_time;
use crate::clients::client::{Client, ReplicationKind};
use crate::servers::server::ServerInfo;
use crate::shared::Shared;

pub(super) fn all(shared: &Shared) -> Vec<SocketRow> {
    let mut rows = client_rows(shared, true);
    rows.extend(servers(shared));
    // Pool by pool, clients first, and logins, which are in no pool yet, at the end.
    rows.sort_by_cached_key(|row| {
        let login = matches!(row.state, SocketState::ClientLogin);
        (login, row.database.clone(), row.user.clone())
    });
    rows
}

pub(super) fn clients(shared: &Shared) -> Vec<SocketRow> {
    client_rows(shared, false)
}

fn client_rows(shared: &Shared, with_logins: bool) -> Vec<SocketRow> {
    let mut rows: Vec<_> = shared
        .clients
        .iter()
        .filter_map(|client| client_row(shared, &client, with_logins))
        .collect();
    rows.sort_by(|a, b| (&a.database, &a.user, a.id).cmp(&(&b.database, &b.user, b.id)));
    rows
}

fn client_row(shared: &Shared, client: &Client, with_logins: bool) -> Option<SocketRow> {
    let state = client.state().clone();
    let is_console = client.is_console.load(Ordering::Relaxed);
    let shown = match state.clocks.phase {
        Phase::Login if with_logins => SocketState::ClientLogin,
        Phase::Login => return None,
        Phase::Waiting => SocketState::ClientWaiting,
        Phase::Idle | Phase::Active | Phase::IdleInTransaction => SocketState::ClientActive,
    };
    let identity = client.identity.get();
    let asked = match state.clocks.phase {
        Phase::Waiting => Some(state.clocks.since),
        Phase::Active => state.clocks.query_start,
        Phase::Login | Phase::Idle | Phase::IdleInTransaction => None,
    };
    Some(SocketRow {
        state: shown,
        user: identity.map(|identity| Arc::clone(&identity.user)),
        database: identity.map(|identity| Arc::clone(&identity.database)),
        replication: replication(client),
        addr: client.address.host().to_string(),
        port: client.address.port(),
        local_addr: client.local.host().to_string(),
        local_port: client.local.port(),
        connect_time: unix_time(shared, client.connected_at),
        request_time: unix_time(shared, state.requested_at),
        wait: asked.map_or(Duration::ZERO, |asked| asked.elapsed()),
        close_needed: false,
        id: client.id,
        link: state
            .link
            .filter(|_| !is_console)
            .and_then(|slot| shared.server(slot))
            .map(|server| server.id),
        remote_pid: match client.address.peer_credentials() {
            Some(peer) => peer.pid.unwrap_or(0),
            None => 0,
        },
        tls: client
            .tls
            .get()
            .map_or_else(String::new, |tls| tls.to_string()),
        application_name: state.application_name,
        prepared_statements: client.prepared.load(Ordering::Relaxed) as usize,
        buffers: SocketBuffers::default(),
    })
}

fn replication(client: &Client) -> Replication {
    match client.replication.get().map(|wish| wish.kind) {
        None => Replication::None,
        Some(ReplicationKind::Logical) => Replication::Logical,
        Some(ReplicationKind::Physical) => Replication::Physical,
    }
}

pub(super) fn servers(shared: &Shared) -> Vec<SocketRow> {
    let now = Instant::now();
    let stale_after = shared.config().global.server_check_delay.duration();
    let slots: Vec<SlotView> = shared.pools().slots().collect();
    let holders = holders(shared);
    let mut rows: Vec<_> = slots
        .into_iter()
        .filter_map(|slot| {
            let info = shared.server(slot.id)?;
            let holder = holders.get(&slot.id).map(|client| &**client);
            server_row(
                shared,
                &slot,
                &info,
                holder,
                is_used(&slot, stale_after, now),
            )
        })
        .collect();
    rows.sort_by(|a, b| (&a.database, &a.user, a.id).cmp(&(&b.database, &b.user, b.id)));
    rows
}

/// Which client holds which server.
pub(crate) fn holders(shared: &Shared) -> HashMap<SlotId, Arc<Client>> {
    let clients = shared.clients.iter();
    clients
        .filter_map(|client| Some((client.state().link?, Arc::clone(&client))))
        .collect()
}

fn server_row(
    shared: &Shared,
    slot: &SlotView,
    info: &ServerInfo,
    holder: Option<&Client>,
    used: bool,
) -> Option<SocketRow> {
    let state = match slot.state {
        SlotState::Opening => SocketState::ServerLogin,
        SlotState::Idle if used => SocketState::ServerUsed,
        SlotState::Idle => SocketState::ServerIdle,
        SlotState::Leased => SocketState::ServerActive,
        SlotState::Resetting => SocketState::ServerTested,
        SlotState::BeingCanceled => SocketState::ServerBeingCanceled,
        // PgBouncer does not show what it has closed; SHOW POOLS has no column for it either.
        SlotState::Closing | SlotState::Quarantined => return None,
    };
    let local = info.local.get();
    Some(SocketRow {
        state,
        user: Some(Arc::clone(&info.home.name.user)),
        database: Some(Arc::clone(&info.home.name.database)),
        replication: holder.map_or(Replication::None, replication),
        addr: info.address.host().to_string(),
        port: info.address.port(),
        local_addr: local.map_or_else(String::new, |local| local.host().to_string()),
        local_port: local.map_or(0, pgweir_net::Address::port),
        connect_time: unix_time(shared, info.connected_at),
        request_time: unix_time(shared, slot.since),
        wait: Duration::ZERO,
        close_needed: slot.obsolete,
        id: info.id,
        link: holder.map(|client| client.id),
        remote_pid: u32::try_from(info.process_id()).unwrap_or(0),
        tls: info
            .tls
            .get()
            .map_or_else(String::new, |tls| tls.to_string()),
        application_name: holder.map_or_else(
            || "".into(),
            |client| Arc::clone(&client.state().application_name),
        ),
        prepared_statements: info.prepared.load(Ordering::Relaxed),
        buffers: SocketBuffers::default(),
    })
}
