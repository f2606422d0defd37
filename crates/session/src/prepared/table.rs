//! All statements, equal ones once.

use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use foldhash::fast::FixedState;
use lru::LruCache;

use super::{SERVER_NAME, Statement, StatementId};
use crate::reading::Reading;
use crate::residue::scan;

/// All statements that any client or server still knows, equal ones once.
#[derive(Debug, Default)]
pub struct StatementTable {
    inner: Mutex<Inner>,
    /// How often definitions have been changed.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    /// Several if a definition is read in several ways, or means something else by now; the last one is the
    /// newest.
    by_definition: HashMap<Arc<[u8]>, Vec<Weak<Statement>>>,
    /// Prints of definitions without a name that were seen last and are not in the table.
    seen: Seen,
    last_id: u64,
    /// Dead entries are swept when the table has grown to this size.
    sweep_at: usize,
}

/// Numbers that were seen, so many of the last ones.
#[derive(Debug)]
struct Seen(LruCache<u64, ()>);

const SEEN_MAX: usize = 1024;

impl StatementTable {
    /// The statement with this definition that is read like this, new or known.
    pub fn intern(&self, definition: &[u8], reading: Reading) -> Arc<Statement> {
        self.intern_needing(definition, reading, None)
    }

    /// The same for a statement that executes another by its name on servers.
    pub fn intern_needing(
        &self,
        definition: &[u8],
        reading: Reading,
        needs: Option<Arc<Statement>>,
    ) -> Arc<Statement> {
        let mut inner = self.lock();
        let changes = self.changes();
        inner
            .current(definition, reading, changes)
            .unwrap_or_else(|| inner.create(definition, reading, needs, changes))
    }

