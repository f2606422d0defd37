//! Prepared statements in transaction mode, under names of the pooler's own.
//!
//! A client names its statements as it likes; on servers each distinct statement has one name,
//! `PGBOUNCER_n`. [`StatementTable`] gives equal statements one identity, [`ClientStatements`] maps a
//! client's names to it, [`ServerStatements`] knows what a server has been taught and which of it
//! was used least recently.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use foldhash::fast::{FixedState, RandomState};
use lru::LruCache;

use crate::residue::{Scan, scan};

/// What the names of statements begin with on servers.
pub(crate) const SERVER_NAME: &str = "PGBOUNCER_";

/// The identity of a statement, for the life of the process.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct StatementId(pub u64);

/// A statement as Parse gave it.
pub struct Statement {
    /// Its identity.
    pub id: StatementId,
    /// Its name on every server.
    pub server_name: Box<str>,
    /// The body of Parse behind the name: query text and parameter types.
    pub definition: Arc<[u8]>,
    /// What its text says of what it leaves in a session.
    pub scan: Scan,
    /// The statement that it executes by its name.
    pub needs: Option<Arc<Self>>,
    /// What it returns, by the first answer to a Describe: see `outgrown.rs`.
    pub described: OnceLock<u64>,
    /// How often definitions had been changed when it got its identity.
    since: u64,
}

impl fmt::Debug for Statement {
    /// Leaves the query text out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Statement").field(&self.id).finish()
    }
}

/// All statements that any client or server still knows, equal ones once.
#[derive(Debug, Default)]
pub struct StatementTable {
    inner: Mutex<Inner>,
    /// How often definitions have been changed.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    by_definition: HashMap<Arc<[u8]>, Weak<Statement>>,
    /// Statements that have another identity by now and are still in use.
    former: Vec<Weak<Statement>>,
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
    /// The statement with this definition, new or known.
    pub fn intern(&self, definition: &[u8]) -> Arc<Statement> {
        self.intern_needing(definition, None)
    }

    /// The same for a statement that executes another by its name on servers.
    pub fn intern_needing(
        &self,
        definition: &[u8],
        needs: Option<Arc<Statement>>,
    ) -> Arc<Statement> {
        let mut inner = self.lock();
        let changes = self.changes();
        inner
            .current(definition, changes)
            .unwrap_or_else(|| inner.create(definition, needs, changes))
    }

