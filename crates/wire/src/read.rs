//! A cursor over a message body.

use thiserror::Error;

/// A message body that ends before its last field, or a string without its zero byte.
#[derive(Clone, Copy, Debug, Default, Eq, Error, PartialEq)]
#[error("message ends in the middle of a field")]
pub struct Truncated;

/// Reads fields off the front of a message body.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `body`.
    pub fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// Everything that has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next `n` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], Truncated> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Byte1.
    ///
    /// # Errors
    /// Nothing is left.
    pub fn u8(&mut self) -> Result<u8, Truncated> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    /// Int16.
    ///
    /// # Errors
    /// Fewer than two bytes are left.
    pub fn i16(&mut self) -> Result<i16, Truncated> {
        self.chunk().map(i16::from_be_bytes)
    }

    /// Int32.
    ///
    /// # Errors
    /// Fewer than four bytes are left.
    pub fn i32(&mut self) -> Result<i32, Truncated> {
        self.chunk().map(i32::from_be_bytes)
    }

    /// String: the bytes before the next zero byte, which is read too.
    ///
    /// # Errors
    /// No zero byte is left.
    pub fn string(&mut self) -> Result<&'a [u8], Truncated> {
        let end = self
            .rest
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(Truncated)?;
        let (text, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        Ok(text)
    }

    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Truncated> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(Truncated)?;
        self.rest = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_in_order() {
        let mut reader = Reader::new(b"name\0\0\x07\x01\0\0\0tail");
        assert_eq!(reader.string(), Ok(&b"name"[..]));
        assert_eq!(reader.i16(), Ok(7));
        assert_eq!(reader.i32(), Ok(0x0100_0000));
        assert_eq!(reader.bytes(2), Ok(&b"ta"[..]));
        assert_eq!(reader.rest(), b"il");
    }

    #[test]
    fn a_string_needs_its_zero_byte() {
        assert_eq!(Reader::new(b"name").string(), Err(Truncated));
    }
}
