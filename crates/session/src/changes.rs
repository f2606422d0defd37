//! What the messages under way will change in the books of prepared statements.
//!
//! The books ([`ClientStatements`], [`ServerStatements`]) hold what has been answered. A change
//! enters them with its reply; one that the server skips after an error never does. Until then it
//! is here, because the next message may need it.
//!
//! Messages between two Syncs succeed or are skipped together: a change of the current batch is as
//! good as done. One of an earlier batch may never happen, so nothing is built on it.
//!
//! [`ClientStatements`]: crate::prepared::ClientStatements
//! [`ServerStatements`]: crate::prepared::ServerStatements

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::handover::{Bytes, Catalogue, UnknownStatement};
use crate::prepared::{Statement, StatementId};

/// A change that enters the books with a reply.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// The client's Parse gives a name.
    Named {
        /// The client's name.
        name: Box<[u8]>,
        /// What it stands for.
        statement: Arc<Statement>,
        /// Whether the server is sent the statement.
        sent: bool,
    },
    /// The client's Close takes a name away.
    Closed(Box<[u8]>),
    /// A Describe of the client's tells what a statement returns.
    Described(Arc<Statement>),
    /// A Describe of the pooler's own tells whether it still returns that.
    Compared(Arc<Statement>),
    /// A Parse of the pooler's own.
    Taught(Arc<Statement>),
    /// A Close of the pooler's own.
    Evicted(StatementId),
    /// An Execute of the client's DEALLOCATE takes a name away, and the statement from the server.
    Deallocated {
        /// The client's name.
        name: Box<[u8]>,
        /// What it stands for.
        id: StatementId,
    },
}

/// Whether a server has a statement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Presence {
    /// When it reads the next message of this batch, it has.
    Has,
    /// It has not.
    Lacks,
    /// Nobody knows before an earlier batch is answered.
    Unknown,
}

/// Changes under way, in order.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pending: VecDeque<(u64, Change)>,
    batch: u64,
}

impl Changes {
    /// Notes a change that has been, or is being, sent.
    pub(crate) fn push(&mut self, change: Change) {
        self.pending.push_back((self.batch, change));
    }

    /// What follows is another batch.
    #[inline]
    pub(crate) fn end_batch(&mut self) {
        self.batch += 1;
    }

    /// The number of the current batch.
    #[inline]
    pub(crate) fn batch(&self) -> u64 {
        self.batch
    }

    /// The statement that the server is sent next, if the first change is that.
    pub(crate) fn next_sent(&self) -> Option<&Arc<Statement>> {
        match self.pending.front() {
            Some((
                _,
                Change::Taught(statement)
                | Change::Named {
                    statement,
                    sent: true,
                    ..
                },
            )) => Some(statement),
            _ => None,
        }
    }

    /// The statement that is described next, if the first change is that, and whether that is the
    /// pooler's affair.
    pub(crate) fn next_described(&self) -> Option<(&Arc<Statement>, bool)> {
        match self.pending.front() {
            Some((_, Change::Described(statement))) => Some((statement, false)),
            Some((_, Change::Compared(statement))) => Some((statement, true)),
            _ => None,
        }
    }

