//! Reads passwords where the configuration says that they are: in a file, in the environment, or in
//! what a command writes; or makes a token ([`crate::servers::rds`]).
//!
//! A file is read for every new server, so nothing has to watch it. A command's answer is kept for
//! `password_exec_ttl`, and one of a pool runs at a time. Nothing of what it writes is logged, also
//! not of its errors: commands that are traced write secrets there.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use pgweir_auth::{Password, Secret};
use pgweir_config::PasswordSource;
use pgweir_net::os_text;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::shared::{PoolHome, Shared, lock};

/// More than two passwords with their line ends can be.
const BYTES_MAX: u64 = 2 * (Password::MAX_BYTES as u64 + 2);

/// Passwords that a source may have.
const LINES_MAX: usize = 2;

/// What a pool's command has written for each host, and the lane of those who run it.
#[derive(Debug)]
pub(crate) struct Kept {
    lane: Semaphore,
    answers: Mutex<Vec<Answer>>,
}

#[derive(Clone, Debug)]
struct Answer {
    command: String,
    host: String,
    at: Instant,
    secrets: Vec<Secret>,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            lane: Semaphore::new(1),
            answers: Mutex::default(),
        }
    }
}

/// The secrets that stand there, for a login at this host: one, and while a password is being changed another one.
///
/// # Errors
/// Why there are none; never a part of what was read.
pub(super) async fn read(
    shared: &Shared,
    home: &PoolHome,
    host: &str,
    place: &PasswordSource,
    newer_than: Option<Instant>,
) -> Result<Vec<Secret>, String> {
    let read = match place {
        PasswordSource::File(path) => read_file(path),
        PasswordSource::Env(name) => match std::env::var_os(name) {
            Some(value) => secrets(std::os::unix::ffi::OsStrExt::as_bytes(&*value)),
            None => Err("there is no such variable".to_owned()),
        },
        PasswordSource::Rds(region) => {
            let token = home.rds.token(home, host, region.as_deref()).await;
            token.map(|token| vec![token])
        }
        PasswordSource::Exec(command) => {
            read_command(shared, home, host, command, newer_than).await
        }
    };
    read.map_err(|reason| format!("no password can be read from {place}: {reason}"))
}

fn read_file(path: &str) -> Result<Vec<Secret>, String> {
    let mut text = Zeroizing::new(Vec::new());
    let file = std::fs::File::open(path);
    let read = file.and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
    read.map_err(|error| os_text(&error))?;
    secrets(&text)
}

/// The first lines that are not empty.
fn secrets(text: &[u8]) -> Result<Vec<Secret>, String> {
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let lines = lines.filter(|line| !line.is_empty()).take(LINES_MAX);
    let found: Result<Vec<_>, _> = lines.map(Secret::parse).collect();
    match found {
        Ok(found) if found.is_empty() => Err("it is empty".to_owned()),
        Ok(found) => Ok(found),
        Err(bad) => Err(bad.to_string()),
    }
}

async fn read_command(
    shared: &Shared,
    home: &PoolHome,
    host: &str,
    command: &str,
    newer_than: Option<Instant>,
) -> Result<Vec<Secret>, String> {
    let global = &shared.config().global;
    let ttl = global.password_exec_ttl.duration();
    let is_news = |answer: &Answer| newer_than.is_none_or(|than| answer.at > than);
    let kept = |now: Instant| {
        let answers = lock(&home.password_command.answers);
        let answer = answers.iter().find(|answer| {
            let is_young = now.saturating_duration_since(answer.at) < ttl;
            answer.command == command && answer.host == host && is_young && is_news(answer)
        });
        answer.map(|answer| answer.secrets.clone())
    };
    let lane = home.password_command.lane.acquire().await;
    let _lane = lane.map_err(|_| "it is over".to_owned())?;
    if let Some(secrets) = kept(Instant::now()) {
        return Ok(secrets);
    }
    let patience = global.password_exec_timeout.limit();
    let run = run(home, host, command);
    let written = match patience {
        Some(patience) => match timeout(patience, run).await {
            Ok(written) => written?,
            Err(_) => return Err(format!("no answer within {} s", patience.as_secs_f64())),
        },
        None => run.await?,
    };
    let found = secrets(&written)?;
    let mut answers = lock(&home.password_command.answers);
    // Whoever wants news for one host has no use for what is old for the others.
    answers.retain(|answer| answer.command == command && answer.host != host && is_news(answer));
    answers.push(Answer {
        command: command.to_owned(),
        host: host.to_owned(),
        at: Instant::now(),
        secrets: found.clone(),
    });
    Ok(found)
}

/// Runs a command to its end; what it has written.
async fn run(home: &PoolHome, host: &str, command: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let rules = home.rules();
    let database = &rules.database;
    let child = Command::new("/bin/sh")
        .arg("-c")
        .arg(command)
        .env("PGWEIR_USER", &*home.name.user)
        .env("PGWEIR_DATABASE", database.dbname())
        .env("PGWEIR_HOST", host)
        .env("PGWEIR_PORT", database.port().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|error| format!("it cannot be started: {}", os_text(&error)))?;
    let mut group = Group(child.id());
    let mut written = Zeroizing::new(Vec::new());
    if let Some(stdout) = child.stdout.take() {
        let read = stdout.take(BYTES_MAX).read_to_end(&mut written).await;
        read.map_err(|error| os_text(&error))?;
    }
    let status = child.wait().await;
    // Its number may be another's from here on.
    group.0 = None;
    let status = status.map_err(|error| os_text(&error))?;
    match status.success() {
        true => Ok(written),
        false => Err(ended(status)),
    }
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with exit status {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it ended badly".to_owned(),
    }
}

/// A command that is not waited for any more ends with all that it has started.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.0.and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id.and_then(Pid::from_raw) {
            // It may just have ended.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Secret {
        Secret::parse(text.as_bytes()).expect("a secret")
    }

    #[test]
    fn a_secret_is_a_line_and_there_may_be_two() {
        assert_eq!(secrets(b"one\n"), Ok(vec![plain("one")]));
        assert_eq!(secrets(b"one"), Ok(vec![plain("one")]));
        let both = vec![plain("new one"), plain("old")];
        assert_eq!(secrets(b"new one\r\n\nold\nmore\n"), Ok(both));
        assert_eq!(secrets(b"\n"), Err("it is empty".to_owned()));
        assert!(secrets(b"hunter\0two").is_err_and(|text| !text.contains("hunter")));
    }
}
