//! Configuration in TOML: any text is read or refused with words, and what `check`
//! finds no error in can be loaded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgweir_config::{Config, Phase, Severity, check};

fuzz_target!(|text: &str| {
    let text = format!("[pgweir]\n{text}");
    let mut read = |path: &std::path::Path| match path.to_str() {
        Some("pgweir.toml") => Ok(text.clone()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let problems = check("pgweir.toml", &mut read);
    let mut config = Config::new("pgweir.toml");
    let loaded = config.load(Phase::Start, &mut read);
    let errors = problems
        .iter()
        .any(|problem| problem.severity == Severity::Error);
    assert_eq!(errors, loaded.is_err(), "{problems:?} {loaded:?}");
    for problem in problems {
        assert!(!problem.to_string().is_empty());
    }
    for database in config.databases.keys() {
        let _ = config.resolve(database, "somebody");
    }
    let _ = config.load(Phase::Reload, &mut read);
});
