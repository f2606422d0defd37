//! Records that leave at the end of a round.

use std::future::poll_fn;

use tokio::task::spawn;

use super::*;
use crate::buffer::Buffered;
use crate::outbox::testing::{arrived, end_of_round, fill, outbox, send};

/// A TLS server's end whose records go through the outbox, and its client; nothing where the kernel has no io_uring.
async fn posting() -> Option<(Buffered, Stream)> {
    outbox()?;
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

#[tokio::test]
async fn records_leave_at_the_end_of_the_round() {
    let Some((mut line, mut near)) = posting().await else {
        return;
    };
    for word in [b"ping", b"pong"] {
        send(&mut line, word).await;
        assert!(!line.is_drained() && !line.has_unsent());
        end_of_round().await;
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
    let mut expected = fill(&mut line).await;
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

#[tokio::test]
async fn a_long_record_comes_behind_short_ones() {
    let Some((mut line, mut near)) = posting().await else {
        return;
    };
    let long = vec![b'x'; 8 * 1024];
    send(&mut line, b"short").await;
    send(&mut line, &long).await;
    let mut heard = vec![0; 5 + long.len()];
    near.read_exact(&mut heard).await.unwrap();
    assert!(heard == [&b"short"[..], &long].concat());
}

#[tokio::test]
async fn what_the_socket_did_not_take_of_a_record_is_unsent() {
    let Some((mut line, _near)) = posting().await else {
        return;
    };
    while !line.stream().record_socket().unwrap().has_rest() {
        send(&mut line, &[7; 2000]).await;
        end_of_round().await;
    }
    assert!(line.has_unsent());
}

#[tokio::test]
async fn records_that_are_written_directly_let_what_others_have_sent_go_first() {
    let Some((mut line, _near)) = posting().await else {
        return;
    };
    let (other, far) = tokio::net::UnixStream::pair().unwrap();
    let mut other = Buffered::new(Stream::Unix(other));
    send(&mut other, b"hello").await;
    send(&mut line, &[b'x'; 8 * 1024]).await;
    assert_eq!(arrived(&far), b"hello");
}
