//! Where logins lead: the routes, the pools at their ends, and how both are found, made and forgotten.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock, Weak};
use std::time::Instant;

use foldhash::fast::RandomState;
use pgweir_auth::ServerSecret;
use pgweir_config::Config;
use pgweir_pool::{Gate, PoolId, PoolName};
use pgweir_session::{Latest, Memory};
use pgweir_stats::{Application, Books, Latencies, Norms, Totals};

use super::{Rules, Shared, lock, read, write};
use crate::clients::client::{Client, TaskOrder};
use crate::clients::underway::Underway;
use crate::clients::welcome::Welcome;
use crate::servers::open::diary::Diary;
use crate::servers::open::source::Kept;
use crate::servers::pins::Pins;
use crate::servers::rds::Rds;
use crate::settings::limits;
use crate::watch::series::{Series, SeriesTimes};

/// By login user.
type Users = HashMap<Arc<str>, Arc<Route>, RandomState>;

/// All routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// Those that logins take, by database, and then by login user.
    known: HashMap<Arc<str>, Users, RandomState>,
    /// Those that only clients take that have come by them.
    left: Vec<Weak<Route>>,
}

impl Routes {
    fn find(&self, database: &str, user: &str) -> Option<Arc<Route>> {
        self.known.get(database)?.get(user).map(Arc::clone)
    }

    /// Works out anew what holds for each, and leaves those that the configuration does not lead along any
    /// more: the next login makes a new one.
    fn apply(&mut self, config: &Arc<Config>) {
        let Self { known, left } = self;
        left.retain(|route| {
            route.upgrade().is_some_and(|route| {
                route.apply(config);
                true
            })
        });
        known.retain(|_, users| {
            users.retain(|_, route| {
                let holds = route.apply(config);
                if !holds {
                    route.is_left.store(true, Ordering::Release);
                    left.push(Arc::downgrade(route));
                }
                holds && Arc::strong_count(route) > 1
            });
            !users.is_empty()
        });
    }
}

/// What the shell keeps for a pool beside the pool's own books.
#[derive(Debug)]
pub(crate) struct PoolHome {
    pub(crate) id: PoolId,
    pub(crate) name: PoolName,
    pub(crate) totals: Totals,
    /// Cancel requests for its clients.
    pub(crate) cancels: Underway,
    pub(crate) latencies: Latencies,
    /// How long waits and logins took. Pools without a name in the metrics share it.
    pub(crate) times: Arc<SeriesTimes>,
    /// What it is called in the metrics.
    pub(crate) series: Series,
    pub(crate) rules: RwLock<Arc<Rules>>,
    /// What a server of this pool says of itself at login.
    pub(crate) welcome: Mutex<Option<Arc<Welcome>>>,
    /// What the pool's user can log in with, as far as clients have taught us.
    pub(crate) secret: Mutex<Option<ServerSecret>>,
    /// What PostgreSQL has taken the last time.
    pub(crate) proven_secret: Mutex<Option<ServerSecret>>,
    /// What the command of its `password_from` has written.
    pub(crate) password_command: Kept,
    /// What makes its tokens, if it has such.
    pub(crate) rds: Rds,
    /// Which host or address is next.
    pub(crate) turn: AtomicUsize,
    /// Hosts that were not what `target_session_attrs` asks for, or not to be reached, and when.
    pub(crate) passed_over: Mutex<HashMap<String, Instant>>,
    /// What statements leave in a session.
    pub(crate) memory: Mutex<Memory>,
    /// Servers that stay with a client between its transactions.
    pub(crate) pins: Mutex<Pins>,
    /// How long its statements normally take.
    pub(crate) norms: Mutex<Norms>,
    /// The last attempt to open a server that failed, and when it did.
    pub(crate) last_failure: Mutex<Option<(Instant, Diary)>>,
}

impl PoolHome {
    /// What the times of a client of this application are recorded in.
    pub(crate) fn books<'a>(&'a self, application: &'a Application) -> Books<'a> {
        Books {
            pool: &self.latencies,
            application,
        }
    }

    /// What holds for its servers now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&read(&self.rules))
    }
}

/// Where a login as a user to a database leads.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) database: Arc<str>,
    /// The login user.
    pub(crate) user: Arc<str>,
    pub(crate) home: Arc<PoolHome>,
    rules: RwLock<Arc<Rules>>,
    /// The parameters that its clients came with lately.
    pub(crate) latest: Mutex<Latest>,
    is_left: AtomicBool,
}

