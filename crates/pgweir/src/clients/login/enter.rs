//! Limits of database and user, and the greeting: into a pool, to a server of one's own, or into
//! the console.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::BytesMut;
use pgweir_config::{AuthType, CONSOLE_DATABASE, Config};
use pgweir_console::Access;
use pgweir_pool::{Refusal, Scope};
use pgweir_session::ClientSide;
use pgweir_stats::Tally;
use pgweir_wire::backend::{self, Authentication};
use pgweir_wire::{CancelKey, ProtocolVersion, Severity, SqlState, TransactionStatus};

use super::authenticate::KnownAs;
use super::{Entrance, Entry, Login, Wish};
use crate::clients::farewell::Farewell;
use crate::clients::welcome::Welcome;
use crate::clients::{credentials, peers};
use crate::servers::close::{self, Busy};
use crate::servers::open::secret;
use crate::servers::pools;
use crate::shared::{Route, Shutdown, lock};

impl Login<'_> {
    pub(super) async fn enter_pool(&mut self, wish: Wish) -> Result<Entry, Farewell> {
        let config = self.shared.config();
        let database_exists = config.has_database(&wish.database);
        let mut user = Arc::clone(&wish.user);
        if config.global.auth_type == AuthType::Any {
            let database = config.database(&wish.database);
            match database.and_then(|database| database.keys.user.clone()) {
                Some(forced) => user = forced.into(),
                None => {
                    tracing::error!(peer = %self.client, "auth_type=any requires forced user");
                    return Err(Farewell::Configuration);
                }
            }
        }
        let known = self
            .known_as(&config, &wish.database, &mut user, database_exists)
            .await?;
        self.log_attempt(&config, &wish.database, &user);
        let taught = self
            .authenticate(&config, &wish.database, &user, known)
            .await?;
        let missing = || Farewell::NoDatabase(Arc::clone(&wish.database));
        if !database_exists {
            if config.global.log_connections {
                tracing::info!(
                    peer = %self.client,
                    "login failed: db={} user={user}", wish.database
                );
            }
            return Err(missing());
        }
        if self.shared.operator.is_disabled(&wish.database) {
            return Err(Farewell::DatabaseDisabled(Arc::clone(&wish.database)));
        }
        if let Some(message) = self.shared.operator.refusal_of_logins(&wish.database) {
            return Err(Farewell::Refused(Refusal::Closed(message)));
        }
        if self.is_too_late() {
            return Err(Farewell::ShuttingDown);
        }
        let route = self
            .shared
            .route(&wish.database, &user)
            .map_err(|_| missing())?;
        if let Some(taught) = taught
            && route.home.name.user == user
        {
            Box::pin(secret::learn(self.shared, &route.home, taught)).await;
        }
        let rules = route.rules();
        let app = Arc::clone(&self.client.state().application_name);
        let scopes = [
            Scope::DatabaseClients(Arc::clone(&route.database)),
            Scope::UserClients(Arc::clone(&route.user)),
            Scope::AppClients(app),
        ];
        let limits = [
            rules.settings.max_db_client_connections,
            rules.settings.max_user_client_connections,
        ];
        self.take_permits(scopes, limits)?;
        self.client.set_route(&route);
        route.home.totals.add(&mut Tally {
            client_login_count: 1,
            ..Default::default()
        });
        if self.client.replication.get().is_some() {
            return Box::pin(self.enter_replication(route, wish)).await;
        }
        pools::greet(self.shared, self.client, &route.home).await?;
        let welcome = lock(&route.home.welcome).clone().unwrap_or_default();
        let side = self.greet(&config, &route, &welcome, wish).await?;
        let name = self.shared.application_name(&side.values);
        self.client.state().set_application_name(name);
        Ok(Entry::Client(Box::new(Entrance {
            route,
            side,
            own: None,
        })))
    }

    /// Whether the process ends without this client. Where it waits for clients, those that were
    /// accepted before it stopped listening are among them; the Unix socket stays open for the console
    /// alone.
    fn is_too_late(&self) -> bool {
        match self.shared.operator.shutdown() {
            Shutdown::No => false,
            Shutdown::WaitForClients => self.client.address.is_unix(),
            Shutdown::WaitForServers | Shutdown::Drain | Shutdown::Now => true,
        }
    }

    /// Counts the client in, unless a limit is reached. It is counted out when it is forgotten. The `limits` are
    /// those of database and user, the first two; the application has its own from its kind.
    fn take_permits<const N: usize>(
        &self,
        scopes: [Scope; N],
        limits: [Option<u32>; 2],
    ) -> Result<(), Farewell> {
        let mut pools = self.shared.pools();
        let ids = match pools.budget.enter(&scopes, &limits) {
            Ok(ids) => ids,
            Err(full) => return Err(Farewell::too_many(full, &pools.budget)),
        };
        drop(pools);
        self.client.counted().add(ids);
        Ok(())
    }

    fn log_attempt(&self, config: &Config, database: &str, user: &str) {
        if !config.global.log_connections {
            return;
        }
        let tls = self
            .client
            .tls
            .get()
            .map_or("no".to_owned(), |tls| tls.to_string());
        let replication = self
            .client
            .replication
            .get()
            .map_or("no", |wish| wish.kind.word());
        tracing::info!(
            peer = %self.client,
            "login attempt: db={database} user={user} tls={tls} replication={replication}"
        );
    }

    /// Opens the client's own server, and greets it with what that server says.
    async fn enter_replication(
        &mut self,
        route: Arc<Route>,
        wish: Wish,
    ) -> Result<Entry, Farewell> {
        let lease = pools::dedicate(self.shared, self.client, &route.home).await?;
        let welcome = lease.server.info.welcome.get().cloned().unwrap_or_default();
        match self
            .greet(&self.shared.config(), &route, &welcome, wish)
            .await
        {
            Ok(side) => Ok(Entry::Client(Box::new(Entrance {
                route,
                side,
                own: Some(lease),
            }))),
            Err(farewell) => {
                let reason = "replication client was closed";
                close::give_up(self.shared, lease.slot, lease.server, reason, Busy::No);
                Err(farewell)
            }
        }
    }

    /// Tells the client that it is in, and what its servers are like. Like clients hold one copy of their
    /// parameters.
    async fn greet(
        &mut self,
        config: &Config,
        route: &Route,
        welcome: &Welcome,
        wish: Wish,
    ) -> Result<ClientSide, Farewell> {
        let mut side = ClientSide {
            values: wish.values,
            ..ClientSide::default()
        };
        let tracked = &self.shared.tracked;
        side.values.request_unreported(&welcome.tracked, tracked);
        side.values.fill(&welcome.tracked);
        let mut out = BytesMut::with_capacity(GREETING_LEN);
        Authentication::Ok.write(&mut out);
        let requested = side.values.requested();
        if requested.is_empty() {
            out.extend_from_slice(welcome.statuses());
        } else {
            for (name, value) in &welcome.untracked {
                let requested = str::from_utf8(name)
                    .ok()
                    .and_then(|name| requested.get(name));
                let value = requested.map_or(value.as_slice(), str::as_bytes);
                backend::parameter_status(&mut out, name, value);
            }
        }
        out.extend_from_slice(lock(&route.latest).share(&mut side.values, tracked));
        let key = new_cancel_key(wish.version, config.global.peer_id);
        backend::backend_key_data(&mut out, key.process_id, &key.secret);
        let _ = self.client.cancel_key.set(key.clone());
        self.shared.cancel_keys.insert(key, Arc::clone(self.client));
        let notice = &config.global.login_notify_message;
        if !notice.is_empty() {
            backend::Report {
                severity: Severity::Notice,
                code: SqlState::SUCCESSFUL_COMPLETION,
                message: notice,
                detail: None,
                hint: None,
            }
            .write(&mut out);
        }
        backend::ready_for_query(&mut out, TransactionStatus::Idle);
        self.talk()?
            .send(&out)
            .await
            .map_err(|_| Farewell::ClientGone)?;
        Ok(side)
    }

    pub(super) async fn enter_console(&mut self, wish: Wish) -> Result<Entry, Farewell> {
        self.client.is_console.store(true, Ordering::Relaxed);
        let config = self.shared.config();
        let global = &config.global;
        let own_user = self.client.is_own_user();
        let mut user = wish.user;
        if own_user {
            if global.log_connections {
                tracing::info!(peer = %self.client, "pgbouncer access from unix socket");
            }
            self.log_attempt(&config, &wish.database, &user);
        } else if global.auth_type == AuthType::Any {
            self.log_attempt(&config, &wish.database, &user);
        } else {
            let known = self
                .known_as(&config, CONSOLE_DATABASE, &mut user, true)
                .await?;
            self.log_attempt(&config, &wish.database, &user);
            let listed = global.admin_users.contains(&user) || global.stats_users.contains(&user);
            if !matches!(known, KnownAs::Unknown) && !listed {
                return Err(Farewell::NotAllowed);
            }
            self.authenticate(&config, CONSOLE_DATABASE, &user, known)
                .await?;
        }
        let access = if own_user || global.admin_users.contains(&user) {
            Access::Admin
        } else {
            Access::Stats
        };
        self.take_console_permits(&user, access)?;
        self.shared.console_totals.add(&mut Tally {
            client_login_count: 1,
            ..Default::default()
        });
        let key = new_cancel_key(ProtocolVersion::V3_0, global.peer_id);
        let mut greeting = Vec::new();
        let mut ok = BytesMut::new();
        Authentication::Ok.write(&mut ok);
        greeting.extend_from_slice(&ok);
        let mut shown = key.process_id.to_be_bytes().to_vec();
        shown.extend_from_slice(&key.secret);
        pgweir_console::write_greeting(&shown, &mut greeting);
        let _ = self.client.cancel_key.set(key.clone());
        self.shared.cancel_keys.insert(key, Arc::clone(self.client));
        self.talk()?
            .send(&greeting)
            .await
            .map_err(|_| Farewell::ClientGone)?;
        Ok(Entry::Console { access })
    }

    /// Administrators are counted, but never kept out.
    fn take_console_permits(&self, user: &str, access: Access) -> Result<(), Farewell> {
        let config = self.shared.config();
        let limit = |value: i32| u32::try_from(value).ok().filter(|&limit| limit > 0);
        let of_user = config
            .users
            .get(user)
            .and_then(|user| user.keys.max_user_client_connections);
        let of_user = of_user.filter(|&limit| limit > 0);
        let scopes = [
            Scope::DatabaseClients(CONSOLE_DATABASE.into()),
            Scope::UserClients(user.into()),
        ];
        let limits = [
            limit(config.global.max_db_client_connections),
            limit(of_user.unwrap_or(config.global.max_user_client_connections)),
        ];
        match access {
            Access::Stats => self.take_permits(scopes, limits),
            Access::Admin => {
                let ids = self.shared.pools().budget.enter_unlimited(&scopes);
                self.client.counted().add(ids);
                Ok(())
            }
        }
    }
}

