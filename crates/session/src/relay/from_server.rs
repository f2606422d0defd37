//! From the server to the client.

use std::sync::Arc;

use bytes::{BufMut as _, BytesMut};
use pgweir_wire::backend::read_parameter_status;
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{HEADER_LEN, Header, TransactionStatus};

use super::{Asked, ClientSide, ClientStream, Relay, Rest, Rules, Violation};
use crate::gather::Gather;
use crate::outgrown::{self, Comparison};
use crate::params::Values;
use crate::pipeline::{Awaited, CopyIn, Reply};
use crate::residue::Kinds;

/// Whether a message shows which of the client's messages the server has read.
fn dispels_doubt(tag: u8) -> bool {
    !matches!(
        tag,
        tag::READY_FOR_QUERY
            | tag::ERROR_RESPONSE
            | tag::NOTICE_RESPONSE
            | tag::NOTIFICATION_RESPONSE
            | tag::PARAMETER_STATUS
    )
}

impl Relay {
    /// Deals with the server's next bytes: what the client is to get is appended to `to_client`.
    /// Returns how many bytes were dealt with; the rest must be offered again with what follows.
    ///
    /// # Errors
    /// The server broke the protocol or our books are wrong; neither connection can be trusted
    /// after that.
    #[expect(
        clippy::wrong_self_convention,
        reason = "named for the direction of the bytes"
    )]
    pub fn from_server(
        &mut self,
        input: &[u8],
        client: &mut ClientSide,
        rules: &Rules<'_>,
        to_client: &mut Gather,
    ) -> Result<usize, Violation> {
        let mut at = self.server_rest.proceed(input, 0, to_client);
        // Whole frames that are forwarded one after the other are one stretch; it begins here.
        let mut stretch = at;
        while self.server_rest.is_done() {
            if self.owes_fake() {
                to_client.pass(input, stretch..at);
                stretch = at;
                self.give_fakes(client, to_client.inject(input));
            }
            let frame = &input[at..];
            let header = Header::peek(frame, u32::MAX).map_err(Violation::ServerFrame)?;
            let Some(header) = header else { break };
            if header.tag == tag::READY_FOR_QUERY && self.pipeline.owes_unknown() {
                to_client.pass(input, std::mem::replace(&mut stretch, at)..at);
                self.end_unknown(client, to_client.inject(input));
            }
            let Some(reply) = self.server_frame(header, frame, client, rules)? else {
                break;
            };
            let forward = reply == Reply::Forward;
            if forward && header.frame_len() <= frame.len() {
                at += header.frame_len();
                continue;
            }
            to_client.pass(input, stretch..at);
            if self.reworded.is_some() {
                self.give_reworded(to_client.inject(input));
            }
            self.server_rest = Rest::new(forward, header.frame_len());
            at = self.server_rest.proceed(input, at, to_client);
            stretch = at;
        }
        to_client.pass(input, stretch..at);
        Ok(at)
    }

    #[cold]
    fn give_reworded(&mut self, out: &mut BytesMut) {
        if let Some(reworded) = self.reworded.take() {
            out.extend_from_slice(&reworded);
        }
    }

    /// Whether the client gets the frame; `None` if more of it must be there first.
    #[inline]
    fn server_frame(
        &mut self,
        header: Header,
        frame: &[u8],
        client: &mut ClientSide,
        rules: &Rules<'_>,
    ) -> Result<Option<Reply>, Violation> {
        let unexpected = || Violation::ServerMessage(header.tag);
        if self.pipeline.is_in_doubt() && dispels_doubt(header.tag) {
            self.pipeline.dispel_doubt();
        }
        let answered = match header.tag {
            tag::DATA_ROW => {
                return match self.own_or_forward() {
                    Reply::Skip => self.own_row(header, frame),
                    reply => Ok(Some(reply)),
                };
            }
            tag::COPY_DATA
            | tag::COPY_DONE
            | tag::COPY_OUT_RESPONSE
            | tag::COPY_BOTH_RESPONSE
            | tag::FUNCTION_CALL_RESPONSE
            | tag::NOTICE_RESPONSE => return Ok(Some(self.own_or_forward())),
            tag::PARAMETER_DESCRIPTION => {
                return match self.pipeline.front() {
                    Some((Awaited::Describe, reply)) => Ok(Some(reply)),
                    _ => Ok(Some(Reply::Forward)),
                };
            }
            tag::NOTIFICATION_RESPONSE => {
                return Ok(self.notification(header, frame, client, rules));
            }
            tag::PARSE_COMPLETE => Awaited::Parse,
            tag::BIND_COMPLETE => Awaited::Bind,
            tag::CLOSE_COMPLETE => Awaited::Close,
            tag::NO_DATA => Awaited::Describe,
            tag::ROW_DESCRIPTION => match self.pipeline.front() {
                Some((Awaited::Query, reply)) => return Ok(Some(reply)),
                _ => Awaited::Describe,
            },
            tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED => match self.pipeline.front() {
                Some((Awaited::Query, reply)) => return Ok(Some(reply)),
                _ => Awaited::Execute,
            },
            tag::COMMAND_COMPLETE => {
                if frame.len() < header.frame_len() {
                    return Ok(None);
                }
                // A COPY that has ended well has read what was sent into it.
                self.pipeline.dispel_doubt();
                self.command_complete(&frame[HEADER_LEN..header.frame_len()], client, rules);
                match self.pipeline.front() {
                    Some((Awaited::Query, reply)) => return Ok(Some(reply)),
                    _ => Awaited::Execute,
                }
            }
            tag::COPY_IN_RESPONSE => match self.pipeline.front() {
                Some((Awaited::Query | Awaited::Execute | Awaited::Unknown, Reply::Forward)) => {
                    if self.pipeline.copy_in_begun() == CopyIn::Open {
                        self.stream = ClientStream::CopyIn;
                    }
                    return Ok(Some(Reply::Forward));
                }
                _ => return Err(unexpected()),
            },
            tag::READY_FOR_QUERY => {
                let Some(&status) = frame.get(HEADER_LEN) else {
                    return Ok(None);
                };
                return self.ready(status, client).map(Some);
            }
            tag::PARAMETER_STATUS => {
                let Some(body) = frame.get(HEADER_LEN..header.frame_len()) else {
                    return Ok(None);
                };
                self.parameter_status(body, client, rules)?;
                return Ok(Some(self.own_or_forward()));
            }
            tag::ERROR_RESPONSE => return self.error(header, frame, client),
            _ => return Err(unexpected()),
        };
        if answered == Awaited::Describe
            && self.pipeline.front_changes()
            && !self.described(header, frame)
        {
            return Ok(None);
        }
        let answered = self.pipeline.answered(answered).ok_or_else(unexpected)?;
        if let Some(change) = answered.change {
            self.change(change, client);
        }
        Ok(Some(answered.reply))
    }

    /// A statement has been described. `false`: more of that has to be there first.
    #[cold]
    fn described(&mut self, header: Header, frame: &[u8]) -> bool {
        let Some((statement, is_compared)) = self.pipeline.describes() else {
            return true;
        };
        let Some(body) = frame.get(HEADER_LEN..header.frame_len()) else {
            return false;
        };
        let columns = outgrown::columns(body);
        let known = *statement.described.get_or_init(|| columns);
        if is_compared {
            self.comparison = match known == columns {
                true => Comparison::None,
                false => {
                    self.statements.remove(statement.id);
                    Comparison::Outgrown(Arc::clone(statement))
                }
            };
        }
        true
    }

    /// A notification comes from a server, and the client knows only clients.
    #[cold]
    fn notification(
        &mut self,
        header: Header,
        frame: &[u8],
        client: &mut ClientSide,
        rules: &Rules<'_>,
    ) -> Option<Reply> {
        let frame = frame.get(..header.frame_len())?;
        if self.is_told_elsewhere(&frame[HEADER_LEN..], client) {
            return Some(Reply::Skip);
        }
        let Some(backends) = rules.backends else {
            return Some(Reply::Forward);
        };
        let Some((sender, rest)) = frame[HEADER_LEN..].split_first_chunk() else {
            return Some(Reply::Forward);
        };
        let Some(shown) = backends.shown(i32::from_be_bytes(*sender)) else {
            return Some(Reply::Forward);
        };
        let mut own = BytesMut::with_capacity(frame.len());
        own.put_slice(&frame[..HEADER_LEN]);
        own.put_i32(shown);
        own.put_slice(rest);
        self.reworded = Some(own);
        Some(Reply::Skip)
    }

    #[inline]
    fn own_or_forward(&self) -> Reply {
        if self.is_asking() {
            Reply::Skip
        } else {
            Reply::Forward
        }
    }

    #[inline]
    fn ready(&mut self, status: u8, client: &mut ClientSide) -> Result<Reply, Violation> {
        let status = TransactionStatus::from_byte(status);
        self.status = status.ok_or(Violation::ServerMalformed(tag::READY_FOR_QUERY))?;
        self.stream = ClientStream::Normal;
        let reply = self.pipeline.ready();
        let reply = reply.ok_or(Violation::ServerMessage(tag::READY_FOR_QUERY))?;
        // A ReadyForQuery that a Sync in a failed COPY is owed may come first.
        if reply == Reply::Skip && !self.is_asking() {
            self.own_query_ended(client);
        }
        Ok(reply)
    }

    #[cold]
    fn own_query_ended(&mut self, client: &mut ClientSide) {
        match std::mem::replace(&mut self.asked, Asked::Other) {
            Asked::Fit { wanted, names, .. } if self.refused.is_none() => {
                self.values.adopt_requested(&wanted);
                let mut values = std::mem::take(&mut self.values);
                self.spell(&names, &mut values);
                self.values = values;
                // The server may spell a value in its own way ("ISO, MDY" for "ISO"): from here on the
                // client has the server's spelling, so that the same server is not set again.
                client.values = self.values.clone();
            }
            Asked::Look(probe) if self.refused.is_none() => self.looked(&probe),
            Asked::Fit { .. } | Asked::Look(_) | Asked::Mark | Asked::Other => {}
        }
    }

    #[inline]
    fn command_complete(&mut self, body: &[u8], client: &mut ClientSide, rules: &Rules<'_>) {
        match &mut self.asked {
            Asked::Fit { undoing, .. } => {
                *undoing = undoing.saturating_sub(1);
                return;
            }
            Asked::Look(_) | Asked::Mark => return,
            Asked::Other => {}
        }
        if body == b"ROLLBACK\0" {
            self.residue.note_undone();
        }
        match body {
            // It is known what was set, or it will be asked.
            b"SET\0" if rules.private && !rules.state.allowed.has(Kinds::SETTINGS) => {
                self.residue.note_set();
            }
            b"RESET\0" if rules.private && !rules.state.allowed.has(Kinds::SETTINGS) => {
                self.residue.note_set();
                self.note_reset(client);
            }
            b"DEALLOCATE ALL\0" => self.forget_statements(client, rules),
            b"DISCARD ALL\0" => {
                self.forget_statements(client, rules);
                self.values.adopt_requested(&Values::default());
                self.note_reset(client);
            }
            b"RESET\0" => {
                self.values.doubt_requested();
                self.note_reset(client);
            }
            b"SET\0" => self.values.doubt_requested(),
            _ => {}
        }
    }

    /// The statements that were prepared under our names are gone.
    fn forget_statements(&mut self, client: &mut ClientSide, rules: &Rules<'_>) {
        if rules.max_prepared.is_some() {
            // What the pooler takes back costs its client no names.
            if !self.is_asking() {
                client.statements.clear();
            }
            self.statements.clear();
        }
    }

    #[cold]
    fn note_reset(&mut self, client: &ClientSide) {
        self.was_reset |= !self.is_asking() && !client.values.requested().is_empty();
    }

    #[cold]
    fn parameter_status(
        &mut self,
        body: &[u8],
        client: &mut ClientSide,
        rules: &Rules<'_>,
    ) -> Result<(), Violation> {
        let malformed = Violation::ServerMalformed(tag::PARAMETER_STATUS);
        let Ok((name, value)) = read_parameter_status(body) else {
            return Err(malformed);
        };
        let (Ok(name), Ok(value)) = (std::str::from_utf8(name), std::str::from_utf8(value)) else {
            return Ok(());
        };
        // PostgreSQL tells it when a standby has been promoted, with the next answer.
        if name == "in_hot_standby" {
            self.in_hot_standby = Some(value == "on");
        }
        match rules.tracked.index(name) {
            Some(index) => {
                self.values.set(index, value);
                if !self.is_asking() {
                    client.values.set(index, value);
                }
            }
            // What the client has set it keeps. After a reset it goes back to what it requested.
            None if !self.is_asking() && !self.was_reset => {
                self.values.replace_requested(name, value);
                client.values.replace_requested(name, value);
            }
            None => {}
        }
        Ok(())
    }
}
