//! Cuts a buffer into frames. The only place that reads the length of a tagged message, and the home of every size limit.

use thiserror::Error;

/// Tag and length word.
pub const HEADER_LEN: usize = 5;

/// The sizes beyond which a message is refused, but for PgBouncer's `max_packet_size`. Lengths are those of the length
/// word, in bytes.
#[derive(Clone, Copy, Debug)]
pub enum SizeLimits {}

impl SizeLimits {
    /// Largest StartupMessage: PostgreSQL's own limit (`MAX_STARTUP_PACKET_LENGTH`).
    pub const STARTUP: u32 = 10_000;
    /// Largest message while a client logs in: a password of 65530 bytes fits.
    pub const LOGIN: u32 = 66_000;
    /// Largest message that a server may send while it is being logged in to.
    pub const SERVER_LOGIN: u32 = 128 * 1024;
    /// Largest message that is held as a whole in order to understand it (Parse, ErrorResponse).
    pub const HELD: u32 = 64 * 1024 * 1024;
}

/// What the first five bytes of a frame say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// The message type.
    pub tag: u8,
    /// Bytes that follow the header.
    pub body_len: usize,
}

impl Header {
    /// Reads the header at the start of `buf`; `None` when fewer than five bytes are there.
    ///
    /// # Errors
    /// A length word below 4, or above `limit`.
    #[inline]
    pub fn peek(buf: &[u8], limit: u32) -> Result<Option<Self>, FrameError> {
        let Some((&[tag, a, b, c, d], _)) = buf.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        if length < 4 {
            return Err(FrameError::TooShort { tag, length });
        }
        if length > limit {
            return Err(FrameError::TooLong { tag, length, limit });
        }
        Ok(Some(Self {
            tag,
            body_len: length as usize - 4,
        }))
    }

    /// Bytes of the whole frame, header included.
    #[inline]
    pub fn frame_len(self) -> usize {
        HEADER_LEN + self.body_len
    }

    /// Reads a frame that lies in `buf` as a whole; `None` when more bytes are needed.
    ///
    /// # Errors
    /// As [`Header::peek`].
    pub fn whole(buf: &[u8], limit: u32) -> Result<Option<(Self, &[u8])>, FrameError> {
        let Some(header) = Self::peek(buf, limit)? else {
            return Ok(None);
        };
        Ok(buf
            .get(HEADER_LEN..header.frame_len())
            .map(|body| (header, body)))
    }
}

/// A length word that no message can have.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum FrameError {
    /// The length word counts itself, so it is at least 4.
    #[error("message '{}' with length {length}, which is less than 4", *tag as char)]
    TooShort {
        /// The message type.
        tag: u8,
        /// The length word.
        length: u32,
    },
    /// Larger than the limit in force.
    #[error("message '{}' of {length} bytes is over the limit of {limit}", *tag as char)]
    TooLong {
        /// The message type.
        tag: u8,
        /// The length word.
        length: u32,
        /// The limit in force.
        limit: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_needs_five_bytes() {
        assert_eq!(Header::peek(b"Q\0\0\0", u32::MAX), Ok(None));
    }

    #[test]
    fn the_length_word_counts_itself() {
        let header = Header::peek(b"Q\0\0\0\x09abcd\0", u32::MAX)
            .unwrap()
            .unwrap();
        assert_eq!(
            header,
            Header {
                tag: b'Q',
                body_len: 5
            }
        );
        assert_eq!(header.frame_len(), 10);
    }

    #[test]
    fn a_length_below_four_is_refused() {
        assert_eq!(
            Header::peek(b"Q\0\0\0\x03", u32::MAX),
            Err(FrameError::TooShort {
                tag: b'Q',
                length: 3
            })
        );
    }

    #[test]
    fn a_length_above_the_limit_is_refused() {
        assert_eq!(
            Header::peek(b"Q\0\0\x01\0", 255),
            Err(FrameError::TooLong {
                tag: b'Q',
                length: 256,
                limit: 255
            })
        );
    }

    #[test]
    fn a_whole_frame_waits_for_its_last_byte() {
        assert_eq!(Header::whole(b"Z\0\0\0\x05", u32::MAX), Ok(None));
        let (header, body) = Header::whole(b"Z\0\0\0\x05IZ", u32::MAX).unwrap().unwrap();
        assert_eq!((header.tag, body), (b'Z', &b"I"[..]));
    }
}
