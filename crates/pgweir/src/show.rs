//! Fills the console's tables. What a table looks like stands in the `console` crate.

pub(crate) mod budget;
pub(crate) mod consumers;
mod leaks;
mod orders;
mod recent;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgweir_config::{CONSOLE_DATABASE, Config, LoadBalanceHosts, UserOverrides};
use pgweir_console::tables::{
    self, ConfigRow, DatabaseRow, DnsHostRow, DnsZoneRow, LatencyRow, ListCounts, MemRow,
    PauseState, PoolRow, Replication, SocketBuffers, SocketRow, SocketState, StatsRow, UserRow,
};
use pgweir_console::{Show, Table, UnixTime};
use pgweir_net::{CachedName, ZoneRow};
use pgweir_pool::view::SlotView;
use pgweir_pool::{Scope, SlotId, SlotState};
use pgweir_session::Phase;
use pgweir_stats::LatencyView;

use crate::client::{Client, ReplicationKind};
use crate::server::ServerInfo;
use crate::shared::{Hold, Shared, lock};
use crate::{ears, janitor, names};

/// Appends the answer to a SHOW.
pub(crate) fn write(shared: &Shared, what: Show, out: &mut Vec<u8>) {
    match what {
        Show::Config => {
            let rows: Vec<_> = shared.config().global.show().map(config_row).collect();
            tables::CONFIG.write_reply(&rows, out);
        }
        Show::Databases => tables::DATABASES.write_reply(&databases(shared), out),
        Show::Budget => tables::BUDGET.write_reply(&budget::rows(shared), out),
        Show::Consumers => tables::CONSUMERS.write_reply(&consumers::consumers(shared), out),
        Show::Apps => tables::APPS.write_reply(&consumers::apps(shared), out),
        Show::Holders => tables::HOLDERS.write_reply(&leaks::holders(shared), out),
        Show::Leaks => tables::LEAKS.write_reply(&leaks::leaks(shared), out),
        Show::Listeners => tables::LISTENERS.write_reply(&ears::rows(shared), out),
        Show::Findings => tables::FINDINGS.write_reply(&recent::findings(shared), out),
        Show::Maintenance => tables::MAINTENANCE.write_reply(&orders::maintenance(shared), out),
        Show::Overrides => tables::OVERRIDES.write_reply(&orders::overrides(shared), out),
        Show::Pins => tables::PINS.write_reply(&leaks::pins(shared), out),
        Show::Quarantine => tables::QUARANTINE.write_reply(&orders::quarantine(shared), out),
        Show::Samples => tables::SAMPLES.write_reply(&recent::samples(shared), out),
        Show::Statements => tables::STATEMENTS.write_reply(&recent::statements(shared), out),
        Show::Events => tables::EVENTS.write_reply(&recent::events(shared), out),
        Show::Pools => tables::POOLS.write_reply(&pools(shared), out),
        Show::Clients => tables::CLIENTS.write_reply(&clients(shared), out),
        Show::Servers => tables::SERVERS.write_reply(&servers(shared), out),
        Show::Users => tables::USERS.write_reply(&users(shared), out),
        Show::Peers => tables::PEERS.write_reply(&peers(shared), out),
        Show::PeerPools => tables::PEER_POOLS.write_reply(&[], out),
        Show::Fds => unreachable!("it is answered where the sockets are"),
        Show::Backends => unreachable!("it is answered when PostgreSQL has answered"),
        Show::Sockets => {
            let rows = sockets(shared);
            let shown = rows.iter().filter(|row| row.state.is_in_sockets());
            tables::SOCKETS.write_reply(shown, out);
        }
        Show::ActiveSockets => tables::ACTIVE_SOCKETS.write_reply(&[], out),
        Show::Lists => {
            let rows: Vec<_> = lists(shared).rows().collect();
            tables::LISTS.write_reply(&rows, out);
        }
        Show::Mem => tables::MEM.write_reply(&mem(shared), out),
        Show::State => tables::STATE.write_reply(&state(shared).rows(), out),
        Show::DnsHosts => tables::DNS_HOSTS.write_reply(&dns_hosts(shared), out),
        Show::DnsZones => tables::DNS_ZONES.write_reply(&dns_zones(shared), out),
        Show::Stats => write_stats(shared, &tables::STATS, out),
        Show::StatsTotals => write_stats(shared, &tables::STATS_TOTALS, out),
        Show::StatsAverages => write_stats(shared, &tables::STATS_AVERAGES, out),
        Show::StatsHist => tables::STATS_HIST.write_reply(&latencies(shared), out),
        Show::Totals => {
            let totals = janitor::database_totals(shared)
                .iter()
                .map(|(_, s)| *s)
                .sum();
            let averages = lock(&shared.history).averages_of_all(&totals, Instant::now());
            let with_logins = shared.config().global.show_login_counts;
            let rows = tables::totals_rows(&totals, &averages);
            let rows: Vec<_> = rows
                .filter(|row| with_logins || !row.counts_logins())
                .collect();
            tables::TOTALS.write_reply(&rows, out);
        }
    }
}

