//! `cargo xtask fuzz`: cargo-fuzz on the stable compiler.

use crate::step::{self, Failure, cargo, has};

const SECONDS: &str = "60";

pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    if !has("fuzz") {
        return Err(Failure::new(
            "cargo-fuzz is not installed; run: cargo install cargo-fuzz",
        ));
    }
    match args {
        [] => step::run(&mut fuzz(&["list"])),
        [target] => fuzz_target(target, SECONDS),
        [target, seconds] => fuzz_target(target, seconds),
        [_, _, surplus, ..] => Err(Failure::usage(surplus)),
    }
}

fn fuzz_target(target: &str, seconds: &str) -> Result<(), Failure> {
    let seconds: u32 = seconds.parse().map_err(|_| Failure::usage(seconds))?;
    step::run(fuzz(&["run", target, "--"]).arg(format!("-max_total_time={seconds}")))
}

fn fuzz(args: &[&str]) -> std::process::Command {
    let mut command = cargo(&["fuzz"]);
    // The sanitizers' compiler flags are unstable; this lets the stable compiler take them.
    command.args(args).env("RUSTC_BOOTSTRAP", "1");
    command
}
