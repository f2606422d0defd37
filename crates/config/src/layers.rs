//! What holds for one pool, after its user, its database and the main section had their say.
//!
//! The user's entry goes before the database's, and that before the main section. Which numbers of
//! an entry count as "not set" is PgBouncer's choice and differs from key to key; it stands here.

use std::time::Duration;

use crate::config::{Config, Peer, User};
use crate::keys::{DatabaseOverrides, UserOverrides};
use crate::value::{
    LeakAction, ListenMode, LoadBalanceHosts, PoolMode, Seconds, SessionState, StatePolicies,
};

/// The limits and modes of one (database, user). A limit that is `None` is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolSettings {
    /// When a server goes back to the pool.
    pub pool_mode: PoolMode,
    /// Servers of the pool.
    pub pool_size: Option<u32>,
    /// Servers kept open, not more than the pool's size.
    pub min_pool_size: u32,
    /// Servers beyond the pool's size.
    pub reserve_pool_size: u32,
    /// The pool's part of limits that it shares.
    pub pool_weight: u32,
    /// Clients that may wait in the pool.
    pub max_pool_waiting: Option<u32>,
    /// How long a query may wait for a server.
    pub query_wait_timeout: Option<Duration>,
    /// The age at which an unused server is closed; zero is after one use.
    pub server_lifetime: Duration,
    /// How long a query may take.
    pub query_timeout: Option<Duration>,
    /// How long a transaction may take.
    pub transaction_timeout: Option<Duration>,
    /// How long a client may be idle inside a transaction.
    pub idle_transaction_timeout: Option<Duration>,
    /// How long a client may be idle outside a transaction.
    pub client_idle_timeout: Option<Duration>,
    /// Servers of the database.
    pub max_db_connections: Option<u32>,
    /// Clients of the database.
    pub max_db_client_connections: Option<u32>,
    /// Servers of the pool's user.
    pub max_user_connections: Option<u32>,
    /// Clients of the user who logged in.
    pub max_user_client_connections: Option<u32>,
    /// How long a client may hold a server in silence before it is named.
    pub leak_after: Option<Duration>,
    /// How long a statement may take although it normally takes far less, before it is named.
    pub leak_floor: Option<Duration>,
    /// What becomes of suspects.
    pub leak_action: LeakAction,
    /// What becomes of what a client leaves in a server's session.
    pub session_state: SessionState,
    /// What becomes of each kind of it.
    pub state_policy: StatePolicies,
    /// `listen`
    pub listen: ListenMode,
    /// `listen_buffer`, in bytes.
    pub listen_buffer: usize,
    /// `prepare_unnamed`
    pub prepare_unnamed: bool,
    /// Servers of the pool that may stay with a client for it.
    pub max_pinned: u32,
    /// The user that runs auth_query.
    pub auth_user: Option<String>,
    /// The query for secrets.
    pub auth_query: String,
    /// The database in which auth_query runs; without it, this one.
    pub auth_dbname: Option<String>,
    /// How servers are spread over the database's hosts.
    pub load_balance_hosts: LoadBalanceHosts,
}

impl Config {
    /// What holds for clients that log in to `database` as `login_user`; `None` if there is neither
    /// such a database nor a template.
    ///
    /// Where the database forces a user, that user's entry decides about the pool, and the login
    /// user's entry about the client's own time limits and count.
    pub fn resolve(&self, database: &str, login_user: &str) -> Option<PoolSettings> {
        let database = self.database(database)?;
        let pool_user = database.keys.user.as_deref().unwrap_or(login_user);
        let none = UserOverrides::default();
        let of_user = |name: &str| self.users.get(name).map_or(&none, |user: &User| &user.keys);
        Some(self.layered(&database.keys, of_user(pool_user), of_user(login_user)))
    }

    /// What holds for `database` as long as no user has a say, as SHOW DATABASES tells it.
    pub fn resolve_database(&self, database: &str) -> Option<PoolSettings> {
        let none = UserOverrides::default();
        Some(self.layered(&self.database(database)?.keys, &none, &none))
    }

    /// What holds for the console, which has no entry that could differ from the main section.
    pub fn resolve_console(&self) -> PoolSettings {
        let none = UserOverrides::default();
        self.layered(&DatabaseOverrides::default(), &none, &none)
    }

    /// Servers of `user` over all databases, as SHOW USERS tells them; `None` is no limit.
    pub fn max_user_connections(&self, user: &str) -> Option<u32> {
        let own = self
            .users
            .get(user)
            .and_then(|user| user.keys.max_user_connections);
        self.global
            .part_of(limit_or(own, self.global.max_user_connections))
    }

    /// Clients of `user` over all databases; `None` is no limit.
    pub fn max_user_client_connections(&self, user: &str) -> Option<u32> {
        let own = self
            .users
            .get(user)
            .and_then(|user| user.keys.max_user_client_connections);
        limit_or(own, self.global.max_user_client_connections)
    }