/// Room for what most servers say of themselves.
const GREETING_LEN: usize = 640;

/// A key that nobody can guess. Process ids are positive, because some clients want them so. Among peers it is a short
/// one, which every version takes: it says whose it is.
fn new_cancel_key(version: ProtocolVersion, peer_id: u16) -> CancelKey {
    let (process_id, secret) = if version >= ProtocolVersion::V3_2 && peer_id == 0 {
        cut(credentials::random::<36>())
    } else {
        cut(credentials::random::<8>())
    };
    peers::stamp(CancelKey { process_id, secret }, peer_id)
}

fn cut<const N: usize>(random: [u8; N]) -> (i32, Arc<[u8]>) {
    let [a, b, c, d, secret @ ..] = &random[..] else {
        unreachable!("a key has more than four bytes")
    };
    let process_id = i32::from_be_bytes([*a, *b, *c, *d]) & i32::MAX;
    (process_id, secret.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::peers::Destination;

    #[test]
    fn among_peers_every_key_says_whose_it_is() {
        for version in [ProtocolVersion::V3_0, ProtocolVersion::V3_2] {
            let key = new_cancel_key(version, 7);
            let elsewhere = peers::destination(&key, 8);
            assert!(
                matches!(elsewhere, Destination::Peer(7, _)),
                "{elsewhere:?}"
            );
            assert_eq!(peers::destination(&key, 7), Destination::Here(key));
        }
        let alone = new_cancel_key(ProtocolVersion::V3_2, 0);
        assert_eq!(alone.secret.len(), 32);
    }
}
