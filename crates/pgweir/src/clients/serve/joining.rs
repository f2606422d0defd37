//! How a client comes to be listed and counted, and to have a session: after its login, or from another process.

use std::sync::Arc;
use std::time::Instant;

use pgweir_net::Buffered;
use pgweir_pool::{GaugeId, Scope};
use pgweir_session::{ClientSide, Phase};

use crate::clients::client::{Client, Identity, Lease};
use crate::clients::conversation::Conversation;
use crate::clients::login::Entrance;
use crate::relay::Session;
use crate::settings::limits;
use crate::shared::{Route, Shared};

/// From here on the client is listed and counted.
pub(crate) fn register(shared: &Shared, client: Client) -> Arc<Client> {
    let client = Arc::new(client);
    shared.clients.insert(client.id, Arc::clone(&client));
    let ids = limits::count_connection(&mut shared.pools().budget, &client.address);
    client.counted().add(ids);
    client
}

/// The client counts among those that log in no more.
pub(super) fn login_over(shared: &Shared, client: &Client) {
    if client.counted().remove(GaugeId::LOGINS) {
        shared.pools().budget.leave([GaugeId::LOGINS]);
    }
}

/// A client that is logged in begins its session.
pub(super) fn open_session(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    entrance: Entrance,
    talk: Conversation,
) -> Session {
    let mut line = Buffered::new(talk.stream);
    line.put_back_bytes(&talk.unread);
    let Entrance { route, side, own } = entrance;
    let mut session = join(shared, client, route, line, side);
    if let Some(lease) = own {
        session.take_own(lease);
    }
    session
}

fn join(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    route: Arc<Route>,
    line: Buffered,
    side: ClientSide,
) -> Session {
    client.counted().pool = Some(route.home.id);
    start_idle(client);
    let party = {
        let app = Arc::clone(&client.state().application_name);
        let mut pools = shared.pools();
        pools.client_joined(route.home.id);
        limits::party(&pools.budget, &app, &client.address)
    };
    let (shared, client) = (Arc::clone(shared), Arc::clone(client));
    Session::new(shared, client, route, line, side, party)
}

/// What another process has told of a client that it hands over.
pub(crate) struct Inherited {
    pub(crate) client: Client,
    pub(crate) route: Arc<Route>,
    pub(crate) line: Buffered,
    pub(crate) side: ClientSide,
    /// Since when it does what it does.
    pub(crate) since: Instant,
    /// Whether that is to wait for a server.
    pub(crate) waits: bool,
    pub(crate) lease: Option<Lease>,
}

/// Counts a client in that another process has let in, whatever the limits are. [`super::go_on`] follows.
pub(crate) fn inherit(shared: &Arc<Shared>, inherited: Inherited) -> Session {
    let Inherited {
        client,
        route,
        line,
        side,
        since,
        waits,
        lease,
    } = inherited;
    let client = register(shared, client);
    if let Some(key) = client.cancel_key.get() {
        shared.cancel_keys.insert(key.clone(), Arc::clone(&client));
    }
    login_over(shared, &client);
    if let Some(Identity { database, user }) = client.identity.get() {
        let scopes = [
            Scope::DatabaseClients(Arc::clone(database)),
            Scope::UserClients(Arc::clone(user)),
            Scope::AppClients(Arc::clone(&client.state().application_name)),
        ];
        let ids = shared.pools().budget.enter_unlimited(&scopes);
        client.counted().add(ids);
    }
    client.set_route(&route);
    let mut session = join(shared, &client, route, line, side);
    {
        let mut state = client.state();
        if waits {
            state.clocks.begin_wait(since);
            state.requested_at = since;
        }
        state.clocks.since = since;
    }
    if let Some(lease) = lease {
        session.hold_on_to(lease);
    }
    session
}

pub(super) fn start_idle(client: &Client) {
    let mut state = client.state();
    state.clocks.phase = Phase::Idle;
    state.clocks.since = Instant::now();
}
