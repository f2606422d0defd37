//! A program that is watched while it runs, line by line, and never waited for without a deadline.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use crate::step::Failure;

/// Lines of output that a failure shows.
const TAIL_MAX: usize = 15;

/// A child process and what it says on both its outputs. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Lines {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    deadline: Instant,
    said: Vec<String>,
}

impl Lines {
    pub(crate) fn spawn(command: &mut Command, limit: Duration) -> Result<Self, Failure> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new(format!("starting {command:?}: {error}")))?;
        let (sender, lines) = mpsc::channel();
        read_aside(child.stdout.take(), sender.clone());
        read_aside(child.stderr.take(), sender);
        Ok(Self {
            name: name(command.get_program()),
            stdin: child.stdin.take(),
            child,
            lines,
            deadline: Instant::now() + limit,
            said: Vec::new(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line, or nothing when both outputs are closed.
    pub(crate) fn next(&mut self) -> Result<Option<String>, Failure> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => {
                self.said.push(line.clone());
                Ok(Some(line))
            }
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(self.failure("hangs")),
        }
    }

    /// Waits for exactly this line.
    pub(crate) fn wait_for(&mut self, expected: &str) -> Result<(), Failure> {
        while let Some(line) = self.next()? {
            if line == expected {
                return Ok(());
            }
        }
        Err(self.failure(&format!("ended before it said {expected}")))
    }

    /// Gives the program a line to read.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Failure> {
        match &mut self.stdin {
            Some(stdin) => Ok(writeln!(stdin, "{line}")?),
            None => Err(self.failure("does not read any more")),
        }
    }

    /// Ends the program.
    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
    }

    /// Reads on to the end of a program that says how it ended in words and not by its status.
    pub(crate) fn rest(mut self) -> Result<Vec<String>, Failure> {
        while self.next()?.is_some() {}
        Ok(std::mem::take(&mut self.said))
    }

    /// Ends the program's input, reads on to its end, and gives all that it said.
    pub(crate) fn finish(mut self) -> Result<Vec<String>, Failure> {
        self.stdin = None;
        while self.next()?.is_some() {}
        let status: ExitStatus = self.child.wait()?;
        if status.success() {
            return Ok(std::mem::take(&mut self.said));
        }
        Err(self.failure(&format!("ended with {status}")))
    }

    fn failure(&self, what: &str) -> Failure {
        let tail = &self.said[self.said.len().saturating_sub(TAIL_MAX)..];
        Failure::new(format!("{} {what}: {}", self.name, tail.join("\n")))
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program's name without where it lies, which is different on every machine.
fn name(program: &OsStr) -> String {
    let name = Path::new(program).file_name().unwrap_or(program);
    name.to_string_lossy().into_owned()
}

fn read_aside(pipe: Option<impl Read + Send + 'static>, sender: Sender<String>) {
    let Some(pipe) = pipe else { return };
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Lines {
        let mut command = Command::new("sh");
        Lines::spawn(command.args(["-c", script]), Duration::from_secs(1)).expect("sh exists")
    }

    #[test]
    fn talks_with_a_program() {
        let mut program = shell("echo ready; read -r order; echo got $order");
        program.wait_for("ready").expect("it says so");
        program.tell("query").expect("it reads");
        assert_eq!(
            program.finish().expect("it ends well"),
            ["ready", "got query"]
        );
    }

    #[test]
    fn a_failure_shows_what_the_program_said() {
        let failure = shell("echo because >&2; exit 3")
            .finish()
            .expect_err("exit 3");
        assert!(failure.to_string().contains("because"), "{failure}");
    }

    #[test]
    fn a_failure_does_not_say_where_the_program_lies() {
        let failure = Lines::spawn(&mut Command::new("/bin/false"), Duration::from_secs(1))
            .and_then(Lines::finish)
            .expect_err("false fails");
        assert!(failure.to_string().starts_with("false "), "{failure}");
    }

    #[test]
    fn does_not_wait_for_ever() {
        let mut program = shell("exec sleep 600");
        assert!(program.next().is_err());
    }
}
