//! `cargo xtask bench`: pgweir beside PgBouncer and a bare relay, on this machine, in turns.
//!
//! Every peer is started afresh for every run, and the peers take turns within a round: A B C, B C A, ... A machine
//! that is busy with other things disturbs neighbours alike, so ratios are taken within a round, and the median over
//! the rounds is what counts. Costs are processor time of the pooler alone; how many transactions a second there
//! were depends on everything that runs, and is printed for completeness.

mod cost;
mod detail;
mod lines;
mod measure;
mod peer;
mod render;
mod results;
mod workload;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use pgweir_harness::{Cluster, ClusterOptions, Postgres};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    measure::Sample,
    peer::{Peer, PgBouncer, Programs},
    results::{Detail, Machine, Results, Run, load, said},
    workload::{Load, SCALE, WORKLOADS, Workload},
};
use crate::step::{self, Failure, brings_pooler, cargo, target};

/// Clients and servers of the largest workload, with some room.
const FILES_MIN: u64 = 5_500;

/// The page that `--write` writes.
const PAGE: &str = "docs/benchmarks.md";

/// What the user asked for.
#[derive(Debug, Default)]
struct Options {
    rounds: u32,
    seconds: u32,
    /// Beginnings of names of workloads; none means all.
    only: Vec<String>,
    pgbouncer: Option<PathBuf>,
    syscalls: bool,
    callgrind: bool,
    write: bool,
    /// Earlier results to use instead of measuring.
    from: Option<PathBuf>,
    /// Another measurement to set beside this one.
    against: Option<PathBuf>,
}

pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    let options = Options::parse(args)?;
    let results = match &options.from {
        Some(path) => Results::read(path)?,
        None => measure_all(&options)?,
    };
    let against = options.against.as_deref().map(Results::read).transpose()?;
    print!("\n{}", render::tables(&results, against.as_ref()));
    if options.write {
        fs::create_dir_all("docs")?;
        fs::write(PAGE, render::page(&results, against.as_ref()))?;
        println!("\nWritten to {PAGE}.");
    }
    Ok(())
}

impl Options {
    fn parse(args: &[&str]) -> Result<Self, Failure> {
        let mut options = Self {
            rounds: 5,
            seconds: 5,
            ..Self::default()
        };
        let mut args = args.iter().copied();
        while let Some(name) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| Failure::new(format!("{name} takes a value")))
            };
            match name {
                "--quick" => (options.rounds, options.seconds) = (2, 3),
                "--rounds" => options.rounds = number(name, value()?, 1)?,
                "--seconds" => options.seconds = number(name, value()?, 3)?,
                "--only" => options.only.push(known(value()?)?),
                "--pgbouncer" => options.pgbouncer = Some(value()?.into()),
                "--syscalls" => options.syscalls = true,
                "--callgrind" => options.callgrind = true,
                "--write" => options.write = true,
                "--from" => options.from = Some(value()?.into()),
                "--against" => options.against = Some(value()?.into()),
                unknown => return Err(Failure::usage(unknown)),
            }
        }
        Ok(options)
    }

    fn workloads(&self) -> impl Iterator<Item = &'static Workload> {
        let wanted = |workload: &&Workload| {
            let mut beginnings = self.only.iter();
            self.only.is_empty() || beginnings.any(|start| workload.name.starts_with(start))
        };
        WORKLOADS.iter().filter(wanted)
    }
}

fn number(name: &str, text: &str, min: u32) -> Result<u32, Failure> {
    let number = text.parse().ok().filter(|number| *number >= min);
    number.ok_or_else(|| Failure::new(format!("{name} takes a number, {min} or more")))
}

fn known(start: &str) -> Result<String, Failure> {
    if WORKLOADS.iter().any(|it| it.name.starts_with(start)) {
        return Ok(start.to_owned());
    }
    let names: Vec<&str> = WORKLOADS.iter().map(|it| it.name).collect();
    let names = names.join(" ");
    Err(Failure::new(format!(
        "no workload begins with {start}; there are {names}"
    )))
}