    /// The first change has been answered or skipped.
    pub(crate) fn pop(&mut self) -> Option<Change> {
        self.pending.pop_front().map(|(_, change)| change)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What a client's name will stand for: `None` if nothing changes, `Some(None)` if it will
    /// stand for nothing.
    #[inline]
    pub(crate) fn named(&self, wanted: &[u8]) -> Option<Option<&Arc<Statement>>> {
        match self.is_empty() {
            true => None,
            false => self.find_named(wanted),
        }
    }

    fn find_named(&self, wanted: &[u8]) -> Option<Option<&Arc<Statement>>> {
        self.pending
            .iter()
            .rev()
            .find_map(|(_, change)| match change {
                Change::Named {
                    name, statement, ..
                } if **name == *wanted => Some(Some(statement)),
                Change::Closed(name) | Change::Deallocated { name, .. } if **name == *wanted => {
                    Some(None)
                }
                Change::Named { .. }
                | Change::Closed(_)
                | Change::Deallocated { .. }
                | Change::Described(_)
                | Change::Compared(_)
                | Change::Taught(_)
                | Change::Evicted(_) => None,
            })
    }

    /// Makes of the names that stand for statements those that will.
    pub(crate) fn rename(&self, names: &mut BTreeMap<Box<[u8]>, Arc<Statement>>) {
        for (_, change) in &self.pending {
            match change {
                Change::Named {
                    name, statement, ..
                } if !name.is_empty() => {
                    names.insert(name.clone(), Arc::clone(statement));
                }
                Change::Closed(name) | Change::Deallocated { name, .. } => {
                    names.remove(name);
                }
                Change::Named { .. }
                | Change::Described(_)
                | Change::Compared(_)
                | Change::Taught(_)
                | Change::Evicted(_) => {}
            }
        }
    }

    /// Whether the server will have a statement; `None` if nothing changes.
    pub(crate) fn presence(&self, id: StatementId) -> Option<Presence> {
        let (batch, has) = self.pending.iter().rev().find_map(|(batch, change)| {
            let (changed, has) = change.on_server()?;
            (changed == id).then_some((*batch, has))
        })?;
        Some(match (batch == self.batch, has) {
            (false, _) => Presence::Unknown,
            (true, true) => Presence::Has,
            (true, false) => Presence::Lacks,
        })
    }

    /// Which statements are concerned, and whether the server will have them in the end.
    pub(crate) fn outcomes(&self) -> HashMap<StatementId, bool> {
        let on_server = self.pending.iter().filter_map(|(_, c)| c.on_server());
        on_server.collect()
    }

    /// The statement that was taught first among those that are still on their way and will stay.
    pub(crate) fn oldest_taught(&self) -> Option<Arc<Statement>> {
        let taught = self.pending.iter().filter_map(|(_, change)| match change {
            Change::Taught(statement)
            | Change::Named {
                statement,
                sent: true,
                ..
            } => Some(statement),
            Change::Named { .. }
            | Change::Closed(_)
            | Change::Described(_)
            | Change::Compared(_)
            | Change::Evicted(_)
            | Change::Deallocated { .. } => None,
        });
        let outcomes = self.outcomes();
        let mut staying = taught.filter(|statement| outcomes.get(&statement.id) == Some(&true));
        staying.next().map(Arc::clone)
    }
}

impl Change {
    /// Which statement the server has or has not after this.
    fn on_server(&self) -> Option<(StatementId, bool)> {
        match self {
            Self::Taught(statement)
            | Self::Named {
                statement,
                sent: true,
                ..
            } => Some((statement.id, true)),
            Self::Evicted(id) | Self::Deallocated { id, .. } => Some((*id, false)),
            Self::Named { .. } | Self::Closed(_) | Self::Described(_) | Self::Compared(_) => None,
        }
    }
}

/// [`Changes`], told to another process; statements are named by their ids.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ChangesState {
    pending: Vec<(u64, ChangeState)>,
    batch: u64,
}

#[derive(Debug, Deserialize, Serialize)]
enum ChangeState {
    Named { name: Bytes, id: u64, sent: bool },
    Closed { name: Bytes },
    Described { id: u64 },
    Compared { id: u64 },
    Taught { id: u64 },
    Evicted { id: u64 },
    Deallocated { name: Bytes, id: u64 },
}

