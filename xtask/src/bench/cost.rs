//! What a process has cost so far: processor time in nanoseconds, how often it left the processor, and memory.

use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};

use pgweir_harness::{cpu_time, rss};

/// The processor time of processes at one moment, and how often the kernel has switched away from it.
#[derive(Debug)]
pub(crate) struct Usage {
    total: Duration,
    /// By thread, where the kernel counts nanoseconds.
    threads: BTreeMap<u32, Thread>,
}

/// One thread's part.
#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    cpu: Duration,
    switches: u64,
}

/// What was used between two moments.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    /// Context switches, wanted by the process or not.
    pub(crate) switches: u64,
}

impl Usage {
    /// Reads the kernel's exact count per thread, or the whole processes in ticks of 10 ms where there is none.
    pub(crate) fn now(pids: &[u32]) -> io::Result<Self> {
        // The kernel numbers the threads of all processes together.
        let threads: BTreeMap<u32, Thread> = pids
            .iter()
            .flat_map(|pid| threads(*pid).unwrap_or_default())
            .collect();
        let total = match threads.is_empty() {
            true => pids
                .iter()
                .map(|pid| cpu_time(*pid))
                .sum::<io::Result<_>>()?,
            false => threads.values().map(|thread| thread.cpu).sum(),
        };
        Ok(Self { total, threads })
    }

    /// What was used since then. A thread that has ended in between is not counted.
    pub(crate) fn since(&self, then: &Self) -> Used {
        if self.threads.is_empty() {
            let cpu = self.total.saturating_sub(then.total);
            return Used { cpu, switches: 0 };
        }
        let mut used = Used::default();
        for (id, now) in &self.threads {
            let then = then.threads.get(id).copied().unwrap_or_default();
            used.cpu += now.cpu.saturating_sub(then.cpu);
            used.switches += now.switches.saturating_sub(then.switches);
        }
        used
    }
}

fn threads(pid: u32) -> io::Result<BTreeMap<u32, Thread>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|id| id.parse().ok()) else {
            continue;
        };
        let text = fs::read_to_string(entry.path().join("schedstat"))?;
        let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
        let Some(nanoseconds) = nanoseconds.filter(|time| *time > 0) else {
            continue;
        };
        let status = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let thread = Thread {
            cpu: Duration::from_nanos(nanoseconds),
            switches: switches(&status),
        };
        threads.insert(id, thread);
    }
    Ok(threads)
}

/// `voluntary_ctxt_switches: 12` and `nonvoluntary_ctxt_switches: 3`, added.
fn switches(status: &str) -> u64 {
    ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]
        .iter()
        .filter_map(|key| field(status, key))
        .sum()
}

/// The most memory that a process has had at once, in bytes, shared pages included.
pub(crate) fn peak(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    field(&status, "VmHWM:").map(|kib| kib * 1024)
}

/// The memory of a process in bytes; pages it shares with others count in proportion, where the kernel says so.
pub(crate) fn memory(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    if !Path::new(&path).exists() {
        return rss(pid);
    }
    let text = fs::read_to_string(path)?;
    field(&text, "Pss:").map_or_else(|| rss(pid), |kib| Ok(kib * 1024))
}

/// The number behind a key at the beginning of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_time() {
        let own = std::process::id();
        let before = Usage::now(&[own]).expect("own figures");
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(50) {}
        let used = Usage::now(&[own]).expect("own figures").since(&before);
        assert!(used.cpu > Duration::ZERO && memory(own).is_ok_and(|bytes| bytes > 100_000));
        assert!(peak(own).is_some_and(|bytes| bytes > 100_000));
    }

    #[test]
    fn both_kinds_of_switches_count() {
        let status =
            "VmHWM:\t  1234 kB\nvoluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(switches(status), 15);
        assert_eq!(field(status, "VmHWM:"), Some(1234));
        assert_eq!(switches(""), 0);
    }
}
