//! One run of pgbench, watched from outside: cost between its first and last progress line, latencies from its log.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use super::{
    cost::{Usage, Used},
    lines::Lines,
    measure::{RUN_MAX, Sample},
    start::Running,
    workload::{Each, Pgbench},
};
use crate::step::Failure;

/// The names of pgbench's files begin with this.
const LOG_PREFIX: &str = "bench";

/// pgbench writes the time of every tenth small transaction down: enough for the tail, too little to disturb.
const SAMPLED: &str = "--sampling-rate=0.1";

/// Clients that have logged in after a second, at least.
const LOGINS_PER_SECOND: u32 = 2000;

/// Clients that have prepared their statements after a second, at least.
const PREPARED_PER_SECOND: u32 = 170;

/// pgbench as the details run it too: two threads, no VACUUM.
pub(crate) fn command(
    running: &Running,
    pgbench: &Pgbench,
    more: &[&str],
) -> Result<Command, Failure> {
    let clients = pgbench.clients.to_string();
    let threads = pgbench.clients.min(2).to_string();
    let mut all = pgbench.args.to_vec();
    all.extend_from_slice(&["-n", "-j", &threads, "-c", &clients]);
    let file = match pgbench.script {
        Some(text) => Some(script(&running.endpoint.dir, "bench.sql", text)?),
        None => None,
    };
    if let Some(file) = &file {
        all.extend_from_slice(&["-f", file]);
    }
    all.extend_from_slice(more);
    with_environment(running, &all)
}

