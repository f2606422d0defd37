//! What the pooler can log in with, where it has that from, and in which order it is tried.
//!
//! While a password is being changed there are two, and which of them PostgreSQL takes is only known when it has been asked.
//! So one attempt to open a server tries each secret that is known, and when PostgreSQL has refused
//! them, those that reading their sources once more brings.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use pgweir_auth::{
    Iterations, Keys, Md5Secret, Password, SaltedPasswordJob, ScramSecret, Secret, ServerSecret,
};
use pgweir_config::PasswordSource;

use super::source;
use crate::clients::credentials;
use crate::settings::auth_files;
use crate::shared::{PoolHome, Rules, Shared, lock};

/// A secret with its source, in words.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) secret: ServerSecret,
    pub(crate) source: String,
    /// Whether PostgreSQL may refuse it as "not authorized", because it asks somebody else: a token
    /// that has run out.
    pub(crate) is_token: bool,
    /// Whether it may be told to nobody but a server that has been verified: it is sent as it is.
    pub(crate) needs_verified: bool,
}

impl Found {
    fn new(secret: ServerSecret, source: &str) -> Self {
        Self {
            secret,
            source: source.to_owned(),
            is_token: false,
            needs_verified: false,
        }
    }

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

    /// Both in one phrase.
    pub(crate) fn described(&self) -> String {
        match self.is_empty() {
            true => self.kind().to_owned(),
            false => format!("{} from {}", self.kind(), self.source),
        }
    }
}

/// Everything that can be tried at a host, never nothing: the sources and the password of the database's entry;
/// else the source of the user's entry; else what a client has proven, and the file. What has worked
/// comes first. With `newer_than` a command runs again, unless it has since then.
///
/// # Errors
/// A source cannot be read, and there is nothing else.
pub(crate) async fn known(
    shared: &Shared,
    home: &PoolHome,
    rules: &Rules,
    host: &str,
    newer_than: Option<Instant>,
) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    let mut trouble = None;
    let mut add = |read: Result<Vec<Found>, String>| match read {
        Ok(read) => found.extend(read),
        Err(reason) => trouble = Some(reason),
    };
    let keys = &rules.database.keys;
    // The password of an entry is that of the user it forces upon clients.
    let is_forced = keys.user.as_deref() == Some(&*home.name.user);
    let of_user = rules.config.users.get(&*home.name.user);
    let of_user = of_user.and_then(|user| user.keys.password_from.as_ref());
    if is_forced && (keys.password.is_some() || keys.password_from.is_some()) {
        if let Some(place) = &keys.password_from {
            add(from_source(shared, home, host, place, newer_than).await);
        }
        let own = keys.password.as_ref();
        let own = own.and_then(|password| Secret::parse(password.expose().as_bytes()).ok());
        let own = own.map(|secret| Found::new(secret.into(), "the entry of the database"));
        add(Ok(own.into_iter().collect()));
    } else if let Some(place) = of_user {
        add(from_source(shared, home, host, place, newer_than).await);
    } else {
        add(Ok(taught_or_filed(shared, home)));
    }
    match (found.is_empty(), trouble) {
        (true, Some(reason)) => return Err(reason),
        (true, None) => {
            let nothing = Password::new("").expect("empty is short");
            found.push(Found::new(ServerSecret::Plain(nothing), "nowhere"));
        }
        (false, Some(reason)) => tracing::warn!("{reason}"),
        (false, None) => {}
    }
    let proven = lock(&home.proven_secret).clone();
    found.sort_by_key(|found| Some(&found.secret) != proven.as_ref());
    Ok(found)
}

async fn from_source(
    shared: &Shared,
    home: &PoolHome,
    host: &str,
    place: &PasswordSource,
    newer_than: Option<Instant>,
) -> Result<Vec<Found>, String> {
    let secrets = source::read(shared, home, host, place, newer_than).await?;
    let describe = |(number, secret): (usize, Secret)| Found {
        secret: secret.into(),
        source: match number {
            0 => place.to_string(),
            _ => format!("{place}, line {}", number + 1),
        },
        is_token: matches!(place, PasswordSource::Exec(_) | PasswordSource::Rds(_)),
        needs_verified: matches!(place, PasswordSource::Rds(_)),
    };
    Ok(secrets.into_iter().enumerate().map(describe).collect())
}

