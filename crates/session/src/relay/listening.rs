//! What a client listens to that has no server between its transactions: it is moved from the server on
//! which LISTEN was executed to a connection that listens for many ([`Board`](crate::Board)).
//!
//! Load-bearing rules:
//! 1. What a client listens to elsewhere is told by the other connection alone: whatever a server says
//!    on these channels is not passed on. Until the mark has come, a new channel is the server's to tell.
//! 2. Before a statement that may end something of it, or asks for it, the server listens to all of it.
//!    Then PostgreSQL decides what remains, and a look reads it.

use std::sync::Arc;

use bytes::BytesMut;
use pgweir_wire::{Reader, TransactionStatus};

use super::{Asked, ClientSide, Relay, Waits};
use crate::channels::{Channels, MARKS, Mark, listen};
use crate::residue::Kinds;

/// What a server does about what its client listens to elsewhere.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Whether the client listens to anything elsewhere.
    is_some: bool,
    /// Whether the server listens to all of that as well.
    again: Option<Again>,
    /// What the last look has found.
    found: Option<Listening>,
    /// What divides what the server tells from what is told elsewhere, and the channels that it is for.
    mark: Option<Box<(Mark, Channels)>>,
    /// Whether the server listens to marks, and so to those of others.
    hears_marks: bool,
}

/// In which way a server has begun to listen to what its client listens to elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Again {
    /// Before the client's transaction: that stands.
    Before,
    /// Within it: that may be undone with it, or with a part of it.
    Within,
}

impl Elsewhere {
    /// A lease begins.
    #[inline]
    pub(super) fn begin(&mut self) {
        *self = Self::default();
    }
}

/// What a server listens to when a transaction has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listening {
    /// The channels.
    pub channels: Channels,
    /// Whether that is all that its client listens to; otherwise it is added to what it listens to
    /// elsewhere.
    pub is_all: bool,
}

impl Relay {
    /// The client that has the server listens to something elsewhere.
    pub fn note_elsewhere(&mut self) {
        self.elsewhere.is_some = true;
    }

    /// Whether the server has to listen to what its client listens to elsewhere. In the middle of a batch
    /// it is too late.
    pub(super) fn must_listen_again(&self) -> bool {
        self.elsewhere.is_some
            && self.elsewhere.again.is_none()
            && self.is_quiet()
            && self.status != TransactionStatus::Failed
    }

    /// Appends what makes the server listen to what its client listens to elsewhere.
    pub fn listen_again(&mut self, client: &ClientSide, out: &mut BytesMut) {
        self.waits = Waits::Nothing;
        self.elsewhere.again = Some(match self.status {
            TransactionStatus::Idle => Again::Before,
            TransactionStatus::InTransaction | TransactionStatus::Failed => Again::Within,
        });
        self.residue.suspect(Kinds::LISTEN);
        let channels = client.channels.iter().flat_map(|channels| channels.iter());
        self.ask(&listen(channels), out);
    }

    /// A look has found what the server listens to.
    pub(super) fn note_listening(&mut self, channels: Option<Channels>) {
        let is_all = match self.elsewhere.again {
            None => false,
            Some(Again::Before) => true,
            // Of what was undone nobody knows whether it was all.
            Some(Again::Within) => !self.residue.is_undone(),
        };
        self.elsewhere.found = channels.map(|mut channels| {
            channels.retain(|channel| !channel.starts_with(MARKS));
            Listening { channels, is_all }
        });
    }

    /// What the last look has found, if it has looked for that.
    pub fn take_listening(&mut self) -> Option<Listening> {
        self.elsewhere.found.take()
    }

    /// Whether the last look has found nothing but what the client listens to elsewhere: the server was made to listen to
    /// that as well, for a statement that may end some of it.
    pub fn has_found_nothing_new(&self, client: &ClientSide) -> bool {
        let (Some(found), Some(known)) = (&self.elsewhere.found, client.channels.as_deref()) else {
            return false;
        };
        found.channels.is_subset(known)
    }

    /// Appends the commands that send a mark: what the server hears behind it on these channels is not
    /// passed on, because it is told elsewhere. When the server has answered, [`Self::is_marked`] says
    /// whether the mark has come.
    pub fn send_mark(&mut self, mark: Mark, channels: Channels, out: &mut BytesMut) {
        self.ask(&mark.sql(), out);
        self.asked = Asked::Mark;
        self.elsewhere.mark = Some(Box::new((mark, channels)));
        self.elsewhere.hears_marks = true;
    }

    /// Whether the mark that was sent has come.
    pub fn is_marked(&self) -> bool {
        self.elsewhere.mark.is_none()
    }

    /// The mark will not come, or is not waited for: the channels are the server's to tell.
    pub fn forget_mark(&mut self) {
        self.elsewhere.mark = None;
    }

    /// Appends the command by which the server stops to listen; [`Self::unlistened`] follows.
    pub fn unlisten(&mut self, out: &mut BytesMut) {
        self.ask("UNLISTEN *", out);
    }

