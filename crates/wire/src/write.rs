//! Writes one frame.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

/// A message is longer than its length word can say.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("message '{}' is too long to be one", *tag as char)]
pub struct Oversized {
    /// The message type.
    pub tag: u8,
}

/// Appends a frame of which the body is there already, in parts.
///
/// # Errors
/// The parts are too long; then nothing is appended.
pub fn put_frame(out: &mut impl BufMut, tag: u8, parts: &[&[u8]]) -> Result<(), Oversized> {
    let body_len: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(4 + body_len).map_err(|_| Oversized { tag })?;
    out.put_u8(tag);
    out.put_u32(length);
    parts.iter().for_each(|part| out.put_slice(part));
    Ok(())
}

/// Appends a frame: `tag`, then whatever `body` writes, with the right length word between them.
pub(crate) fn frame(out: &mut BytesMut, tag: u8, body: impl FnOnce(&mut BytesMut)) {
    out.put_u8(tag);
    sized(out, body);
}

/// Appends a length word and what `body` writes: a frame without a tag (startup packets).
pub(crate) fn sized(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    body(out);
    let length = u32::try_from(out.len() - start).expect("our own messages are small");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Appends a zero-terminated string. A zero byte inside would end it early, so it is left out.
pub(crate) fn string(out: &mut BytesMut, text: &[u8]) {
    match text.contains(&0) {
        false => out.put_slice(text),
        true => out.extend(text.iter().filter(|&&byte| byte != 0)),
    }
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_as_long_as_its_parts() {
        let mut out = Vec::<u8>::new();
        assert_eq!(put_frame(&mut out, b'Q', &[b"select ", b"1\0"]), Ok(()));
        assert_eq!(put_frame(&mut out, b'S', &[]), Ok(()));
        assert_eq!(out, b"Q\0\0\0\x0dselect 1\0S\0\0\0\x04");
    }

    #[test]
    fn nothing_is_said_that_no_length_word_can_say() {
        let part = vec![0; 1 << 20];
        let (parts, mut out) = (vec![&part[..]; 1 << 12], Vec::<u8>::new());
        let too_long = Err(Oversized { tag: b'd' });
        assert_eq!(put_frame(&mut out, b'd', &parts), too_long);
        assert!(out.is_empty());
    }
}
