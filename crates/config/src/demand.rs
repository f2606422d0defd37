//! How many servers a configuration can ask of each PostgreSQL at most.

use std::collections::BTreeMap;

use crate::config::{Config, Database};
use crate::value::HostLimit;

/// What one PostgreSQL can be asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct HostDemand {
    /// The host, as [`Database::host_names`] names it.
    pub host: String,
    /// `max_host_connections`
    pub limit: HostLimit,
    /// Poolers that share it: `fleet`.
    pub poolers: u32,
    /// By whom.
    pub databases: Vec<DatabaseDemand>,
}

/// What one database can ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseDemand {
    /// The name of the entry; `*` is the template, which stands for any number of databases.
    pub database: String,
    /// Servers of one pool with its reserve; `None` is no limit.
    pub pool: Option<u32>,
    /// Whether every user who logs in has a pool, or one forced user has the only one.
    pub per_user: bool,
    /// `max_db_connections`
    pub limit: Option<u32>,
}

impl DatabaseDemand {
    /// Servers at most, if so many users log in; `None` is no limit.
    pub fn servers(&self, users: u32) -> Option<u32> {
        let pools = if self.per_user { users } else { 1 };
        let asked = self.pool.map(|pool| pool.saturating_mul(pools));
        match (asked, self.limit) {
            (Some(asked), Some(limit)) => Some(asked.min(limit)),
            (asked, limit) => asked.or(limit),
        }
    }
}

impl HostDemand {
    /// Servers of one pooler at most, if so many users log in and PostgreSQL has so many connections for
    /// ordinary users; `None` is no limit.
    pub fn servers(&self, users: u32, ordinary: Option<u32>) -> Option<u32> {
        let of_each = self
            .databases
            .iter()
            .map(|database| database.servers(users));
        let asked: Option<u32> = of_each.sum();
        let limit = self.limit.servers(ordinary);
        let part = limit.map(|limit| (limit / self.poolers.max(1)).max(1));
        match (asked, part) {
            (Some(asked), Some(limit)) => Some(asked.min(limit)),
            (asked, limit) => asked.or(limit),
        }
    }
}

impl Config {
    /// What every PostgreSQL can be asked for, by host. A database with several hosts can ask each
    /// of them for everything.
    pub fn demand(&self) -> Vec<HostDemand> {
        let mut hosts: BTreeMap<String, Vec<DatabaseDemand>> = BTreeMap::new();
        let template = self.autodb.iter().map(|database| ("*", database));
        let named = self
            .databases
            .iter()
            .map(|(name, database)| (name.as_str(), database));
        for (name, database) in named.chain(template) {
            for host in database.host_names(&self.global.unix_socket_dir) {
                let demand = self.demand_of(name, database);
                hosts.entry(host).or_default().push(demand);
            }
        }
        let limit = self.global.max_host_connections;
        let poolers = self.global.poolers();
        let demands = hosts.into_iter().map(|(host, databases)| HostDemand {
            host,
            limit,
            poolers,
            databases,
        });
        demands.collect()
    }

    fn demand_of(&self, name: &str, database: &Database) -> DatabaseDemand {
        let forced = database.keys.user.as_deref();
        let settings = match forced {
            Some(user) => self.resolve(name, user),
            None => self.resolve_database(name),
        };
        let pool = settings.as_ref().and_then(|settings| {
            let size = settings.pool_size?;
            Some(size.saturating_add(settings.reserve_pool_size))
        });
        DatabaseDemand {
            database: name.to_owned(),
            pool,
            per_user: forced.is_none(),
            limit: settings.and_then(|settings| settings.max_db_connections),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Phase;

    fn demand(text: &str) -> Vec<HostDemand> {
        let mut config = Config::new("a.ini");
        config
            .load(Phase::Start, &mut |_| Ok(text.to_owned()))
            .expect("loads");
        config.demand()
    }

    #[test]
    fn databases_on_one_host_add_up() {
        let demand = demand(
            "[databases]\na = host=db port=1\nb = host=DB port=1 user=u pool_size=3\n\
             c = host=db\n[pgbouncer]\ndefault_pool_size = 10\nreserve_pool_size = 2\n",
        );
        let hosts: Vec<_> = demand.iter().map(|host| host.host.as_str()).collect();
        assert_eq!(hosts, ["db:1", "db:5432"]);
        assert_eq!(demand[0].servers(1, None), Some(12 + 5));
        assert_eq!(demand[0].servers(3, None), Some(36 + 5));
        assert_eq!(demand[1].servers(3, None), Some(36));
    }

    #[test]
    fn the_tightest_limit_counts() {
        let text = "[databases]\na = host=db max_db_connections=15\nb = host=db pool_size=0\n\
             [pgbouncer]\ndefault_pool_size = 10\n";
        let free = demand(text);
        assert_eq!(free[0].databases[0].servers(7), Some(15));
        assert_eq!(free[0].servers(7, None), None);
        let limited = demand(&format!("{text}max_host_connections = 50%\n"));
        assert_eq!(limited[0].servers(7, Some(97)), Some(48));
        assert_eq!(limited[0].servers(7, None), None);
    }

    #[test]
    fn a_template_counts_as_one_database() {
        let demand = demand("[databases]\n* = host=db\n[pgbouncer]\n");
        assert_eq!(demand[0].databases[0].database, "*");
        assert_eq!(demand[0].servers(2, None), Some(40));
    }
}
