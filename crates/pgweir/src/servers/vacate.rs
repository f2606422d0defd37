//! A database that a client wants to drop, rename or copy: PostgreSQL refuses that while anybody is
//! connected to it, and idle servers without a client are nobody.

use std::sync::Arc;
use std::time::Instant;

use crate::servers::pools;
use crate::servers::server::ServerInfo;
use crate::shared::Shared;

/// Closes the servers that stand in the way of what a client has sent, at the same PostgreSQL as its own
/// server. `true`: some of them are still there.
pub(crate) fn vacate(shared: &Arc<Shared>, own: &ServerInfo, messages: &[u8]) -> bool {
    let Some(database) = pgweir_session::vacated(messages) else {
        return false;
    };
    let homes = shared.homes();
    let homes = homes.values().filter(|home| home.id != own.home.id);
    let homes = homes.filter(|home| home.rules().database.dbname() == database);
    let ids: Vec<_> = homes.map(|home| home.id).collect();
    if ids.is_empty() {
        return false;
    }
    let (unused, actions) = shared
        .pools()
        .close_unused(|id| ids.contains(&id), Instant::now());
    pools::perform(shared, actions);
    let in_the_way =
        |server: &ServerInfo| unused.contains(&server.home.id) && server.target == own.target;
    shared.servers.iter().any(|server| in_the_way(&server))
}
