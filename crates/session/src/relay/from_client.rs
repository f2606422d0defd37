//! From the client to the server.

use bytes::BytesMut;
use pgweir_wire::frontend;
use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{FrameError, HEADER_LEN, Header, Reader, SizeLimits, TransactionStatus};

use super::judged::{self, Admission};
use super::named::Named;
use super::{ClientSide, ClientStream, Relay, Rest, Rules, Sent, Violation, mention};
use crate::changes::Change;
use crate::gather::Gather;
use crate::pipeline::{Awaited, Reply};
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
pub(super) enum Act {
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

/// Changes in the books of prepared statements that are under way before the client has to wait. Every message
/// that names a statement looks through them.
pub(super) const CHANGES_MAX: usize = 300;

impl Relay {
    /// Whether no more of the client is taken before the server has answered some of what it was sent; what was held
    /// back until then has to be offered again. Most messages wait by themselves, because the server takes no more;
    /// what the pooler answers in its place does not.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.pipeline.changes().len() >= CHANGES_MAX && self.can_wait()
    }

    #[cold]
    fn can_wait(&self) -> bool {
        self.client_rest.is_done()
            && self.stream == ClientStream::Normal
            // Nothing counts as answered before its ReadyForQuery.
            && !self.owes_unknown()
    }

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
        let mut taken = FromClient {
            consumed: self.client_rest.proceed(input, 0, to_server),
            terminate: false,
        };
        loop {
            self.take_frames(&mut taken, input, client, rules, to_server)?;
            let was_full = self.is_full();
            // With a reply of the server's they leave together: it does not answer before the client asks it to,
            // either.
            if self.owes_fake() && self.server_rest.is_done() && self.pipeline.owes_only_fakes() {
                self.give_fakes(client, to_client);
            }
            if !was_full || taken.terminate {
                return Ok(taken);
            }
            if self.is_full() {
                if self.pipeline.is_open() {
                    frontend::flush(to_server.inject(input));
                }
                return Ok(taken);
            }
        }
    }

    /// Deals with whole messages and beginnings of messages, until there are no more or the relay is full.
    #[inline]
    fn take_frames(
        &mut self,
        taken: &mut FromClient,
        input: &[u8],
        client: &mut ClientSide,
        rules: &Rules<'_>,
        to_server: &mut Gather,
    ) -> Result<(), Violation> {
        let mut at = taken.consumed;
        while self.client_rest.is_done() && !self.is_full() {
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
                    taken.terminate = true;
                    break;
                }
            }
            at = self.client_rest.proceed(input, at, to_server);
        }
        taken.consumed = at;
        Ok(())
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
            // PostgreSQL would fail, and a Flush is owed no answer: its error would be nobody's.
            tag::FLUSH | tag::SYNC if header.body_len > 0 => {
                return Err(Violation::ClientMalformed(header.tag));
            }
            tag::QUERY if rules.refuses_queries => return Err(Violation::SimpleQuery),
            tag::QUERY => return Ok(self.query(header, frame, client, rules, input, out)),
            tag::EXECUTE if self.unnamed.is_effect_bound => {
                self.push_effect();
                return Ok(Act::Pass);
            }
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
                    None if header.tag == tag::PARSE => {
                        Ok(self.unmapped_parse(header, frame, rules, input, out))
                    }
                    None => {
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

    /// A Parse while names are forwarded as they are.
    fn unmapped_parse(
        &mut self,
        header: Header,
        frame: &[u8],
        rules: &Rules<'_>,
        input: &[u8],
        out: &mut Gather,
    ) -> Act {
        let there = there(header, frame);
        if Self::awaits_text(rules, header, there) {
            return Act::More;
        }
        let mut reader = Reader::new(there);
        // Without its name's end the text has not come either.
        let name = reader.string();
        let is_whole = there.len() == header.body_len;
        match self.note_text(reader.rest(), is_whole, rules) {
            Admission::Fine => {}
            Admission::Wait => return Act::More,
            Admission::Refused(refusal) => return self.refuse_parse(refusal, out.inject(input)),
        }
        self.spoken.note(reader.rest());
        let has_name = name.is_ok_and(|name| !name.is_empty());
        if rules.private && has_name && !rules.state.allowed.has(Kinds::PREPARED) {
            self.residue.suspect(Kinds::PREPARED);
        }
        self.pipeline.push(Awaited::Parse, Reply::Forward);
        Act::Pass
    }

    /// Makes the server fail in the place of a Parse, or of what needs one.
    #[cold]
    pub(super) fn refuse_parse(&mut self, refusal: u32, out: &mut BytesMut) -> Act {
        self.send_refused(refusal, out);
        self.pipeline.push(Awaited::Parse, Reply::Forward);
        Act::Drop
    }

    /// The same for a Parse with a name, which what follows in the batch may mention.
    #[cold]
    pub(super) fn refuse_named(&mut self, refusal: u32, change: Change, out: &mut BytesMut) -> Act {
        self.send_refused(refusal, out);
        self.pipeline
            .push_change(Awaited::Parse, Reply::Forward, change);
        Act::Drop
    }

    fn send_refused(&mut self, refusal: u32, out: &mut BytesMut) {
        let definition = format!("{}\0\0\0", judged::text(refusal));
        frontend::parse_renamed(out, "", definition.as_bytes());
        self.unnamed.sent = Sent::No;
    }

    /// A query. While names are mapped its first word is looked at, because drivers send DISCARD ALL
    /// and their next batch in one go.
    #[inline]
    fn query(
        &mut self,
        header: Header,
        frame: &[u8],
        client: &ClientSide,
        rules: &Rules<'_>,
        input: &[u8],
        out: &mut Gather,
    ) -> Act {
        let there = there(header, frame);
        let is_whole = there.len() == header.body_len;
        if Self::awaits_text(rules, header, there) {
            return Act::More;
        }
        match self.note_text(there, is_whole, rules) {
            Admission::Fine => {}
            Admission::Wait => return Act::More,
            Admission::Refused(refusal) => {
                frontend::query(out.inject(input), &judged::text(refusal));
                self.pipeline.push(Awaited::Query, Reply::Forward);
                return Act::Drop;
            }
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
        self.spoken.note(there);
        if undecided && mention::may_forget(text) {
            if is_whole && self.deallocate(there, client) {
                return Act::Drop;
            }
            self.pipeline.push_forgetting(Awaited::Query);
        } else {
            self.pipeline.push(Awaited::Query, Reply::Forward);
        }
        Act::Pass
    }

    /// Whether a query takes away a name that the protocol has given: then the pooler answers it, and
    /// the server keeps the statement for whoever wants it next.
    #[cold]
    fn deallocate(&mut self, text: &[u8], client: &ClientSide) -> bool {
        // What a transaction is in is known only when nothing is owed.
        if !self.is_quiet() || self.status == TransactionStatus::Failed {
            return false;
        }
        let mention = mention::deallocated(text);
        let Some(mention) = mention.filter(|mention| client.statements.contains(&mention.name))
        else {
            return false;
        };
        let change = Change::Closed(mention.name);
        self.pipeline
            .push_change(Awaited::Query, Reply::Fake, change);
        true
    }
}

/// As much of a message's body as has come.
#[inline]
pub(super) fn there(header: Header, frame: &[u8]) -> &[u8] {
    &frame[HEADER_LEN..frame.len().min(header.frame_len())]
}

/// It would have to be held as a whole.
pub(super) fn too_long(header: Header) -> Violation {
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
