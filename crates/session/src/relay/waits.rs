//! What has to be done before a client's message can be given to a server: what it calls by a name of
//! its own is brought there, or is called as the server knows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use pgweir_wire::{TransactionStatus, frontend};

use super::{ClientSide, Relay, Rules};
use crate::changes::Change;
use crate::outgrown::Comparison;
use crate::pipeline::{Awaited, Reply};
use crate::prepared::Statement;
use crate::residue::Scan;

/// What has to be done before the client's next message can be dealt with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Waits {
    /// Nothing.
    #[default]
    Nothing,
    /// The server has to [forget](Relay::forget_drawn) what others have drawn from sequences.
    Forgetting,
    /// The process ids of clients in it have to be replaced by the servers', see
    /// [`renumbered`](crate::renumbered).
    OwnNames,
    /// The server has to [listen](Relay::listen_again) to what its client listens to elsewhere.
    Channels,
    /// It has to be [found out](Relay::compare) whether a statement still returns what it did.
    Comparison,
}

/// What has become of the process ids in a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Translation {
    /// They are servers' now.
    Done,
    /// More of the message has to come first.
    Incomplete,
    /// It is too early.
    Later,
}

impl Relay {
    /// Whether a statement asks for what another client has drawn from a sequence, may name the
    /// process of a client, or ends what its client listens to.
    #[cold]
    pub(super) fn must_wait(&mut self, scan: &Scan, rules: &Rules<'_>) -> bool {
        if scan.reads_drawn && self.must_forget_drawn() {
            self.waits = Waits::Forgetting;
            return true;
        }
        if scan.about_channels && self.must_listen_again() {
            self.waits = Waits::Channels;
            return true;
        }
        self.speaks_of_own |= scan.speaks_of_own;
        scan.speaks_of_own && self.must_translate(rules)
    }

    /// Whether the message that may name the process of a client is the client's own.
    #[cold]
    pub(super) fn must_translate(&mut self, rules: &Rules<'_>) -> bool {
        let is_wanted = rules.answers_as_postgres && rules.backends.is_some();
        if !is_wanted || std::mem::take(&mut self.is_translated) {
            return false;
        }
        self.waits = Waits::OwnNames;
        true
    }

    /// What has become of the process ids in the client's next message.
    pub fn translated(&mut self, outcome: Translation) {
        self.waits = Waits::Nothing;
        self.is_translated = outcome == Translation::Done;
        self.translation_tries = match outcome {
            Translation::Later => self.translation_tries.saturating_add(1),
            Translation::Done | Translation::Incomplete => 0,
        };
    }

    /// How often it has been too early for them.
    pub fn translation_tries(&self) -> u8 {
        self.translation_tries
    }

    /// The client's names, and what they stand for when everything under way is answered.
    pub fn names(&self, client: &ClientSide) -> BTreeMap<Box<[u8]>, Arc<Statement>> {
        let known = client.statements.iter();
        let mut names = known
            .map(|(name, statement)| (name.into(), Arc::clone(statement)))
            .collect();
        self.pipeline.changes().rename(&mut names);
        names
    }

    /// Teaches the server what the client has prepared and the server lacks, as far as there is room,
    /// so that a list of it is complete. Appends what it has to be sent.
    pub fn teach_all(&mut self, client: &ClientSide, rules: &Rules<'_>, out: &mut BytesMut) {
        let room = rules.max_prepared.unwrap_or_default();
        if !self.is_quiet() || self.status != TransactionStatus::Idle {
            return;
        }
        let known = client.statements.iter().map(|(_, statement)| statement);
        let lacking: Vec<_> = known
            .filter(|statement| statement.reading.holds_under(&self.values, rules.tracked))
            .filter(|statement| !self.statements.touch(statement.id))
            .map(Arc::clone)
            .collect();
        if lacking.is_empty() || self.statements.len() + lacking.len() > room {
            return;
        }
        for statement in lacking {
            // What cannot be prepared any more fails alone.
            frontend::parse_renamed(out, &statement.server_name, &statement.definition);
            frontend::sync(out);
            let change = Change::Taught(statement);
            self.pipeline
                .push_change(Awaited::Parse, Reply::Skip, change);
            self.pipeline.push(Awaited::Sync, Reply::Skip);
        }
    }

    /// Appends what finds out whether the statement that the client's next message needs still returns
    /// what it did when it was prepared.
    pub fn compare(&mut self, out: &mut BytesMut) {
        self.waits = Waits::Nothing;
        let Comparison::Asked(statement) = &self.comparison else {
            return;
        };
        frontend::parse_renamed(out, &statement.server_name, &statement.definition);
        frontend::describe_statement(out, &statement.server_name);
        frontend::sync(out);
        let taught = Change::Taught(Arc::clone(statement));
        let compared = Change::Compared(Arc::clone(statement));
        self.pipeline
            .push_change(Awaited::Parse, Reply::Skip, taught);
        self.pipeline
            .push_change(Awaited::Describe, Reply::Skip, compared);
        self.pipeline.push(Awaited::Sync, Reply::Skip);
    }

    /// What the client's next message waits for.
    #[inline]
    pub fn waits(&self) -> Waits {
        self.waits
    }
}
