//! Stories of a client, a relay and a server, told in frames.
//!
//! After every step the relay and the client's side move to another process: whatever can be in
//! them can be handed over.

use std::time::Instant;

use bytes::BytesMut;
use pgweir_wire::HEADER_LEN;

use super::from_client::CHANGES_MAX;
use super::*;
use crate::gather::Gather;
use crate::handover::{Catalogue, ClientState};
use crate::params::Tracked;
use crate::prepared::StatementTable;
use crate::residue::{Kinds, Memory};
use crate::testing::frame;

mod abandoned;
mod batches;
mod copies;
mod handed_over;
mod names;
mod parameters;
mod prepared;

/// A client and a server with a relay between them; both sides' bytes are collected.
struct Story {
    relay: Relay,
    client: ClientSide,
    tracked: Tracked,
    table: StatementTable,
    max_prepared: Option<usize>,
    prepares_unnamed: bool,
    refuses_queries: bool,
    answers_as_postgres: bool,
}

impl Story {
    fn new() -> Self {
        Self {
            relay: Relay::new(Values::default()),
            client: ClientSide::default(),
            tracked: Tracked::new([]),
            table: StatementTable::default(),
            max_prepared: Some(100),
            prepares_unnamed: false,
            refuses_queries: false,
            answers_as_postgres: false,
        }
    }

    /// The client sends; what the server gets and what the client is answered at once.
    fn client(&mut self, frames: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
        let (server, client, _) = self.try_client(&frames.concat()).expect("no violation");
        (server, client)
    }

    fn try_client(&mut self, input: &[u8]) -> Result<(Vec<u8>, Vec<u8>, FromClient), Violation> {
        let rules = Rules {
            max_prepared: self.max_prepared,
            prepares_unnamed: self.prepares_unnamed,
            refuses_queries: self.refuses_queries,
            answers_as_postgres: self.answers_as_postgres,
            ..rules(&self.tracked, &self.table)
        };
        let (mut to_server, mut to_client) = (Gather::default(), BytesMut::new());
        let verdict = self.relay.from_client(
            input,
            &mut self.client,
            &rules,
            &mut to_server,
            &mut to_client,
        )?;
        let said = (to_server.bytes(input).to_vec(), to_client.to_vec(), verdict);
        self.hand_over();
        Ok(said)
    }

    /// Another process goes on with what this one has told it.
    fn hand_over(&mut self) {
        if self.relay.is_asking() || self.relay.refused.is_some() {
            // Only what serves a client moves.
            return;
        }
        let relay = serde_json::to_string(&self.relay.state(&self.tracked)).unwrap();
        let client = serde_json::to_string(&self.client.state(&self.tracked)).unwrap();
        let (table, mut catalogue) = (StatementTable::default(), Catalogue::default());
        for told in self.table.all() {
            let told = serde_json::to_string(&told.state()).unwrap();
            let told = serde_json::from_str(&told).unwrap();
            catalogue.adopt(&told, &table).unwrap();
        }
        table.begin_after(self.table.last_id());
        let tally = self.relay.take_tally();
        let state: RelayState = serde_json::from_str(&relay).unwrap();
        self.relay = Relay::restore(state, &self.tracked, &catalogue).unwrap();
        self.relay.tally = tally;
        let state: ClientState = serde_json::from_str(&client).unwrap();
        self.client = ClientSide::restore(state, &self.tracked, &catalogue).unwrap();
        self.table = table;
        let again = serde_json::to_string(&self.relay.state(&self.tracked)).unwrap();
        assert_eq!(again, relay, "nothing is lost on the way");
    }

    /// The server sends; what the client gets.
    fn server(&mut self, frames: &[Vec<u8>]) -> Vec<u8> {
        self.try_server(&frames.concat()).expect("no violation")
    }

