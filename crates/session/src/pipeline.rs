//! The replies that a server still owes, in the order in which it will give them.
//!
//! Load-bearing rules:
//! 1. Every message that makes the server answer is pushed when it is sent, none later.
//! 2. A reply of the pooler's own (`Fake`) waits for its turn behind the server's replies.
//! 3. An error takes everything up to the next Sync with it, and what those messages had changed in
//!    the books of prepared statements is undone in reverse order.
//! 4. In COPY IN mode the server ignores Sync, so Syncs that it reads there are owed nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::prepared::{Statement, StatementId};

/// Which message the server answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Awaited {
    /// Parse → ParseComplete.
    Parse,
    /// Bind → BindComplete.
    Bind,
    /// Describe → RowDescription or NoData.
    Describe,
    /// Execute → CommandComplete, EmptyQueryResponse or PortalSuspended.
    Execute,
    /// Close → CloseComplete.
    Close,
    /// Sync → ReadyForQuery.
    Sync,
    /// Query → … ReadyForQuery.
    Query,
    /// FunctionCall → … ReadyForQuery.
    FunctionCall,
    /// CopyDone or CopyFail, to which there is no reply: marks where a COPY IN ends.
    CopyEnd,
}

impl Awaited {
    /// Whether ReadyForQuery is the reply's end.
    pub fn ends_with_ready(self) -> bool {
        match self {
            Self::Sync | Self::Query | Self::FunctionCall => true,
            Self::Parse
            | Self::Bind
            | Self::Describe
            | Self::Execute
            | Self::Close
            | Self::CopyEnd => false,
        }
    }
}

/// What the client gets to see of a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reply {
    /// The server's reply.
    Forward,
    /// Nothing: the pooler asked, not the client.
    Skip,
    /// The pooler's own: the server was not asked.
    Fake,
}

/// How to restore the books of prepared statements when the server skips a message.
#[derive(Debug)]
pub enum Undo {
    /// The client's Parse had given this name; `sent` if the server was to learn the statement.
    Named {
        /// The client's name.
        name: Box<[u8]>,
        /// The statement, if it was sent.
        sent: Option<StatementId>,
    },
    /// A Parse of the pooler's own.
    Taught(StatementId),
    /// The client's Close had taken this name away.
    Closed {
        /// The client's name.
        name: Box<[u8]>,
        /// What it had stood for.
        statement: Arc<Statement>,
    },
    /// A Close of the pooler's own, to make room.
    Evicted(Arc<Statement>),
}

#[derive(Debug)]
struct Owed {
    awaited: Awaited,
    reply: Reply,
    undo: Option<Box<Undo>>,
}

/// The queue of owed replies.
#[derive(Debug, Default)]
pub struct Pipeline {
    owed: VecDeque<Owed>,
    /// Whether an extended query has begun that no Sync has ended. All of it may be answered (after
    /// a Flush), and still the server keeps an unnamed statement, a portal and a transaction for it.
    open: bool,
}

impl Pipeline {
    /// Whether the server owes nothing.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    /// Whether the last thing sent belongs to an extended query that still needs its Sync.
    #[inline]
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Notes that a message has been (or is being) sent.
    #[inline]
    pub fn push(&mut self, awaited: Awaited, reply: Reply) {
        self.push_owed(awaited, reply, None);
    }

    /// As [`Self::push`], with what is to be undone if the server skips the message.
    pub fn push_undoable(&mut self, awaited: Awaited, reply: Reply, undo: Undo) {
        self.push_owed(awaited, reply, Some(Box::new(undo)));
    }

    #[inline]
    fn push_owed(&mut self, awaited: Awaited, reply: Reply, undo: Option<Box<Undo>>) {
        if awaited != Awaited::CopyEnd {
            self.open = !awaited.ends_with_ready();
        }
        self.owed.push_back(Owed {
            awaited,
            reply,
            undo,
        });
    }

    /// Notes a CopyDone or CopyFail. It matters only while something that may turn out to be a
    /// COPY is unanswered.
    pub fn push_copy_end(&mut self) {
        if !self.owed.is_empty() {
            self.push(Awaited::CopyEnd, Reply::Skip);
        }
    }

    /// The message that the server is answering now.
    #[inline]
    pub fn front(&self) -> Option<(Awaited, Reply)> {
        self.owed.front().map(|owed| (owed.awaited, owed.reply))
    }