    /// The statement with this definition if it is known, or if the definition was seen not long ago: it will come
    /// again.
    pub fn recurring(&self, definition: &[u8]) -> Option<Arc<Statement>> {
        let mut inner = self.lock();
        let changes = self.changes();
        let known = inner.current(definition, changes);
        known.or_else(|| {
            let was_known = inner.by_definition.contains_key(definition);
            let print = FixedState::default().hash_one(definition);
            let recurs = was_known || inner.seen.see(print);
            recurs.then(|| inner.create(definition, None, changes))
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

    /// Every statement that anybody still knows, to tell another process.
    pub fn all(&self) -> Vec<Arc<Statement>> {
        let inner = self.lock();
        // Whoever adopts them goes on with the last one of several equal ones.
        let known = inner.former.iter().chain(inner.by_definition.values());
        known.filter_map(Weak::upgrade).collect()
    }

    /// A statement that has its identity, and its name on servers, from another process.
    pub fn adopt(&self, id: StatementId, definition: &[u8]) -> Arc<Statement> {
        let mut inner = self.lock();
        inner.last_id = inner.last_id.max(id.0);
        inner.enter(id, definition, None, self.changes())
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
    fn current(&self, definition: &[u8], changes: u64) -> Option<Arc<Statement>> {
        let known = self.by_definition.get(definition)?;
        known
            .upgrade()
            .filter(|statement| statement.since == changes)
    }

    fn create(
        &mut self,
        definition: &[u8],
        needs: Option<Arc<Statement>>,
        changes: u64,
    ) -> Arc<Statement> {
        if self.by_definition.len() >= self.sweep_at {
            self.by_definition
                .retain(|_, statement| statement.strong_count() > 0);
            self.sweep_at = 64.max(self.by_definition.len() * 2);
        }
        self.last_id += 1;
        let id = StatementId(self.last_id);
        self.enter(id, definition, needs, changes)
    }

    fn enter(
        &mut self,
        id: StatementId,
        definition: &[u8],
        needs: Option<Arc<Statement>>,
        since: u64,
    ) -> Arc<Statement> {
        let definition: Arc<[u8]> = definition.into();
        let statement = Arc::new(Statement {
            id,
            server_name: format!("{SERVER_NAME}{}", id.0).into(),
            scan: scan(&definition),
            definition: Arc::clone(&definition),
            needs,
            described: OnceLock::new(),
            since,
        });
        let entry = Arc::downgrade(&statement);
        if let Some(former) = self.by_definition.insert(definition, entry)
            && former.strong_count() > 0
        {
            if self.former.len() == self.former.capacity() {
                self.former.retain(|known| known.strong_count() > 0);
            }
            self.former.push(former);
        }
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

/// A client's names. No name is one, too, while its statement is prepared under one of the pooler's own.
#[derive(Debug, Default)]
pub struct ClientStatements {
    by_name: HashMap<Box<[u8]>, Arc<Statement>, RandomState>,
    unnamed: Option<Arc<Statement>>,
}

impl ClientStatements {
    /// What a name stands for.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        match name {
            [] => self.unnamed.as_ref(),
            _ => self.by_name.get(name),
        }
    }

    /// Whether the name is taken.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.by_name.contains_key(name)
    }

    /// Gives a statement a name.
    pub fn insert(&mut self, name: Box<[u8]>, statement: Arc<Statement>) {
        match &*name {
            [] => self.unnamed = Some(statement),
            _ => drop(self.by_name.insert(name, statement)),
        }
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        match name {
            [] => self.unnamed.take(),
            _ => self.by_name.remove(name),
        }
    }

    /// Takes all names away.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// All names but none, and what they stand for.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        self.by_name.iter().map(|(name, stands)| (&**name, stands))
    }

    /// How many names there are, apart from none.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// The statement without a name that a client has parsed last. On a server the next client's takes its
/// place, so it is kept to be sent again.
#[derive(Debug, Default)]
pub struct Unnamed {
    kept: Option<Box<Kept>>,
}

#[derive(Debug)]
struct Kept {
    definition: Vec<u8>,
    /// Whether it may name what is the client's affair.
    speaks_of_own: bool,
}

/// Longer definitions are not kept, in bytes.
const UNNAMED_MAX: usize = 1024 * 1024;

/// Memory that is kept for the next definition, in bytes.
const UNNAMED_ROOM: usize = 4 * 1024;

impl Unnamed {
    /// The client has parsed it: the body of Parse behind the name.
    pub fn set(&mut self, definition: &[u8], speaks_of_own: bool) {
        if definition.len() > UNNAMED_MAX {
            self.kept = None;
            return;
        }
        match &mut self.kept {
            Some(kept) if kept.definition.capacity() <= UNNAMED_ROOM => {
                kept.speaks_of_own = speaks_of_own;
                kept.definition.clear();
                kept.definition.extend_from_slice(definition);
            }
            kept => {
                let definition = definition.to_vec();
                *kept = Some(Box::new(Kept {
                    definition,
                    speaks_of_own,
                }));
            }
        }
    }

    /// What it is, if there is one.
    pub fn get(&self) -> Option<&[u8]> {
        self.kept.as_ref().map(|kept| &*kept.definition)
    }

    /// Whether it may name what is the client's affair.
    #[inline]
    pub fn speaks_of_own(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.speaks_of_own)
    }

    /// There is none.
    pub fn clear(&mut self) {
        self.kept = None;
    }
}

/// What a server has been taught.
#[derive(Debug)]
pub struct ServerStatements {
    by_use: LruCache<StatementId, Arc<Statement>>,
}

impl Default for ServerStatements {
    fn default() -> Self {
        // The bound is `max_prepared_statements`, which may change at run time: the relay keeps it.
        Self {
            by_use: LruCache::unbounded(),
        }
    }
}

impl ServerStatements {
    /// Whether the server has the statement; it counts as used now.
    pub fn touch(&mut self, id: StatementId) -> bool {
        // Mostly it was used last as well, and then nothing changes.
        let last = self.by_use.peek_mru();
        last.is_some_and(|(last, _)| *last == id) || self.by_use.get(&id).is_some()
    }

    /// The server has been taught the statement.
    pub fn insert(&mut self, statement: Arc<Statement>) {
        self.by_use.put(statement.id, statement);
    }

    /// The server has not got the statement any more.
    pub fn remove(&mut self, id: StatementId) {
        self.by_use.pop(&id);
    }

    /// The least recently used statement for which `may_go` holds.
    pub fn least_used(&self, may_go: impl Fn(StatementId) -> bool) -> Option<&Arc<Statement>> {
        let mut oldest_first = self.by_use.iter().rev();
        oldest_first
            .find(|(id, _)| may_go(**id))
            .map(|(_, statement)| statement)
    }

    /// All statements, the least recently used first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Statement>> {
        self.by_use.iter().rev().map(|(_, statement)| statement)
    }

    /// The server has forgotten everything.
    pub fn clear(&mut self) {
        self.by_use.clear();
    }

    /// How many statements the server will have after some changes.
    pub fn len_after(&self, outcomes: &HashMap<StatementId, bool>) -> usize {
        let after = outcomes.values().filter(|has| **has).count();
        let before = outcomes.keys().filter(|id| self.by_use.contains(id));
        self.by_use.len() - before.count() + after
    }

    /// How many statements the server has.
    pub fn len(&self) -> usize {
        self.by_use.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.by_use.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_statements_have_one_identity() {
        let table = StatementTable::default();
        let one = table.intern(b"select 1\0\0\0");
        let same = table.intern(b"select 1\0\0\0");
        let other = table.intern(b"select 2\0\0\0");
        assert_eq!(one.id, same.id);
        assert_ne!(one.id, other.id);
        assert_eq!(&*one.server_name, "PGBOUNCER_1");
    }

    #[test]
    fn a_name_is_never_used_for_another_statement() {
        let table = StatementTable::default();
        let first = table.intern(b"a").id;
        assert_ne!(table.intern(b"b").id, first);
        assert_ne!(
            table.intern(b"a").id,
            first,
            "the first one is gone, its name is not reused"
        );
    }

    #[test]
    fn an_adopted_statement_keeps_its_name_and_others_get_new_ones() {
        let table = StatementTable::default();
        let adopted = table.adopt(StatementId(7), b"a");
        assert_eq!(&*adopted.server_name, "PGBOUNCER_7");
        assert_eq!(table.intern(b"a").id, adopted.id);
        assert_eq!(&*table.intern(b"b").server_name, "PGBOUNCER_8");
        table.begin_after(StatementId(100));
        assert_eq!(&*table.intern(b"c").server_name, "PGBOUNCER_101");
    }

    #[test]
    fn dead_statements_are_swept() {
        let table = StatementTable::default();
        for n in 0..10_000_u32 {
            table.intern(&n.to_be_bytes());
        }
        assert!(table.inner.lock().unwrap().by_definition.len() <= 64);
    }

    #[test]
    fn the_least_recently_used_statement_goes_first() {
        let table = StatementTable::default();
        let (a, b) = (table.intern(b"a"), table.intern(b"b"));
        let mut server = ServerStatements::default();
        server.insert(Arc::clone(&a));
        server.insert(Arc::clone(&b));
        assert!(server.touch(a.id));
        assert_eq!(server.least_used(|_| true).map(|s| s.id), Some(b.id));
        assert_eq!(server.least_used(|id| id != b.id).map(|s| s.id), Some(a.id));
    }
}
