//! SCRAM's keys, and the slow way from a password to them.

use std::fmt;
use std::num::NonZeroU32;

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;
use zeroize::Zeroizing;

use super::saslprep;
use crate::mock::ProcessKey;
use crate::secret::{Password, ScramSecret};

/// The length of a SHA-256 digest, and so of every key, proof and signature.
pub(crate) const KEY_BYTES: usize = 32;

/// A key, a proof or a signature: wiped when dropped, hidden from `Debug`, compared in constant
/// time.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    /// Takes the bytes of a key.
    pub fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// SCRAM's `HMAC(key, str)`, with the string in parts.
    pub(crate) fn hmac(&self, parts: &[&[u8]]) -> Self {
        hmac(self.0.as_slice(), parts)
    }

    /// SCRAM's `H(key)`.
    pub(crate) fn hash(&self) -> Self {
        Self::new(Sha256::digest(self.0.as_slice()).into())
    }

    pub(crate) fn xor(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for (byte, other) in result.0.iter_mut().zip(other.0.iter()) {
            *byte ^= other;
        }
        result
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Everything SCRAM derives from one password with one salt and one count.
///
/// Whoever has the client key can log in wherever the same secret is stored: this is what lets us
/// pass a client's proof on to PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Makes proofs.
    pub client_key: Key,
    /// What is stored of it, with the salt and the count.
    pub secret: ScramSecret,
}

impl Keys {
    /// The keys whose client key is this, if it fits the secret.
    pub fn of_client_key(client_key: [u8; KEY_BYTES], secret: ScramSecret) -> Option<Self> {
        let client_key = Key::new(client_key);
        let fits = client_key.hash() == secret.stored_key;
        fits.then_some(Self { client_key, secret })
    }
}

/// How often we are ready to hash a password.
///
/// The peer or a stored secret names the count, so it needs a limit: PostgreSQL itself allows up to
/// 2^31 - 1, minutes of a processor for one login. [`Iterations::MAX`] leaves room for the 600 000
/// that OWASP recommends and takes about a tenth of a second where SHA-256 is done in hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Iterations(NonZeroU32);

/// A count above [`Iterations::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("SCRAM iteration count {0} is too high (at most {max})", max = Iterations::MAX.0)]
pub struct TooManyIterations(pub NonZeroU32);

impl Iterations {
    /// The most that we compute for anybody.
    pub const MAX: Self = Self(NonZeroU32::new(1_000_000).unwrap());
    /// PostgreSQL's and PgBouncer's `scram_iterations` when nothing is configured.
    pub const DEFAULT: Self = Self(NonZeroU32::new(4096).unwrap());

    /// Takes a count within the limit.
    pub fn new(count: NonZeroU32) -> Result<Self, TooManyIterations> {
        if count > Self::MAX.0 {
            Err(TooManyIterations(count))
        } else {
            Ok(Self(count))
        }
    }

    /// The count.
    pub fn count(self) -> NonZeroU32 {
        self.0
    }
}

/// The slow computation of a SCRAM login, to be run on whatever thread can spare the time.
///
/// The same job always has the same result, and [`SaltedPasswordJob::fingerprint`] names the job
/// without the password, so results can be kept and found again. Keep those of unknown users' jobs
/// like any other (one cannot tell them apart anyway), or the time an answer takes will; since
/// anybody can make up user names, what is kept needs a limit.
#[derive(Clone)]
#[must_use = "the exchange waits for the keys"]
pub struct SaltedPasswordJob {
    password: Zeroizing<Vec<u8>>,
    salt: Vec<u8>,
    iterations: Iterations,
}

/// Names a [`SaltedPasswordJob`]; of no use to one who does not know the process key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; KEY_BYTES]);

impl SaltedPasswordJob {
    /// Prepares (SASLprep) the password.
    pub fn new(password: &Password, salt: Vec<u8>, iterations: Iterations) -> Self {
        Self {
            password: saslprep::prepare(password.expose()),
            salt,
            iterations,
        }
    }

    /// Does the work: `iterations` times two SHA-256 blocks.
    pub fn run(&self) -> Keys {
        let mut salted_password = Zeroizing::new([0; KEY_BYTES]);
        let count = self.iterations.count();
        pbkdf2::pbkdf2_hmac::<Sha256>(
            &self.password,
            &self.salt,
            count.get(),
            salted_password.as_mut_slice(),
        );
        let client_key = hmac(salted_password.as_slice(), &[b"Client Key"]);
        let secret = ScramSecret {
            iterations: count,
            salt: self.salt.clone(),
            stored_key: client_key.hash(),
            server_key: hmac(salted_password.as_slice(), &[b"Server Key"]),
        };
        Keys { client_key, secret }
    }

    /// A name for this job within this process.
    pub fn fingerprint(&self, process_key: &ProcessKey) -> Fingerprint {
        let count = self.iterations.count().get().to_be_bytes();
        let salt_bytes = (self.salt.len() as u64).to_be_bytes();
        let parts = [count.as_slice(), &salt_bytes, &self.salt, &self.password];
        Fingerprint(*process_key.derive("job", &parts).expose())
    }
}

impl fmt::Debug for SaltedPasswordJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SaltedPasswordJob({} iterations, ..)",
            self.iterations.count()
        )
    }
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    Key::new(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use postgres_protocol::password;
    use proptest::prelude::*;

    use super::*;
    use crate::secret::Secret;

    #[test]
    fn counts_beyond_the_limit_are_refused() {
        let count = |n| NonZeroU32::new(n).unwrap();
        assert!(Iterations::new(count(1_000_000)).is_ok());
        assert_eq!(
            Iterations::new(count(1_000_001)),
            Err(TooManyIterations(count(1_000_001)))
        );
    }

    #[test]
    fn fingerprints_tell_jobs_apart() {
        let key = ProcessKey::new([7; 32]);
        let name = |password: &str, salt: &[u8], count| {
            let password = Password::new(password).unwrap();
            let count = Iterations::new(NonZeroU32::new(count).unwrap()).unwrap();
            SaltedPasswordJob::new(&password, salt.to_vec(), count).fingerprint(&key)
        };
        let original = name("password", b"salt", 1);
        assert_eq!(original, name("password", b"salt", 1));
        assert_ne!(original, name("assword", b"saltp", 1));
        assert_ne!(original, name("password", b"salt", 2));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn keys_are_those_that_postgres_stores(password in "[ -~é\u{a0}\u{aa}\u{2168}]{1,12}") {
            let stored = Secret::parse(password::scram_sha_256(password.as_bytes()).as_bytes());
            let Ok(Secret::Scram(stored)) = stored else { panic!("not a SCRAM secret") };
            let count = Iterations::new(stored.iterations).unwrap();
            let password = Password::new(password).unwrap();
            let keys = SaltedPasswordJob::new(&password, stored.salt.clone(), count).run();
            prop_assert_eq!(keys.secret, stored);
        }
    }
}
