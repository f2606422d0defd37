//! PostgreSQL's md5 exchange: `"md5" || hex(md5(hex(md5(password || user)) || salt))`.

use md5::{Digest, Md5};
use zeroize::Zeroizing;

use crate::secret::Md5Secret;

/// `md5` and 32 digits: what a client answers.
pub(crate) const RESPONSE_BYTES: usize = 35;

/// The answer of one who knows the secret.
pub(crate) fn response(secret: &Md5Secret, salt: [u8; 4]) -> Zeroizing<[u8; RESPONSE_BYTES]> {
    let digits = hex(&digest(&[secret.hex().as_slice(), &salt]));
    let mut response = Zeroizing::new([0; RESPONSE_BYTES]);
    let (prefix, rest) = response.split_at_mut(3);
    prefix.copy_from_slice(b"md5");
    rest.copy_from_slice(digits.as_slice());
    response
}

pub(crate) fn digest(parts: &[&[u8]]) -> [u8; 16] {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(part);
    }
    md5.finalize().into()
}

pub(crate) fn hex(digest: &[u8; 16]) -> Zeroizing<[u8; 32]> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = Zeroizing::new([0; 32]);
    for (pair, byte) in hex.chunks_exact_mut(2).zip(digest) {
        pair.copy_from_slice(&[
            DIGITS[usize::from(byte >> 4)],
            DIGITS[usize::from(byte & 15)],
        ]);
    }
    hex
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::md5_hash;
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Password;

    proptest! {
        #[test]
        fn response_is_that_of_postgres_clients(
            user in "[^\0]{0,10}", password in "[^\0]{0,10}", salt: [u8; 4]
        ) {
            let secret = Md5Secret::derive(&Password::new(password.as_bytes()).unwrap(), &user);
            let expected = md5_hash(user.as_bytes(), password.as_bytes(), salt);
            let response = response(&secret, salt);
            prop_assert_eq!(response.as_slice(), expected.as_bytes());
        }
    }
}
