//! `cargo xtask check`: what a change must pass beside the tests.

use crate::step::{self, Failure, cargo, has};
use crate::{docs, pure};

pub(crate) fn run() -> Result<(), Failure> {
    docs::check()?;
    pure::check()?;
    if has("fmt") {
        step::run(&mut cargo(&["fmt", "--all", "--check"]))?;
    } else {
        println!("Formatting is not checked: no rustfmt here (rustup component add rustfmt).");
    }
    if has("clippy") {
        let warnings_fail = ["--", "-D", "warnings"];
        step::run(cargo(&["clippy", "--workspace", "--all-targets"]).args(warnings_fail))?;
    } else {
        println!("Lints are not checked: no clippy here (rustup component add clippy).");
    }
    step::run(cargo(&["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
