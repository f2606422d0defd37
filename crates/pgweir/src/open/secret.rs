//! What the pooler can log in with, and where it has that from.

use pgweir_auth::{Password, Secret, ServerSecret};

use crate::shared::{PoolHome, Rules, Shared, lock};

/// A secret with its source, in words.
pub(crate) struct Found {
    pub(crate) secret: ServerSecret,
    pub(crate) source: &'static str,
}

impl Found {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.secret, ServerSecret::Plain(password) if password.is_empty())
    }

    /// What it is, without telling it.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.secret {
            ServerSecret::Plain(_) if self.is_empty() => "no password",
            ServerSecret::Plain(_) => "a password",
            ServerSecret::Md5(_) => "an md5 hash, which serves md5 only",
            ServerSecret::Keys(_) => "SCRAM keys that a client's login has shown",
            ServerSecret::Scram(_) => {
                "a SCRAM verifier, which serves nothing until a client has logged in"
            }
        }
    }
}

/// The entry of the database, what a client has proven, the file.
pub(crate) fn find(shared: &Shared, home: &PoolHome, rules: &Rules) -> Found {
    let found = |secret: ServerSecret, source| Found { secret, source };
    let keys = &rules.database.keys;
    // The password of an entry is that of the user it forces upon clients.
    if keys.user.as_deref() == Some(&*home.name.user)
        && let Some(password) = &keys.password
        && let Ok(secret) = Secret::parse(password.expose().as_bytes())
    {
        return found(secret.into(), "the entry of the database");
    }
    if let Some(taught) = lock(&home.secret).clone() {
        return found(taught, "a client's login");
    }
    match shared.files().users.secret(&home.name.user) {
        Some(secret) => found(secret.clone().into(), "the auth_file"),
        None => {
            let nothing = Password::new("").expect("empty is short");
            found(ServerSecret::Plain(nothing), "nowhere")
        }
    }
}
