//! What the configuration says about a pool and about a route, worked out once: no query asks the
//! configuration itself.

use std::sync::Arc;
use std::time::Duration;

use pgweir_config::{
    Config, Database, ErrorCodes, Host, PoolMode, PoolSettings, SessionState, TargetSessionAttrs,
};
use pgweir_pool::PoolLimits;
use pgweir_session::{Deadlines, Kinds};

use crate::settings::treatment::Treatment;
use crate::watch::slow;

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
    pub(super) fn new(config: &Arc<Config>, database: &str, login_user: &str) -> Option<Self> {
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

    /// The first of its hosts, as the entry names it; empty if it names none.
    pub(crate) fn first_host(&self) -> &str {
        self.database.hosts().first().map_or("", Host::as_str)
    }

    /// Whose pool a login of this user leads to.
    pub(crate) fn pool_user<'a>(&'a self, login_user: &'a str) -> &'a str {
        self.database.keys.user.as_deref().unwrap_or(login_user)
    }

    /// The limits of a pool of this user.
    pub(crate) fn pool_limits(&self, user: &str) -> PoolLimits {
        let global = &self.config.global;
        let has_check = !global.server_check_query.is_empty();
        // Once the entry forces another user, this one may be able to log in no more, and nobody comes.
        let is_led_to =
            self.pool_user(user) == user || self.settings.auth_user.as_deref() == Some(user);
        PoolLimits {
            size: self.settings.pool_size,
            min: if is_led_to {
                self.settings.min_pool_size
            } else {
                0
            },
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
