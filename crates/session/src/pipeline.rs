//! The replies that a server still owes, in the order in which it will give them.
//!
//! Load-bearing rules:
//! 1. Every message that makes the server answer is pushed when it is sent, none later.
//! 2. A reply of the pooler's own (`Fake`) waits for its turn behind the server's replies.
//! 3. An error takes everything up to the next Sync with it, and what those messages were to change
//!    in the books of prepared statements.
//! 4. What was asked before this process took a connection over may be [`Awaited::Unknown`]: until
//!    the next ReadyForQuery whatever the server says is the client's.
//! 5. In COPY IN mode the server ignores Sync, so Syncs that it reads there are owed nothing. When
//!    the COPY fails nobody knows whether it had read them: see [`Pipeline::is_in_doubt`].

mod copy_in;
mod owed;
mod state;

use std::sync::Arc;

pub(crate) use copy_in::CopyIn;
use copy_in::Doubt;
use owed::Owed;
pub(crate) use owed::{Awaited, Reply};
pub(crate) use state::PipelineState;

use crate::changes::{Change, Changes};
use crate::prepared::Statement;
use crate::queue::Queue;

/// The queue of owed replies.
#[derive(Debug, Default)]
pub(crate) struct Pipeline {
    owed: Queue<Owed>,
    changes: Changes,
    /// Whether an extended query has begun that no Sync has ended. All of it may be answered (after
    /// a Flush), and still the server keeps an unnamed statement, a portal and a transaction for it.
    open: bool,
    /// Whether something has been executed since the server told all its parameters, which it does before
    /// ReadyForQuery.
    executed: bool,
    /// How many of the owed replies are to messages that may make the server forget.
    forgetting: usize,
    doubt: Doubt,
    /// Whether an error has come while nobody knows what was owed.
    unknown_failed: bool,
}