/// pgbench with these arguments, told how to come in.
pub(crate) fn with_environment(running: &Running, args: &[&str]) -> Result<Command, Failure> {
    let mut command = running.endpoint.pgbench_command("postgres", args)?;
    command.envs(running.env.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// Writes a script that pgbench's user can read, and gives its path.
pub(crate) fn script(dir: &Path, name: &str, text: &str) -> Result<String, Failure> {
    let path = dir.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(path.display().to_string())
}

/// Runs it for so many seconds.
pub(crate) fn run(running: &Running, pgbench: &Pgbench, seconds: u32) -> Result<Sample, Failure> {
    let warm_up = warm_up(pgbench);
    let start = Instant::now();
    let mut lines = watched(running, pgbench, seconds + warm_up)?;
    let mut window: Option<Window> = None;
    while let Some(line) = lines.next()? {
        let Some(progress) = Progress::parse(&line) else {
            continue;
        };
        if start.elapsed() < Duration::from_secs(warm_up.into()) {
            continue;
        }
        let usage = running.usage()?;
        match &mut window {
            None => window = Some(Window::open(progress, usage)),
            Some(window) => window.extend(progress, usage.as_ref()),
        }
    }
    let peak = running.peak();
    let said = lines.finish()?;
    let entries = entries(&running.endpoint.dir)?;
    let window = window.filter(|window| window.transactions > 0.0);
    let window = window.ok_or_else(|| no_progress(&said))?;
    // pgbench's clock starts when the login is over.
    let is_timed = pgbench.each != Each::Login;
    let latencies = Latencies::of(&entries, |at| is_timed && at > window.first);
    Ok(window.sample(latencies, peak))
}

/// What those paid who ran without a break while others came.
#[derive(Debug)]
pub(crate) struct Beside {
    alone: Latencies,
    elsewhere: Latencies,
    here: Latencies,
    /// While the others were here.
    window: Window,
}

impl Beside {
    /// The cost is the p99 while others were here.
    pub(crate) fn sample(self) -> Sample {
        let p99 = |latencies: &Latencies| latencies.per_mille(990).filter(|&p99| p99 > 0.0);
        let [alone, elsewhere, here] = [&self.alone, &self.elsewhere, &self.here].map(p99);
        let times = |than: Option<f64>| Some(here? / than?);
        let (to_alone, to_elsewhere) = (times(alone), times(elsewhere));
        Sample {
            cost: here,
            to_alone,
            to_elsewhere,
            ..self.window.sample(self.here, None)
        }
    }
}

/// Runs it for so many seconds alone, then beside what the first of `others` starts elsewhere, and then beside what
/// the second starts here: what the same processors do for others disturbs in any case.
pub(crate) fn run_beside<T>(
    running: &Running,
    pgbench: &Pgbench,
    seconds: u32,
    others: [&dyn Fn() -> Result<T, Failure>; 2],
) -> Result<Beside, Failure> {
    // A window opens with the first line that comes a second after the last one's end.
    let mut lines = watched(running, pgbench, 3 * (seconds + 1))?;
    let mut next = others.iter();
    let mut other = None;
    let (mut windows, mut window): (Vec<Window>, Option<Window>) = Default::default();
    while let Some(line) = lines.next()? {
        let Some(progress) = Progress::parse(&line) else {
            continue;
        };
        match &mut window {
            None => window = Some(Window::open(progress, None)),
            Some(window) => window.extend(progress, None),
        }
        // The lines are about a second apart.
        let is_over = |window: &mut Window| window.seconds() + 0.5 > f64::from(seconds);
        if let Some(begin) = next.as_slice().first()
            && let Some(over) = window.take_if(is_over)
        {
            windows.push(over);
            drop(other.take());
            other = Some(begin()?);
            next.next();
        }
    }
    let said = lines.finish()?;
    drop(other);
    let entries = entries(&running.endpoint.dir)?;
    windows.extend(window.filter(|window| window.transactions > 0.0));
    let Ok([alone, elsewhere, here]) = <[Window; 3]>::try_from(windows) else {
        return Err(no_progress(&said));
    };
    let latencies = |of: &Window| Latencies::of(&entries, |at| at > of.first && at <= of.last);
    Ok(Beside {
        alone: latencies(&alone),
        elsewhere: latencies(&elsewhere),
        here: latencies(&here),
        window: here,
    })
}

pub(crate) fn watched(
    running: &Running,
    pgbench: &Pgbench,
    seconds: u32,
) -> Result<Lines, Failure> {
    let time = seconds.to_string();
    let prefix = format!("--log-prefix={LOG_PREFIX}");
    let mut more = vec![
        "-T",
        &time,
        "-P",
        "1",
        "--progress-timestamp",
        "-l",
        &prefix,
    ];
    if pgbench.args.contains(&"-S") && !pgbench.args.contains(&"-C") {
        more.push(SAMPLED);
    }
    let mut command = command(running, pgbench, &more)?;
    Lines::spawn(&mut command, RUN_MAX + Duration::from_secs(seconds.into()))
}

pub(crate) fn no_progress(said: &[String]) -> Failure {
    Failure::new(format!(
        "pgbench reported too little progress; let it run longer with --seconds; it said: {}",
        said.join("; ")
    ))
}

/// Seconds until all clients are at work: a thread of pgbench lets one client after the other log in. It prepares their
/// statements in the same way, and waits each time until that client had its turn.
fn warm_up(pgbench: &Pgbench) -> u32 {
    if pgbench.args.contains(&"prepared") && pgbench.clients > 64 {
        pgbench.clients.div_ceil(PREPARED_PER_SECOND)
    } else {
        pgbench.clients / LOGINS_PER_SECOND
    }
}

/// `progress: 1763719800.123 s, 12345.6 tps, lat 1.2 ms stddev 0.1, 0 failed`
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Progress {
    pub(crate) at: f64,
    pub(crate) tps: f64,
}

impl Progress {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("progress: ")?.split(' ');
        let at = words.next()?.parse().ok()?;
        let tps = words.nth(1)?.parse().ok()?;
        Some(Self { at, tps })
    }
}

/// What happened between the first and the last progress line: logins come before the first.
#[derive(Debug)]
struct Window {
    first: f64,
    last: f64,
    transactions: f64,
    /// Nothing if there is no pooler.
    opened: Option<Usage>,
    used: Option<Used>,
}

impl Window {
    fn open(progress: Progress, opened: Option<Usage>) -> Self {
        Self {
            first: progress.at,
            last: progress.at,
            transactions: 0.0,
            opened,
            used: None,
        }
    }

    fn extend(&mut self, progress: Progress, now: Option<&Usage>) {
        self.transactions += progress.tps * (progress.at - self.last);
        self.last = progress.at;
        if let (Some(opened), Some(now)) = (&self.opened, now) {
            self.used = Some(now.since(opened));
        }
    }

    fn seconds(&self) -> f64 {
        self.last - self.first
    }

    fn sample(&self, latencies: Latencies, peak: Option<u64>) -> Sample {
        let each = |count: f64| count / self.transactions;
        Sample {
            cost: self.used.map(|used| each(used.cpu.as_secs_f64() * 1e6)),
            rate: Some(self.transactions / self.seconds()),
            p50_ms: latencies.per_mille(500),
            p95_ms: latencies.per_mille(950),
            p99_ms: latencies.per_mille(990),
            p999_ms: latencies.per_mille(999),
            switches: self.used.map(|used| each(used.switches as f64)),
            peak_mib: peak.map(|bytes| bytes as f64 / f64::from(1 << 20)),
            ..Sample::default()
        }
    }
}

/// One transaction that pgbench wrote down.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    /// When it ended, in seconds since 1970.
    at: f64,
    micros: u32,
}

