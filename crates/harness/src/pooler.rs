//! The pooler under test: pgweir, or whatever `PGWEIR_BIN` names, with the same ini file and console.

use std::{
    env, fs,
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::{
            fs::PermissionsExt,
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
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

/// Names a PgBouncer.
const PGBOUNCER: &str = "PGWEIR_PGBOUNCER";

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
    /// What stands for systemd.
    notified: Option<UnixDatagram>,
    daemon: Daemon,
}

/// What a pooler is started with.
#[derive(Clone, Copy, Default)]
struct Launch<'a> {
    args: &'a [&'a str],
    env: &'a [(&'a str, &'a str)],
    /// Its sockets are opened here and passed on, as systemd does.
    activated: bool,
    /// It is told where systemd listens.
    notifies: bool,
}

impl Pooler {
    /// Starts the pooler and waits until its console answers.
    pub fn start(ini: impl Into<Ini>) -> Result<Self, Error> {
        Self::start_binary(&find_binary()?, ini)
    }

    /// Starts this binary and waits until its console answers.
    pub fn start_binary(binary: &Path, ini: impl Into<Ini>) -> Result<Self, Error> {
        Self::launch(binary, ini.into(), Launch::default())
    }

    /// Starts the pooler with these variables in its environment.
    pub fn start_with_env(env: &[(&str, &str)], ini: impl Into<Ini>) -> Result<Self, Error> {
        let launch = Launch {
            env,
            ..Launch::default()
        };
        Self::launch(&find_binary()?, ini.into(), launch)
    }

    /// Starts the pooler on sockets that were opened before, as systemd's socket activation does.
    pub fn start_activated(ini: impl Into<Ini>) -> Result<Self, Error> {
        let launch = Launch {
            activated: true,
            ..Launch::default()
        };
        Self::launch(&find_binary()?, ini.into(), launch)
    }

    /// Starts the pooler as a service that reports to systemd; [`Self::next_report`] is what it says.
    pub fn start_notifying(ini: impl Into<Ini>) -> Result<Self, Error> {
        let launch = Launch {
            notifies: true,
            ..Launch::default()
        };
        Self::launch(&find_binary()?, ini.into(), launch)
    }

    /// Starts the pooler with more arguments before the name of its file.
    pub fn start_with_args(args: &[&str], ini: impl Into<Ini>) -> Result<Self, Error> {
        let launch = Launch {
            args,
            ..Launch::default()
        };
        Self::launch(&find_binary()?, ini.into(), launch)
    }

    fn launch(binary: &Path, ini: Ini, launch: Launch<'_>) -> Result<Self, Error> {
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

        let port = ini.get("listen_port").and_then(|port| port.parse().ok());
        let port = port.unwrap_or(0);
        let socket_dir = PathBuf::from(ini.get("unix_socket_dir").unwrap_or_default());
        let notified = match launch.notifies {
            true => Some(listen_for_reports(&daemon)?),
            false => None,
        };
        if launch.activated {
            let mut command = account.command(Path::new("/bin/sh"), daemon.dir());
            command.args(["-c", ACTIVATE]).arg(&binary).arg(&ini_path);
            let [tcp, unix] = open_sockets(&socket_dir, port)?;
            daemon.spawn_on(&mut command, tcp.into(), unix.into())?;
        } else {
            let mut command = account.command(&binary, daemon.dir());
            report_to(&mut command, notified.as_ref());
            command.envs(launch.env.iter().copied());
            daemon.spawn(command.args(launch.args).arg(&ini_path))?;
        }

        let mut pooler = Self {
            port,
            socket_dir,
            pid: daemon.pid().unwrap_or_default(),
            log_path: daemon.log_path().to_owned(),
            postgres,
            ini_path,
            notified,
            daemon,
        };
        pooler.wait_until_ready()?;
        Ok(pooler)
    }

    /// Starts the pooler again with `-R`, so that it takes over from the one that runs, and waits until
    /// that one has ended. If that fails the old one still runs.
    pub fn reboot(&mut self) -> Result<(), Error> {
        self.reboot_into(&find_binary()?)
    }

    /// As [`Self::reboot`], with another binary.
    pub fn reboot_into(&mut self, binary: &Path) -> Result<(), Error> {
        let binary = reachable(binary, &self.daemon)?;
        let mut command = self.daemon.account().command(&binary, self.daemon.dir());
        report_to(&mut command, self.notified.as_ref());
        self.daemon.succeed(command.arg("-R").arg(&self.ini_path))?;
        self.pid = self.daemon.pid().unwrap_or_default();
        self.wait_until_ready()
    }

    /// What it says next to systemd, if it says anything in time.
    pub fn next_report(&self, limit: Duration) -> Option<String> {
        let socket = self.notified.as_ref()?;
        socket.set_read_timeout(Some(limit)).ok()?;
        let mut text = vec![0; 4096];
        let len = socket.recv(&mut text).ok()?;
        text.truncate(len);
        String::from_utf8(text).ok()
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

/// `PGWEIR_PGBOUNCER`, or the PgBouncer in PATH or where Debian puts it: for tests of living beside one.
pub fn find_pgbouncer() -> Option<PathBuf> {
    let named = env::var_os(PGBOUNCER).map(PathBuf::from);
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut places = named
        .into_iter()
        .chain(folders.map(|folder| folder.join("pgbouncer")));
    places.find(|path| path.is_file())
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
    if copy.is_file() {
        return Ok(copy);
    }
    fs::create_dir_all(&folder)
        .and_then(|()| {
            fs::hard_link(&binary, &copy).or_else(|_| fs::copy(&binary, &copy).map(|_| ()))
        })
        .and_then(|()| fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)))
        .doing(|| format!("copying {} to {}", binary.display(), copy.display()))?;
    Ok(copy)
}

/// Moves the sockets from standard input and output to where systemd passes them.
const ACTIVATE: &str =
    "exec 3<&0 4<&1 0</dev/null 1>&2; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$0\" \"$@\"";

/// A TCP and a Unix socket that anybody may connect to.
fn open_sockets(dir: &Path, port: u16) -> Result<[OwnedFd; 2], Error> {
    let path = dir.join(format!(".s.PGSQL.{port}"));
    let open = || {
        let tcp = TcpListener::bind(("127.0.0.1", port))?;
        let unix = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
        Ok([tcp.into(), unix.into()])
    };
    open().doing(|| format!("listening on port {port} and {}", path.display()))
}

fn listen_for_reports(daemon: &Daemon) -> Result<UnixDatagram, Error> {
    let path = daemon.dir().join("notify");
    let socket = UnixDatagram::bind(&path).doing(|| format!("listening on {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777))
        .doing(|| format!("opening {} to all", path.display()))?;
    Ok(socket)
}

fn report_to(command: &mut Command, socket: Option<&UnixDatagram>) {
    let address = socket.and_then(|socket| socket.local_addr().ok());
    if let Some(path) = address.as_ref().and_then(|address| address.as_pathname()) {
        command.env("NOTIFY_SOCKET", path);
    }
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
