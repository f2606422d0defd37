//! Reading a long stream in larger pieces.
//!
//! PostgreSQL sends 8 KiB at a time, and each of them would wake its reader for one read and one write. When much has
//! come without a word the other way, as in COPY and large results, the kernel is told to wake the reader for no less
//! than a 64th of that (`SO_RCVLOWAT`, socket(7)): one [`PIECE`], and where twice as much has come two, up to
//! [`PIECES_MAX`]. A timer sees to what is less: it takes that back, and the kernel then tells of what is there. So does
//! everything that is sent the other way. The end of a stream and errors wake the reader at any time.

use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use nix::sys::socket::{SetSockOpt as _, sockopt::SetUsize};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// How much makes a long stream. The last piece of one comes up to [`PATIENCE`] later, so it is much.
pub(crate) const LONG: usize = 64 * PIECE;

/// Half of what one read may bring: the rest of the reader's buffer is for what comes meanwhile.
pub(crate) const PIECE: usize = crate::buffer::SCRATCH_LEN / 2;

/// Waking a processor that sleeps is dear, for the sender too (ADR 28).
const PIECES_MAX: u16 = 4;

/// How long less than a [`PIECE`] may wait; less than several, as many times longer.
const PATIENCE: Duration = Duration::from_millis(1);

/// What a socket in its first state waits for.
pub(crate) const ANYTHING: usize = 1;

/// What one connection has sent since it was last sent something, and whether it is read in larger pieces.
#[derive(Debug, Default)]
pub(crate) struct Bulk {
    received: usize,
    patience: Option<Box<Patience>>,
}

/// Of a reader that waits for a larger piece.
#[derive(Debug)]
struct Patience {
    /// How many of [`PIECE`] the reader waits for.
    pieces: u16,
    timer: Pin<Box<Sleep>>,
    /// Whether the timer runs for what the reader waits for now.
    runs: bool,
}

impl Bulk {
    /// Whether the stream is long, and read in larger pieces.
    pub(crate) fn is_long(&self) -> bool {
        self.patience.is_some()
    }

    /// Notes what was read.
    #[inline]
    pub(crate) fn received(&mut self, socket: &TcpStream, len: usize) {
        self.received += len;
        match &mut self.patience {
            Some(patience) => {
                patience.runs = false;
                patience.grow(socket, self.received);
            }
            None if self.received >= LONG => self.begin(socket),
            None => {}
        }
    }

    #[cold]
    fn begin(&mut self, socket: &TcpStream) {
        if wait_for(socket, PIECE) {
            self.patience = Some(Box::new(Patience {
                pieces: 1,
                timer: Box::pin(sleep(PATIENCE)),
                runs: false,
            }));
        } else {
            self.received = 0;
        }
    }

    /// The reader found nothing and waits.
    #[inline]
    pub(crate) fn wait(&mut self, socket: &TcpStream, cx: &mut Context<'_>) {
        if let Some(patience) = &mut self.patience
            && patience.is_out(cx)
        {
            self.end(socket);
        }
    }

    /// Whatever comes is wanted at once.
    #[inline]
    pub(crate) fn end(&mut self, socket: &TcpStream) {
        self.received = 0;
        if self.patience.take().is_some() {
            wait_for(socket, ANYTHING);
        }
    }
}

impl Patience {
    /// Waits for twice as much where twice as much has come.
    fn grow(&mut self, socket: &TcpStream, received: usize) {
        let twice = 2 * self.pieces;
        if twice <= PIECES_MAX && received >= LONG * usize::from(twice) {
            wait_for(socket, PIECE * usize::from(twice));
            self.pieces = twice;
        }
    }

