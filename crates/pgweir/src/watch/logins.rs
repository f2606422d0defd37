//! How long logins to PostgreSQL take, phase by phase.

use pgweir_stats::LoginPhase;

use crate::servers::open::diary::{Diary, Ending};
use crate::servers::server::micros;
use crate::shared::PoolHome;

/// The steps of an attempt that have worked.
pub(crate) fn note(home: &PoolHome, diary: &Diary) {
    let done = diary.entries().iter();
    for entry in done.filter(|entry| entry.ending == Ending::Done) {
        if let Some(phase) = LoginPhase::from_word(entry.step) {
            home.times.logins.record(phase, micros(entry.took));
        }
    }
}

/// A new server has answered its first query.
#[cold]
pub(crate) fn note_first_query(home: &PoolHome, us: u64) {
    home.times.logins.record(LoginPhase::FirstQuery, us);
}
