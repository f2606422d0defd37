//! A throwaway PostgreSQL cluster.

use std::{fs, path::Path, time::Duration};

use rustix::process::Signal;

use crate::{
    account::Account,
    daemon::Daemon,
    endpoint::Endpoint,
    error::{Doing, Error, must},
    pgbench::Pgbench,
    postgres::{Postgres, find},
    process::{free_port, run_ok},
    skip::skip_without_postgres,
    table::Table,
};

const INITDB_MAX: Duration = Duration::from_secs(120);
const STOP_MAX: Duration = Duration::from_secs(30);

/// Between asking for a free port and using it, somebody else may take it.
const PORTS_TRIED_MAX: usize = 5;

/// What is special about a cluster.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// PostgreSQL's own limit.
    pub max_connections: u32,
    /// Lines of pg_hba.conf. They come before the last ones, which trust everybody on this machine.
    pub hba: Vec<String>,
    /// Lines of postgresql.conf.
    pub conf: Vec<String>,
    /// Turns TLS on.
    pub tls: Option<Tls>,
    /// Keeps the data in memory where the machine has room for it, so that no disk is measured.
    pub in_memory: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            max_connections: 100,
            hba: Vec::new(),
            conf: Vec::new(),
            tls: None,
            in_memory: false,
        }
    }
}

/// A server's certificate and key, as the text of PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The server's certificate, and those between it and the root.
    pub cert: String,
    /// Its private key.
    pub key: String,
    /// Who signs client certificates, if they are asked for.
    pub ca: Option<String>,
}

/// How PostgreSQL is stopped, in its manual's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Waits for its clients to leave.
    Smart,
    /// Rolls back and ends all sessions.
    Fast,
    /// Ends as if the power had failed.
    Immediate,
}

/// A running cluster with the superuser `postgres`, who needs no password. Dropping it removes every trace.
#[derive(Debug)]
pub struct Cluster {
    endpoint: Endpoint,
    daemon: Daemon,
}

impl Cluster {
    /// Makes and starts a cluster of the PostgreSQL found here.
    pub fn start(options: ClusterOptions) -> Result<Self, Error> {
        Self::start_with(find()?, options)
    }

    /// Makes and starts a cluster of this PostgreSQL.
    pub fn start_with(postgres: Postgres, options: ClusterOptions) -> Result<Self, Error> {
        let disk = memory_disk().filter(|_| options.in_memory);
        let mut cluster = Self::without_data(postgres, disk)?;
        cluster.initdb(&options)?;
        for _ in 1..PORTS_TRIED_MAX {
            cluster.endpoint.port = free_port();
            match cluster.launch() {
                Err(Error::Exited { tail, .. }) if tail.contains("Address already in use") => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(cluster),
            }
        }
        cluster.endpoint.port = free_port();
        cluster.launch().map(|()| cluster)
    }

    fn without_data(postgres: Postgres, disk: Option<&Path>) -> Result<Self, Error> {
        let account = Account::choose()?;
        let daemon = match disk {
            Some(disk) => Daemon::new_in(disk, "postgres", account)?,
            None => Daemon::new("postgres", account)?,
        };
        let endpoint = Endpoint {
            postgres,
            account,
            host: daemon.dir().display().to_string(),
            port: 0,
            dir: daemon.dir().to_owned(),
        };
        Ok(Self { endpoint, daemon })
    }

    /// Makes and starts a streaming standby of this cluster, on the same port of another address.
    pub fn standby(&self, address: &str) -> Result<Self, Error> {
        let mut standby = Self::without_data(self.endpoint.postgres.clone(), None)?;
        standby.endpoint.port = self.port();
        let mut command = standby.command("pg_basebackup");
        command.arg("-h").arg(self.socket_dir());
        command.args(["-p", &self.port().to_string(), "-U", "postgres"]);
        command.args(["-D", "data", "-R", "-c", "fast", "--no-sync"]);
        run_ok(&mut command, INITDB_MAX)?;
        let conf = "data/postgresql.conf";
        let text = fs::read_to_string(standby.daemon.dir().join(conf));
        let text = text.doing(|| format!("reading {conf}"))?;
        let dir = standby.socket_dir().display();
        let own = format!("listen_addresses = '{address}'\nunix_socket_directories = '{dir}'\n");
        standby.daemon.write(conf, &(text + &own))?;
        standby.launch().map(|()| standby)
    }

    /// A cluster for a test that uses psql and pgbench, or nothing after saying why the test is skipped.
    ///
    /// # Panics
    /// If the cluster does not start, and where `PGWEIR_REQUIRE_POSTGRES` forbids to skip.
    #[track_caller]
    pub fn start_or_skip(options: ClusterOptions) -> Option<Self> {
        let why = match find() {
            Ok(postgres) => match postgres.missing() {
                None => return Some(must(Self::start_with(postgres, options))),
                Some(missing) => format!("{postgres} comes without {missing}"),
            },
            Err(not_found) => not_found.to_string(),
        };
        skip_without_postgres(&why);
        None
    }

    /// Where it listens: its own directory for the Unix socket. On TCP it listens on 127.0.0.1 only.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its port, for TCP and in the name of the Unix socket.
    pub fn port(&self) -> u16 {
        self.endpoint.port
    }

    /// The directory of its Unix socket.
    pub fn socket_dir(&self) -> &Path {
        self.daemon.dir()
    }

