//! One read or one write of a plain socket, at the least cost.
//!
//! Hot path. tokio's `poll_read` and `poll_write` leave the waker with the reactor whenever there is nothing to do, under
//! a lock, although it mostly is there already. Here the readiness that the reactor has noted is looked at first, which
//! is one load, and a reader leaves its waker once for each time that it is woken.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop::has_budget_remaining;

/// The task whose waker lies with the reactor until the socket is readable; nobody at first.
///
/// It stays true until something is read: the reactor takes the waker only when it notes readiness, and a noted
/// readiness is seen before this is asked. A waker that lies there keeps its task's memory, so the address is its own.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reader(usize);

impl Reader {
    const NOBODY: Self = Self(0);

    fn new(cx: &Context<'_>) -> Self {
        Self(cx.waker().data().addr())
    }
}

/// A socket of tokio's.
pub(crate) trait Socket: AsFd {
    fn try_io<R>(&self, interest: Interest, f: impl FnOnce() -> io::Result<R>) -> io::Result<R>;
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Reads what is there, once.
#[inline]
pub(crate) fn poll_recv(
    socket: &impl Socket,
    cx: &mut Context<'_>,
    reader: &mut Reader,
    buf: &mut [u8],
) -> Poll<io::Result<usize>> {
    let this = Reader::new(cx);
    loop {
        if *reader != this && socket.poll_read_ready(cx)?.is_pending() {
            // A task that has used its time up is told to come again, and its waker stays with it.
            if has_budget_remaining() {
                *reader = this;
            }
            return Poll::Pending;
        }
        let read = attempt(socket, Interest::READABLE, buf.len(), || {
            *reader = Reader::NOBODY;
            let (_, len) = recv(socket, &mut *buf, RecvFlags::empty())?;
            Ok(len)
        });
        match read {
            Some(read) => return Poll::Ready(read),
            None if *reader == this => return Poll::Pending,
            // It was said to be ready and was not: the waker has been taken.
            None => {}
        }
    }
}

/// Writes as much as the socket takes, once.
#[inline]
pub(crate) fn poll_send(
    socket: &impl Socket,
    cx: &mut Context<'_>,
    buf: &[u8],
) -> Poll<io::Result<usize>> {
    loop {
        let written = attempt(socket, Interest::WRITABLE, buf.len(), || {
            Ok(send(socket, buf, SendFlags::NOSIGNAL)?)
        });
        if let Some(written) = written {
            return Poll::Ready(written);
        }
        ready!(socket.poll_write_ready(cx))?;
    }
}

/// Moves up to `wanted` bytes; `None` if the socket is not ready.
///
/// Where fewer were moved the socket has no more to give or to take, and is flagged as not ready: that spares the system
/// call that would find it out.
#[inline]
fn attempt(
    socket: &impl Socket,
    interest: Interest,
    wanted: usize,
    transfer: impl FnOnce() -> io::Result<usize>,
) -> Option<io::Result<usize>> {
    let mut moved = 0;
    let done = socket.try_io(interest, || {
        moved = transfer()?;
        match moved {
            0 => Ok(()),
            _ if moved < wanted => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(()),
        }
    });
    match done {
        Ok(()) => Some(Ok(moved)),
        Err(_) if moved > 0 => Some(Ok(moved)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => Some(Err(error)),
    }
}

macro_rules! socket {
    ($($socket:ty)*) => {$(
        impl Socket for $socket {
            #[inline]
            fn try_io<R>(
                &self,
                interest: Interest,
                f: impl FnOnce() -> io::Result<R>,
            ) -> io::Result<R> {
                self.try_io(interest, f)
            }

            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_read_ready(cx)
            }

            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.poll_write_ready(cx)
            }
        }
    )*};
}

socket!(TcpStream UnixStream);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::{spawn, yield_now};

    use super::*;

    /// As much as one read brings, and then the reader asks in vain once, so that its waker is left behind.
    async fn read(socket: &UnixStream, reader: &mut Reader) -> Vec<u8> {
        let mut buf = [0; 64];
        let len = poll_fn(|cx| poll_recv(socket, cx, reader, &mut buf)).await;
        let again = poll_fn(|cx| Poll::Ready(poll_recv(socket, cx, reader, &mut [0; 64]))).await;
        assert!(again.is_pending());
        buf[..len.unwrap()].to_vec()
    }

    #[tokio::test]
    async fn a_reader_is_woken_for_whatever_comes() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let reading = spawn(async move {
            let mut reader = Reader::default();
            for message in [&b"one"[..], b"two", b"three"] {
                assert_eq!(read(&near, &mut reader).await, message);
            }
        });
        for message in [&b"one"[..], b"two", b"three"] {
            far.write_all(message).await.unwrap();
            // The reader takes this one first, and waits again.
            for _ in 0..10 {
                yield_now().await;
            }
        }
        reading.await.unwrap();
    }

    #[tokio::test]
    async fn a_socket_that_was_given_away_wakes_its_new_reader() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut reader = Reader::default();
        let in_vain = poll_fn(|cx| Poll::Ready(poll_recv(&near, cx, &mut reader, &mut [0; 8])));
        assert!(in_vain.await.is_pending());
        let reading = spawn(async move { read(&near, &mut reader).await });
        yield_now().await;
        far.write_all(b"hello").await.unwrap();
        assert_eq!(reading.await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn a_writer_is_woken_when_there_is_room_again() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let bytes = vec![7; 3 * 1024 * 1024];
        let total = bytes.len();
        let writing = spawn(async move {
            let mut sent = 0;
            while sent < bytes.len() {
                let written = poll_fn(|cx| poll_send(&near, cx, &bytes[sent..])).await;
                sent += written.unwrap();
            }
        });
        let mut received = 0;
        while received < total {
            received += far.read(&mut [0; 4096]).await.unwrap();
            yield_now().await;
        }
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn the_end_is_read_as_no_bytes() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        let mut reader = Reader::default();
        let end = poll_fn(|cx| poll_recv(&near, cx, &mut reader, &mut [0; 8])).await;
        assert_eq!(end.unwrap(), 0);
    }
}