    /// Servers of the pool of cancel requests to a peer; `None` is no limit.
    pub fn peer_pool_size(&self, peer: &Peer) -> Option<u32> {
        limit(set(peer.keys.pool_size).unwrap_or(self.global.default_pool_size))
    }

    fn layered(
        &self,
        database: &DatabaseOverrides,
        pool_user: &UserOverrides,
        login_user: &UserOverrides,
    ) -> PoolSettings {
        let global = &self.global;
        let pool_mode = pool_user
            .pool_mode
            .or(database.pool_mode)
            .unwrap_or(global.pool_mode);
        let pool_size = set(pool_user.pool_size).or(set(database.pool_size));
        let pool_size = limit(pool_size.unwrap_or(global.default_pool_size));
        let min_pool_size = set(database.min_pool_size).unwrap_or(global.min_pool_size);
        let reserve = set(pool_user.reserve_pool_size).or(set(database.reserve_pool_size));
        let pool_weight = set(pool_user.pool_weight).or(set(database.pool_weight));
        let max_pool_waiting = set(pool_user.max_pool_waiting).or(set(database.max_pool_waiting));
        let query_wait_timeout = login_user
            .query_wait_timeout
            .or(database.query_wait_timeout);
        let auth_dbname = global
            .auth_dbname
            .as_ref()
            .map(|name| name.as_str().to_owned());
        let lifetime = unless_off(database.server_lifetime, global.server_lifetime);

        PoolSettings {
            pool_mode,
            pool_size,
            min_pool_size: count(min_pool_size).min(pool_size.unwrap_or(u32::MAX)),
            reserve_pool_size: count(reserve.unwrap_or(global.reserve_pool_size)),
            pool_weight: count(pool_weight.unwrap_or(global.pool_weight)).max(1),
            max_pool_waiting: limit(max_pool_waiting.unwrap_or(global.max_pool_waiting)),
            query_wait_timeout: query_wait_timeout
                .unwrap_or(global.query_wait_timeout)
                .limit(),
            server_lifetime: lifetime.duration(),
            query_timeout: unless_off(login_user.query_timeout, global.query_timeout).limit(),
            transaction_timeout: unless_off(
                login_user.transaction_timeout,
                global.transaction_timeout,
            )
            .limit(),
            idle_transaction_timeout: unless_off(
                login_user.idle_transaction_timeout,
                global.idle_transaction_timeout,
            )
            .limit(),
            client_idle_timeout: unless_off(
                login_user.client_idle_timeout,
                global.client_idle_timeout,
            )
            .limit(),
            max_db_connections: global.part_of(limit_or(
                database.max_db_connections,
                global.max_db_connections,
            )),
            max_db_client_connections: limit_or(
                database.max_db_client_connections,
                global.max_db_client_connections,
            ),
            max_user_connections: global.part_of(limit_or(
                pool_user.max_user_connections,
                global.max_user_connections,
            )),
            max_user_client_connections: limit_or(
                login_user.max_user_client_connections,
                global.max_user_client_connections,
            ),
            leak_after: {
                let set = login_user.leak_after.or(database.leak_after);
                let set = set.unwrap_or(global.leak_after).limit();
                match global.strict {
                    true => set
                        .into_iter()
                        .chain(global.strict_leak_after.limit())
                        .min(),
                    false => set,
                }
            },
            leak_floor: login_user
                .leak_floor
                .or(database.leak_floor)
                .unwrap_or(global.leak_floor)
                .limit(),
            leak_action: login_user
                .leak_action
                .or(database.leak_action)
                .unwrap_or(global.leak_action),
            session_state: login_user
                .session_state
                .or(database.session_state)
                .unwrap_or(global.session_state),
            listen: database.listen.unwrap_or(global.listen),
            listen_buffer: database.listen_buffer.unwrap_or(global.listen_buffer) as usize,
            prepare_unnamed: database.prepare_unnamed.unwrap_or(global.prepare_unnamed),
            state_policy: login_user
                .state_policy
                .clone()
                .or_else(|| database.state_policy.clone())
                .unwrap_or_else(|| global.state_policy.clone()),
            max_pinned: {
                let set = set(database.max_pinned).unwrap_or(global.max_pinned);
                let others = pool_size.map_or(u32::MAX, |size| size.saturating_sub(1));
                count(set).min(others)
            },
            auth_user: database
                .auth_user
                .clone()
                .or_else(|| global.auth_user.clone()),
            auth_query: database
                .auth_query
                .as_ref()
                .unwrap_or(&global.auth_query)
                .clone(),
            auth_dbname: database.auth_dbname.clone().or(auth_dbname),
            load_balance_hosts: database
                .load_balance_hosts
                .unwrap_or(LoadBalanceHosts::RoundRobin),
        }
    }
}

/// A size in an entry: below zero it is not set, and zero is a size.
fn set(own: Option<i32>) -> Option<i32> {
    own.filter(|number| *number >= 0)
}

