//! One run: one workload against one peer that was just started.

use std::{process::Command, thread, time::Duration};

use pgweir_benches::Transfer;
use serde::{Deserialize, Serialize};

use super::{
    lines::Lines,
    peer::Peer,
    pgbench::{self, Progress, with_environment},
    scraped,
    start::{self, Running, Scene},
    workload::{Load, Other, Pgbench, Workload},
};
use crate::step::Failure;

/// How long a run may take beyond the time it was told to take.
pub(crate) const RUN_MAX: Duration = Duration::from_secs(120);

/// Idle clients that pgbench plays ask once and sleep for longer than they are looked at.
const SLEEPERS: &str = "SELECT 1;\n\\sleep 600 s\n";

/// How long clients have been idle when the memory that they take is read.
const IDLE_FOR: Duration = Duration::from_secs(10);

/// Clients whose login is all they want.
const NOTHING: &str = "\\set nothing 0\n";

/// What one run came to. The workload says what the units of cost and rate are.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Sample {
    /// Nothing where there is no pooler to count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p95_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p999_ms: Option<f64>,
    /// Context switches of the pooler per transaction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) switches: Option<f64>,
    /// The most memory the pooler had (RSS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peak_mib: Option<f64>,
    /// p99 beside others, in terms of p99 alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to_alone: Option<f64>,
    /// p99 beside others, in terms of p99 while they were at another instance of the pooler on the same machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) to_elsewhere: Option<f64>,
    /// Processor time per transaction of the active clients beside idle ones, in µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) active_us: Option<f64>,
}

/// Runs a workload, with pgbench for so many seconds.
pub(crate) fn run(
    peer: Peer,
    workload: &Workload,
    running: &Running,
    scene: &Scene,
    seconds: u32,
) -> Result<Sample, Failure> {
    let load = || Command::new(&scene.programs.load);
    match &workload.load {
        Load::Pgbench(pgbench) => pgbench::run(running, pgbench, seconds),
        Load::Read { sql, times } => {
            let read = |times: u32| {
                let mut load = load();
                load.args(["read", &port(running), sql, &times.to_string()]);
                load
            };
            // PostgreSQL's first process is ready when the relay is, and for a pooler with its first query.
            transfer(running, &mut read(1))?;
            transfer(running, &mut read(*times))
        }
        Load::Write {
            sql,
            megabytes,
            row,
        } => {
            let write = |megabytes: u32| {
                let mut load = load();
                load.args(["write", &port(running), sql, &megabytes.to_string(), row]);
                load
            };
            transfer(running, &mut write(1))?;
            transfer(running, &mut write(*megabytes))
        }
        Load::Idle {
            clients,
            query_first,
            active,
        } => {
            let hosts = running.hosts.join(",");
            let mut load = load();
            load.args(["idle", &hosts, &port(running), &clients.to_string()]);
            idle(running, &mut load, *clients, *query_first, *active, seconds)
        }
        Load::IdleTls { clients } => idle_tls(running, *clients),
        Load::Scraped { pgbench } => scraped::run(running, pgbench, seconds),
        Load::Beside { pgbench, other } => {
            let twin = start::start(peer, workload, &scene.programs, scene)?;
            let elsewhere = || other_clients(&twin, &mut load(), other);
            let here = || other_clients(running, &mut load(), other);
            let beside = pgbench::run_beside(running, pgbench, seconds, [&elsewhere, &here])?;
            Ok(beside.sample())
        }
    }
}

fn port(running: &Running) -> String {
    running.endpoint.port.to_string()
}

