//! Named statements: one name on the servers, taught, faked, evicted and forgotten.

use super::*;

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