impl Pipeline {
    /// Whether the server owes nothing.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether the last thing sent belongs to an extended query that still needs its Sync.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.open
    }

    /// Notes that a message has been (or is being) sent.
    #[inline]
    pub(crate) fn push(&mut self, awaited: Awaited, reply: Reply) {
        self.push_owed(awaited, reply, false);
    }

    /// As [`Self::push`], with what the reply changes in the books of prepared statements.
    pub(crate) fn push_change(&mut self, awaited: Awaited, reply: Reply, change: Change) {
        self.changes.push(change);
        self.push_owed(awaited, reply, true);
    }

    /// Whether the message that the server is answering now changes something, or is looked at.
    #[inline]
    pub(crate) fn front_changes(&self) -> bool {
        self.owed.front().is_some_and(|owed| owed.changes)
    }

    /// The statement that the server describes now, if it matters what it says, and whether that is the
    /// pooler's affair.
    pub(crate) fn describes(&self) -> Option<(&Arc<Statement>, bool)> {
        let owed = self.owed.front().filter(|owed| owed.changes);
        owed.and_then(|_| self.changes.next_described())
    }

    /// The statement that the server is being sent in the message that it answers now.
    pub(crate) fn front_sends(&self) -> Option<&Arc<Statement>> {
        let owed = self.owed.front().filter(|owed| owed.changes);
        owed.and_then(|_| self.changes.next_sent())
    }

    /// Changes that have not been answered.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Notes a Query or an Execute that may make the server forget its prepared statements.
    pub(crate) fn push_forgetting(&mut self, awaited: Awaited) {
        self.push(awaited, Reply::Forward);
        // What has been sent before, even in the same batch, is as uncertain as that of an earlier one.
        self.changes.end_batch();
        if let Some(owed) = self.owed.back_mut() {
            owed.forgets = true;
            self.forgetting += 1;
        }
    }

    /// Whether such a message is unanswered: then nobody knows which statements the server has.
    #[inline]
    pub(crate) fn may_forget(&self) -> bool {
        self.forgetting > 0
    }

    #[inline]
    fn push_owed(&mut self, awaited: Awaited, reply: Reply, changes: bool) {
        if awaited.ends_with_ready() {
            self.changes.end_batch();
        }
        self.executed |= reply != Reply::Fake
            && matches!(
                awaited,
                Awaited::Query | Awaited::Execute | Awaited::FunctionCall | Awaited::Unknown
            );
        if awaited != Awaited::CopyEnd {
            self.open = !awaited.ends_with_ready();
        }
        self.owed.push_back(Owed {
            awaited,
            reply,
            changes,
            forgets: false,
        });
    }

    /// The message that the server is answering now.
    #[inline]
    pub(crate) fn front(&self) -> Option<(Awaited, Reply)> {
        self.owed.front().map(|owed| (owed.awaited, owed.reply))
    }

    /// Whether nothing that is owed can begin a transaction block.
    pub(crate) fn executes_nothing(&self) -> bool {
        self.owed.iter().all(|owed| match owed.awaited {
            Awaited::Parse | Awaited::Bind | Awaited::Describe | Awaited::Close | Awaited::Sync => {
                true
            }
            Awaited::Execute
            | Awaited::Query
            | Awaited::FunctionCall
            | Awaited::CopyEnd
            | Awaited::Unknown => false,
        })
    }

    /// How many of the client's queries and pipelines the server has not ended yet. One that the
    /// client began and the pooler ends counts as well.
    pub(crate) fn batches(&self) -> usize {
        let mut batches = 0;
        let mut begun = false;
        for owed in self.owed.iter() {
            begun |= owed.reply != Reply::Skip;
            if begun && owed.awaited.ends_with_ready() {
                batches += 1;
                begun = false;
            }
        }
        batches + usize::from(begun)
    }

    /// The server's reply to `awaited` is complete. `None` if that is not what it owed: then the
    /// books and the server disagree, and the connection must not be trusted any more.
    #[inline]
    pub(crate) fn answered(&mut self, awaited: Awaited) -> Option<Answered> {
        match self.owed.front()?.awaited {
            owed if owed == awaited => self.pop(),
            Awaited::Unknown => Some(Answered {
                awaited,
                reply: Reply::Forward,
                change: None,
            }),
            _ => None,
        }
    }

    /// Whether the server may still be answering what nobody knows.
    #[inline]
    pub(crate) fn owes_unknown(&self) -> bool {
        self.owed
            .front()
            .is_some_and(|owed| owed.awaited == Awaited::Unknown)
    }

    /// ReadyForQuery has come while nobody knows what was owed. It is taken to answer everything up
    /// to the first message that is answered so; what else was sent before that one is returned,
    /// unless the server has skipped it.
    pub(crate) fn end_unknown(&mut self) -> Vec<Answered> {
        let Some(unknown) = self.owed.pop_front() else {
            return Vec::new();
        };
        let mut ended = Vec::new();
        while self
            .owed
            .front()
            .is_some_and(|owed| !owed.awaited.ends_with_ready())
        {
            ended.extend(self.pop());
        }
        if std::mem::take(&mut self.unknown_failed) {
            ended.clear();
        }
        if self.owed.is_empty() {
            self.owed.push_back(unknown);
        }
        ended
    }

    #[inline]
    fn pop(&mut self) -> Option<Answered> {
        let owed = self.owed.pop_front()?;
        self.forgetting -= usize::from(owed.forgets);
        self.drop_copy_ends();
        Some(Answered {
            awaited: owed.awaited,
            reply: owed.reply,
            change: if owed.changes {
                self.changes.pop()
            } else {
                None
            },
        })
    }

    /// ReadyForQuery has come. `None` if the server owed something else.
    #[inline]
    pub(crate) fn ready(&mut self) -> Option<Reply> {
        if self.doubt != Doubt::None
            && let Some(reply) = self.doubtful_ready()
        {
            return Some(reply);
        }
        if !self.owed.front()?.awaited.ends_with_ready() {
            return None;
        }
        let answered = self.pop()?;
        self.executed &= !self.owed.is_empty();
        Some(answered.reply)
    }

    /// Whether parameters may be other than the server has told.
    #[inline]
    pub(crate) fn may_have_set(&self) -> bool {
        self.executed
    }

    /// The next reply that the pooler has to give itself, if it is that reply's turn.
    #[inline]
    pub(crate) fn pop_fake(&mut self) -> Option<Answered> {
        if self.owed.front()?.reply != Reply::Fake {
            return None;
        }
        self.pop()
    }

    /// Whether all that is owed are replies that the pooler has to give itself.
    #[inline]
    pub(crate) fn owes_only_fakes(&self) -> bool {
        self.owed.iter().all(|owed| owed.reply == Reply::Fake)
    }

    /// Whether what the server answers now is the pooler's own up to its Sync, so that an error in it is
    /// nothing to the client.
    pub(crate) fn fails_alone(&self) -> bool {
        for owed in self.owed.iter() {
            match (owed.awaited, owed.reply) {
                (Awaited::Sync, Reply::Skip) => return true,
                (_, Reply::Skip) => {}
                (_, Reply::Forward | Reply::Fake) => return false,
            }
        }
        false
    }

    /// The server has answered with an error. Forgets what it skips, and says whether the Sync at
    /// which it goes on is on its way already.
    pub(crate) fn failed(&mut self) -> AfterError {
        let is_query = self
            .owed
            .front()
            .is_some_and(|owed| owed.awaited.ends_with_ready());
        self.doubt = match self.doubt {
            Doubt::Copying(syncs @ 1..) if is_query => Doubt::FailedQuery(syncs),
            Doubt::Copying(syncs @ 1..) => Doubt::Failed(syncs),
            Doubt::None | Doubt::Copying(_) | Doubt::Failed(_) | Doubt::FailedQuery(_) => {
                Doubt::None
            }
        };
        match self.owed.front() {
            None => return AfterError::Unasked,
            Some(owed) if is_query => {
                self.unknown_failed |= owed.awaited == Awaited::Unknown;
                return AfterError::WaitReady;
            }
            Some(_) => {}
        }
        while let Some(owed) = self.owed.front() {
            if owed.awaited == Awaited::Sync {
                return AfterError::WaitReady;
            }
            self.pop();
        }
        AfterError::SkipToSync
    }
}

/// A reply that is complete.
#[derive(Debug)]
pub(crate) struct Answered {
    /// To which message.
    pub awaited: Awaited,
    /// What the client gets to see of it.
    pub reply: Reply,
    /// What it changes in the books of prepared statements.
    pub change: Option<Change>,
}

/// Where a connection stands after ErrorResponse.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AfterError {
    /// ReadyForQuery will follow.
    WaitReady,
    /// The server skips everything until the client sends Sync.
    SkipToSync,
    /// Nothing was owed: the server speaks up by itself, and will close.
    Unasked,
}

#[cfg(test)]
mod tests;
