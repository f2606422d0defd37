//! A stream with what was read but not yet understood, and what was written but not yet taken.
//!
//! Hot path. Reads go into a large buffer that all connections of a thread share, so an idle
//! connection owns none. What is written goes into the outbox of the thread if it is short, and
//! straight from there if it is long; only what the peer does not take is kept. A connection whose
//! `unsent` is not empty must not be given more: whoever feeds it stops reading the other side, and
//! that is all the back-pressure there is.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;

use crate::bulk::Bulk;
use crate::outbox::Outgoing;
use crate::socket::Reader;
use crate::stream::Stream;

/// Bytes that one read may bring; with more it leaves the processor's nearer caches (ADR 28). PgBouncer's default of
/// 4 KiB costs it three times the CPU on large results.
pub const SCRATCH_LEN: usize = 128 * 1024;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_LEN].into_boxed_slice());
}

/// Lends this thread's read buffer out. Must not be nested.
pub fn with_scratch<R>(f: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| f(scratch))
}

/// A stream and its buffers.
#[derive(Debug)]
pub struct Buffered {
    /// What may still lie in the outbox for `stream`; it stands here because fields are dropped in their order.
    outgoing: Outgoing,
    stream: Stream,
    reader: Reader,
    bulk: Bulk,
    unread: Vec<u8>,
    /// Whether `unread` should be offered again without reading more.
    offer_again: bool,
    unsent: Vec<u8>,
    /// Whether TLS may hold bytes that it has not written.
    unflushed: bool,
}

/// What a read brought.
#[derive(Debug)]
pub enum Input {
    /// The peer has closed its side.
    End,
    /// So many bytes at the start of the scratch buffer.
    Scratch(usize),
    /// Bytes that follow on bytes kept earlier.
    Kept(Vec<u8>),
}

impl Input {
    /// The bytes.
    #[inline]
    pub fn bytes<'a>(&'a self, scratch: &'a [u8]) -> &'a [u8] {
        match self {
            Self::End => &[],
            Self::Scratch(len) => &scratch[..*len],
            Self::Kept(bytes) => bytes,
        }
    }
}

impl Buffered {
    /// Nothing read, nothing to write.
    pub fn new(mut stream: Stream) -> Self {
        stream.post();
        Self {
            outgoing: Outgoing::default(),
            stream,
            reader: Reader::default(),
            bulk: Bulk::default(),
            unread: Vec::new(),
            offer_again: false,
            unsent: Vec::new(),
            unflushed: false,
        }
    }

    /// The stream.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// The stream. Whatever is read or written here passes the buffers by.
    pub fn stream_mut(&mut self) -> &mut Stream {
        // A peer that is gone shows itself again.
        let _ = self.send_out();
        self.settle();
        self.reader = Reader::default();
        &mut self.stream
    }

    /// Reads once, unless bytes were put back to be offered again.
    ///
    /// # Errors
    /// As the operating system says.
    #[inline]
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<Input>> {
        if self.offer_again {
            self.offer_again = false;
            return Poll::Ready(Ok(self.kept(&[])));
        }
        let len = ready!(self.poll_recv(cx, scratch))?;
        Poll::Ready(Ok(if len == 0 {
            Input::End
        } else if self.unread.is_empty() {
            Input::Scratch(len)
        } else {
            self.kept(&scratch[..len])
        }))
    }

    /// Reads once, and in larger pieces where much comes.
    #[inline]
    fn poll_recv(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<usize>> {
        let read = self.stream.poll_recv(cx, &mut self.reader, scratch);
        if let Stream::Tcp(tcp) = &self.stream {
            match &read {
                Poll::Ready(Ok(len)) => self.bulk.received(tcp, *len),
                Poll::Ready(Err(_)) => {}
                Poll::Pending => self.bulk.wait(tcp, cx),
            }
        }
        read
    }

    /// Nothing more of what was asked for will come: what comes now is wanted at once. Whatever is sent says so, too.
    #[inline]
    pub fn settle(&mut self) {
        match &mut self.stream {
            Stream::Tcp(tcp) => self.bulk.end(tcp),
            Stream::Unix(_) => {}
            Stream::Tls(tls) => tls.settle(),
        }
    }

    /// What was kept, followed by `more`.
    #[cold]
    fn kept(&mut self, more: &[u8]) -> Input {
        let mut bytes = std::mem::take(&mut self.unread);
        bytes.extend_from_slice(more);
        Input::Kept(bytes)
    }

    /// Keeps what was not consumed: it is offered again together with what the next read brings.
    #[inline]
    pub fn keep(&mut self, input: Input, scratch: &[u8], consumed: usize) {
        match input {
            Input::Scratch(len) if consumed == len => {}
            input => self.keep_rest(input, scratch, consumed),
        }
    }

    #[cold]
    fn keep_rest(&mut self, input: Input, scratch: &[u8], consumed: usize) {
        debug_assert!(self.unread.is_empty());
        match input {
            Input::End => {}
            Input::Scratch(len) => self.unread.extend_from_slice(&scratch[consumed..len]),
            Input::Kept(mut bytes) => {
                if consumed < bytes.len() {
                    bytes.drain(..consumed);
                    self.unread = bytes;
                }
            }
        }
    }

    /// Puts all of `input` back, to be offered again at the next read, before anything new.
    pub fn put_back(&mut self, input: Input, scratch: &[u8]) {
        self.keep(input, scratch, 0);
        self.offer_again = !self.unread.is_empty();
    }

    /// As [`Self::put_back`], for bytes that came from elsewhere.
    pub fn put_back_bytes(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.offer_again = !self.unread.is_empty();
    }

    /// Reads while its bytes cannot be used yet, up to `limit` held bytes, to learn whether the
    /// peer is still there. Ready only at the end or at an error.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn poll_gone(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
        limit: usize,
    ) -> Poll<io::Result<()>> {
        while self.unread.len() < limit {
            let len = ready!(self.stream.poll_recv(cx, &mut self.reader, scratch))?;
            if len == 0 {
                return Poll::Ready(Ok(()));
            }
            self.unread.extend_from_slice(&scratch[..len]);
            self.offer_again = true;
        }
        Poll::Pending
    }