/// A time in an entry: zero is not set.
fn unless_off(own: Option<Seconds>, global: Seconds) -> Seconds {
    own.filter(|time| !time.is_off()).unwrap_or(global)
}

/// A limit in an entry: zero and less is not set.
fn limit_or(own: Option<i32>, global: i32) -> Option<u32> {
    limit(own.filter(|number| *number > 0).unwrap_or(global))
}

/// A number of which zero and less mean that there is no limit.
fn limit(number: i32) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number > 0)
}

fn count(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Phase;

    fn resolve(text: &str, database: &str, user: &str) -> PoolSettings {
        let mut config = Config::new("a.ini");
        config
            .load(Phase::Start, &mut |_| Ok(text.to_owned()))
            .expect("loads");
        config.resolve(database, user).expect("the database exists")
    }

    #[test]
    fn the_main_section_is_the_last_word() {
        let settings = resolve(
            "[databases]\na =\n[pgbouncer]\npool_mode=statement\n",
            "a",
            "u",
        );
        assert_eq!(settings.pool_mode, PoolMode::Statement);
        assert_eq!(settings.pool_size, Some(20));
        assert_eq!(settings.query_wait_timeout, Some(Duration::from_secs(120)));
        assert_eq!(
            (settings.max_db_connections, settings.query_timeout),
            (None, None)
        );
    }

    #[test]
    fn the_user_goes_before_the_database() {
        let text = "[databases]\n\
            a = pool_mode=session pool_size=2 reserve_pool=3 query_wait_timeout=7\n\
            [users]\nu = pool_mode=transaction pool_size=0 query_wait_timeout=0\n\
            v = query_timeout=5\n[pgbouncer]\nreserve_pool_size = 9\n";
        let settings = resolve(text, "a", "u");
        assert_eq!(settings.pool_mode, PoolMode::Transaction);
        assert_eq!((settings.pool_size, settings.reserve_pool_size), (None, 3));
        assert_eq!(settings.query_wait_timeout, None);
        let settings = resolve(text, "a", "v");
        assert_eq!(
            (settings.pool_mode, settings.pool_size),
            (PoolMode::Session, Some(2))
        );
        assert_eq!(settings.query_wait_timeout, Some(Duration::from_secs(7)));
        assert_eq!(settings.query_timeout, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_forced_user_decides_about_the_pool_and_the_login_user_about_the_client() {
        let text = "[databases]\na = user=forced\n[users]\n\
            forced = pool_size=3 client_idle_timeout=4 max_user_connections=5\n\
            u = pool_size=6 client_idle_timeout=7 max_user_client_connections=8\n[pgbouncer]\n";
        let settings = resolve(text, "a", "u");
        assert_eq!(
            (settings.pool_size, settings.max_user_connections),
            (Some(3), Some(5))
        );
        assert_eq!(settings.client_idle_timeout, Some(Duration::from_secs(7)));
        assert_eq!(settings.max_user_client_connections, Some(8));
    }

    #[test]
    fn negative_sizes_and_zero_limits_are_not_set() {
        let text = "[databases]\n\
            a = pool_size=-1 min_pool_size=-1 max_db_connections=0 server_lifetime=0\n\
            [pgbouncer]\nmin_pool_size = 50\nmax_db_connections = 4\ndefault_pool_size = 6\n";
        let settings = resolve(text, "a", "u");
        assert_eq!((settings.pool_size, settings.min_pool_size), (Some(6), 6));
        assert_eq!(settings.max_db_connections, Some(4));
        assert_eq!(settings.server_lifetime, Duration::from_secs(3600));
    }

    #[test]
    fn databases_and_users_can_be_asked_alone() {
        let text = "[databases]\na = user=u pool_size=4\n[users]\n\
            u = pool_size=3 max_user_connections=5\n[pgbouncer]\nmax_user_connections = 7\n";
        let mut config = Config::new("a.ini");
        config
            .load(Phase::Start, &mut |_| Ok(text.to_owned()))
            .expect("loads");
        assert_eq!(
            config.resolve_database("a").and_then(|s| s.pool_size),
            Some(4)
        );
        assert_eq!(config.resolve_database("b"), None);
        assert_eq!(config.max_user_connections("u"), Some(5));
        assert_eq!(config.max_user_connections("v"), Some(7));
        assert_eq!(config.max_user_client_connections("u"), None);
    }

    #[test]
    fn databases_without_entry_come_from_the_template() {
        let text = "[databases]\n* = host=db1 auth_user=au\n[pgbouncer]\n";
        let mut config = Config::new("a.ini");
        config
            .load(Phase::Start, &mut |_| Ok(text.to_owned()))
            .expect("loads");
        let database = config.database("anything").expect("a template");
        assert_eq!(
            (database.name.as_str(), database.dbname()),
            ("anything", "anything")
        );
        assert_eq!(
            resolve(text, "anything", "u").auth_user.as_deref(),
            Some("au")
        );
        assert_eq!(Config::new("a.ini").resolve("anything", "u"), None);
    }
}
