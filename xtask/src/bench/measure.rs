//! One run: one workload against one peer that was just started.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pgweir_benches::Transfer;
use serde::{Deserialize, Serialize};

use super::{
    cost::{Cpu, memory},
    lines::Lines,
    peer::Running,
    workload::{Load, Workload},
};
use crate::step::Failure;

/// How long a run may take beyond the time it was told to take.
const RUN_MAX: Duration = Duration::from_secs(120);

/// pgbench writes the time of every tenth transaction down: enough for a p99, too little to disturb.
const SAMPLED: &str = "--sampling-rate=0.1";

/// The names of pgbench's files begin with this.
const LOG_PREFIX: &str = "bench";

/// What one run came to. The workload says what the units of cost and rate are.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Sample {
    pub(crate) cost: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
}

/// Runs a workload, with pgbench for so many seconds.
pub(crate) fn run(
    workload: &Workload,
    running: &Running,
    load: &Path,
    seconds: u32,
) -> Result<Sample, Failure> {
    match &workload.load {
        Load::Pgbench { clients, args } => pgbench(running, *clients, args, seconds),
        Load::Read { sql, times } => transfer(running, load, &["read"], &[sql, &times.to_string()]),
        Load::Write {
            sql,
            megabytes,
            row,
        } => transfer(
            running,
            load,
            &["write"],
            &[sql, &megabytes.to_string(), row],
        ),
        Load::Idle {
            clients,
            query_first,
        } => idle(running, load, *clients, *query_first),
    }
}

/// pgbench as the details run it too: so many clients in two threads, no VACUUM.
pub(crate) fn pgbench_command(
    running: &Running,
    clients: u32,
    args: &[&str],
    more: &[&str],
) -> Result<Command, Failure> {
    let clients = clients.to_string();
    let mut all = args.to_vec();
    all.extend_from_slice(&["-n", "-j", "2", "-c", &clients]);
    all.extend_from_slice(more);
    Ok(running.endpoint.pgbench_command("postgres", &all)?)
}

/// The first and the last progress line are the ends of the window: logins come before the first.
fn pgbench(
    running: &Running,
    clients: u32,
    args: &[&str],
    seconds: u32,
) -> Result<Sample, Failure> {
    let time = seconds.to_string();
    let prefix = format!("--log-prefix={LOG_PREFIX}");
    let more = [
        "-T",
        &time,
        "-P",
        "1",
        "--progress-timestamp",
        "-l",
        &prefix,
        SAMPLED,
    ];
    let mut command = pgbench_command(running, clients, args, &more)?;
    let mut lines = Lines::spawn(&mut command, RUN_MAX + Duration::from_secs(seconds.into()))?;

    let mut window: Option<Window> = None;
    while let Some(line) = lines.next()? {
        let Some(progress) = Progress::parse(&line) else {
            continue;
        };
        let cpu = Cpu::now(running.pid)?;
        match &mut window {
            None => window = Some(Window::open(progress, cpu)),
            Some(window) => window.extend(progress, &cpu),
        }
    }
    lines.finish()?;
    let mut latencies = latencies(&running.endpoint.dir)?;
    latencies.sort_unstable();
    let window = window.filter(|window| window.transactions > 0.0);
    let Some(window) = window else {
        return Err(Failure::new(
            "pgbench reported no progress; let it run longer with --seconds",
        ));
    };
    Ok(Sample {
        cost: window.cost.as_secs_f64() * 1e6 / window.transactions,
        rate: Some(window.transactions / (window.last - window.first)),
        p50_ms: percentile(&latencies, 50),
        p99_ms: percentile(&latencies, 99),
    })
}

/// `progress: 1763719800.123 s, 12345.6 tps, lat 1.2 ms stddev 0.1, 0 failed`
#[derive(Clone, Copy, Debug, PartialEq)]
struct Progress {
    at: f64,
    tps: f64,
}

impl Progress {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("progress: ")?.split(' ');
        let at = words.next()?.parse().ok()?;
        let tps = words.nth(1)?.parse().ok()?;
        Some(Self { at, tps })
    }
}

