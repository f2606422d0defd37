//! Frames as both fake sides write and cut them.

use bytes::{Bytes, BytesMut};
use pgweir_wire::{Header, put_frame};

/// Appends a frame.
pub(crate) fn frame(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    put_frame(out, tag, &[body]).expect("fakes speak briefly");
}

/// Appends a frame with a text and a zero byte.
pub(crate) fn text_frame(out: &mut Vec<u8>, tag: u8, text: &str) {
    frame(out, tag, &[text.as_bytes(), b"\0"].concat());
}

/// Takes the first whole frame out of `input`; `Err` if there can be none.
pub(crate) fn cut(input: &mut BytesMut) -> Result<Option<(u8, Bytes)>, String> {
    let header = Header::peek(input, 1 << 24).map_err(|error| error.to_string())?;
    let Some(header) = header.filter(|header| input.len() >= header.frame_len()) else {
        return Ok(None);
    };
    let whole = input.split_to(header.frame_len()).freeze();
    Ok(Some((header.tag, whole.slice(5..))))
}

/// The text before the first zero byte, and what follows.
pub(crate) fn string(body: &[u8]) -> (String, &[u8]) {
    let end = body.iter().position(|&byte| byte == 0);
    let (text, rest) = body.split_at(end.unwrap_or(body.len()));
    let rest = rest.get(1..).unwrap_or_default();
    (String::from_utf8_lossy(text).into_owned(), rest)
}
