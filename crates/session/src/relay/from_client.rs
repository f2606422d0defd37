//! From the client to the server.

use std::sync::Arc;

use bytes::BytesMut;
use pgweir_wire::frontend::{self, Target};
use pgweir_wire::read::Truncated;
use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{FrameError, HEADER_LEN, Header, Reader, SizeLimits};

use super::{ClientSide, ClientStream, Relay, Rest, Rules, Violation};
use crate::changes::{Change, Presence};
use crate::gather::Gather;
use crate::pipeline::{Awaited, Reply};
use crate::prepared::Statement;
use crate::residue::Kinds;

/// What became of the client's bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FromClient {
    /// Bytes dealt with; the rest must be offered again together with what follows it.
    pub consumed: usize,
    /// The client has said goodbye.
    pub terminate: bool,
}

/// What to do with a frame.
enum Act {
    /// Forward it as it is.
    Pass,
    /// The server must not see it.
    Drop,
    /// Wait until more of it is there.
    More,
    /// Its first `head` bytes have been replaced; the others follow as they are.
    Replaced { head: usize },
    /// The client ends the connection.
    Terminate,
}

impl Relay {
    /// Deals with the client's next bytes: what the server is to get is appended to `to_server`,
    /// replies of the pooler's own to `to_client`.
    ///
    /// # Errors
    /// The client broke the protocol; neither connection can be trusted after that.
    #[expect(
        clippy::wrong_self_convention,
        reason = "named for the direction of the bytes"
    )]
    pub fn from_client(
        &mut self,
        input: &[u8],
        client: &mut ClientSide,
        rules: &Rules<'_>,
        to_server: &mut Gather,
        to_client: &mut BytesMut,
    ) -> Result<FromClient, Violation> {
        debug_assert!(
            !self.is_asking(),
            "the client waits for the pooler's own query"
        );
        let mut terminate = false;
        let mut at = self.client_rest.proceed(input, 0, to_server);
        while self.client_rest.is_done() {
            let frame = &input[at..];
            let header = Header::peek(frame, rules.max_message).map_err(Violation::ClientFrame)?;
            let Some(header) = header else { break };
            match self.client_frame(header, frame, client, rules, input, to_server)? {
                Act::Pass if header.frame_len() <= frame.len() => {
                    to_server.pass(input, at..at + header.frame_len());
                    at += header.frame_len();
                    continue;
                }
                Act::Pass => self.client_rest = Rest::Pass(header.frame_len()),
                Act::Drop => self.client_rest = Rest::Drop(header.frame_len()),
                Act::Replaced { head } => {
                    at += head;
                    self.client_rest = Rest::new(true, header.frame_len() - head);
                }
                Act::More => break,
                Act::Terminate => {
                    terminate = true;
                    break;
                }
            }
            at = self.client_rest.proceed(input, at, to_server);
        }
        if self.owes_fake() && self.server_rest.is_done() {
            self.give_fakes(client, to_client);
        }
        Ok(FromClient {
            consumed: at,
            terminate,
        })
    }

    #[inline]
    fn client_frame(
        &mut self,
        header: Header,
        frame: &[u8],
        client: &mut ClientSide,
        rules: &Rules<'_>,
        input: &[u8],
        out: &mut Gather,
    ) -> Result<Act, Violation> {
        let skipping = self.stream == ClientStream::SkipToSync;
        if skipping && !matches!(header.tag, tag::SYNC | tag::TERMINATE) {
            return Ok(Act::Drop);
        }
        let awaited = match header.tag {
            tag::QUERY if rules.refuses_queries => return Err(Violation::SimpleQuery),
            tag::QUERY => return Ok(self.query(header, frame, rules)),
            tag::EXECUTE => Awaited::Execute,
            tag::FUNCTION_CALL => {
                let there = there(header, frame);
                let Some(&oid) = there.first_chunk::<4>() else {
                    if header.body_len < 4 {
                        return Err(Violation::ClientMalformed(header.tag));
                    }
                    return Ok(Act::More);
                };
                self.residue.note_call(u32::from_be_bytes(oid));
                Awaited::FunctionCall
            }
            tag::SYNC => {
                if self.stream == ClientStream::CopyIn {
                    self.pipeline.push_sync_into_copy();
                    return Ok(Act::Pass);
                }
                self.stream = ClientStream::Normal;
                Awaited::Sync
            }
            tag::PARSE | tag::BIND | tag::DESCRIBE | tag::CLOSE => {
                return match rules.max_prepared {
                    Some(max) => Named {
                        relay: self,
                        client,
                        rules,
                        max,
                        input,
                        out,
                    }
                    .act(header, frame),
                    None => {
                        if header.tag == tag::PARSE && !self.unmapped_parse(header, frame, rules) {
                            return Ok(Act::More);
                        }
                        self.pipeline.push(extended(header.tag), Reply::Forward);
                        Ok(Act::Pass)
                    }
                };
            }
            tag::COPY_DONE | tag::COPY_FAIL => {
                if self.stream == ClientStream::CopyIn {
                    self.stream = ClientStream::Normal;
                } else {
                    self.pipeline.push_copy_end();
                }
                return Ok(Act::Pass);
            }
            tag::COPY_DATA | tag::FLUSH => return Ok(Act::Pass),
            tag::TERMINATE => return Ok(Act::Terminate),
            other => return Err(Violation::ClientMessage(other)),
        };
        self.pipeline.push(awaited, Reply::Forward);
        Ok(Act::Pass)
    }

    /// A Parse while names are forwarded as they are. `false`: wait.
    fn unmapped_parse(&mut self, header: Header, frame: &[u8], rules: &Rules<'_>) -> bool {
        let there = there(header, frame);
        if Self::awaits_text(rules, header, there) {
            return false;
        }
        let mut reader = Reader::new(there);
        // Without its name's end the text has not come either.
        let name = reader.string();
        let is_whole = there.len() == header.body_len;
        if !self.note_text(reader.rest(), is_whole, rules) {
            return false;
        }
        self.spoken.note(reader.rest());
        if rules.private && name.is_ok_and(|name| !name.is_empty()) {
            self.residue.suspect(Kinds::PREPARED);
        }
        true
    }

    /// A query. While names are mapped its first word is looked at, because drivers send DISCARD ALL
    /// and their next batch in one go.
    #[inline]
    fn query(&mut self, header: Header, frame: &[u8], rules: &Rules<'_>) -> Act {
        let there = there(header, frame);
        let is_whole = there.len() == header.body_len;
        if Self::awaits_text(rules, header, there) || !self.note_text(there, is_whole, rules) {
            return Act::More;
        }
        if rules.max_prepared.is_none() {
            self.spoken.note(there);
            self.pipeline.push(Awaited::Query, Reply::Forward);
            return Act::Pass;
        }
        let text = there.trim_ascii_start();
        let undecided = matches!(text.first(), None | Some(b'D' | b'd'));
        if undecided && there.len() < header.body_len.min(FIRST_WORD_LEN) {
            return Act::More;
        }
        let begins = |word: &[u8]| {
            text.get(..word.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(word))
        };
        self.spoken.note(there);
        if begins(b"DISCARD") || begins(b"DEALLOCATE") {
            self.pipeline.push_forgetting();
        } else {
            self.pipeline.push(Awaited::Query, Reply::Forward);
        }
        Act::Pass
    }
}

