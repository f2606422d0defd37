//! What is asked of the operating system about users and processes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs, io};

use nix::unistd::{User, initgroups, setgid, setuid};

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
    let failed = |what: &str, error: nix::Error| format!("{what} for user '{name}': {error}");
    let user = User::from_name(name)
        .map_err(|error| failed("could not look up", error))?
        .ok_or_else(|| format!("could not find user '{name}'"))?;
    if nix::unistd::getuid() == user.uid {
        return Ok(());
    }
    let c_name = std::ffi::CString::new(name).map_err(|_| format!("bad user name '{name}'"))?;
    initgroups(&c_name, user.gid).map_err(|error| failed("initgroups failed", error))?;
    setgid(user.gid).map_err(|error| failed("setgid failed", error))?;
    setuid(user.uid).map_err(|error| failed("setuid failed", error))
}

/// Which process this is after [`go_to_background`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Background {
    /// The one that the user started; it should end.
    Left,
    /// The one in the background.
    Arrived,
}

/// Starts this program again, away from the terminal. The new process reads its arguments anew and
/// arrives here a second time.
///
/// # Errors
/// No process can be started.
pub(crate) fn go_to_background() -> io::Result<Background> {
    if env::var_os(IN_BACKGROUND).is_some() {
        // The process was started by one that is no session leader, so this cannot fail.
        let _ = rustix::process::setsid();
        return Ok(Background::Arrived);
    }
    Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(IN_BACKGROUND, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Background::Left)
}

/// Writes the process id, unless another process that lives has written its own.
///
/// # Errors
/// The text for the log.
pub(crate) fn write_pidfile(path: &str) -> Result<PidFile, String> {
    if path.is_empty() {
        return Ok(PidFile(None));
    }
    if let Ok(text) = fs::read_to_string(path)
        && let Ok(pid) = text.trim().parse::<i32>()
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
        && pid != rustix::process::getpid()
        && rustix::process::test_kill_process(pid).is_ok()
    {
        return Err(format!(
            "pidfile '{path}' exists, another instance running?"
        ));
    }
    fs::write(path, format!("{}\n", std::process::id()))
        .map_err(|error| format!("could not write pidfile {path}: {error}"))?;
    Ok(PidFile(Some(path.to_owned())))
}

/// Removes the file when dropped.
#[derive(Debug)]
pub(crate) struct PidFile(Option<String>);

impl Drop for PidFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // Whoever starts next finds a process id of nobody, which does not stop it.
            let _ = fs::remove_file(Path::new(path));
        }
    }
}
