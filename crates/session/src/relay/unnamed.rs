//! The statement without a name, while names are mapped: it stays with its client, and is the server's only in one
//! lease; or it recurs and is prepared there as if it had a name.

use std::sync::Arc;

use pgweir_wire::frontend;

use super::Relay;
use super::from_client::Act;
use super::judged::Admission;
use super::mention::{self, Effect};
use super::named::Named;
use crate::changes::Change;
use crate::pipeline::{Awaited, Reply};
use crate::prepared::Statement;
use crate::reading::Reading;

/// The statement without a name on a server.
#[derive(Debug, Default)]
pub(super) struct ServersUnnamed {
    pub(super) sent: Sent,
    /// What it does to the books when it is executed.
    pub(super) effect: Effect,
    /// Whether the portal that was bound last is of that statement.
    pub(super) is_effect_bound: bool,
}

/// Whether the server was sent the client's last in this lease, or is told that there is none.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Sent {
    /// It was not, or the server may have lost it.
    #[default]
    No,
    /// In this batch. What follows in it is skipped if that is.
    In(u64),
    /// The server has answered it.
    Surely,
}

impl Relay {
    /// Whether the server, if it reads the next message, has the client's last statement without a name.
    #[inline]
    pub(super) fn has_unnamed(&mut self) -> bool {
        match self.unnamed.sent {
            Sent::No => false,
            Sent::Surely => true,
            Sent::In(batch) if batch == self.pipeline.changes().batch() => true,
            // It may be skipped, and then the server still has another client's.
            Sent::In(_) if !self.pipeline.is_empty() => false,
            Sent::In(_) => {
                self.unnamed.sent = Sent::Surely;
                true
            }
        }
    }

    fn send_unnamed(&mut self) {
        self.unnamed.sent = Sent::In(self.pipeline.changes().batch());
    }
}

impl Named<'_> {
    /// A Parse of a statement without a name that stays without one.
    pub(super) fn parse_unnamed(&mut self, definition: &[u8], replaced: Act) -> Act {
        match self.relay.note_text(definition, true, self.rules) {
            Admission::Fine => {}
            Admission::Wait => return Act::More,
            Admission::Refused(refusal) => {
                self.client.unnamed.clear();
                return self.refuse(refusal);
            }
        }
        self.relay.spoken.note(definition);
        let speaks_of_own = std::mem::take(&mut self.relay.speaks_of_own);
        self.client.unnamed.set(definition, speaks_of_own);
        self.relay.send_unnamed();
        let act = match self.renamed(definition) {
            Some(renamed) => {
                frontend::parse_renamed(self.out.inject(self.input), "", &renamed);
                replaced
            }
            None => Act::Pass,
        };
        self.await_unnamed(Awaited::Parse);
        act
    }

    /// The definition with the server's name for what it mentions; `None` if it is the same. What it does to the
    /// books when it is executed is noted.
    #[inline]
    fn renamed(&mut self, definition: &[u8]) -> Option<Vec<u8>> {
        self.relay.unnamed.effect = Effect::None;
        if !mention::may_be(definition) {
            return None;
        }
        let renamed = self.with_server_name(definition);
        if renamed.is_none() && mention::may_forget(definition) {
            self.relay.unnamed.effect = Effect::Forgets;
        }
        renamed.map(|(renamed, _)| renamed)
    }

    /// The server answers what gives the client's statement without a name another meaning, or none.
    pub(super) fn await_unnamed(&mut self, awaited: Awaited) {
        let is_prepared = self.named(b"").is_some();
        let pipeline = &mut self.relay.pipeline;
        match is_prepared {
            false => pipeline.push(awaited, Reply::Forward),
            true => {
                let change = Change::Closed(Box::default());
                pipeline.push_change(awaited, Reply::Forward, change);
            }
        }
    }

    /// What a definition without a name stands for on servers, if it comes again and again and means the same
    /// whoever sends it.
    #[inline]
    pub(super) fn recurring(&self, definition: &[u8]) -> Option<Arc<Statement>> {
        match self.rules.prepares_unnamed {
            true => self.find_recurring(definition),
            false => None,
        }
    }

    fn find_recurring(&self, definition: &[u8]) -> Option<Arc<Statement>> {
        if self.relay.residue.may_mean_another() || mention::may_be(definition) {
            return None;
        }
        let statements = self.rules.statements;
        let is_last = |last: &Arc<Statement>| {
            *last.definition == *definition
                && last.reading != Reading::Once
                && self.relay.reads_as(last.reading, self.rules)
        };
        if let Some(last) = self.named(b"").filter(is_last)
            && !statements.is_outdated(&last)
        {
            return Some(last);
        }
        let reading = self.relay.reading(definition, self.rules);
        if reading == Reading::Once {
            return None;
        }
        let known = statements.recurring(definition, reading);
        known.filter(|statement| !statement.scan.speaks_of_own)
    }

    pub(super) fn bind_unnamed(&mut self) -> Act {
        if !self.relay.has_unnamed() && !self.teach_unnamed()
            || self.client.unnamed.speaks_of_own() && self.relay.must_translate(self.rules)
        {
            return Act::More;
        }
        self.relay.unnamed.is_effect_bound = !matches!(self.relay.unnamed.effect, Effect::None);
        self.relay.pipeline.push(Awaited::Bind, Reply::Forward);
        Act::Pass
    }

    /// Sends the client's unnamed statement to a server that has not parsed it in this lease, or makes
    /// sure that the client does not get at another's. `false`: wait.
    #[cold]
    pub(super) fn teach_unnamed(&mut self) -> bool {
        let relay = &mut *self.relay;
        let Some(definition) = self.client.unnamed.get() else {
            frontend::close_statement(self.out.inject(self.input), "");
            relay.pipeline.push(Awaited::Close, Reply::Skip);
            relay.send_unnamed();
            return true;
        };
        match relay.note_text(definition, true, self.rules) {
            Admission::Fine => {}
            Admission::Wait => return false,
            // It was allowed when the client parsed it.
            Admission::Refused(_) => relay.residue.note_unreadable(),
        }
        relay.spoken.note(definition);
        relay.send_unnamed();
        let definition = definition.to_vec();
        let definition = self.renamed(&definition).unwrap_or(definition);
        frontend::parse_renamed(self.out.inject(self.input), "", &definition);
        self.relay.pipeline.push(Awaited::Parse, Reply::Skip);
        true
    }
}
