//! COPY IN: the server reads what it would answer otherwise as data, or ignores it, and so Syncs may be owed
//! nothing. If the COPY fails, nobody knows which of them it had read.

use serde::{Deserialize, Serialize};

use super::{Awaited, Pipeline, Reply};

impl Pipeline {
    /// Notes a CopyDone or CopyFail. It matters only while something that may turn out to be a
    /// COPY is unanswered.
    pub(crate) fn push_copy_end(&mut self) {
        if !self.owed.is_empty() {
            self.push(Awaited::CopyEnd, Reply::Skip);
        }
    }

    /// COPY IN has begun. Syncs that were sent into it are owed nothing; says whether the client
    /// has ended the copy already.
    pub(crate) fn copy_in_begun(&mut self) -> CopyIn {
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

    /// Notes a Sync that the server may read as part of a COPY.
    pub(crate) fn push_sync_into_copy(&mut self) {
        if let Doubt::Copying(syncs) = &mut self.doubt {
            *syncs += 1;
        }
        // If the COPY has failed meanwhile, the server goes on behind it.
        self.changes.end_batch();
    }

    /// Whether more ReadyForQuery may come than are owed. It is over when the server has answered
    /// anything that was sent later.
    #[inline]
    pub(crate) fn is_in_doubt(&self) -> bool {
        match self.doubt {
            Doubt::None | Doubt::Copying(_) => false,
            Doubt::Failed(_) | Doubt::FailedQuery(_) => true,
        }
    }

    /// The server has sent something else than an error or ReadyForQuery, or has ended a COPY well.
    #[inline]
    pub(crate) fn dispel_doubt(&mut self) {
        self.doubt = Doubt::None;
    }

    /// ReadyForQuery has come in doubt. `None` if it is the one that is owed next, or may be.
    pub(super) fn doubtful_ready(&mut self) -> Option<Reply> {
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

    #[inline]
    pub(super) fn drop_copy_ends(&mut self) {
        while self
            .owed
            .front()
            .is_some_and(|owed| owed.awaited == Awaited::CopyEnd)
        {
            self.owed.pop_front();
        }
    }
}

/// Whether the client may still send copy data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum CopyIn {
    /// It has not said CopyDone or CopyFail yet.
    Open,
    /// It said so before the server asked for data.
    Ended,
}

/// Syncs that were sent into a COPY IN.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum Doubt {
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
