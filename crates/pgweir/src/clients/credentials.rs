//! Secrets: the query that finds them, the keys derived from them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use pgweir_auth::hba::Method;
use pgweir_auth::{Fingerprint, Keys, Nonce, ProcessKey, SaltedPasswordJob, Secret};
use pgweir_config::{AuthType, CONSOLE_DATABASE, Config, PoolSettings};
use pgweir_session::{Gather, Rules};
use pgweir_wire::tag::{backend, frontend as tag};
use pgweir_wire::{ErrorFields, HEADER_LEN, Header, Reader};
use tokio::time::timeout;

use crate::clients::client::{Client, Lease};
use crate::clients::farewell::Farewell;
use crate::servers::close::{self, Busy};
use crate::servers::{ask, pools};
use crate::shared::{Shared, lock};

/// Keys that were derived from passwords, so that nobody waits for the same hashing twice.
#[derive(Debug, Default)]
pub(crate) struct DerivedKeys {
    known: Mutex<HashMap<Fingerprint, Keys>>,
}

impl DerivedKeys {
    fn find(&self, fingerprint: &Fingerprint) -> Option<Keys> {
        lock(&self.known).get(fingerprint).cloned()
    }

    fn keep(&self, fingerprint: Fingerprint, keys: Keys) {
        let mut known = lock(&self.known);
        if known.len() >= DERIVED_KEYS_MAX {
            known.clear();
        }
        known.insert(fingerprint, keys);
    }

    /// Runs those jobs of which nothing is known yet.
    fn work_off(&self, jobs: Vec<SaltedPasswordJob>, process_key: &ProcessKey) {
        for job in jobs {
            let fingerprint = job.fingerprint(process_key);
            if self.find(&fingerprint).is_none() {
                self.keep(fingerprint, job.run());
            }
        }
    }
}

/// As many as users may log in between two sweeps; the map is emptied when it is full.
const DERIVED_KEYS_MAX: usize = 10_000;

/// Runs SCRAM's hashing on a thread that may be busy, unless the result is known.
pub(crate) async fn derive(shared: &Arc<Shared>, job: SaltedPasswordJob) -> Keys {
    let fingerprint = job.fingerprint(&shared.process_key);
    if let Some(keys) = shared.derived_keys.find(&fingerprint) {
        return keys;
    }
    let hashing = tokio::task::spawn_blocking(move || job.run());
    let keys = hashing
        .await
        .expect("hashing does not panic, and the runtime outlives logins");
    shared.derived_keys.keep(fingerprint, keys.clone());
    keys
}

/// Hashes the plain passwords of the `auth_file` on a thread of its own, if clients are asked by SCRAM: that the first
/// answer takes longer than an unknown user's would say who is known.
pub(crate) fn derive_ahead(shared: &Shared) {
    let (files, policy) = (shared.files(), shared.auth_policy());
    let asks = match shared.config().global.auth_type {
        AuthType::ScramSha256 => true,
        AuthType::Hba => {
            let mut rules = files.hba.rules.iter();
            rules.any(|rule| rule.method == Method::ScramSha256)
        }
        AuthType::Any
        | AuthType::Trust
        | AuthType::Plain
        | AuthType::Md5
        | AuthType::Cert
        | AuthType::Ldap
        | AuthType::Pam => false,
    };
    if !asks {
        return;
    }
    let jobs = files.users.iter().flat_map(|(user, secret)| {
        let (_, second) = files.users.secrets(user);
        policy.jobs(user, secret, second)
    });
    // Logins leave room for others.
    let jobs: Vec<_> = jobs.take(DERIVED_KEYS_MAX / 2).collect();
    if jobs.is_empty() {
        return;
    }
    let keys = Arc::clone(&shared.derived_keys);
    let thread = thread::Builder::new().name("pgweir-keys".to_owned());
    let started = thread.spawn(move || keys.work_off(jobs, &policy.process_key));
    if let Err(error) = started {
        // The first login of each does it, then.
        tracing::warn!("cannot start a thread: {error}");
    }
}

/// Random bytes that nobody can guess: the thread's generator is seeded by the operating system, which a login
/// then need not call.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    rand::random()
}

/// Fresh random bytes for one SCRAM exchange.
pub(crate) fn nonce() -> Nonce {
    Nonce(random())
}

/// What holds for a login to a database or to the console. `None`: there is no such database.
pub(crate) fn settings(config: &Config, database: &str, user: &str) -> Option<PoolSettings> {
    match database == CONSOLE_DATABASE {
        true => Some(config.resolve_console()),
        false => config.resolve(database, user),
    }
}

/// Looks a user up by `auth_query` as `auth_user`: its name, which need not be the one that was asked
/// for, and its secret. `None`: there is no such user.
pub(crate) async fn query(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    database: &str,
    user: &str,
) -> Result<Option<(String, Secret)>, Farewell> {
    let Some(settings) = settings(&shared.config(), database, user) else {
        return Err(Farewell::NoDatabase(database.into()));
    };
    let auth_database = settings.auth_dbname.as_deref().unwrap_or(database);
    if auth_database == CONSOLE_DATABASE {
        tracing::error!(
            peer = %client,
            "cannot use the reserved \"{CONSOLE_DATABASE}\" database as an auth_dbname"
        );
        return Err(Farewell::Configuration);
    }
    let auth_user = settings.auth_user.as_deref().unwrap_or_default();
    // Whoever the entry forces upon its clients, this is done as `auth_user`.
    let Ok(home) = shared.pool(auth_database, auth_user) else {
        tracing::error!(
            peer = %client,
            "authentication database \"{auth_database}\" is not configured"
        );
        return Err(Farewell::Configuration);
    };
    if shared.operator.is_disabled(auth_database) {
        return Err(Farewell::AuthDatabaseDisabled(auth_database.to_owned()));
    }
    let lease = pools::acquire(shared, client, &home).await?;
    // In a task of its own: a login that runs out of time must not take the server with it.
    let (shared, sql, user) = (Arc::clone(shared), settings.auth_query, user.to_owned());
    let lookup = tokio::spawn(async move { look_up_and_return(&shared, lease, &sql, &user).await });
    match lookup.await {
        Ok(Ok(row)) => Ok(row),
        Ok(Err(reason)) => {
            tracing::error!(peer = %client, "error in auth_query: {reason}");
            Err(Farewell::Configuration)
        }
        Err(_) => Err(Farewell::Configuration),
    }
}