fn measure_all(options: &Options) -> Result<Results, Failure> {
    let postgres = step::postgres()?;
    if let Some(missing) = postgres.missing() {
        return Err(Failure::new(format!(
            "the benchmarks need {missing}, which {postgres} comes without"
        )));
    }
    raise_file_limit()?;
    let bench = Bench {
        programs: programs(options.pgbouncer.as_deref())?,
        cluster: cluster(postgres.clone())?,
    };
    let mut results = Results {
        date: said("date", &["-u", "+%Y-%m-%d %H:%M"]),
        machine: Machine::this(),
        versions: bench.versions(&postgres),
        rounds: options.rounds,
        seconds: options.seconds,
        runs: Vec::new(),
        skipped: Vec::new(),
        details: Vec::new(),
    };
    println!("{}", results.versions.join("\n"));
    let file = results_file(&results.date)?;
    for workload in options.workloads() {
        bench.workload(workload, options, &mut results);
        bench.details(workload, options, &mut results);
        results.machine.load_after = load();
        // After each workload, so that an interrupted run leaves what it has.
        results.write(&file)?;
    }
    println!("\nAll figures are in {}.", file.display());
    Ok(results)
}

/// Children inherit the limit.
pub(crate) fn raise_file_limit() -> Result<(), Failure> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Some(maximum) = maximum.filter(|maximum| *maximum < FILES_MIN) {
        return Err(Failure::new(format!(
            "the benchmarks open {FILES_MIN} connections, but a process here may open {maximum} files at most; \
             raise the hard limit (as root: ulimit -Hn {FILES_MIN}) or leave the large workloads out with --only"
        )));
    }
    let current = maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}

/// Builds pgweir, unless the caller brings a pooler, and the programs beside it.
pub(crate) fn programs(pgbouncer: Option<&Path>) -> Result<Programs, Failure> {
    // One by one: built together, they would share the features of their dependencies.
    step::run(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "pgweir-benches",
    ]))?;
    if !brings_pooler() {
        step::run(&mut cargo(&[
            "build",
            "--profile",
            "dist",
            "--package",
            "pgweir",
        ]))?;
    }
    let target = target()?;
    let folder = target.join("release");
    let own = target.join("dist").join("pgweir");
    Ok(Programs {
        pgweir: match env::var_os("PGWEIR_BIN").filter(|_| brings_pooler()) {
            Some(path) => path.into(),
            None => own,
        },
        muxrelay: folder.join("muxrelay"),
        load: folder.join("load"),
        pgbouncer: PgBouncer::find(pgbouncer)?,
    })
}

fn results_file(date: &str) -> Result<PathBuf, Failure> {
    let name: String = date
        .chars()
        .map(|c| if c.is_ascii_digit() { c } else { '-' })
        .collect();
    Ok(bench_folder()?.join(format!("{name}.json")))
}

