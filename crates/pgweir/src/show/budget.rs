//! SHOW BUDGET.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use pgweir_console::tables::BudgetRow;
use pgweir_pool::{Bound, Gauge, PoolName, Scope};
use rustix::process::{Resource, getrlimit};

use crate::shared::{Shared, lock};
use crate::survey::HostFacts;

/// From what limits everything to what limits one pool.
pub(crate) fn rows(shared: &Shared) -> Vec<BudgetRow> {
    let bounds = Bounds::now(shared);
    let mut rows = of_system();
    rows.extend(of_postgres(shared));
    rows.extend(of_scopes(shared, &bounds));
    rows.extend(of_pools(shared, &bounds));
    rows
}

/// Which limits hold clients back, and how many.
struct Bounds {
    scopes: HashMap<Scope, u32>,
    pools: HashMap<PoolName, u32>,
}

impl Bounds {
    fn now(shared: &Shared) -> Self {
        let now = Instant::now();
        let pools = shared.pools();
        let mut bounds = Self {
            scopes: HashMap::new(),
            pools: HashMap::new(),
        };
        for view in pools.view().iter().filter(|view| view.idle == 0) {
            let Some(standing) = pools.standing(view.id, None, now) else {
                continue;
            };
            match standing.bound {
                Bound::PoolSize { .. } => {
                    bounds.pools.insert(standing.pool, standing.waiting);
                }
                Bound::Shared(scope, _) | Bound::Party(scope, _) => {
                    *bounds.scopes.entry(scope).or_default() += standing.waiting;
                }
                Bound::Failing(_) | Bound::Paused | Bound::Login => {}
            }
        }
        bounds
    }
}

/// Open files, and how many there may be.
pub(crate) fn files() -> (u64, Option<u64>) {
    let files = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    (files as u64, getrlimit(Resource::Nofile).current)
}

fn of_system() -> Vec<BudgetRow> {
    let (files, file_limit) = files();
    let row = |name, used, limit| BudgetRow {
        name,
        used,
        limit,
        source: "system",
        ..BudgetRow::default()
    };
    let mut rows = vec![row("open files", files, file_limit)];
    if let Some(bytes) = memory() {
        rows.push(row(
            "memory (KiB)",
            bytes / 1024,
            memory_limit().map(|l| l / 1024),
        ));
    }
    rows
}

/// Bytes of memory that the process has.
pub(crate) fn memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

/// Bytes that the process's group may have: in a container its limit, elsewhere mostly none.
fn memory_limit() -> Option<u64> {
    let text = fs::read_to_string("/sys/fs/cgroup/memory.max").ok()?;
    text.trim().parse().ok()
}

/// What PostgreSQL has told about itself.
fn of_postgres(shared: &Shared) -> Vec<BudgetRow> {
    let mut rows = Vec::new();
    let facts = lock(&shared.facts);
    let mut hosts: Vec<(&Arc<str>, &HostFacts)> = facts.hosts.iter().collect();
    hosts.sort_by_key(|(host, _)| Arc::clone(host));
    for (host, facts) in hosts {
        let row = |name, limit| BudgetRow {
            name,
            subject: Some(host.to_string()),
            used: facts.backends.into(),
            limit: Some(u64::from(limit)),
            binding: facts.backends >= limit,
            source: "postgres",
            ..BudgetRow::default()
        };
        rows.push(row("max_connections", facts.max_connections));
        rows.push(row("max_connections less reserved", facts.ordinary()));
    }
    for (name, limits) in &facts.pools {
        let pools = shared.pools();
        let row = |key, subject: &Arc<str>, used: Gauge, limit: u32| BudgetRow {
            name: key,
            subject: Some(subject.to_string()),
            used: used.used.into(),
            limit: Some(limit.into()),
            binding: used.used >= limit,
            source: "postgres",
            ..BudgetRow::default()
        };
        let of_user = pools
            .budget
            .gauge(&Scope::UserServers(Arc::clone(&name.user)));
        let of_database = Scope::DatabaseServers(Arc::clone(&name.database));
        let of_database = pools.budget.gauge(&of_database);
        rows.extend(
            limits
                .role
                .map(|l| row("role CONNECTION LIMIT", &name.user, of_user, l)),
        );
        let database = &name.database;
        let limit = limits.database;
        rows.extend(limit.map(|l| row("database CONNECTION LIMIT", database, of_database, l)));
    }
    rows
}

/// Everything that is counted.
fn of_scopes(shared: &Shared, bounds: &Bounds) -> Vec<BudgetRow> {
    let pools = shared.pools();
    let gauges = pools.budget.iter();
    let shown = gauges.filter(|(_, gauge)| gauge.limit.is_some() || gauge.used > 0);
    let mut rows: Vec<_> = shown
        .map(|(scope, gauge)| BudgetRow {
            name: scope.key(),
            subject: scope.subject(),
            used: gauge.used.into(),
            limit: gauge.limit.map(u64::from),
            peak: Some(gauge.peak.into()),
            waiting: bounds.scopes.get(scope).copied().unwrap_or(0),
            binding: gauge.is_full(),
            source: "config",
        })
        .collect();
    rows.sort_by(|a, b| (a.name, &a.subject).cmp(&(b.name, &b.subject)));
    rows
}

fn of_pools(shared: &Shared, bounds: &Bounds) -> Vec<BudgetRow> {
    let homes = shared.homes();
    let pools = shared.pools();
    let views = pools.view();
    let rows = views.iter().map(|view| {
        let settings = homes
            .get(&view.name)
            .map(|home| home.rules().settings.clone());
        let size = settings.and_then(|settings| settings.pool_size);
        BudgetRow {
            name: "pool_size",
            subject: Some(format!("{}/{}", view.name.database, view.name.user)),
            used: view.total().saturating_sub(view.control).into(),
            limit: size.map(u64::from),
            peak: Some(view.peak.into()),
            waiting: bounds.pools.get(&view.name).copied().unwrap_or(0),
            binding: bounds.pools.contains_key(&view.name),
            source: "config",
        }
    });
    rows.collect()
}
