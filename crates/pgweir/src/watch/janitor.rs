//! What has to be looked at from time to time: time limits of clients, upkeep of pools, statistics,
//! files that have changed, and whether a shutdown has come to its end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_config::{Config, ErrorCodes};
use pgweir_pool::view::PoolView;
use pgweir_session::{Deadlines, Expiry, Phase};
use pgweir_stats::LogLine;
use pgweir_wire::SqlState;

use crate::clients::client::Client;
use crate::clients::farewell::Farewell;
use crate::clients::{cancel, credentials, lot, seats};
use crate::operators::maintenance;
use crate::servers::names::{self, ZoneWatch};
use crate::servers::{ears, pins, pools, survey};
use crate::settings::{auth_files, overrides, reload};
use crate::shared::{Hold, Shared, Shutdown, lock};
use crate::watch::totals::{self, DatabaseTotals};
use crate::watch::{backends, consumers, health, leaks, samples};

/// PgBouncer's: three times per second.
const PERIOD: Duration = Duration::from_micros(333_333);

/// Runs for as long as the process does.
pub(crate) async fn run(shared: Arc<Shared>) {
    credentials::derive_ahead(&shared);
    let mut interval = tokio::time::interval(PERIOD);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last_stats = Instant::now();
    let mut watch = leaks::Watch::default();
    let mut zones = ZoneWatch::new(last_stats);
    let mut tried = Vec::new();
    loop {
        interval.tick().await;
        let now = Instant::now();
        if shared.operator.hold() != Hold::Suspended {
            expire_clients(&shared, now);
            zones.tick(&shared, now);
            names::leave_old_addresses(&shared);
            forget_autodbs(&shared, now);
            keep_pools(&shared, now);
            pins::look_after(&shared);
            ears::look_after(&shared);
            lot::look(&shared, now);
            seats::look(&shared, now);
            survey::refresh(&shared, now);
            backends::refresh(&shared, now);
            let populations = consumers::look(&shared, now);
            leaks::look(&shared, &mut watch, &populations, now);
        }
        samples::look(&shared, now);
        health::look(&shared, now);
        maintenance::expire(&shared, now);
        overrides::expire(&shared, now);
        finish_shutdown(&shared);
        let period = u64::try_from(shared.config().global.stats_period)
            .unwrap_or(60)
            .max(1);
        if now.duration_since(last_stats) >= Duration::from_secs(period) {
            last_stats = now;
            take_stats(&shared, now);
        }
        auth_files::follow_when_settled(&shared);
        reload::follow_certificates(&shared, &mut tried);
    }
}

fn expire_clients(shared: &Arc<Shared>, now: Instant) {
    let config = shared.config();
    let draining = shared.operator.shutdown() == Shutdown::WaitForServers;
    for client in &shared.clients {
        let rules = client.route().map(|route| route.rules());
        let config = rules.as_ref().map_or(&config, |rules| &rules.config);
        let deadlines = rules
            .as_ref()
            .map_or_else(|| login_deadlines(config), |r| r.deadlines);
        let (clocks, told, request) = {
            let state = client.state();
            (state.clocks, state.wait_notified, state.request)
        };
        if draining && clocks.phase == Phase::Waiting {
            client.end(Farewell::ServersShuttingDown);
            continue;
        }
        let expired = match client.is_greeted() {
            true => deadlines.expired(&clocks, now),
            false => deadlines.expired_in_login(&clocks, client.connected_at, now),
        };
        match expired {
            None => {}
            Some(Expiry::Query)
                if config.global.error_codes == ErrorCodes::Postgres
                    && cut_short(shared, &client, &deadlines, now) => {}
            Some(expiry) => {
                client.end(Farewell::Expired(expiry));
                continue;
            }
        }
        if clocks.phase == Phase::Login {
            continue;
        }
        let notify_after = u64::try_from(config.global.query_wait_notify).unwrap_or(0);
        let greeted = client.cancel_key.get().is_some();
        if clocks.phase == Phase::Waiting
            && greeted
            && !told
            && notify_after > 0
            && now.duration_since(clocks.since).as_secs() > notify_after
        {
            client.state().wait_notified = true;
            client.notify_wait(request);
        }
        if config.global.server_fast_close || client.replication.get().is_some() {
            close_fast(shared, &client);
        }
    }
}

/// `query_timeout`, in the dialect that has a way to go on: the query is canceled, PostgreSQL says so,
/// and the client keeps its connection. `false` if that has been tried and did not help.
fn cut_short(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    deadlines: &Deadlines,
    now: Instant,
) -> bool {
    let mut state = client.state();
    let begun = state.clocks.query_start.unwrap_or(now);
    // Enough to tell one query of a client from another.
    let query = leaks::millis(client.connected_at, begun) as u32;
    match state.cut_short {
        Some(cut) if cut == query => !deadlines.ignores_cancel(begun, now),
        _ => {
            state.cut_short = Some(query);
            drop(state);
            let (shared, client) = (Arc::clone(shared), Arc::clone(client));
            tokio::spawn(async move {
                let outcome = cancel::cancel(&shared, &client).await;
                tracing::warn!(peer = %client, "query timeout: {outcome}");
            });
            true
        }
    }
}

/// The limits on a client whose own route is not known yet: it may wait for a server all the same (auth_query).
fn login_deadlines(config: &Config) -> Deadlines {
    Deadlines {
        login: config.global.client_login_timeout.limit(),
        query_wait: config.global.query_wait_timeout.limit(),
        query: config.global.query_timeout.limit(),
        ..Deadlines::default()
    }
}

