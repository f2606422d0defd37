//! Single rules of the pipeline; the stories are told in the tests of the relay.

use super::*;
use crate::prepared::StatementId;

fn pipeline(messages: &[(Awaited, Reply)]) -> Pipeline {
    let mut pipeline = Pipeline::default();
    for &(awaited, reply) in messages {
        pipeline.push(awaited, reply);
    }
    pipeline
}

#[test]
fn a_reply_must_be_the_one_that_is_owed() {
    let mut pipeline = pipeline(&[(Awaited::Bind, Reply::Forward)]);
    assert!(pipeline.answered(Awaited::Parse).is_none());
    assert_eq!(pipeline.ready(), None);
    assert!(pipeline.answered(Awaited::Bind).is_some());
    assert!(pipeline.is_empty());
}

#[test]
fn a_fake_waits_for_its_turn() {
    let mut pipeline = pipeline(&[
        (Awaited::Bind, Reply::Forward),
        (Awaited::Parse, Reply::Fake),
    ]);
    assert!(pipeline.pop_fake().is_none());
    pipeline.answered(Awaited::Bind);
    let fake = pipeline.pop_fake().map(|fake| fake.awaited);
    assert_eq!(fake, Some(Awaited::Parse));
}

#[test]
fn an_error_takes_everything_up_to_sync() {
    let mut pipeline = pipeline(&[
        (Awaited::Parse, Reply::Forward),
        (Awaited::Bind, Reply::Forward),
        (Awaited::Sync, Reply::Forward),
        (Awaited::Query, Reply::Forward),
    ]);
    assert_eq!(pipeline.failed(), AfterError::WaitReady);
    assert_eq!(pipeline.front(), Some((Awaited::Sync, Reply::Forward)));
}

#[test]
fn an_error_without_sync_skips_what_is_still_to_come() {
    let mut pipeline = pipeline(&[(Awaited::Parse, Reply::Forward)]);
    assert_eq!(pipeline.failed(), AfterError::SkipToSync);
    assert!(pipeline.is_empty());
}

#[test]
fn a_batch_is_counted_until_its_ready() {
    use Awaited::{Execute, Parse, Query, Sync};
    let forward = |awaited| (awaited, Reply::Forward);
    let mut pipeline = pipeline(&[
        forward(Query),
        (Parse, Reply::Skip),
        forward(Execute),
        forward(Sync),
        forward(Execute),
        (Query, Reply::Skip),
        (Sync, Reply::Skip),
    ]);
    assert_eq!(pipeline.batches(), 3);
    pipeline.ready();
    assert_eq!(pipeline.batches(), 2);
    pipeline.answered(Parse);
    pipeline.answered(Execute);
    pipeline.ready();
    assert_eq!(pipeline.batches(), 1);
    pipeline.answered(Execute);
    assert_eq!(pipeline.batches(), 0);
}

#[test]
fn what_is_skipped_changes_nothing() {
    let mut pipeline = Pipeline::default();
    let id = StatementId(1);
    pipeline.push_change(Awaited::Close, Reply::Skip, Change::Evicted(id));
    pipeline.push(Awaited::Sync, Reply::Forward);
    pipeline.push_change(Awaited::Close, Reply::Skip, Change::Evicted(id));
    pipeline.failed();
    assert_eq!(pipeline.ready(), Some(Reply::Forward));
    assert!(pipeline.answered(Awaited::Close).unwrap().change.is_some());
}

#[test]
fn an_error_in_a_simple_query_waits_for_ready() {
    let mut pipeline = pipeline(&[(Awaited::Query, Reply::Forward)]);
    assert_eq!(pipeline.failed(), AfterError::WaitReady);
    assert_eq!(pipeline.ready(), Some(Reply::Forward));
}

#[test]
fn a_sync_sent_into_copy_in_is_owed_nothing() {
    let mut pipeline = pipeline(&[
        (Awaited::Execute, Reply::Forward),
        (Awaited::Sync, Reply::Forward),
    ]);
    assert_eq!(pipeline.copy_in_begun(), CopyIn::Open);
    pipeline.answered(Awaited::Execute);
    assert!(pipeline.is_empty());
}

#[test]
fn a_sync_behind_the_end_of_copy_is_owed_its_ready() {
    let mut pipeline = pipeline(&[
        (Awaited::Execute, Reply::Forward),
        (Awaited::Sync, Reply::Forward),
        (Awaited::CopyEnd, Reply::Skip),
        (Awaited::Sync, Reply::Forward),
    ]);
    assert_eq!(pipeline.copy_in_begun(), CopyIn::Ended);
    pipeline.answered(Awaited::Execute);
    assert_eq!(pipeline.ready(), Some(Reply::Forward));
    assert!(pipeline.is_empty());
}

#[test]
fn a_batch_is_open_until_its_sync_is_sent() {
    let mut pipeline = pipeline(&[(Awaited::Parse, Reply::Forward)]);
    pipeline.answered(Awaited::Parse);
    assert!(pipeline.is_empty() && pipeline.is_open());
    pipeline.push(Awaited::Sync, Reply::Forward);
    assert!(!pipeline.is_open());
}

#[test]
fn a_copy_opens_the_batch_again_whose_sync_it_swallows() {
    let mut pipeline = pipeline(&[
        (Awaited::Execute, Reply::Forward),
        (Awaited::Sync, Reply::Forward),
    ]);
    pipeline.copy_in_begun();
    assert!(pipeline.is_open());
}

#[test]
fn a_copy_end_without_copy_is_forgotten() {
    let mut pipeline = pipeline(&[(Awaited::Query, Reply::Forward)]);
    pipeline.push_copy_end();
    pipeline.ready();
    assert!(pipeline.is_empty());
    pipeline.push_copy_end();
    assert!(pipeline.is_empty());
}
