//! Which PostgreSQL the variables name, and in which image's words.

use std::collections::BTreeMap;

use super::FromEnvError;

/// Whose words are used: what is not said is as that image has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Family {
    /// edoburu/pgbouncer: `DATABASE_URL`, `DB_HOST`.
    Edoburu,
    /// bitnami/pgbouncer: `POSTGRESQL_HOST`.
    Bitnami,
    /// pgbouncer/pgbouncer: `DATABASES_HOST`.
    PgBouncer,
}

/// A line of `[databases]`, and a user who may be known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Target {
    /// The name that clients use.
    pub(super) entry: String,
    host: String,
    port: String,
    /// PostgreSQL's name of it, if that is another one.
    dbname: Option<String>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// Whether every client uses PostgreSQL as this user.
    forces_user: bool,
    /// Whether other users are looked up by this one.
    is_auth_user: bool,
}

const POSTGRES_PORT: &str = "5432";

impl Family {
    pub(super) fn defaults(self) -> Vec<(&'static str, String)> {
        let rows: &[(&str, &str)] = match self {
            Self::Edoburu => &[
                ("listen_addr", "*"),
                ("listen_port", "5432"),
                ("auth_type", "md5"),
                ("admin_users", "postgres"),
                ("ignore_startup_parameters", "extra_float_digits"),
            ],
            Self::Bitnami => &[
                ("listen_addr", "*"),
                ("listen_port", "6432"),
                ("auth_type", "md5"),
                ("max_client_conn", "120"),
                ("server_tls_sslmode", "disable"),
            ],
            // Not `any`: whoever reaches the port would be let in.
            Self::PgBouncer => &[
                ("listen_addr", "*"),
                ("listen_port", "6432"),
                ("auth_type", "md5"),
            ],
        };
        let rows = rows.iter();
        rows.map(|(key, value)| (*key, (*value).to_owned()))
            .collect()
    }
}

impl Target {
    /// The name, as it begins a line.
    pub(super) fn name(&self) -> String {
        let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*');
        match self.entry.chars().all(is_plain) {
            true => self.entry.clone(),
            false => format!("'{}'", self.entry),
        }
    }

    /// The line behind the name.
    pub(super) fn connection(&self) -> String {
        let mut parts = vec![("host", self.host.as_str()), ("port", self.port.as_str())];
        parts.extend(self.dbname.as_deref().map(|name| ("dbname", name)));
        if let Some(user) = &self.user {
            if self.forces_user {
                parts.push(("user", user));
                parts.extend(self.password.as_deref().map(|text| ("password", text)));
            } else if self.is_auth_user {
                parts.push(("auth_user", user));
            }
        }
        let parts = parts
            .iter()
            .map(|(key, value)| format!("{key}={}", quoted(value)));
        parts.collect::<Vec<_>>().join(" ")
    }
}

/// A value of a connect string.
fn quoted(value: &str) -> String {
    match value.contains([' ', '\'']) || value.is_empty() {
        true => format!("'{}'", value.replace('\'', "''")),
        false => value.to_owned(),
    }
}

/// Variables about a target.
const KNOWN: [&str; 24] = [
    "DATABASE_URL",
    "DATABASE_URLS",
    "DB_HOST",
    "DB_PORT",
    "DB_USER",
    "DB_PASSWORD",
    "DB_NAME",
    "DATABASES_HOST",
    "DATABASES_PORT",
    "DATABASES_USER",
    "DATABASES_PASSWORD",
    "DATABASES_DBNAME",
    "DATABASES_NAME",
    "POSTGRESQL_HOST",
    "POSTGRESQL_PORT",
    "POSTGRESQL_USERNAME",
    "POSTGRESQL_PASSWORD",
    "POSTGRESQL_DATABASE",
    "PGBOUNCER_DATABASE",
    "PGBOUNCER_SET_DATABASE_USER",
    "PGBOUNCER_SET_DATABASE_PASSWORD",
    "DB_PASSWORD_FILE",
    "DATABASES_PASSWORD_FILE",
    "POSTGRESQL_PASSWORD_FILE",
];