async fn look_up_and_return(
    shared: &Arc<Shared>,
    mut lease: Lease,
    sql: &str,
    user: &str,
) -> Result<Option<(String, Secret)>, String> {
    // Nobody waits for longer.
    let patience = shared.config().global.client_login_timeout.limit();
    let looking = look_up(shared, &mut lease, sql, user);
    let (result, why) = match timeout(patience.unwrap_or(Duration::MAX), looking).await {
        Ok(result) => (result, "error response from auth_query"),
        Err(_) => (
            Err("no answer within client_login_timeout".to_owned()),
            "auth_query took longer than client_login_timeout",
        ),
    };
    if result.is_ok() {
        pools::checkin(shared, lease.slot, lease.server, Instant::now());
    } else {
        close::give_up(shared, lease.slot, lease.server, why, Busy::Yes);
    }
    result
}

/// A secret that nothing matches: the user is there but may not log in (VALID UNTIL has passed).
fn impossible() -> Secret {
    let hex: String = random::<16>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Secret::parse(format!("md5{hex}").as_bytes()).expect("the form of an md5 secret")
}

/// Runs the query. `None` is no row.
async fn look_up(
    shared: &Arc<Shared>,
    lease: &mut Lease,
    sql: &str,
    user: &str,
) -> Result<Option<(String, Secret)>, String> {
    let request = lookup_messages(sql, user);
    let rules = Rules::plain(&shared.tracked, &shared.statements);
    let (mut to_server, mut to_client) = (Gather::default(), BytesMut::new());
    let server = &mut lease.server;
    let mut nobody = ask::as_nobody(server, &rules).await?;
    server
        .relay
        .from_client(
            &request,
            &mut nobody,
            &rules,
            &mut to_server,
            &mut to_client,
        )
        .map_err(|violation| violation.to_string())?;
    server.line.queue(to_server.bytes(&request));
    let reply = ask::until_quiet(server, &mut nobody, &rules).await?;
    read_row(&reply)
}

/// Parse, Bind, Execute and Sync with the user's name as `$1`.
fn lookup_messages(sql: &str, user: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, tag::PARSE, |body| {
        body.push(0);
        body.extend_from_slice(sql.as_bytes());
        body.extend_from_slice(b"\0\0\0");
    });
    frame(&mut out, tag::BIND, |body| {
        body.extend_from_slice(b"\0\0\0\0\0\x01");
        body.put_i32(i32::try_from(user.len()).unwrap_or(0));
        body.extend_from_slice(user.as_bytes());
        body.extend_from_slice(b"\0\0");
    });
    frame(&mut out, tag::DESCRIBE, |body| {
        body.extend_from_slice(b"P\0")
    });
    frame(&mut out, tag::EXECUTE, |body| {
        body.extend_from_slice(b"\0\0\0\0\0")
    });
    frame(&mut out, tag::SYNC, |_| ());
    out
}

fn frame(out: &mut Vec<u8>, tag: u8, body: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn read_row(mut reply: &[u8]) -> Result<Option<(String, Secret)>, String> {
    let mut row = None;
    while let Ok(Some((header, body))) = Header::whole(reply, u32::MAX) {
        match header.tag {
            backend::ERROR_RESPONSE => {
                return Err(String::from_utf8_lossy(ErrorFields::parse(body).message).into_owned());
            }
            backend::DATA_ROW => row = Some(user_and_secret(body)?),
            _ => {}
        }
        reply = &reply[HEADER_LEN + body.len()..];
    }
    Ok(row)
}

fn user_and_secret(body: &[u8]) -> Result<(String, Secret), String> {
    let broken = |_| "broken row from auth_query".to_owned();
    let mut reader = Reader::new(body);
    let columns = reader.i16().map_err(broken)?;
    if columns != 2 {
        return Err(format!("expected 2 columns from auth_query, not {columns}"));
    }
    let mut column = || -> Result<Option<&[u8]>, String> {
        let len = reader.i32().map_err(broken)?;
        match usize::try_from(len) {
            Ok(len) => reader.bytes(len).map(Some).map_err(broken),
            Err(_) => Ok(None),
        }
    };
    let user = column()?.ok_or("auth_query response contained null user name")?;
    let user = String::from_utf8_lossy(user).into_owned();
    // NULL is none, and nothing matches a password that is too long to be one.
    let secret = column()?.and_then(|text| Secret::parse(text).ok());
    Ok((user, secret.unwrap_or_else(impossible)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgweir_auth::{Iterations, Password};

    #[test]
    fn what_was_hashed_ahead_is_there_for_the_login() {
        let (keys, process_key) = (DerivedKeys::default(), ProcessKey::new([7; 32]));
        let password = Password::new("correct horse").expect("it is short");
        let job = SaltedPasswordJob::new(&password, b"salt".to_vec(), Iterations::DEFAULT);
        let fingerprint = job.fingerprint(&process_key);
        assert_eq!(keys.find(&fingerprint), None);
        keys.work_off(vec![job.clone()], &process_key);
        assert_eq!(keys.find(&fingerprint), Some(job.run()));
    }
}
