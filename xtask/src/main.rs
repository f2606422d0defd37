//! The project's commands, one module each: `cargo xtask help` lists them.
//!
//! They are Rust and not shell so that they work the same on every machine that can build pgweir.

#![forbid(unsafe_code)]

mod bench;
mod check;
mod counts;
mod demo;
mod dist;
mod docs;
mod fuzz;
mod overload;
mod pure;
mod step;
mod test;

use std::process::ExitCode;

use step::Failure;

const HELP: &str = "\
usage: cargo xtask COMMAND

  test [ARGS]          build pgweir and run all tests against a real PostgreSQL, which is
                       installed if there is none; ARGS go to `cargo test`
  demo [OPTIONS]       a throwaway PostgreSQL, pgweir in front of it, and many clients
    --clients N          how many clients (200)
    --servers N          how many connections to PostgreSQL they share (20)
    --seconds N          for how long (10)
    --debug              the debug build: builds faster, runs slower
    --keep               leave it running until Ctrl-C
  dist                 build what is shipped, target/dist/pgweir, with a profile of the benchmarks' workloads
  bench [OPTIONS]      pgweir beside PgBouncer, other poolers, a bare relay and PostgreSQL alone, in turns; see
                       docs/benchmarks.md
    --quick              two short rounds
    --all                every workload and not only the main ones, and everybody in each
    --rounds N           rounds (3)
    --seconds N          how long one run of pgbench takes (4)
    --only A,B           only workloads whose names begin so
    --peers A,B          only these, by their names in the tables
    --pgbouncer PATH     a PgBouncer that is not in PATH; so with --pgcat, --odyssey
    --syscalls           count system calls of all workloads (perf, or strace), not only where there is a goal
    --callgrind          count instructions too (valgrind)
    --write              write docs/benchmarks.md and its pictures
    --from FILE,FILE     use earlier results instead of measuring, the rounds of all put together
    --against FILE       set another measurement beside this one
  counts [--write]     instructions on the hot path (valgrind), compared with docs/counts.md
  overload [--write]   what is left of the throughput when more is asked than PostgreSQL can do; see
                       docs/overload.md
  docs                 write docs/reference.md, docs/metrics.md and the lists in docs/differences.md from the
                       declarations of keys, tables, commands, counters and metrics, and the rules for
                       Kubernetes from those of Prometheus
  check                formatting, lints, documentation, no clocks in pure crates; what a change must pass beside the tests
  fuzz [TARGET [SECS]] fuzz one target (60 seconds), or list the targets
  help                 this text

environment:
  PGWEIR_PG_BIN             the folder with PostgreSQL's initdb and postgres
  PGWEIR_BIN                the pooler to test or show instead of the one built here
  PGWEIR_REQUIRE_POSTGRES=1 tests fail instead of being skipped where PostgreSQL is missing
  PGWEIR_KEEP=1             test directories (/tmp/pgweir-*) are kept, to read their logs
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["test", rest @ ..] => test::run(rest),
        ["demo", rest @ ..] => demo::run(rest),
        ["bench", rest @ ..] => bench::run(rest),
        ["dist"] => dist::run(),
        ["check"] => check::run(),
        ["counts", rest @ ..] => counts::run(rest),
        ["overload", rest @ ..] => overload::run(rest),
        ["docs"] => docs::run(),
        ["fuzz", rest @ ..] => fuzz::run(rest),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        [unknown, ..] => Err(Failure::usage(unknown)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
