//! What a process has cost so far: processor time in nanoseconds, and memory of its own.

use std::{collections::BTreeMap, fs, io, path::Path, time::Duration};

use pgweir_harness::{cpu_time, rss};

/// The processor time of a process at one moment.
#[derive(Debug)]
pub(crate) struct Cpu {
    total: Duration,
    /// By thread, where the kernel counts nanoseconds.
    threads: BTreeMap<u32, Duration>,
}

impl Cpu {
    /// Reads the kernel's exact count per thread, or the whole process in ticks of 10 ms where there is none.
    pub(crate) fn now(pid: u32) -> io::Result<Self> {
        let threads = threads(pid).unwrap_or_default();
        let total = if threads.is_empty() {
            cpu_time(pid)?
        } else {
            threads.values().sum()
        };
        Ok(Self { total, threads })
    }

    /// What was used since then. A thread that has ended in between is not counted.
    pub(crate) fn since(&self, then: &Self) -> Duration {
        if self.threads.is_empty() {
            return self.total.saturating_sub(then.total);
        }
        let used = self.threads.iter().map(|(thread, now)| {
            let then = then.threads.get(thread).copied().unwrap_or_default();
            now.saturating_sub(then)
        });
        used.sum()
    }
}

fn threads(pid: u32) -> io::Result<BTreeMap<u32, Duration>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let entry = entry?;
        let Some(thread) = entry.file_name().to_str().and_then(|id| id.parse().ok()) else {
            continue;
        };
        let text = fs::read_to_string(entry.path().join("schedstat"))?;
        let nanoseconds = text.split(' ').next().and_then(|word| word.parse().ok());
        let Some(nanoseconds) = nanoseconds.filter(|time| *time > 0) else {
            continue;
        };
        threads.insert(thread, Duration::from_nanos(nanoseconds));
    }
    Ok(threads)
}

/// The memory of a process in bytes; pages it shares with others count in proportion, where the kernel says so.
pub(crate) fn memory(pid: u32) -> io::Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    if !Path::new(&path).exists() {
        return rss(pid);
    }
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map_or_else(|| rss(pid), |kib| Ok(kib * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_time() {
        let own = std::process::id();
        let before = Cpu::now(own).expect("own figures");
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(50) {}
        let cost = Cpu::now(own).expect("own figures").since(&before);
        assert!(cost > Duration::ZERO && memory(own).is_ok_and(|bytes| bytes > 100_000));
    }
}
