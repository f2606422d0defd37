//! Fills the console's tables: which rows answer which SHOW. What a table looks like stands in the `console` crate.

pub(crate) mod budget;
pub(crate) mod configured;
pub(crate) mod consumers;
mod leaks;
mod orders;
pub(crate) mod pools;
mod recent;
pub(crate) mod sockets;
mod stats;

use std::net::SocketAddr;
use std::time::Instant;

use pgweir_console::tables::{
    self, ConfigRow, DnsHostRow, DnsZoneRow, ListCounts, MemRow, PauseState,
};
use pgweir_console::{Show, UnixTime};
use pgweir_net::{CachedName, ZoneRow};
use pgweir_session::Phase;

use crate::clients::client::Client;
use crate::servers::server::{Server, ServerInfo};
use crate::servers::{ears, names};
use crate::shared::{Hold, PoolHome, Shared};

/// Appends the answer to a SHOW.
pub(crate) fn write(shared: &Shared, what: Show, out: &mut Vec<u8>) {
    match what {
        Show::Config => {
            let rows: Vec<_> = shared.config().global.show().map(config_row).collect();
            tables::CONFIG.write_reply(&rows, out);
        }
        Show::Databases => tables::DATABASES.write_reply(&configured::databases(shared), out),
        Show::Budget => tables::BUDGET.write_reply(&budget::rows(shared), out),
        Show::Consumers => tables::CONSUMERS.write_reply(&consumers::consumers(shared), out),
        Show::Apps => tables::APPS.write_reply(&consumers::apps(shared), out),
        Show::Holders => tables::HOLDERS.write_reply(&leaks::holders(shared), out),
        Show::Leaks => tables::LEAKS.write_reply(&leaks::leaks(shared), out),
        Show::Findings => tables::FINDINGS.write_reply(&recent::findings(shared), out),
        Show::Listeners => tables::LISTENERS.write_reply(&ears::rows(shared), out),
        Show::Maintenance => tables::MAINTENANCE.write_reply(&orders::maintenance(shared), out),
        Show::Overrides => tables::OVERRIDES.write_reply(&orders::overrides(shared), out),
        Show::Pins => tables::PINS.write_reply(&leaks::pins(shared), out),
        Show::Quarantine => tables::QUARANTINE.write_reply(&orders::quarantine(shared), out),
        Show::Samples => tables::SAMPLES.write_reply(&recent::samples(shared), out),
        Show::Statements => tables::STATEMENTS.write_reply(&recent::statements(shared), out),
        Show::Events => tables::EVENTS.write_reply(&recent::events(shared), out),
        Show::Pools => tables::POOLS.write_reply(&pools::rows(shared), out),
        Show::Clients => tables::CLIENTS.write_reply(&sockets::clients(shared), out),
        Show::Servers => tables::SERVERS.write_reply(&sockets::servers(shared), out),
        Show::Users => tables::USERS.write_reply(&configured::users(shared), out),
        Show::Peers => tables::PEERS.write_reply(&configured::peers(shared), out),
        Show::PeerPools => {
            tables::PEER_POOLS.write_reply(&configured::peer_pools(shared), out);
        }
        Show::Fds => unreachable!("it is answered where the sockets are"),
        Show::Backends => unreachable!("it is answered when PostgreSQL has answered"),
        Show::Sockets => {
            let rows = sockets::all(shared);
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
        Show::Stats => stats::write(shared, &tables::STATS, out),
        Show::StatsTotals => stats::write(shared, &tables::STATS_TOTALS, out),
        Show::StatsAverages => stats::write(shared, &tables::STATS_AVERAGES, out),
        Show::StatsHist => tables::STATS_HIST.write_reply(&stats::latencies(shared), out),
        Show::Totals => tables::TOTALS.write_reply(&stats::totals(shared), out),
    }
}

fn config_row(row: pgweir_config::ShowRow) -> ConfigRow {
    ConfigRow {
        key: row.key,
        value: row.value,
        default: row.default.map(str::to_owned),
        changeable: row.changeable,
    }
}

fn unix_time(shared: &Shared, at: Instant) -> UnixTime {
    let on = shared.started_on + at.saturating_duration_since(shared.started_at);
    let since = on.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    UnixTime(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

pub(crate) fn lists(shared: &Shared) -> ListCounts {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let clients = shared.clients.iter();
    let logins = clients.filter(|client| client.state().clocks.phase == Phase::Login);
    ListCounts {
        databases: count(configured::databases(shared).len()),
        users: count(configured::users(shared).len()),
        peers: count(shared.config().peers.len()),
        pools: count(pools::rows(shared).len()),
        peer_pools: count(configured::peer_pools(shared).len()),
        free_clients: 0,
        used_clients: count(shared.clients.len()),
        login_clients: count(logins.count()),
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
                    size_of::<ServerInfo>() + size_of::<Server>(),
                    shared.servers.len(),
                ),
                "pool_cache" => (size_of::<PoolHome>(), shared.homes().len()),
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
