//! `--from-env`: files written from the environment, as images of PgBouncer do it, before they are read.
//!
//! They are written once, where there are none: RELOAD, `-R` and operators' commands then find what
//! they find elsewhere.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use pgweir_config::from_env;

/// The name of the list of users, beside the configuration.
const USERLIST: &str = "userlist.txt";

/// What the name of a variable ends in, if it names a file with a password.
const OF_FILE: &str = "PASSWORD_FILE";

/// Writes the configuration file, and the list of users beside it, unless there is such a file.
///
/// # Errors
/// What to tell.
pub(crate) fn write(config: &str) -> Result<(), String> {
    let file = Path::new(config);
    if file.exists() {
        tracing::info!("{config} is there: the environment is not looked at");
        return Ok(());
    }
    if rustix::process::getuid().is_root() {
        return Err("--from-env writes files that only their owner can read: start it as the user that it shall run as".into());
    }
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let userlist = folder.unwrap_or(Path::new(".")).join(USERLIST);
    let made = from_env(&variables()?, &userlist.display().to_string());
    let made = made.map_err(|error| error.to_string())?;
    for name in &made.unknown {
        tracing::warn!("{name} means nothing here");
    }
    // The other one first: what is written is complete as soon as there is a configuration.
    write_new(&userlist, &made.userlist)?;
    write_new(file, &made.ini)?;
    tracing::info!("{config} was written from the environment");
    Ok(())
}

/// The environment, with passwords from the files that it names. What is no text is none of ours.
fn variables() -> Result<BTreeMap<String, String>, String> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let mut variables: BTreeMap<String, String> = std::env::vars_os().filter_map(text).collect();
    for stem in ["DB_", "DATABASES_", "POSTGRESQL_"] {
        if let Some(file) = variables.get(&format!("{stem}{OF_FILE}")) {
            let password = fs::read_to_string(file)
                .map_err(|error| format!("{stem}{OF_FILE}: {file}: {error}"))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            variables.insert(format!("{stem}PASSWORD"), password);
        }
    }
    Ok(variables)
}

/// Secrets are in both files, so nobody else may read them. A file that is there stays as it is.
fn write_new(path: &Path, text: &str) -> Result<(), String> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(0o600).open(path);
    let written = match opened {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    };
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))
}
