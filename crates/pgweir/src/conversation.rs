//! One message at a time, for logins: of clients to us and of us to servers. Never on the way of
//! a query.

use std::io;

use bytes::{Bytes, BytesMut};
use pgweir_net::Stream;
use pgweir_wire::{FirstPacket, FrameError, HEADER_LEN, Header, StartupError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A stream with the bytes that were read but not used.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) stream: Stream,
    pub(crate) unread: BytesMut,
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
        Self {
            stream,
            unread: BytesMut::new(),
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
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    async fn read_more(&mut self) -> Result<(), Interrupted> {
        self.unread.reserve(1024);
        match self.stream.read_buf(&mut self.unread).await? {
            0 => Err(Interrupted::Gone),
            _ => Ok(()),
        }
    }
}
