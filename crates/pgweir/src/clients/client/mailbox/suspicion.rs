//! What a client's task is told, and asked, where the client is suspected of a leak.

use std::time::{Duration, Instant};

use crate::clients::client::Client;
use crate::watch::leaks::SpokenWords;
use crate::watch::strict::FindingKind;

/// What can be done about a client that is a leak suspect.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Remedy {
    /// It is told.
    Notice,
    /// Its transaction is rolled back, and its server serves others.
    Rollback,
    /// The same, in a strict run.
    Strict(FindingKind),
    /// Its query is canceled, if it is still the one that was asked for then.
    Cancel {
        query: Instant,
        /// Within what time such statements normally end.
        usual: Duration,
    },
}

/// Between a client's task and whoever suspects it of a leak.
#[derive(Debug, Default)]
pub(super) struct SuspectMail {
    /// Somebody wants to know what the client has asked of its server.
    inquired: bool,
    /// What is to be done about it.
    remedy: Option<Remedy>,
    /// What the task has been asked.
    spoken: Option<Box<SpokenWords>>,
}

impl SuspectMail {
    /// Whether there is something for the task.
    pub(super) fn calls(&self) -> bool {
        self.remedy.is_some() || self.inquired
    }
}

impl Client {
    /// Tells the task what is to be done about its client, which is a leak suspect.
    pub(crate) fn remedy(&self, how: Remedy) {
        let mut mailbox = self.mailbox();
        mailbox.suspect.get_or_insert_default().remedy = Some(how);
        self.ring(mailbox);
    }

    /// What is to be done about the client as a leak suspect, if anything.
    pub(crate) fn take_remedy(&self) -> Option<Remedy> {
        self.take(|mailbox| mailbox.suspect.as_mut()?.remedy.take())
    }

    /// Asks the task what its client has asked of the server that it holds.
    pub(crate) fn inquire(&self) {
        let mut mailbox = self.mailbox();
        mailbox.suspect.get_or_insert_default().inquired = true;
        self.ring(mailbox);
    }

    /// Whether somebody asks that.
    pub(crate) fn take_inquiry(&self) -> bool {
        self.take(|mailbox| {
            let suspect = mailbox.suspect.as_mut();
            suspect.is_some_and(|suspect| std::mem::take(&mut suspect.inquired))
        })
    }

    /// The answer.
    pub(crate) fn answer_inquiry(&self, spoken: SpokenWords) {
        let mut mailbox = self.mailbox();
        mailbox.suspect.get_or_insert_default().spoken = Some(Box::new(spoken));
    }

    /// The answer, once it is there.
    pub(crate) fn take_spoken(&self) -> Option<Box<SpokenWords>> {
        let mut mailbox = self.mailbox();
        let mut mail = mailbox.suspect.take()?;
        let spoken = mail.spoken.take();
        mailbox.suspect = mail.calls().then_some(mail);
        spoken
    }
}
