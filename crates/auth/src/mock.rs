//! Secrets made up from a key of this process: salts for plain passwords, and whole secrets for
//! users that do not exist.
//!
//! An unknown user is asked through the same code as a known one, with a secret that nobody can
//! know. Everything is derived from the user's name, so the same name always meets the same salt,
//! as it would if the user existed.

use std::fmt;

use crate::scram::keys::{Iterations, Key};
use crate::secret::{Md5Secret, Password, ScramSecret, Secret, SecretKind};

/// PostgreSQL's length of a salt.
const SALT_BYTES: usize = 16;

/// Random bytes drawn once when the process starts.
#[derive(Clone)]
pub struct ProcessKey(Key);

impl ProcessKey {
    /// Takes random bytes; they must be unpredictable.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Key::new(bytes))
    }

    /// The salt under which this user's plain password is offered by SCRAM.
    pub(crate) fn salt(&self, user: &str) -> Vec<u8> {
        let key = self.derive("salt", &[user.as_bytes()]);
        let (salt, _) = key.expose().split_at(SALT_BYTES);
        salt.to_vec()
    }

    /// A secret for a user that has none. Nobody can know its password.
    pub(crate) fn secret(&self, user: &str, kind: SecretKind, iterations: Iterations) -> Secret {
        let password = || unguessable_password(&self.derive("password", &[user.as_bytes()]));
        match kind {
            SecretKind::Plain => Secret::Plain(password()),
            SecretKind::Md5 => Secret::Md5(Md5Secret::derive(&password(), user)),
            SecretKind::Scram => Secret::Scram(self.scram_secret(user, iterations)),
        }
    }

    /// The same, for SCRAM.
    pub(crate) fn scram_secret(&self, user: &str, iterations: Iterations) -> ScramSecret {
        ScramSecret {
            iterations: iterations.count(),
            salt: self.salt(user),
            stored_key: self.derive("stored key", &[user.as_bytes()]),
            server_key: self.derive("server key", &[user.as_bytes()]),
        }
    }

    /// The purpose keeps what is derived for one thing from being any use for another.
    pub(crate) fn derive(&self, purpose: &str, parts: &[&[u8]]) -> Key {
        let mut all = vec![purpose.as_bytes(), b"\0"];
        all.extend(parts);
        self.0.hmac(&all)
    }
}

impl fmt::Debug for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProcessKey(..)")
    }
}

fn unguessable_password(key: &Key) -> Password {
    let text = crate::scram::base64::encode(key.expose());
    Password::new(text).expect("base64 is short and has no zero byte")
}
