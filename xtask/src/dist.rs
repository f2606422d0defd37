//! `cargo xtask dist`: the binary that is shipped. The compiler lays it out after a profile of the workloads that
//! `cargo xtask bench` measures, so that the instructions of a query lie together: a quarter fewer of them, and what is
//! left is mostly in the cache after a system call (docs/adr/0016-speed.md).

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bench;
use crate::step::{self, Failure, cargo, target};

/// What the profile is taken from: every shape of traffic, with logins and TLS.
const WORKLOADS: &[&str] = &[
    "select_simple_16",
    "select_simple_64",
    "select_simple_1000",
    "select_extended_16",
    "select_extended_64",
    "select_prepared_16",
    "select_prepared_64",
    "pipeline_16",
    "tpcb_16",
    "login_trust",
    "login_scram",
    "login_scram_tls",
    "tls_both_16",
    "unix_16",
    "rows_small",
    "rows_big",
    "copy_out",
    "copy_in",
];

/// Of each workload.
const SECONDS: u32 = 3;

pub(crate) fn run() -> Result<(), Failure> {
    let compiler = Compiler::find()?;
    let Some(merger) = compiler.merger() else {
        return Err(Failure::new(format!(
            "no llvm-profdata of this compiler in {}: rustup component add llvm-tools (or build without a profile: \
             cargo build --profile dist --package pgweir)",
            compiler.tools.display()
        )));
    };
    println!("\nBuilt: {}", with_profile(&compiler, &merger)?.display());
    Ok(())
}

/// Builds what is shipped, or what comes near where the compiler has no tools for a profile.
pub(crate) fn build() -> Result<PathBuf, Failure> {
    let compiler = Compiler::find()?;
    match compiler.merger() {
        Some(merger) => with_profile(&compiler, &merger),
        None => {
            println!(
                "Without a profile: rustup component add llvm-tools would bring what is missing."
            );
            step::run(&mut cargo(&[
                "build",
                "--profile",
                "dist",
                "--package",
                "pgweir",
            ]))?;
            shipped()
        }
    }
}

fn shipped() -> Result<PathBuf, Failure> {
    Ok(target()?.join("dist").join("pgweir"))
}

fn with_profile(compiler: &Compiler, merger: &Path) -> Result<PathBuf, Failure> {
    let folder = target()?.join("pgo");
    let raw = Raw::make()?;
    let flags = format!("-Cprofile-generate={}", raw.0.display());
    let watched = compiler.build(&folder.join("watched"), &flags)?;
    bench::exercise(&watched, WORKLOADS, SECONDS)?;
    let profile = folder.join("pgweir.profdata");
    merge(merger, &raw.0, &profile)?;
    let flags = format!("-Cprofile-use={}", profile.display());
    let laid_out = compiler.build(&folder.join("laid-out"), &flags)?;
    let shipped = shipped()?;
    fs::create_dir_all(shipped.parent().unwrap_or(Path::new(".")))?;
    // A file that runs cannot be written to, but replaced.
    let next = shipped.with_extension("next");
    fs::copy(&laid_out, &next)?;
    fs::rename(&next, &shipped)?;
    Ok(shipped)
}

/// Where the programs write their profiles. As root they run as somebody else, who has to get there.
struct Raw(PathBuf);

impl Raw {
    fn make() -> Result<Self, Failure> {
        let folder = env::temp_dir().join("pgweir-profile");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o1777))?;
        Ok(Self(folder))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // What is left in /tmp is in nobody's way.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn merge(merger: &Path, raw: &Path, profile: &Path) -> Result<(), Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(raw)? {
        files.push(entry?.path());
    }
    if files.is_empty() {
        return Err(Failure::new("no run has written a profile"));
    }
    let status = Command::new(merger)
        .args(["merge", "-o"])
        .arg(profile)
        .args(&files)
        .status()?;
    match status.success() {
        true => Ok(()),
        false => Err(Failure::new(format!("llvm-profdata ended with {status}"))),
    }
}

/// The compiler that cargo uses.
struct Compiler {
    host: String,
    /// Where rustup puts the tools that belong to it.
    tools: PathBuf,
}

impl Compiler {
    fn find() -> Result<Self, Failure> {
        let version = said(&["-vV"])?;
        let host = version
            .lines()
            .find_map(|line| line.strip_prefix("host: "))
            .ok_or_else(|| Failure::new("rustc -vV names no host"))?
            .to_owned();
        let sysroot = PathBuf::from(said(&["--print", "sysroot"])?.trim());
        let tools = sysroot.join("lib/rustlib").join(&host).join("bin");
        Ok(Self { host, tools })
    }

    /// Profiles of another version of LLVM are not understood.
    fn merger(&self) -> Option<PathBuf> {
        let merger = self.tools.join("llvm-profdata");
        merger.exists().then_some(merger)
    }

    /// Builds pgweir with these flags in a folder of its own. A target that is named keeps them from build scripts.
    fn build(&self, folder: &Path, flags: &str) -> Result<PathBuf, Failure> {
        let mut command = cargo(&["build", "--profile", "dist", "--package", "pgweir"]);
        command
            .args(["--target", &self.host, "--target-dir"])
            .arg(folder)
            .env("RUSTFLAGS", flags);
        step::run(&mut command)?;
        Ok(folder.join(&self.host).join("dist").join("pgweir"))
    }
}

fn said(args: &[&str]) -> Result<String, Failure> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(args).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Failure::new(format!("rustc ended with {}", output.status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_is_there() {
        let unknown: Vec<_> = WORKLOADS
            .iter()
            .filter(|name| !bench::has_workload(name))
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}
