//! Statements that a server lacks, or has under another name, while names are mapped.

use std::sync::Arc;

use pgweir_wire::{TransactionStatus, frontend};

use super::from_client::Act;
use super::mention::{self, Effect};
use super::named::Named;
use super::{Relay, Rules, Sent, Waits};
use crate::changes::{Change, Presence};
use crate::outgrown::{self, Comparison};
use crate::pipeline::{Awaited, Reply};
use crate::prepared::Statement;
use crate::reading::Reading;

impl Relay {
    /// How the server would read a definition now.
    pub(super) fn reading(&self, definition: &[u8], rules: &Rules<'_>) -> Reading {
        match Reading::of(definition, &self.values, rules.tracked) {
            Reading::Under(_) if self.pipeline.may_have_set() => Reading::Once,
            reading => reading,
        }
    }

    /// Whether the server would read a statement like this now, for sure.
    pub(super) fn reads_as(&self, reading: Reading, rules: &Rules<'_>) -> bool {
        let depends = matches!(reading, Reading::Under(_));
        !(depends && self.pipeline.may_have_set())
            && reading.holds_under(&self.values, rules.tracked)
    }
}

impl Named<'_> {
    /// Teaches the server the statement of a Bind. Where definitions have been changed since the client
    /// prepared it, the server is asked first what it returns now.
    #[cold]
    pub(super) fn bind_lacking(&mut self, statement: &Arc<Statement>) -> Option<Act> {
        let is_this = |compared: &Arc<Statement>| compared.id == statement.id;
        let was_asked = match std::mem::take(&mut self.relay.comparison) {
            Comparison::Outgrown(compared) if is_this(&compared) => {
                self.refuse_outgrown(statement);
                return Some(Act::Drop);
            }
            Comparison::Asked(compared) => is_this(&compared),
            Comparison::None | Comparison::Outgrown(_) => false,
        };
        if !was_asked
            && self.relay.is_quiet()
            && self.relay.status != TransactionStatus::Failed
            && statement.described.get().is_some()
            && self.presence(statement) == Presence::Lacks
            && self.rules.statements.is_outdated(statement)
        {
            self.relay.comparison = Comparison::Asked(Arc::clone(statement));
            self.relay.waits = Waits::Comparison;
            return Some(Act::More);
        }
        self.teach(statement);
        None
    }

    /// The statement that a name stands for, to be sent to a server that may lack it. If the client had other
    /// parameters when it prepared it, the server would read it otherwise than those who share it: it becomes the
    /// client's alone.
    pub(super) fn as_read_here(
        &mut self,
        name: &[u8],
        statement: Arc<Statement>,
    ) -> Arc<Statement> {
        let statements = self.rules.statements;
        if self.relay.reads_as(statement.reading, self.rules)
            || self.presence(&statement) == Presence::Has
        {
            return statement;
        }
        let needs = statement.needs.clone();
        let own = statements.intern_needing(&statement.definition, Reading::Once, needs);
        self.send_if_lacking(&own);
        let change = Change::Named {
            name: name.into(),
            statement: Arc::clone(&own),
            sent: true,
        };
        let pipeline = &mut self.relay.pipeline;
        pipeline.push_change(Awaited::Parse, Reply::Skip, change);
        own
    }

    /// Makes the server fail in the place of the Bind, and forget what it has prepared.
    pub(super) fn refuse_outgrown(&mut self, statement: &Arc<Statement>) {
        self.evict(statement);
        let out = self.out.inject(self.input);
        frontend::parse_renamed(out, "", outgrown::NO_STATEMENT);
        self.relay.pipeline.push(Awaited::Parse, Reply::Forward);
        self.relay.unnamed.sent = Sent::No;
        self.relay.raises = true;
    }

    /// A DEALLOCATE or EXECUTE of a name that the protocol has given, with the server's name in its
    /// place, and what it stands for. What a DEALLOCATE changes enters the books when the server says
    /// that it was executed.
    #[cold]
    pub(super) fn with_server_name(
        &mut self,
        definition: &[u8],
    ) -> Option<(Vec<u8>, Arc<Statement>)> {
        let text = definition.split(|&byte| byte == 0).next()?;
        let deallocated = mention::deallocated(text);
        let is_deallocated = deallocated.is_some();
        let mention = deallocated.or_else(|| mention::executed(text))?;
        let statement = self.named(&mention.name)?;
        self.teach(&statement);
        let mut renamed = definition[..mention.range.start].to_vec();
        renamed.extend_from_slice(format!("\"{}\"", statement.server_name).as_bytes());
        renamed.extend_from_slice(&definition[mention.range.end..]);
        if is_deallocated {
            self.relay.unnamed.effect = Effect::Deallocates(mention.name, statement.id);
        }
        Some((renamed, statement))
    }

    /// A Parse of a name that is taken: the server is made to refuse it.
    #[cold]
    pub(super) fn parse_taken(&mut self, name: &[u8]) {
        let Some(statement) = self.named(name) else {
            return;
        };
        self.teach(&statement);
        let out = self.out.inject(self.input);
        frontend::parse_renamed(out, &statement.server_name, &statement.definition);
        self.relay.taken_name = Some(name.into());
        self.relay.pipeline.push(Awaited::Parse, Reply::Forward);
    }
}
