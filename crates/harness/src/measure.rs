//! What a process costs: processor time and memory.

use std::{collections::HashSet, fs, io, path::Path, process::Command, time::Duration};

/// The processor time a process and its threads have used so far, in user and system mode together.
///
/// Linux counts it in ticks of 10 ms; measure over seconds.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    if !has_proc() {
        return ps(pid, "cputime=").and_then(|text| clock(&text).ok_or_else(|| odd(&text)));
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = ticks_in(&stat).ok_or_else(|| odd(&stat))?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis(ticks * 1000 / per_second))
}

/// The memory of a process that is in RAM, in bytes.
pub fn rss(pid: u32) -> io::Result<u64> {
    let kib = if has_proc() {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok())
            .ok_or_else(|| odd(&status))?
    } else {
        let text = ps(pid, "rss=")?;
        text.trim().parse::<u64>().map_err(|_| odd(&text))?
    };
    Ok(kib * 1024)
}

/// How many TCP sockets of a process are connected, or connecting, to a port; `None` where the system does not say.
///
/// The kernel's table is not written in one moment. What is counted was open before it was read and after, so all of it
/// was open at the same time.
pub fn connections_to(pid: u32, port: u16) -> io::Result<Option<usize>> {
    if !has_proc() {
        return Ok(None);
    }
    let before = open_sockets(pid)?;
    let remote = format!(":{port:04X}");
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let connected: HashSet<String> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let is_ours = fields.nth(2)?.ends_with(&remote);
            let inode = fields.nth(6)?;
            is_ours.then(|| format!("socket:[{inode}]"))
        })
        .collect();
    let after = open_sockets(pid)?;
    let throughout = before.intersection(&after);
    Ok(Some(throughout.filter(|s| connected.contains(*s)).count()))
}

/// The sockets among a process's open files.
fn open_sockets(pid: u32) -> io::Result<HashSet<String>> {
    let open = fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(|fd| {
        let target = fs::read_link(fd.ok()?.path()).ok()?;
        let target = target.to_str()?;
        target.starts_with("socket:").then(|| target.to_owned())
    });
    Ok(open.collect())
}

fn has_proc() -> bool {
    Path::new("/proc/self/stat").exists()
}

/// The program's name, in parentheses, may itself hold spaces and parentheses; fields 14 and 15 are the times.
fn ticks_in(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// macOS has no /proc.
fn ps(pid: u32, what: &str) -> io::Result<String> {
    let output = Command::new("ps")
        .args(["-o", what, "-p", &pid.to_string()])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `[[days-]hours:]minutes:seconds[.hundredths]`
fn clock(text: &str) -> Option<Duration> {
    let (days, rest) = match text.trim().split_once('-') {
        Some((days, rest)) => (days.parse::<f64>().ok()?, rest),
        None => (0.0, text.trim()),
    };
    let mut seconds = 0.0;
    for part in rest.split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>().ok()?;
    }
    Some(Duration::from_secs_f64(days * 86_400.0 + seconds))
}

fn odd(text: &str) -> io::Error {
    io::Error::other(format!(
        "cannot read this process's figures: {}",
        text.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_behind_an_odd_name() {
        let stat = "42 (a) b)) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 1 0";
        assert_eq!(ticks_in(stat), Some(300));
    }

    #[test]
    fn reads_the_clock_of_ps() {
        assert_eq!(clock(" 0:01.50\n"), Some(Duration::from_millis(1500)));
        assert_eq!(clock("1-00:00:01"), Some(Duration::from_secs(86_401)));
        assert_eq!(clock(""), None);
    }

    #[test]
    fn this_process_uses_memory() {
        assert!(rss(std::process::id()).expect("own figures") > 100_000);
        assert!(cpu_time(std::process::id()).is_ok());
    }
}
