//! What a test does when the machine lacks something: it says so, so that the summary can repeat it.

use std::{env, fs::File, io::Write};

/// Names the file in which skipped tests leave a line; `cargo xtask test` sets it and reads it at the end.
pub const SKIP_LOG: &str = "PGWEIR_SKIP_LOG";

/// Set where promises are checked: a test that lacks PostgreSQL then fails instead of being skipped.
const REQUIRE_POSTGRES: &str = "PGWEIR_REQUIRE_POSTGRES";

/// Says that the current test is skipped, and why.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let why = why.lines().next().unwrap_or_default();
    eprintln!("SKIPPED {test}: {why}");
    if let Some(path) = env::var_os(SKIP_LOG) {
        // One write of one line, so that lines of tests that run at the same time do not mix.
        let line = format!("{test}: {why}\n");
        let log = File::options().create(true).append(true).open(path);
        let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
    }
}

/// Skips the current test, or fails it where PostgreSQL is required.
///
/// # Panics
/// If `PGWEIR_REQUIRE_POSTGRES` is set to anything but nothing or 0.
#[track_caller]
pub(crate) fn skip_without_postgres(why: &str) {
    let required = env::var(REQUIRE_POSTGRES).is_ok_and(|value| !value.is_empty() && value != "0");
    assert!(
        !required,
        "{REQUIRE_POSTGRES} is set, so this test may not be skipped: {why}"
    );
    skip(why);
}
