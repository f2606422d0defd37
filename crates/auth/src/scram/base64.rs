//! Base64 as PostgreSQL reads it: padding is needed, unused trailing bits may be anything.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::keys::{KEY_BYTES, Key};

const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

pub(crate) fn encode(bytes: &[u8]) -> String {
    ENGINE.encode(bytes)
}

pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    ENGINE.decode(text).ok()
}

/// Bytes of exactly the length of a SCRAM-SHA-256 key.
pub(crate) fn decode_key(text: &[u8]) -> Option<Key> {
    let bytes: [u8; KEY_BYTES] = decode(text)?.try_into().ok()?;
    Some(Key::new(bytes))
}
