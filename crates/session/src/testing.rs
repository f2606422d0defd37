//! What the tests of several files share.

use pgweir_wire::put_frame;

/// A message.
pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_frame(&mut out, tag, &[body]).expect("tests speak briefly");
    out
}