    /// The server does not listen any more.
    pub fn unlistened(&mut self, client: &ClientSide) {
        self.residue.note_unlistened();
        self.elsewhere = Elsewhere {
            is_some: client.channels.is_some(),
            ..Elsewhere::default()
        };
    }

    /// Whether the client is told elsewhere of a notification, or it is a mark. Takes the mark.
    pub(super) fn is_told_elsewhere(&mut self, body: &[u8], client: &mut ClientSide) -> bool {
        if client.channels.is_none() && !self.elsewhere.hears_marks {
            return false;
        }
        let mut reader = Reader::new(body);
        let (Ok(_), Ok(channel), Ok(payload)) = (reader.i32(), reader.string(), reader.string())
        else {
            return false;
        };
        if let Some(sent) = self.elsewhere.mark.take_if(|m| m.0.is(channel, payload)) {
            let all = client.channels.get_or_insert_default();
            all.extend(sent.1.iter().map(Arc::clone));
            return true;
        }
        let channel = std::str::from_utf8(channel).unwrap_or_default();
        if self.elsewhere.hears_marks && channel.starts_with(MARKS) {
            return true;
        }
        let known = |channels: &Channels| channels.contains(channel);
        client.channels.as_deref().is_some_and(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Values;

    fn channels(names: &[&str]) -> Channels {
        names.iter().map(|name| Arc::from(*name)).collect()
    }

    fn notification(channel: &str, payload: &str) -> Vec<u8> {
        format!("\0\0\0\x07{channel}\0{payload}\0").into_bytes()
    }

    #[test]
    fn what_is_heard_before_the_mark_is_the_servers_to_tell() {
        let (mut relay, mut client) = (Relay::new(Values::default()), ClientSide::default());
        let mut dropped = |relay: &mut Relay, channel: &str, payload: &str| {
            relay.is_told_elsewhere(&notification(channel, payload), &mut client)
        };
        assert!(!dropped(&mut relay, "news", ""));
        let mark = Mark {
            channel: "pgweir_marks_a".into(),
            token: 7,
        };
        let mut out = BytesMut::new();
        relay.send_mark(mark, channels(&["news", "Ünï"]), &mut out);
        assert!(!relay.is_marked());
        assert!(!dropped(&mut relay, "news", ""));
        assert!(dropped(&mut relay, "pgweir_marks_a", "8"), "another's mark");
        assert!(dropped(&mut relay, "pgweir_marks_a", "7"));
        assert!(relay.is_marked());
        assert!(dropped(&mut relay, "news", ""));
        assert!(dropped(&mut relay, "Ünï", ""));
        assert!(!dropped(&mut relay, "NEWS", ""));
        assert_eq!(
            client.channels.as_deref(),
            Some(&channels(&["news", "Ünï"]))
        );
    }

    #[test]
    fn a_mark_that_is_given_up_moves_nothing() {
        let (mut relay, mut client) = (Relay::new(Values::default()), ClientSide::default());
        let mark = Mark {
            channel: "pgweir_marks_a".into(),
            token: 7,
        };
        relay.send_mark(mark, channels(&["news"]), &mut BytesMut::new());
        relay.forget_mark();
        relay.is_told_elsewhere(&notification("pgweir_marks_a", "7"), &mut client);
        assert_eq!(client.channels, None);
    }

    #[test]
    fn a_server_listens_again_once_and_not_in_a_failed_transaction() {
        let mut relay = Relay::new(Values::default());
        let client = ClientSide {
            channels: Some(Box::new(channels(&["a", "B"]))),
            ..ClientSide::default()
        };
        assert!(!relay.must_listen_again(), "the client listens to nothing");
        relay.note_elsewhere();
        relay.status = TransactionStatus::Failed;
        assert!(!relay.must_listen_again());
        relay.status = TransactionStatus::Idle;
        assert!(relay.must_listen_again());
        let mut out = BytesMut::new();
        relay.listen_again(&client, &mut out);
        assert_eq!(&out[5..], b"LISTEN \"B\";LISTEN \"a\";\0");
        assert!(!relay.must_listen_again());
        assert!(relay.residue().may_have(Kinds::LISTEN));
    }

    #[test]
    fn what_was_undone_in_part_is_not_all() {
        let found = |status: Option<TransactionStatus>, is_undone: bool| {
            let mut relay = Relay::new(Values::default());
            relay.note_elsewhere();
            if let Some(status) = status {
                relay.status = status;
                relay.listen_again(&ClientSide::default(), &mut BytesMut::new());
            }
            if is_undone {
                relay.residue.note_undone();
            }
            relay.note_listening(Some(channels(&["a"])));
            relay.take_listening().map(|listening| listening.is_all)
        };
        let (before, within) = (TransactionStatus::Idle, TransactionStatus::InTransaction);
        assert_eq!(found(None, false), Some(false));
        assert_eq!(found(Some(before), true), Some(true));
        assert_eq!(found(Some(within), false), Some(true));
        assert_eq!(found(Some(within), true), Some(false));
    }
}
