//! Secrets as PostgreSQL and `auth_file` store them: plain text, md5 or SCRAM-SHA-256.
//!
//! Every type here hides its content from `Debug`, is wiped when dropped, and compares in constant
//! time. The only way back to text is [`Secret::expose`].

use std::fmt;
use std::num::NonZeroU32;

use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::md5;
use crate::scram::base64;
use crate::scram::keys::{Iterations, Key, SaltedPasswordJob};

/// A password in plain text, as bytes: PostgreSQL does not ask for UTF-8.
#[derive(Clone)]
pub struct Password(Zeroizing<Vec<u8>>);

/// Why bytes cannot be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadPassword {
    /// PgBouncer's limit, which its clients and its configuration files share.
    #[error("password of {0} bytes is too long (at most {max} bytes)", max = Password::MAX_BYTES)]
    TooLong(usize),
    /// The protocol ends a password at its first zero byte.
    #[error("password contains a zero byte")]
    ContainsZero,
}

impl Password {
    /// The longest password, and the longest stored secret of any kind.
    pub const MAX_BYTES: usize = 65_530;

    /// Takes bytes that could be sent as a password. Empty ones can.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, BadPassword> {
        let bytes = Zeroizing::new(bytes.into());
        if bytes.len() > Self::MAX_BYTES {
            return Err(BadPassword::TooLong(bytes.len()));
        }
        if bytes.contains(&0) {
            return Err(BadPassword::ContainsZero);
        }
        Ok(Self(bytes))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is no password at all; such a one never lets anybody in.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Password {}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// What is known about a user's password.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The password itself.
    Plain(Password),
    /// `md5(password || user)`.
    Md5(Md5Secret),
    /// What SCRAM-SHA-256 stores.
    Scram(ScramSecret),
}

/// The three kinds of [`Secret`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// The password itself.
    Plain,
    /// `md5(password || user)`.
    Md5,
    /// What SCRAM-SHA-256 stores.
    Scram,
}

impl Secret {
    /// Reads what `pg_authid.rolpassword` or an `auth_file` holds.
    ///
    /// As in PostgreSQL, whatever is not exactly of the md5 or SCRAM form is a plain password.
    pub fn parse(text: &[u8]) -> Result<Self, BadPassword> {
        if let Some(md5) = Md5Secret::parse(text) {
            return Ok(Self::Md5(md5));
        }
        // The limit holds for every kind, so that a huge salt cannot slip in.
        let plain = Password::new(text)?;
        Ok(ScramSecret::parse(text).map_or(Self::Plain(plain), Self::Scram))
    }

    /// The text that [`Secret::parse`] would read as this secret.
    pub fn expose(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Plain(password) => password.0.clone(),
            Self::Md5(md5) => Zeroizing::new([b"md5", md5.hex().as_slice()].concat()),
            Self::Scram(scram) => Zeroizing::new(scram.expose().into_bytes()),
        }
    }

    /// Whether this is the password behind it. An empty one never is. For a SCRAM secret it takes
    /// milliseconds, so that guessing takes long.
    pub fn is_of(&self, given: &Password, user: &str) -> bool {
        if given.is_empty() {
            return false;
        }
        match self {
            Self::Plain(stored) => stored == given,
            Self::Md5(stored) => *stored == Md5Secret::derive(given, user),
            Self::Scram(stored) => Iterations::new(stored.iterations).is_ok_and(|iterations| {
                let job = SaltedPasswordJob::new(given, stored.salt.clone(), iterations);
                job.run().secret == *stored
            }),
        }
    }

    /// Whether it is an empty password, which never lets anybody in.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Plain(password) if password.is_empty())
    }

    /// Which of the three it is.
    pub fn kind(&self) -> SecretKind {
        match self {
            Self::Plain(_) => SecretKind::Plain,
            Self::Md5(_) => SecretKind::Md5,
            Self::Scram(_) => SecretKind::Scram,
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret::{:?}(..)", self.kind())
    }
}

/// `md5(password || user)`.
#[derive(Clone)]
pub struct Md5Secret(Zeroizing<[u8; 16]>);

impl Md5Secret {
    /// The secret of this user with this password.
    pub fn derive(password: &Password, user: &str) -> Self {
        Self(Zeroizing::new(md5::digest(&[
            password.expose(),
            user.as_bytes(),
        ])))
    }

    /// PostgreSQL writes lower case digits only and takes anything else for a plain password.
    fn parse(text: &[u8]) -> Option<Self> {
        let digits: &[u8; 32] = text.strip_prefix(b"md5")?.try_into().ok()?;
        let mut digest = Zeroizing::new([0; 16]);
        for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
            for digit in pair {
                let value = match digit {
                    b'0'..=b'9' => digit - b'0',
                    b'a'..=b'f' => digit - b'a' + 10,
                    _ => return None,
                };
                *byte = *byte << 4 | value;
            }
        }
        Some(Self(digest))
    }

    pub(crate) fn hex(&self) -> Zeroizing<[u8; 32]> {
        md5::hex(&self.0)
    }
}

