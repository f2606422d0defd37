//! What was read of a long stream before TLS asked for it.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::poll_len;
use crate::buffer::SCRATCH_LEN;

/// Bytes in their order. It owns memory during a long stream only.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    bytes: Box<[u8]>,
    /// Those that were not asked for yet.
    left: Range<usize>,
}

impl Ahead {
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    #[cfg(test)]
    pub(super) fn owns_buffer(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Gives as much as there is room for.
    pub(super) fn take(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.left.len().min(buf.remaining());
        let taken = self.left.start..self.left.start + len;
        self.left.start = taken.end;
        buf.put_slice(&self.bytes[taken]);
    }

    /// Reads once, where nothing is left: how many bytes.
    pub(super) fn poll_fill(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() {
            self.bytes = vec![0; SCRATCH_LEN].into_boxed_slice();
        }
        let len = ready!(poll_len(tcp, cx, &mut ReadBuf::new(&mut self.bytes)))?;
        self.left = 0..len;
        Poll::Ready(Ok(len))
    }
}
