//! What pgbouncer_exporter shows, under its names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pgweir_config::CONSOLE_DATABASE;
use pgweir_console::tables::{DatabaseRow, ListCounts, PoolRow};
use pgweir_session::Phase;
use pgweir_stats::metrics::{
    CONFIG_CLIENTS, CONFIG_USER, DATABASES, EXPORTER_CLIENTS, LEGACY_STATS, LEGACY_STATS_PREFIX,
    LISTS, POOLS, STATS_PREFIX, UP, VERSION_INFO,
};
use pgweir_stats::prometheus::{Kind, Page, seconds};
use pgweir_stats::{COUNTERS, Snapshot, Unit};

use crate::clients::client::Client;
use crate::operators::show;
use crate::shared::{Shared, lock};
use crate::watch::series::{OTHER, Series};

/// Combinations of database, user, application and state that are shown; clients choose the names of
/// their applications.
const GROUPS_MAX: usize = 300;

pub(super) fn write(shared: &Shared, page: &mut Page) {
    page.family(&UP).sample(&[], 1_u64);
    page.family(&VERSION_INFO)
        .sample(&[pgweir_console::PRODUCT], 1_u64);
    let config = shared.config();
    let global = &config.global;
    let of_user = i64::from(global.max_user_connections);
    page.family(&CONFIG_CLIENTS)
        .sample(&[], i64::from(global.max_client_conn));
    page.family(&CONFIG_USER).sample(&[], of_user);
    lists(&show::lists(shared), page);
    databases(shared, page);
    pools(shared, page);
    clients(shared, page);
    let totals = totals(shared);
    stats(&totals, STATS_PREFIX, |_| true, page);
    if global.metrics_legacy_names {
        let is_legacy = |name: &str| LEGACY_STATS.contains(&name);
        stats(&totals, LEGACY_STATS_PREFIX, is_legacy, page);
    }
}

fn lists(counts: &ListCounts, page: &mut Page) {
    let values = [
        counts.databases,
        counts.users,
        counts.pools,
        counts.free_clients,
        counts.used_clients,
        counts.login_clients,
        counts.free_servers,
        counts.used_servers,
        counts.dns_names,
        counts.dns_zones,
        counts.dns_queries,
    ];
    debug_assert_eq!(values.len(), LISTS.len());
    for (metric, value) in LISTS.iter().zip(values) {
        page.family(metric).sample(&[], value);
    }
}

fn databases(shared: &Shared, page: &mut Page) {
    let config = shared.config();
    let mut rows = show::configured::databases(shared);
    let names = lock(&shared.names);
    let has_name =
        |name: &str| name == CONSOLE_DATABASE || *names.of_database(name, &config) == *name;
    rows.retain(|row| has_name(&row.name));
    drop(names);
    for (index, metric) in DATABASES.iter().enumerate() {
        let mut family = page.family(metric);
        for row in &rows {
            let port = row.port.to_string();
            let labels = [
                &*row.name,
                row.host.as_deref().unwrap_or_default(),
                &port,
                &row.database,
                row.force_user.as_deref().unwrap_or_default(),
                row.pool_mode.unwrap_or_default(),
            ];
            family.sample(&labels, of_database(row)[index]);
        }
    }
}

/// In the order of [`DATABASES`].
fn of_database(row: &DatabaseRow) -> [u64; 6] {
    [
        row.pool_size.into(),
        row.reserve_pool_size.into(),
        row.max_connections.into(),
        row.current_connections as u64,
        row.paused.into(),
        row.disabled.into(),
    ]
}

fn pools(shared: &Shared, page: &mut Page) {
    let mut names: BTreeMap<(Arc<str>, Arc<str>), Series> = BTreeMap::new();
    for (name, home) in shared.homes() {
        names.insert((name.database, name.user), home.series.clone());
    }
    let mut sums: BTreeMap<Series, [f64; 13]> = BTreeMap::new();
    for row in show::pools::rows(shared) {
        let values = of_pool(&row);
        let own = || Series {
            database: Arc::clone(&row.database),
            user: Arc::clone(&row.user),
        };
        let name = (Arc::clone(&row.database), Arc::clone(&row.user));
        let series = names.get(&name).cloned().unwrap_or_else(own);
        let sum = sums.entry(series).or_default();
        for ((sum, value), metric) in sum.iter_mut().zip(values).zip(POOLS) {
            let is_time = metric.name.ends_with("_seconds");
            *sum = if is_time {
                sum.max(value)
            } else {
                *sum + value
            };
        }
    }
    for (index, metric) in POOLS.iter().enumerate() {
        let mut family = page.family(metric);
        for (Series { database, user }, values) in &sums {
            family.sample(&[database, user], values[index]);
        }
    }
}

