//! Messages that name a prepared statement, while names are mapped.

use std::sync::Arc;

use pgweir_wire::frontend::{self, Target};
use pgweir_wire::read::Truncated;
use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{HEADER_LEN, Header, Reader, SizeLimits};

use super::from_client::{Act, CHANGES_MAX, there, too_long};
use super::judged::Admission;
use super::{ClientSide, ClientStream, Relay, Rules, Violation, mention};
use crate::changes::{Change, Presence};
use crate::gather::Gather;
use crate::pipeline::{Awaited, Reply};
use crate::prepared::{SERVER_NAME, Statement};

/// A message that may name a prepared statement, while names are mapped.
pub(super) struct Named<'a> {
    pub(super) relay: &'a mut Relay,
    pub(super) client: &'a mut ClientSide,
    pub(super) rules: &'a Rules<'a>,
    pub(super) max: usize,
    pub(super) input: &'a [u8],
    pub(super) out: &'a mut Gather,
}

impl Named<'_> {
    pub(super) fn act(mut self, header: Header, frame: &[u8]) -> Result<Act, Violation> {
        // The server waits for the data of a COPY, and answers nothing.
        if self.relay.stream == ClientStream::CopyIn
            && self.relay.pipeline.changes().len() >= CHANGES_MAX
        {
            return Err(Violation::ClientMessage(header.tag));
        }
        match header.tag {
            tag::BIND => self.bind(header, frame),
            tag::PARSE => self.with_body(header, frame, Self::parse),
            tag::DESCRIBE => self.with_body(header, frame, Self::describe),
            _ => self.with_body(header, frame, Self::close),
        }
    }

    /// Waits until the whole message is there. Only Bind can be long for other reasons than the
    /// names and query texts that have to be kept anyway.
    fn with_body(
        &mut self,
        header: Header,
        frame: &[u8],
        act: fn(&mut Self, &[u8]) -> Result<Act, Truncated>,
    ) -> Result<Act, Violation> {
        if header.body_len > SizeLimits::HELD as usize {
            return Err(too_long(header));
        }
        let Some(body) = frame.get(HEADER_LEN..header.frame_len()) else {
            return Ok(Act::More);
        };
        self.check_name(header.tag, body)?;
        act(self, body).map_err(|Truncated| Violation::ClientMalformed(header.tag))
    }

    /// A name must be free for Parse and known for Describe.
    fn check_name(&self, tag: u8, body: &[u8]) -> Result<(), Violation> {
        match tag {
            tag::PARSE => match Reader::new(body).string() {
                Ok(name) if !self.rules.answers_as_postgres && self.is_taken(name) => Err(
                    Violation::StatementExists(String::from_utf8_lossy(name).into_owned()),
                ),
                _ => Ok(()),
            },
            tag::DESCRIBE => match Target::parse(body) {
                Ok(Target::Statement(name)) if !name.is_empty() && self.named(name).is_none() => {
                    self.missing(name)
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A name that stands for nothing here. The server may know it, by PREPARE; if not, it says so.
    fn missing(&self, name: &[u8]) -> Result<(), Violation> {
        match self.rules.answers_as_postgres && !name.starts_with(SERVER_NAME.as_bytes()) {
            true => Ok(()),
            false => Err(Violation::StatementMissing(
                String::from_utf8_lossy(name).into_owned(),
            )),
        }
    }

    fn parse(&mut self, body: &[u8]) -> Result<Act, Truncated> {
        let mut reader = Reader::new(body);
        let name = reader.string()?;
        let definition = reader.rest();
        let replaced = Act::Replaced {
            head: HEADER_LEN + body.len(),
        };
        if name.is_empty() {
            return Ok(match self.recurring(definition) {
                Some(statement) => {
                    self.client.unnamed.clear();
                    self.parse_as(name, statement, replaced)
                }
                None => self.parse_unnamed(definition, replaced),
            });
        }
        if self.is_taken(name) {
            self.parse_taken(name);
            return Ok(replaced);
        }
        let statement = self.statement(definition);
        Ok(self.parse_as(name, statement, replaced))
    }

    /// A Parse of a statement that the server is to have under the server's own name for it.
    fn parse_as(&mut self, name: &[u8], statement: Arc<Statement>, replaced: Act) -> Act {
        match self.relay.note_statement(&statement, false, self.rules) {
            Admission::Fine => {}
            Admission::Wait => return Act::More,
            Admission::Refused(refusal) => {
                let change = Change::Named {
                    name: name.into(),
                    statement,
                    sent: false,
                };
                let out = self.out.inject(self.input);
                return self.relay.refuse_named(refusal, change, out);
            }
        }
        self.relay.spoken.note(&statement.definition);
        self.relay.tally.client_parses += 1;
        // With other definitions the same text may mean something else now.
        let sent = match self.relay.residue.may_mean_another() {
            true => self.send_again(&statement),
            false => self.send_if_lacking(&statement),
        };
        let reply = if sent { Reply::Forward } else { Reply::Fake };
        let change = Change::Named {
            name: name.into(),
            statement,
            sent,
        };
        let pipeline = &mut self.relay.pipeline;
        pipeline.push_change(Awaited::Parse, reply, change);
        replaced
    }

    pub(super) fn refuse(&mut self, refusal: u32) -> Act {
        self.relay
            .refuse_parse(refusal, self.out.inject(self.input))
    }

    /// What a definition stands for. One that executes another by its name does so on any server.
    fn statement(&mut self, definition: &[u8]) -> Arc<Statement> {
        let statements = self.rules.statements;
        let reading = self.relay.reading(definition, self.rules);
        if mention::may_be(definition)
            && mention::executed(definition).is_some()
            && let Some((renamed, needs)) = self.with_server_name(definition)
        {
            return statements.intern_needing(&renamed, reading, Some(needs));
        }
        statements.intern(definition, reading)
    }

    /// Only the names at the start have to be there: the values may be long and are passed on.
    fn bind(&mut self, header: Header, frame: &[u8]) -> Result<Act, Violation> {
        let there = there(header, frame);
        let mut reader = Reader::new(there);
        let (Ok(portal), Ok(name)) = (reader.string(), reader.string()) else {
            if there.len() == header.body_len {
                return Err(Violation::ClientMalformed(header.tag));
            }
            if there.len() > SizeLimits::HELD as usize {
                return Err(too_long(header));
            }
            return Ok(Act::More);
        };
        let Some(statement) = self.named(name) else {
            if name.is_empty() {
                return Ok(self.bind_unnamed());
            }
            self.relay.unnamed.is_effect_bound = false;
            self.missing(name)?;
            self.relay.residue.note_unreadable();
            self.relay.spoken.note(b"EXECUTE\0");
            self.relay.pipeline.push(Awaited::Bind, Reply::Forward);
            return Ok(Act::Pass);
        };
        match self.relay.note_statement(&statement, true, self.rules) {
            Admission::Fine => {}
            Admission::Wait => return Ok(Act::More),
            // The client has prepared it when that was allowed.
            Admission::Refused(refusal) => return Ok(self.refuse(refusal)),
        }
        let mut statement = statement;
        if self.presence(&statement) != Presence::Has {
            statement = self.as_read_here(name, statement);
            if let Some(act) = self.bind_lacking(&statement) {
                return Ok(act);
            }
        } else if let Some(needs) = &statement.needs {
            // It may have had to make room since.
            self.teach(needs);
        }
        self.relay.unnamed.is_effect_bound = false;
        self.relay.tally.binds += 1;
        self.relay.spoken.note(&statement.definition);
        let head = HEADER_LEN + portal.len() + 1 + name.len() + 1;
        let out = self.out.inject(self.input);
        frontend::bind_renamed(
            out,
            portal,
            &statement.server_name,
            header.frame_len() - head,
        );
        self.relay.pipeline.push(Awaited::Bind, Reply::Forward);
        Ok(Act::Replaced { head })
    }

    fn describe(&mut self, body: &[u8]) -> Result<Act, Truncated> {
        let target = Target::parse(body)?;
        if let Target::Statement(name) = target
            && let Some(statement) = self.named(name)
        {
            let statement = self.as_read_here(name, statement);
            self.teach(&statement);
            let out = self.out.inject(self.input);
            frontend::describe_statement(out, &statement.server_name);
            let change = Change::Described(statement);
            let pipeline = &mut self.relay.pipeline;
            pipeline.push_change(Awaited::Describe, Reply::Forward, change);
            return Ok(Act::Replaced {
                head: HEADER_LEN + body.len(),
            });
        }
        if target == Target::Statement(b"") && !self.relay.has_unnamed() && !self.teach_unnamed() {
            return Ok(Act::More);
        }
        self.relay.pipeline.push(Awaited::Describe, Reply::Forward);
        Ok(Act::Pass)
    }

    /// A name is the client's affair: the server keeps the statement for whoever wants it next.
    fn close(&mut self, body: &[u8]) -> Result<Act, Truncated> {
        match Target::parse(body)? {
            Target::Statement(name) if !name.is_empty() => {
                let change = Change::Closed(name.into());
                let pipeline = &mut self.relay.pipeline;
                pipeline.push_change(Awaited::Close, Reply::Fake, change);
                Ok(Act::Drop)
            }
            Target::Statement(_) => {
                self.client.unnamed.clear();
                self.await_unnamed(Awaited::Close);
                Ok(Act::Pass)
            }
            Target::Portal(_) => {
                self.relay.pipeline.push(Awaited::Close, Reply::Forward);
                Ok(Act::Pass)
            }
        }
    }

    /// Sends the server a Parse if it may lack the statement; the client sees nothing of it.
    pub(super) fn teach(&mut self, statement: &Arc<Statement>) {
        if self.send_if_lacking(statement) {
            let change = Change::Taught(Arc::clone(statement));
            let pipeline = &mut self.relay.pipeline;
            pipeline.push_change(Awaited::Parse, Reply::Skip, change);
        }
    }

    /// Sends the server a Parse unless it surely has the statement. Where nobody knows, a Close
    /// comes first: closing what is not there is no error, preparing what is there is one.
    pub(super) fn send_if_lacking(&mut self, statement: &Arc<Statement>) -> bool {
        match self.presence(statement) {
            Presence::Has => return false,
            Presence::Lacks => {}
            Presence::Unknown => self.evict(statement),
        }
        self.send_parse(statement);
        true
    }

    /// Sends the server a Parse even if it has the statement.
    fn send_again(&mut self, statement: &Arc<Statement>) -> bool {
        if self.presence(statement) != Presence::Lacks {
            self.evict(statement);
        }
        self.send_parse(statement);
        true
    }

    fn send_parse(&mut self, statement: &Statement) {
        if let Some(needs) = &statement.needs {
            self.teach(needs);
        }
        self.make_room();
        self.relay.tally.server_parses += 1;
        let out = self.out.inject(self.input);
        frontend::parse_renamed(out, &statement.server_name, &statement.definition);
    }

    pub(super) fn presence(&mut self, statement: &Arc<Statement>) -> Presence {
        let there = self.relay.statements.touch(statement.id);
        let pipeline = &self.relay.pipeline;
        match pipeline.changes().presence(statement.id) {
            Some(presence) => presence,
            None if there && pipeline.may_forget() => Presence::Unknown,
            None if there => Presence::Has,
            None => Presence::Lacks,
        }
    }

    /// What a client's name stands for, or will when it gets there.
    #[inline]
    pub(super) fn named(&self, name: &[u8]) -> Option<Arc<Statement>> {
        let known = match self.relay.pipeline.changes().named(name) {
            Some(changed) => changed,
            None => self.client.statements.get(name),
        };
        known.map(Arc::clone)
    }

    /// Whether the client must not give the name to another statement. No name is always free.
    fn is_taken(&self, name: &[u8]) -> bool {
        if name.is_empty() {
            return false;
        }
        match self.relay.pipeline.changes().named(name) {
            Some(changed) => changed.is_some(),
            None if self.relay.pipeline.may_forget() => false,
            None => self.client.statements.contains(name),
        }
    }

    fn make_room(&mut self) {
        loop {
            let changes = self.relay.pipeline.changes();
            let (statements, max) = (&self.relay.statements, self.max.max(1));
            if statements.len() + changes.len() < max {
                return;
            }
            let outcomes = changes.outcomes();
            if statements.len_after(&outcomes) < max {
                return;
            }
            let unchanged = |id| !outcomes.contains_key(&id);
            let oldest = self.relay.statements.least_used(unchanged).map(Arc::clone);
            let Some(oldest) = oldest.or_else(|| changes.oldest_taught()) else {
                return;
            };
            self.evict(&oldest);
        }
    }

    pub(super) fn evict(&mut self, statement: &Arc<Statement>) {
        frontend::close_statement(self.out.inject(self.input), &statement.server_name);
        let change = Change::Evicted(statement.id);
        let pipeline = &mut self.relay.pipeline;
        pipeline.push_change(Awaited::Close, Reply::Skip, change);
    }
}
