//! COPY, and how many ReadyForQuery one that fails is owed.

use super::*;

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
