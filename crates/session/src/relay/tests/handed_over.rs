//! Relays that come from another process, which told less than all.

use super::*;

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