impl Entry {
    /// `CLIENT NUMBER MICROSECONDS SCRIPT SECONDS MICROSECONDS`
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ').skip(2);
        let micros = words.next()?.parse().ok()?;
        let seconds: f64 = words.nth(1)?.parse().ok()?;
        let rest: f64 = words.next()?.parse().ok()?;
        let at = seconds + rest / 1e6;
        Some(Self { at, micros })
    }
}

/// Reads and removes what pgbench wrote down, one file a thread.
fn entries(dir: &Path) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for path in logs(dir)? {
        let text = fs::read_to_string(&path)?;
        entries.extend(text.lines().filter_map(Entry::parse));
        fs::remove_file(&path)?;
    }
    Ok(entries)
}

fn logs(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut logs = Vec::new();
    let prefix = format!("{LOG_PREFIX}.");
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&prefix) && !name.ends_with(".sql") {
            logs.push(path);
        }
    }
    Ok(logs)
}

/// Sorted microseconds.
#[derive(Debug)]
struct Latencies(Vec<u32>);

impl Latencies {
    /// Of the transactions that ended at times for which `wanted` is true.
    fn of(entries: &[Entry], wanted: impl Fn(f64) -> bool) -> Self {
        let wanted = entries.iter().filter(|entry| wanted(entry.at));
        let mut latencies: Vec<u32> = wanted.map(|entry| entry.micros).collect();
        latencies.sort_unstable();
        Self(latencies)
    }

    /// In milliseconds: so many of a thousand took less.
    fn per_mille(&self, share: usize) -> Option<f64> {
        let at = (self.0.len() * share / 1000).min(self.0.len().checked_sub(1)?);
        self.0.get(at).map(|micros| f64::from(*micros) / 1000.0)
    }
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
        let usage = || Usage::now(&[std::process::id()]).expect("own figures");
        let at = |at, tps| Progress { at, tps };
        let mut window = Window::open(at(10.0, 999.0), Some(usage()));
        window.extend(at(12.0, 100.0), Some(&usage()));
        assert_eq!(window.transactions, 200.0);
        let sample = window.sample(Latencies(Vec::new()), None);
        assert_eq!((sample.rate, sample.p99_ms), (Some(100.0), None));
        assert!(sample.cost.is_some());
    }

    #[test]
    fn who_is_here_is_compared_with_nobody_and_with_who_is_elsewhere() {
        let p99 = |micros| Latencies(vec![micros]);
        let beside = |elsewhere| Beside {
            alone: p99(1000),
            elsewhere,
            here: p99(3000),
            window: Window::open(Progress { at: 1.0, tps: 0.0 }, None),
        };
        let sample = beside(p99(2000)).sample();
        assert_eq!((sample.cost, sample.p50_ms), (Some(3.0), Some(3.0)));
        assert_eq!(
            (sample.to_alone, sample.to_elsewhere),
            (Some(3.0), Some(1.5))
        );
        let sample = beside(Latencies(Vec::new())).sample();
        assert_eq!((sample.to_alone, sample.to_elsewhere), (Some(3.0), None));
    }

    #[test]
    fn many_clients_need_time_to_begin() {
        let pgbench = |clients, args| Pgbench {
            clients,
            args,
            script: None,
            each: Each::Transaction,
        };
        assert_eq!(warm_up(&pgbench(16, &["-M", "prepared"])), 0);
        assert_eq!(warm_up(&pgbench(1000, &["-M", "prepared"])), 6);
        assert_eq!(warm_up(&pgbench(1000, &["-M", "simple"])), 0);
        assert_eq!(warm_up(&pgbench(5000, &["-M", "simple"])), 2);
    }

    #[test]
    fn without_a_pooler_there_is_no_cost() {
        let mut window = Window::open(Progress { at: 1.0, tps: 0.0 }, None);
        window.extend(Progress { at: 2.0, tps: 50.0 }, None);
        let sample = window.sample(Latencies(vec![1000]), None);
        assert_eq!((sample.cost, sample.switches), (None, None));
        assert_eq!((sample.rate, sample.p50_ms), (Some(50.0), Some(1.0)));
    }

    #[test]
    fn percentiles_are_of_those_that_were_wanted() {
        let entry = Entry::parse("3 17 1500 0 1763719800 250000").expect("a line of the log");
        assert_eq!((entry.at, entry.micros), (1_763_719_800.25, 1500));
        let later = Entry {
            at: entry.at + 9.0,
            micros: 3000,
        };
        let all = Latencies::of(&[later, entry], |_| true);
        assert_eq!(all.0, [1500, 3000]);
        let early = Latencies::of(&[later, entry], |at| at < later.at);
        assert_eq!(early.per_mille(999), Some(1.5));
        assert_eq!(Latencies(Vec::new()).per_mille(500), None);
    }
}
