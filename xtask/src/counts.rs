//! `cargo xtask counts`: instructions on the pure part of a query's way, which do not depend on what else the machine
//! does. Needs valgrind.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::step::{self, Failure, cargo, target};

/// Where they are written down.
const PAGE: &str = "docs/counts.md";

/// What is counted, and what one round of it is.
const SCENARIOS: [(&str, &str); 8] = [
    ("frames", "cutting the four messages that answer a query"),
    ("simple", "a lease: Query with one row as its answer"),
    ("extended", "a lease: Parse, Bind, Describe, Execute, Sync"),
    (
        "prepared",
        "a lease: Bind, Describe, Execute, Sync of a named statement",
    ),
    (
        "pipeline",
        "a lease: ten times Parse, Bind, Describe, Execute, and Sync",
    ),
    ("rows", "a lease: Query with a thousand rows as its answer"),
    ("checkout", "a free server is lent and given back"),
    (
        "queue",
        "a server is given back to one of ten who wait, and another begins to",
    ),
];

/// Rounds of the two runs: what both have in common (starting, building the messages) falls out of the difference.
const ROUNDS: [u64; 2] = [1_000, 11_000];

/// A change by more than this is worth a look.
const TOLERANCE_PERCENT: f64 = 2.0;

/// Counts, and compares with what is written down, or writes it down.
pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    let write = match args {
        [] => false,
        ["--write"] => true,
        [unknown, ..] => return Err(Failure::usage(unknown)),
    };
    step::run(&mut cargo(&[
        "build",
        "--profile",
        "dist",
        "--package",
        "pgweir-benches",
    ]))?;
    let program = target()?.join("dist").join("hotpath");
    let before = std::fs::read_to_string(PAGE).unwrap_or_default();
    let mut changed = Vec::new();
    let mut page = head()?;
    for (name, what) in SCENARIOS {
        let count = count(&program, name)?;
        let old = written(&before, name);
        let change = old.map(|old| 100.0 * (count as f64 - old as f64) / old as f64);
        let shown = change.map_or_else(|| "new".to_owned(), |percent| format!("{percent:+.1} %"));
        println!("{name:<10} {count:>8} instructions ({shown})");
        if change.is_some_and(|percent| percent > TOLERANCE_PERCENT) {
            changed.push(name);
        }
        let _ = writeln!(page, "| {name} | {what} | {count} |");
    }
    if write {
        std::fs::write(PAGE, page)?;
        return Ok(());
    }
    if changed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "more instructions than {PAGE} says: {}; if that is as it must be: cargo xtask counts --write",
        changed.join(", ")
    )))
}

fn head() -> Result<String, Failure> {
    let compiler = Command::new("rustc").arg("--version").output()?;
    let compiler = String::from_utf8_lossy(&compiler.stdout).trim().to_owned();
    Ok(format!(
        "# Instructions on the hot path\n\n\
         Written by `cargo xtask counts --write`; without `--write` it compares. The pure crates alone\n\
         (`benches/src/bin/hotpath.rs`), without sockets and tasks, counted by valgrind: the number is the same on every\n\
         run, so that a regression shows as a number. Another compiler gives other numbers; these are of {compiler}.\n\n\
         | scenario | one round | instructions |\n|---|---|---|\n"
    ))
}

/// Instructions of one round.
fn count(program: &Path, scenario: &str) -> Result<u64, Failure> {
    let [few, many] = ROUNDS;
    let difference = instructions(program, scenario, many)?
        .saturating_sub(instructions(program, scenario, few)?);
    Ok(difference / (many - few))
}

fn instructions(program: &Path, scenario: &str, rounds: u64) -> Result<u64, Failure> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([scenario, &rounds.to_string()])
        .output()
        .map_err(|error| Failure::new(format!("valgrind: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said
        .lines()
        .find_map(|line| line.split("Collected : ").nth(1)?.trim().parse().ok());
    match collected {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(Failure::new(format!("valgrind gave no count: {said}"))),
    }
}

/// What the page says of a scenario.
fn written(page: &str, scenario: &str) -> Option<u64> {
    let row = page
        .lines()
        .find(|line| line.starts_with(&format!("| {scenario} |")))?;
    row.split('|').nth(3)?.trim().parse().ok()
}