impl Changes {
    /// What they are.
    pub(crate) fn state(&self) -> ChangesState {
        let told = |change: &Change| match change {
            Change::Named {
                name,
                statement,
                sent,
            } => ChangeState::Named {
                name: Bytes(name.to_vec()),
                id: statement.id.0,
                sent: *sent,
            },
            Change::Closed(name) => ChangeState::Closed {
                name: Bytes(name.to_vec()),
            },
            Change::Described(statement) => ChangeState::Described { id: statement.id.0 },
            Change::Compared(statement) => ChangeState::Compared { id: statement.id.0 },
            Change::Taught(statement) => ChangeState::Taught { id: statement.id.0 },
            Change::Evicted(id) => ChangeState::Evicted { id: id.0 },
            Change::Deallocated { name, id } => ChangeState::Deallocated {
                name: Bytes(name.to_vec()),
                id: id.0,
            },
        };
        let pending = self.pending.iter();
        ChangesState {
            pending: pending
                .map(|(batch, change)| (*batch, told(change)))
                .collect(),
            batch: self.batch,
        }
    }

    /// The changes that were this.
    ///
    /// # Errors
    /// They name a statement that is in no catalogue.
    pub(crate) fn restore(
        state: ChangesState,
        catalogue: &Catalogue,
    ) -> Result<Self, UnknownStatement> {
        let read = |change| {
            Ok(match change {
                ChangeState::Named { name, id, sent } => Change::Named {
                    name: name.0.into(),
                    statement: catalogue.find(id)?,
                    sent,
                },
                ChangeState::Closed { name } => Change::Closed(name.0.into()),
                ChangeState::Described { id } => Change::Described(catalogue.find(id)?),
                ChangeState::Compared { id } => Change::Compared(catalogue.find(id)?),
                ChangeState::Taught { id } => Change::Taught(catalogue.find(id)?),
                ChangeState::Evicted { id } => Change::Evicted(StatementId(id)),
                ChangeState::Deallocated { name, id } => Change::Deallocated {
                    name: name.0.into(),
                    id: StatementId(id),
                },
            })
        };
        let pending = state.pending.into_iter();
        Ok(Self {
            pending: pending
                .map(|(batch, change)| Ok((batch, read(change)?)))
                .collect::<Result<_, _>>()?,
            batch: state.batch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepared::StatementTable;
    use crate::reading::Reading;

    fn statement() -> Arc<Statement> {
        StatementTable::default().intern(b"select 1\0\0\0", Reading::Fixed)
    }

    #[test]
    fn a_change_of_this_batch_is_as_good_as_done() {
        let (statement, mut changes) = (statement(), Changes::default());
        changes.push(Change::Taught(Arc::clone(&statement)));
        assert_eq!(changes.presence(statement.id), Some(Presence::Has));
        changes.push(Change::Evicted(statement.id));
        assert_eq!(changes.presence(statement.id), Some(Presence::Lacks));
    }

    #[test]
    fn nothing_is_built_on_a_change_of_an_earlier_batch() {
        let (statement, mut changes) = (statement(), Changes::default());
        changes.push(Change::Taught(Arc::clone(&statement)));
        changes.end_batch();
        assert_eq!(changes.presence(statement.id), Some(Presence::Unknown));
        changes.pop();
        assert_eq!(changes.presence(statement.id), None);
    }

    #[test]
    fn the_last_word_on_a_name_counts() {
        let (statement, mut changes) = (statement(), Changes::default());
        assert!(changes.named(b"a").is_none());
        changes.push(Change::Named {
            name: (*b"a").into(),
            statement,
            sent: false,
        });
        assert!(changes.named(b"a").is_some_and(|named| named.is_some()));
        changes.push(Change::Closed((*b"a").into()));
        assert!(changes.named(b"a").is_some_and(|named| named.is_none()));
    }

    #[test]
    fn what_is_to_be_closed_again_makes_no_room() {
        let (statement, mut changes) = (statement(), Changes::default());
        changes.push(Change::Taught(Arc::clone(&statement)));
        assert!(changes.outcomes()[&statement.id]);
        assert!(changes.oldest_taught().is_some());
        changes.push(Change::Evicted(statement.id));
        assert!(!changes.outcomes()[&statement.id]);
        assert!(changes.oldest_taught().is_none());
    }
}
