//! Long streams.

use std::future::poll_fn;
use std::io;

use super::*;
use crate::buffer::{Buffered, SCRATCH_LEN};
use crate::bulk::{ANYTHING, LONG, PIECE, waits_for};
use crate::outbox::testing::send;

/// Numbers, so that what is lost, doubled or out of order shows.
fn numbers(len: usize) -> Vec<u8> {
    (0..).flat_map(u32::to_be_bytes).take(len).collect()
}

async fn pair() -> (Buffered, Stream) {
    let authority = Authority::root("root");
    let identity = authority.leaf("server", &["localhost"]);
    let client = client(SslMode::Require, None);
    let (far, near) = talk(&server(&identity), &client, "localhost").await;
    (Buffered::new(near), far)
}

/// Reads once, so many bytes at most.
async fn read(near: &mut Buffered, at_most: usize) -> io::Result<Vec<u8>> {
    let mut scratch = vec![0; at_most];
    let input = poll_fn(|cx| near.poll_read(cx, &mut scratch)).await?;
    Ok(input.bytes(&scratch).to_vec())
}

async fn read_all(near: &mut Buffered, len: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    while heard.len() < len {
        let piece = read(near, SCRATCH_LEN).await.unwrap();
        assert!(!piece.is_empty());
        heard.extend(piece);
    }
    heard
}

async fn say(far: &mut Stream, bytes: &[u8]) {
    far.write_all(bytes).await.unwrap();
    far.flush().await.unwrap();
}

/// A connection whose stream is long and not over. Where this process has to wait for a processor it takes more than one try.
async fn long_stream() -> (Buffered, Stream) {
    let (mut near, mut far) = pair().await;
    let bytes = numbers(LONG);
    while waits_for(near.stream()) != PIECE {
        let ((), heard) = tokio::join!(say(&mut far, &bytes), read_all(&mut near, LONG));
        assert!(heard == bytes);
    }
    (near, far)
}

#[tokio::test]
async fn a_long_stream_is_read_in_larger_pieces() {
    let (mut near, mut far) = long_stream().await;
    let bytes = numbers(PIECE);
    say(&mut far, &bytes).await;
    assert!(read(&mut near, SCRATCH_LEN).await.unwrap() == bytes);
}

#[tokio::test]
async fn the_last_piece_comes_though_it_is_small_and_no_buffer_stays() {
    let (mut near, mut far) = long_stream().await;
    say(&mut far, b"end").await;
    assert_eq!(read(&mut near, SCRATCH_LEN).await.unwrap(), b"end");
    assert_eq!(waits_for(near.stream()), ANYTHING);
    assert!(!near.stream().record_socket().unwrap().owns_buffer());
}

#[tokio::test]
async fn what_was_read_ahead_stays_in_order_when_the_stream_is_over() {
    let (mut near, mut far) = long_stream().await;
    let bytes = numbers(PIECE);
    say(&mut far, &bytes).await;
    let mut heard = read(&mut near, 10).await.unwrap();
    assert!(near.stream().record_socket().unwrap().has_ahead());
    near.settle();
    assert_eq!(waits_for(near.stream()), ANYTHING);
    heard.extend(read_all(&mut near, bytes.len() - 10).await);
    assert!(heard == bytes);
    say(&mut far, b"more").await;
    assert_eq!(read(&mut near, SCRATCH_LEN).await.unwrap(), b"more");
    assert!(!near.stream().record_socket().unwrap().owns_buffer());
}

#[tokio::test]
async fn what_is_sent_the_other_way_ends_it() {
    let (mut near, mut far) = long_stream().await;
    send(&mut near, b"next").await;
    assert_eq!(waits_for(near.stream()), ANYTHING);
    assert!(!near.stream().record_socket().unwrap().owns_buffer());
    let mut question = [0; 4];
    far.read_exact(&mut question).await.unwrap();
    say(&mut far, b"answer").await;
    assert_eq!(read(&mut near, SCRATCH_LEN).await.unwrap(), b"answer");
}

#[tokio::test]
async fn the_end_comes_at_once() {
    let (mut near, far) = long_stream().await;
    drop(far);
    assert_eq!(read(&mut near, SCRATCH_LEN).await.unwrap(), b"");
}

#[tokio::test]
async fn a_broken_record_is_told_though_good_ones_came_with_it() {
    let (mut near, mut far) = long_stream().await;
    say(&mut far, &numbers(PIECE)).await;
    let broken = [&[23, 3, 3, 0, 32][..], &[0; 32]].concat();
    rustix::io::write(&far, &broken).unwrap();
    let error = loop {
        match read(&mut near, SCRATCH_LEN).await {
            Ok(piece) => assert!(!piece.is_empty()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}
