//! A process that runs in the background, with its directory and its log file.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    account::Account,
    error::{Doing, Error},
    process::wait,
    scratch::Scratch,
};

/// PostgreSQL gives its children five seconds to obey an immediate shutdown before it kills them.
const QUIT_MAX: Duration = Duration::from_secs(8);

/// How long a start may take on a machine that is busy with other tests.
const START_MAX: Duration = Duration::from_secs(60);

/// One background process at a time in one directory.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Option<Child>,
    log: PathBuf,
    account: Account,
    // Dropped last: its guard must outlive the process.
    scratch: Scratch,
}

impl Daemon {
    /// A directory for a process that is not started yet.
    pub(crate) fn new(name: &str, account: Account) -> Result<Self, Error> {
        Self::within(Scratch::new(account)?, name, account)
    }

    /// As [`Self::new`], with a directory in another folder.
    pub(crate) fn new_in(parent: &Path, name: &str, account: Account) -> Result<Self, Error> {
        Self::within(Scratch::new_in(parent, account)?, name, account)
    }

    fn within(scratch: Scratch, name: &str, account: Account) -> Result<Self, Error> {
        let log = scratch.path().join(format!("{name}.log"));
        Ok(Self {
            name: name.to_owned(),
            child: None,
            log,
            account,
            scratch,
        })
    }

    pub(crate) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn account(&self) -> Account {
        self.account
    }

    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    pub(crate) fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Writes a file into the directory that only the daemon's user may read.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir().join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o600)))
            .doing(|| format!("writing {}", path.display()))?;
        self.account.give(&path)?;
        Ok(path)
    }

    /// Starts the process; both its outputs go to the end of the log file.
    pub(crate) fn spawn(&mut self, command: &mut Command) -> Result<(), Error> {
        let output = self.open_log()?;
        self.spawn_on(command, Stdio::null(), output.into())
    }

    /// As [`Self::spawn`], with something else as standard input and output.
    pub(crate) fn spawn_on(
        &mut self,
        command: &mut Command,
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<(), Error> {
        debug_assert!(self.child.is_none(), "one process at a time");
        let child = self.start(command.stdin(stdin).stdout(stdout))?;
        self.scratch.watch(&[child.id()]);
        self.child = Some(child);
        Ok(())
    }

    /// Starts a process that takes over from the one that runs, and waits until that one has ended. If
    /// the new one ends instead, the old one is still there.
    pub(crate) fn succeed(&mut self, command: &mut Command) -> Result<(), Error> {
        let output = self.open_log()?;
        let mut successor = self.start(command.stdin(Stdio::null()).stdout(output))?;
        let pids: Vec<u32> = self.pid().into_iter().chain([successor.id()]).collect();
        self.scratch.watch(&pids);
        let old = &mut self.child;
        let seen = wait(START_MAX, || {
            if let Some(status) = successor.try_wait()? {
                return Ok(Some(Err(status)));
            }
            let Some(old) = old else {
                return Ok(Some(Ok(())));
            };
            Ok(old.try_wait()?.map(|_| Ok(())))
        })
        .doing(|| format!("waiting for the end of the old {}", self.name))?;
        match seen {
            Some(Ok(())) => {
                self.scratch.watch(&[successor.id()]);
                self.child = Some(successor);
                Ok(())
            }
            Some(Err(status)) => Err(self.exited(status)),
            None => {
                let _ = successor.kill();
                let _ = successor.wait();
                Err(Error::NotReady {
                    name: self.name.clone(),
                    what: "end when it was taken over from".to_owned(),
                    limit: START_MAX,
                    log: self.log.clone(),
                    tail: self.log_tail(),
                })
            }
        }
    }

    fn start(&self, command: &mut Command) -> Result<Child, Error> {
        command
            .stderr(self.open_log()?)
            // Its own process group, so that Ctrl-C at the terminal ends it through us and in order.
            .process_group(0)
            .spawn()
            .doing(|| format!("starting {command:?}"))
    }

    fn open_log(&self) -> Result<File, Error> {
        let log = File::options().create(true).append(true).open(&self.log);
        log.doing(|| format!("opening {}", self.log.display()))
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Asks until it is ready, has ended or the deadline has passed.
    pub(crate) fn wait_until(
        &mut self,
        what: &str,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        enum Seen {
            Ready,
            Ended(ExitStatus),
        }
        let child = &mut self.child;
        let seen = wait(START_MAX, || {
            if let Some(status) = child
                .as_mut()
                .and_then(|child| child.try_wait().transpose())
            {
                return status.map(|status| Some(Seen::Ended(status)));
            }
            Ok(ready().then_some(Seen::Ready))
        })
        .doing(|| format!("waiting for {}", self.name))?;
        match seen {
            Some(Seen::Ready) => Ok(()),
            Some(Seen::Ended(status)) => {
                self.forget();
                Err(self.exited(status))
            }
            None => Err(Error::NotReady {
                name: self.name.clone(),
                what: what.to_owned(),
                limit: START_MAX,
                log: self.log.clone(),
                tail: self.log_tail(),
            }),
        }
    }

    /// Sends a signal; says nothing if the process has ended already.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self
            .pid()
            .and_then(|pid| i32::try_from(pid).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }

    /// How the process ended, if it does so before the deadline.
    pub(crate) fn wait_for_exit(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = wait(limit, || child.try_wait())?;
        if status.is_some() {
            self.forget();
        }
        Ok(status)
    }

    /// Sends a signal that ends the process and waits; what does not obey is killed and reported.
    pub(crate) fn stop(&mut self, signal: Signal, limit: Duration) -> Result<(), Error> {
        if self.child.is_none() {
            return Ok(());
        }
        self.signal(signal);
        let status = self
            .wait_for_exit(limit)
            .doing(|| format!("waiting for the end of {}", self.name))?;
        if status.is_some() {
            return Ok(());
        }
        let error = Error::NotReady {
            name: self.name.clone(),
            what: format!("end after {signal:?}"),
            limit,
            log: self.log.clone(),
            tail: self.log_tail(),
        };
        self.kill();
        Err(error)
    }

    /// SIGKILL, the one signal that cannot be refused.
    pub(crate) fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.child = None;
        self.scratch.watch(&[]);
    }

    fn exited(&self, status: ExitStatus) -> Error {
        Error::Exited {
            name: self.name.clone(),
            status,
            log: self.log.clone(),
            tail: self.log_tail(),
        }
    }

    fn log_tail(&self) -> String {
        const LINES_MAX: usize = 40;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- the last lines of {}\n{}\n----",
                self.log.display(),
                self.log_tail()
            );
        }
        if self.stop(Signal::QUIT, QUIT_MAX).is_err() {
            self.kill();
        }
    }
}