/// Keeps what a login has taught. Where clients prove themselves in several ways, some teach no more than what is
/// stored of a password whose keys, or which itself, others have shown: that stays.
pub(crate) async fn learn(shared: &Arc<Shared>, home: &PoolHome, taught: ServerSecret) {
    let known = lock(&home.secret).clone();
    let is_known = match &known {
        Some(known) => is_made_of(shared, &taught, known, &home.name.user).await,
        None => false,
    };
    if !is_known {
        *lock(&home.secret) = Some(taught);
    }
}

/// Whether `taught` is made of what is `known`, and so serves nothing that this does not.
async fn is_made_of(
    shared: &Arc<Shared>,
    taught: &ServerSecret,
    known: &ServerSecret,
    user: &str,
) -> bool {
    let stored = match taught {
        ServerSecret::Plain(_) => return false,
        ServerSecret::Md5(stored) => {
            let ServerSecret::Plain(password) = known else {
                return false;
            };
            return *stored == Md5Secret::derive(password, user);
        }
        ServerSecret::Keys(Keys { secret, .. }) | ServerSecret::Scram(secret) => secret,
    };
    match known {
        ServerSecret::Plain(password) => {
            let keys = keys_of(shared, password, stored).await;
            keys.is_some_and(|keys| keys.secret == *stored)
        }
        ServerSecret::Keys(keys) => keys.secret == *stored,
        ServerSecret::Md5(_) | ServerSecret::Scram(_) => false,
    }
}

/// The keys of a password, with the salt and the count of what is stored. They are kept, so that only the first asks
/// for the hashing.
async fn keys_of(shared: &Arc<Shared>, password: &Password, stored: &ScramSecret) -> Option<Keys> {
    let iterations = Iterations::new(stored.iterations).ok()?;
    let job = SaltedPasswordJob::new(password, stored.salt.clone(), iterations);
    Some(credentials::derive(shared, job).await)
}

/// What a client has proven, and the file.
fn taught_or_filed(shared: &Shared, home: &PoolHome) -> Vec<Found> {
    let files = shared.files();
    let user = &home.name.user;
    let taught = lock(&home.secret).clone();
    let taught = taught.map(|secret| Found::new(secret, "a client's login"));
    let (first, second) = files.users.secrets(user);
    let found = |secret: &Secret, place| Found::new(secret.clone().into(), place);
    let first = first.map(|secret| found(secret, "the auth_file"));
    let second = second.map(|secret| found(secret, "the auth_file (the second one)"));
    taught.into_iter().chain(first).chain(second).collect()
}

/// What one attempt to open a server tries.
pub(super) struct Tries {
    begun: Instant,
    tried: Vec<ServerSecret>,
    next: VecDeque<Found>,
    readings: u8,
}

impl Tries {
    /// How often the sources are read.
    const READINGS_MAX: u8 = 2;

    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            tried: Vec::new(),
            next: VecDeque::new(),
            readings: 0,
        }
    }

    /// The next secret that has not been tried.
    ///
    /// # Errors
    /// There is none because its source cannot be read.
    pub(super) async fn next(
        &mut self,
        shared: &Shared,
        home: &PoolHome,
        rules: &Rules,
        host: &str,
    ) -> Result<Option<Found>, String> {
        loop {
            if let Some(found) = self.next.pop_front() {
                if self.tried.contains(&found.secret) {
                    continue;
                }
                self.tried.push(found.secret.clone());
                return Ok(Some(found));
            }
            if self.readings == Self::READINGS_MAX {
                return Ok(None);
            }
            self.readings += 1;
            let is_again = self.readings > 1;
            if is_again {
                auth_files::follow(shared);
            }
            let newer_than = is_again.then_some(self.begun);
            self.next = known(shared, home, rules, host, newer_than).await?.into();
        }
    }
}
