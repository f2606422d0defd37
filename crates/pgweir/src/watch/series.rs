//! Under which names pools and databases appear in the metrics, and how many names there may be.
//!
//! Whoever can log in can make pools, where databases come from the `*` entry or users from
//! `auth_query`. So only so many have names of their own, and the rest is counted together. A pool
//! keeps its name for life: a counter must not fall.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use pgweir_config::Config;
use pgweir_pool::PoolName;
use pgweir_stats::LoginTimes;
pub(crate) use pgweir_stats::OTHER;

use crate::watch::waits::WaitTimes;

/// Databases without an entry of their own that have a name.
const DATABASES_MAX: usize = 100;

/// Pools that have a name.
const POOLS_MAX: usize = 250;

/// The labels of a pool.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Series {
    pub(crate) database: Arc<str>,
    pub(crate) user: Arc<str>,
}

impl Series {
    /// Whether the pool shares its labels with others.
    pub(crate) fn is_shared(&self) -> bool {
        &*self.user == OTHER
    }
}

/// Times of all pools with the same labels. A distribution that is in use has kilobytes, so pools without a name
/// of their own have none of their own.
#[derive(Debug, Default)]
pub(crate) struct SeriesTimes {
    /// Waits by cause.
    pub(crate) waits: WaitTimes,
    /// How long logins to PostgreSQL took, by phase.
    pub(crate) logins: LoginTimes,
}

/// The names that have been given.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// How many pools each database has that have a name.
    databases: BTreeMap<Arc<str>, usize>,
    pools: usize,
    /// What pools without a name share, by database, for as long as there is one or something is left of one.
    shared: BTreeMap<Arc<str>, Weak<SeriesTimes>>,
}

impl Names {
    /// The labels of a new pool.
    pub(crate) fn give(&mut self, pool: &PoolName, config: &Config) -> Series {
        let is_configured = config.databases.contains_key(&*pool.database);
        let has_room = is_configured
            || self.databases.contains_key(&pool.database)
            || self.databases.len() < DATABASES_MAX;
        if !has_room {
            let other: Arc<str> = OTHER.into();
            return Series {
                database: Arc::clone(&other),
                user: other,
            };
        }
        let of_database = self
            .databases
            .entry(Arc::clone(&pool.database))
            .or_default();
        let user = match self.pools < POOLS_MAX {
            true => {
                *of_database += 1;
                self.pools += 1;
                Arc::clone(&pool.user)
            }
            false => OTHER.into(),
        };
        Series {
            database: Arc::clone(&pool.database),
            user,
        }
    }

    /// Where a new pool with these labels records its times.
    pub(crate) fn times(&mut self, series: &Series) -> Arc<SeriesTimes> {
        if !series.is_shared() {
            return Arc::default();
        }
        let known = self.shared.get(&series.database).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let times = Arc::default();
            self.shared.retain(|_, times| times.strong_count() > 0);
            let database = Arc::clone(&series.database);
            self.shared.insert(database, Arc::downgrade(&times));
            times
        })
    }

    /// A pool is gone.
    pub(crate) fn take_back(&mut self, series: &Series) {
        if series.is_shared() {
            return;
        }
        self.pools = self.pools.saturating_sub(1);
        if let Some(pools) = self.databases.get_mut(&series.database) {
            *pools = pools.saturating_sub(1);
            if *pools == 0 {
                self.databases.remove(&series.database);
            }
        }
    }

    /// The label of a database for which there may be no pool.
    pub(crate) fn of_database(&self, name: &str, config: &Config) -> Arc<str> {
        match self.databases.get_key_value(name) {
            Some((known, _)) => Arc::clone(known),
            None if config.databases.contains_key(name) => name.into(),
            None => OTHER.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(database: &str, user: &str) -> Series {
        Series {
            database: database.into(),
            user: user.into(),
        }
    }

    fn pool(database: &str, user: &str) -> PoolName {
        PoolName {
            database: database.into(),
            user: user.into(),
        }
    }

    #[test]
    fn pools_with_the_same_labels_have_the_same_times() {
        let mut names = Names::default();
        let [first, second] = [(); 2].map(|()| names.times(&series("d", OTHER)));
        assert!(Arc::ptr_eq(&first, &second));
        for (database, user) in [("d", "u"), ("e", OTHER)] {
            let apart = names.times(&series(database, user));
            assert!(!Arc::ptr_eq(&first, &apart), "{database} {user}");
        }
        names.times(&series("f", OTHER));
        assert_eq!(names.shared.len(), 2, "e has no pool any more");
        drop((first, second));
        names.times(&series("g", OTHER));
        assert_eq!(names.shared.len(), 1);
    }

    #[test]
    fn what_has_no_name_is_other_and_names_come_back() {
        let config = Config::new("x.ini");
        let mut names = Names::default();
        let given: Vec<Series> = (0..DATABASES_MAX)
            .map(|number| names.give(&pool(&format!("d{number}"), "u"), &config))
            .collect();
        assert!(given.iter().all(|series| !series.is_shared()));
        let late = names.give(&pool("late", "u"), &config);
        assert_eq!((&*late.database, &*late.user), (OTHER, OTHER));
        for number in DATABASES_MAX..POOLS_MAX {
            names.give(&pool("d0", &format!("u{number}")), &config);
        }
        let crowded = names.give(&pool("d0", "late"), &config);
        assert_eq!((&*crowded.database, &*crowded.user), ("d0", OTHER));
        names.take_back(&late);
        names.take_back(&crowded);
        names.take_back(&given[1]);
        let next = names.give(&pool("late", "u"), &config);
        assert_eq!((&*next.database, &*next.user), ("late", "u"));
        assert_eq!(&*names.of_database("d1", &config), OTHER);
        assert_eq!(&*names.of_database("d2", &config), "d2");
    }
}