    fn try_server(&mut self, input: &[u8]) -> Result<Vec<u8>, Violation> {
        let rules = Rules {
            max_prepared: self.max_prepared,
            prepares_unnamed: self.prepares_unnamed,
            refuses_queries: self.refuses_queries,
            answers_as_postgres: self.answers_as_postgres,
            ..rules(&self.tracked, &self.table)
        };
        let mut to_client = Gather::default();
        let consumed = self
            .relay
            .from_server(input, &mut self.client, &rules, &mut to_client)?;
        assert_eq!(consumed, input.len(), "these stories send whole frames");
        let said = to_client.bytes(input).to_vec();
        self.hand_over();
        Ok(said)
    }
}

/// Those of a new story.
fn rules<'a>(tracked: &'a Tracked, statements: &'a StatementTable) -> Rules<'a> {
    Rules {
        max_prepared: Some(100),
        ..Rules::plain(tracked, statements)
    }
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}
fn bind(name: &str) -> Vec<u8> {
    frame(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes())
}
fn close(name: &str) -> Vec<u8> {
    frame(b'C', format!("S{name}\0").as_bytes())
}
fn describe(name: &str) -> Vec<u8> {
    frame(b'D', format!("S{name}\0").as_bytes())
}
fn execute() -> Vec<u8> {
    frame(b'E', b"\0\0\0\0\0")
}
fn sync() -> Vec<u8> {
    frame(b'S', b"")
}
fn flush() -> Vec<u8> {
    frame(b'H', b"")
}
fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', format!("{sql}\0").as_bytes())
}
fn ready(status: u8) -> Vec<u8> {
    frame(b'Z', &[status])
}
fn complete(tag: &str) -> Vec<u8> {
    frame(b'C', format!("{tag}\0").as_bytes())
}
fn error() -> Vec<u8> {
    frame(b'E', b"SERROR\0C42601\0Mno\0\0")
}

#[test]
fn simple_queries_can_be_refused_and_the_server_is_none_the_worse() {
    let mut story = Story::new();
    story.refuses_queries = true;
    let extended = [parse("", "select 1"), bind(""), execute(), sync()].concat();
    assert!(story.try_client(&extended).is_ok());
    story.server(&[
        frame(b'1', b""),
        frame(b'2', b""),
        complete("SELECT 1"),
        ready(b'I'),
    ]);
    let refusal = story.try_client(&query("select 1")).expect_err("refused");
    assert!(matches!(refusal, Violation::SimpleQuery) && refusal.is_clients());
    assert!(story.relay.may_release());
}

#[test]
fn a_simple_query_passes_unchanged_and_ends_quiet() {
    let mut story = Story::new();
    let sent = [query("select 1")];
    assert_eq!(story.client(&sent).0, sent.concat());
    assert!(!story.relay.is_quiet());
    let answer = [
        frame(b'T', b"\0\0"),
        frame(b'D', b"\0\0"),
        complete("SELECT 1"),
        ready(b'I'),
    ];
    assert_eq!(story.server(&answer), answer.concat());
    assert!(story.relay.may_release());
}

#[test]
fn a_transaction_keeps_its_server() {
    let mut story = Story::new();
    story.client(&[query("begin")]);
    story.server(&[complete("BEGIN"), ready(b'T')]);
    assert!(story.relay.is_quiet());
    assert!(!story.relay.may_release());
}

#[test]
fn bytes_may_be_cut_anywhere() {
    let mut story = Story::new();
    let sent = [parse("s", "select $1"), bind("s"), execute(), sync()].concat();
    let (mut held, mut seen) = (Vec::new(), Vec::new());
    for &byte in &sent {
        held.push(byte);
        let (server, _, verdict) = story.try_client(&held).unwrap();
        held.drain(..verdict.consumed);
        seen.extend(server);
    }
    let expected = [
        parse("PGBOUNCER_1", "select $1"),
        bind("PGBOUNCER_1"),
        execute(),
        sync(),
    ];
    assert_eq!(seen, expected.concat());
}

