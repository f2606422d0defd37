//! One message at a time, for logins: of clients to us and of us to servers. Never on the way of
//! a query.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::{Bytes, BytesMut};
use pgweir_net::Stream;
use pgweir_wire::{FirstPacket, FrameError, HEADER_LEN, Header, StartupError};
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};

/// How many bytes of somebody who has not logged in are read at a time.
pub(crate) const READ_LEN: usize = 1024;

/// How many bytes somebody may say ahead while his command is being carried out.
const AHEAD_MAX: usize = 64 * 1024;

/// A stream with the bytes that were read but not used.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) stream: Stream,
    pub(crate) unread: BytesMut,
    /// What leaves with what is sent next.
    held: BytesMut,
}

/// Why no message could be read.
#[derive(Debug)]
pub(crate) enum Interrupted {
    /// The peer has closed, or the network has failed.
    Gone,
    /// A length that no message has, or over the limit.
    Frame(FrameError),
    /// The first packet is none.
    Startup(StartupError),
}

impl From<io::Error> for Interrupted {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl Conversation {
    pub(crate) fn new(stream: Stream) -> Self {
        Self::begun(stream, BytesMut::new())
    }

    /// Goes on after what has been read of the stream already.
    pub(crate) fn begun(stream: Stream, unread: BytesMut) -> Self {
        Self {
            stream,
            unread,
            held: BytesMut::new(),
        }
    }

    /// The first byte that has not been read yet; it stays unread.
    pub(crate) async fn first_byte(&mut self) -> Result<u8, Interrupted> {
        loop {
            match self.unread.first() {
                Some(&byte) => return Ok(byte),
                None => self.read_more().await?,
            }
        }
    }

    /// The packet that has no tag.
    pub(crate) async fn first_packet(&mut self) -> Result<FirstPacket, Interrupted> {
        loop {
            match FirstPacket::parse(&self.unread).map_err(Interrupted::Startup)? {
                Some((packet, len)) => {
                    let _ = self.unread.split_to(len);
                    return Ok(packet);
                }
                None => self.read_more().await?,
            }
        }
    }

    /// A whole message: its tag and its body.
    pub(crate) async fn message(&mut self, limit: u32) -> Result<(u8, Bytes), Interrupted> {
        loop {
            if let Some(header) = Header::peek(&self.unread, limit).map_err(Interrupted::Frame)?
                && self.unread.len() >= header.frame_len()
            {
                let mut frame = self.unread.split_to(header.frame_len());
                return Ok((header.tag, frame.split_off(HEADER_LEN).freeze()));
            }
            self.read_more().await?;
        }
    }

    /// Writes all of it.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.held.is_empty() {
            true => self.write(bytes).await,
            false => {
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(bytes);
                self.write(&held).await
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = self.stream.send_now(bytes);
        if sent == bytes.len() {
            return Ok(());
        }
        self.stream.write_all(&bytes[sent..]).await?;
        self.stream.flush().await
    }

    /// Keeps a message until the next one is sent: the peer has nothing to say in between.
    pub(crate) fn hold(&mut self, message: BytesMut) {
        self.held.unsplit(message);
    }

    /// The stream, and what has been held back and is to be written to it first.
    pub(crate) fn into_parts(self) -> (Stream, BytesMut) {
        (self.stream, self.held)
    }

    /// Resolves when the peer has gone. What it says until then is kept, and not read any more when that is much.
    pub(crate) async fn gone(&mut self) {
        while self.unread.len() < AHEAD_MAX {
            if self.read_more().await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// Reads once. Only what has come is kept: most messages of a login are short.
    async fn read_more(&mut self) -> Result<(), Interrupted> {
        let Self { stream, unread, .. } = self;
        let len = std::future::poll_fn(|cx| {
            let mut space = [const { MaybeUninit::uninit() }; READ_LEN];
            let mut space = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut space))?;
            unread.extend_from_slice(space.filled());
            Poll::Ready(io::Result::Ok(space.filled().len()))
        })
        .await?;
        match len {
            0 => Err(Interrupted::Gone),
            _ => Ok(()),
        }
    }
}
