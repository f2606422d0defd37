//! `pgweir check`: what is wrong with a configuration, and what the keys of a PgBouncer ini mean here.

use std::fmt::Write as _;
use std::process::ExitCode;

use pgweir_config::{Config, Likeness, Phase, SetKey, Severity, set_keys};

use crate::settings::auth_files::AuthFiles;
use crate::settings::reload;
use crate::settings::tls::Tls;

/// Looks at a configuration without using it.
pub(crate) fn run(file: &str) -> ExitCode {
    let mut broken = false;
    for problem in pgweir_config::check(file, &mut reload::read) {
        broken |= problem.severity == Severity::Error;
        println!("{problem}");
    }
    broken |= !broken && !named_files_are_usable(file);
    if broken {
        return ExitCode::FAILURE;
    }
    // A TOML file has no PgBouncer to be compared with.
    if let Ok(mut keys) = set_keys(file, &mut reload::read) {
        keys.sort_by(|a, b| (&a.file, a.line).cmp(&(&b.file, b.line)));
        print!("{}", beside_pgbouncer(file, &keys));
    }
    println!("{file}: no errors");
    ExitCode::SUCCESS
}

/// Looks at the files that the configuration names.
fn named_files_are_usable(file: &str) -> bool {
    let mut config = Config::new(file);
    if config.load(Phase::Start, &mut reload::read).is_err() {
        return false;
    }
    // Without these it starts all the same, as PgBouncer does.
    for (_, text) in AuthFiles::read(&config.global, &AuthFiles::default()).1 {
        println!("{file}: warning: {text}");
    }
    match Tls::load(&config.global) {
        Ok(_) => true,
        Err(error) => {
            println!("{file}: error: TLS setup failed: {error}");
            false
        }
    }
}

/// A line for every key that does not just mean the same, and one for all that do.
fn beside_pgbouncer(file: &str, keys: &[SetKey]) -> String {
    let mut text = String::new();
    let mut same = Vec::new();
    for set in keys {
        let (word, reason) = match set.likeness {
            Likeness::Same => {
                same.push(set.to_string());
                continue;
            }
            Likeness::Better(what) => ("the same, and more", what),
            Likeness::Differs(how) => ("differs", how),
            Likeness::Idle(why) => ("ignored", why),
        };
        let line = set.line.map_or(String::new(), |line| format!(":{line}"));
        let _ = writeln!(text, "{}{line}: {set}: {word}: {reason}", set.file);
    }
    if !same.is_empty() {
        let _ = writeln!(
            text,
            "{file}: the same as in PgBouncer: {}",
            same.join(", ")
        );
    }
    text
}
