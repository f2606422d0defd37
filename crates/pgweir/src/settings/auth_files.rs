//! The files that say who users are and how they prove it.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pgweir_auth::hba::{Hba, Method};
use pgweir_auth::ident::IdentMaps;
use pgweir_auth::userlist::UserList;
use pgweir_auth::{Secret, SecretKind};
use pgweir_config::{Settings, Severity};
use pgweir_net::os_text;

use crate::clients::ldap::Ldap;
use crate::clients::{credentials, pam};
use crate::settings::file_mark::FileMark;
use crate::settings::reload;
use crate::shared::{Shared, lock, write};

/// What `auth_file`, `auth_hba_file`, `auth_ident_file` and `auth_ldap_options` say.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuthFiles {
    pub(crate) users: UserList,
    pub(crate) hba: Hba,
    pub(crate) ident: IdentMaps,
    pub(crate) ldap: Arc<Ldap>,
    /// Which auth_file that was.
    pub(crate) seen: Option<FileMark>,
}

/// What is wrong with files.
type Problems = Vec<(Severity, String)>;

impl AuthFiles {
    /// Reads the files and logs what is wrong with them.
    pub(crate) fn load(settings: &Settings, kept: &Self) -> Self {
        let (files, problems) = Self::read(settings, kept);
        log(problems);
        files
    }

    /// Reads the users alone: rules are put in force by a RELOAD.
    pub(crate) fn load_users(settings: &Settings, kept: &Self) -> (UserList, Option<FileMark>) {
        let mut problems = Vec::new();
        let read = read_users(settings, kept, &mut problems);
        log(problems);
        read
    }

    /// Reads the files, and says what is wrong with them. A broken file must not keep those out who
    /// stand in the others.
    pub(crate) fn read(settings: &Settings, kept: &Self) -> (Self, Problems) {
        let mut files = Self::default();
        let mut problems = Vec::new();
        (files.users, files.seen) = read_users(settings, kept, &mut problems);
        let path = settings.auth_ident_file.as_deref().unwrap_or_default();
        let what = "ident config file";
        files.ident = content(path, what, &kept.ident, &mut problems, |text| {
            let (ident, found) = IdentMaps::parse(&String::from_utf8_lossy(text));
            (ident, Severity::Warning, found)
        });
        let path = &settings.auth_hba_file;
        let what = "hba config file";
        files.hba = content(path, what, &kept.hba, &mut problems, |text| {
            let text = String::from_utf8_lossy(text);
            let (hba, found) = Hba::parse(&text, Path::new(path), &files.ident, &mut reload::read);
            (hba, Severity::Warning, found)
        });
        let told = files.without_pam().map(|text| format!("{path}: {text}"));
        problems.extend(told.map(|text| (Severity::Warning, text)));
        let (ldap, found) = Ldap::read(settings.auth_ldap_options.as_deref(), &files.hba);
        files.ldap = Arc::new(ldap);
        problems.extend(found.into_iter().map(|text| (Severity::Error, text)));
        (files, problems)
    }

    /// Rules that nobody can pass because this build lacks PAM.
    fn without_pam(&self) -> impl Iterator<Item = String> {
        pam::NOT_BUILT.into_iter().flat_map(|reason| {
            let rules = self
                .hba
                .rules
                .iter()
                .filter(|rule| rule.method == Method::Pam);
            rules.map(move |rule| {
                let line = rule.line;
                format!("hba line {line}: {reason}; no login by this line can succeed")
            })
        })
    }

    /// The kind of secret that most users have: an unknown user is treated as if it had one.
    pub(crate) fn commonest_kind(&self) -> SecretKind {
        let count = |kind| {
            self.users
                .iter()
                .filter(|(_, secret)| secret.kind() == kind)
                .count()
        };
        let scram = count(SecretKind::Scram);
        if scram > count(SecretKind::Md5) + count(SecretKind::Plain) {
            SecretKind::Scram
        } else {
            SecretKind::Md5
        }
    }
}