    fn is_out(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.runs {
            self.runs = true;
            let patience = PATIENCE * u32::from(self.pieces);
            self.timer.as_mut().reset(Instant::now() + patience);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }
}

/// Whether the kernel agrees. Where there is already as much, it tells so again.
fn wait_for(socket: &TcpStream, bytes: usize) -> bool {
    LowWater.set(socket, &bytes).is_ok()
}

#[derive(Clone, Copy, Debug)]
struct LowWater;

nix::setsockopt_impl!(
    LowWater,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    usize,
    SetUsize
);

#[cfg(test)]
nix::getsockopt_impl!(
    LowWater,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    usize,
    nix::sys::socket::sockopt::GetUsize
);

/// How many bytes its reader is woken for.
#[cfg(test)]
pub(crate) fn waits_for(socket: &impl std::os::fd::AsFd) -> usize {
    nix::sys::socket::getsockopt(socket, LowWater).unwrap()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;
    use crate::buffer::{Buffered, with_scratch};
    use crate::stream::Stream;

    async fn pair() -> (Buffered, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (Buffered::new(Stream::Tcp(near.unwrap())), far.unwrap().0)
    }

    async fn read(near: &mut Buffered) -> usize {
        let input = poll_fn(|cx| with_scratch(|scratch| near.poll_read(cx, scratch))).await;
        with_scratch(|scratch| input.unwrap().bytes(scratch).len())
    }

    async fn read_all(near: &mut Buffered, mut len: usize) {
        while len > 0 {
            len -= read(near).await;
        }
    }

    /// A connection whose stream is long and not over.
    async fn long_stream() -> (Buffered, TcpStream) {
        let (mut near, mut far) = pair().await;
        let bytes = vec![7; LONG];
        let (written, ()) = tokio::join!(far.write_all(&bytes), read_all(&mut near, LONG));
        written.unwrap();
        assert_eq!(waits_for(near.stream()), PIECE);
        (near, far)
    }

    #[tokio::test]
    async fn only_a_long_stream_comes_in_larger_pieces() {
        let (mut near, mut far) = pair().await;
        let bytes = vec![7; LONG - 1];
        let (written, ()) = tokio::join!(far.write_all(&bytes), read_all(&mut near, LONG - 1));
        written.unwrap();
        assert_eq!(waits_for(near.stream()), ANYTHING);
        far.write_all(&[7]).await.unwrap();
        assert_eq!(read(&mut near).await, 1);
        assert_eq!(waits_for(near.stream()), PIECE);
    }

    /// Where this process has to wait for a processor the stream counts as slow, and begins anew.
    #[tokio::test]
    async fn the_longer_the_stream_the_larger_the_pieces() {
        let (mut near, mut far) = long_stream().await;
        let bytes = vec![7; LONG];
        let mut marks = vec![PIECE];
        while marks.last() != Some(&(usize::from(PIECES_MAX) * PIECE)) {
            assert!(marks.len() < 1000, "{marks:?}");
            let (written, ()) = tokio::join!(far.write_all(&bytes), read_all(&mut near, LONG));
            written.unwrap();
            marks.push(waits_for(near.stream()));
        }
        assert_eq!(marks[marks.len() - 2], 2 * PIECE);
        // The reader need not wait for the first of them; for the next one it waits as long as the pieces are large.
        let begun = Instant::now();
        for end in ["the", "end"] {
            far.write_all(end.as_bytes()).await.unwrap();
            assert_eq!(read(&mut near).await, 3);
        }
        assert!(begun.elapsed() >= PATIENCE * u32::from(PIECES_MAX));
        assert_eq!(waits_for(near.stream()), ANYTHING);
    }

    #[tokio::test]
    async fn the_last_piece_comes_though_it_is_small() {
        let (mut near, mut far) = long_stream().await;
        far.write_all(b"end").await.unwrap();
        assert_eq!(read(&mut near).await, 3);
        assert_eq!(waits_for(near.stream()), ANYTHING);
    }

    #[tokio::test]
    async fn the_end_comes_at_once() {
        let (mut near, far) = long_stream().await;
        drop(far);
        assert_eq!(read(&mut near).await, 0);
    }

    #[tokio::test]
    async fn what_is_sent_the_other_way_ends_it() {
        let (mut near, mut far) = long_stream().await;
        poll_fn(|cx| std::task::Poll::Ready(near.send(cx, b"next")))
            .await
            .unwrap();
        assert_eq!(waits_for(near.stream()), ANYTHING);
        let mut question = [0; 4];
        far.read_exact(&mut question).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        assert_eq!(read(&mut near).await, 6);
    }

    #[tokio::test]
    async fn who_takes_the_socket_away_finds_it_as_it_was() {
        let (mut near, _far) = long_stream().await;
        near.stream_mut();
        assert_eq!(waits_for(near.stream()), ANYTHING);
        let (near, _far) = long_stream().await;
        let moved = near.move_here().unwrap();
        assert_eq!(waits_for(moved.stream()), ANYTHING);
        let (near, _far) = long_stream().await;
        assert_eq!(waits_for(&near.into_stream()), ANYTHING);
    }
}
