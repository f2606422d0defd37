//! The program by itself, for tests of how it starts: arguments, exit codes and what it prints.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use pgweir_harness::Account;
use tempfile::TempDir;

/// The program in a directory of its own, as the user that it may run as.
#[derive(Debug)]
pub struct Program {
    /// Who runs it.
    pub account: Account,
    /// Its file, in its directory.
    pub binary: PathBuf,
    /// Its directory.
    pub dir: TempDir,
}

/// What a run left.
#[derive(Debug)]
pub struct Run {
    /// Nothing if it had to be killed.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Run {
    /// Both outputs.
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl Default for Program {
    fn default() -> Self {
        Self::new()
    }
}

impl Program {
    /// `PGWEIR_BIN`, or the pgweir that cargo built beside the running test.
    ///
    /// # Panics
    /// If there is none.
    pub fn new() -> Self {
        Self::named("pgweir")
    }

    /// The same under another name.
    ///
    /// # Panics
    /// If there is none.
    pub fn named(name: &str) -> Self {
        let account = Account::choose().expect("a user to run as");
        let dir = TempDir::with_prefix_in("pgweir-", "/tmp").expect("a directory");
        let this = std::env::current_exe().expect("our own name");
        let built = this.ancestors().skip(1).map(|folder| folder.join("pgweir"));
        let built = std::env::var_os("PGWEIR_BIN")
            .map(PathBuf::from)
            .or_else(|| built.take(2).find(|path| path.is_file()))
            .expect("pgweir is built");
        let binary = dir.path().join(name);
        fs::hard_link(&built, &binary)
            .or_else(|_| fs::copy(&built, &binary).map(|_| ()))
            .expect("a copy");
        let program = Self {
            account,
            binary,
            dir,
        };
        program.give(program.dir.path());
        program
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file into its directory; `{dir}` in the text stands for that.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) {
        let dir = self.dir.path().display().to_string();
        fs::write(self.path(name), text.replace("{dir}", &dir)).expect("a directory of ours");
        self.give(&self.path(name));
    }

    fn give(&self, path: &Path) {
        if let Account::Unprivileged { uid, gid } = self.account {
            chown(path, Some(uid), Some(gid)).expect("root may");
        }
    }

    /// Runs it to its end, or for some seconds.
    pub fn run(&self, arguments: &[&str]) -> Run {
        finish(self.command().args(arguments))
    }

    /// Starts it and lets it run; nobody reads what it prints.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        Running::start(self.command().args(arguments))
    }

    /// A command that is the program, in its directory and as its user.
    pub fn command(&self) -> Command {
        self.account.command(&self.binary, self.dir.path())
    }

    /// The same as whoever runs the test, which may be root.
    pub fn own_command(&self) -> Command {
        // What root starts must be able to enter its directory after it has become somebody else.
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.dir.path(), open).expect("a directory of ours");
        let mut command = Command::new(&self.binary);
        command.current_dir(self.dir.path());
        command
    }
}

/// A program that is ended with the test.
#[derive(Debug)]
pub struct Running(pub Child);

impl Running {
    /// Starts a command; nobody reads what it prints.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null());
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().expect("an executable"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ends a process that is nobody's child, by its number.
#[derive(Debug)]
pub struct Ender(pub String);

impl Drop for Ender {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-QUIT", &self.0]).status();
    }
}

/// Runs a command to its end, or for some seconds.
///
/// # Panics
/// If it cannot be started.
pub fn finish(command: &mut Command) -> Run {
    finish_within(command, Duration::from_secs(5))
}

/// Runs a command to its end, or for so long.
///
/// # Panics
/// If it cannot be started.
pub fn finish_within(command: &mut Command, limit: Duration) -> Run {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("an executable");
    let deadline = Instant::now() + limit;
    let ended = loop {
        match child.try_wait().expect("a child of ours") {
            Some(_) => break true,
            None if Instant::now() > deadline => break false,
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    if !ended {
        let _ = child.kill();
    }
    let output = child.wait_with_output().expect("a child of ours");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Run {
        code: output.status.code().filter(|_| ended),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}