/// The mark of the auth_file as it is now.
fn mark(settings: &Settings) -> Option<FileMark> {
    FileMark::of(settings.auth_file.as_deref()?)
}

fn log(problems: Problems) {
    for (severity, text) in problems {
        match severity {
            Severity::Warning => tracing::warn!("{text}"),
            Severity::Error => tracing::error!("{text}"),
        }
    }
}

fn read_users(
    settings: &Settings,
    kept: &AuthFiles,
    problems: &mut Problems,
) -> (UserList, Option<FileMark>) {
    // It may change while it is read: then it is read again.
    let seen = mark(settings);
    let path = settings.auth_file.as_deref().unwrap_or_default();
    let users = content(path, "auth_file", &kept.users, problems, |text| {
        let (users, problem) = UserList::parse(text);
        (users, Severity::Error, problem)
    });
    (users, seen)
}

/// What a file says; nothing, if none is named. Of one that cannot be opened, what it said before
/// counts on.
fn content<T: Clone + Default, P: IntoIterator<Item: Display>>(
    path: &str,
    what: &str,
    kept: &T,
    problems: &mut Problems,
    parse: impl FnOnce(&[u8]) -> (T, Severity, P),
) -> T {
    if path.is_empty() {
        return T::default();
    }
    match fs::read(path) {
        Ok(text) => {
            let (content, severity, found) = parse(&text);
            let told = found
                .into_iter()
                .map(|problem| format!("{path}: {problem}"));
            problems.extend(told.map(|text| (severity, text)));
            content
        }
        Err(error) => {
            let text = format!("could not open {what} {path}: {}", os_text(&error));
            problems.push((Severity::Error, text));
            kept.clone()
        }
    }
}

/// Where the auth_file says something new of a user, that counts: what a client has proven before is
/// forgotten, unless it still is the only thing that serves, and servers are tried again at once.
fn forget_replaced(shared: &Shared, old: &AuthFiles, new: &AuthFiles) {
    for home in shared.homes().into_values() {
        let user = &home.name.user;
        let of = |files: &'_ AuthFiles| {
            let (first, second) = files.users.secrets(user);
            (first.cloned(), second.cloned())
        };
        let (before, now) = (of(old), of(new));
        if before == now {
            continue;
        }
        let serves =
            |secret: &Option<Secret>| matches!(secret, Some(Secret::Plain(_) | Secret::Md5(_)));
        if serves(&now.0) || serves(&now.1) {
            *lock(&home.secret) = None;
        }
        shared.pools().try_again(home.id);
    }
}

/// Reads the users again if the auth_file has changed.
pub(crate) fn follow(shared: &Shared) {
    let config = shared.config();
    let old = shared.files();
    if mark(&config.global) != old.seen {
        let (users, seen) = AuthFiles::load_users(&config.global, &old);
        put_in_force(shared, |current| AuthFiles {
            users,
            seen,
            ..current.clone()
        });
    }
}

/// The same, unless somebody may still be writing it.
pub(crate) fn follow_when_settled(shared: &Shared) {
    let mark = mark(&shared.config().global);
    if mark.is_none_or(|mark| !mark.is_fresh()) {
        follow(shared);
    }
}

/// Reads the files with users and rules again.
pub(crate) fn read_again(shared: &Shared) {
    let new = AuthFiles::load(&shared.config().global, &shared.files());
    put_in_force(shared, |_| new);
}

fn put_in_force(shared: &Shared, renew: impl FnOnce(&AuthFiles) -> AuthFiles) {
    let (old, new) = {
        let mut current = write(&shared.files);
        let new = Arc::new(renew(&current));
        (std::mem::replace(&mut *current, Arc::clone(&new)), new)
    };
    forget_replaced(shared, &old, &new);
    credentials::derive_ahead(shared);
}
