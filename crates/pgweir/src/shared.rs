//! What all tasks share. There is no other state: nothing is static.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use pgweir_auth::{Policy, ServerSecret};
use pgweir_config::{
    Config, Database, ErrorCodes, PoolMode, PoolSettings, SessionState, TargetSessionAttrs,
};
use pgweir_net::{Listener, Resolver, TcpKeepalive, TcpOptions};
use pgweir_pool::{Gate, PoolId, PoolLimits, PoolName, Pools, Scope, SlotId};
use pgweir_session::{Deadlines, Kinds, Latest, Memory, StatementTable, Tracked, Values};
use pgweir_stats::{Application, Books, History, Latencies, Norms, Roster, SlowStatements, Totals};
use pgweir_wire::CancelKey;
use tokio::sync::{Notify, Semaphore};

use crate::auth_files::AuthFiles;
use crate::backends::Backends;
use crate::census::Census;
use crate::client::Client;
use crate::credentials::DerivedKeys;
use crate::ears::Ears;
use crate::events::Events;
use crate::health::Watch;
use crate::http::Http;
use crate::log::Log;
use crate::lot::Lot;
use crate::maintenance::Maintenance;
use crate::open::diary::Diary;
use crate::open::source::Kept;
use crate::overrides::Overrides;
use crate::pam::Pam;
use crate::pins::Pins;
use crate::quarantine::Quarantine;
use crate::rds::Rds;
use crate::samples::Samples;
use crate::series::{Names, Series, SeriesTimes};
use crate::server::{Server, ServerInfo};
use crate::strict::Strict;
use crate::survey::Facts;
use crate::takeover::hold::Held;
use crate::tls::Tls;
use crate::treatment::Treatment;
use crate::welcome::Welcome;
use crate::{consumers, ldap, leaks, limits, preflight, slow};

/// The pools as this program uses them.
pub(crate) type ServerPools = Pools<Box<Server>, Arc<Client>>;

/// Routes by database, and then by login user.
type Routes = HashMap<Arc<str>, HashMap<Arc<str>, Arc<Route>, RandomState>, RandomState>;

