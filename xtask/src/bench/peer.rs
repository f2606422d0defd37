//! The programs that are compared, each started afresh for every run with the same limits.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pgweir_harness::{Cluster, Endpoint, Ini, Pooler};
use serde::{Deserialize, Serialize};

use super::{
    lines::Lines,
    workload::{SERVERS, Workload},
};
use crate::step::Failure;

/// More than any workload has clients.
const CLIENTS_MAX: u32 = 6000;

/// The bare relay of one run lives this long at most.
const RELAY_MAX: Duration = Duration::from_secs(600);

/// Who is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    Pgweir,
    PgBouncer,
    Muxrelay,
}

impl Peer {
    pub(crate) const ALL: [Self; 3] = [Self::Pgweir, Self::PgBouncer, Self::Muxrelay];
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pgweir => "pgweir",
            Self::PgBouncer => "PgBouncer",
            Self::Muxrelay => "muxrelay",
        })
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) pgweir: PathBuf,
    pub(crate) muxrelay: PathBuf,
    pub(crate) load: PathBuf,
    pub(crate) pgbouncer: Option<PgBouncer>,
}

/// A PgBouncer, of whatever version.
#[derive(Clone, Debug)]
pub(crate) struct PgBouncer {
    pub(crate) path: PathBuf,
    /// As it says itself: `PgBouncer 1.25.2`.
    pub(crate) version: String,
}

impl PgBouncer {
    /// The one that was asked for, or the one in PATH or where Debian puts it.
    pub(crate) fn find(asked: Option<&Path>) -> Result<Option<Self>, Failure> {
        if let Some(path) = asked {
            let found = Self::open(path.to_owned());
            return found.map(Some).ok_or_else(|| {
                Failure::new(format!("{} does not say its version", path.display()))
            });
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        Ok(folders
            .map(|folder| folder.join("pgbouncer"))
            .filter(|path| path.is_file())
            .find_map(Self::open))
    }

    fn open(path: PathBuf) -> Option<Self> {
        let output = Command::new(&path).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        let version = text.lines().next()?.to_owned();
        Some(Self { path, version })
    }

    /// Since 1.21 it follows prepared statements in transaction mode.
    fn knows_prepared(&self) -> bool {
        let numbers = self.version.rsplit(' ').next().unwrap_or_default();
        let mut numbers = numbers.split('.').map(|number| number.parse::<u32>());
        matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (1, 21))
    }
}

/// One peer, running. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) endpoint: Endpoint,
    pub(crate) pid: u32,
    life: Life,
}

#[derive(Debug)]
enum Life {
    Pooler(Box<Pooler>),
    Relay(Lines),
}

impl Running {
    /// The last lines of its log.
    pub(crate) fn log(&self) -> String {
        let log = match &self.life {
            Life::Pooler(pooler) => pooler.log(),
            Life::Relay(_) => String::new(),
        };
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Waits for the end of a peer that has been interrupted.
    pub(crate) fn wait_for_exit(&mut self, limit: Duration) {
        match &mut self.life {
            Life::Pooler(pooler) => {
                pooler.wait_for_exit(limit);
            }
            Life::Relay(lines) => while let Ok(Some(_)) = lines.next() {},
        }
    }
}

/// Why a peer cannot do a workload, or nothing if it can.
pub(crate) fn unable(peer: Peer, workload: &Workload, programs: &Programs) -> Option<String> {
    match peer {
        Peer::Pgweir => None,
        Peer::PgBouncer => match &programs.pgbouncer {
            None => Some("no pgbouncer in PATH or /usr/sbin".to_owned()),
            Some(it) if workload.load.needs_prepared() && !it.knows_prepared() => Some(format!(
                "{} does not follow prepared statements",
                it.version
            )),
            Some(_) => None,
        },
        Peer::Muxrelay => match workload.relay.mode() {
            Some(_) => None,
            None => Some("prepared statements need the same server every time".to_owned()),
        },
    }
}

/// Starts a peer in front of the cluster.
pub(crate) fn start(
    peer: Peer,
    workload: &Workload,
    programs: &Programs,
    cluster: &Cluster,
) -> Result<Running, Failure> {
    let pooler = |binary: &Path| -> Result<Running, Failure> {
        let pooler = Pooler::start_binary(binary, ini(cluster))?;
        Ok(Running {
            endpoint: Endpoint {
                dir: cluster.socket_dir().to_owned(),
                ..pooler.endpoint()
            },
            pid: pooler.pid,
            life: Life::Pooler(Box::new(pooler)),
        })
    };
    match peer {
        Peer::Pgweir => pooler(&programs.pgweir),
        Peer::PgBouncer => match &programs.pgbouncer {
            Some(pgbouncer) => pooler(&pgbouncer.path),
            None => Err(Failure::new("there is no PgBouncer here")),
        },
        Peer::Muxrelay => relay(workload, &programs.muxrelay, cluster),
    }
}

fn relay(workload: &Workload, binary: &Path, cluster: &Cluster) -> Result<Running, Failure> {
    let mode = workload.relay.mode().unwrap_or_default();
    let mut command = Command::new(binary);
    command.args([&cluster.port().to_string(), &SERVERS.to_string(), mode]);
    let mut lines = Lines::spawn(&mut command, RELAY_MAX)?;
    let line = lines.next()?.unwrap_or_default();
    let port = line
        .parse()
        .map_err(|_| Failure::new(format!("muxrelay says: {line}")))?;
    Ok(Running {
        endpoint: Endpoint {
            host: "127.0.0.1".to_owned(),
            port,
            ..cluster.endpoint().clone()
        },
        pid: lines.pid(),
        life: Life::Relay(lines),
    })
}

/// The same file for both poolers. Old PgBouncers refuse keys they do not know, so it holds only old ones; the
/// limit on prepared statements is 200 in both by default.
fn ini(cluster: &Cluster) -> Ini {
    Ini::in_front_of(cluster)
        .set("pool_mode", "transaction")
        .set("default_pool_size", SERVERS)
        .set("max_client_conn", CLIENTS_MAX)
        .set("log_connections", 0)
        .set("log_disconnections", 0)
        .set("log_stats", 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_which_versions_follow_prepared_statements() {
        let pgbouncer = |version: &str| PgBouncer {
            path: PathBuf::new(),
            version: version.to_owned(),
        };
        assert!(!pgbouncer("PgBouncer 1.18.0").knows_prepared());
        assert!(pgbouncer("PgBouncer 1.25.2").knows_prepared());
        assert!(!pgbouncer("something else").knows_prepared());
    }
}
