//! What tests of writers share.

use std::future::poll_fn;
use std::task::Poll;

use rustix::net::{RecvFlags, recv};
use tokio::net::UnixStream;
use tokio::task::yield_now;

use super::{Outbox, collect_sends};
use crate::buffer::Buffered;

/// This thread's outbox; says so if the kernel has no io_uring.
pub(crate) fn outbox() -> Option<&'static Outbox> {
    collect_sends(|error| panic!("{error}"))
        .inspect_err(|error| println!("skipped: io_uring: {error}"))
        .ok()?;
    super::end_of_round();
    Outbox::here()
}

pub(crate) async fn send(line: &mut Buffered, bytes: &[u8]) {
    poll_fn(|cx| Poll::Ready(line.send(cx, bytes)))
        .await
        .unwrap();
}

/// Lets the tasks that are ready have their turn, and ends the round as the runtime does before it sleeps.
pub(crate) async fn end_of_round() {
    yield_now().await;
    super::end_of_round();
}

/// Sends until a round ends with something that the kernel did not take: all that was sent.
pub(crate) async fn fill(line: &mut Buffered) -> Vec<u8> {
    let mut sent = Vec::new();
    let mut number = 0_u32;
    while !line.has_unsent() {
        let bytes = number.to_be_bytes().repeat(500);
        send(line, &bytes).await;
        sent.extend(bytes);
        number += 1;
        end_of_round().await;
    }
    sent
}

/// What has come so far.
pub(crate) fn arrived(far: &UnixStream) -> Vec<u8> {
    let mut buf = vec![0; 64 * 1024];
    let (_, len) = recv(far, &mut *buf, RecvFlags::DONTWAIT).unwrap_or((0, 0));
    buf.truncate(len);
    buf
}
