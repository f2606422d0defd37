//! What a client counts in, to be given back when it is forgotten.

use pgweir_pool::{GaugeId, PoolId};

/// All clients, logins, address, database, user, application.
const SCOPES_MAX: usize = 6;

/// The limits that a client counts in.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    ids: [Option<GaugeId>; SCOPES_MAX],
    /// The pool that it has joined.
    pub(crate) pool: Option<PoolId>,
}

impl Counted {
    /// All of them.
    pub(crate) fn ids(&self) -> impl Iterator<Item = GaugeId> {
        self.ids.iter().copied().flatten()
    }

    /// It counts in these as well.
    pub(crate) fn add(&mut self, ids: impl IntoIterator<Item = GaugeId>) {
        let mut free = self.ids.iter_mut().filter(|place| place.is_none());
        for id in ids {
            match free.next() {
                Some(place) => *place = Some(id),
                None => debug_assert!(false, "more scopes than there are"),
            }
        }
    }

    /// It counts in this one no more. Whether it did.
    pub(crate) fn remove(&mut self, id: GaugeId) -> bool {
        let place = self.ids.iter_mut().find(|place| **place == Some(id));
        place.is_some_and(|place| place.take().is_some())
    }
}
