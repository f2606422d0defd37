//! Writes one frame with its length filled in afterwards.

use bytes::{BufMut, BytesMut};

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