    /// The server's reply to `awaited` is complete. `None` if that is not what it owed: then the
    /// books and the server disagree, and the connection must not be trusted any more.
    #[inline]
    pub fn answered(&mut self, awaited: Awaited) -> Option<Reply> {
        let front = self.owed.front()?;
        if front.awaited != awaited {
            return None;
        }
        let reply = front.reply;
        self.owed.pop_front();
        self.drop_copy_ends();
        Some(reply)
    }

    /// ReadyForQuery has come. `None` if the server owed something else.
    #[inline]
    pub fn ready(&mut self) -> Option<Reply> {
        let front = self.owed.front()?;
        if !front.awaited.ends_with_ready() {
            return None;
        }
        let reply = front.reply;
        self.owed.pop_front();
        self.drop_copy_ends();
        Some(reply)
    }

    /// The next reply that the pooler has to give itself, if it is that reply's turn.
    #[inline]
    pub fn pop_fake(&mut self) -> Option<Awaited> {
        let front = self.owed.front()?;
        if front.reply != Reply::Fake {
            return None;
        }
        let awaited = front.awaited;
        self.owed.pop_front();
        self.drop_copy_ends();
        Some(awaited)
    }

    /// The server has answered with an error. Calls `undo` for what it skips, last one first, and
    /// says whether the Sync at which it goes on is on its way already.
    pub fn failed(&mut self, mut undo: impl FnMut(Undo)) -> AfterError {
        match self.owed.front() {
            None => return AfterError::Unasked,
            Some(owed) if owed.awaited.ends_with_ready() => return AfterError::WaitReady,
            Some(_) => {}
        }
        let sync = self
            .owed
            .iter()
            .position(|owed| owed.awaited == Awaited::Sync);
        let skipped = sync.unwrap_or(self.owed.len());
        for owed in self.owed.drain(..skipped).rev() {
            if let Some(undone) = owed.undo {
                undo(*undone);
            }
        }
        match sync {
            Some(_) => AfterError::WaitReady,
            None => AfterError::SkipToSync,
        }
    }

    /// COPY IN has begun. Syncs that were sent into it are owed nothing; says whether the client
    /// has ended the copy already.
    pub fn copy_in_begun(&mut self) -> CopyIn {
        let end = self
            .owed
            .iter()
            .position(|owed| owed.awaited == Awaited::CopyEnd);
        let mut index = 0;
        let until = end.unwrap_or(self.owed.len());
        self.owed.retain(|owed| {
            let drop = index <= until
                && (owed.awaited == Awaited::CopyEnd
                    || (index < until && owed.awaited == Awaited::Sync));
            index += 1;
            !drop
        });
        let mut latest = self.owed.iter().rev().map(|owed| owed.awaited);
        let last = latest.find(|&awaited| awaited != Awaited::CopyEnd);
        self.open = last.is_some_and(|awaited| !awaited.ends_with_ready());
        if end.is_some() {
            CopyIn::Ended
        } else {
            CopyIn::Open
        }
    }

    /// Forgets everything, keeping the memory.
    pub fn clear(&mut self) {
        self.owed.clear();
        self.open = false;
    }

    #[inline]
    fn drop_copy_ends(&mut self) {
        while self
            .owed
            .front()
            .is_some_and(|owed| owed.awaited == Awaited::CopyEnd)
        {
            self.owed.pop_front();
        }
    }
}

/// Where a connection stands after ErrorResponse.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AfterError {
    /// ReadyForQuery will follow.
    WaitReady,
    /// The server skips everything until the client sends Sync.
    SkipToSync,
    /// Nothing was owed: the server speaks up by itself, and will close.
    Unasked,
}