/// One connection that moves much. Its cost is the pooler's, its speed that of the slowest of all.
fn transfer(running: &Running, command: &mut Command) -> Result<Sample, Failure> {
    let before = running.usage()?;
    let said = Lines::spawn(command, RUN_MAX)?.finish()?;
    let used = match (before, running.usage()?) {
        (Some(before), Some(after)) => Some(after.since(&before)),
        _ => None,
    };
    let line = said.last().map(String::as_str).unwrap_or_default();
    let transfer: Transfer = serde_json::from_str(line)?;
    let bytes = transfer.bytes as f64;
    let peak = running.peak();
    Ok(Sample {
        cost: used.map(|used| used.cpu.as_secs_f64() / (bytes / 1e9)),
        rate: Some(bytes / 1e6 / transfer.seconds),
        peak_mib: peak.map(|bytes| bytes as f64 / f64::from(1 << 20)),
        ..Sample::default()
    })
}

/// Memory before and after many logins, and then what others pay beside them.
fn idle(
    running: &Running,
    command: &mut Command,
    clients: u32,
    query_first: bool,
    active: u32,
    seconds: u32,
) -> Result<Sample, Failure> {
    let before = running.memory()?;
    let mut lines = Lines::spawn(command, RUN_MAX)?;
    lines.wait_for("ready")?;
    if query_first {
        lines.tell("query")?;
        lines.wait_for("ready")?;
    }
    thread::sleep(IDLE_FOR);
    let cost = Some(growth(before, running.memory()?, clients));
    let sample = match active {
        0 => Sample::default(),
        _ => pgbench::run(running, &simple(active), seconds)?,
    };
    lines.finish()?;
    Ok(Sample {
        cost,
        active_us: sample.cost,
        ..sample
    })
}

/// The same, played by pgbench: its first progress line comes when all have logged in.
fn idle_tls(running: &Running, clients: u32) -> Result<Sample, Failure> {
    // The first handshake fetches what all of them share.
    let mut first = with_environment(running, &["-S", "-n", "-C", "-t", "20"])?;
    Lines::spawn(&mut first, RUN_MAX)?.finish()?;
    let before = running.memory()?;
    let file = pgbench::script(&running.endpoint.dir, "sleepers.sql", SLEEPERS)?;
    let clients_arg = clients.to_string();
    let args = ["-n", "-f", &file, "-c", &clients_arg, "-j", "2", "-P", "1"];
    let mut sleepers = with_environment(running, &[&args[..], &["-T", "600"]].concat())?;
    let mut lines = Lines::spawn(&mut sleepers, RUN_MAX)?;
    let mut are_in = 0;
    while are_in < 2 {
        match lines.next()? {
            Some(line) => are_in += u32::from(Progress::parse(&line).is_some()),
            None => {
                return Err(lines
                    .finish()
                    .err()
                    .unwrap_or_else(|| Failure::new("pgbench ended before all had logged in")));
            }
        }
    }
    let cost = Some(growth(before, running.memory()?, clients));
    Ok(Sample {
        cost,
        ..Sample::default()
    })
}

fn growth(before: u64, after: u64, clients: u32) -> f64 {
    after.saturating_sub(before) as f64 / 1024.0 / f64::from(clients)
}

fn simple(clients: u32) -> Pgbench {
    Pgbench {
        clients,
        args: &["-S", "-M", "simple"],
        script: None,
        each: super::workload::Each::Transaction,
    }
}

/// Starts those who come beside the clients that are measured. They end when they are dropped.
fn other_clients(running: &Running, load: &mut Command, other: &Other) -> Result<Lines, Failure> {
    match other {
        Other::Logins {
            clients,
            per_second,
        } => {
            let file = pgbench::script(&running.endpoint.dir, "storm.sql", NOTHING)?;
            let [clients, per_second] = [clients, per_second].map(u32::to_string);
            // A thread logs one client in at a time.
            let args = ["-n", "-C", "-f", &file, "-c", &clients, "-j", &clients];
            let more = ["-R", &per_second, "-T", "600"];
            let mut command = with_environment(running, &[&args[..], &more].concat())?;
            Lines::spawn(&mut command, RUN_MAX)
        }
        Other::SlowReader { sql, per_second } => {
            load.args(["trickle", &port(running), sql, &per_second.to_string()]);
            Lines::spawn(load, RUN_MAX)
        }
    }
}