    /// The statement with this definition, if that is known or was seen not long ago: it will come again.
    pub fn recurring(&self, definition: &[u8], reading: Reading) -> Option<Arc<Statement>> {
        let mut inner = self.lock();
        let changes = self.changes();
        let known = inner.current(definition, reading, changes);
        known.or_else(|| {
            let was_known = inner.by_definition.contains_key(definition);
            let print = FixedState::default().hash_one(definition);
            let recurs = was_known || inner.seen.see(print);
            recurs.then(|| inner.create(definition, reading, None, changes))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic elsewhere cannot leave the map half changed, so a poisoned lock is still good.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Definitions may have been changed: whoever parses a statement from now on must not get a server's
    /// that was prepared before, because it may return something else. It has another identity then.
    pub fn note_altered(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether definitions may have been changed since the statement got its identity.
    pub fn is_outdated(&self, statement: &Statement) -> bool {
        statement.since != self.changes()
    }

    /// Every statement that anybody still knows, to tell another process: the oldest first, so that none comes before
    /// what it needs.
    pub fn all(&self) -> Vec<Arc<Statement>> {
        let inner = self.lock();
        let known = inner.by_definition.values().flatten();
        let mut known: Vec<_> = known.filter_map(Weak::upgrade).collect();
        known.sort_unstable_by_key(|statement| statement.id.0);
        known
    }

    /// A statement that has its identity, and its name on servers, from another process.
    pub fn adopt(
        &self,
        id: StatementId,
        definition: &[u8],
        needs: Option<Arc<Statement>>,
    ) -> Arc<Statement> {
        let mut inner = self.lock();
        inner.last_id = inner.last_id.max(id.0);
        // How its session read it is not told.
        let reading = Reading::unless_told(definition).unwrap_or(Reading::Once);
        inner.enter(id, definition, reading, needs, self.changes())
    }

    /// The identity that was given out last.
    pub fn last_id(&self) -> StatementId {
        let inner = self.lock();
        StatementId(inner.last_id)
    }

    /// Gives out no identity up to this one: servers may know its name for something else.
    pub fn begin_after(&self, id: StatementId) {
        let mut inner = self.lock();
        inner.last_id = inner.last_id.max(id.0);
    }
}

impl Inner {
    /// The statement with this definition, if one is known that means it still.
    fn current(&self, definition: &[u8], reading: Reading, changes: u64) -> Option<Arc<Statement>> {
        if reading == Reading::Once {
            return None;
        }
        let is_current =
            |statement: &Arc<Statement>| statement.reading == reading && statement.since == changes;
        let known = self.by_definition.get(definition)?.iter().rev();
        known.filter_map(Weak::upgrade).find(is_current)
    }

    fn create(
        &mut self,
        definition: &[u8],
        reading: Reading,
        needs: Option<Arc<Statement>>,
        changes: u64,
    ) -> Arc<Statement> {
        if self.by_definition.len() >= self.sweep_at {
            self.by_definition
                .retain(|_, known| known.iter().any(is_in_use));
            self.sweep_at = 64.max(self.by_definition.len() * 2);
        }
        self.last_id += 1;
        let id = StatementId(self.last_id);
        self.enter(id, definition, reading, needs, changes)
    }

    fn enter(
        &mut self,
        id: StatementId,
        definition: &[u8],
        reading: Reading,
        needs: Option<Arc<Statement>>,
        since: u64,
    ) -> Arc<Statement> {
        let known = self.by_definition.get_key_value(definition);
        let definition = known.map_or_else(|| definition.into(), |(known, _)| Arc::clone(known));
        let statement = Arc::new(Statement {
            id,
            server_name: format!("{SERVER_NAME}{}", id.0).into(),
            scan: scan(&definition),
            definition: Arc::clone(&definition),
            needs,
            reading,
            described: OnceLock::new(),
            since,
        });
        let known = self.by_definition.entry(definition).or_default();
        if known.len() == known.capacity() {
            known.retain(is_in_use);
        }
        known.push(Arc::downgrade(&statement));
        statement
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self(LruCache::unbounded())
    }
}

impl Seen {
    /// Whether this has been seen lately. It has, from now on.
    fn see(&mut self, print: u64) -> bool {
        let is_seen = self.0.put(print, ()).is_some();
        if self.0.len() > SEEN_MAX {
            self.0.pop_lru();
        }
        is_seen
    }
}

fn is_in_use(statement: &Weak<Statement>) -> bool {
    statement.strong_count() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_statements_have_one_identity() {
        let table = StatementTable::default();
        let one = table.intern(b"select 1\0\0\0", Reading::Fixed);
        let same = table.intern(b"select 1\0\0\0", Reading::Fixed);
        let other = table.intern(b"select 2\0\0\0", Reading::Fixed);
        assert_eq!(one.id, same.id);
        assert_ne!(one.id, other.id);
        assert_eq!(&*one.server_name, "PGBOUNCER_1");
    }

    #[test]
    fn a_name_is_never_used_for_another_statement() {
        let table = StatementTable::default();
        let first = table.intern(b"a", Reading::Fixed).id;
        assert_ne!(table.intern(b"b", Reading::Fixed).id, first);
        assert_ne!(
            table.intern(b"a", Reading::Fixed).id,
            first,
            "the first one is gone, its name is not reused"
        );
    }

    #[test]
    fn an_adopted_statement_keeps_its_name_and_others_get_new_ones() {
        let table = StatementTable::default();
        let adopted = table.adopt(StatementId(7), b"a", None);
        assert_eq!(&*adopted.server_name, "PGBOUNCER_7");
        assert_eq!(table.intern(b"a", Reading::Fixed).id, adopted.id);
        assert_eq!(
            &*table.intern(b"b", Reading::Fixed).server_name,
            "PGBOUNCER_8"
        );
        table.begin_after(StatementId(100));
        assert_eq!(
            &*table.intern(b"c", Reading::Fixed).server_name,
            "PGBOUNCER_101"
        );
    }

    #[test]
    fn what_is_read_in_another_way_is_another_statement() {
        let table = StatementTable::default();
        let intern = |reading| table.intern(b"select '1/2/2026'::date\0\0\0", reading);
        let one = intern(Reading::Under(1));
        let two = intern(Reading::Under(2));
        assert_ne!(one.id, two.id);
        assert_eq!(intern(Reading::Under(1)).id, one.id);
        assert_eq!(intern(Reading::Under(2)).id, two.id);
        let once = intern(Reading::Once);
        assert_ne!(intern(Reading::Once).id, once.id);
        assert_eq!(table.all().len(), 3, "whoever is in use");
    }

    #[test]
    fn dead_statements_are_swept() {
        let table = StatementTable::default();
        for n in 0..10_000_u32 {
            table.intern(&n.to_be_bytes(), Reading::Fixed);
        }
        assert!(table.inner.lock().unwrap().by_definition.len() <= 64);
    }
}
