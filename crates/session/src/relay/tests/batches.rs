//! Where a batch begins and ends, and when its server is free.

use super::*;

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
