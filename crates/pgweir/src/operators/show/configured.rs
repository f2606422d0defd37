//! What the configuration knows by name, and how many connections it has now: SHOW DATABASES, SHOW USERS,
//! SHOW PEERS, SHOW PEER_POOLS.

use std::collections::BTreeSet;
use std::sync::Arc;

use pgweir_config::{CONSOLE_DATABASE, Config, Peer, UserOverrides};
use pgweir_console::tables::{DatabaseRow, PeerPoolRow, PeerRow, UserRow};
use pgweir_pool::Scope;

use crate::shared::{Shared, lock};

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

pub(super) fn users(shared: &Shared) -> Vec<UserRow> {
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

pub(super) fn peers(shared: &Shared) -> Vec<PeerRow> {
    let config = shared.config();
    config
        .peers
        .values()
        .map(|peer| PeerRow {
            peer_id: peer.id,
            host: Some(peer.host.as_str().to_owned()),
            port: peer.port(),
            pool_size: limit(config.peer_pool_size(peer)),
        })
        .collect()
}

/// As in PgBouncer, a peer has a pool from the first request that is passed on to it.
pub(super) fn peer_pools(shared: &Shared) -> Vec<PeerPoolRow> {
    let config = shared.config();
    let row = |peer: &Peer| {
        let underway = shared.peer_lanes.underway(peer.id)?;
        Some(PeerPoolRow {
            peer_id: peer.id,
            cl_active_cancel_req: underway.sent,
            cl_waiting_cancel_req: underway.waiting + underway.connecting,
            sv_active_cancel: underway.sent,
            sv_login: underway.connecting,
        })
    };
    config.peers.values().filter_map(row).collect()
}
