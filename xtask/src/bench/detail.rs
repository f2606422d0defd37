//! Counts that need a run of their own: system calls and instructions, per transaction.
//!
//! They hardly depend on how busy the machine is, so one run is enough.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pgweir_harness::Signal;
use rustix::process::{Pid, kill_process};

use super::{
    lines::Lines,
    peer::{Peer, Programs},
    pgbench,
    results::Detail,
    start::{self, Running, Scene},
    workload::{Pgbench, Workload},
};
use crate::step::Failure;

const LIMIT: Duration = Duration::from_secs(300);

/// Transactions per client; valgrind is fifty times slower than the processor.
const SYSCALL_TRANSACTIONS: u32 = 2000;
const CALLGRIND_TRANSACTIONS: [u32; 2] = [50, 250];

/// By the names of the kernel's trace points; a name stands for one way to do a thing.
const SYSCALLS: [(&str, &[&str]); 5] = [
    ("read", &["read", "readv", "recvfrom", "recvmsg"]),
    ("write", &["write", "writev", "sendto", "sendmsg"]),
    ("epoll_wait", &["epoll_wait", "epoll_pwait", "epoll_pwait2"]),
    ("epoll_ctl", &["epoll_ctl"]),
    ("futex", &["futex"]),
];

/// Counts system calls with perf, or where the kernel does not let it, with strace.
pub(crate) fn syscalls(
    peer: Peer,
    workload: &Workload,
    pgbench: &Pgbench,
    scene: &Scene,
) -> Result<Detail, Failure> {
    let by_perf = by_perf(peer, workload, pgbench, scene);
    let said = match by_perf {
        Ok(counts) => return Ok(detail(peer, workload, counts)),
        Err(failure) => failure,
    };
    let counts = by_strace(peer, workload, pgbench, scene).map_err(|failure| {
        Failure::new(format!(
            "system calls are NOT COUNTED: perf: {said}; strace: {failure}"
        ))
    })?;
    Ok(detail(peer, workload, counts))
}

type Counts = BTreeMap<String, f64>;

/// Exact, and nearly free for whom is counted.
fn by_perf(
    peer: Peer,
    workload: &Workload,
    pgbench: &Pgbench,
    scene: &Scene,
) -> Result<Counts, Failure> {
    let names = SYSCALLS.iter().flat_map(|(_, names)| *names);
    let events: Vec<String> = names
        .map(|name| format!("syscalls:sys_enter_{name}"))
        .chain(["raw_syscalls:sys_enter".to_owned()])
        .collect();
    let events = events.join(",");
    let args = ["stat", "-x", ",", "-e", &events, "-p"];
    let said = watched("perf", &args, peer, workload, pgbench, scene)?;
    let total = f64::from(pgbench.clients * SYSCALL_TRANSACTIONS);
    let mut counts = Counts::new();
    for (count, event) in said.iter().filter_map(|line| counted(line)) {
        let kind = event.rsplit("sys_enter_").next().unwrap_or(event);
        *counts.entry(key(kind)).or_default() += count / total;
    }
    not_empty(counts, &said)
}

/// Ten times slower for whom is counted, so that more is done at once and the counts are somewhat lower.
fn by_strace(
    peer: Peer,
    workload: &Workload,
    pgbench: &Pgbench,
    scene: &Scene,
) -> Result<Counts, Failure> {
    let said = watched(
        "strace",
        &["-f", "-c", "-p"],
        peer,
        workload,
        pgbench,
        scene,
    )?;
    let total = f64::from(pgbench.clients * SYSCALL_TRANSACTIONS);
    let mut counts = Counts::new();
    for (count, name) in said.iter().filter_map(|line| traced(line)) {
        let key = if name == "total" {
            key("sys_enter")
        } else {
            key(name)
        };
        *counts.entry(key).or_default() += count / total;
    }
    counts.retain(|name, _| name != OTHER);
    not_empty(counts, &said)
}

/// What a program says that has watched the pooler during so many transactions.
fn watched(
    program: &str,
    args: &[&str],
    peer: Peer,
    workload: &Workload,
    pgbench: &Pgbench,
    scene: &Scene,
) -> Result<Vec<String>, Failure> {
    let running = start::start(peer, workload, &scene.programs, scene)?;
    if running.pids.is_empty() {
        return Err(Failure::new("no pooler"));
    }
    let pids: Vec<String> = running.pids.iter().map(u32::to_string).collect();
    let mut command = Command::new(program);
    let watcher = Lines::spawn(command.args(args).arg(pids.join(",")), LIMIT)?;
    // It says nothing when it has attached itself.
    std::thread::sleep(Duration::from_millis(700));
    transactions(&running, pgbench, SYSCALL_TRANSACTIONS)?;
    send(watcher.pid(), Signal::INT);
    // Its status says that it was interrupted.
    watcher.rest()
}

fn not_empty(counts: Counts, said: &[String]) -> Result<Counts, Failure> {
    match counts.contains_key("syscalls all") {
        true => Ok(counts),
        false => Err(Failure::new(said.join(" "))),
    }
}

/// Calls that have no row of their own.
const OTHER: &str = "syscalls other";

/// The name under which a kind of call is counted; `sys_enter` stands for all.
fn key(kind: &str) -> String {
    let known = SYSCALLS.iter().find(|(_, names)| names.contains(&kind));
    match known {
        Some((name, _)) => format!("syscalls {name}"),
        None if kind.ends_with("sys_enter") => "syscalls all".to_owned(),
        None => OTHER.to_owned(),
    }
}

