//! Where the configuration becomes limits: what clients, servers and leases count in, and how much
//! of it there may be. The counting itself is in `pool`.

use std::net::IpAddr;
use std::sync::Arc;

use pgweir_config::Settings;
use pgweir_net::Address;
use pgweir_pool::{Budget, GaugeId, Kind, Party, PoolId, PoolName, PoolScopes, Scope};

use crate::servers::survey::{Facts, HostFacts};
use crate::shared::{Rules, ServerPools};

/// Sets the limits that are not those of one pool.
pub(crate) fn apply(budget: &mut Budget, settings: &Settings) {
    let clients = u32::try_from(settings.max_client_conn).unwrap_or(0);
    budget.set_limit(&Scope::Clients, Some(clients));
    budget.set_limit(&Scope::Logins, limit(settings.max_logins));
    budget.set_limit(&Scope::Waiting, limit(settings.max_waiting));
    budget.set_limit(&Scope::Cancels, Some(settings.max_cancels.max(1).into()));
    for (kind, value) in [
        (Kind::AppClients, settings.max_app_client_connections),
        (Kind::AppServers, settings.max_app_connections),
        (
            Kind::AddressClients,
            settings.max_address_client_connections,
        ),
        (Kind::AddressServers, settings.max_address_connections),
    ] {
        budget.set_limit_of_each(kind, limit(value));
    }
}

/// Sets the limits that the servers of one pool count in.
pub(crate) fn apply_to_pool(
    pools: &mut ServerPools,
    id: PoolId,
    name: &PoolName,
    rules: &Rules,
    facts: &Facts,
) {
    pools.set_limits(id, rules.pool_limits(&name.user));
    pools.set_scopes(id, scopes(name, rules));
    let settings = &rules.settings;
    for scope in scopes(name, rules).servers.iter() {
        let limit = match scope {
            Scope::DatabaseServers(_) => settings.max_db_connections,
            Scope::UserServers(_) => settings.max_user_connections,
            _ => continue,
        };
        pools.budget.set_limit(scope, limit);
    }
    let global = &rules.config.global;
    for host in hosts(rules) {
        apply_to_host(&mut pools.budget, &host, global, facts.hosts.get(&host));
    }
    if let Some(login) = scopes(name, rules).login {
        pools
            .budget
            .set_limit(&login, limit(global.max_host_logins));
    }
}

/// Sets the limit on the servers of one PostgreSQL. A part of what it has is set when that is known; until then the limit
/// stays what it was.
pub(crate) fn apply_to_host(
    budget: &mut Budget,
    host: &Arc<str>,
    settings: &Settings,
    facts: Option<&HostFacts>,
) {
    let ordinary = facts.map(HostFacts::ordinary);
    if ordinary.is_some() || !settings.max_host_connections.is_relative() {
        let scope = Scope::HostServers(Arc::clone(host));
        budget.set_limit(&scope, settings.host_servers(ordinary));
    }
}

/// What the servers of a pool count in. Where there are several hosts, the one is added that a
/// server is opened on.
pub(crate) fn scopes(name: &PoolName, rules: &Rules) -> PoolScopes {
    let mut servers = vec![
        Scope::DatabaseServers(Arc::clone(&name.database)),
        Scope::UserServers(Arc::clone(&name.user)),
    ];
    let hosts = hosts(rules);
    if let [host] = &*hosts {
        servers.insert(0, Scope::HostServers(Arc::clone(host)));
    }
    PoolScopes {
        servers: servers.into(),
        login: Some(Scope::HostLogins(hosts.join(",").into())),
    }
}

/// The names of the hosts that a database's servers are on: never empty.
pub(crate) fn hosts(rules: &Rules) -> Vec<Arc<str>> {
    let names = rules
        .database
        .host_names(&rules.config.global.unix_socket_dir);
    names.into_iter().map(Arc::from).collect()
}

/// Counts a connection in what it counts in from its first byte, whatever the limits are.
pub(crate) fn count_connection(
    budget: &mut Budget,
    address: &Address,
) -> impl Iterator<Item = GaugeId> + use<> {
    let all = budget.enter_unlimited(&[Scope::Clients]);
    // Whoever is on this machine is one of us, an operator perhaps.
    let of_ip = |ip| [Scope::Logins, Scope::AddressClients(canonical(ip))];
    let of_ip = address.ip().map(|ip| budget.enter_unlimited(&of_ip(ip)));
    all.into_iter().chain(of_ip.into_iter().flatten())
}

/// Who is charged for a client's leases.
pub(crate) fn party(budget: &Budget, app: &Arc<str>, address: &Address) -> Option<Party> {
    let is_limited = |kind| budget.limit_of_each(kind).is_some();
    let app = (is_limited(Kind::AppServers)).then(|| Scope::AppServers(Arc::clone(app)));
    let address = address.ip().filter(|_| is_limited(Kind::AddressServers));
    let address = address.map(|ip| Scope::AddressServers(canonical(ip)));
    let party: Vec<_> = app.into_iter().chain(address).collect();
    (!party.is_empty()).then(|| party.into())
}

/// An IPv4 address is the same one through a socket for both families.
fn canonical(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// A number of which zero and less mean that there is no limit.
fn limit(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|&number| number > 0)
}
