//! `cargo xtask test`: everything a clean clone needs to run all tests, and a summary of what did not run.

use std::{env, fs, path::PathBuf};

use pgweir_harness::SKIP_LOG;

use crate::step::{self, Failure, brings_pooler, cargo};

pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    // Without PostgreSQL most tests still run; those that need it say that they were skipped, or fail where
    // PGWEIR_REQUIRE_POSTGRES is set.
    if let Err(failure) = step::postgres() {
        println!("{failure}\nGoing on without PostgreSQL.");
    }
    if !brings_pooler() {
        let profile = args.iter().filter(|arg| **arg == "--release");
        // Of the whole workspace, as the tests are: for one package alone its dependencies are built once more.
        let pooler = ["build", "--workspace", "--bin", "pgweir"];
        step::run(cargo(&pooler).args(profile))?;
    }
    let skip_log = skip_log()?;
    let _ = fs::remove_file(&skip_log);
    let outcome = step::run(
        cargo(&["test", "--workspace", "--no-fail-fast"])
            .args(args)
            .env(SKIP_LOG, &skip_log),
    );
    print_skipped(&fs::read_to_string(&skip_log).unwrap_or_default());
    outcome
}

fn skip_log() -> Result<PathBuf, Failure> {
    Ok(env::current_exe()?.with_file_name("skipped-tests.log"))
}

fn print_skipped(log: &str) {
    let mut lines: Vec<&str> = log.lines().collect();
    lines.sort_unstable();
    if lines.is_empty() {
        println!("No test was skipped.");
        return;
    }
    println!("{} tests were skipped:", lines.len());
    for line in lines {
        println!("  {line}");
    }
}
