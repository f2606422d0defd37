//! Records that leave at the end of a round.

use std::future::poll_fn;
use std::task::Poll;

use tokio::task::{spawn, yield_now};

use super::*;
use crate::buffer::Buffered;

/// A TLS server's end whose records go through the outbox, and its client; nothing where the kernel has no io_uring.
async fn posting() -> Option<(Buffered, Stream)> {
    crate::outbox::collect_sends(|error| panic!("{error}"))
        .inspect_err(|error| println!("skipped: io_uring: {error}"))
        .ok()?;
    let authority = Authority::root("root");
    let identity = authority.leaf("server", &["localhost"]);
    let (far, near) = handshake(
        &server(&identity),
        &client(SslMode::Require, None),
        "localhost",
    )
    .await;
    Some((Buffered::new(far.unwrap()), near.unwrap()))
}

async fn send(line: &mut Buffered, bytes: &[u8]) {
    poll_fn(|cx| Poll::Ready(line.send(cx, bytes)))
        .await
        .unwrap();
}

#[tokio::test]
async fn records_leave_at_the_end_of_the_round() {
    let Some((mut line, mut near)) = posting().await else {
        return;
    };
    for word in [b"ping", b"pong"] {
        send(&mut line, word).await;
        assert!(!line.is_drained() && !line.has_unsent());
        let mut buf = [0; 4];
        near.read_exact(&mut buf).await.unwrap();
        assert_eq!(&buf, word);
        assert!(line.is_drained());
    }
}

#[tokio::test]
async fn records_that_the_socket_does_not_take_are_written_later_in_order() {
    let Some((mut line, mut near)) = posting().await else {
        return;
    };
    let mut expected = Vec::new();
    let mut number = 0_u32;
    while !line.has_unsent() {
        let bytes = number.to_be_bytes().repeat(500);
        send(&mut line, &bytes).await;
        expected.extend(bytes);
        number += 1;
        for _ in 0..4 {
            yield_now().await;
        }
    }
    let writing = spawn(async move {
        send(&mut line, b"the end").await;
        poll_fn(|cx| line.poll_drain(cx)).await.unwrap();
        line.into_stream().shutdown().await.unwrap();
    });
    expected.extend(b"the end");
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).await.unwrap();
    assert!(heard == expected);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_farewell_comes_behind_records_in_the_outbox() {
    let Some((mut line, mut near)) = posting().await else {
        return;
    };
    send(&mut line, b"last ").await;
    let stream = line.stream_mut();
    stream.write_all(b"words").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    near.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"last words");
}
