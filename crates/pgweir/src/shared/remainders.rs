//! What pools have counted that are gone, so that no sum of counters falls.
//!
//! Clients can invent databases and users, so only sums are kept, and only those of a bounded number of names: databases
//! that are configured or have a pool, [`POOLLESS_MAX`] of those made from `*` that have none just now, and what is
//! `other` in the metrics. The sum of any other database ends, as the series of a single pool does, and is a part of the
//! sum of all only.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use pgweir_pool::PoolName;
use pgweir_stats::{Latencies, Snapshot};

use super::{PoolHome, Shared, lock};
use crate::watch::series::{OTHER, Series, SeriesTimes};

/// Databases made from `*` that keep their counters while they have no pool.
const POOLLESS_MAX: usize = 100;

/// What is left of pools that are gone, by the sums that they were in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remainders {
    sums: HashMap<Sum, Arc<Remainder>>,
    /// The counters of databases whose sums have ended.
    pub(crate) ended: Snapshot,
}

/// What is added up over pools.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
enum Sum {
    /// A database, as the console shows it.
    Database(Arc<str>),
    /// A database, as the metrics name it.
    Label(Arc<str>),
    /// Labels that several pools share.
    Series(Series),
}

/// A part of a sum. It is never changed, so whoever has read it together with the pools that were there goes on with what
/// it was.
#[derive(Debug, Default)]
pub(crate) struct Remainder {
    pub(crate) totals: Snapshot,
    pub(crate) latencies: Latencies,
    /// Held for pools to come, which go on with them.
    pub(crate) times: Option<Arc<SeriesTimes>>,
}

impl Sum {
    fn database(&self) -> &Arc<str> {
        match self {
            Self::Database(name) | Self::Label(name) => name,
            Self::Series(series) => &series.database,
        }
    }
}

impl Remainder {
    fn and(&self, home: &PoolHome) -> Self {
        let latencies = Latencies::default();
        latencies.add(&self.latencies);
        latencies.add(&home.latencies);
        Self {
            totals: self.totals + home.totals.snapshot(),
            latencies,
            times: home.series.is_shared().then(|| Arc::clone(&home.times)),
        }
    }
}

impl Remainders {
    /// Of databases, by their names.
    pub(crate) fn databases(&self) -> impl Iterator<Item = (&Arc<str>, &Remainder)> {
        let sums = self.sums.iter();
        sums.filter_map(|(sum, remainder)| match sum {
            Sum::Database(name) => Some((name, &**remainder)),
            Sum::Label(_) | Sum::Series(_) => None,
        })
    }

    /// Of databases, by their names in the metrics.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&Arc<str>, &Remainder)> {
        let sums = self.sums.iter();
        sums.filter_map(|(sum, remainder)| match sum {
            Sum::Label(name) => Some((name, &**remainder)),
            Sum::Database(_) | Sum::Series(_) => None,
        })
    }

    /// Of series that pools share.
    pub(crate) fn series(&self) -> impl Iterator<Item = (&Series, &Remainder)> {
        let sums = self.sums.iter();
        sums.filter_map(|(sum, remainder)| match sum {
            Sum::Series(series) => Some((series, &**remainder)),
            Sum::Database(_) | Sum::Label(_) => None,
        })
    }

    /// A pool is gone.
    pub(super) fn add(&mut self, home: &PoolHome) {
        let series = &home.series;
        let shared = series.is_shared().then(|| Sum::Series(series.clone()));
        let of_all = [
            Sum::Database(Arc::clone(&home.name.database)),
            Sum::Label(Arc::clone(&series.database)),
        ];
        for sum in of_all.into_iter().chain(shared) {
            let remainder = self.sums.entry(sum).or_default();
            *remainder = Arc::new(remainder.and(home));
        }
    }

    fn knows(&self, database: &Arc<str>) -> bool {
        self.sums.contains_key(&Sum::Database(Arc::clone(database)))
    }

    fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        let Self { sums, ended } = self;
        sums.retain(|sum, remainder| {
            let stays = **sum.database() == *OTHER || is_kept(sum.database());
            if !stays && matches!(sum, Sum::Database(_)) {
                *ended += remainder.totals;
            }
            stays
        });
    }
}

impl Shared {
    /// Every pool by name, and what those have left that are gone: no pool is in both, and none in neither.
    pub(crate) fn counted(&self) -> (BTreeMap<PoolName, Arc<PoolHome>>, Remainders) {
        let homes = lock(&self.homes);
        let by_name = homes
            .iter()
            .map(|(name, home)| (name.clone(), Arc::clone(home)))
            .collect();
        (by_name, lock(&self.remainders).clone())
    }

    /// Ends the sums of databases that are not there any more, and of those that are too many.
    pub(crate) fn end_sums(&self) {
        let config = self.config();
        let homes = lock(&self.homes);
        let autodbs = lock(&self.autodbs);
        let mut remainders = lock(&self.remainders);
        if remainders.sums.is_empty() {
            return;
        }
        let with_pool: HashSet<&str> = homes.keys().map(|name| &*name.database).collect();
        let is_there = |name: &str| config.databases.contains_key(name) || with_pool.contains(name);
        let poolless = autodbs.keys();
        let poolless = poolless.filter(|name| !is_there(name) && remainders.knows(name));
        let poolless: HashSet<&str> = poolless.map(|name| &**name).take(POOLLESS_MAX).collect();
        remainders.keep(|name| is_there(name) || poolless.contains(name));
    }
}
