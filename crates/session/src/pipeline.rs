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

mod state;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::changes::{Change, Changes};
use crate::prepared::Statement;
use crate::queue::Queue;

pub use state::PipelineState;

/// Which message the server answers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
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
    /// Nobody knows: it was sent, if anything was, before this process had the connection.
    Unknown,
}

impl Awaited {
    /// Whether ReadyForQuery is the reply's end.
    pub fn ends_with_ready(self) -> bool {
        match self {
            Self::Sync | Self::Query | Self::FunctionCall | Self::Unknown => true,
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
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Reply {
    /// The server's reply.
    Forward,
    /// Nothing: the pooler asked, not the client.
    Skip,
    /// The pooler's own: the server was not asked.
    Fake,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Owed {
    awaited: Awaited,
    reply: Reply,
    /// Whether the first of the pipeline's changes comes with it.
    changes: bool,
    /// Whether it may make the server forget its prepared statements.
    forgets: bool,
}

/// The queue of owed replies.
#[derive(Debug, Default)]
pub struct Pipeline {
    owed: Queue<Owed>,
    changes: Changes,
    /// Whether an extended query has begun that no Sync has ended. All of it may be answered (after
    /// a Flush), and still the server keeps an unnamed statement, a portal and a transaction for it.
    open: bool,
    /// How many of the owed replies are to messages that may make the server forget.
    forgetting: usize,
    doubt: Doubt,
    /// Whether an error has come while nobody knows what was owed.
    unknown_failed: bool,
}

/// Syncs that were sent into a COPY IN.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
enum Doubt {
    /// There are none, or what became of them is known.
    #[default]
    None,
    /// The COPY goes on: if it ends well the server has read them as part of it.
    Copying(u32),
    /// The COPY has failed: the server answers those that it had not read before.
    Failed(u32),
    /// The same, but the failed Query's own ReadyForQuery comes first.
    FailedQuery(u32),
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
        self.push_owed(awaited, reply, false);
    }

    /// As [`Self::push`], with what the reply changes in the books of prepared statements.
    pub fn push_change(&mut self, awaited: Awaited, reply: Reply, change: Change) {
        self.changes.push(change);
        self.push_owed(awaited, reply, true);
    }

    /// Whether the message that the server is answering now changes something, or is looked at.
    #[inline]
    pub fn front_changes(&self) -> bool {
        self.owed.front().is_some_and(|owed| owed.changes)
    }

    /// The statement that the server describes now, if it matters what it says, and whether that is the
    /// pooler's affair.
    pub fn describes(&self) -> Option<(&Arc<Statement>, bool)> {
        let owed = self.owed.front().filter(|owed| owed.changes);
        owed.and_then(|_| self.changes.next_described())
    }

    /// Changes that have not been answered.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Notes a Sync that the server may read as part of a COPY.
    pub fn push_sync_into_copy(&mut self) {
        if let Doubt::Copying(syncs) = &mut self.doubt {
            *syncs += 1;
        }
    }

    /// Whether more ReadyForQuery may come than are owed. It is over when the server has answered
    /// anything that was sent later.
    #[inline]
    pub fn is_in_doubt(&self) -> bool {
        match self.doubt {
            Doubt::None | Doubt::Copying(_) => false,
            Doubt::Failed(_) | Doubt::FailedQuery(_) => true,
        }
    }

    /// The server has sent something else than an error or ReadyForQuery.
    #[inline]
    pub fn dispel_doubt(&mut self) {
        self.doubt = Doubt::None;
    }

    /// Notes a Query that may make the server forget its prepared statements.
    pub fn push_forgetting(&mut self) {
        self.push(Awaited::Query, Reply::Forward);
        if let Some(query) = self.owed.back_mut() {
            query.forgets = true;
            self.forgetting += 1;
        }
    }

    /// Whether such a Query is unanswered: then nobody knows which statements the server has.
    #[inline]
    pub fn may_forget(&self) -> bool {
        self.forgetting > 0
    }

    #[inline]
    fn push_owed(&mut self, awaited: Awaited, reply: Reply, changes: bool) {
        if awaited.ends_with_ready() {
            self.changes.end_batch();
        }
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

    /// Whether nothing that is owed can begin a transaction block.
    pub fn executes_nothing(&self) -> bool {
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
    pub fn batches(&self) -> usize {
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
    pub fn answered(&mut self, awaited: Awaited) -> Option<Answered> {
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
    pub fn owes_unknown(&self) -> bool {
        self.owed
            .front()
            .is_some_and(|owed| owed.awaited == Awaited::Unknown)
    }

    /// ReadyForQuery has come while nobody knows what was owed. It is taken to answer everything up
    /// to the first message that is answered so; what else was sent before that one is returned,
    /// unless the server has skipped it.
    pub fn end_unknown(&mut self) -> Vec<Answered> {
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
    pub fn ready(&mut self) -> Option<Reply> {
        if self.doubt != Doubt::None
            && let Some(reply) = self.doubtful_ready()
        {
            return Some(reply);
        }
        if !self.owed.front()?.awaited.ends_with_ready() {
            return None;
        }
        self.pop().map(|answered| answered.reply)
    }

    /// ReadyForQuery has come in doubt. `None` if it is the one that is owed next, or may be.
    fn doubtful_ready(&mut self) -> Option<Reply> {
        let syncs = match self.doubt {
            Doubt::None | Doubt::Copying(_) => return None,
            Doubt::Failed(syncs) => syncs,
            Doubt::FailedQuery(syncs) => {
                self.doubt = Doubt::Failed(syncs);
                return None;
            }
        };
        let front = self.front();
        if let Some((Awaited::Sync, _)) = front {
            return None;
        }
        self.doubt = match syncs {
            0 | 1 => Doubt::None,
            more => Doubt::Failed(more - 1),
        };
        if front.is_none() {
            self.open = false;
        }
        Some(front.map_or(Reply::Forward, |(_, reply)| reply))
    }

    /// The next reply that the pooler has to give itself, if it is that reply's turn.
    #[inline]
    pub fn pop_fake(&mut self) -> Option<Answered> {
        if self.owed.front()?.reply != Reply::Fake {
            return None;
        }
        self.pop()
    }

    /// Whether what the server answers now is the pooler's own up to its Sync, so that an error in it is
    /// nothing to the client.
    pub fn fails_alone(&self) -> bool {
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
    pub fn failed(&mut self) -> AfterError {
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

    /// COPY IN has begun. Syncs that were sent into it are owed nothing; says whether the client
    /// has ended the copy already.
    pub fn copy_in_begun(&mut self) -> CopyIn {
        let end = self
            .owed
            .iter()
            .position(|owed| owed.awaited == Awaited::CopyEnd);
        let mut index = 0;
        let until = end.unwrap_or(usize::MAX);
        let mut syncs = 0;
        self.owed.retain(|owed| {
            let sync = index < until && owed.awaited == Awaited::Sync;
            syncs += u32::from(sync);
            let drop = sync || (index <= until && owed.awaited == Awaited::CopyEnd);
            index += 1;
            !drop
        });
        self.doubt = Doubt::Copying(syncs);
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
        self.changes.clear();
        self.open = false;
        self.forgetting = 0;
        self.doubt = Doubt::None;
        self.unknown_failed = false;
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

/// A reply that is complete.
#[derive(Debug)]
pub struct Answered {
    /// To which message.
    pub awaited: Awaited,
    /// What the client gets to see of it.
    pub reply: Reply,
    /// What it changes in the books of prepared statements.
    pub change: Option<Change>,
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
    use crate::prepared::StatementId;

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
        assert!(pipeline.answered(Awaited::Parse).is_none());
        assert_eq!(pipeline.ready(), None);
        assert!(pipeline.answered(Awaited::Bind).is_some());
        assert!(pipeline.is_empty());
    }

    #[test]
    fn a_fake_waits_for_its_turn() {
        let mut pipeline = pipeline(&[
            (Awaited::Bind, Reply::Forward),
            (Awaited::Parse, Reply::Fake),
        ]);
        assert!(pipeline.pop_fake().is_none());
        pipeline.answered(Awaited::Bind);
        let fake = pipeline.pop_fake().map(|fake| fake.awaited);
        assert_eq!(fake, Some(Awaited::Parse));
    }

    #[test]
    fn an_error_takes_everything_up_to_sync() {
        let mut pipeline = pipeline(&[
            (Awaited::Parse, Reply::Forward),
            (Awaited::Bind, Reply::Forward),
            (Awaited::Sync, Reply::Forward),
            (Awaited::Query, Reply::Forward),
        ]);
        assert_eq!(pipeline.failed(), AfterError::WaitReady);
        assert_eq!(pipeline.front(), Some((Awaited::Sync, Reply::Forward)));
    }

    #[test]
    fn an_error_without_sync_skips_what_is_still_to_come() {
        let mut pipeline = pipeline(&[(Awaited::Parse, Reply::Forward)]);
        assert_eq!(pipeline.failed(), AfterError::SkipToSync);
        assert!(pipeline.is_empty());
    }

    #[test]
    fn a_batch_is_counted_until_its_ready() {
        use Awaited::{Execute, Parse, Query, Sync};
        let forward = |awaited| (awaited, Reply::Forward);
        let mut pipeline = pipeline(&[
            forward(Query),
            (Parse, Reply::Skip),
            forward(Execute),
            forward(Sync),
            forward(Execute),
            (Query, Reply::Skip),
            (Sync, Reply::Skip),
        ]);
        assert_eq!(pipeline.batches(), 3);
        pipeline.ready();
        assert_eq!(pipeline.batches(), 2);
        pipeline.answered(Parse);
        pipeline.answered(Execute);
        pipeline.ready();
        assert_eq!(pipeline.batches(), 1);
        pipeline.answered(Execute);
        assert_eq!(pipeline.batches(), 0);
    }

    #[test]
    fn what_is_skipped_changes_nothing() {
        let mut pipeline = Pipeline::default();
        let id = StatementId(1);
        pipeline.push_change(Awaited::Close, Reply::Skip, Change::Evicted(id));
        pipeline.push(Awaited::Sync, Reply::Forward);
        pipeline.push_change(Awaited::Close, Reply::Skip, Change::Evicted(id));
        pipeline.failed();
        assert_eq!(pipeline.ready(), Some(Reply::Forward));
        assert!(pipeline.answered(Awaited::Close).unwrap().change.is_some());
    }

    #[test]
    fn an_error_in_a_simple_query_waits_for_ready() {
        let mut pipeline = pipeline(&[(Awaited::Query, Reply::Forward)]);
        assert_eq!(pipeline.failed(), AfterError::WaitReady);
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
