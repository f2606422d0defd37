//! The operator's tool: commands that speak to a running pooler over its console, and to nobody else
//! unless they say so.
//!
//! One file per command. What a command concludes is decided by pure functions from the tables it was
//! answered with; asking, deciding and printing are apart.

#![forbid(unsafe_code)]

mod budget;
mod cli;
mod console;
mod dial;
mod doctor;
mod drain;
mod incident;
mod kill;
mod leaks;
mod maintenance;
mod print;
mod quote;
mod reach;
mod report;
mod resize;
mod rotate;
mod table;
#[cfg(test)]
mod testing;
mod time;
mod top;
mod trouble;
mod why;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Cli, Command};
use crate::trouble::Verdict;

/// Exit code: something was found that an operator should look at, or the pooler refused an order.
const FOUND: u8 = 1;

/// Exit code: the command line makes no sense, or nobody answers.
const FAILED: u8 = 2;

/// Runs the command that the arguments begin with.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = std::iter::once(OsString::from("pgweir")).chain(arguments);
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and mistakes come the same way; if nobody reads them, nothing is lost.
            let _ = error.print();
            return match error.use_stderr() {
                true => ExitCode::from(FAILED),
                false => ExitCode::SUCCESS,
            };
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let outcome = carry_out(cli.command).await;
            say_goodbye().await;
            outcome
        }),
        Err(error) => {
            eprintln!("pgweir: cannot start: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match outcome {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Found) => ExitCode::from(FOUND),
        Err(trouble) => {
            eprintln!("pgweir: {trouble}");
            ExitCode::from(trouble.exit_code())
        }
    }
}

/// Lets the connections that are not used any more say so: they have tasks of their own.
async fn say_goodbye() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

async fn carry_out(command: Command) -> Result<Verdict, trouble::Trouble> {
    match command {
        Command::Doctor(arguments) => doctor::run(&arguments).await,
        Command::Top(arguments) => top::run(&arguments).await,
        Command::Incident(arguments) => incident::run(&arguments).await,
        Command::Report(arguments) => report::run(&arguments).await,
        Command::Why(arguments) => why::run(&arguments).await,
        Command::Budget(arguments) => budget::run(&arguments).await,
        Command::Leaks(arguments) => leaks::run(&arguments).await,
        Command::Kill(arguments) => kill::run(&arguments).await,
        Command::Maintenance(arguments) => maintenance::run(&arguments).await,
        Command::Resize(arguments) => resize::run(&arguments).await,
        Command::Rotate(arguments) => rotate::run(&arguments).await,
        Command::Drain(arguments) => drain::run(&arguments).await,
    }
}

/// The commands, in the order of the help.
pub const COMMANDS: &[&str] = &[
    "doctor",
    "why",
    "top",
    "leaks",
    "kill",
    "maintenance",
    "drain",
    "resize",
    "rotate",
    "budget",
    "incident",
    "report",
];

/// Whether a word is one of the commands.
pub fn is_command(word: &str) -> bool {
    COMMANDS.contains(&word)
}

/// What a command says of itself.
pub fn help(word: &str) -> Option<String> {
    let mut cli = Cli::command();
    cli.build();
    let command = cli.find_subcommand_mut(word)?;
    Some(command.render_long_help().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        let cli = Cli::command();
        let names = cli.get_subcommands().map(clap::Command::get_name);
        assert_eq!(names.collect::<Vec<_>>(), COMMANDS);
        for name in COMMANDS {
            let help = help(name).expect("it is a command");
            assert!(help.contains("Exit codes: "), "{help}");
            assert!(help.contains(&format!("Usage: pgweir {name}")), "{help}");
            let longest = help.lines().map(str::len).max();
            assert!(longest <= Some(110), "{help}");
        }
    }
}
