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

use pgweir_harness::{Cluster, Signal};
use rustix::process::{Pid, kill_process};

use super::{
    lines::Lines,
    measure::pgbench_command,
    peer::{self, Peer, Programs, Running},
    results::Detail,
    workload::{Load, Workload},
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

/// Counts system calls with perf.
pub(crate) fn syscalls(
    peer: Peer,
    workload: &Workload,
    programs: &Programs,
    cluster: &Cluster,
) -> Result<Detail, Failure> {
    let Load::Pgbench { clients, args } = &workload.load else {
        return Err(Failure::new("system calls are counted under pgbench only"));
    };
    let running = peer::start(peer, workload, programs, cluster)?;
    let names = SYSCALLS.iter().flat_map(|(_, names)| *names);
    let events: Vec<String> = names
        .map(|name| format!("syscalls:sys_enter_{name}"))
        .chain(["raw_syscalls:sys_enter".to_owned()])
        .collect();
    let mut command = Command::new("perf");
    command.args(["stat", "-x", ",", "-e", &events.join(",")]);
    command.args(["-p", &running.pid.to_string()]);
    let perf = Lines::spawn(&mut command, LIMIT)?;
    // It says nothing when it has attached itself.
    std::thread::sleep(Duration::from_millis(700));
    transactions(&running, *clients, args, SYSCALL_TRANSACTIONS)?;
    send(perf.pid(), Signal::INT);
    // Its status says that it was interrupted.
    let said = perf.rest()?;
    let total = f64::from(clients * SYSCALL_TRANSACTIONS);
    let mut counts: BTreeMap<String, f64> = BTreeMap::new();
    for (count, event) in said.iter().filter_map(|line| counted(line)) {
        let kind = event.rsplit("sys_enter_").next().unwrap_or(event);
        let known = SYSCALLS.iter().find(|(_, names)| names.contains(&kind));
        let name = known.map_or("all", |(name, _)| name);
        *counts.entry(format!("syscalls {name}")).or_default() += count / total;
    }
    if counts.is_empty() {
        return Err(Failure::new(format!("perf says: {}", said.join(" "))));
    }
    Ok(detail(peer, workload, counts))
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
    programs: &Programs,
    cluster: &Cluster,
    keep: &Path,
) -> Result<Detail, Failure> {
    let Load::Pgbench { clients, args } = &workload.load else {
        return Err(Failure::new("instructions are counted under pgbench only"));
    };
    let folder = PathBuf::from(format!("/tmp/pgweir-callgrind-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    // The pooler writes there too, as another user if we are root.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
    let [short, long] = CALLGRIND_TRANSACTIONS;
    let count = |each: u32| -> Result<f64, Failure> {
        let out = folder.join(file_name(workload, peer, each));
        let wrapped = under_valgrind(programs, peer, &folder, &out)?;
        let mut running = peer::start(peer, workload, &wrapped, cluster)?;
        transactions(&running, *clients, args, each)?;
        // The poolers end when they have no clients; the relay has no handler and just ends.
        send(running.pid, Signal::TERM);
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
    let each = more / f64::from(clients * (long - short));
    let counts = BTreeMap::from([("instructions".to_owned(), each)]);
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
    match peer {
        Peer::Pgweir => programs.pgweir = wrap(&programs.pgweir)?,
        Peer::Muxrelay => programs.muxrelay = wrap(&programs.muxrelay)?,
        Peer::PgBouncer => {
            if let Some(pgbouncer) = &mut programs.pgbouncer {
                pgbouncer.path = wrap(&pgbouncer.path)?;
            }
        }
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

fn transactions(running: &Running, clients: u32, args: &[&str], each: u32) -> Result<(), Failure> {
    let mut command = pgbench_command(running, clients, args, &["-t", &each.to_string()])?;
    Lines::spawn(&mut command, LIMIT)?.finish().map(|_| ())
}

fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // Whoever has ended already needs no signal.
        let _ = kill_process(pid, signal);
    }
}

fn detail(peer: Peer, workload: &Workload, counts: BTreeMap<String, f64>) -> Detail {
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
}
