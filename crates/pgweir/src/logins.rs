//! How long logins to PostgreSQL take, phase by phase, for each database as the metrics name it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use pgweir_stats::{LoginPhase, LoginTimes};

use crate::open::diary::{Diary, Ending};
use crate::server::micros;
use crate::shared::{PoolHome, lock};

/// The times of each database. As many as there are names of databases in the metrics.
#[derive(Debug, Default)]
pub(crate) struct Logins {
    by_database: Mutex<BTreeMap<Arc<str>, Arc<LoginTimes>>>,
}

impl Logins {
    /// The steps of an attempt that have worked.
    pub(crate) fn note(&self, home: &PoolHome, diary: &Diary) {
        let done = diary.entries().iter();
        for entry in done.filter(|entry| entry.ending == Ending::Done) {
            if let Some(phase) = LoginPhase::from_word(entry.step) {
                self.times(home).record(phase, micros(entry.took));
            }
        }
    }

    /// A new server has answered its first query.
    #[cold]
    pub(crate) fn note_first_query(&self, home: &PoolHome, us: u64) {
        self.times(home).record(LoginPhase::FirstQuery, us);
    }

    /// By database.
    pub(crate) fn all(&self) -> BTreeMap<Arc<str>, Arc<LoginTimes>> {
        lock(&self.by_database).clone()
    }

    fn times(&self, home: &PoolHome) -> Arc<LoginTimes> {
        let mut by_database = lock(&self.by_database);
        let name = Arc::clone(&home.series.database);
        Arc::clone(by_database.entry(name).or_default())
    }
}
