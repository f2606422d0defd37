//! The pooler under test: pgweir, or whatever `PGWEIR_BIN` names, with the same ini file and console.

use std::{
    env, fs,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    account::Account,
    daemon::Daemon,
    endpoint::Endpoint,
    error::{Doing, Error, must},
    ini::Ini,
    pgbench::Pgbench,
    postgres::{Postgres, find},
    process::free_port,
    table::Table,
};

/// Names the binary to test.
const BINARY: &str = "PGWEIR_BIN";

/// A running pooler. Dropping it ends it at once (SIGQUIT) and removes its directory.
#[derive(Debug)]
pub struct Pooler {
    /// Its TCP port on 127.0.0.1, also in the name of its Unix socket.
    pub port: u16,
    /// The directory of its Unix socket.
    pub socket_dir: PathBuf,
    /// Its process id.
    pub pid: u32,
    /// Where both its outputs go.
    pub log_path: PathBuf,
    postgres: Postgres,
    ini_path: PathBuf,
    daemon: Daemon,
}

impl Pooler {
    /// Starts the pooler and waits until its console answers.
    pub fn start(ini: impl Into<Ini>) -> Result<Self, Error> {
        Self::start_binary(&find_binary()?, ini)
    }

    /// Starts this binary and waits until its console answers.
    pub fn start_binary(binary: &Path, ini: impl Into<Ini>) -> Result<Self, Error> {
        Self::launch(binary, ini.into(), &[], &[])
    }

    /// Starts the pooler with these variables in its environment.
    pub fn start_with_env(env: &[(&str, &str)], ini: impl Into<Ini>) -> Result<Self, Error> {
        Self::launch(&find_binary()?, ini.into(), &[], env)
    }

    /// Starts the pooler with more arguments before the name of its file.
    pub fn start_with_args(args: &[&str], ini: impl Into<Ini>) -> Result<Self, Error> {
        Self::launch(&find_binary()?, ini.into(), args, &[])
    }

    fn launch(binary: &Path, ini: Ini, args: &[&str], env: &[(&str, &str)]) -> Result<Self, Error> {
        let postgres = find()?;
        let account = Account::choose()?;
        let name = binary
            .file_name()
            .map(|name| name.to_string_lossy())
            .unwrap_or_default();
        let mut daemon = Daemon::new(&name, account)?;
        let binary = reachable(binary, &daemon)?;
        let ini = complete(ini, daemon.dir(), free_port());
        let ini_path = write(&ini, &daemon)?;

        let mut command = account.command(&binary, daemon.dir());
        command.envs(env.iter().copied());
        daemon.spawn(command.args(args).arg(&ini_path))?;

        let mut pooler = Self {
            port: ini
                .get("listen_port")
                .and_then(|port| port.parse().ok())
                .unwrap_or(0),
            socket_dir: PathBuf::from(ini.get("unix_socket_dir").unwrap_or_default()),
            pid: daemon.pid().unwrap_or_default(),
            log_path: daemon.log_path().to_owned(),
            postgres,
            ini_path,
            daemon,
        };
        pooler.wait_until_ready()?;
        Ok(pooler)
    }

