//! Stories of a client, a relay and a server, told in frames.
//!
//! After every step the relay and the client's side move to another process: whatever can be in
//! them can be handed over.

mod names;

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

#[test]
fn a_known_statement_is_not_parsed_again() {
    let mut story = Story::new();
    story.client(&[parse("a", "select 1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story.client = ClientSide::default();
    let (server, client) = story.client(&[parse("b", "select 1"), bind("b"), execute(), sync()]);
    assert_eq!(server, [bind("PGBOUNCER_1"), execute(), sync()].concat());
    assert_eq!(client, b"", "it is told with the rest");
    let answer = [frame(b'2', b""), complete("SELECT 1"), ready(b'I')];
    let told = [frame(b'1', b""), answer.concat()].concat();
    assert_eq!(story.server(&answer), told);
}

#[test]
fn what_only_the_pooler_answers_is_answered_at_once() {
    let mut story = prepared_as("a");
    let flush = frame(b'H', b"");
    let (server, client) = story.client(&[parse("b", "select 1"), flush.clone()]);
    assert_eq!(server, flush);
    assert_eq!(client, frame(b'1', b""));
    let (_, client) = story.client(&[close("a"), close("b"), flush]);
    assert_eq!(client, [frame(b'3', b""), frame(b'3', b"")].concat());
}

/// The client has prepared this name.
fn prepared_as(name: &str) -> Story {
    let mut story = Story::new();
    story.client(&[parse(name, "select 1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story
}

#[test]
fn another_server_is_taught_without_the_client_noticing() {
    let mut story = Story::new();
    story.client(&[parse("a", "select 1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story.relay = Relay::new(Values::default());
    let (server, _) = story.client(&[bind("a"), execute(), sync()]);
    let expected = [
        parse("PGBOUNCER_1", "select 1"),
        bind("PGBOUNCER_1"),
        execute(),
        sync(),
    ];
    assert_eq!(server, expected.concat());
    let seen = story.server(&[
        frame(b'1', b""),
        frame(b'2', b""),
        complete("SELECT 1"),
        ready(b'I'),
    ]);
    assert_eq!(
        seen,
        [frame(b'2', b""), complete("SELECT 1"), ready(b'I')].concat()
    );
}

#[test]
fn a_faked_reply_keeps_its_place() {
    let mut story = Story::new();
    let (server, client) = story.client(&[query("select 1"), close("nothing"), sync()]);
    assert_eq!(server, [query("select 1"), sync()].concat());
    assert_eq!(client, b"");
    let seen = story.server(&[complete("SELECT 1"), ready(b'I'), ready(b'I')]);
    let expected = [
        complete("SELECT 1"),
        ready(b'I'),
        frame(b'3', b""),
        ready(b'I'),
    ];
    assert_eq!(seen, expected.concat());
}

#[test]
fn a_client_waits_when_much_is_to_be_faked() {
    let mut story = Story::new();
    let input = [
        parse("", "select 1"),
        close("x").repeat(2 * CHANGES_MAX),
        sync(),
    ]
    .concat();
    let (server, _, verdict) = story.try_client(&input).unwrap();
    assert_eq!(server, [parse("", "select 1"), flush()].concat());
    assert!(story.relay.is_full());
    // With the answer there is room, and nothing is left that the server would have to answer first.
    let complete = [frame(b'1', b""), frame(b'3', b"").repeat(CHANGES_MAX)].concat();
    assert_eq!(story.server(&[frame(b'1', b"")]), complete);
    let (server, client, _) = story.try_client(&input[verdict.consumed..]).unwrap();
    assert_eq!(server, sync());
    assert_eq!(client, frame(b'3', b"").repeat(CHANGES_MAX));
    assert_eq!(story.server(&[ready(b'I')]), ready(b'I'));
}

#[test]
fn what_a_client_sends_behind_an_error_is_taken_however_much_it_is() {
    let mut story = Story::new();
    let closes = close("x").repeat(2 * CHANGES_MAX);
    let input = [parse("", "syntax error"), closes, sync()].concat();
    let (_, _, first) = story.try_client(&input).unwrap();
    assert_eq!(story.server(&[error()]), error());
    assert!(!story.relay.is_full());
    let (server, client, second) = story.try_client(&input[first.consumed..]).unwrap();
    assert_eq!((server, client), (sync(), Vec::new()));
    assert_eq!(first.consumed + second.consumed, input.len());
    assert_eq!(story.server(&[ready(b'I')]), ready(b'I'));
}

#[test]
fn what_does_not_belong_into_a_copy_is_not_kept_without_end() {
    let mut story = Story::new();
    story.client(&[query("copy t from stdin")]);
    story.server(&[frame(b'G', b"\0\0\0")]);
    let closes = close("x").repeat(CHANGES_MAX + 1);
    let violation = story.try_client(&closes).expect_err("too many");
    assert_eq!(violation, Violation::ClientMessage(b'C'));
}

#[test]
fn an_error_drops_what_was_to_be_faked() {
    let mut story = Story::new();
    story.client(&[parse("", "syntax error"), close("x"), sync()]);
    assert_eq!(
        story.server(&[error(), ready(b'I')]),
        [error(), ready(b'I')].concat()
    );
    assert!(story.relay.may_release());
}

#[test]
fn a_failed_parse_is_forgotten_on_both_sides() {
    let mut story = Story::new();
    story.client(&[parse("a", "bad"), sync()]);
    story.server(&[error(), ready(b'I')]);
    assert!(story.client.statements.is_empty());
    assert_eq!(story.relay.statement_count(), 0);
    let (server, _) = story.client(&[parse("a", "bad"), sync()]);
    assert_eq!(
        server,
        [parse("PGBOUNCER_2", "bad"), sync()].concat(),
        "it is sent again"
    );
}

#[test]
fn messages_between_an_error_and_sync_are_dropped() {
    let mut story = Story::new();
    story.client(&[parse("", "bad"), frame(b'H', b"")]);
    story.server(&[error()]);
    let (server, _) = story.client(&[bind(""), execute(), parse("late", "x"), sync()]);
    assert_eq!(server, sync());
    assert!(story.client.statements.is_empty());
    story.server(&[ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn the_least_recently_used_statement_is_closed_to_make_room() {
    let mut story = Story::new();
    story.max_prepared = Some(1);
    story.client(&[parse("a", "1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    let (server, _) = story.client(&[parse("b", "2"), sync()]);
    assert_eq!(
        server,
        [close("PGBOUNCER_1"), parse("PGBOUNCER_2", "2"), sync()].concat()
    );
    let seen = story.server(&[frame(b'3', b""), frame(b'1', b""), ready(b'I')]);
    assert_eq!(seen, [frame(b'1', b""), ready(b'I')].concat());
    assert_eq!(story.relay.statement_count(), 1);
}

#[test]
fn an_eviction_that_the_server_skipped_is_undone() {
    let mut story = Story::new();
    story.max_prepared = Some(1);
    story.client(&[parse("a", "1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story.client(&[parse("", "bad"), parse("b", "2"), sync()]);
    story.server(&[error(), ready(b'I')]);
    let (server, _) = story.client(&[bind("a"), sync()]);
    assert_eq!(
        server,
        [bind("PGBOUNCER_1"), sync()].concat(),
        "the server still has it"
    );
}

#[test]
fn a_batch_does_not_rely_on_what_an_earlier_one_teaches() {
    let mut story = Story::new();
    story.client(&[parse("a", "1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story.relay = Relay::new(Values::default());
    let (server, _) = story.client(&[parse("", "bad"), bind("a"), sync(), bind("a"), sync()]);
    let taught = [parse("PGBOUNCER_1", "1"), bind("PGBOUNCER_1"), sync()].concat();
    let first = [parse("", "bad"), taught.clone()].concat();
    assert_eq!(server, [first, close("PGBOUNCER_1"), taught].concat());
    story.server(&[error(), ready(b'I')]);
    assert_eq!(story.relay.statement_count(), 0);
    let second = [
        frame(b'3', b""),
        frame(b'1', b""),
        frame(b'2', b""),
        ready(b'I'),
    ];
    let seen = story.server(&second);
    assert_eq!(seen, [frame(b'2', b""), ready(b'I')].concat());
    assert_eq!(story.relay.statement_count(), 1);
}

#[test]
fn an_eviction_that_may_be_skipped_is_done_again() {
    let mut story = Story::new();
    story.max_prepared = Some(1);
    story.client(&[parse("a", "1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    let (server, _) = story.client(&[parse("", "bad"), parse("b", "2"), sync(), bind("a"), sync()]);
    let again = [
        close("PGBOUNCER_1"),
        close("PGBOUNCER_2"),
        parse("PGBOUNCER_1", "1"),
        bind("PGBOUNCER_1"),
        sync(),
    ];
    assert!(server.ends_with(&again.concat()), "{server:?}");
}

#[test]
fn describe_names_the_statement_as_the_server_knows_it() {
    let mut story = Story::new();
    let (server, _) = story.client(&[parse("a", "select 1"), describe("a"), sync()]);
    let expected = [
        parse("PGBOUNCER_1", "select 1"),
        describe("PGBOUNCER_1"),
        sync(),
    ];
    assert_eq!(server, expected.concat());
    story.server(&[
        frame(b'1', b""),
        frame(b't', b"\0\0"),
        frame(b'T', b"\0\0"),
        ready(b'I'),
    ]);
    assert!(story.relay.may_release());
}

#[test]
fn an_unknown_statement_ends_the_client() {
    let mut story = Story::new();
    for message in [bind("x"), describe("x")] {
        let violation = story.try_client(&message).unwrap_err();
        assert_eq!(violation, Violation::StatementMissing("x".into()));
    }
}

#[test]
fn a_name_in_use_ends_the_client() {
    let mut story = Story::new();
    story.client(&[parse("a", "1")]);
    let violation = story.try_client(&parse("a", "1")).unwrap_err();
    assert_eq!(violation, Violation::StatementExists("a".into()));
}

#[test]
fn discard_all_forgets_the_statements() {
    for tag in ["DISCARD ALL", "DEALLOCATE ALL"] {
        let mut story = Story::new();
        story.client(&[parse("a", "1"), sync(), query(tag)]);
        story.server(&[frame(b'1', b""), ready(b'I'), complete(tag), ready(b'I')]);
        assert!(story.client.statements.is_empty());
        assert_eq!(story.relay.statement_count(), 0);
    }
}

#[test]
fn discard_all_spares_what_is_prepared_behind_it() {
    let mut story = Story::new();
    story.client(&[query("DISCARD ALL"), parse("a", "1"), sync()]);
    story.server(&[
        complete("DISCARD ALL"),
        ready(b'I'),
        frame(b'1', b""),
        ready(b'I'),
    ]);
    let (server, _) = story.client(&[bind("a"), sync()]);
    assert_eq!(server, [bind("PGBOUNCER_1"), sync()].concat());
}

#[test]
fn behind_discard_all_the_server_is_taught_again_what_it_knew() {
    let mut story = Story::new();
    story.client(&[parse("a", "1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    let (server, client) = story.client(&[query("discard all"), parse("b", "1"), sync()]);
    let taught = [close("PGBOUNCER_1"), parse("PGBOUNCER_1", "1"), sync()].concat();
    assert_eq!(server, [query("discard all"), taught].concat());
    assert_eq!(client, b"");
    let answer = [
        complete("DISCARD ALL"),
        ready(b'I'),
        frame(b'3', b""),
        frame(b'1', b""),
        ready(b'I'),
    ];
    let seen = story.server(&answer);
    assert_eq!(
        seen,
        [&answer[0], &answer[1], &answer[3], &answer[4]]
            .map(Vec::as_slice)
            .concat()
    );
    let (server, _) = story.client(&[bind("b"), sync()]);
    assert_eq!(server, [bind("PGBOUNCER_1"), sync()].concat());
}

#[test]
fn what_discard_all_forgot_is_not_brought_back_by_an_error() {
    let mut story = Story::new();
    story.client(&[parse("a", "1"), sync()]);
    story.server(&[frame(b'1', b""), ready(b'I')]);
    story.client(&[
        query("DISCARD ALL"),
        parse("", "bad"),
        parse("b", "1"),
        sync(),
    ]);
    story.server(&[complete("DISCARD ALL"), ready(b'I'), error(), ready(b'I')]);
    assert_eq!(story.relay.statement_count(), 0);
    assert!(story.client.statements.is_empty());
}

#[test]
fn without_tracking_names_pass_as_they_are() {
    let mut story = Story::new();
    story.max_prepared = None;
    let sent = [parse("a", "1"), bind("a"), execute(), close("a"), sync()];
    assert_eq!(story.client(&sent).0, sent.concat());
}

#[test]
fn a_flushed_batch_keeps_its_server_until_sync() {
    let mut story = Story::new();
    story.client(&[parse("", "insert"), describe(""), flush()]);
    story.server(&[frame(b'1', b""), frame(b't', b"\0\0"), frame(b'n', b"")]);
    assert!(!story.relay.is_quiet());
    story.client(&[bind(""), execute(), flush()]);
    story.server(&[frame(b'2', b""), complete("INSERT 0 1")]);
    assert!(
        !story.relay.is_quiet(),
        "the insert is not committed before Sync"
    );
    story.client(&[sync()]);
    story.server(&[ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn a_batch_begun_behind_a_sync_is_not_ended_by_it() {
    let mut story = Story::new();
    story.client(&[parse("", "1/0"), sync(), parse("", "2"), flush()]);
    story.server(&[error(), ready(b'I'), frame(b'1', b"")]);
    assert!(!story.relay.is_quiet());
    story.client(&[sync()]);
    story.server(&[ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn a_simple_query_ends_a_batch() {
    let mut story = Story::new();
    story.client(&[parse("", "1"), query("select 1")]);
    story.server(&[frame(b'1', b""), complete("SELECT 1"), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn an_abandoned_flushed_batch_is_rolled_back() {
    let mut story = Story::new();
    story.client(&[parse("", "insert"), bind(""), execute(), flush()]);
    story.server(&[frame(b'1', b""), frame(b'2', b""), complete("INSERT 0 1")]);
    let mut out = BytesMut::new();
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert_eq!(&out[..], [query("ROLLBACK"), sync()].concat());
    story.server(&[complete("ROLLBACK"), ready(b'I'), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn an_abandoned_batch_that_has_failed_needs_its_sync_only() {
    let mut story = Story::new();
    story.client(&[parse("", "bad"), flush()]);
    story.server(&[error()]);
    let mut out = BytesMut::new();
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert_eq!(&out[..], sync());
    story.server(&[ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn a_cancel_may_hit_the_last_batch_only() {
    let mut story = Story::new();
    story.client(&[query("begin"), query("insert")]);
    assert!(!story.relay.may_cancel());
    story.server(&[complete("BEGIN"), ready(b'T')]);
    assert!(story.relay.may_cancel());
    story.client(&[parse("", "select 1")]);
    assert!(!story.relay.may_cancel());
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
fn a_copy_of_an_extended_query_keeps_its_server_until_sync() {
    for synced_too_early in [true, false] {
        let mut story = Story::new();
        story.client(&[parse("", "copy"), bind(""), execute()]);
        story.client(&[if synced_too_early { sync() } else { flush() }]);
        story.server(&[frame(b'1', b""), frame(b'2', b""), frame(b'G', b"\0\0\0")]);
        story.client(&[frame(b'c', b""), flush()]);
        story.server(&[complete("COPY 0")]);
        assert!(!story.relay.is_quiet());
        story.client(&[sync()]);
        story.server(&[ready(b'I')]);
        assert!(story.relay.may_release());
    }
}

#[test]
fn a_copy_sent_ahead_with_its_sync_too_early_is_still_owed_one() {
    let mut story = Story::new();
    story.client(&[
        parse("", "copy"),
        bind(""),
        execute(),
        sync(),
        frame(b'c', b""),
    ]);
    story.server(&[
        frame(b'1', b""),
        frame(b'2', b""),
        frame(b'G', b"\0\0\0"),
        complete("COPY 0"),
    ]);
    assert!(!story.relay.is_quiet());
}

#[test]
fn copy_in_swallows_the_sync_sent_with_execute() {
    let mut story = Story::new();
    story.client(&[parse("", "copy"), bind(""), execute(), sync()]);
    story.server(&[frame(b'1', b""), frame(b'2', b""), frame(b'G', b"\0\0\0")]);
    story.client(&[frame(b'd', b"row"), frame(b'c', b""), sync()]);
    story.server(&[complete("COPY 1"), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn what_fails_behind_a_copy_that_went_well_leaves_no_doubt() {
    let mut story = Story::new();
    story.client(&[parse("", "copy"), bind(""), execute(), sync()]);
    story.server(&[frame(b'1', b""), frame(b'2', b""), frame(b'G', b"\0\0\0")]);
    story.client(&[frame(b'c', b""), sync()]);
    story.server(&[complete("COPY 0"), error(), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn a_copy_error_waits_for_the_sync_behind_it() {
    let mut story = Story::new();
    story.client(&[parse("", "copy"), bind(""), execute(), sync()]);
    story.server(&[
        frame(b'1', b""),
        frame(b'2', b""),
        frame(b'G', b"\0\0\0"),
        error(),
    ]);
    assert!(!story.relay.is_quiet());
    let (server, _) = story.client(&[frame(b'd', b"row"), frame(b'c', b""), sync()]);
    assert_eq!(server, sync());
    story.server(&[ready(b'I')]);
    assert!(story.relay.is_quiet());
}

#[test]
fn a_copy_that_fails_at_once_answers_the_sync_sent_with_it() {
    let mut story = Story::new();
    story.client(&[parse("", "copy"), bind(""), execute(), sync()]);
    let answer = [
        frame(b'1', b""),
        frame(b'2', b""),
        frame(b'G', b"\0\0\0"),
        error(),
        ready(b'I'),
    ];
    assert_eq!(story.server(&answer), answer.concat());
    assert!(story.relay.may_release());
}

/// Sync was sent with COPY and again behind its data; the server has answered one of them.
fn story_of_a_copy_in_doubt() -> Story {
    let mut story = Story::new();
    story.client(&[parse("", "copy"), bind(""), execute(), sync()]);
    story.server(&[frame(b'1', b""), frame(b'2', b""), frame(b'G', b"\0\0\0")]);
    story.client(&[frame(b'd', b"row"), frame(b'c', b""), sync()]);
    story.server(&[error(), ready(b'I')]);
    story
}

#[test]
fn a_server_that_may_be_ready_once_more_is_not_released() {
    let mut story = story_of_a_copy_in_doubt();
    assert!(story.relay.is_quiet() && !story.relay.may_release());
    story.relay.ask("", &mut BytesMut::new());
    assert_eq!(story.server(&[ready(b'I')]), b"");
    assert!(story.relay.is_asking());
    story.server(&[frame(b'I', b""), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn a_ready_of_the_doubt_does_not_answer_a_look() {
    let mut story = story_of_a_copy_in_doubt();
    let probe = Probe::everything(&Memory::default(), &[], Instant::now());
    story.relay.look(probe, "joe", &mut BytesMut::new());
    assert_eq!(story.server(&[ready(b'I')]), b"");
    assert!(matches!(story.relay.asked, Asked::Look(_)));
    story.server(&[complete("SELECT 0"), ready(b'I')]);
    assert!(!story.relay.is_asking());
}

#[test]
fn what_the_client_asks_next_ends_the_doubt_too() {
    let mut story = story_of_a_copy_in_doubt();
    story.client(&[query("select 1")]);
    assert_eq!(story.server(&[ready(b'I')]), ready(b'I'));
    assert!(!story.relay.is_quiet());
    story.server(&[complete("SELECT 1"), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn a_copy_error_in_a_simple_query_is_ready_at_once() {
    let mut story = Story::new();
    story.client(&[query("copy t from stdin")]);
    story.server(&[frame(b'G', b"\0\0\0"), error(), ready(b'I')]);
    assert!(story.relay.may_release());
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
fn a_flush_or_sync_with_a_body_does_not_reach_the_server() {
    for tag in [b'H', b'S'] {
        let mut story = Story::new();
        let sent = [query("select 1"), frame(tag, b"x")].concat();
        let violation = story.try_client(&sent).expect_err("malformed");
        assert_eq!(violation, Violation::ClientMalformed(tag));
        assert!(violation.is_clients());
        story.server(&[complete("SELECT 1"), ready(b'I')]);
        assert!(story.relay.may_release());
    }
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
fn a_parameter_is_remembered_on_both_sides() {
    let mut story = Story::new();
    story.client(&[query("set timezone to utc")]);
    let answer = [
        frame(b'S', b"TimeZone\0UTC\0"),
        complete("SET"),
        ready(b'I'),
    ];
    assert_eq!(story.server(&answer), answer.concat());
    assert!(story.client.values.same(story.relay.values()));
}

#[test]
fn fitting_is_invisible_and_adopts_the_servers_spelling() {
    let mut story = Story::new();
    let datestyle = story.tracked.index("DateStyle").unwrap();
    story.client.values.set(datestyle, "ISO");
    let mut out = BytesMut::new();
    assert!(story.relay.fit(&mut story.client, &story.tracked, &mut out));
    assert_eq!(&out[..], query("SET DateStyle='ISO';"));
    assert!(story.relay.is_asking());
    let answer = [
        frame(b'S', b"DateStyle\0ISO, MDY\0"),
        complete("SET"),
        ready(b'I'),
    ];
    assert_eq!(story.server(&answer), b"");
    assert!(story.relay.may_release());
    assert!(
        !story
            .relay
            .fit(&mut story.client, &story.tracked, &mut BytesMut::new())
    );
}

#[test]
fn checking_a_server_leaves_the_clients_parameters_alone() {
    let mut story = Story::new();
    let timezone = story.tracked.index("TimeZone").unwrap();
    story.client.values.set(timezone, "Asia/Tokyo");
    let mut values = Values::default();
    values.set(timezone, "GMT");
    story.relay = Relay::new(values);
    story.relay.ask("select 1", &mut BytesMut::new());
    story.server(&[complete("SELECT 1"), ready(b'I')]);
    let mut out = BytesMut::new();
    assert!(story.relay.fit(&mut story.client, &story.tracked, &mut out));
    assert_eq!(&out[..], query("SET TimeZone='Asia/Tokyo';"));
}

#[test]
fn a_server_is_kept_between_flush_and_sync() {
    let mut story = Story::new();
    story.client(&[parse("", "select 1"), frame(b'H', b"")]);
    story.server(&[frame(b'1', b"")]);
    assert!(
        !story.relay.may_release(),
        "the unnamed statement would be lost"
    );
    story.client(&[bind(""), execute(), sync()]);
    story.server(&[frame(b'2', b""), complete("SELECT 1"), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn a_batch_behind_a_failed_one_stays_open() {
    let mut story = Story::new();
    story.client(&[parse("", "bad"), sync(), parse("", "select 1")]);
    story.server(&[error(), ready(b'I'), frame(b'1', b"")]);
    assert!(!story.relay.may_release());
    let mut out = BytesMut::new();
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert_eq!(&out[..], [query("ROLLBACK"), sync()].concat());
}

#[test]
fn a_refused_own_query_ends_both() {
    let mut story = Story::new();
    story.relay.ask("SET nonsense=1", &mut BytesMut::new());
    assert_eq!(
        story.try_server(&error()),
        Err(Violation::OwnQueryFailed("no".into()))
    );
}

#[test]
fn an_abandoned_batch_is_rolled_back_when_it_has_been_answered() {
    let mut story = Story::new();
    story.client(&[parse("", "select 1"), bind("")]);
    let mut out = BytesMut::new();
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    story.server(&[frame(b'1', b"")]);
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert_eq!(&out[..], flush(), "it is said once");
    story.server(&[frame(b'2', b"")]);
    out.clear();
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert_eq!(&out[..], [query("ROLLBACK"), sync()].concat());
    story.server(&[complete("ROLLBACK"), ready(b'I'), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn an_abandoned_batch_that_fails_needs_its_sync_only() {
    let mut story = Story::new();
    story.client(&[parse("", "select 1"), bind("")]);
    assert_eq!(story.relay.abandon(&mut BytesMut::new()), Abandon::Drain);
    story.server(&[frame(b'1', b""), error()]);
    let mut out = BytesMut::new();
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert_eq!(&out[..], sync());
    story.server(&[ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn an_abandoned_copy_fails() {
    let mut story = Story::new();
    story.client(&[query("copy t from stdin")]);
    story.server(&[frame(b'G', b"\0\0\0")]);
    let mut out = BytesMut::new();
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert_eq!(&out[..], frame(b'f', b"client disconnected\0"));
}

#[test]
fn a_copy_that_begins_after_its_client_has_gone_fails_too() {
    let mut story = Story::new();
    story.client(&[parse("", "copy"), bind(""), execute(), sync()]);
    let mut out = BytesMut::new();
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert!(out.is_empty());
    story.server(&[frame(b'1', b""), frame(b'2', b""), frame(b'G', b"\0\0\0")]);
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    let fail = [frame(b'f', b"client disconnected\0"), sync()].concat();
    assert_eq!(&out[..], fail);
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert_eq!(out.len(), fail.len(), "it is said once");
    story.server(&[error(), ready(b'I')]);
    assert!(story.relay.is_quiet());
}

#[test]
fn an_abandoned_batch_that_turns_out_to_be_a_copy_fails() {
    let mut story = Story::new();
    story.client(&[parse("", "copy"), bind(""), execute()]);
    let mut out = BytesMut::new();
    assert_eq!(story.relay.abandon(&mut out), Abandon::Drain);
    assert_eq!(&out[..], flush());
    story.server(&[frame(b'1', b""), frame(b'2', b""), frame(b'G', b"\0\0\0")]);
    let mut more = BytesMut::new();
    assert_eq!(story.relay.abandon(&mut more), Abandon::Drain);
    let fail = [frame(b'f', b"client disconnected\0"), sync()].concat();
    assert_eq!(&more[..], fail);
    story.server(&[error(), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn a_client_that_leaves_inside_a_message_takes_the_server_with_it() {
    let mut story = Story::new();
    story.try_client(&query("select 1")[..8]).unwrap();
    assert_eq!(story.relay.abandon(&mut BytesMut::new()), Abandon::Close);
}

#[test]
fn what_was_drawn_is_anothers_however_its_lease_has_ended() {
    let mut relay = Relay::new(Values::default());
    let draw = |relay: &mut Relay| {
        let scan = crate::residue::scan(b"select nextval('s')");
        relay.residue.note(&scan, Kinds::NONE, |_| false);
    };
    relay.begin_lease(1);
    draw(&mut relay);
    relay.begin_lease(1);
    assert!(!relay.has_drawn_of_others());
    relay.begin_lease(2);
    assert!(relay.has_drawn_of_others());
    draw(&mut relay);
    relay.begin_lease(1);
    assert!(relay.has_drawn_of_others(), "the last one was another's");

    draw(&mut relay);
    relay.settle_discarded(Instant::now());
    relay.begin_lease(2);
    assert!(!relay.has_drawn_of_others());
}

#[test]
fn a_session_with_more_parameters_than_are_kept_is_not_known() {
    for (names, is_known) in [(10, true), (1_001, false)] {
        let mut story = Story::new();
        for n in 0..names {
            let scan = crate::residue::scan(format!("set a.x{n} = 1").as_bytes());
            story.relay.residue.note(&scan, Kinds::NONE, |_| false);
        }
        story.relay.facts = Some(Box::default());
        let (mut memory, now) = (Memory::default(), Instant::now());
        let settled = story
            .relay
            .settle(&mut story.client, &story.tracked, &mut memory, now);
        assert_eq!(settled != Settled::Unknown, is_known);
        assert!(is_known || story.relay.cleaning().is_none());
    }
}

#[test]
fn terminate_is_not_forwarded() {
    let mut story = Story::new();
    let (server, _, verdict) = story.try_client(&frame(b'X', b"")).unwrap();
    assert!(verdict.terminate);
    assert_eq!(server, b"");
}

/// A relay that came from another pooler in the middle of something.
fn unknown() -> Story {
    let mut story = Story::new();
    story.relay = Relay::unknown(Values::default());
    story
}

#[test]
fn what_was_asked_before_is_answered() {
    let mut story = unknown();
    let answer = [frame(b'D', b"\0\0"), complete("SELECT 1"), ready(b'I')];
    assert_eq!(story.server(&answer), answer.concat());
    assert!(story.relay.may_release());
}

#[test]
fn a_transaction_from_before_goes_on_and_ends() {
    let mut story = unknown();
    assert!(!story.relay.may_release(), "nobody knows what is owed");
    assert_eq!(story.client(&[query("commit")]).0, query("commit"));
    story.server(&[complete("COMMIT"), ready(b'I')]);
    assert!(story.relay.may_release());
}

#[test]
fn a_batch_that_was_half_sent_before_is_answered() {
    let mut story = unknown();
    let answer = [
        frame(b'1', b""),
        frame(b'2', b""),
        complete("SELECT 0"),
        ready(b'T'),
    ];
    story.client(&[execute(), sync()]);
    assert_eq!(story.server(&answer), answer.concat());
    assert!(story.relay.is_quiet());
    assert_eq!(story.relay.status(), TransactionStatus::InTransaction);
}

#[test]
fn a_copy_from_before_goes_on() {
    for end in [vec![], vec![sync()]] {
        let mut story = unknown();
        let data = frame(b'd', b"1\n");
        assert_eq!(story.client(std::slice::from_ref(&data)).0, data);
        story.client(&[vec![frame(b'c', b"")], end].concat());
        story.server(&[complete("COPY 1"), ready(b'I')]);
        assert!(story.relay.may_release());
    }
}

#[test]
fn names_given_while_nobody_knew_are_good_unless_it_failed() {
    for (fails, known) in [(false, true), (true, false)] {
        let mut story = unknown();
        story.client(&[parse("a", "select 1"), close("b"), sync()]);
        let answer = match fails {
            false => vec![frame(b'1', b""), ready(b'T')],
            true => vec![error(), ready(b'E')],
        };
        let expected = match fails {
            false => [frame(b'1', b""), frame(b'3', b""), ready(b'T')].concat(),
            // What is skipped is not answered.
            true => answer.concat(),
        };
        assert_eq!(story.server(&answer), expected);
        assert_eq!(story.client.statements.contains(b"a"), known);
        assert!(story.relay.is_quiet());
    }
}

#[test]
fn a_server_that_nobody_knows_is_not_cleaned_up() {
    let mut story = unknown();
    assert_eq!(story.relay.abandon(&mut BytesMut::new()), Abandon::Close);
}

#[test]
fn values_that_nobody_told_are_those_of_the_servers_login() {
    let mut story = Story::new();
    let name = story.tracked.index("application_name").unwrap();
    let mut values = Values::default();
    values.set(name, "");
    story.relay = Relay::new(values);
    // Somebody has left a name on the server.
    story.client.values.set(name, "other");
    let tracked = story.tracked.clone();
    let mut out = BytesMut::new();
    assert!(story.relay.fit(&mut story.client, &tracked, &mut out));
    let report = frame(b'S', b"application_name\0other\0");
    story.server(&[report, complete("SET"), ready(b'I')]);

    out.clear();
    story.client = ClientSide::default();
    assert!(story.relay.fit(&mut story.client, &tracked, &mut out));
    let sql = String::from_utf8_lossy(&out[5..]).into_owned();
    assert!(sql.contains("SET application_name='';"), "{sql}");
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