pub(super) fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// The family that the variables belong to, and where they lead.
pub(super) fn targets(
    variables: &BTreeMap<String, String>,
) -> Result<(Family, Vec<Target>), FromEnvError> {
    let get = |name: &str| {
        variables
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    };
    if let Some(urls) = get("DATABASE_URLS").or_else(|| get("DATABASE_URL")) {
        let targets = urls.split(',').map(of_url);
        return Ok((Family::Edoburu, targets.collect::<Result<_, _>>()?));
    }
    if let Some(host) = get("DB_HOST") {
        let target = Target {
            entry: get("DB_NAME").unwrap_or_else(|| "*".to_owned()),
            host,
            port: get("DB_PORT").unwrap_or_else(|| POSTGRES_PORT.to_owned()),
            user: get("DB_USER").or_else(|| Some("postgres".to_owned())),
            password: get("DB_PASSWORD"),
            is_auth_user: true,
            ..Target::default()
        };
        return Ok((Family::Edoburu, vec![target]));
    }
    if let Some(host) = get("DATABASES_HOST") {
        let dbname = get("DATABASES_DBNAME");
        let entry = get("DATABASES_NAME").or_else(|| dbname.clone());
        let target = Target {
            dbname: dbname.filter(|name| entry.as_ref() != Some(name)),
            entry: entry.unwrap_or_else(|| "*".to_owned()),
            host,
            port: get("DATABASES_PORT").unwrap_or_else(|| POSTGRES_PORT.to_owned()),
            user: get("DATABASES_USER"),
            password: get("DATABASES_PASSWORD"),
            forces_user: true,
            ..Target::default()
        };
        return Ok((Family::PgBouncer, vec![target]));
    }
    match variables.keys().any(|name| name.starts_with("POSTGRESQL_")) {
        true => Ok((Family::Bitnami, vec![of_bitnami(get)])),
        false => Err(FromEnvError::NoHost),
    }
}

fn of_bitnami(get: impl Fn(&str) -> Option<String>) -> Target {
    let or = |name: &str, default: &str| get(name).unwrap_or_else(|| default.to_owned());
    let entry = or("PGBOUNCER_DATABASE", "postgres");
    let dbname = Some(or("POSTGRESQL_DATABASE", "postgres"));
    let is_yes = |name: &str| {
        let value = get(name).unwrap_or_default().to_ascii_lowercase();
        matches!(value.as_str(), "yes" | "true" | "1")
    };
    Target {
        // The names of all databases are those of PostgreSQL.
        dbname: dbname.filter(|name| *name != entry && entry != "*"),
        entry,
        host: or("POSTGRESQL_HOST", "postgresql"),
        port: or("POSTGRESQL_PORT", POSTGRES_PORT),
        user: Some(or("POSTGRESQL_USERNAME", "postgres")),
        password: get("POSTGRESQL_PASSWORD"),
        forces_user: is_yes("PGBOUNCER_SET_DATABASE_USER"),
        ..Target::default()
    }
}

/// `postgres://user:password@host:port/database`. What stands behind a `?` is for drivers.
fn of_url(url: &str) -> Result<Target, FromEnvError> {
    // The password must not be shown.
    let wrong = || FromEnvError::Url("DATABASE_URL".to_owned());
    let url = url.trim();
    let (_, rest) = url
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "postgres" | "postgresql"))
        .ok_or_else(wrong)?;
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (who, place) = match place.rsplit_once('@') {
        Some((who, place)) => (Some(who), place),
        None => (None, place),
    };
    let (host, port) = host_and_port(place);
    let decode = |text: &str| decoded(text).ok_or_else(wrong);
    let (user, password) = match who.map(|who| who.split_once(':').unwrap_or((who, ""))) {
        Some((user, "")) => (Some(decode(user)?), None),
        Some((user, password)) => (Some(decode(user)?), Some(decode(password)?)),
        None => (None, None),
    };
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(Target {
        entry: match database {
            "" => "*".to_owned(),
            name => decode(name)?,
        },
        host: decode(host)?,
        port: port.unwrap_or(POSTGRES_PORT).to_owned(),
        user: user.or_else(|| Some("postgres".to_owned())),
        password,
        is_auth_user: true,
        ..Target::default()
    })
}

/// An IPv6 address stands in brackets.
fn host_and_port(place: &str) -> (&str, Option<&str>) {
    if let Some((host, after)) = place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        return (
            host,
            after.strip_prefix(':').filter(|port| !port.is_empty()),
        );
    }
    match place.rsplit_once(':') {
        Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
        None => (place, None),
    }
}

/// A part of a URL without its percent signs; nothing if what follows one is no byte, or no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after
            .get(..2)
            .filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains(['\n', '\r', '\0'])).then_some(text)
}
