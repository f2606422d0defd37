//! Prepared statements in transaction mode, under names of the pooler's own.
//!
//! A client names its statements as it likes; on servers each distinct statement has one name,
//! `PGBOUNCER_n`. [`StatementTable`] gives equal statements one identity, [`ClientStatements`] maps a
//! client's names to it, [`ServerStatements`] knows what a server has been taught and which of it
//! was used least recently.

mod table;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use lru::LruCache;

pub use table::StatementTable;

use crate::reading::Reading;
use crate::residue::Scan;

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
    /// How its literals are read.
    pub(crate) reading: Reading,
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

/// A client's names. No name is one, too, while its statement is prepared under one of the pooler's own.
#[derive(Debug, Default)]
pub struct ClientStatements {
    by_name: HashMap<Box<[u8]>, Arc<Statement>, RandomState>,
}

impl ClientStatements {
    /// What a name stands for.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<Statement>> {
        self.by_name.get(name)
    }

    /// Whether the name is taken.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.by_name.contains_key(name)
    }

    /// Gives a statement a name.
    pub fn insert(&mut self, name: Box<[u8]>, statement: Arc<Statement>) {
        self.by_name.insert(name, statement);
    }

    /// Takes a name away.
    pub fn remove(&mut self, name: &[u8]) -> Option<Arc<Statement>> {
        self.by_name.remove(name)
    }

    /// Takes all names away.
    pub fn clear(&mut self) {
        self.by_name = HashMap::default();
    }

    /// All names but none, and what they stand for.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Statement>)> {
        let named = self.by_name.iter().filter(|(name, _)| !name.is_empty());
        named.map(|(name, stands)| (&**name, stands))
    }

    /// How many names there are, apart from none.
    pub fn len(&self) -> usize {
        self.by_name.len() - usize::from(self.contains(b""))
    }

    /// Whether there are none, apart from none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    fn the_least_recently_used_statement_goes_first() {
        let table = StatementTable::default();
        let (a, b) = (
            table.intern(b"a", Reading::Fixed),
            table.intern(b"b", Reading::Fixed),
        );
        let mut server = ServerStatements::default();
        server.insert(Arc::clone(&a));
        server.insert(Arc::clone(&b));
        assert!(server.touch(a.id));
        assert_eq!(server.least_used(|_| true).map(|s| s.id), Some(b.id));
        assert_eq!(server.least_used(|id| id != b.id).map(|s| s.id), Some(a.id));
    }
}
