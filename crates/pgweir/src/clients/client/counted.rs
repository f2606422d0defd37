//! What a client counts in, to be given back when it is forgotten.

use std::sync::Arc;

use pgweir_pool::{PoolId, Scope};

/// The limits that a client counts in.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// Like clients hold one copy, once they are in. `None` is none.
    scopes: Option<Arc<Vec<Scope>>>,
    /// The pool that it has joined.
    pub(crate) pool: Option<PoolId>,
}

impl Counted {
    /// It counts in these.
    pub(crate) fn of(scopes: Vec<Scope>) -> Self {
        Self {
            scopes: Some(Arc::new(scopes)),
            pool: None,
        }
    }

    /// All of them.
    pub(crate) fn scopes(&self) -> &[Scope] {
        self.scopes.as_ref().map_or(&[], |scopes| scopes)
    }

    fn scopes_mut(&mut self) -> &mut Vec<Scope> {
        Arc::make_mut(self.scopes.get_or_insert_default())
    }

    /// It counts in these as well.
    pub(crate) fn add(&mut self, scopes: impl IntoIterator<Item = Scope>) {
        self.scopes_mut().extend(scopes);
    }

    /// It counts in this one no more. Whether it did.
    pub(crate) fn remove(&mut self, scope: &Scope) -> bool {
        let at = self.scopes().iter().position(|other| other == scope);
        at.is_some_and(|at| {
            self.scopes_mut().remove(at);
            true
        })
    }

    /// Holds one copy with the last one that did so here.
    pub(crate) fn share(&mut self, last: &mut Option<Arc<Vec<Scope>>>) {
        match *last == self.scopes {
            true => self.scopes.clone_from(last),
            false => {
                self.scopes_mut().shrink_to_fit();
                last.clone_from(&self.scopes);
            }
        }
    }
}