/// Where results are kept.
fn bench_folder() -> Result<PathBuf, Failure> {
    let folder = target()?.join("bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn cluster(postgres: Postgres) -> Result<Cluster, Failure> {
    println!("Starting a throwaway PostgreSQL and filling pgbench's tables.");
    let conf = [
        "shared_buffers = 512MB",
        // Results are made from a list of numbers that must not touch a disk.
        "work_mem = 64MB",
        "max_wal_size = 8GB",
        "checkpoint_timeout = 1h",
        "autovacuum = off",
    ];
    let options = ClusterOptions {
        conf: conf.map(str::to_owned).into(),
        in_memory: true,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start_with(postgres, options)?;
    let scale = SCALE.to_string();
    cluster
        .endpoint()
        .pgbench("postgres", &["-i", "-q", "-s", &scale])?;
    cluster.try_psql("postgres", "CREATE UNLOGGED TABLE sink (line text)")?;
    Ok(cluster)
}

/// What is needed to run anything.
#[derive(Debug)]
struct Bench {
    programs: Programs,
    cluster: Cluster,
}

impl Bench {
    fn versions(&self, postgres: &Postgres) -> Vec<String> {
        let revision = said("git", &["describe", "--always", "--dirty"]);
        let pgbouncer = self.programs.pgbouncer.as_ref();
        vec![
            format!("pgweir at commit {revision}"),
            pgbouncer.map_or_else(
                || "no PgBouncer: none in PATH or /usr/sbin".to_owned(),
                |it| it.version.clone(),
            ),
            format!("PostgreSQL {} with its own pgbench", postgres.version),
        ]
    }

    /// All rounds of one workload.
    fn workload(&self, workload: &Workload, options: &Options, results: &mut Results) {
        println!("\n{}: {}", workload.name, workload.what);
        let peers = self.able(workload, results);
        for round in 0..options.rounds {
            let mut order = peers.clone();
            let first = round as usize % order.len().max(1);
            order.rotate_left(first);
            for peer in order {
                match self.once(peer, workload, options.seconds) {
                    Ok(sample) => {
                        println!(
                            "  {round} {peer:<10} {}",
                            described(&workload.load, &sample)
                        );
                        results.runs.push(Run {
                            workload: workload.name.to_owned(),
                            peer,
                            round,
                            sample,
                        });
                    }
                    Err(failure) => {
                        let text = format!("{}, {peer}: {failure}", workload.name);
                        println!("  {round} {text}");
                        results.skipped.push(text);
                    }
                }
            }
        }
    }

    fn able(&self, workload: &Workload, results: &mut Results) -> Vec<Peer> {
        let mut able = Vec::new();
        for peer in Peer::ALL {
            match peer::unable(peer, workload, &self.programs) {
                None => able.push(peer),
                Some(why) => {
                    println!("  without {peer}: {why}");
                    let text = format!("{}, {peer}: {why}", workload.name);
                    results.skipped.push(text);
                }
            }
        }
        able
    }

    fn once(&self, peer: Peer, workload: &Workload, seconds: u32) -> Result<Sample, Failure> {
        let running = peer::start(peer, workload, &self.programs, &self.cluster)?;
        measure::run(workload, &running, &self.programs.load, seconds).map_err(|failure| {
            let log = running.log();
            Failure::new(format!("{failure}\nits log ends with:\n{log}"))
        })
    }

    /// Counts of system calls and instructions, where asked for.
    fn details(&self, workload: &Workload, options: &Options, results: &mut Results) {
        // With a thousand clients the logins would count for more than the transactions.
        let few = matches!(workload.load, Load::Pgbench { clients, .. } if clients <= 64);
        let peers = Peer::ALL.into_iter();
        for peer in peers.filter(|peer| peer::unable(*peer, workload, &self.programs).is_none()) {
            let (programs, cluster) = (&self.programs, &self.cluster);
            let mut add = |counted: Result<Detail, Failure>| match counted {
                Ok(detail) => {
                    println!("  {peer}: {}", render::counts(&detail));
                    results.details.push(detail);
                }
                Err(failure) => println!("  {peer}: {failure}"),
            };
            if options.syscalls && few {
                add(detail::syscalls(peer, workload, programs, cluster));
            }
            if options.callgrind && few {
                let kept = bench_folder().and_then(|keep| {
                    detail::instructions(peer, workload, programs, cluster, &keep)
                });
                add(kept);
            }
        }
    }
}

/// One run in one line.
fn described(load: &Load, sample: &Sample) -> String {
    let mut line = format!("{:8.2} {}", sample.cost, load.unit());
    if let (Some(rate), Some(unit)) = (sample.rate, load.rate()) {
        line += &format!(", {rate:8.0} {unit}");
    }
    if let (Some(p50), Some(p99)) = (sample.p50_ms, sample.p99_ms) {
        line += &format!(", p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_workloads_by_the_beginning_of_their_names() {
        let options = Options::parse(&["--only", "copy", "--rounds", "3"]).expect("all known");
        let names: Vec<&str> = options.workloads().map(|it| it.name).collect();
        assert_eq!((names, options.rounds), (vec!["copy_out", "copy_in"], 3));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(Options::parse(&["--only", "nothing"]).is_err());
        assert!(Options::parse(&["--rounds", "0"]).is_err());
        assert!(Options::parse(&["--slow"]).is_err());
    }
}
