//! That the pure crates (ARCHITECTURE.md) read no clock: time comes in as an argument.

use std::fs;
use std::path::{Path, PathBuf};

use crate::step::{Failure, file};

const CRATES: [&str; 7] = [
    "auth", "config", "console", "pool", "session", "stats", "wire",
];

const CLOCKS: [&str; 2] = ["Instant::now", "SystemTime::now"];

/// Fails if one of them asks what time it is outside of its tests.
pub(crate) fn check() -> Result<(), Failure> {
    let mut found = Vec::new();
    for name in CRATES {
        for file in sources(&self::file(&format!("crates/{name}/src"))?)? {
            let text = fs::read_to_string(&file)?;
            let lines = clocks(&text);
            found.extend(lines.map(|line| format!("{}:{line}", file.display())));
        }
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(format!(
            "a pure crate has no clock: {}",
            found.join(", ")
        ))),
    }
}

/// The files of a folder that are not all test.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if stem.ends_with("tests") {
            continue;
        }
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// The lines that read a clock, before the tests at the end of a file.
fn clocks(text: &str) -> impl Iterator<Item = usize> {
    let tests = text.find("#[cfg(test)]\nmod tests {");
    let numbered = text[..tests.unwrap_or(text.len())].lines().enumerate();
    let found = numbered.filter(|(_, line)| CLOCKS.iter().any(|clock| line.contains(clock)));
    found.map(|(number, _)| number + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_found_where_it_is_no_test() {
        let text = "#[cfg(test)]\nmod more_tests;\nInstant::now();\n#[cfg(test)]\nmod tests {\nInstant::now();\n}\n";
        assert_eq!(clocks(text).collect::<Vec<_>>(), [3]);
    }
}
