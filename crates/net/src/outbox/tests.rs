use std::future::poll_fn;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Poll, Wake};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::Builder;
use tokio::task::spawn;
use tokio::time::{sleep, timeout};

use super::testing::{arrived, end_of_round, fill, outbox, send};
use super::{end_of_round as end_of_a_round, *};
use crate::buffer::Buffered;
use crate::stream::Stream;

/// What does not come within this does not come.
const SOON: Duration = Duration::from_secs(5);

fn pair() -> (Buffered, UnixStream) {
    let (near, far) = UnixStream::pair().unwrap();
    (Buffered::new(Stream::Unix(near)), far)
}

#[tokio::test]
async fn what_a_round_sends_leaves_at_its_end() {
    let Some(outbox) = outbox() else { return };
    let (mut one, hears_one) = pair();
    let (mut other, hears_other) = pair();
    for text in ["first", "second"] {
        let emptied = outbox.emptied.load(Ordering::Relaxed);
        send(&mut one, text.as_bytes()).await;
        send(&mut other, b"to the other ").await;
        send(&mut one, b" and more").await;
        assert_eq!(arrived(&hears_one), b"");
        assert!(!one.has_unsent() && !one.is_drained());
        end_of_round().await;
        assert_eq!(arrived(&hears_one), format!("{text} and more").as_bytes());
        assert_eq!(arrived(&hears_other), b"to the other ");
        assert!(one.is_drained());
        assert_eq!(outbox.emptied.load(Ordering::Relaxed), emptied + 1);
    }
}

/// Otherwise nobody would empty it.
#[tokio::test]
async fn a_thread_that_has_ended_no_round_writes_directly() {
    let Some(_) = outbox() else { return };
    let (mut line, far) = pair();
    let elsewhere = std::thread::spawn(move || {
        let cx = &mut Context::from_waker(Waker::noop());
        line.send(cx, b"hello").unwrap();
        line
    });
    let line = elsewhere.join().unwrap();
    assert!(line.is_drained());
    assert_eq!(arrived(&far), b"hello");
}

#[test]
fn a_runtime_that_is_told_so_ends_its_rounds() {
    if outbox().is_none() {
        return;
    }
    let mut builder = Builder::new_current_thread();
    builder.enable_all().on_thread_park(end_of_a_round);
    let runtime = builder.build().unwrap();
    let answered = runtime.spawn(async {
        let (mut line, mut far) = pair();
        // By now this thread has ended a round.
        sleep(Duration::from_millis(1)).await;
        send(&mut line, b"hello").await;
        let mut heard = [0; 5];
        let reading = far.read_exact(&mut heard);
        timeout(SOON, reading).await.unwrap().unwrap();
        (heard, Outbox::here().is_some())
    });
    assert_eq!(runtime.block_on(answered).unwrap(), (*b"hello", true));
}

#[tokio::test]
async fn nothing_waits_for_the_end_of_a_round_while_others_write_directly() {
    let Some(_) = outbox() else { return };
    let (mut line, far) = pair();
    let (mut long, _hears_long) = pair();
    let (login, _hears_login) = UnixStream::pair().unwrap();
    let mut login = Stream::Unix(login);
    send(&mut line, b"one").await;
    send(&mut long, &[b'x'; PLACE_LEN + 1]).await;
    assert_eq!(arrived(&far), b"one");
    send(&mut line, b"two").await;
    login.write_all(b"greeting").await.unwrap();
    assert_eq!(arrived(&far), b"two");
}

#[tokio::test]
async fn more_than_it_has_places_for_is_sent_at_once() {
    let Some(_) = outbox() else { return };
    let mut pairs: Vec<_> = (0..=PLACES).map(|_| pair()).collect();
    for (line, _) in &mut pairs {
        send(line, b"hello").await;
    }
    assert_eq!(arrived(&pairs[0].1), b"hello");
    assert_eq!(arrived(&pairs[PLACES].1), b"");
    end_of_round().await;
    assert_eq!(arrived(&pairs[PLACES].1), b"hello");
}

#[tokio::test]
async fn what_is_long_comes_behind_what_lies_here() {
    let Some(_) = outbox() else { return };
    let (mut line, far) = pair();
    let long = vec![b'x'; PLACE_LEN];
    send(&mut line, b"short").await;
    send(&mut line, &long).await;
    assert_eq!(arrived(&far), [&b"short"[..], &long].concat());
}

