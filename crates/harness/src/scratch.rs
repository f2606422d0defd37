//! A fresh directory with a guard: a process that outlives us just long enough to clean up after us.

use std::{
    fs::{self, DirBuilder},
    hash::{BuildHasher, Hasher, RandomState},
    io::{ErrorKind, Write},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use crate::{
    account::Account,
    error::{Doing, Error},
};

/// The directory of one server or pooler, and the guard over both.
///
/// The guard reads a pipe that only we can write. Each line is the list of processes to end; when the pipe ends
/// without the word `done`, we have died, and it ends them and removes the directory. Compared with Linux's
/// parent-death signal this does not fire when merely the thread that started the child ends (test runners start
/// many), needs no unsafe code, and also removes the files.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    guard: Child,
    wire: Option<ChildStdin>,
}

impl Scratch {
    /// Makes `/tmp/pgweir-XXXXXXXX`, owned by `account`.
    ///
    /// Not in TMPDIR: the name of a Unix socket may have 107 bytes at most, and a TMPDIR may take
    /// half of that.
    pub(crate) fn new(account: Account) -> Result<Self, Error> {
        Self::new_in(Path::new("/tmp"), account)
    }

    /// As [`Self::new`], in another folder with a short name.
    pub(crate) fn new_in(parent: &Path, account: Account) -> Result<Self, Error> {
        let path = fresh_directory(parent)?;
        account.give(&path)?;
        let mut guard = Command::new("/bin/sh")
            .args(["-c", GUARD, "pgweir-guard"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            // Its own process group, so that Ctrl-C reaches us and not the guard.
            .process_group(0)
            .spawn()
            .doing(|| "starting /bin/sh".to_owned())?;
        let wire = guard.stdin.take();
        Ok(Self { path, guard, wire })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the guard what to end if we die now.
    pub(crate) fn watch(&mut self, pids: &[u32]) {
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        self.tell(&pids.join(" "));
    }

    /// A guard that is gone cannot be told anything, and nothing we do depends on it.
    fn tell(&mut self, line: &str) {
        if let Some(wire) = &mut self.wire {
            let _ = writeln!(wire, "{line}");
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.tell("done");
        self.wire = None;
        let _ = self.guard.wait();
        if std::env::var_os("PGWEIR_KEEP").is_some() {
            eprintln!("PGWEIR_KEEP is set, so {} stays", self.path.display());
        } else {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// SIGQUIT is the immediate shutdown of PostgreSQL and of PgBouncer alike.
const GUARD: &str = r#"
pids=
while read -r line; do
    [ "$line" = done ] && exit 0
    pids=$line
done
for pid in $pids; do
    kill -QUIT "$pid"
    n=0
    while kill -0 "$pid" && [ $n -lt 80 ]; do n=$((n + 1)); sleep 0.1; done
    kill -KILL "$pid"
done
rm -rf -- "$1"
"#;

fn fresh_directory(parent: &Path) -> Result<PathBuf, Error> {
    loop {
        let path = parent.join(format!("pgweir-{:08x}", random() as u32));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).doing(|| format!("making {}", path.display())),
        }
    }
}

/// Every `RandomState` has new keys, which is random enough for names and ports.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    fn eventually(what: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if what() {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    #[test]
    fn removes_its_directory_when_dropped() {
        let scratch = Scratch::new(Account::Own).expect("a directory in /tmp");
        let path = scratch.path().to_owned();
        fs::write(path.join("file"), "x").expect("writable");
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn the_guard_ends_processes_and_removes_files_when_its_owner_dies() {
        let mut scratch = Scratch::new(Account::Own).expect("a directory in /tmp");
        let path = scratch.path().to_owned();
        let mut sleeper = Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("sleep exists");
        scratch.watch(&[sleeper.id()]);

        scratch.wire = None; // what the kernel does when we die

        assert!(sleeper.wait().is_ok_and(|status| !status.success()));
        assert!(eventually(|| !path.exists()));
    }
}