/// As much of a message's body as has come.
#[inline]
fn there(header: Header, frame: &[u8]) -> &[u8] {
    &frame[HEADER_LEN..frame.len().min(header.frame_len())]
}

/// It would have to be held as a whole.
fn too_long(header: Header) -> Violation {
    Violation::ClientFrame(FrameError::TooLong {
        tag: header.tag,
        // A body is shorter than its length word says.
        length: u32::try_from(header.body_len + 4).unwrap_or(u32::MAX),
        limit: SizeLimits::HELD,
    })
}

/// Enough of a query to read its first word: DEALLOCATE, and some space before it.
const FIRST_WORD_LEN: usize = 16;

/// Which reply a Parse, Bind, Describe or Close waits for.
fn extended(tag: u8) -> Awaited {
    match tag {
        tag::PARSE => Awaited::Parse,
        tag::BIND => Awaited::Bind,
        tag::DESCRIBE => Awaited::Describe,
        _ => Awaited::Close,
    }
}

/// A message that may name a prepared statement, while names are mapped.
struct Named<'a> {
    relay: &'a mut Relay,
    client: &'a mut ClientSide,
    rules: &'a Rules<'a>,
    max: usize,
    input: &'a [u8],
    out: &'a mut Gather,
}

impl Named<'_> {
    fn act(mut self, header: Header, frame: &[u8]) -> Result<Act, Violation> {
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
        let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        match tag {
            tag::PARSE => match Reader::new(body).string() {
                Ok(name) if self.is_taken(name) => Err(Violation::StatementExists(text(name))),
                _ => Ok(()),
            },
            tag::DESCRIBE => match Target::parse(body) {
                Ok(Target::Statement(name)) if !name.is_empty() && self.named(name).is_none() => {
                    Err(Violation::StatementMissing(text(name)))
                }
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn parse(&mut self, body: &[u8]) -> Result<Act, Truncated> {
        let mut reader = Reader::new(body);
        let name = reader.string()?;
        let definition = reader.rest();
        if name.is_empty() {
            if !self.relay.note_text(definition, true, self.rules) {
                return Ok(Act::More);
            }
            self.relay.spoken.note(definition);
            self.relay.pipeline.push(Awaited::Parse, Reply::Forward);
            return Ok(Act::Pass);
        }
        let statement = self.rules.statements.intern(definition);
        if !self.relay.note_statement(&statement.scan, self.rules) {
            return Ok(Act::More);
        }
        self.relay.spoken.note(definition);
        self.relay.tally.client_parses += 1;
        let sent = self.send_if_lacking(&statement);
        let reply = if sent { Reply::Forward } else { Reply::Fake };
        let change = Change::Named {
            name: name.into(),
            statement,
            sent,
        };
        let pipeline = &mut self.relay.pipeline;
        pipeline.push_change(Awaited::Parse, reply, change);
        Ok(Act::Replaced {
            head: HEADER_LEN + body.len(),
        })
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
        if name.is_empty() {
            self.relay.pipeline.push(Awaited::Bind, Reply::Forward);
            return Ok(Act::Pass);
        }
        let Some(statement) = self.named(name) else {
            let name = String::from_utf8_lossy(name).into_owned();
            return Err(Violation::StatementMissing(name));
        };
        if !self.relay.note_statement(&statement.scan, self.rules) {
            return Ok(Act::More);
        }
        self.relay.tally.binds += 1;
        self.relay.spoken.note(&statement.definition);
        self.teach(&statement);
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
        if let Target::Statement(name) = Target::parse(body)?
            && let Some(statement) = self.named(name)
        {
            self.teach(&statement);
            let out = self.out.inject(self.input);
            frontend::describe_statement(out, &statement.server_name);
            self.relay.pipeline.push(Awaited::Describe, Reply::Forward);
            return Ok(Act::Replaced {
                head: HEADER_LEN + body.len(),
            });
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
            Target::Statement(_) | Target::Portal(_) => {
                self.relay.pipeline.push(Awaited::Close, Reply::Forward);
                Ok(Act::Pass)
            }
        }
    }

    /// Sends the server a Parse if it may lack the statement; the client sees nothing of it.
    fn teach(&mut self, statement: &Arc<Statement>) {
        if self.send_if_lacking(statement) {
            let change = Change::Taught(Arc::clone(statement));
            let pipeline = &mut self.relay.pipeline;
            pipeline.push_change(Awaited::Parse, Reply::Skip, change);
        }
    }

    /// Sends the server a Parse unless it surely has the statement. Where nobody knows, a Close
    /// comes first: closing what is not there is no error, preparing what is there is one.
    fn send_if_lacking(&mut self, statement: &Arc<Statement>) -> bool {
        match self.presence(statement) {
            Presence::Has => return false,
            Presence::Lacks => {}
            Presence::Unknown => self.evict(statement),
        }
        self.make_room();
        self.relay.tally.server_parses += 1;
        let out = self.out.inject(self.input);
        frontend::parse_renamed(out, &statement.server_name, &statement.definition);
        true
    }

    fn presence(&mut self, statement: &Arc<Statement>) -> Presence {
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
    fn named(&self, name: &[u8]) -> Option<Arc<Statement>> {
        let known = match self.relay.pipeline.changes().named(name) {
            Some(changed) => changed,
            None => self.client.statements.get(name),
        };
        known.map(Arc::clone)
    }

    /// Whether the client must not give the name to another statement.
    fn is_taken(&self, name: &[u8]) -> bool {
        match self.relay.pipeline.changes().named(name) {
            Some(changed) => changed.is_some(),
            None if self.relay.pipeline.may_forget() => false,
            None => self.client.statements.contains(name),
        }
    }

    fn make_room(&mut self) {
        loop {
            let changes = self.relay.pipeline.changes();
            let len = self.relay.statements.len_after(&changes.outcomes());
            if len < self.max.max(1) {
                return;
            }
            let unchanged = |id| changes.presence(id).is_none();
            let oldest = self.relay.statements.least_used(unchanged).map(Arc::clone);
            let Some(oldest) = oldest.or_else(|| changes.oldest_taught()) else {
                return;
            };
            self.evict(&oldest);
        }
    }

    fn evict(&mut self, statement: &Arc<Statement>) {
        frontend::close_statement(self.out.inject(self.input), &statement.server_name);
        let change = Change::Evicted(statement.id);
        let pipeline = &mut self.relay.pipeline;
        pipeline.push_change(Awaited::Close, Reply::Skip, change);
    }
}