impl PartialEq for Md5Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Md5Secret {}

impl fmt::Debug for Md5Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Md5Secret(..)")
    }
}

/// What SCRAM-SHA-256 stores: enough to check a client, not enough to be one.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramSecret {
    /// How often the password was hashed.
    pub iterations: NonZeroU32,
    /// Mixed into the hash.
    pub salt: Vec<u8>,
    /// Checks the client's proof.
    pub stored_key: Key,
    /// Proves to the client that we know its secret.
    pub server_key: Key,
}

impl ScramSecret {
    /// PostgreSQL keeps the count in a signed integer.
    const MAX_ITERATIONS: u32 = i32::MAX as u32;

    /// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (iterations, rest) = text.strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        let salt = base64::decode(salt.as_bytes())?;
        // A sign or a blank in front would pass `parse` or C's strtol, but nothing writes them.
        let decimal = iterations.bytes().all(|b| b.is_ascii_digit());
        let iterations = NonZeroU32::new(iterations.parse().ok()?)?;
        if !decimal || iterations.get() > Self::MAX_ITERATIONS || salt.is_empty() {
            return None;
        }
        Some(Self {
            iterations,
            salt,
            stored_key: base64::decode_key(stored_key.as_bytes())?,
            server_key: base64::decode_key(server_key.as_bytes())?,
        })
    }

    fn expose(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            base64::encode(&self.salt),
            base64::encode(self.stored_key.expose()),
            base64::encode(self.server_key.expose()),
        )
    }
}

impl fmt::Debug for ScramSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use postgres_protocol::password;
    use proptest::prelude::*;

    use super::*;

    fn kind_of(text: &str) -> SecretKind {
        Secret::parse(text.as_bytes()).unwrap().kind()
    }

    #[test]
    fn reads_what_postgres_stores() {
        assert_eq!(kind_of(&password::md5(b"pw", "user")), SecretKind::Md5);
        assert_eq!(kind_of(&password::scram_sha_256(b"pw")), SecretKind::Scram);
        assert_eq!(kind_of("pw"), SecretKind::Plain);
    }

    #[test]
    fn md5_secret_is_postgres_own() {
        let derived = Md5Secret::derive(&Password::new("pw").unwrap(), "user");
        let stored = Secret::parse(password::md5(b"pw", "user").as_bytes()).unwrap();
        assert_eq!(Secret::Md5(derived), stored);
    }

    #[test]
    fn whatever_is_cut_short_or_malformed_is_a_plain_password() {
        for text in [
            "md5",
            "md5ABCDEFABCDEFABCDEFABCDEFABCDEFABC",
            "md5abcdefabcdefabcdefabcdefabcdefa",
            "SCRAM-SHA-256$4096:c2FsdA==$c2hvcnQ=:c2hvcnQ=",
            "SCRAM-SHA-256$0:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "SCRAM-SHA-256$+1:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
            "SCRAM-SHA-256$2147483648:c2FsdA==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        ] {
            assert_eq!(kind_of(text), SecretKind::Plain, "{text}");
        }
    }

    #[test]
    fn limits_hold_for_every_kind() {
        assert!(Secret::parse(&[b'x'; Password::MAX_BYTES]).is_ok());
        assert_eq!(
            Secret::parse(&[b'x'; Password::MAX_BYTES + 1]),
            Err(BadPassword::TooLong(Password::MAX_BYTES + 1))
        );
        assert_eq!(Secret::parse(b"a\0b"), Err(BadPassword::ContainsZero));
    }

    #[test]
    fn debug_shows_the_kind_only() {
        let text = "correct horse";
        assert_eq!(
            format!("{:?}", Secret::parse(text.as_bytes()).unwrap()),
            "Secret::Plain(..)"
        );
        let scram = Secret::parse(password::scram_sha_256(text.as_bytes()).as_bytes()).unwrap();
        assert_eq!(format!("{scram:?}"), "Secret::Scram(..)");
    }

    proptest! {
        #[test]
        fn parse_undoes_expose(text in prop::collection::vec(1u8.., 0..100)) {
            let exposed = Secret::parse(&text).unwrap().expose();
            prop_assert_eq!(exposed.as_slice(), text.as_slice());
        }

        #[test]
        fn stored_secrets_come_back_as_they_were(password in ".{1,20}") {
            for text in [password::md5(password.as_bytes(), "u"), password::scram_sha_256(password.as_bytes())] {
                let secret = Secret::parse(text.as_bytes()).unwrap();
                prop_assert_ne!(secret.kind(), SecretKind::Plain);
                let exposed = secret.expose();
                prop_assert_eq!(exposed.as_slice(), text.as_bytes());
            }
        }
    }
}