/// ` 50.00    0.001000           1      1000        10 read`, with or without errors before the name.
fn traced(line: &str) -> Option<(f64, &str)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    if words.len() < 5 {
        return None;
    }
    let count = words[3].parse().ok()?;
    words[0].parse::<f64>().ok()?;
    words.last().map(|name| (count, *name))
}

/// `12345,,syscalls:sys_enter_read,100000,100.00,,`
fn counted(line: &str) -> Option<(f64, &str)> {
    let mut fields = line.split(',');
    let count = fields.next()?.parse().ok()?;
    Some((count, fields.nth(1)?))
}

/// Counts instructions in user space with callgrind: what a longer run takes more than a shorter one. The file of
/// the longer one is kept, for callgrind_annotate.
pub(crate) fn instructions(
    peer: Peer,
    workload: &Workload,
    pgbench: &Pgbench,
    scene: &Scene,
    keep: &Path,
) -> Result<Detail, Failure> {
    let folder = PathBuf::from(format!("/tmp/pgweir-callgrind-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    // The pooler writes there too, as another user if we are root.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    let [short, long] = CALLGRIND_TRANSACTIONS;
    let count = |each: u32| -> Result<f64, Failure> {
        let out = folder.join(file_name(workload, peer, each));
        let wrapped = under_valgrind(&scene.programs, peer, &folder, &out)?;
        let mut running = start::start(peer, workload, &wrapped, scene)?;
        transactions(&running, pgbench, each)?;
        // The poolers end when they have no clients; the relay has no handler and just ends.
        for pid in &running.pids {
            send(*pid, Signal::TERM);
        }
        running.wait_for_exit(LIMIT);
        summary(&out)
    };
    let more = count(long)? - count(short)?;
    let name = format!("{}.{peer}.callgrind", workload.name);
    fs::copy(
        folder.join(file_name(workload, peer, long)),
        keep.join(name),
    )?;
    fs::remove_dir_all(&folder)?;
    let each = more / f64::from(pgbench.clients * (long - short));
    let counts = Counts::from([("instructions".to_owned(), each)]);
    Ok(detail(peer, workload, counts))
}

fn file_name(workload: &Workload, peer: Peer, each: u32) -> String {
    format!("{}.{peer}.{each}.callgrind", workload.name)
}

/// The same programs, one of them run by valgrind through a script of two lines.
fn under_valgrind(
    programs: &Programs,
    peer: Peer,
    folder: &Path,
    out: &Path,
) -> Result<Programs, Failure> {
    let wrap = |binary: &Path| -> Result<PathBuf, Failure> {
        let script = folder.join(format!("valgrind-{peer}.sh"));
        let text = format!(
            "#!/bin/sh\nexec valgrind -q --tool=callgrind --callgrind-out-file={} {} \"$@\"\n",
            out.display(),
            binary.display()
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        Ok(script)
    };
    let mut programs = programs.clone();
    let foreign = match peer {
        Peer::Pgweir | Peer::Pgweir2 | Peer::PgweirUnnamed => {
            programs.pgweir = wrap(&programs.pgweir)?;
            None
        }
        Peer::Muxrelay => {
            programs.muxrelay = wrap(&programs.muxrelay)?;
            None
        }
        Peer::PgBouncer | Peer::PgBouncer2 | Peer::PgBouncer64k => programs.pgbouncer.as_mut(),
        Peer::Pgcat => programs.pgcat.as_mut(),
        Peer::Odyssey => programs.odyssey.as_mut(),
        Peer::Direct => None,
    };
    if let Some(program) = foreign {
        program.path = wrap(&program.path)?;
    }
    Ok(programs)
}

/// The number of instructions in callgrind's file.
fn summary(path: &Path) -> Result<f64, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("callgrind's {}: {error}", path.display())))?;
    let line = text.lines().find_map(|line| line.strip_prefix("summary:"));
    let count = line.and_then(|rest| rest.trim().parse().ok());
    count.ok_or_else(|| Failure::new(format!("{} has no summary", path.display())))
}

fn transactions(running: &Running, pgbench: &Pgbench, each: u32) -> Result<(), Failure> {
    let mut command = pgbench::command(running, pgbench, &["-t", &each.to_string()])?;
    Lines::spawn(&mut command, LIMIT)?.finish().map(|_| ())
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Whoever has ended already needs no signal.
        let _ = kill_process(pid, signal);
    }
}

fn detail(peer: Peer, workload: &Workload, counts: Counts) -> Detail {
    Detail {
        workload: workload.name.to_owned(),
        peer,
        counts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_perf_counted() {
        let line = "12345,,syscalls:sys_enter_read,100000,100.00,,";
        assert_eq!(counted(line), Some((12345.0, "syscalls:sys_enter_read")));
        assert_eq!(counted("<not counted>,,syscalls:sys_enter_readv,0,,"), None);
    }

    #[test]
    fn reads_what_strace_counted() {
        let with_errors = " 50.00    0.001000           1      1000        10 recvfrom";
        assert_eq!(traced(with_errors), Some((1000.0, "recvfrom")));
        let total = "100.00    0.002000           1      2000           total";
        assert_eq!(traced(total), Some((2000.0, "total")));
        assert_eq!(
            traced("% time     seconds  usecs/call     calls    errors syscall"),
            None
        );
        assert_eq!(key("recvfrom"), "syscalls read");
        assert_eq!(key("raw_syscalls:sys_enter"), "syscalls all");
        assert_eq!(key("brk"), OTHER);
    }
}
