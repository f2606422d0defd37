//! Which operating-system user the servers run as.

use std::{
    fs,
    os::unix::{fs::MetadataExt, fs::chown, process::CommandExt},
    path::Path,
    process::Command,
};

use crate::error::{Doing, Error};

/// The operating-system user that PostgreSQL and the pooler run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// The caller's own user.
    Own,
    /// Another user, because the caller is root.
    Unprivileged {
        /// Its user id.
        uid: u32,
        /// Its group id.
        gid: u32,
    },
}

impl Account {
    /// The caller's own user, or for root `postgres`, or else `nobody`.
    pub fn choose() -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| {
                Some(Self::Unprivileged {
                    uid: id("-u", name)?,
                    gid: id("-g", name)?,
                })
            })
            .ok_or(Error::NobodyToRunAs)
    }

    /// A command that runs as this user in `dir`, free of what the caller's environment says about PostgreSQL.
    ///
    /// For root, the standard library also drops the supplementary groups when it changes the user.
    pub fn command(self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(dir).env("LC_ALL", "C");
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_libpq_variable) {
                command.env_remove(name);
            }
        }
        match self {
            Self::Own => {}
            Self::Unprivileged { uid, gid } => {
                command.uid(uid).gid(gid).env("HOME", dir);
            }
        }
        command
    }

    /// Hands a file or directory made by the caller over to this user.
    pub(crate) fn give(self, path: &Path) -> Result<(), Error> {
        match self {
            Self::Own => Ok(()),
            Self::Unprivileged { uid, gid } => chown(path, Some(uid), Some(gid))
                .doing(|| format!("giving {} to user {uid}", path.display())),
        }
    }

    /// Whether root's other user can get at a file that everybody may read, that is, enter every folder above it.
    pub(crate) fn reaches(self, path: &Path) -> bool {
        match self {
            Self::Own => true,
            Self::Unprivileged { uid, .. } => path.ancestors().skip(1).all(|folder| {
                fs::metadata(folder).is_ok_and(|meta| {
                    let enter = if meta.uid() == uid { 0o100 } else { 0o001 };
                    meta.mode() & enter != 0
                })
            }),
        }
    }
}

/// libpq reads these and would connect somewhere else than told (PGHOST, PGSERVICE, PGOPTIONS and their like).
fn is_libpq_variable(name: &str) -> bool {
    name.starts_with("PG") && !name.starts_with("PGWEIR_")
}

/// Asks `id`, which unlike /etc/passwd also knows users from a directory service.
fn id(what: &str, user: &str) -> Option<u32> {
    let output = Command::new("id").args([what, user]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_chooses_root() {
        match Account::choose() {
            Ok(Account::Own) => assert!(!rustix::process::geteuid().is_root()),
            Ok(Account::Unprivileged { uid, .. }) => assert_ne!(uid, 0),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn knows_which_variables_mislead_libpq() {
        assert!(is_libpq_variable("PGHOST"));
        assert!(!is_libpq_variable("PGWEIR_BIN"));
        assert!(!is_libpq_variable("PATH"));
    }
}
