//! Running a program to its end, within a deadline.

use std::{
    io::{self, Read},
    net::TcpListener,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    error::{Doing, Error},
    scratch::random,
};

/// A program that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program and takes its outputs, whatever its exit status. Kills it at the deadline.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<Finished, Error> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(|| format!("starting {command:?}"))?;
    let stdout = read_aside(child.stdout.take());
    let stderr = read_aside(child.stderr.take());
    let status = wait(limit, || child.try_wait()).doing(|| format!("waiting for {command:?}"))?;
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let (stdout, stderr) = (joined(stdout), joined(stderr));
    match status {
        Some(status) => Ok(Finished {
            status,
            stdout,
            stderr,
        }),
        None => Err(Error::TooSlow {
            command: format!("{command:?}"),
            limit,
            output: format!("{stdout}{stderr}"),
        }),
    }
}

/// Runs a program that must succeed, and gives its standard output.
pub(crate) fn run_ok(command: &mut Command, limit: Duration) -> Result<String, Error> {
    let finished = run(command, limit)?;
    if finished.status.success() {
        return Ok(finished.stdout);
    }
    let output = if finished.stderr.trim().is_empty() {
        finished.stdout
    } else {
        finished.stderr
    };
    Err(Error::Failed {
        command: format!("{command:?}"),
        status: finished.status,
        output,
    })
}

/// Asks until there is an answer, or until the deadline has passed.
pub(crate) fn wait<T>(
    limit: Duration,
    mut ask: impl FnMut() -> io::Result<Option<T>>,
) -> io::Result<Option<T>> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask()? {
            return Ok(Some(answer));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// A TCP port on which nobody listens.
///
/// Below the range from which Linux takes the local ports of outgoing connections: the thousands of
/// connections of a test would otherwise take the port between our asking and its use.
pub fn free_port() -> u16 {
    loop {
        let port = 10_000 + (random() % 20_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

type Reader = thread::JoinHandle<String>;

fn read_aside(pipe: Option<impl Read + Send + 'static>) -> Option<Reader> {
    let mut pipe = pipe?;
    Some(thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is still worth showing.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }))
}

fn joined(reader: Option<Reader>) -> String {
    reader
        .and_then(|reader| reader.join().ok())
        .unwrap_or_default()
}

/// Sends a signal to a process by the number that PostgreSQL or a pid file tells. False if there is none, or
/// none of ours.
///
/// The program `kill` is not there on every machine.
pub fn send_signal(pid: &str, signal: Signal) -> bool {
    let pid = pid.trim().parse().ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_what_does_not_end_and_shows_its_output() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo before; exec sleep 600"]);
        match run(&mut command, Duration::from_millis(200)) {
            Err(Error::TooSlow { output, .. }) => assert_eq!(output, "before\n"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn takes_more_output_than_a_pipe_holds() {
        let mut command = Command::new("sh");
        command.args(["-c", "head -c 1000000 /dev/zero | tr '\\0' x"]);
        let text = run_ok(&mut command, Duration::from_secs(20)).expect("head and tr");
        assert_eq!(text.len(), 1_000_000);
    }

    #[test]
    fn shows_what_a_failing_program_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo because >&2; exit 3"]);
        let error = run_ok(&mut command, Duration::from_secs(20))
            .expect_err("exit 3")
            .to_string();
        assert!(error.contains("because"), "{error}");
    }
}
