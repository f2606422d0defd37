//! Clients that were handed over: each with its side of the session, its server, and what it listens to.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::Arc;

use pgweir_auth::{Keys, Secret, ServerSecret};
use pgweir_config::AuthType;
use pgweir_net::{Address, Stream};
use pgweir_session::ClientSide;
use pgweir_wire::CancelKey;

use super::{Adopted, stream};
use crate::clients::client::{Client, Identity, Replication, ReplicationKind};
use crate::clients::farewell::Farewell;
use crate::clients::serve::{self, Inherited};
use crate::relay::Unanswered;
use crate::servers::ears::{self, Subscription};
use crate::shared::{Route, Shared, lock};
use crate::takeover::parcel::{self, LearntSecret};

impl Adopted {
    /// A client on this socket, with what it holds and has.
    pub(super) fn client(
        &mut self,
        client: parcel::Client,
        unanswered: Option<Unanswered>,
        socket: OwnedFd,
    ) -> Result<(), String> {
        let stream = {
            let seat = self.shared.workers.seat_of(self.sessions.len());
            let _there = seat.enter();
            stream(socket)?
        };
        let record = self.record(&client, &stream);
        let Some(route) = self.route_of(&client) else {
            let farewell = Farewell::NoDatabase(client.database.as_str().into());
            return self.stranger(record, stream, farewell);
        };
        let ear = match client.side.listens() {
            false => None,
            true => match ears::find(&self.shared, &route.home.name.database) {
                Some(ear) => Some(ear),
                None => {
                    let why = "its connection was not handed over";
                    return self.stranger(record, stream, Farewell::NotHeard(why.into()));
                }
            },
        };
        let lease = match client.server {
            None => None,
            Some(number) => match self.servers.remove(&number) {
                Some(lease) => Some(lease),
                None => return self.stranger(record, stream, Farewell::ServerLost),
            },
        };
        let lease = lease.map(|mut lease| {
            lease.server.work.rules = route.rules();
            lease
        });
        learn(&self.shared, &route, &client.user, &client.secret);
        let tracked = &self.shared.tracked;
        let side = ClientSide::restore(client.side, tracked, &self.catalogue)
            .map_err(|error| error.to_string())?;
        let name = tracked.index("application_name");
        if let Some(name) = name.and_then(|index| side.values.get(index)) {
            record.state().application_name = Arc::clone(name);
        }
        let inherited = Inherited {
            client: record,
            route,
            line: client.buffers.restore(stream),
            side,
            since: client.since.moment(self.now),
            waits: client.waits,
            lease,
        };
        let mut session = serve::inherit(&self.shared, inherited);
        if let Some(unanswered) = unanswered {
            session.answer_first(unanswered);
        }
        if let (Some(ear), Some(channels)) = (ear, &session.side().channels) {
            let bound = session.route.rules().settings.listen_buffer;
            let said = &client.notifications.0;
            let subscription = Subscription::adopted(&ear, &session.client, bound, channels, said);
            session.listen_on(subscription);
        }
        self.sessions.push(session);
        Ok(())
    }

    fn record(&self, client: &parcel::Client, stream: &Stream) -> Client {
        let connected = client.connected.moment(self.now);
        let port = self.shared.config().global.listen_port;
        let address = stream
            .peer_address(port)
            .unwrap_or(Address::Unix { peer: None, port });
        let local = stream.local_address(port).unwrap_or(address);
        let mut record = Client::new(self.shared.next_id(), address, local, connected);
        record.fd = stream.as_fd().as_raw_fd();
        let (database, user) = self.shared.names(&client.database, &client.user);
        let _ = record.identity.set(Identity { database, user });
        if let Some(key) = CancelKey::parse(&client.cancel_key.0) {
            let _ = record.cancel_key.set(key);
        }
        if let Some(kind) = &client.replication {
            let kind = match kind {
                parcel::Replication::Logical => ReplicationKind::Logical,
                parcel::Replication::Physical => ReplicationKind::Physical,
            };
            let parameters = Vec::new();
            let replication = Replication { kind, parameters };
            let _ = record.replication.set(Box::new(replication));
        }
        record
    }

    fn route_of(&self, client: &parcel::Client) -> Option<Arc<Route>> {
        let config = self.shared.config();
        let database = config.database(&client.database)?;
        // With auth_type any, whoever logs in is the forced user.
        let user = match (&config.global.auth_type, &database.keys.user) {
            (AuthType::Any, Some(forced)) => forced,
            _ => &client.user,
        };
        self.shared.route(&client.database, user).ok()
    }

    fn stranger(
        &mut self,
        record: Client,
        stream: Stream,
        farewell: Farewell,
    ) -> Result<(), String> {
        let client = serve::register(&self.shared, record);
        self.strangers.push((client, stream, farewell));
        Ok(())
    }
}

/// Takes over what a client has taught the old process to log in with.
fn learn(shared: &Shared, route: &Route, user: &str, learnt: &LearntSecret) {
    if *route.home.name.user != *user {
        return;
    }
    let told = learnt.password.as_ref();
    let told = told.and_then(|text| Secret::parse(&text.0).ok());
    let secret = told.or_else(|| shared.files().users.secret(user).cloned());
    let key = learnt.scram_client_key.as_ref();
    let key = key.and_then(|key| <[u8; 32]>::try_from(&*key.0).ok());
    let secret = match (secret, key) {
        (Some(Secret::Scram(secret)), Some(key)) => {
            match Keys::of_client_key(key, secret.clone()) {
                Some(keys) => ServerSecret::Keys(keys),
                None => ServerSecret::Scram(secret),
            }
        }
        (Some(secret), _) if learnt.password.is_some() => secret.into(),
        (Some(_) | None, _) => return,
    };
    *lock(&route.home.secret) = Some(secret);
}
