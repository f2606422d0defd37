//! What it costs to be looked at: pgbench runs without a break, and in every other two seconds somebody reads
//! `/metrics` each second and `/status.json` in one of them, as a Prometheus and a browser do.
//!
//! Both kinds of seconds belong to one process and lie side by side, so that a hundredth can be seen at all.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use super::{
    cost::Usage,
    measure::Sample,
    pgbench::{Progress, no_progress, watched},
    start::Running,
    workload::Pgbench,
};
use crate::step::Failure;

/// A run lasts so many times as long as others: what is looked for is small.
const LONGER: u32 = 5;

/// How long a page may take.
const PAGE_MAX: Duration = Duration::from_secs(5);

/// Seconds of one kind, added up.
#[derive(Clone, Copy, Debug, Default)]
struct Seconds {
    cpu: Duration,
    transactions: f64,
}

impl Seconds {
    fn each(self) -> f64 {
        self.cpu.as_secs_f64() / self.transactions
    }
}

/// What somebody reads when second number `second` begins.
fn pages(second: u32) -> &'static [&'static str] {
    match second % 4 {
        1 => &["/metrics"],
        2 => &["/metrics", "/status.json"],
        _ => &[],
    }
}

/// The cost is the processor time per transaction while pages are read, in terms of that while they are not.
pub(crate) fn run(running: &Running, pgbench: &Pgbench, seconds: u32) -> Result<Sample, Failure> {
    let Some(socket) = running.pages() else {
        return Err(Failure::new("there are no pages to read"));
    };
    let mut lines = watched(running, pgbench, seconds * LONGER)?;
    let (mut unread, mut read) = (Seconds::default(), Seconds::default());
    let mut before: Option<(Progress, Usage)> = None;
    let (mut second, mut time) = (0, 0.0);
    while let Some(line) = lines.next()? {
        let Some(progress) = Progress::parse(&line) else {
            continue;
        };
        let usage = Usage::now(&running.pids)?;
        if let Some((last, then)) = &before {
            let kind = match pages(second).is_empty() {
                true => &mut unread,
                false => &mut read,
            };
            let took = progress.at - last.at;
            kind.cpu += usage.since(then).cpu;
            kind.transactions += progress.tps * took;
            time += took;
            second += 1;
        }
        before = Some((progress, usage));
        for page in pages(second) {
            get(&socket, page)?;
        }
    }
    let said = lines.finish()?;
    if unread.transactions == 0.0 || read.transactions == 0.0 {
        return Err(no_progress(&said));
    }
    Ok(Sample {
        cost: Some(read.each() / unread.each()),
        rate: Some((unread.transactions + read.transactions) / time),
        ..Sample::default()
    })
}

fn get(socket: &Path, page: &str) -> Result<(), Failure> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PAGE_MAX))?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    match answer.starts_with(b"HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(Failure::new(format!("{page} is not to be had"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_of_both_kinds_lie_evenly() {
        let reads: Vec<usize> = (0..8).map(|second| pages(second).len()).collect();
        assert_eq!(reads, [0, 1, 2, 0, 0, 1, 2, 0]);
    }
}