#[tokio::test]
async fn bytes_are_on_their_way_before_the_socket_is_closed_or_given_away() {
    let Some(_) = outbox() else { return };
    let (mut line, mut far) = pair();
    send(&mut line, b"farewell").await;
    drop(line);
    // It may get the number of the one that was closed.
    let (mut next, hears_next) = pair();
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"farewell");

    send(&mut next, b"one").await;
    next.stream_mut().write_all(b", two").await.unwrap();
    send(&mut next, b", three").await;
    let _fd = next.into_stream().into_fd();
    assert_eq!(arrived(&hears_next), b"one, two, three");
    end_of_round().await;
    assert_eq!(arrived(&hears_next), b"");
}

#[tokio::test]
async fn a_peer_that_does_not_read_gets_everything_in_order_later() {
    let Some(_) = outbox() else { return };
    let (mut line, mut far) = pair();
    let mut expected = fill(&mut line).await;
    send(&mut line, b"the end").await;
    expected.extend(b"the end");
    let reading = spawn(async move {
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        heard
    });
    poll_fn(|cx| line.poll_drain(cx)).await.unwrap();
    assert!(line.is_drained());
    drop(line);
    assert!(reading.await.unwrap() == expected);
}

#[tokio::test]
async fn a_writer_that_does_something_else_is_woken_for_what_is_left() {
    let Some(_) = outbox() else { return };
    let (near, mut far) = UnixStream::pair().unwrap();
    let near = near.into_std().unwrap();
    let mut filled = 0;
    while let Ok(len) = (&near).write(&[0; 4096]) {
        filled += len;
    }
    let mut line = Buffered::new(Stream::Unix(UnixStream::from_std(near).unwrap()));
    let writing = spawn(async move {
        send(&mut line, b"hello").await;
        poll_fn(|cx| match line.has_unsent() {
            true => line.poll_drain(cx),
            false => Poll::Pending,
        })
        .await
    });
    end_of_round().await;
    let mut heard = vec![0; filled + 5];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard[filled..], b"hello");
    writing.await.unwrap().unwrap();
}

/// Looks, when it is woken, at whether it would find something.
struct Look {
    outbox: &'static Outbox,
    round: u64,
    found: AtomicBool,
}

impl Wake for Look {
    fn wake(self: Arc<Self>) {
        let is_over = self.outbox.emptied.load(Ordering::Acquire) > self.round;
        let has_rests = self.outbox.rests.load(Ordering::Acquire) > 0;
        self.found.store(is_over && has_rests, Ordering::Release);
    }
}

#[tokio::test]
async fn nothing_is_put_behind_what_is_left() {
    let Some(outbox) = outbox() else { return };
    let (near, far) = UnixStream::pair().unwrap();
    drop(far);
    let cx = Context::from_waker(Waker::noop());
    let mut out = Outgoing::default();
    assert!(out.put(&cx, &near, b"first"));
    outbox.send_now();
    assert!(out.has_rest());
    assert!(!out.put(&cx, &near, b"second"));
    assert!(out.send_out().is_err());
    assert!(out.put(&cx, &near, b"third"));
}

#[tokio::test]
async fn whoever_is_woken_finds_what_is_left() {
    let Some(outbox) = outbox() else { return };
    let (mut line, far) = pair();
    drop(far);
    let look = Arc::new(Look {
        outbox,
        round: outbox.emptied.load(Ordering::Acquire),
        found: AtomicBool::new(false),
    });
    let waker = Waker::from(Arc::clone(&look));
    line.send(&mut Context::from_waker(&waker), b"hello?")
        .unwrap();
    end_of_round().await;
    assert!(look.found.load(Ordering::Acquire));
}

#[tokio::test]
async fn who_writes_to_a_peer_that_is_gone_finds_out() {
    let Some(_) = outbox() else { return };
    let (mut line, far) = pair();
    drop(far);
    send(&mut line, b"hello?").await;
    end_of_round().await;
    assert!(line.has_unsent());
    let error = poll_fn(|cx| line.poll_drain(cx)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_connection_that_moves_to_another_thread_is_settled_where_it_was() {
    let Some(_) = outbox() else { return };
    let (mut line, far) = pair();
    send(&mut line, b"here, ").await;
    let line = std::thread::spawn(move || {
        let cx = &mut Context::from_waker(Waker::noop());
        line.send(cx, b"there").unwrap();
        line
    })
    .join()
    .unwrap();
    assert!(line.is_drained());
    assert_eq!(arrived(&far), b"here, there");
}