    /// Where clients connect: TCP, 127.0.0.1.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint_at("127.0.0.1")
    }

    /// Its Unix socket, where the console lets its own operating-system user in without a password.
    pub fn unix_endpoint(&self) -> Endpoint {
        self.endpoint_at(&self.socket_dir.to_string_lossy())
    }

    /// Runs SQL through the pooler. `database` may be a whole conninfo string.
    pub fn try_psql(&self, database: &str, user: &str, sql: &str) -> Result<String, Error> {
        self.endpoint().psql(database, user, sql)
    }

    /// Runs SQL through the pooler. `database` may be a whole conninfo string.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn psql(&self, database: &str, user: &str, sql: &str) -> String {
        must(self.try_psql(database, user, sql))
    }

    /// Asks the console.
    pub fn try_console(&self, sql: &str) -> Result<Table, Error> {
        self.unix_endpoint().table("pgbouncer", "pgbouncer", sql)
    }

    /// Asks the console.
    ///
    /// # Panics
    /// If it answers with an error.
    #[track_caller]
    pub fn console(&self, sql: &str) -> Table {
        must(self.try_console(sql))
    }

    /// Runs pgbench through the pooler.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn pgbench(&self, database: &str, args: &[&str]) -> Pgbench {
        must(self.endpoint().pgbench(database, args))
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Replaces its file, with the port and directory it has, and makes it read that.
    pub fn reload(&self, ini: impl Into<Ini>) -> Result<(), Error> {
        write(
            &complete(ini.into(), self.daemon.dir(), self.port),
            &self.daemon,
        )?;
        self.try_console("RELOAD").map(|_| ())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.daemon.signal(signal);
    }

    /// How it ended, if it does so before the deadline.
    pub fn wait_for_exit(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.daemon.wait_for_exit(limit).ok().flatten()
    }

    /// The file it was started with.
    pub fn ini_path(&self) -> &Path {
        &self.ini_path
    }

    /// Without psql, a socket that accepts has to do.
    fn wait_until_ready(&mut self) -> Result<(), Error> {
        let console = self.unix_endpoint();
        let socket = self.socket_dir.join(format!(".s.PGSQL.{}", self.port));
        let is_abstract = self.socket_dir.to_string_lossy().starts_with('@');
        let ready = || {
            // An abstract name is no file that the standard library could connect to; psql can.
            let accepts = is_abstract || UnixStream::connect(&socket).is_ok();
            let answers = || {
                console
                    .table("pgbouncer", "pgbouncer", "SHOW VERSION")
                    .is_ok()
            };
            accepts && (console.postgres.psql.is_none() || answers())
        };
        self.daemon
            .wait_until("answer SHOW VERSION on its Unix socket", ready)
    }

    fn endpoint_at(&self, host: &str) -> Endpoint {
        Endpoint {
            postgres: self.postgres.clone(),
            account: self.daemon.account(),
            host: host.to_owned(),
            port: self.port,
            dir: self.daemon.dir().to_owned(),
        }
    }
}

/// `PGWEIR_BIN`, or the pgweir that cargo built beside the running program.
fn find_binary() -> Result<PathBuf, Error> {
    if let Some(path) = env::var_os(BINARY).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        return match path.is_file() {
            true => Ok(path),
            false => Err(Error::NoPooler(format!(
                "{BINARY}={} is no file",
                path.display()
            ))),
        };
    }
    let this = env::current_exe().doing(|| "finding the running program".to_owned())?;
    // Tests run from target/debug/deps, other programs from target/debug.
    let mut folders = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("pgweir"));
    folders.find(|path| path.is_file()).ok_or_else(|| {
        Error::NoPooler(format!(
            "no pgweir in the folder of {} or above it",
            this.display()
        ))
    })
}

/// Root's pooler runs as a user who may not be able to enter the folder where it was built; it gets a link to
/// the binary, or a copy, in its own directory.
fn reachable(binary: &Path, daemon: &Daemon) -> Result<PathBuf, Error> {
    let binary = fs::canonicalize(binary).doing(|| format!("finding {}", binary.display()))?;
    if daemon.account().reaches(&binary) {
        return Ok(binary);
    }
    let folder = daemon.dir().join("bin");
    let copy = folder.join(binary.file_name().unwrap_or_default());
    fs::create_dir(&folder)
        .and_then(|()| {
            fs::hard_link(&binary, &copy).or_else(|_| fs::copy(&binary, &copy).map(|_| ()))
        })
        .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)))
        .doing(|| format!("copying {} to {}", binary.display(), copy.display()))?;
    Ok(copy)
}

/// Adds what every pooler needs here and a test seldom cares about.
fn complete(ini: Ini, dir: &Path, port: u16) -> Ini {
    ini.or_set("listen_addr", "127.0.0.1")
        .or_set("listen_port", port)
        .or_set("unix_socket_dir", dir.display())
}

fn write(ini: &Ini, daemon: &Daemon) -> Result<PathBuf, Error> {
    let dir = daemon.dir().to_string_lossy();
    for (name, text) in ini.files() {
        daemon.write(name, &text.replace("{dir}", &dir))?;
    }
    daemon.write("pgweir.ini", &ini.to_string().replace("{dir}", &dir))
}