impl Route {
    /// What holds for its clients now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&read(&self.rules))
    }

    /// As [`Self::rules`], in place of rules that mostly are the same.
    #[inline]
    pub(crate) fn refresh(&self, rules: &mut Arc<Rules>) {
        let now = read(&self.rules);
        if !Arc::ptr_eq(rules, &now) {
            *rules = Arc::clone(&now);
        }
    }

    /// Whether logins do not take it any more since a RELOAD: the entry of the database forces another user,
    /// or is gone. Its clients go over to the new one whenever they have no server.
    #[inline]
    pub(crate) fn is_left(&self) -> bool {
        self.is_left.load(Ordering::Acquire)
    }

    /// Takes over what the configuration says. Whether its login still leads to its pool.
    fn apply(&self, config: &Arc<Config>) -> bool {
        let Some(rules) = Rules::new(config, &self.database, &self.user) else {
            return false;
        };
        let holds = rules.pool_user(&self.user) == &*self.home.name.user;
        *write(&self.rules) = Arc::new(rules);
        holds
    }
}

/// A login that leads nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoSuchDatabase;

impl Shared {
    /// Where a login of `user` to `database` leads.
    pub(crate) fn route(&self, database: &str, user: &str) -> Result<Arc<Route>, NoSuchDatabase> {
        loop {
            if let Some(route) = lock(&self.routes).find(database, user) {
                return Ok(route);
            }
            let config = self.config();
            let route = self.new_route(&config, database, user)?;
            if let Some(route) = self.enter_route(route, &config) {
                return Ok(route);
            }
        }
    }

    fn new_route(
        &self,
        config: &Arc<Config>,
        database: &str,
        user: &str,
    ) -> Result<Route, NoSuchDatabase> {
        let (database_name, user_name) = self.names(database, user);
        let rules = Rules::new(config, database, user).ok_or(NoSuchDatabase)?;
        let home = self.pool(database, rules.pool_user(user))?;
        Ok(Route {
            database: database_name,
            user: user_name,
            home,
            rules: RwLock::new(Arc::new(rules)),
            latest: Mutex::default(),
            is_left: AtomicBool::new(false),
        })
    }

    /// Makes it the route of its login, unless another thread has made one: then that is it. `None` if the
    /// configuration that it follows is in force no more, or its pool has been forgotten.
    fn enter_route(&self, route: Route, config: &Arc<Config>) -> Option<Arc<Route>> {
        let mut routes = lock(&self.routes);
        // Whoever puts another one in force looks at all routes after that, and so finds this one.
        if !Arc::ptr_eq(config, &self.config()) || !self.knows(&route.home) {
            return None;
        }
        let users = routes.known.entry(Arc::clone(&route.database));
        let users = users.or_default();
        let entered = users.entry(Arc::clone(&route.user));
        Some(Arc::clone(entered.or_insert_with(|| Arc::new(route))))
    }

    fn knows(&self, home: &Arc<PoolHome>) -> bool {
        let homes = lock(&self.homes);
        homes
            .get(&home.name)
            .is_some_and(|known| Arc::ptr_eq(known, home))
    }

    /// The pool of this user in a database, whomever its entry forces upon clients.
    pub(crate) fn pool(&self, database: &str, user: &str) -> Result<Arc<PoolHome>, NoSuchDatabase> {
        let config = self.config();
        let name = PoolName {
            database: database.into(),
            user: user.into(),
        };
        let home = self.home(&name).ok_or(NoSuchDatabase)?;
        if !config.databases.contains_key(database) {
            let mut autodbs = lock(&self.autodbs);
            if autodbs.insert(name.database, Instant::now()).is_none() {
                tracing::info!("registered new auto-database: {database}");
            }
        }
        self.pools().revive(home.id);
        Ok(home)
    }

    /// The names of a database and a user, sharing the memory of others that lead there.
    pub(crate) fn names(&self, database: &str, user: &str) -> (Arc<str>, Arc<str>) {
        let routes = lock(&self.routes);
        match routes.known.get_key_value(database) {
            None => (database.into(), user.into()),
            Some((database, users)) => {
                let known = users.get_key_value(user).map(|(user, _)| Arc::clone(user));
                (Arc::clone(database), known.unwrap_or_else(|| user.into()))
            }
        }
    }

