//! `cargo xtask bench`: pgweir beside other poolers, a bare relay and PostgreSQL alone, on this machine, in turns.
//!
//! Every peer is started afresh for every run, and the peers take turns within a round: A B C, B C A, ... A machine
//! that is busy with other things disturbs neighbours alike, so ratios are taken within a round, and the median over
//! the rounds is what counts. Costs are processor time of the pooler alone; how many transactions a second there
//! were depends on everything that runs.

mod cost;
mod detail;
mod foreign;
mod goals;
mod lines;
mod material;
mod measure;
mod options;
mod page;
mod peer;
mod pgbench;
mod plot;
mod results;
mod scraped;
mod start;
mod svg;
mod tables;
mod turns;
mod workload;
mod workloads;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use pgweir_harness::{Cluster, ClusterOptions, Postgres, Tls};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(crate) use self::peer::Asked;
use self::{
    material::{Certificates, Secrets},
    measure::Sample,
    options::Options,
    peer::{Peer, Program, Programs},
    results::{Detail, Machine, Results, Run, load, said},
    start::Scene,
    turns::turns,
    workload::{Load, SCALE, Workload},
};
use crate::dist;
use crate::step::{self, Failure, brings_pooler, cargo, target};

/// What `--write` writes.
const PAGE: &str = "docs/benchmarks.md";
const PICTURES: &str = "docs/benchmarks";

/// Backends of the poolers, and of clients that come directly.
const MAX_CONNECTIONS: u32 = 200;

/// Workloads whose system calls are always counted, because there is a goal.
const COUNTED: [&str; 2] = ["select_simple_16", "select_simple_64"];

pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    let options = Options::parse(args)?;
    let results = match options.from.as_slice() {
        [] => measure_all(&options)?,
        [first, later @ ..] => Results::read_all(first, later)?,
    };
    let against = options.against.as_deref().map(Results::read).transpose()?;
    print!("\n{}", page::summary(&results, against.as_ref()));
    if options.write {
        fs::create_dir_all(PICTURES)?;
        let pictures = plot::pictures(&results);
        for picture in &pictures {
            fs::write(Path::new(PICTURES).join(&picture.file), &picture.svg)?;
        }
        fs::write(PAGE, page::page(&results, against.as_ref(), &pictures))?;
        println!("\nWritten to {PAGE} and {PICTURES}.");
    }
    Ok(())
}

fn measure_all(options: &Options) -> Result<Results, Failure> {
    let postgres = step::postgres()?;
    if let Some(missing) = postgres.missing() {
        return Err(Failure::new(format!(
            "the benchmarks need {missing}, which {postgres} comes without"
        )));
    }
    let bench = Bench::prepare(programs(&options.asked)?, &postgres)?;
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
        if let Some(why) = bench.beyond_limits(workload) {
            println!("\n{}: NOT MEASURED: {why}", workload.name);
            results
                .skipped
                .push(format!("{}, everybody: {why}", workload.name));
            continue;
        }
        bench.workload(workload, options, &mut results);
        bench.details(workload, options, &mut results);
        results.machine.load_after = load();
        // After each workload, so that an interrupted run leaves what it has.
        results.write(&file)?;
    }
    println!("\nAll figures are in {}.", file.display());
    Ok(results)
}

/// Children inherit the limit, which is what it gives.
pub(crate) fn raise_file_limit() -> Result<u64, Failure> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum })?;
    Ok(maximum.unwrap_or(u64::MAX))
}

/// Builds what is shipped, unless the caller brings a pooler, and the programs beside it.
pub(crate) fn programs(asked: &Asked) -> Result<Programs, Failure> {
    let pgweir = match env::var_os("PGWEIR_BIN").filter(|_| brings_pooler()) {
        Some(path) => path.into(),
        None => dist::build()?,
    };
    beside(pgweir, asked)
}

/// The programs beside a pgweir.
fn beside(pgweir: PathBuf, asked: &Asked) -> Result<Programs, Failure> {
    step::run(&mut cargo(&[
        "build",
        "--release",
        "--package",
        "pgweir-benches",
    ]))?;
    let folder = target()?.join("release");
    Ok(Programs {
        pgweir,
        muxrelay: folder.join("muxrelay"),
        load: folder.join("load"),
        pgbouncer: Program::find("pgbouncer", asked.pgbouncer.as_deref())?,
        pgcat: Program::find("pgcat", asked.pgcat.as_deref())?,
        odyssey: Program::find("odyssey", asked.odyssey.as_deref())?,
    })
}

/// Lets a pgweir do what is measured otherwise, so that it can be watched.
pub(crate) fn exercise(pgweir: &Path, workloads: &[&str], seconds: u32) -> Result<(), Failure> {
    let bench = Bench::prepare(
        beside(pgweir.into(), &Asked::default())?,
        &step::postgres()?,
    )?;
    for name in workloads {
        let unknown = || Failure::new(format!("there is no workload {name}"));
        let workload = workloads::find(name).ok_or_else(unknown)?;
        println!("  {name}");
        bench.once(Peer::Pgweir, workload, seconds)?;
    }
    Ok(())
}

