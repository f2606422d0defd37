//! Something that psql and pgbench can connect to: a cluster, the pooler, or any other pooler beside it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    account::Account,
    error::Error,
    pgbench::Pgbench,
    postgres::Postgres,
    process::run_ok,
    table::{FIELD, RECORD, Table},
};

/// No query of a test takes this long, unless it hangs.
const PSQL_MAX: Duration = Duration::from_secs(60);

/// How long pgbench may take beyond the time it was told to run (`-T`). It is for ever waiting for an answer that
/// a broken pooler owes it.
const PGBENCH_MAX: Duration = Duration::from_secs(120);

/// Where to connect, and with whose programs.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Whose psql and pgbench are used.
    pub postgres: Postgres,
    /// The operating-system user they run as. The admin console asks for the pooler's own.
    pub account: Account,
    /// A host name, an address or the folder of a Unix socket.
    pub host: String,
    /// The port, also in the name of the Unix socket.
    pub port: u16,
    /// The working directory of the programs.
    pub dir: PathBuf,
}

impl Endpoint {
    /// Runs SQL with psql and gives what it prints: values only, `|` between columns.
    ///
    /// `database` may be a whole conninfo string, such as `dbname=app password=secret`.
    pub fn psql(&self, database: &str, user: &str, sql: &str) -> Result<String, Error> {
        let mut command = self.psql_command(database, user)?;
        command.args(["-A", "-t", "-q", "-c", sql]);
        run_ok(&mut command, PSQL_MAX).map(|text| text.trim_end_matches('\n').to_owned())
    }

    /// Runs one query with psql and gives its columns and rows.
    pub fn table(&self, database: &str, user: &str, sql: &str) -> Result<Table, Error> {
        let mut command = self.psql_command(database, user)?;
        command.args(["-A", "-q", "-P", "footer=off"]);
        command.args([
            "-F",
            &FIELD.to_string(),
            "-R",
            &RECORD.to_string(),
            "-c",
            sql,
        ]);
        run_ok(&mut command, PSQL_MAX).map(|text| Table::parse(&text))
    }

    /// Runs pgbench to its end. A time to run is given as `"-T", "10"`.
    pub fn pgbench(&self, database: &str, args: &[&str]) -> Result<Pgbench, Error> {
        let mut command = self.pgbench_command(database, args)?;
        run_ok(&mut command, PGBENCH_MAX + run_time(args)).map(|output| Pgbench::parse(&output))
    }

    /// psql as it would be run, ready for more arguments.
    pub fn psql_command(&self, database: &str, user: &str) -> Result<Command, Error> {
        let program = self.client("psql", self.postgres.psql.as_deref())?;
        let mut command = self.account.command(program, &self.dir);
        self.connect(&mut command, user);
        command.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", database]);
        Ok(command)
    }

    /// pgbench as it would be run, for callers who want to see it work.
    pub fn pgbench_command(&self, database: &str, args: &[&str]) -> Result<Command, Error> {
        let program = self.client("pgbench", self.postgres.pgbench.as_deref())?;
        let mut command = self.account.command(program, &self.dir);
        self.connect(&mut command, "postgres");
        command.args(args).arg(database);
        Ok(command)
    }

    fn connect(&self, command: &mut Command, user: &str) {
        command.args(["-h", &self.host, "-p", &self.port.to_string(), "-U", user]);
    }

    fn client<'a>(&self, program: &'static str, path: Option<&'a Path>) -> Result<&'a Path, Error> {
        path.ok_or_else(|| Error::NoProgram {
            program,
            bin_dir: self.postgres.bin_dir.clone(),
        })
    }
}

/// The value of `-T`, in seconds.
fn run_time(args: &[&str]) -> Duration {
    let value = args.iter().skip_while(|arg| **arg != "-T").nth(1);
    Duration::from_secs(value.and_then(|seconds| seconds.parse().ok()).unwrap_or(0))
}
