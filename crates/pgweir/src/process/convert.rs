//! `pgweir convert`: a PgBouncer ini as TOML.

use std::process::ExitCode;

use crate::say;
use crate::settings::reload;

/// Writes the TOML to standard output, and what is doubtful in the ini to standard error.
pub(crate) fn run(file: &str) -> ExitCode {
    match pgweir_config::convert(file, &mut reload::read) {
        Ok(converted) => {
            for problem in &converted.warnings {
                eprintln!("{problem}");
            }
            say(&converted.toml)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