/// In the order of [`POOLS`].
fn of_pool(row: &PoolRow) -> [f64; 13] {
    let waiting = row.cl_waiting as f64;
    [
        row.cl_active as f64,
        row.cl_active_cancel_req as f64,
        waiting,
        row.cl_waiting_cancel_req as f64,
        row.sv_active as f64,
        row.sv_active_cancel as f64,
        row.sv_being_canceled as f64,
        row.sv_idle as f64,
        row.sv_used as f64,
        row.sv_tested as f64,
        row.sv_login as f64,
        row.maxwait.as_secs_f64(),
        waiting,
    ]
}

/// Database, user, application and state.
type Group = (Arc<str>, Arc<str>, Arc<str>, &'static str);

fn clients(shared: &Shared, page: &mut Page) {
    let mut groups: BTreeMap<Group, u64> = BTreeMap::new();
    for client in &shared.clients {
        if let Some(group) = group(&client) {
            *groups.entry(group).or_default() += 1;
        }
    }
    let mut family = page.family(&EXPORTER_CLIENTS);
    for ((database, user, app, state), count) in bounded(groups) {
        family.sample(&[&database, &user, &app, state], count);
    }
}

fn group(client: &Client) -> Option<Group> {
    let (phase, app) = {
        let state = client.state();
        (state.clocks.phase, Arc::clone(&state.application_name))
    };
    let state = match phase {
        Phase::Login => return None,
        Phase::Waiting => "waiting",
        Phase::Idle | Phase::Active | Phase::IdleInTransaction => "active",
    };
    let identity = client.identity.get()?;
    let (database, user) = match client.route() {
        _ if client.is_console.load(Ordering::Relaxed) => {
            (CONSOLE_DATABASE.into(), Arc::clone(&identity.user))
        }
        Some(route) if &*route.home.series.database == OTHER => (OTHER.into(), OTHER.into()),
        Some(_) | None => (Arc::clone(&identity.database), Arc::clone(&identity.user)),
    };
    Some((database, user, app, state))
}

/// The largest groups; the others are one for each state.
fn bounded(groups: BTreeMap<Group, u64>) -> BTreeMap<Group, u64> {
    let mut largest: Vec<_> = groups.into_iter().collect();
    largest.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let rest = largest.split_off(largest.len().min(GROUPS_MAX));
    let mut bounded: BTreeMap<_, _> = largest.into_iter().collect();
    let other: Arc<str> = OTHER.into();
    for ((.., state), count) in rest {
        let [database, user, app] = [&other, &other, &other].map(Arc::clone);
        *bounded.entry((database, user, app, state)).or_default() += count;
    }
    bounded
}

fn totals(shared: &Shared) -> BTreeMap<Arc<str>, Snapshot> {
    let (homes, remainders) = shared.counted();
    let mut totals: BTreeMap<Arc<str>, Snapshot> = BTreeMap::new();
    for home in homes.into_values() {
        // A pool keeps its label, whatever others of its database get: a counter must not fall.
        let label = Arc::clone(&home.series.database);
        *totals.entry(label).or_default() += home.totals.snapshot();
    }
    for (label, remainder) in remainders.labels() {
        *totals.entry(Arc::clone(label)).or_default() += remainder.totals;
    }
    let console = shared.console_totals.snapshot();
    totals.insert(CONSOLE_DATABASE.into(), console);
    totals
}

fn stats(
    totals: &BTreeMap<Arc<str>, Snapshot>,
    prefix: &str,
    shows: impl Fn(&str) -> bool,
    page: &mut Page,
) {
    for counter in COUNTERS {
        let Some(suffix) = counter.exporter.filter(|_| shows(counter.name)) else {
            continue;
        };
        let name = format!("{prefix}{suffix}");
        let mut family = page.named(&name, &["database"], counter.help, Kind::Counter);
        for (database, snapshot) in totals {
            let value = (counter.value)(snapshot);
            match counter.unit {
                Unit::Microseconds => family.sample(&[database], seconds(value)),
                Unit::Count | Unit::Bytes => family.sample(&[database], value),
            };
        }
    }
}
