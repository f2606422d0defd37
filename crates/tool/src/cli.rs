//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    budget, doctor, drain, incident, kill, leaks, maintenance, report, resize, rotate, top, why,
};

/// Commands that speak to a running pooler.
#[derive(Debug, Parser)]
#[command(name = "pgweir", bin_name = "pgweir", disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Doctor(doctor::Arguments),
    Why(why::Arguments),
    Top(top::Arguments),
    Leaks(leaks::Arguments),
    Kill(kill::Arguments),
    Maintenance(maintenance::Arguments),
    Drain(drain::Arguments),
    Resize(resize::Arguments),
    Rotate(rotate::Arguments),
    Budget(budget::Arguments),
    Incident(incident::Arguments),
    Report(report::Arguments),
}

/// Where the pooler's console is, and how to print. Every command has these.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Common {
    /// The pooler's configuration file: it says where the console is, and who may use it
    #[arg(short, long, value_name = "FILE", help_heading = "Console")]
    pub(crate) config: Option<PathBuf>,

    /// Host of the pooler, or the directory of its Unix socket; else $PGHOST
    #[arg(long, value_name = "HOST", help_heading = "Console")]
    pub(crate) host: Option<String>,

    /// Port of the pooler; else $PGPORT
    #[arg(short, long, value_name = "PORT", help_heading = "Console")]
    pub(crate) port: Option<u16>,

    /// User of the console; else $PGUSER; the password is $PGPASSWORD, or that of the auth_file
    #[arg(short = 'U', long, value_name = "USER", help_heading = "Console")]
    pub(crate) user: Option<String>,

    /// Who has to have signed the pooler's certificate; without it TLS is used where it can be, unverified
    #[arg(long, value_name = "FILE", help_heading = "Console")]
    pub(crate) tls_ca: Option<PathBuf>,

    /// Print one JSON document instead of text
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}
