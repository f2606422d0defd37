//! Replies that the pooler gives in the server's place, and what a reply, whoever gives it, changes in the
//! books of prepared statements.

use std::sync::Arc;

use bytes::BytesMut;
use pgweir_wire::backend;

use super::{ClientSide, Relay};
use crate::changes::Change;
use crate::pipeline::{Answered, Awaited, Reply};

impl Relay {
    /// Whether the next reply is the pooler's to give.
    #[inline]
    pub(super) fn owes_fake(&self) -> bool {
        matches!(self.pipeline.front(), Some((_, Reply::Fake)))
    }

    /// Appends the replies whose turn it is and that the server was not asked for.
    #[cold]
    pub(super) fn give_fakes(&mut self, client: &mut ClientSide, out: &mut BytesMut) {
        while let Some(fake) = self.pipeline.pop_fake() {
            self.give(fake, client, out);
        }
    }

    /// ReadyForQuery has come while nobody knew what was owed.
    #[cold]
    pub(super) fn end_unknown(&mut self, client: &mut ClientSide, out: &mut BytesMut) {
        for answered in self.pipeline.end_unknown() {
            self.give(answered, client, out);
        }
    }

    /// Appends a reply, if it is the pooler's to give, and enters what it changes.
    fn give(&mut self, answered: Answered, client: &mut ClientSide, out: &mut BytesMut) {
        match (answered.reply, answered.awaited) {
            (Reply::Fake, Awaited::Query) => {
                backend::command_complete(out, "DEALLOCATE");
                backend::ready_for_query(out, self.status);
            }
            (Reply::Fake, other) => out.extend_from_slice(fake_reply(other)),
            (Reply::Forward | Reply::Skip, _) => {}
        }
        if let Some(change) = answered.change {
            self.change(change, client);
        }
    }

    /// Enters a change into the books.
    #[cold]
    pub(super) fn change(&mut self, change: Change, client: &mut ClientSide) {
        match change {
            Change::Named {
                name,
                statement,
                sent,
            } => {
                if sent {
                    self.statements.insert(Arc::clone(&statement));
                }
                client.statements.insert(name, statement);
            }
            Change::Closed(name) => {
                client.statements.remove(&name);
            }
            // What was said has been looked at.
            Change::Described(_) | Change::Compared(_) => {}
            Change::Taught(statement) => self.statements.insert(statement),
            Change::Evicted(id) => self.statements.remove(id),
            Change::Deallocated { name, id } => {
                client.statements.remove(&name);
                self.statements.remove(id);
            }
        }
    }
}

fn fake_reply(awaited: Awaited) -> &'static [u8] {
    match awaited {
        Awaited::Parse => &backend::PARSE_COMPLETE,
        Awaited::Close => &backend::CLOSE_COMPLETE,
        other => unreachable!("{other:?} is never answered by the pooler"),
    }
}
