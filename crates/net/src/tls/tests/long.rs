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
async fn the_last_piece_comes_though_it_is_small_and_no_buffer_stays() {
    let (mut near, mut far) = long_stream().await;
    // The reader waits before it is sent.
    let (heard, ()) = tokio::join!(biased; read(&mut near, SCRATCH_LEN), say(&mut far, b"end"));
    assert_eq!(heard.unwrap(), b"end");
    assert_eq!(waits_for(near.stream()), ANYTHING);
    assert!(!near.stream().record_socket().unwrap().owns_buffer());
}

#[tokio::test]
async fn what_was_read_ahead_stays_in_order_when_the_stream_is_over() {
    let bytes = numbers(LONG);
    let mut had_ahead = false;
    for _ in 0..100 {
        let (mut near, mut far) = long_stream().await;
        let reading = async {
            let mut heard = read(&mut near, 10).await.unwrap();
            had_ahead = near.stream().record_socket().unwrap().has_ahead();
            near.settle();
            assert_eq!(waits_for(near.stream()), ANYTHING);
            heard.extend(read_all(&mut near, LONG - 10).await);
            heard
        };
        let (heard, ()) = tokio::join!(biased; reading, say(&mut far, &bytes));
        assert!(heard == bytes);
        if had_ahead {
            return;
        }
    }
    panic!("nothing was read ahead");
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
