//! What is asked of the operating system about users and processes.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::unistd::{User, initgroups, setgid, setuid};
use pgweir_config::Config;
use pgweir_net::os_text;
use rustix::process::Pid;

/// How long a process that has closed its last connection may take to be gone.
const OLD_PROCESS_PATIENCE: Duration = Duration::from_secs(10);

/// Tells a process that it is the one in the background.
const IN_BACKGROUND: &str = "PGWEIR_IN_BACKGROUND";

/// The user id of a system user.
pub(crate) fn user_id(name: &str) -> Option<u32> {
    User::from_name(name)
        .ok()
        .flatten()
        .map(|user| user.uid.as_raw())
}

/// Becomes another system user, for good.
///
/// # Errors
/// The text for the log.
pub(crate) fn become_user(name: &str) -> Result<(), String> {
    let failed = |error: nix::Error| format!("failed to assume identity of user '{name}': {error}");
    let user = User::from_name(name)
        .map_err(failed)?
        .ok_or_else(|| format!("could not find user '{name}' to switch to"))?;
    if nix::unistd::getuid() == user.uid {
        return Ok(());
    }
    let c_name = std::ffi::CString::new(name).map_err(|_| format!("bad user name '{name}'"))?;
    initgroups(&c_name, user.gid).map_err(failed)?;
    setgid(user.gid).map_err(failed)?;
    setuid(user.uid).map_err(failed)
}

/// Which process this is after [`go_to_background`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Background {
    /// The one that the user started. The other one serves; this one should end.
    Left,
    /// The one that the user started. The other one has ended before it served.
    Lost,
    /// The one in the background.
    Arrived,
}

/// Starts this program again, away from the terminal, and waits until that process serves or ends. The
/// new process reads its arguments anew and arrives here a second time.
///
/// # Errors
/// No process can be started.
pub(crate) fn go_to_background() -> io::Result<Background> {
    if env::var_os(IN_BACKGROUND).is_some() {
        // The process was started by one that is no session leader, so this cannot fail.
        let _ = rustix::process::setsid();
        return Ok(Background::Arrived);
    }
    let mut other = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(IN_BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // It says something there when it serves; its end closes the pipe.
    let serves = other.stdout.take().is_some_and(|mut pipe| {
        let mut word = [0];
        pipe.read_exact(&mut word).is_ok()
    });
    Ok(match serves {
        true => Background::Left,
        false => Background::Lost,
    })
}

/// Tells the process that the user has started that this one, in the background, serves.
pub(crate) fn tell_that_it_serves() {
    if env::var_os(IN_BACKGROUND).is_some() {
        let mut pipe = io::stdout();
        // Whoever has stopped waiting need not know.
        let _ = pipe.write_all(b"\n").and_then(|()| pipe.flush());
    }
}

/// Looks whether another process that lives has written its process id.
///
/// # Errors
/// It has, or may have; the text for the log.
pub(crate) fn check_pidfile(path: &str) -> Result<(), String> {
    if path.is_empty() {
        return Ok(());
    }
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(format!(
                "could not open pidfile '{path}': {}",
                os_text(&error)
            ));
        }
    };
    let pid = text.trim().parse().ok().and_then(Pid::from_raw);
    // In a container every start may get the same process id.
    let is_free = pid.is_some_and(|pid| {
        pid == rustix::process::getpid()
            || rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
    });
    match is_free {
        true => {
            tracing::info!("stale pidfile, removing");
            Ok(())
        }
        false => Err(format!(
            "pidfile '{path}' exists, another instance running?"
        )),
    }
}

/// How many sockets there may be, and how many there would be if every user filled a pool in every
/// database. Said at the start, because who reaches the limit cannot log in any more.
pub(crate) fn file_limits(config: &Config, users: usize) -> String {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let word = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |n| n.to_string());
    let global = &config.global;
    let servers = config.databases.values().map(|database| {
        let size = database.keys.pool_size.filter(|size| *size >= 0);
        let pools = if database.keys.user.is_some() {
            1
        } else {
            users
        };
        i64::from(size.unwrap_or(global.default_pool_size)) * pools as i64
    });
    // Listeners, log and the like.
    let others = 10;
    let expected = i64::from(global.max_client_conn) + others + servers.sum::<i64>();
    format!(
        "kernel file descriptor limit: {} (hard: {}); max_client_conn: {}, max expected fd use: {expected}",
        word(limit.current),
        word(limit.maximum),
        global.max_client_conn
    )
}

/// Writes the process id, unless another process that lives has written its own.
///
/// # Errors
/// The text for the log.
pub(crate) fn write_pidfile(path: &str) -> Result<PidFile, String> {
    check_pidfile(path)?;
    if path.is_empty() {
        return Ok(PidFile(None));
    }
    fs::write(path, own_line())
        .map_err(|error| format!("could not write pidfile '{path}': {}", os_text(&error)))?;
    Ok(PidFile(Some(path.to_owned())))
}

/// Writes the process id as soon as the process that has been taken over is gone. Where that fails its clients are served all
/// the same.
pub(crate) async fn wait_for_pidfile(path: &str) -> PidFile {
    let deadline = Instant::now() + OLD_PROCESS_PATIENCE;
    while check_pidfile(path).is_err() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    write_pidfile(path).unwrap_or_else(|text| {
        tracing::error!("{text}");
        PidFile(None)
    })
}

fn own_line() -> String {
    format!("{}\n", std::process::id())
}

/// Removes the file when dropped.
#[derive(Debug)]
pub(crate) struct PidFile(Option<String>);

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && fs::read_to_string(path).is_ok_and(|line| line == own_line())
        {
            // Whoever starts next finds a process id of nobody, which does not stop it.
            let _ = fs::remove_file(path);
        }
    }
}