    /// The bytes that have been read and not used.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// The bytes that still have to be written.
    pub fn unsent(&self) -> &[u8] {
        &self.unsent
    }

    /// Takes the bytes that have been read and not used.
    pub fn take_unread(&mut self) -> Vec<u8> {
        self.offer_again = false;
        std::mem::take(&mut self.unread)
    }

    /// Offers the bytes that have been read and not used at the next read, before anything new.
    pub fn offer_unread(&mut self) {
        self.offer_again = !self.unread.is_empty();
    }

    /// The stream without its buffers.
    pub fn into_stream(mut self) -> Stream {
        self.settle();
        drop(self.outgoing);
        self.stream
    }

    /// Whether it can move to the reactor of another thread: TLS cannot, and what lies in the outbox has to leave first.
    pub fn can_move(&self) -> bool {
        !matches!(self.stream, Stream::Tls(_)) && self.is_drained()
    }

    /// Moves a connection for which [`Self::can_move`] holds to the reactor of this thread.
    ///
    /// # Errors
    /// As the operating system says; the connection is lost.
    pub fn move_here(mut self) -> io::Result<Self> {
        self.settle();
        let (unread, offer_again) = (self.unread, self.offer_again);
        drop(self.outgoing);
        Ok(Self {
            unread,
            offer_again,
            ..Self::new(self.stream.move_here()?)
        })
    }

    /// Writes as much as the peer takes now, or at the end of this round, and keeps the rest.
    ///
    /// # Errors
    /// As the operating system says.
    #[inline]
    pub fn send(&mut self, cx: &mut Context<'_>, mut bytes: &[u8]) -> io::Result<()> {
        self.settle();
        if !self.has_unsent() {
            if self.put(cx, bytes) {
                return Ok(());
            }
            self.send_out()?;
        }
        if !self.has_unsent() {
            while !bytes.is_empty() {
                match self.stream.poll_send(cx, bytes) {
                    Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(Ok(written)) => bytes = &bytes[written..],
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => break,
                }
            }
            self.flush(cx)?;
        }
        self.unsent.extend_from_slice(bytes);
        Ok(())
    }

    /// Puts bytes into the outbox of this thread, if it has one and they are few.
    #[inline]
    fn put(&mut self, cx: &Context<'_>, bytes: &[u8]) -> bool {
        match &self.stream {
            Stream::Tcp(tcp) => self.outgoing.put(cx, tcp, bytes),
            Stream::Unix(unix) => self.outgoing.put(cx, unix, bytes),
            // What it makes of the bytes goes there.
            Stream::Tls(_) => false,
        }
    }

    /// Sends what lies in the outbox, and keeps what could not be sent.
    ///
    /// # Errors
    /// As the operating system says.
    #[inline]
    pub fn send_out(&mut self) -> io::Result<()> {
        let mut rest = self.outgoing.send_out()?;
        if !rest.is_empty() {
            rest.append(&mut self.unsent);
            self.unsent = rest;
        }
        Ok(())
    }

    /// Keeps bytes to be written by the next [`Self::poll_drain`].
    pub fn queue(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
    }

    /// Whether something still has to be written.
    #[inline]
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty() || self.unflushed || self.has_rest()
    }

    #[inline]
    fn has_rest(&self) -> bool {
        match self.stream.record_socket() {
            Some(socket) => socket.has_rest(),
            None => self.outgoing.has_rest(),
        }
    }

    /// Whether the kernel has all that was sent.
    pub fn is_drained(&self) -> bool {
        let lies_in_outbox = match self.stream.record_socket() {
            Some(socket) => socket.lies_in_outbox(),
            None => self.outgoing.lies_here(),
        };
        !self.has_unsent() && !lies_in_outbox
    }

    /// Writes what was kept; ready when nothing is left.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send_out()?;
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.poll_send(cx, &self.unsent[sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => sent += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.unsent.drain(..sent);
                    return Poll::Pending;
                }
            }
        }
        // An idle connection owns no buffer.
        self.unsent = Vec::new();
        self.flush(cx)?;
        if self.unflushed {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    #[inline]
    fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match &self.stream {
            Stream::Tls(_) => self.flush_tls(cx),
            // What they have taken is on its way.
            Stream::Tcp(_) | Stream::Unix(_) => Ok(()),
        }
    }

    fn flush_tls(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(result) => {
                self.unflushed = false;
                result
            }
            Poll::Pending => {
                self.unflushed = true;
                Ok(())
            }
        }
    }
}