/// Whether the client may still send copy data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CopyIn {
    /// It has not said CopyDone or CopyFail yet.
    Open,
    /// It said so before the server asked for data.
    Ended,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(messages: &[(Awaited, Reply)]) -> Pipeline {
        let mut pipeline = Pipeline::default();
        for &(awaited, reply) in messages {
            pipeline.push(awaited, reply);
        }
        pipeline
    }

    #[test]
    fn a_reply_must_be_the_one_that_is_owed() {
        let mut pipeline = pipeline(&[(Awaited::Bind, Reply::Forward)]);
        assert_eq!(pipeline.answered(Awaited::Parse), None);
        assert_eq!(pipeline.ready(), None);
        assert_eq!(pipeline.answered(Awaited::Bind), Some(Reply::Forward));
        assert!(pipeline.is_empty());
    }

    #[test]
    fn a_fake_waits_for_its_turn() {
        let mut pipeline = pipeline(&[
            (Awaited::Bind, Reply::Forward),
            (Awaited::Parse, Reply::Fake),
        ]);
        assert_eq!(pipeline.pop_fake(), None);
        pipeline.answered(Awaited::Bind);
        assert_eq!(pipeline.pop_fake(), Some(Awaited::Parse));
    }

    #[test]
    fn an_error_takes_everything_up_to_sync() {
        let mut pipeline = pipeline(&[
            (Awaited::Parse, Reply::Forward),
            (Awaited::Bind, Reply::Forward),
            (Awaited::Sync, Reply::Forward),
            (Awaited::Query, Reply::Forward),
        ]);
        assert_eq!(pipeline.failed(|_| ()), AfterError::WaitReady);
        assert_eq!(pipeline.front(), Some((Awaited::Sync, Reply::Forward)));
    }

    #[test]
    fn an_error_without_sync_skips_what_is_still_to_come() {
        let mut pipeline = pipeline(&[(Awaited::Parse, Reply::Forward)]);
        assert_eq!(pipeline.failed(|_| ()), AfterError::SkipToSync);
        assert!(pipeline.is_empty());
    }

    #[test]
    fn what_was_skipped_is_undone_last_one_first() {
        let mut pipeline = Pipeline::default();
        for id in [1, 2] {
            pipeline.push_undoable(Awaited::Parse, Reply::Skip, Undo::Taught(StatementId(id)));
        }
        let mut order = Vec::new();
        pipeline.failed(|undo| {
            if let Undo::Taught(id) = undo {
                order.push(id.0);
            }
        });
        assert_eq!(order, [2, 1]);
    }

    #[test]
    fn an_error_in_a_simple_query_waits_for_ready() {
        let mut pipeline = pipeline(&[(Awaited::Query, Reply::Forward)]);
        assert_eq!(pipeline.failed(|_| ()), AfterError::WaitReady);
        assert_eq!(pipeline.ready(), Some(Reply::Forward));
    }

    #[test]
    fn a_sync_sent_into_copy_in_is_owed_nothing() {
        let mut pipeline = pipeline(&[
            (Awaited::Execute, Reply::Forward),
            (Awaited::Sync, Reply::Forward),
        ]);
        assert_eq!(pipeline.copy_in_begun(), CopyIn::Open);
        pipeline.answered(Awaited::Execute);
        assert!(pipeline.is_empty());
    }

    #[test]
    fn a_sync_behind_the_end_of_copy_is_owed_its_ready() {
        let mut pipeline = pipeline(&[
            (Awaited::Execute, Reply::Forward),
            (Awaited::Sync, Reply::Forward),
            (Awaited::CopyEnd, Reply::Skip),
            (Awaited::Sync, Reply::Forward),
        ]);
        assert_eq!(pipeline.copy_in_begun(), CopyIn::Ended);
        pipeline.answered(Awaited::Execute);
        assert_eq!(pipeline.ready(), Some(Reply::Forward));
        assert!(pipeline.is_empty());
    }

    #[test]
    fn a_batch_is_open_until_its_sync_is_sent() {
        let mut pipeline = pipeline(&[(Awaited::Parse, Reply::Forward)]);
        pipeline.answered(Awaited::Parse);
        assert!(pipeline.is_empty() && pipeline.is_open());
        pipeline.push(Awaited::Sync, Reply::Forward);
        assert!(!pipeline.is_open());
    }

    #[test]
    fn a_copy_opens_the_batch_again_whose_sync_it_swallows() {
        let mut pipeline = pipeline(&[
            (Awaited::Execute, Reply::Forward),
            (Awaited::Sync, Reply::Forward),
        ]);
        pipeline.copy_in_begun();
        assert!(pipeline.is_open());
    }

    #[test]
    fn a_copy_end_without_copy_is_forgotten() {
        let mut pipeline = pipeline(&[(Awaited::Query, Reply::Forward)]);
        pipeline.push_copy_end();
        pipeline.ready();
        assert!(pipeline.is_empty());
        pipeline.push_copy_end();
        assert!(pipeline.is_empty());
    }
}