/// `server_fast_close`: a session between two transactions gives up a server whose configuration
/// has changed. A replication client always does, because it might never end by itself.
fn close_fast(shared: &Arc<Shared>, client: &Arc<Client>) {
    let state = client.state();
    let replicates = client.replication.get().is_some();
    let between = state.clocks.phase == Phase::Active && state.clocks.query_start.is_none();
    let slot = state.link;
    drop(state);
    if (between || replicates) && slot.is_some_and(|slot| shared.pools().is_obsolete(slot)) {
        client.end(Farewell::DatabaseChanged);
    }
}

fn keep_pools(shared: &Arc<Shared>, now: Instant) {
    keep_forced_pools(shared);
    let idle_timeout = shared.config().global.pool_idle_timeout.limit();
    let upkeep = {
        let mut pools = shared.pools();
        let upkeep = pools.tick(now, idle_timeout, |server| pools::is_dirty(server));
        if let Err(imbalance) = pools.audit() {
            tracing::error!("the books do not balance: {imbalance}");
        }
        upkeep
    };
    pools::perform(shared, upkeep.actions);
    for id in upkeep.removed {
        if let Some(home) = shared.forget_home(id) {
            let name = &home.name;
            tracing::info!(
                "cleaning up idle pool for user {} on db {} because: pool idle timeout",
                name.user,
                name.database
            );
        }
    }
    shared.end_sums();
}

/// A database with a forced user and `min_pool_size` has its pool before any client comes.
fn keep_forced_pools(shared: &Arc<Shared>) {
    let config = shared.config();
    for (name, database) in &config.databases {
        let Some(user) = &database.keys.user else {
            continue;
        };
        let wanted = config
            .resolve(name, user)
            .is_some_and(|settings| settings.min_pool_size > 0);
        if wanted {
            // There is such a database: the route cannot fail.
            let _ = shared.route(name, user);
        }
    }
}

/// Databases made from `*` are forgotten when nobody has used them for a while, with their pools; where PostgreSQL has
/// no such database, as soon as it may be asked again: clients make up names.
fn forget_autodbs(shared: &Arc<Shared>, now: Instant) {
    let config = shared.config();
    let limit = config.global.autodb_idle_timeout.limit();
    let views = shared.pools().view();
    let is_named = |name: &Arc<str>| config.databases.contains_key(&**name);
    // What is only being opened, to see whether it can be, is no use.
    let is_used = |pool: &&PoolView| pool.clients + pool.waiting + pool.connected() > 0;
    let in_use = views.iter().filter(is_used);
    let used: BTreeSet<_> = in_use.map(|pool| &pool.name.database).collect();
    let retry = config.global.server_login_retry.duration();
    let is_missing = |pool: &&PoolView| {
        pool.failing.as_ref().is_some_and(|(failure, since)| {
            failure.sqlstate == Some(SqlState::INVALID_CATALOG_NAME.0)
                && now.saturating_duration_since(*since) >= retry
        })
    };
    let failing = views.iter().filter(is_missing);
    let missing: BTreeSet<_> = failing.map(|pool| &pool.name.database).collect();
    let mut over = Vec::new();
    {
        let mut autodbs = lock(&shared.autodbs);
        // One of these may have had an entry of its own until now.
        let is_of_star = |name: &Arc<str>| !is_named(name) && config.database(name).is_some();
        for &name in used.iter().filter(|name| is_of_star(name)) {
            autodbs.insert(Arc::clone(name), now);
        }
        autodbs.retain(|name, last_used| {
            if is_named(name) {
                return false;
            }
            let is_young = limit.is_none_or(|limit| now.duration_since(*last_used) <= limit);
            let is_there = used.contains(name) || !missing.contains(name);
            let keep = shared.operator.is_paused(name) || is_young && is_there;
            if !keep {
                log_dropping(name);
                over.push(Arc::clone(name));
            }
            keep
        });
    }
    if !over.is_empty() {
        retire(shared, &over, now);
    }
}

/// Nobody is led to these databases any more as before.
fn retire(shared: &Arc<Shared>, databases: &[Arc<str>], now: Instant) {
    shared.forget_routes(databases);
    for (name, home) in shared.homes() {
        if databases.contains(&name.database) {
            let actions = shared.pools().retire(home.id, now);
            pools::perform(shared, actions);
        }
    }
}

/// A database is configured no more, or was made from `*` and nobody uses it.
pub(crate) fn log_dropping(name: &str) {
    tracing::warn!(
        "dropping database '{name}' as it does not exist anymore or inactive auto-database"
    );
}

fn finish_shutdown(shared: &Arc<Shared>) {
    let done = match shared.operator.shutdown() {
        Shutdown::No | Shutdown::Drain | Shutdown::Now => return,
        Shutdown::WaitForServers => {
            let busy = shared.pools().is_busy(|_| true);
            (!busy).then_some("server connections dropped, exiting")
        }
        Shutdown::WaitForClients => shared
            .clients
            .is_empty()
            .then_some("client connections dropped, exiting"),
    };
    if let Some(text) = done {
        tracing::info!("{text}");
        shared.operator.set_shutdown(Shutdown::Now);
    }
}

fn take_stats(shared: &Arc<Shared>, now: Instant) {
    let DatabaseTotals { by_name, all } = totals::now(shared);
    let mut history = lock(&shared.history);
    history.tick(by_name, all, now);
    let config = shared.config();
    if config.global.log_stats {
        let line = LogLine {
            averages: &history.averages_of_all(&all, now),
            with_logins: config.global.show_login_counts,
        };
        tracing::info!("{line}");
    }
}
