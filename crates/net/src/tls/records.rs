//! The socket under TLS.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::bulk::Bulk;
use crate::outbox::{Outgoing, give_way};

mod ahead;

use ahead::Ahead;

/// What TLS records are read from and written to.
#[derive(Debug)]
pub(crate) struct RecordSocket {
    /// What may still lie in the outbox for `tcp`; it stands here because fields are dropped in their order.
    outgoing: Outgoing,
    tcp: TcpStream,
    /// What the socket did not take at the end of a round.
    rest: Vec<u8>,
    /// Whether records may go into the outbox.
    posts: bool,
    bulk: Bulk,
    /// TLS asks for a few KiB at a time: what was read beyond that of a long stream.
    ahead: Ahead,
}

impl RecordSocket {
    /// For a handshake: its records are written directly.
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self {
            outgoing: Outgoing::default(),
            tcp,
            rest: Vec::new(),
            posts: false,
            bulk: Bulk::default(),
            ahead: Ahead::default(),
        }
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// From now on records may leave at the end of a round, because somebody asks for [`Self::has_rest`] and flushes when woken.
    pub(crate) fn post(&mut self) {
        self.posts = true;
    }

    /// Whether the socket did not take everything; a flush writes it.
    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty() || self.outgoing.has_rest()
    }

    /// Whether records wait in the outbox for the end of the round.
    pub(crate) fn lies_in_outbox(&self) -> bool {
        self.outgoing.lies_here()
    }

    /// Whether something was read that TLS has not asked for yet.
    #[cfg(test)]
    pub(crate) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Whether there is memory for it.
    #[cfg(test)]
    pub(crate) fn owns_buffer(&self) -> bool {
        self.ahead.owns_buffer()
    }

    /// What comes now is wanted at once; see [`Buffered::settle`](crate::buffer::Buffered::settle).
    pub(crate) fn settle(&mut self) {
        self.bulk.end(&self.tcp);
        self.release();
    }

    /// An idle connection owns no buffer.
    fn release(&mut self) {
        if !self.bulk.is_long() && self.ahead.is_empty() {
            self.ahead = Ahead::default();
        }
    }

    /// Reads once, and more than TLS asks for where much comes.
    fn poll_recv(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = if self.bulk.is_long() {
            self.ahead.poll_fill(&mut self.tcp, cx)
        } else {
            poll_len(&mut self.tcp, cx, buf)
        };
        match read {
            Poll::Ready(Ok(len)) => self.bulk.received(&self.tcp, len),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.bulk.wait(&self.tcp, cx),
        }
        read.map_ok(drop)
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.has_rest() {
            self.send_out()?;
        }
        while !self.rest.is_empty() {
            let written = ready!(Pin::new(&mut self.tcp).poll_write(cx, &self.rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.rest.drain(..written);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what lies in the outbox, and keeps what could not be sent.
    fn send_out(&mut self) -> io::Result<()> {
        self.rest.append(&mut self.outgoing.send_out()?);
        Ok(())
    }

    /// Puts as many bytes into the outbox as it takes.
    fn put(&mut self, cx: &Context<'_>, bufs: &[IoSlice<'_>]) -> usize {
        if !self.posts || !Outgoing::takes(bufs.iter().map(|buf| buf.len()).sum()) {
            return 0;
        }
        let mut len = 0;
        for buf in bufs {
            if !self.outgoing.put(cx, &self.tcp, buf) {
                break;
            }
            len += buf.len();
        }
        len
    }
}

/// Reads once: how many bytes.
fn poll_len(
    tcp: &mut TcpStream,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<usize>> {
    let before = buf.filled().len();
    ready!(Pin::new(tcp).poll_read(cx, buf))?;
    Poll::Ready(Ok(buf.filled().len() - before))
}

impl AsyncRead for RecordSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ahead.is_empty() {
            let read = this.poll_recv(cx, buf);
            this.release();
            ready!(read)?;
        }
        this.ahead.take(buf);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for RecordSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_rest(cx))?;
        match this.put(cx, bufs) {
            0 => {}
            len => return Poll::Ready(Ok(len)),
        }
        // What lies there comes first, whosever it is.
        give_way();
        this.send_out()?;
        ready!(this.poll_rest(cx))?;
        Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_rest(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.send_out()?;
        ready!(this.poll_rest(cx))?;
        Pin::new(&mut this.tcp).poll_shutdown(cx)
    }
}