    /// The postmaster's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.pid()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.daemon.log()
    }

    /// Runs SQL as the superuser, past any pooler.
    pub fn try_psql(&self, database: &str, sql: &str) -> Result<String, Error> {
        self.endpoint.psql(database, "postgres", sql)
    }

    /// Runs SQL as the superuser, past any pooler.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn psql(&self, database: &str, sql: &str) -> String {
        must(self.try_psql(database, sql))
    }

    /// Runs one query as the superuser and gives its columns and rows.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn table(&self, database: &str, sql: &str) -> Table {
        must(self.endpoint.table(database, "postgres", sql))
    }

    /// Runs pgbench as the superuser, past any pooler.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn pgbench(&self, database: &str, args: &[&str]) -> Pgbench {
        must(self.endpoint.pgbench(database, args))
    }

    /// How many client connections PostgreSQL itself counts, without the one that asks.
    pub fn try_backends(&self) -> Result<u32, Error> {
        let sql = "select count(*) from pg_stat_activity \
                   where backend_type = 'client backend' and pid <> pg_backend_pid()";
        self.try_psql("postgres", sql)
            .map(|count| count.parse().unwrap_or(u32::MAX))
    }

    /// How many client connections PostgreSQL itself counts, without the one that asks.
    ///
    /// # Panics
    /// If it cannot be asked.
    #[track_caller]
    pub fn backends(&self) -> u32 {
        must(self.try_backends())
    }

    /// Stops PostgreSQL and keeps its data.
    pub fn stop(&mut self, how: Stop) -> Result<(), Error> {
        let signal = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        self.daemon.stop(signal, STOP_MAX)
    }

    /// Starts PostgreSQL again after [`stop`](Self::stop), on the same port.
    pub fn start_again(&mut self) -> Result<(), Error> {
        self.launch()
    }

    /// Fast stop and start, on the same port.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop(Stop::Fast)?;
        self.start_again()
    }

    fn initdb(&self, options: &ClusterOptions) -> Result<(), Error> {
        let mut command = self.command("initdb");
        command.args(["-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        command.args(["--locale=C", "--no-sync"]);
        run_ok(&mut command, INITDB_MAX)?;
        self.daemon
            .write("data/postgresql.conf", &self.postgresql_conf(options))?;
        self.daemon
            .write("data/pg_hba.conf", &pg_hba_conf(options))?;
        if let Some(tls) = &options.tls {
            self.daemon.write("data/server.crt", &tls.cert)?;
            self.daemon.write("data/server.key", &tls.key)?;
            self.daemon
                .write("data/root.crt", tls.ca.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }

    fn postgresql_conf(&self, options: &ClusterOptions) -> String {
        let mut lines = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!(
                "unix_socket_directories = '{}'",
                self.socket_dir().display()
            ),
            format!("max_connections = {}", options.max_connections),
            // The data need not survive a power failure. It must survive a crash of PostgreSQL, so commits
            // still wait until the operating system has them.
            "fsync = off".to_owned(),
            "full_page_writes = off".to_owned(),
            // In containers /dev/shm is often too small, or closed to the user that PostgreSQL runs as.
            "dynamic_shared_memory_type = mmap".to_owned(),
            "log_line_prefix = '%m [%p] %q%u@%d '".to_owned(),
        ];
        if let Some(tls) = &options.tls {
            lines.push("ssl = on".to_owned());
            if tls.ca.is_some() {
                lines.push("ssl_ca_file = 'root.crt'".to_owned());
            }
        }
        lines.extend(options.conf.iter().cloned());
        lines.join("\n") + "\n"
    }

    fn launch(&mut self) -> Result<(), Error> {
        let mut command = self.command("postgres");
        command.args(["-D", "data", "-p", &self.endpoint.port.to_string()]);
        self.daemon.spawn(&mut command)?;
        let pid = self.daemon.pid().unwrap_or_default().to_string();
        let pidfile = self.daemon.dir().join("data/postmaster.pid");
        // The first line is the process id, the eighth its state. A file left by a crash has another id.
        let ready = || {
            let text = fs::read_to_string(&pidfile).unwrap_or_default();
            let mut lines = text.lines();
            lines.next() == Some(&*pid) && lines.nth(6).map(str::trim) == Some("ready")
        };
        self.daemon.wait_until("accept connections", ready)
    }

    fn command(&self, program: &str) -> std::process::Command {
        let program = self.endpoint.postgres.bin_dir.join(program);
        self.daemon.account().command(&program, self.daemon.dir())
    }
}

/// Linux's file system in memory, where it exists and is not one of the tiny ones that containers get.
fn memory_disk() -> Option<&'static Path> {
    const ROOM_MIN: u64 = 2 << 30;
    let disk = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(disk).ok()?;
    (room.f_bavail * room.f_frsize >= ROOM_MIN).then_some(disk)
}

fn pg_hba_conf(options: &ClusterOptions) -> String {
    let trust = [
        "local all all trust",
        "host all all 127.0.0.1/32 trust",
        "local replication all trust",
        "host replication all 127.0.0.1/32 trust",
    ];
    let lines: Vec<&str> = options
        .hba
        .iter()
        .map(String::as_str)
        .chain(trust)
        .collect();
    lines.join("\n") + "\n"
}