/// Everything that is shared.
pub(crate) struct Shared {
    pub(crate) log: &'static Log,
    pub(crate) clients: DashMap<u64, Arc<Client>, RandomState>,
    pub(crate) cancel_keys: DashMap<CancelKey, Arc<Client>, RandomState>,
    /// Servers by the serial of their slot, from before they are connected.
    pub(crate) servers: DashMap<u64, Arc<ServerInfo>, RandomState>,
    pub(crate) statements: StatementTable,
    pub(crate) tracked: Tracked,
    pub(crate) resolver: Resolver,
    pub(crate) derived_keys: DerivedKeys,
    /// Sockets on which the end of a server is waited for; `None` where it is lost.
    pub(crate) endings: DashMap<SlotId, Option<OwnedFd>>,
    pub(crate) listeners: Mutex<Vec<Arc<Listener>>>,
    /// The clients that have no task, because they have been idle for long.
    pub(crate) lot: Arc<Lot>,
    pub(crate) held: Held,
    /// The connections that listen for clients.
    pub(crate) ears: Mutex<Ears>,
    pub(crate) cancel_lane: Semaphore,
    /// Who may ask PostgreSQL something on a connection of the pooler's own.
    pub(crate) control_lane: Semaphore,
    /// Steps of the openings that somebody wants to read about, by the id of the client they are for.
    pub(crate) diaries: Mutex<HashMap<u64, Diary>>,
    pub(crate) census: Mutex<Census>,
    /// What PostgreSQL says of its own limits.
    pub(crate) facts: Mutex<Facts>,
    /// Whose PostgreSQL's connections are.
    pub(crate) backends: Mutex<Backends>,
    /// Who is suspected of a leak.
    pub(crate) leaks: Mutex<leaks::All>,
    /// Who uses how much.
    pub(crate) consumers: Mutex<consumers::All>,
    /// How the pools stood lately.
    pub(crate) samples: Mutex<Samples>,
    pub(crate) preflight_said: Mutex<preflight::Said>,
    pub(crate) ldap_lane: Semaphore,
    pub(crate) pam: Pam,
    /// Rung when something ended that a PAUSE, WAIT_CLOSE or SHUTDOWN may be waiting for.
    pub(crate) ended: Notify,
    pub(crate) process_key: pgweir_auth::ProcessKey,
    pub(crate) started_at: Instant,
    pub(crate) started_on: SystemTime,
    pub(crate) history: Mutex<History<Arc<str>>>,
    pub(crate) http: Http,
    pub(crate) health: Watch,
    /// What is counted by name.
    pub(crate) events: Mutex<Events>,
    /// What is kept by application.
    pub(crate) applications: Mutex<Roster<Application>>,
    /// Of those the one for all that have nothing of their own.
    pub(crate) other_application: Arc<Application>,
    /// Statements that took long.
    pub(crate) slow: Mutex<SlowStatements>,
    /// What a strict run has found, if this is one.
    pub(crate) strict: Option<Box<Strict>>,
    /// Names in the metrics.
    pub(crate) names: Mutex<Names>,
    /// Counters of the console's own pool.
    pub(crate) console_totals: Totals,
    /// Databases that were made from the `*` entry.
    pub(crate) autodbs: Mutex<BTreeMap<Arc<str>, Instant>>,
    pub(crate) operator: Operator,
    /// Held while the configuration is being changed.
    pub(crate) overrides: Mutex<Overrides>,
    pub(crate) quarantine: Quarantine,
    pub(crate) tls: RwLock<Arc<Tls>>,
    pub(crate) files: RwLock<Arc<AuthFiles>>,
    config: RwLock<Arc<Config>>,
    pools: Mutex<ServerPools>,
    homes: Mutex<HashMap<PoolName, Arc<PoolHome>>>,
    routes: Mutex<Routes>,
    last_id: AtomicU64,
}

/// What an operator has ordered and not taken back.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    paused_all: AtomicU8,
    shutdown: AtomicU8,
    pub(crate) paused: Mutex<HashSet<String>>,
    pub(crate) disabled: Mutex<HashSet<String>>,
    pub(crate) maintenance: Mutex<BTreeMap<String, Maintenance>>,
    /// Databases whose clients are being sent away.
    pub(crate) draining: Mutex<HashSet<String>>,
    /// Rung when the listeners have to close or pause, or the process has to end.
    pub(crate) changed: Notify,
}

/// How far the process is on its way out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Shutdown {
    /// Not at all.
    No,
    /// It ends when no server is lent any more.
    WaitForServers,
    /// It ends when no client is left.
    WaitForClients,
    /// The same, and clients are being sent away.
    Drain,
    /// It ends.
    Now,
}

/// Whether the whole pooler is held back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Hold {
    /// No.
    None,
    /// PAUSE.
    Paused,
    /// SUSPEND.
    Suspended,
}

impl Operator {
    pub(crate) fn shutdown(&self) -> Shutdown {
        match self.shutdown.load(Ordering::Acquire) {
            0 => Shutdown::No,
            1 => Shutdown::WaitForServers,
            2 => Shutdown::WaitForClients,
            3 => Shutdown::Drain,
            _ => Shutdown::Now,
        }
    }