    /// The pool of this name, made if it is not there.
    fn home(&self, name: &PoolName) -> Option<Arc<PoolHome>> {
        let mut homes = lock(&self.homes);
        if let Some(home) = homes.get(name) {
            return Some(Arc::clone(home));
        }
        // Whoever puts another one in force looks at all pools after that, and so finds this one.
        let config = self.config();
        let rules = Rules::new(&config, &name.database, &name.user)?;
        let id = {
            let facts = lock(&self.facts);
            let mut pools = self.pools();
            // An order goes to all pools after it has been given, and so to this one.
            let gate = match self.operator.gate(&name.database) {
                Gate::Held if self.standstill.awaits_logins() => Gate::Open,
                gate => gate,
            };
            let scopes = || limits::scopes(name, &rules);
            let id = pools.ensure(
                name,
                scopes,
                rules.pool_limits(&name.user),
                gate,
                Instant::now(),
            );
            limits::apply_to_pool(&mut pools, id, name, &rules, &facts);
            id
        };
        let (series, times) = {
            let mut names = lock(&self.names);
            let series = names.give(name, &config);
            let times = names.times(&series);
            (series, times)
        };
        let home = Arc::new(PoolHome {
            id,
            name: name.clone(),
            totals: Totals::default(),
            cancels: Underway::default(),
            latencies: Latencies::default(),
            times,
            series,
            rules: RwLock::new(Arc::new(rules)),
            welcome: Mutex::new(None),
            secret: Mutex::new(None),
            proven_secret: Mutex::new(None),
            password_command: Kept::default(),
            rds: Rds::default(),
            turn: AtomicUsize::new(0),
            passed_over: Mutex::default(),
            memory: Mutex::default(),
            pins: Mutex::default(),
            norms: Mutex::default(),
            last_failure: Mutex::new(None),
        });
        homes.insert(name.clone(), Arc::clone(&home));
        Some(home)
    }

    /// Every pool, by name.
    pub(crate) fn homes(&self) -> BTreeMap<PoolName, Arc<PoolHome>> {
        let homes = lock(&self.homes);
        homes
            .iter()
            .map(|(name, home)| (name.clone(), Arc::clone(home)))
            .collect()
    }

    /// The pool of this number, unless it has been removed.
    pub(crate) fn home_of(&self, id: PoolId) -> Option<Arc<PoolHome>> {
        let homes = lock(&self.homes);
        homes.values().find(|home| home.id == id).map(Arc::clone)
    }

    /// Leads nobody to these databases as before: the next login finds its way anew.
    pub(crate) fn forget_routes(&self, databases: &[Arc<str>]) {
        let mut routes = lock(&self.routes);
        routes
            .known
            .retain(|database, _| !databases.contains(database));
    }

    /// Forgets a pool that [`Pools`](pgweir_pool::Pools) has removed.
    pub(crate) fn forget_home(&self, id: PoolId) -> Option<Arc<PoolHome>> {
        let home = {
            let mut homes = lock(&self.homes);
            let name = homes
                .iter()
                .find(|(_, home)| home.id == id)
                .map(|(name, _)| name.clone())?;
            let home = homes.remove(&name)?;
            lock(&self.remainders).add(&home);
            home
        };
        // After the pool, so that no route to it is entered later.
        lock(&self.routes).known.retain(|_, users| {
            users.retain(|_, route| {
                let stays = route.home.id != id;
                // Whoever has come by it at the last moment finds another.
                route.is_left.fetch_or(!stays, Ordering::AcqRel);
                stays
            });
            !users.is_empty()
        });
        lock(&self.names).take_back(&home.series);
        Some(home)
    }

    /// Works out anew what holds for every route and every pool.
    pub(super) fn apply_rules(&self, config: &Arc<Config>) {
        let is_any_left = {
            let mut routes = lock(&self.routes);
            routes.apply(config);
            !routes.left.is_empty()
        };
        for home in self.homes().into_values() {
            let Some(rules) = Rules::new(config, &home.name.database, &home.name.user) else {
                continue;
            };
            let facts = lock(&self.facts);
            limits::apply_to_pool(&mut self.pools(), home.id, &home.name, &rules, &facts);
            drop(facts);
            *write(&home.rules) = Arc::new(rules);
        }
        if is_any_left {
            let clients = self.clients.iter();
            let came_by_it = |client: &Client| client.route().is_some_and(|route| route.is_left());
            clients
                .filter(|client| came_by_it(client))
                .for_each(|client| client.order(TaskOrder::Reroute));
        }
    }
}

#[cfg(test)]
mod tests;