/// Whether there is a workload of this name.
#[cfg(test)]
pub(crate) fn has_workload(name: &str) -> bool {
    workloads::find(name).is_some()
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

fn cluster(postgres: Postgres, tls: Tls) -> Result<Cluster, Failure> {
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
        max_connections: MAX_CONNECTIONS,
        conf: conf.map(str::to_owned).into(),
        in_memory: true,
        // Used by those who ask for it only.
        tls: Some(tls),
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
    scene: Scene,
    /// That a process may open.
    files: u64,
}

impl Bench {
    fn prepare(programs: Programs, postgres: &Postgres) -> Result<Self, Failure> {
        let files = raise_file_limit()?;
        let certificates = Certificates::make()?;
        let cluster = cluster(postgres.clone(), certificates.for_server())?;
        let scene = Scene {
            secrets: Secrets::make(&cluster)?,
            programs,
            cluster,
            certificates,
        };
        Ok(Self { scene, files })
    }

    fn versions(&self, postgres: &Postgres) -> Vec<String> {
        let programs = &self.scene.programs;
        // Its first line is the version of PgBouncer that it replaces.
        let given = said(&programs.pgweir.to_string_lossy(), &["--version"]);
        let given = given.lines().find(|line| line.starts_with("pgweir"));
        let revision = said("git", &["describe", "--always", "--dirty"]);
        let pgweir = match given.filter(|_| brings_pooler()) {
            Some(version) => format!("{version} as it was given"),
            None => format!("pgweir at commit {revision}"),
        };
        let others = [&programs.pgbouncer, &programs.pgcat, &programs.odyssey];
        let others = others.into_iter().flatten().map(|it| it.version.clone());
        let postgres = format!("PostgreSQL {} with its own pgbench", postgres.version);
        let mut versions = vec![pgweir];
        versions.extend(others);
        versions.push(postgres);
        versions.extend(programs.absent());
        versions
    }

    /// What this machine does not allow, if that stands in the way.
    fn beyond_limits(&self, workload: &Workload) -> Option<String> {
        let needed = workload.files();
        (self.files < needed).then(|| {
            format!(
                "a process needs {needed} open files and may have {}; raise the hard limit \
                 (as root: ulimit -Hn {needed})",
                self.files
            )
        })
    }

    /// All rounds of one workload.
    fn workload(&self, workload: &Workload, options: &Options, results: &mut Results) {
        println!("\n{}: {}", workload.name, workload.what);
        let peers = self.able(workload, options, results);
        for round in 0..options.rounds {
            for peer in turns(&peers, round as usize) {
                match self.once(peer, workload, options.seconds) {
                    Ok(sample) => {
                        let line = described(&workload.load, &sample);
                        println!("  {round} {peer:<13} {line}");
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

    fn able(&self, workload: &Workload, options: &Options, results: &mut Results) -> Vec<Peer> {
        let programs = &self.scene.programs;
        let everything = options.all || !options.only.is_empty();
        let wanted = |peer: &Peer| {
            options.wants(*peer) && programs.have(*peer) && peer.takes_part(workload, everything)
        };
        let mut able = Vec::new();
        for peer in Peer::ALL.into_iter().filter(wanted) {
            match peer::unable(peer, workload, programs) {
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
        let running = start::start(peer, workload, &self.scene.programs, &self.scene)?;
        measure::run(peer, workload, &running, &self.scene, seconds).map_err(|failure| {
            let log = running.log();
            Failure::new(format!("{failure}\nits log ends with:\n{log}"))
        })
    }

    /// Counts of system calls and instructions.
    fn details(&self, workload: &Workload, options: &Options, results: &mut Results) {
        let Some(pgbench) = workload.can_be_counted() else {
            return;
        };
        let ran = |peer: &Peer| {
            let of = |run: &Run| run.workload == workload.name && run.peer == *peer;
            *peer != Peer::Direct && results.runs.iter().any(of)
        };
        let peers: Vec<Peer> = Peer::ALL.into_iter().filter(ran).collect();
        for peer in peers {
            let mut add = |counted: Result<Detail, Failure>| match counted {
                Ok(detail) => {
                    println!("  {peer}: {}", tables::counts(&detail));
                    results.details.push(detail);
                }
                Err(failure) => {
                    println!("  {peer}: {failure}");
                    results
                        .skipped
                        .push(format!("{}, {peer}: {failure}", workload.name));
                }
            };
            if options.syscalls || COUNTED.contains(&workload.name) {
                add(detail::syscalls(peer, workload, &pgbench, &self.scene));
            }
            if options.callgrind {
                let kept = bench_folder().and_then(|keep| {
                    detail::instructions(peer, workload, &pgbench, &self.scene, &keep)
                });
                add(kept);
            }
        }
    }
}

/// One run in one line.
fn described(load: &Load, sample: &Sample) -> String {
    let mut line = match sample.cost {
        Some(cost) => format!("{cost:8.3} {}", load.unit()),
        None => "no pooler".to_owned(),
    };
    if let (Some(rate), Some(unit)) = (sample.rate, load.rate()) {
        line += &format!(", {rate:8.0} {unit}");
    }
    if let (Some(p50), Some(p99)) = (sample.p50_ms, sample.p99_ms) {
        line += &format!(", p50 {p50:.2} ms, p99 {p99:.2} ms");
    }
    if let (Some(alone), Some(elsewhere)) = (sample.to_alone, sample.to_elsewhere) {
        line += &format!(
            ", p99 {alone:.2} times that alone, {elsewhere:.2} times that beside them elsewhere"
        );
    }
    line
}
