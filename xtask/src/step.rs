//! What the commands share: running cargo in sight of the user, and saying what failed.

use std::{
    env,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use pgweir_harness::{
    Postgres,
    postgres::{find, install},
};

/// Why a command could not be carried out, in words for the person who typed it.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn usage(argument: &str) -> Self {
        Self(format!(
            "cannot make sense of `{argument}`; see cargo xtask help"
        ))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// The cargo that runs us.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.args(args);
    command
}

/// This program is target/debug/xtask.
pub(crate) fn target() -> Result<PathBuf, Failure> {
    let this = env::current_exe()?;
    let target = this.ancestors().nth(2).map(Path::to_owned);
    target.ok_or_else(|| Failure::new("xtask must be run by cargo"))
}

/// A file of the project.
pub(crate) fn file(name: &str) -> Result<PathBuf, Failure> {
    let package = env::var_os("CARGO_MANIFEST_DIR");
    let package = package.ok_or_else(|| Failure::new("start this as cargo xtask"))?;
    let root = Path::new(&package).parent().unwrap_or(Path::new("."));
    Ok(root.join(name))
}

/// Runs a command that must succeed, and shows it.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let words: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    println!("+ cargo {}", words.join(" "));
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(format!(
            "cargo {} ended with {status}",
            words.join(" ")
        ))),
        Err(error) => Err(Failure::new(format!("cargo {}: {error}", words.join(" ")))),
    }
}

/// Whether a cargo subcommand is installed.
pub(crate) fn has(subcommand: &str) -> bool {
    cargo(&[subcommand, "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

/// The PostgreSQL of this machine, installed if there is none.
pub(crate) fn postgres() -> Result<Postgres, Failure> {
    let postgres = match find() {
        Ok(postgres) => postgres,
        // The user chose a place; installing elsewhere would not make it right.
        Err(error) if env::var_os(pgweir_harness::postgres::BIN_DIR).is_some() => {
            return Err(error.into());
        }
        Err(error) => {
            println!("{error}");
            install()?
        }
    };
    println!("Using {postgres}.");
    Ok(postgres)
}

/// Whether the caller brings a pooler instead of the one built here.
pub(crate) fn brings_pooler() -> bool {
    env::var_os("PGWEIR_BIN").is_some_and(|path| !path.is_empty())
}
