//! What all tasks share. There is no other state but what a thread keeps for itself: its buffers (`relay`) and its place
//! among the others (`workers`).

mod operator;
mod remainders;
mod routes;
mod rules;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant, SystemTime};

use dashmap::DashMap;
use foldhash::fast::RandomState;
use pgweir_auth::Policy;
use pgweir_config::Config;
use pgweir_net::{Listener, Resolver, TcpKeepalive, TcpOptions};
use pgweir_pool::{PoolName, Pools, SlotId};
use pgweir_session::{StatementTable, Tracked, Values};
use pgweir_stats::{Application, History, Roster, SlowStatements, Totals};
use pgweir_wire::CancelKey;
use tokio::sync::{Notify, Semaphore};

use crate::clients::client::Client;
use crate::clients::credentials::DerivedKeys;
use crate::clients::lot::Lot;
use crate::clients::pam::Pam;
use crate::clients::{ldap, peers};
use crate::process::log::Log;
use crate::process::workers::{self, Workers};
use crate::servers::ears::Ears;
use crate::servers::open::diary::Diary;
use crate::servers::quarantine::Quarantine;
use crate::servers::server::{Server, ServerInfo};
use crate::servers::survey::Facts;
use crate::settings::auth_files::AuthFiles;
use crate::settings::overrides::Overrides;
use crate::settings::tls::Tls;
use crate::settings::{limits, preflight};
use crate::takeover::hold::Standstill;
use crate::watch::backends::Backends;
use crate::watch::census::Census;
use crate::watch::events::Events;
use crate::watch::health::Watch;
use crate::watch::http::Http;
use crate::watch::samples::Samples;
use crate::watch::series::Names;
use crate::watch::strict::Strict;
use crate::watch::{consumers, leaks};

pub(crate) use self::operator::{Hold, Operator, Shutdown};
use self::remainders::Remainders;
use self::routes::Routes;
pub(crate) use self::routes::{PoolHome, Route};
pub(crate) use self::rules::Rules;

/// The pools as this program uses them.
pub(crate) type ServerPools = Pools<Box<Server>, Arc<Client>>;

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
    pub(crate) derived_keys: Arc<DerivedKeys>,
    /// Sockets on which the end of a server is waited for; `None` where it is lost.
    pub(crate) endings: DashMap<SlotId, Option<OwnedFd>>,
    pub(crate) listeners: Mutex<Vec<Arc<Listener>>>,
    /// The clients that have no task, because they have been idle for long.
    pub(crate) lot: Arc<Lot>,
    /// Where clients have their tasks.
    pub(crate) workers: Workers,
    pub(crate) standstill: Standstill,
    /// The connections that listen for clients.
    pub(crate) ears: Mutex<Ears>,
    pub(crate) cancel_lane: Semaphore,
    /// Who may pass a cancel request on to a peer.
    pub(crate) peer_lanes: peers::Lanes,
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
    tls: RwLock<Arc<Tls>>,
    pub(crate) files: RwLock<Arc<AuthFiles>>,
    config: RwLock<Arc<Config>>,
    pools: Mutex<ServerPools>,
    homes: Mutex<HashMap<PoolName, Arc<PoolHome>>>,
    /// Of pools that are gone. Locked with `homes` held.
    remainders: Mutex<Remainders>,
    routes: Mutex<Routes>,
    last_id: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        log: &'static Log,
        config: Config,
        tls: Tls,
        files: AuthFiles,
        process_key: pgweir_auth::ProcessKey,
        lot: Lot,
        workers: Workers,
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
            derived_keys: Arc::default(),
            endings: DashMap::new(),
            listeners: Mutex::new(Vec::new()),
            standstill: Standstill::default(),
            lot: Arc::new(lot),
            workers,
            ears: Mutex::default(),
            cancel_lane: Semaphore::new(config.global.max_cancels.max(1).into()),
            peer_lanes: peers::Lanes::default(),
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
            pools: Mutex::new(ServerPools::of_threads(workers::threads())),
            homes: Mutex::default(),
            remainders: Mutex::default(),
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
        Arc::clone(&read(&self.config))
    }

    /// The pools. Held for a few lines, never across an await.
    pub(crate) fn pools(&self) -> MutexGuard<'_, ServerPools> {
        lock(&self.pools)
    }

    pub(crate) fn files(&self) -> Arc<AuthFiles> {
        Arc::clone(&read(&self.files))
    }

    pub(crate) fn tls(&self) -> Arc<Tls> {
        Arc::clone(&read(&self.tls))
    }

    pub(crate) fn set_tls(&self, tls: Tls) {
        *write(&self.tls) = Arc::new(tls);
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

    /// The record of the server in a slot.
    pub(crate) fn server(&self, slot: SlotId) -> Option<Arc<ServerInfo>> {
        let entry = self.servers.get(&slot.serial())?;
        Some(Arc::clone(entry.value()))
    }

    /// Puts a configuration in force: limits and rules of everything that exists.
    pub(crate) fn set_config(&self, config: Config) {
        *write(&self.config) = Arc::new(config);
        self.apply_limits();
    }

    fn apply_limits(&self) {
        let config = self.config();
        self.log
            .set_verbose(u8::try_from(config.global.verbose).unwrap_or(0));
        limits::apply(&mut self.pools().budget, &config.global);
        self.apply_rules(&config);
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

/// As [`lock`], to read what is seldom changed.
pub(crate) fn read<T>(value: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    value.read().unwrap_or_else(PoisonError::into_inner)
}

/// As [`lock`], to change what is mostly read.
pub(crate) fn write<T>(value: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    value.write().unwrap_or_else(PoisonError::into_inner)
}