fn write_stats(shared: &Shared, table: &Table<StatsRow>, out: &mut Vec<u8>) {
    let with_logins = shared.config().global.show_login_counts;
    let left_out = |column: &str| !with_logins && tables::counts_logins(column);
    table.write_reply_without(left_out, &stats(shared), out);
}

fn config_row(row: pgweir_config::ShowRow) -> ConfigRow {
    ConfigRow {
        key: row.key,
        value: row.value,
        default: row.default.map(str::to_owned),
        changeable: row.changeable,
    }
}

fn limit(limit: Option<u32>) -> u32 {
    limit.unwrap_or(0)
}

pub(crate) fn databases(shared: &Shared) -> Vec<DatabaseRow> {
    let config = shared.config();
    let mut names: BTreeSet<Arc<str>> = config
        .databases
        .keys()
        .map(|name| Arc::from(name.as_str()))
        .collect();
    names.extend(lock(&shared.autodbs).keys().cloned());
    let mut rows: Vec<_> = names
        .into_iter()
        .filter_map(|name| database_row(shared, &config, name))
        .collect();
    rows.push(console_database(shared, &config));
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn database_row(shared: &Shared, config: &Config, name: Arc<str>) -> Option<DatabaseRow> {
    let database = config.database(&name)?;
    let settings = config.resolve_database(&name)?;
    let (servers, clients) = {
        let pools = shared.pools();
        (
            pools
                .budget
                .gauge(&Scope::DatabaseServers(Arc::clone(&name)))
                .used,
            pools
                .budget
                .gauge(&Scope::DatabaseClients(Arc::clone(&name)))
                .used,
        )
    };
    let several = database.hosts().len() > 1;
    Some(DatabaseRow {
        host: database
            .keys
            .host
            .as_ref()
            .map(|hosts| hosts.as_str().to_owned()),
        port: database.port(),
        database: database.dbname().to_owned(),
        force_user: database.keys.user.clone(),
        pool_size: limit(settings.pool_size),
        min_pool_size: settings.min_pool_size,
        reserve_pool_size: settings.reserve_pool_size,
        server_lifetime: settings.server_lifetime.as_secs(),
        pool_mode: database.keys.pool_mode.map(|mode| mode.word()),
        load_balance_hosts: several.then(|| database.load_balance_hosts().word()),
        max_connections: limit(settings.max_db_connections),
        current_connections: servers as usize,
        max_client_connections: limit(settings.max_db_client_connections),
        current_client_connections: clients as usize,
        paused: lock(&shared.operator.paused).contains(&*name),
        disabled: shared.operator.is_disabled(&name),
        name,
    })
}

fn console_database(shared: &Shared, config: &Config) -> DatabaseRow {
    let clients = shared
        .pools()
        .budget
        .gauge(&Scope::DatabaseClients(CONSOLE_DATABASE.into()))
        .used;
    let global = &config.global;
    let limit = |value: i32| u32::try_from(value).unwrap_or(0);
    DatabaseRow {
        name: CONSOLE_DATABASE.into(),
        host: None,
        port: global.listen_port,
        database: CONSOLE_DATABASE.to_owned(),
        force_user: Some(CONSOLE_DATABASE.to_owned()),
        pool_size: 2,
        min_pool_size: 0,
        reserve_pool_size: 0,
        server_lifetime: global.server_lifetime.duration().as_secs(),
        pool_mode: Some("statement"),
        load_balance_hosts: None,
        max_connections: limit(global.max_db_connections),
        current_connections: 0,
        max_client_connections: limit(global.max_db_client_connections),
        current_client_connections: clients as usize,
        paused: false,
        disabled: false,
    }
}

fn users(shared: &Shared) -> Vec<UserRow> {
    let config = shared.config();
    let mut names: BTreeSet<Arc<str>> = config
        .users
        .keys()
        .map(|name| Arc::from(name.as_str()))
        .collect();
    names.extend(shared.files().users.iter().map(|(name, _)| Arc::from(name)));
    names.extend(
        config
            .databases
            .values()
            .filter_map(|database| database.keys.user.as_deref().map(Arc::from)),
    );
    names.extend(config.global.auth_user.as_deref().map(Arc::from));
    names.insert(CONSOLE_DATABASE.into());
    for home in shared.homes().into_values() {
        names.insert(Arc::clone(&home.name.user));
    }
    names
        .into_iter()
        .map(|name| user_row(shared, &config, name))
        .collect()
}

fn user_row(shared: &Shared, config: &Config, name: Arc<str>) -> UserRow {
    let none = UserOverrides::default();
    let keys = config.users.get(&*name).map_or(&none, |user| &user.keys);
    let set = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    let (servers, clients) = {
        let pools = shared.pools();
        (
            pools
                .budget
                .gauge(&Scope::UserServers(Arc::clone(&name)))
                .used,
            pools
                .budget
                .gauge(&Scope::UserClients(Arc::clone(&name)))
                .used,
        )
    };
    UserRow {
        pool_size: set(keys.pool_size),
        reserve_pool_size: set(keys.reserve_pool_size),
        pool_mode: keys.pool_mode.map(|mode| mode.word()),
        max_user_connections: limit(config.max_user_connections(&name)),
        current_connections: servers as usize,
        max_user_client_connections: limit(config.max_user_client_connections(&name)),
        current_client_connections: clients as usize,
        name,
    }
}

fn peers(shared: &Shared) -> Vec<tables::PeerRow> {
    let config = shared.config();
    config
        .peers
        .values()
        .map(|peer| tables::PeerRow {
            peer_id: peer.id,
            host: Some(peer.host.as_str().to_owned()),
            port: peer.port(),
            pool_size: limit(config.peer_pool_size(peer)),
        })
        .collect()
}

pub(crate) fn pools(shared: &Shared) -> Vec<PoolRow> {
    let homes = shared.homes();
    let now = Instant::now();
    let views = shared.pools().view();
    let stale_after = shared.config().global.server_check_delay.duration();
    let mut used: BTreeMap<_, usize> = BTreeMap::new();
    for slot in shared.pools().slots() {
        if slot.state == SlotState::Idle && is_used(&slot, stale_after, now) {
            *used.entry(slot.pool).or_default() += 1;
        }
    }
    let mut rows: Vec<_> = views
        .into_iter()
        .filter_map(|view| {
            let home = homes.get(&view.name)?;
            let rules = home
                .rules
                .read()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            let used = used.get(&view.id).copied().unwrap_or_default();
            let several = rules.database.hosts().len() > 1;
            Some(PoolRow {
                database: view.name.database,
                user: view.name.user,
                cl_active: view.clients.saturating_sub(view.waiting) as usize,
                cl_waiting: view.waiting as usize,
                cl_active_cancel_req: 0,
                cl_waiting_cancel_req: 0,
                sv_active: view.leased as usize,
                sv_active_cancel: 0,
                sv_being_canceled: view.being_canceled as usize,
                sv_idle: (view.idle as usize).saturating_sub(used),
                sv_used: used,
                sv_tested: view.resetting as usize,
                sv_login: view.opening as usize,
                maxwait: view
                    .oldest_wait
                    .map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
                pool_mode: rules.settings.pool_mode.word(),
                load_balance_hosts: several.then(|| match rules.settings.load_balance_hosts {
                    LoadBalanceHosts::Disable => "disable",
                    LoadBalanceHosts::RoundRobin => "round-robin",
                }),
            })
        })
        .collect();
    let consoles = shared
        .clients
        .iter()
        .filter(|c| c.is_console.load(Ordering::Relaxed))
        .count();
    rows.push(PoolRow {
        database: CONSOLE_DATABASE.into(),
        user: CONSOLE_DATABASE.into(),
        cl_active: consoles,
        cl_waiting: 0,
        cl_active_cancel_req: 0,
        cl_waiting_cancel_req: 0,
        sv_active: 0,
        sv_active_cancel: 0,
        sv_being_canceled: 0,
        sv_idle: 0,
        sv_used: 0,
        sv_tested: 0,
        sv_login: 0,
        maxwait: Duration::ZERO,
        pool_mode: "statement",
        load_balance_hosts: None,
    });
    rows.sort_by(|a, b| (&a.database, &a.user).cmp(&(&b.database, &b.user)));
    rows
}

/// Idle for so long that it will be checked before its next use: PgBouncer's state `used`.
fn is_used(slot: &SlotView, stale_after: Duration, now: Instant) -> bool {
    now.saturating_duration_since(slot.since) > stale_after
}

fn sockets(shared: &Shared) -> Vec<SocketRow> {
    let mut rows = client_rows(shared, true);
    rows.extend(servers(shared));
    // Pool by pool, clients first, and logins, which are in no pool yet, at the end.
    rows.sort_by_cached_key(|row| {
        let login = matches!(row.state, SocketState::ClientLogin);
        (login, row.database.clone(), row.user.clone())
    });
    rows
}

fn clients(shared: &Shared) -> Vec<SocketRow> {
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
    let wait = match state.clocks.phase {
        Phase::Waiting => state.clocks.since.elapsed(),
        _ => Duration::ZERO,
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
        wait,
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

fn servers(shared: &Shared) -> Vec<SocketRow> {
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

fn unix_time(shared: &Shared, at: Instant) -> UnixTime {
    let on = shared.started_on + at.saturating_duration_since(shared.started_at);
    let since = on.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

pub(crate) fn lists(shared: &Shared) -> ListCounts {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let (mut login, mut used) = (0, 0);
    for client in &shared.clients {
        match client.state().clocks.phase {
            Phase::Login => login += 1,
            Phase::Idle | Phase::Waiting | Phase::Active | Phase::IdleInTransaction => used += 1,
        }
    }
    ListCounts {
        databases: count(databases(shared).len()),
        users: count(users(shared).len()),
        peers: count(shared.config().peers.len()),
        pools: count(pools(shared).len()),
        peer_pools: 0,
        free_clients: 0,
        used_clients: used,
        login_clients: login,
        free_servers: 0,
        used_servers: count(shared.servers.len()),
        dns_names: count(dns_hosts(shared).len()),
        dns_zones: count(shared.resolver.zone_count()),
        dns_queries: count(shared.resolver.queries()),
        dns_pending: 0,
    }
}

/// There are no caches of fixed-size objects here: the rows count what lives.
fn mem(shared: &Shared) -> Vec<MemRow> {
    tables::MEM_CACHES
        .into_iter()
        .map(|name| {
            let (size, used) = match name {
                "client_cache" => (size_of::<Client>(), shared.clients.len()),
                "server_cache" => (
                    size_of::<ServerInfo>() + size_of::<crate::server::Server>(),
                    shared.servers.len(),
                ),
                "pool_cache" => (size_of::<crate::shared::PoolHome>(), shared.homes().len()),
                "db_cache" => (
                    size_of::<pgweir_config::Database>(),
                    shared.config().databases.len(),
                ),
                "user_cache" => (
                    size_of::<pgweir_config::User>(),
                    shared.config().users.len(),
                ),
                _ => (0, 0),
            };
            MemRow {
                name,
                size,
                used,
                free: 0,
            }
        })
        .collect()
}

fn state(shared: &Shared) -> PauseState {
    match shared.operator.hold() {
        Hold::None => PauseState::Active,
        Hold::Paused => PauseState::Paused,
        Hold::Suspended => PauseState::Suspended,
    }
}

fn dns_hosts(shared: &Shared) -> Vec<DnsHostRow> {
    let ttl = names::ttl(&shared.config().global);
    let cached = shared.resolver.snapshot(ttl, Instant::now());
    let row = |name: CachedName| {
        let addresses = name.addresses.iter();
        let shown: Vec<_> = addresses
            .map(|&ip| SocketAddr::new(ip, 0).to_string())
            .collect();
        DnsHostRow {
            hostname: name.name,
            ttl: name.ttl.as_secs(),
            addrs: shown.join(","),
        }
    };
    cached.into_iter().map(row).collect()
}

fn dns_zones(shared: &Shared) -> Vec<DnsZoneRow> {
    let row = |zone: ZoneRow| DnsZoneRow {
        zonename: zone.name,
        serial: zone.serial,
        count: zone.names,
    };
    shared.resolver.zones().into_iter().map(row).collect()
}

fn latencies(shared: &Shared) -> Vec<LatencyRow> {
    let mut views: BTreeMap<Arc<str>, LatencyView> = BTreeMap::new();
    for (name, home) in shared.homes() {
        let view = views.entry(name.database).or_default();
        view.add(&home.latencies, &home.totals.snapshot());
    }
    let rows = views.iter();
    rows.flat_map(|(database, view)| LatencyRow::of(database, view))
        .collect()
}

fn stats(shared: &Shared) -> Vec<StatsRow> {
    let now = Instant::now();
    let history = lock(&shared.history);
    janitor::database_totals(shared)
        .into_iter()
        .map(|(database, totals)| {
            let averages = history.averages(&database, &totals, now);
            StatsRow {
                database,
                totals,
                averages,
            }
        })
        .collect()
}
