//! A configuration from environment variables, as images of PgBouncer take it.
//!
//! Three families are understood, all of them on top of each other:
//!
//! - `DATABASE_URL` or `DATABASE_URLS`, or `DB_HOST` and its like; every key in capitals (edoburu/pgbouncer)
//! - `POSTGRESQL_HOST` and its like; every key in capitals behind `PGBOUNCER_` (bitnami/pgbouncer)
//! - `DATABASES_HOST` and its like; keys as above (pgbouncer/pgbouncer)
//!
//! What each image sets by itself, if nothing is said, is set here as well: its port, `auth_type`, and
//! so on. The result is PgBouncer's ini and a list of users; the reader of files says what is wrong
//! with their values.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::declare::Scope as _;
use crate::keys::Settings;

mod target;

use target::{Family, Target, targets};

/// What the variables mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromEnv {
    /// PgBouncer's ini.
    pub ini: String,
    /// The text of the file of users that it names; empty if none is known.
    pub userlist: String,
    /// Variables that look like ours and are not understood.
    pub unknown: Vec<String>,
}

/// Why variables make no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FromEnvError {
    /// No PostgreSQL is named.
    #[error(
        "no variable names a PostgreSQL: DATABASE_URL, DB_HOST, DATABASES_HOST or POSTGRESQL_HOST"
    )]
    NoHost,
    /// A URL that is none.
    #[error("{0} is not a URL like postgres://user:password@host:5432/database")]
    Url(String),
    /// A value that cannot stand in an ini.
    #[error("{0} has a line break")]
    LineBreak(String),
    /// A database that no entry can be called like.
    #[error("a database cannot be called {0}: quotes in names cannot be written")]
    Name(String),
}

/// Keys that are not taken from a variable of their bare name, because others use that name.
const NOT_BARE: [&str; 5] = ["user", "conffile", "job_name", "pidfile", "syslog"];

/// Variables of images that have no meaning here.
const WITHOUT_EFFECT: [&str; 5] = [
    "PGBOUNCER_INIT_SLEEP_TIME",
    "PGBOUNCER_INIT_MAX_RETRIES",
    "PGBOUNCER_EXTRA_ARGS",
    "PGBOUNCER_EXTRA_FLAGS",
    "PGBOUNCER_DAEMON_USER",
];

/// Makes a configuration of variables. The file of users will be in `userlist_path`.
///
/// # Errors
/// They name no PostgreSQL, or nothing that can be written.
pub fn from_env(
    variables: &BTreeMap<String, String>,
    userlist_path: &str,
) -> Result<FromEnv, FromEnvError> {
    for (name, value) in variables {
        if is_ours(name) && value.contains(['\n', '\r', '\0']) {
            return Err(FromEnvError::LineBreak(name.clone()));
        }
    }
    let (family, targets) = targets(variables)?;
    if let Some(target) = targets.iter().find(|target| target.entry.contains('\'')) {
        return Err(FromEnvError::Name(target.entry.clone()));
    }
    let keys = keys(variables, family, userlist_path);
    Ok(FromEnv {
        ini: write_ini(&targets, &keys),
        userlist: write_userlist(&targets),
        unknown: unknown(variables),
    })
}

/// Every key of the main section that is set, by name.
fn keys(
    variables: &BTreeMap<String, String>,
    family: Family,
    userlist_path: &str,
) -> BTreeMap<&'static str, String> {
    let mut keys: BTreeMap<_, _> = family.defaults().into_iter().collect();
    keys.insert("auth_file", userlist_path.to_owned());
    for key in Settings::KEYS {
        let capitals = key.name.to_ascii_uppercase();
        let bare = variables
            .get(&capitals)
            .filter(|_| !NOT_BARE.contains(&key.name));
        let prefixed = variables.get(&format!("PGBOUNCER_{capitals}"));
        let other_name = other_name(key.name).and_then(|name| variables.get(name));
        let value = prefixed.or(other_name).or(bare);
        if let Some(value) = value.filter(|value| !value.is_empty() && !is_kubernetes(value)) {
            keys.insert(key.name, value.clone());
        }
    }
    keys
}

/// What bitnami calls a key that has another name.
fn other_name(key: &str) -> Option<&'static str> {
    match key {
        "listen_port" => Some("PGBOUNCER_PORT"),
        "listen_addr" => Some("PGBOUNCER_BIND_ADDRESS"),
        "auth_file" => Some("PGBOUNCER_USERLIST_FILE"),
        _ => None,
    }
}

/// For a Service that is called pgbouncer, Kubernetes sets `PGBOUNCER_PORT=tcp://10.0.0.7:6432`.
fn is_kubernetes(value: &str) -> bool {
    value.starts_with("tcp://") || value.starts_with("udp://")
}

/// Whether its value may come into the files.
fn is_ours(name: &str) -> bool {
    let key = name.to_ascii_lowercase();
    let is_key = Settings::key(&key).is_some() && !NOT_BARE.contains(&key.as_str());
    is_key || name.starts_with("PGBOUNCER_") || target::is_known(name)
}

/// Variables that begin like ours, and mean nothing.
fn unknown(variables: &BTreeMap<String, String>) -> Vec<String> {
    let ours = variables.iter().filter_map(|(name, value)| {
        let key = name.strip_prefix("PGBOUNCER_")?;
        let is_of_service =
            is_kubernetes(value) || key.starts_with("SERVICE_") || key.starts_with("PORT_");
        (!is_of_service).then_some((name, key.to_ascii_lowercase()))
    });
    let ours = ours.filter(|(name, key)| {
        let has_name = Settings::KEYS
            .iter()
            .any(|row| other_name(row.name) == Some(name.as_str()));
        Settings::key(key).is_none()
            && !has_name
            && !target::is_known(name)
            && !WITHOUT_EFFECT.contains(&name.as_str())
    });
    ours.map(|(name, _)| name.clone()).collect()
}

fn write_ini(targets: &[Target], keys: &BTreeMap<&'static str, String>) -> String {
    let mut ini = String::from(
        "; Written by pgweir --from-env. It is not written again as long as it is there.\n[databases]\n",
    );
    for target in targets {
        let _ = writeln!(ini, "{} = {}", target.name(), target.connection());
    }
    ini.push_str("\n[pgbouncer]\n");
    for (key, value) in keys {
        let _ = writeln!(ini, "{key} = {value}");
    }
    ini
}

fn write_userlist(targets: &[Target]) -> String {
    let mut users: BTreeMap<&str, &str> = BTreeMap::new();
    for target in targets {
        if let (Some(user), Some(password)) = (&target.user, &target.password) {
            users.insert(user, password);
        }
    }
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let line =
        |(user, password): (&&str, &&str)| format!("{} {}\n", quoted(user), quoted(password));
    users.iter().map(line).collect()
}

#[cfg(test)]
mod tests;
