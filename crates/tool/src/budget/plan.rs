//! The arithmetic: what can be asked for, what there is, and what would fit.

use std::fmt;

use pgweir_config::{DatabaseDemand, HostDemand, HostLimit};
use serde_json::{Value, json};

use crate::print;

/// The part of PostgreSQL's connections that poolers should have at most, in percent; the rest is for
/// those who come without them. `max_host_connections = auto` takes as much.
const PART: u64 = 90;

/// What one PostgreSQL has.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Limits {
    pub(crate) max_connections: u32,
    /// Of these, kept for superusers and roles with special rights.
    pub(crate) reserved: u32,
    /// How this is known.
    pub(crate) source: String,
}

impl Limits {
    /// Connections that ordinary users may have.
    pub(crate) fn ordinary(&self) -> u32 {
        self.max_connections.saturating_sub(self.reserved)
    }
}

/// What one database can ask for.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    demand: DatabaseDemand,
    /// Servers of one pooler at worst; `None` is no limit.
    servers: Option<u32>,
}

/// What can become of one PostgreSQL.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) host: String,
    limit: HostLimit,
    /// Poolers that share the limits: `fleet`.
    poolers: u32,
    limits: Option<Limits>,
    users: u32,
    replicas: u32,
    parts: Vec<Part>,
    /// Servers of one pooler at worst.
    of_one: Option<u32>,
}

/// Adds up what a host can be asked for.
pub(crate) fn plan(demand: &HostDemand, users: u32, replicas: u32, limits: Option<Limits>) -> Plan {
    let ordinary = limits.as_ref().map(Limits::ordinary);
    let part = |demand: &DatabaseDemand| Part {
        servers: demand.servers(users),
        demand: demand.clone(),
    };
    Plan {
        host: demand.host.clone(),
        limit: demand.limit,
        poolers: demand.poolers,
        users,
        replicas,
        parts: demand.databases.iter().map(part).collect(),
        of_one: demand.servers(users, ordinary),
        limits,
    }
}

impl Plan {
    /// Servers of all poolers at worst; `None` is no limit.
    pub(crate) fn of_all(&self) -> Option<u32> {
        self.of_one.map(|one| one.saturating_mul(self.replicas))
    }

    /// Whether PostgreSQL has as many; `None` where that is not known.
    pub(crate) fn fits(&self) -> Option<bool> {
        let ordinary = self.limits.as_ref()?.ordinary();
        Some(self.of_all().is_some_and(|all| all <= ordinary))
    }

    /// The largest `max_host_connections` of each pooler that fits.
    fn host_limit_that_fits(&self) -> Option<u32> {
        let ordinary = u64::from(self.limits.as_ref()?.ordinary());
        let share = ordinary * PART / 100 / u64::from(self.replicas.max(1));
        u32::try_from(share.max(1)).ok()
    }

    /// The largest size of every pool with which nothing can be asked for in vain.
    fn pool_size_that_fits(&self) -> Option<u32> {
        let share = self.host_limit_that_fits()?;
        let total = |size: u32| -> Option<u32> {
            let parts = self.parts.iter().map(|part| {
                let pool = part.demand.pool.map_or(size, |pool| pool.min(size));
                let demand = DatabaseDemand {
                    pool: Some(pool),
                    ..part.demand.clone()
                };
                demand.servers(self.users)
            });
            parts.sum()
        };
        (1..=share)
            .rev()
            .find(|&size| total(size).is_some_and(|all| all <= share))
    }

    /// What to do where it does not fit.
    fn advice(&self) -> Vec<String> {
        if self.fits() != Some(false) {
            return Vec::new();
        }
        let mut advice = Vec::new();
        if let Some(limit) = self.host_limit_that_fits() {
            let (limit, how) = match (self.replicas, self.poolers) {
                (1, _) => (limit, String::new()),
                (replicas, poolers) if replicas == poolers => {
                    (limit * poolers, " for all poolers together".to_owned())
                }
                (replicas, _) => (limit * replicas, format!(" with fleet = {replicas}")),
            };
            advice.push(format!(
                "max_host_connections = {limit}{how}: pools then share what there is, and clients queue for it"
            ));
        }
        match self.pool_size_that_fits() {
            Some(size) => advice.push(format!(
                "or pools of {size} servers at most, reserve included (default_pool_size, pool_size): \
                 no pool can then take from another"
            )),
            None => advice.push(
                "no pool size fits by itself: there are more pools than connections for them".to_owned(),
            ),
        }
        advice
    }

    pub(crate) fn as_json(&self) -> Value {
        let parts: Vec<Value> = self
            .parts
            .iter()
            .map(|part| {
                json!({
                    "database": part.demand.database,
                    "pool": part.demand.pool,
                    "pools": part.pools(self.users),
                    "max_db_connections": part.demand.limit,
                    "servers": part.servers,
                })
            })
            .collect();
        json!({
            "host": self.host,
            "users": self.users,
            "replicas": self.replicas,
            "fleet": self.poolers,
            "databases": parts,
            "servers_of_one": self.of_one,
            "servers_of_all": self.of_all(),
            "max_connections": self.limits.as_ref().map(|limits| limits.max_connections),
            "reserved": self.limits.as_ref().map(|limits| limits.reserved),
            "fits": self.fits(),
            "max_host_connections_that_fits": self.host_limit_that_fits(),
            "pool_size_that_fits": self.pool_size_that_fits(),
        })
    }
}