/// The client has prepared this name.
fn prepared_as(name: &str) -> Story {
    let mut story = Story::new();
    story.client(&[parse(name, "select 1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story
}

#[test]
fn a_server_that_ends_the_connection_has_said_goodbye() {
    for (severity, ends) in [("ERROR", false), ("FATAL", true), ("PANIC", true)] {
        let mut story = Story::new();
        story.client(&[query("select 1")]);
        let body = format!("SFEHLER\0V{severity}\0C57P01\0Mno\0\0");
        story.server(&[frame(b'E', body.as_bytes())]);
        assert_eq!(story.relay.has_said_goodbye(), ends);
    }
}

#[test]
fn a_reply_that_nobody_asked_for_ends_both() {
    let mut story = Story::new();
    assert_eq!(
        story.try_server(&ready(b'I')),
        Err(Violation::ServerMessage(b'Z'))
    );
    let mut story = Story::new();
    story.client(&[bind("")]);
    assert_eq!(
        story.try_server(&frame(b'1', b"")),
        Err(Violation::ServerMessage(b'1'))
    );
}

#[test]
fn an_error_that_nobody_asked_for_ends_both_unless_the_server_goes() {
    let mut story = Story::new();
    story.client(&[query("select 1")]);
    let answer = [complete("SELECT 1"), ready(b'I'), error()].concat();
    assert_eq!(
        story.try_server(&answer),
        Err(Violation::ServerMessage(b'E'))
    );
    let mut story = Story::new();
    let goodbye = frame(b'E', b"SFATAL\0VFATAL\0C57P05\0Mno\0\0");
    assert_eq!(story.server(std::slice::from_ref(&goodbye)), goodbye);
}

#[test]
fn a_client_cannot_send_what_only_belongs_to_login() {
    let mut story = Story::new();
    assert_eq!(
        story.try_client(&frame(b'p', b"x\0")),
        Err(Violation::ClientMessage(b'p'))
    );
}

#[test]
fn notices_and_notifications_pass_at_any_time() {
    let mut story = Story::new();
    let sent = [frame(b'N', b"\0"), frame(b'A', b"\0\0\0\0a\0b\0")];
    assert_eq!(story.server(&sent), sent.concat());
    assert!(story.relay.is_quiet());
}

#[test]
fn terminate_is_not_forwarded() {
    let mut story = Story::new();
    let (server, _, verdict) = story.try_client(&frame(b'X', b"")).unwrap();
    assert!(verdict.terminate);
    assert_eq!(server, b"");
}

#[test]
fn it_knows_how_many_bytes_are_missing_to_the_end_of_a_frame() {
    let mut story = Story::new();
    let sent = query("select 1");
    assert_eq!(story.relay.missing_from_client(b""), 0);
    assert_eq!(story.relay.missing_from_client(&sent[..3]), HEADER_LEN - 3);
    let (there, missing) = sent.split_at(7);
    assert_eq!(story.relay.missing_from_client(there), missing.len());
    story.client(&[there.to_vec()]);
    assert_eq!(story.relay.missing_from_client(b""), missing.len());
}

#[test]
fn a_query_that_the_pooler_cancels_is_answered_in_its_own_words() {
    let canceled = frame(b'E', b"SERROR\0C57014\0Mcanceling statement\0\0");
    let own = frame(b'E', b"SERROR\0C57014\0Mit took far too long\0\0");
    let mut story = Story::new();
    story.client(&[query("select 1")]);
    story.relay.expect_cancel(&own);
    let row = frame(b'D', b"\0\0");
    let said = story.server(&[row.clone(), canceled.clone(), ready(b'E')]);
    assert_eq!(said, [row, own.clone(), ready(b'E')].concat());

    // Nobody else's cancel is answered so, and no other error.
    for (from_server, forgets) in [(&canceled, true), (&error(), false)] {
        story.client(&[query("select 2")]);
        story.relay.expect_cancel(&own);
        if forgets {
            story.relay.forget_cancel();
        }
        let said = story.server(&[from_server.clone(), ready(b'E')]);
        assert_eq!(said, [from_server.clone(), ready(b'E')].concat());
    }
}
