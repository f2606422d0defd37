//! The encoding of LDAP's messages, as much of it as they use: tags of one byte, definite lengths.

use thiserror::Error;
use zeroize::Zeroizing;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const SEQUENCE: u8 = 0x30;

/// The longest message that is read. An answer to our questions has a few hundred bytes; more than
/// this is no answer.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Bytes that are no message of an LDAP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// An element ends before its content does.
    #[error("a message is cut")]
    Cut,
    /// Another element was expected here.
    #[error("a message has tag {found:#04x} where {expected:#04x} belongs")]
    Tag {
        /// What stands there.
        found: u8,
        /// What should.
        expected: u8,
    },
    /// The indefinite form, or a length of more than four bytes.
    #[error("a message has a length that LDAP does not use")]
    Length,
    /// A message over the limit.
    #[error("a message of {0} bytes is too long")]
    TooLong(usize),
    /// A number that does not fit.
    #[error("a message has a number of {0} bytes")]
    Number(usize),
    /// Text that is not UTF-8.
    #[error("a message has text that is not UTF-8")]
    Text,
}

/// Writes one message. It may hold a password, so it is wiped when dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    out: Zeroizing<Vec<u8>>,
}

impl Writer {
    /// The content's size is needed beforehand: a buffer that grows leaves copies behind.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Zeroizing::new(Vec::with_capacity(bytes)),
        }
    }

    pub(crate) fn finish(self) -> Zeroizing<Vec<u8>> {
        self.out
    }

    pub(crate) fn bytes(&mut self, tag: u8, content: &[u8]) {
        self.element(tag, |writer| writer.out.extend_from_slice(content));
    }

    pub(crate) fn number(&mut self, tag: u8, value: i32) {
        self.bytes(tag, &value.to_be_bytes());
    }

    pub(crate) fn boolean(&mut self, tag: u8, value: bool) {
        self.bytes(tag, &[if value { 0xff } else { 0 }]);
    }

    /// An element whose content `fill` writes. The length takes five bytes, whatever it is, so
    /// that it can be filled in afterwards; BER allows that, and so does LDAP.
    pub(crate) fn element(&mut self, tag: u8, fill: impl FnOnce(&mut Self)) {
        self.out.extend_from_slice(&[tag, 0x84, 0, 0, 0, 0]);
        let start = self.out.len();
        fill(self);
        let len = u32::try_from(self.out.len() - start).unwrap_or(u32::MAX);
        self.out[start - 4..start].copy_from_slice(&len.to_be_bytes());
    }
}

/// Reads elements one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next element, whatever it is: its tag and its content.
    pub(crate) fn any(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let (tag, start, end) = extent(self.rest)?.ok_or(Malformed::Cut)?;
        let content = self.rest.get(start..end).ok_or(Malformed::Cut)?;
        self.rest = &self.rest[end..];
        Ok((tag, content))
    }

    /// The content of the next element, which must have this tag.
    pub(crate) fn expect(&mut self, expected: u8) -> Result<&'a [u8], Malformed> {
        match self.any()? {
            (found, content) if found == expected => Ok(content),
            (found, _) => Err(Malformed::Tag { found, expected }),
        }
    }

    pub(crate) fn number(&mut self, tag: u8) -> Result<i32, Malformed> {
        let content = self.expect(tag)?;
        if content.is_empty() || content.len() > 4 {
            return Err(Malformed::Number(content.len()));
        }
        let sign = if content[0] & 0x80 == 0 { 0 } else { -1 };
        let add = |number, byte: &u8| (number << 8) | i32::from(*byte);
        Ok(content.iter().fold(sign, add))
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        let content = self.expect(OCTET_STRING)?;
        std::str::from_utf8(content).map_err(|_| Malformed::Text)
    }
}

/// How many bytes the message at the beginning of a buffer has; `None` if it is not all there.
pub(crate) fn message_len(buffer: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some((tag, _, end)) = extent(buffer)? else {
        return Ok(None);
    };
    if tag != SEQUENCE {
        return Err(Malformed::Tag {
            found: tag,
            expected: SEQUENCE,
        });
    }
    if end > MESSAGE_BYTES_MAX {
        return Err(Malformed::TooLong(end));
    }
    Ok((buffer.len() >= end).then_some(end))
}

/// The tag of the first element, and where its content begins and ends, which may be beyond the
/// bytes. `None` if they end within its head.
fn extent(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Malformed> {
    let (Some(&tag), Some(&first)) = (bytes.first(), bytes.get(1)) else {
        return Ok(None);
    };
    let (start, len) = match first {
        0..=0x7f => (2, usize::from(first)),
        0x81..=0x84 => {
            let start = 2 + usize::from(first & 0x7f);
            let Some(len) = bytes.get(2..start) else {
                return Ok(None);
            };
            let add = |sum, byte: &u8| (sum << 8) | usize::from(*byte);
            (start, len.iter().fold(0, add))
        }
        0x80 | 0x85.. => return Err(Malformed::Length),
    };
    Ok(Some((tag, start, start.saturating_add(len))))
}