#[derive(Debug)]
struct Window {
    first: f64,
    last: f64,
    transactions: f64,
    opened: Cpu,
    cost: Duration,
}

impl Window {
    fn open(progress: Progress, opened: Cpu) -> Self {
        Self {
            first: progress.at,
            last: progress.at,
            transactions: 0.0,
            opened,
            cost: Duration::ZERO,
        }
    }

    fn extend(&mut self, progress: Progress, now: &Cpu) {
        self.transactions += progress.tps * (progress.at - self.last);
        self.last = progress.at;
        self.cost = now.since(&self.opened);
    }
}

/// Reads and removes what pgbench wrote down, one file a thread: the third word of a line is the time in µs.
fn latencies(dir: &Path) -> Result<Vec<u32>, Failure> {
    let mut latencies = Vec::new();
    for path in logs(dir)? {
        let text = fs::read_to_string(&path)?;
        let times = text.lines().filter_map(|line| line.split(' ').nth(2));
        latencies.extend(times.filter_map(|time| time.parse::<u32>().ok()));
        fs::remove_file(&path)?;
    }
    Ok(latencies)
}

fn logs(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(LOG_PREFIX) {
            logs.push(entry.path());
        }
    }
    Ok(logs)
}

/// In milliseconds, of sorted microseconds.
fn percentile(sorted: &[u32], percent: usize) -> Option<f64> {
    let at = (sorted.len() * percent / 100).min(sorted.len().checked_sub(1)?);
    sorted.get(at).map(|time| f64::from(*time) / 1000.0)
}

fn transfer(
    running: &Running,
    load: &Path,
    verb: &[&str],
    args: &[&str],
) -> Result<Sample, Failure> {
    let before = Cpu::now(running.pid)?;
    let mut command = Command::new(load);
    command.args(verb).arg(running.endpoint.port.to_string());
    let said = Lines::spawn(command.args(args), RUN_MAX)?.finish()?;
    let cost = Cpu::now(running.pid)?.since(&before);
    let line = said.last().map(String::as_str).unwrap_or_default();
    let transfer: Transfer = serde_json::from_str(line)?;
    let bytes = transfer.bytes as f64;
    Ok(Sample {
        cost: cost.as_secs_f64() / (bytes / 1e9),
        rate: Some(bytes / 1e6 / transfer.seconds),
        ..Sample::default()
    })
}

fn idle(
    running: &Running,
    load: &Path,
    clients: u32,
    query_first: bool,
) -> Result<Sample, Failure> {
    let before = memory(running.pid)?;
    let mut command = Command::new(load);
    command.args([
        "idle",
        &running.endpoint.port.to_string(),
        &clients.to_string(),
    ]);
    let mut lines = Lines::spawn(&mut command, RUN_MAX)?;
    lines.wait_for("ready")?;
    if query_first {
        lines.tell("query")?;
        lines.wait_for("ready")?;
    }
    let after = memory(running.pid)?;
    lines.finish()?;
    Ok(Sample {
        cost: after.saturating_sub(before) as f64 / 1024.0 / f64::from(clients),
        ..Sample::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_progress_with_time_stamps() {
        let line = "progress: 1763719800.123 s, 12345.6 tps, lat 1.296 ms stddev 0.5, 0 failed";
        let progress = Progress::parse(line).expect("a progress line");
        assert_eq!((progress.at, progress.tps), (1_763_719_800.123, 12_345.6));
        assert_eq!(Progress::parse("pgbench (15.18)"), None);
    }

    #[test]
    fn the_window_counts_from_its_first_line() {
        let cpu = || Cpu::now(std::process::id()).expect("own figures");
        let mut window = Window::open(
            Progress {
                at: 10.0,
                tps: 999.0,
            },
            cpu(),
        );
        window.extend(
            Progress {
                at: 12.0,
                tps: 100.0,
            },
            &cpu(),
        );
        assert_eq!(window.transactions, 200.0);
    }

    #[test]
    fn percentiles_of_nothing_are_nothing() {
        assert_eq!(percentile(&[], 99), None);
        assert_eq!(percentile(&[1000, 2000, 3000], 50), Some(2.0));
        assert_eq!(percentile(&[1000], 99), Some(1.0));
    }
}
