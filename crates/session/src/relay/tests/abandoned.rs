//! What becomes of a server whose client has gone.

use super::*;

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
