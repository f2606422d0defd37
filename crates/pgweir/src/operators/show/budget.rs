//! SHOW BUDGET.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use pgweir_console::tables::BudgetRow;
use pgweir_pool::{Bound, Gauge, PoolName, Scope};
use rustix::process::{Resource, getrlimit};

use crate::servers::survey::{HostFacts, PoolFacts};
use crate::shared::{Shared, lock};

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
    pools: HashMap<PoolName, OfPool>,
}

/// A pool that has as many servers as it may.
#[derive(Clone, Copy)]
struct OfPool {
    waiting: u32,
    /// With the reserve, where that is open.
    limit: u32,
}

impl Bounds {
    fn now(shared: &Shared) -> Self {
        let now = Instant::now();
        let pools = shared.pools();
        let mut bounds = Self {
            scopes: pools.held_back(),
            pools: HashMap::new(),
        };
        for view in pools.view().iter().filter(|view| view.idle == 0) {
            let Some(standing) = pools.standing(view.id, None, now) else {
                continue;
            };
            match standing.bound {
                Bound::PoolSize { limit, .. } => {
                    let waiting = standing.waiting;
                    bounds
                        .pools
                        .insert(standing.pool, OfPool { waiting, limit });
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
    let limit = getrlimit(Resource::Nofile).current;
    // To count them takes a file, too.
    let files = fs::read_dir("/proc/self/fd").map(|files| files.count() as u64);
    (files.unwrap_or(limit.unwrap_or(0)), limit)
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
    let mut rows = vec![BudgetRow {
        binding: file_limit.is_some_and(|limit| files >= limit),
        ..row("open files", files, file_limit)
    }];
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
        rows.extend(of_role_and_database(shared, name, *limits));
    }
    rows
}

/// The CONNECTION LIMITs of what a pool logs in as, and how much of them is ours.
fn of_role_and_database(shared: &Shared, name: &PoolName, limits: PoolFacts) -> Vec<BudgetRow> {
    let pools = shared.pools();
    let gauge = |scope| pools.budget.gauge(&scope);
    let of_user = gauge(Scope::UserServers(Arc::clone(&name.user)));
    let of_database = gauge(Scope::DatabaseServers(Arc::clone(&name.database)));
    let row = |key, subject: &Arc<str>, gauge: Gauge, limit: u32| BudgetRow {
        name: key,
        subject: Some(subject.to_string()),
        used: gauge.used.into(),
        limit: Some(limit.into()),
        binding: gauge.used >= limit,
        source: "postgres",
        ..BudgetRow::default()
    };
    let (user, database) = (&name.user, &name.database);
    let of_role = limits.role;
    let role = of_role.map(|l| row("role CONNECTION LIMIT", user, of_user, l));
    let of_its_own = limits.database;
    let its_own = of_its_own.map(|l| row("database CONNECTION LIMIT", database, of_database, l));
    role.into_iter().chain(its_own).collect()
}

/// Which of PostgreSQL's own limits on a pool's logins is reached by what we have, with its numbers.
pub(crate) fn reached_in_postgres(shared: &Shared, pool: &PoolName) -> Option<String> {
    let limits = lock(&shared.facts).pools.get(pool).copied()?;
    let rows = of_role_and_database(shared, pool, limits);
    let reached = rows.into_iter().find(|row| row.binding)?;
    let (name, used) = (reached.name, reached.used);
    let (subject, limit) = (reached.subject?, reached.limit?);
    Some(format!("{name} of {subject} is {limit}, {used} in use"))
}

/// Everything that is counted.
fn of_scopes(shared: &Shared, bounds: &Bounds) -> Vec<BudgetRow> {
    let poolers = shared.config().global.poolers();
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
            source: source(scope, poolers),
        })
        .collect();
    rows.sort_by(|a, b| (a.name, &a.subject).cmp(&(b.name, &b.subject)));
    rows
}

/// Where a limit comes from: a part of what several poolers have together is called so.
fn source(scope: &Scope, poolers: u32) -> &'static str {
    let is_part = matches!(
        scope,
        Scope::HostServers(_) | Scope::DatabaseServers(_) | Scope::UserServers(_)
    );
    match is_part && poolers > 1 {
        true => "fleet",
        false => "config",
    }
}

/// What limits one pool: its size and its queue.
fn of_pools(shared: &Shared, bounds: &Bounds) -> Vec<BudgetRow> {
    let homes = shared.homes();
    let views = shared.pools().view();
    let mut rows = Vec::new();
    for view in &views {
        let rules = homes.get(&view.name).map(|home| home.rules());
        let settings = rules.map(|rules| rules.settings.clone());
        let bound = bounds.pools.get(&view.name);
        let row = |name, used: u32, limit: Option<u32>| BudgetRow {
            name,
            subject: Some(format!("{}/{}", view.name.database, view.name.user)),
            used: used.into(),
            limit: limit.map(u64::from),
            source: "config",
            ..BudgetRow::default()
        };
        let size = settings.as_ref().and_then(|settings| settings.pool_size);
        let limit = bound.map(|bound| bound.limit).or(size);
        rows.push(BudgetRow {
            waiting: bound.map_or(0, |bound| bound.waiting),
            binding: bound.is_some(),
            peak: Some(view.peak.into()),
            ..row(
                "pool_size",
                view.total().saturating_sub(view.control),
                limit,
            )
        });
        let queue = settings.and_then(|settings| settings.max_pool_waiting);
        rows.extend(queue.map(|limit| BudgetRow {
            binding: view.queued() >= limit,
            ..row("max_pool_waiting", view.queued(), Some(limit))
        }));
    }
    rows
}