impl Part {
    fn pools(&self, users: u32) -> u32 {
        if self.demand.per_user { users } else { 1 }
    }
}

fn number(count: Option<u32>) -> String {
    count.map_or_else(|| "no limit".to_owned(), |count| count.to_string())
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "PostgreSQL at {}", self.host)?;
        let head = [
            "database",
            "pools",
            "of servers",
            "max_db_connections",
            "at worst",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for part in &self.parts {
            lines.push(vec![
                part.demand.database.clone(),
                part.pools(self.users).to_string(),
                number(part.demand.pool),
                part.demand
                    .limit
                    .map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
                number(part.servers),
            ]);
        }
        for line in print::aligned(&lines).lines() {
            writeln!(f, "  {line}")?;
        }
        let limit = pgweir_config::Value::show(&self.limit).unwrap_or_default();
        let limited = match self.limit {
            HostLimit::Off => String::new(),
            _ if self.poolers > 1 => {
                format!(
                    ", by its part of max_host_connections = {limit} for {} poolers",
                    self.poolers
                )
            }
            _ => format!(", by max_host_connections = {limit}"),
        };
        let users = print::counted(self.users.into(), "user");
        writeln!(
            f,
            "  one pooler with {users}: {}{limited}",
            number(self.of_one)
        )?;
        if self.replicas > 1 {
            writeln!(f, "  {} poolers: {}", self.replicas, number(self.of_all()))?;
        }
        if self.parts.iter().any(|part| part.demand.database == "*") {
            writeln!(
                f,
                "  * counts as one database; every other name adds as much"
            )?;
        }
        match &self.limits {
            Some(limits) => writeln!(
                f,
                "  PostgreSQL has {} for ordinary users (max_connections {} less {} reserved, {})",
                limits.ordinary(),
                limits.max_connections,
                limits.reserved,
                limits.source
            )?,
            None => writeln!(f, "  what PostgreSQL has is not known")?,
        }
        match self.fits() {
            Some(true) => writeln!(f, "  it fits")?,
            Some(false) => writeln!(f, "  IT DOES NOT FIT. What would:")?,
            None => {}
        }
        for advice in self.advice() {
            writeln!(f, "  - {advice}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(name: &str, pool: u32, per_user: bool) -> DatabaseDemand {
        DatabaseDemand {
            database: name.to_owned(),
            pool: Some(pool),
            per_user,
            limit: None,
        }
    }

    fn demand(limit: HostLimit) -> HostDemand {
        HostDemand {
            host: "db:5432".to_owned(),
            limit,
            poolers: 1,
            databases: vec![database("shop", 20, true), database("blog", 20, false)],
        }
    }

    fn limits(max_connections: u32) -> Option<Limits> {
        Some(Limits {
            max_connections,
            reserved: 3,
            source: "as given".to_owned(),
        })
    }

    #[test]
    fn what_fits_once_need_not_fit_twice() {
        let one = plan(&demand(HostLimit::Off), 3, 1, limits(100));
        assert_eq!((one.of_all(), one.fits()), (Some(80), Some(true)));
        let two = plan(&demand(HostLimit::Off), 3, 2, limits(100));
        assert_eq!((two.of_all(), two.fits()), (Some(160), Some(false)));
        assert_eq!(two.host_limit_that_fits(), Some(43));
        // Three pools of one database and one of the other: 4 * 10 <= 43.
        assert_eq!(two.pool_size_that_fits(), Some(10));
        let text = two.to_string();
        assert!(
            text.contains("max_host_connections = 86 with fleet = 2"),
            "{text}"
        );
    }

    #[test]
    fn what_is_advised_fits() {
        for (users, replicas, max) in [(1, 1, 20), (5, 2, 100), (9, 3, 500), (2, 7, 64)] {
            let before = plan(&demand(HostLimit::Off), users, replicas, limits(max));
            let limit = before.host_limit_that_fits().expect("the limits are known");
            let after = plan(
                &demand(HostLimit::Count(limit)),
                users,
                replicas,
                limits(max),
            );
            assert_eq!(after.fits(), Some(true), "{users} {replicas} {max}");
            if let Some(size) = before.pool_size_that_fits() {
                let mut smaller = demand(HostLimit::Off);
                for part in &mut smaller.databases {
                    part.pool = part.pool.map(|pool| pool.min(size));
                }
                let after = plan(&smaller, users, replicas, limits(max));
                assert_eq!(after.fits(), Some(true), "{users} {replicas} {max}");
            }
        }
    }

    #[test]
    fn no_limit_never_fits_and_what_is_unknown_is_not_guessed() {
        let mut free = demand(HostLimit::Off);
        free.databases[0].pool = None;
        assert_eq!(plan(&free, 1, 1, limits(100)).fits(), Some(false));
        assert_eq!(plan(&free, 1, 1, None).fits(), None);
        assert!(plan(&free, 1, 1, None).to_string().contains("not known"));
    }

    #[test]
    fn an_automatic_limit_is_one_poolers_and_not_everybodys() {
        let one = plan(&demand(HostLimit::Auto), 9, 1, limits(100));
        assert_eq!((one.of_all(), one.fits()), (Some(87), Some(true)));
        let two = plan(&demand(HostLimit::Auto), 9, 2, limits(100));
        assert_eq!(two.fits(), Some(false));
        let mut shared = demand(HostLimit::Auto);
        shared.poolers = 2;
        let shared = plan(&shared, 9, 2, limits(100));
        assert_eq!((shared.of_all(), shared.fits()), (Some(86), Some(true)));
    }
}