    pub(crate) fn set_shutdown(&self, shutdown: Shutdown) {
        self.shutdown.store(shutdown as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn hold(&self) -> Hold {
        match self.paused_all.load(Ordering::Acquire) {
            0 => Hold::None,
            1 => Hold::Paused,
            _ => Hold::Suspended,
        }
    }

    pub(crate) fn set_hold(&self, hold: Hold) {
        self.paused_all.store(hold as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_paused(&self, database: &str) -> bool {
        self.hold() == Hold::Paused || lock(&self.paused).contains(database)
    }

    pub(crate) fn is_disabled(&self, database: &str) -> bool {
        lock(&self.disabled).contains(database)
    }
}

/// What the shell keeps for a pool beside the pool's own books.
#[derive(Debug)]
pub(crate) struct PoolHome {
    pub(crate) id: PoolId,
    pub(crate) name: PoolName,
    pub(crate) totals: Totals,
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
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
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
    /// What the last of them counted in.
    pub(crate) scopes: Mutex<Option<Arc<Vec<Scope>>>>,
}

impl Route {
    /// What holds for its clients now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// As [`Self::rules`], in place of rules that mostly are the same.
    #[inline]
    pub(crate) fn refresh(&self, rules: &mut Arc<Rules>) {
        let now = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(rules, &now) {
            *rules = Arc::clone(&now);
        }
    }
}

/// What the configuration says about a pool, or about clients of one login user in it.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) config: Arc<Config>,
    pub(crate) database: Database,
    pub(crate) settings: PoolSettings,
    pub(crate) deadlines: Deadlines,
    /// `max_prepared_statements`, where statements are mapped at all.
    pub(crate) max_prepared: Option<usize>,
    /// `max_packet_size`, which counts a message's tag as well.
    pub(crate) max_message: u32,
    /// `disable_pqexec`.
    pub(crate) refuses_queries: bool,
    /// `error_codes = postgres`
    pub(crate) answers_as_postgres: bool,
    /// Whether `server_reset_query` is due after every transaction.
    pub(crate) resets_always: bool,
    /// `session_state`, where neither the pool mode nor `server_reset_query_always` sees to it.
    pub(crate) keeps_private: bool,
    /// `state_policy`, and whether the run is a strict one
    pub(crate) treatment: Treatment,
    /// Kinds of state that statements may have to answer for before they run.
    pub(crate) judged: Kinds,
    /// `state_trust`
    pub(crate) state_trust: Duration,
    /// Microseconds from which on a statement is slow.
    pub(crate) slow_us: u64,
}

impl Rules {
    fn new(config: &Arc<Config>, database: &str, login_user: &str) -> Option<Self> {
        let settings = config.resolve(database, login_user)?;
        let database = config.database(database)?.into_owned();
        let deadlines = Deadlines {
            login: config.global.client_login_timeout.limit(),
            idle: settings.client_idle_timeout,
            query_wait: settings.query_wait_timeout,
            query: settings.query_timeout,
            transaction: settings.transaction_timeout,
            idle_transaction: settings.idle_transaction_timeout,
        };
        let max_prepared = usize::try_from(config.global.max_prepared_statements)
            .ok()
            .filter(|&max| max > 0 && settings.pool_mode != PoolMode::Session);
        let global = &config.global;
        let resets_always =
            global.server_reset_query_always && !global.server_reset_query.is_empty();
        let treatment = Treatment::new(&settings.state_policy, global.strict);
        Some(Self {
            keeps_private: (settings.session_state == SessionState::Private || global.strict)
                && settings.pool_mode != PoolMode::Session
                && !resets_always,
            judged: treatment.judged(),
            treatment,
            state_trust: global.state_trust.duration(),
            slow_us: slow::threshold_us(global),
            config: Arc::clone(config),
            database,
            settings,
            deadlines,
            max_prepared,
            max_message: global.max_packet_size.saturating_sub(1),
            refuses_queries: global.disable_pqexec,
            answers_as_postgres: global.error_codes == ErrorCodes::Postgres,
            resets_always,
        })
    }

    /// Where its servers lead, and what they are there. Two that say the same are alike.
    pub(crate) fn destination(&self) -> String {
        let database = &self.database;
        let parameters: Vec<_> = database.startup_parameters().collect();
        // An earlier version does not know the key, and its servers are those of `any`.
        let wanted = match database.target_session_attrs() {
            TargetSessionAttrs::Any => String::new(),
            other => format!(" ({})", other.word()),
        };
        format!(
            "{:?}:{}{wanted}/{} as {:?} with {parameters:?} and {:?}",
            database.hosts(),
            database.port(),
            database.dbname(),
            database.keys.user,
            database.keys.connect_query,
        )
    }

    pub(crate) fn pool_limits(&self) -> PoolLimits {
        let global = &self.config.global;
        let has_check = !global.server_check_query.is_empty();
        PoolLimits {
            size: self.settings.pool_size,
            min: self.settings.min_pool_size,
            min_without_clients: self.database.keys.user.is_some(),
            reserve: self.settings.reserve_pool_size,
            reserve_after: global.reserve_pool_timeout.limit(),
            lifetime: Some(self.settings.server_lifetime),
            idle_timeout: global.server_idle_timeout.limit(),
            login_retry: global.server_login_retry.duration(),
            check_after: has_check.then(|| global.server_check_delay.duration()),
            round_robin: global.server_round_robin,
            weight: self.settings.pool_weight,
            max_waiting: self.settings.max_pool_waiting,
            wait_target: global.query_wait_target.limit(),
            down_timeout: global.server_down_timeout.limit(),
        }
    }
}

/// A login that leads nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NoSuchDatabase;

impl Shared {
    pub(crate) fn new(
        log: &'static Log,
        config: Config,
        tls: Tls,
        files: AuthFiles,
        process_key: pgweir_auth::ProcessKey,
        lot: Lot,
    ) -> Self {
        let now = Instant::now();
        let tracked = Tracked::new(config.global.track_extra_parameters.iter());
        let resolv_conf = Some(config.global.resolv_conf.as_str()).filter(|path| !path.is_empty());
        let applications = Roster::<Application>::default();
        let shared = Self {
            log,
            clients: DashMap::default(),
            cancel_keys: DashMap::default(),
            servers: DashMap::default(),
            statements: StatementTable::default(),
            tracked,
            resolver: Resolver::new(resolv_conf.map(Path::new)),
            derived_keys: DerivedKeys::default(),
            endings: DashMap::new(),
            listeners: Mutex::new(Vec::new()),
            held: Held::default(),
            lot: Arc::new(lot),
            ears: Mutex::default(),
            cancel_lane: Semaphore::new(config.global.max_cancels.max(1).into()),
            control_lane: Semaphore::new(1),
            diaries: Mutex::default(),
            census: Mutex::new(Census::default()),
            facts: Mutex::new(Facts::default()),
            backends: Mutex::default(),
            leaks: Mutex::default(),
            consumers: Mutex::default(),
            samples: Mutex::default(),
            preflight_said: Mutex::default(),
            ldap_lane: Semaphore::new(ldap::LOGINS_MAX),
            pam: Pam::default(),
            ended: Notify::new(),
            process_key,
            started_at: now,
            started_on: SystemTime::now(),
            history: Mutex::new(History::new(now)),
            http: Http::new(now),
            health: Watch::default(),
            events: Mutex::default(),
            other_application: applications.other(),
            applications: Mutex::new(applications),
            slow: Mutex::default(),
            strict: Strict::of(&config.global),
            names: Mutex::default(),
            console_totals: Totals::default(),
            autodbs: Mutex::new(BTreeMap::new()),
            operator: Operator::default(),
            overrides: Mutex::new(Overrides::default()),
            quarantine: Quarantine::default(),
            tls: RwLock::new(Arc::new(tls)),
            files: RwLock::new(Arc::new(files)),
            config: RwLock::new(Arc::new(config)),
            pools: Mutex::new(ServerPools::default()),
            homes: Mutex::default(),
            routes: Mutex::default(),
            last_id: AtomicU64::new(0),
        };
        shared.apply_limits();
        shared
    }

    /// A number for a new client or server; they share one sequence.
    pub(crate) fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The pools. Held for a few lines, never across an await.
    pub(crate) fn pools(&self) -> MutexGuard<'_, ServerPools> {
        lock(&self.pools)
    }

    pub(crate) fn files(&self) -> Arc<AuthFiles> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn tls(&self) -> Arc<Tls> {
        Arc::clone(&self.tls.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What belongs to the application that a client is of now.
    pub(crate) fn application(&self, client: &Client, now: Instant) -> Arc<Application> {
        let name = Arc::clone(&client.state().application_name);
        lock(&self.applications).of(&name, now)
    }

    /// What a session is called, as tables show it.
    pub(crate) fn application_name<'a>(&self, values: &'a Values) -> Option<&'a Arc<str>> {
        let index = self.tracked.index("application_name")?;
        values.get(index)
    }

    /// What clients' logins are measured against.
    pub(crate) fn auth_policy(&self) -> Policy {
        let iterations = u32::try_from(self.config().global.scram_iterations).ok();
        let iterations = iterations
            .and_then(std::num::NonZeroU32::new)
            .and_then(|count| pgweir_auth::Iterations::new(count).ok());
        Policy {
            process_key: self.process_key.clone(),
            scram_iterations: iterations.unwrap_or(pgweir_auth::Iterations::DEFAULT),
            unknown_looks_like: self.files().commonest_kind(),
        }
    }

    /// Where a login of `user` to `database` leads.
    pub(crate) fn route(&self, database: &str, user: &str) -> Result<Arc<Route>, NoSuchDatabase> {
        let known = |routes: &Routes| routes.get(database)?.get(user).map(Arc::clone);
        if let Some(route) = known(&lock(&self.routes)) {
            return Ok(route);
        }
        let (database_name, user_name) = self.names(database, user);
        let config = self.config();
        let rules = Rules::new(&config, database, user).ok_or(NoSuchDatabase)?;
        let pool_user = rules.database.keys.user.as_deref().unwrap_or(user);
        let home = self.pool(database, pool_user)?;
        let route = Arc::new(Route {
            database: database_name,
            user: user_name,
            home,
            rules: RwLock::new(Arc::new(rules)),
            latest: Mutex::default(),
            scopes: Mutex::default(),
        });
        let mut routes = lock(&self.routes);
        let users = routes.entry(Arc::clone(&route.database)).or_default();
        users.insert(Arc::clone(&route.user), Arc::clone(&route));
        Ok(route)
    }

    /// The pool of this user in a database, whomever its entry forces upon clients.
    pub(crate) fn pool(&self, database: &str, user: &str) -> Result<Arc<PoolHome>, NoSuchDatabase> {
        let config = self.config();
        let name = PoolName {
            database: database.into(),
            user: user.into(),
        };
        let home = self.home(&name, &config).ok_or(NoSuchDatabase)?;
        if !config.databases.contains_key(database) {
            let mut autodbs = lock(&self.autodbs);
            if autodbs.insert(name.database, Instant::now()).is_none() {
                tracing::info!("registered new auto-database: {database}");
            }
        }
        Ok(home)
    }

    /// The names of a database and a user, sharing the memory of others that lead there.
    pub(crate) fn names(&self, database: &str, user: &str) -> (Arc<str>, Arc<str>) {
        let routes = lock(&self.routes);
        match routes.get_key_value(database) {
            None => (database.into(), user.into()),
            Some((database, users)) => {
                let known = users.get_key_value(user).map(|(user, _)| Arc::clone(user));
                (Arc::clone(database), known.unwrap_or_else(|| user.into()))
            }
        }
    }

    /// The pool of this name, made if it is not there.
    pub(crate) fn home(&self, name: &PoolName, config: &Arc<Config>) -> Option<Arc<PoolHome>> {
        let mut homes = lock(&self.homes);
        if let Some(home) = homes.get(name) {
            return Some(Arc::clone(home));
        }
        let rules = Rules::new(config, &name.database, &name.user)?;
        let gate = match self.operator.gate(&name.database) {
            Gate::Held if self.held.awaits_logins() => Gate::Open,
            gate => gate,
        };
        let id = {
            let mut pools = self.pools();
            let scopes = || limits::scopes(name, &rules);
            let id = pools.ensure(name, scopes, rules.pool_limits(), gate, Instant::now());
            limits::apply_to_pool(&mut pools, id, name, &rules);
            id
        };
        let (series, times) = {
            let mut names = lock(&self.names);
            let series = names.give(name, config);
            let times = names.times(&series);
            (series, times)
        };
        let home = Arc::new(PoolHome {
            id,
            name: name.clone(),
            totals: Totals::default(),
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

    /// The record of the server in a slot.
    pub(crate) fn server(&self, slot: SlotId) -> Option<Arc<ServerInfo>> {
        let entry = self.servers.get(&slot.serial())?;
        Some(Arc::clone(entry.value()))
    }

    /// Every pool, by name.
    pub(crate) fn homes(&self) -> BTreeMap<PoolName, Arc<PoolHome>> {
        let homes = lock(&self.homes);
        homes
            .iter()
            .map(|(name, home)| (name.clone(), Arc::clone(home)))
            .collect()
    }

    /// Forgets a pool that [`Pools`] has removed.
    pub(crate) fn forget_home(&self, id: PoolId) -> Option<Arc<PoolHome>> {
        lock(&self.routes).retain(|_, users| {
            users.retain(|_, route| route.home.id != id);
            !users.is_empty()
        });
        let mut homes = lock(&self.homes);
        let name = homes
            .iter()
            .find(|(_, home)| home.id == id)
            .map(|(name, _)| name.clone())?;
        let home = homes.remove(&name)?;
        lock(&self.names).take_back(&home.series);
        Some(home)
    }

    /// Puts a configuration in force: limits and rules of everything that exists.
    pub(crate) fn set_config(&self, config: Config) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
        self.apply_limits();
    }

    fn apply_limits(&self) {
        let config = self.config();
        self.log
            .set_verbose(u8::try_from(config.global.verbose).unwrap_or(0));
        limits::apply(&mut self.pools().budget, &config.global);
        lock(&self.routes).retain(|database, users| {
            users.retain(|user, route| {
                let Some(rules) = Rules::new(&config, database, user) else {
                    return false;
                };
                *route.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
                // A changed forced user leads elsewhere: the next login makes a new route.
                Arc::strong_count(route) > 1
            });
            !users.is_empty()
        });
        for home in self.homes().into_values() {
            let Some(rules) = Rules::new(&config, &home.name.database, &home.name.user) else {
                continue;
            };
            limits::apply_to_pool(&mut self.pools(), home.id, &home.name, &rules);
            *home.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        }
    }

    /// The options for a new TCP connection.
    pub(crate) fn tcp_options(&self) -> TcpOptions {
        let global = &self.config().global;
        let seconds = |value: i32| {
            u64::try_from(value)
                .ok()
                .filter(|&s| s > 0)
                .map(Duration::from_secs)
        };
        TcpOptions {
            keepalive: global.tcp_keepalive.then(|| TcpKeepalive {
                idle: seconds(global.tcp_keepidle),
                interval: seconds(global.tcp_keepintvl),
                count: u32::try_from(global.tcp_keepcnt)
                    .ok()
                    .filter(|&count| count > 0),
            }),
            user_timeout: u64::try_from(global.tcp_user_timeout)
                .ok()
                .filter(|&ms| ms > 0)
                .map(Duration::from_millis),
            socket_buffer: usize::try_from(global.tcp_socket_buffer).unwrap_or(0),
        }
    }
}

/// Locks a mutex that guards a plain value: a panic elsewhere cannot have left it half changed in
/// a way that matters more than going on.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
