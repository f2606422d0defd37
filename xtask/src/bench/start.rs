//! Starting the programs that are compared, afresh for every run and with the same limits.

use std::{
    fs, io,
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use pgweir_harness::{Account, Cluster, Endpoint, Ini, Pooler};

use super::{
    cost::{self, Usage},
    foreign::{self, Place},
    lines::Lines,
    material::{Certificates, PASSWORD, Secrets},
    peer::{Peer, Program, Programs},
    workload::{Auth, Load, SERVERS, Way, Workload},
};
use crate::step::Failure;

/// Clients that a pooler is told to accept, at least.
const CLIENTS_MIN: u32 = 6000;

/// A program that is no pooler of ours lives this long at most.
const LIFE_MAX: Duration = Duration::from_secs(600);

/// The name of a socket over which pages are read.
const PAGES: &str = "http";

/// How long a foreign pooler may take to listen.
const START_MAX: Duration = Duration::from_secs(20);

/// Connections that one client address can have to one address of a pooler, with some left for others.
pub(crate) const CONNECTIONS_PER_ADDRESS: u32 = 18_000;

/// What is behind the peers.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) programs: Programs,
    pub(crate) cluster: Cluster,
    pub(crate) certificates: Certificates,
    pub(crate) secrets: Secrets,
}

/// One peer, running. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) endpoint: Endpoint,
    /// Of the pooler's processes; without any there is nothing whose cost could be counted.
    pub(crate) pids: Vec<u32>,
    /// What libpq has to know beside the address.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Addresses for many clients of our own.
    pub(crate) hosts: Vec<String>,
    life: Life,
}

#[derive(Debug)]
enum Life {
    /// What the pages and the log are of comes first.
    Poolers(Vec<Pooler>),
    Program(Lines),
    Cluster,
}

impl Running {
    /// What its processes have used so far.
    pub(crate) fn usage(&self) -> io::Result<Option<Usage>> {
        match self.pids.is_empty() {
            true => Ok(None),
            false => Usage::now(&self.pids).map(Some),
        }
    }

    /// The memory of all its processes, in bytes.
    pub(crate) fn memory(&self) -> Result<u64, Failure> {
        if self.pids.is_empty() {
            return Err(Failure::new("memory is counted of poolers only"));
        }
        let bytes: io::Result<u64> = self.pids.iter().map(|pid| cost::memory(*pid)).sum();
        Ok(bytes?)
    }

    /// The most memory that its processes have had, in bytes.
    pub(crate) fn peak(&self) -> Option<u64> {
        self.pids.iter().map(|pid| cost::peak(*pid)).sum()
    }

    /// The last lines of its log.
    pub(crate) fn log(&self) -> String {
        let log = match &self.life {
            Life::Poolers(poolers) => poolers.iter().map(Pooler::log).collect(),
            Life::Program(_) | Life::Cluster => String::new(),
        };
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// The socket behind which its metrics and its status are.
    pub(crate) fn pages(&self) -> Option<PathBuf> {
        match &self.life {
            Life::Poolers(poolers) => poolers.first().map(|it| it.socket_dir.join(PAGES)),
            Life::Program(_) | Life::Cluster => None,
        }
    }

    /// Waits for the end of a peer that has been interrupted.
    pub(crate) fn wait_for_exit(&mut self, limit: Duration) {
        match &mut self.life {
            Life::Poolers(poolers) => {
                for pooler in poolers {
                    pooler.wait_for_exit(limit);
                }
            }
            Life::Program(lines) => while let Ok(Some(_)) = lines.next() {},
            Life::Cluster => {}
        }
    }
}

/// Starts a peer in front of the cluster.
pub(crate) fn start(
    peer: Peer,
    workload: &Workload,
    programs: &Programs,
    scene: &Scene,
) -> Result<Running, Failure> {
    let absent = || Failure::new(format!("there is no {peer} here"));
    let pgbouncer = || programs.pgbouncer.as_ref().ok_or_else(absent);
    let ini = ini(workload, scene);
    match peer {
        Peer::Pgweir => pooler(&programs.pgweir, ini, workload, scene),
        Peer::Pgweir2 => pooler(&programs.pgweir, ini.set("workers", 2), workload, scene),
        Peer::PgweirUnnamed => {
            let ini = ini.set("prepare_unnamed", 1);
            pooler(&programs.pgweir, ini, workload, scene)
        }
        Peer::PgBouncer => pooler(&pgbouncer()?.path, ini, workload, scene),
        Peer::PgBouncer2 => two_processes(&pgbouncer()?.path, ini, workload, scene),
        Peer::PgBouncer64k => {
            let ini = ini.set("pkt_buf", 65536);
            pooler(&pgbouncer()?.path, ini, workload, scene)
        }
        Peer::Muxrelay => relay(workload, &programs.muxrelay, &scene.cluster),
        Peer::Pgcat => {
            let program = programs.pgcat.as_ref().ok_or_else(absent)?;
            foreign(program, workload, scene, "pgcat.toml", foreign::pgcat)
        }
        Peer::Odyssey => {
            let program = programs.odyssey.as_ref().ok_or_else(absent)?;
            foreign(program, workload, scene, "odyssey.conf", foreign::odyssey)
        }
        Peer::Direct => Ok(direct(workload.way, &scene.cluster)),
    }
}

fn pooler(binary: &Path, ini: Ini, workload: &Workload, scene: &Scene) -> Result<Running, Failure> {
    let pooler = Pooler::start_binary(binary, ini)?;
    Ok(running(vec![pooler], workload, scene))
}

/// Two of them share one port and the servers.
fn two_processes(
    binary: &Path,
    ini: Ini,
    workload: &Workload,
    scene: &Scene,
) -> Result<Running, Failure> {
    let ini = ini
        .set("so_reuseport", 1)
        .set("default_pool_size", SERVERS / 2);
    let first = Pooler::start_binary(binary, ini.clone())?;
    let second = Pooler::start_binary(binary, ini.set("listen_port", first.port))?;
    Ok(running(vec![first, second], workload, scene))
}

fn running(poolers: Vec<Pooler>, workload: &Workload, scene: &Scene) -> Running {
    // pgbench writes there, into memory.
    let dir = scene.cluster.socket_dir().to_owned();
    let pids = poolers.iter().map(|pooler| pooler.pid).collect();
    let own = match workload.way.unix {
        true => poolers[0].unix_endpoint(),
        false => poolers[0].endpoint(),
    };
    Running {
        env: environment(workload.way, &own.dir),
        endpoint: Endpoint { dir, ..own },
        pids,
        hosts: hosts(workload),
        life: Life::Poolers(poolers),
    }
}

fn relay(workload: &Workload, binary: &Path, cluster: &Cluster) -> Result<Running, Failure> {
    let mode = workload.relay.mode().unwrap_or_default();
    let mut command = Command::new(binary);
    command.args([&cluster.port().to_string(), &SERVERS.to_string(), mode]);
    let mut lines = Lines::spawn(&mut command, LIFE_MAX)?;
    let line = lines.next()?.unwrap_or_default();
    let port = line
        .parse()
        .map_err(|_| Failure::new(format!("muxrelay says: {line}")))?;
    Ok(program(lines, port, workload.way, cluster))
}

/// A pooler with a file of its own kind.
fn foreign(
    it: &Program,
    workload: &Workload,
    scene: &Scene,
    file: &str,
    text: fn(&Place<'_>, Way) -> String,
) -> Result<Running, Failure> {
    let cluster = &scene.cluster;
    let account = cluster.endpoint().account;
    let dir = cluster.socket_dir();
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let place = Place {
        port,
        server_port: cluster.port(),
        dir,
        clients_max: clients_max(workload),
    };
    write(account, dir, file, &text(&place, workload.way))?;
    let server = &scene.certificates.server;
    write(account, dir, "server.crt", &server.cert)?;
    write(account, dir, "server.key", &server.key)?;
    let mut command = account.command(&it.path, dir);
    let mut lines = Lines::spawn(command.arg(dir.join(file)), LIFE_MAX)?;
    let deadline = Instant::now() + START_MAX;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > deadline {
            lines.kill();
            let said = lines.rest()?.join("\n");
            return Err(Failure::new(format!(
                "{} does not listen: {said}",
                it.version
            )));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(program(lines, port, workload.way, cluster))
}

fn program(lines: Lines, port: u16, way: Way, cluster: &Cluster) -> Running {
    Running {
        endpoint: Endpoint {
            host: "127.0.0.1".to_owned(),
            port,
            ..cluster.endpoint().clone()
        },
        pids: vec![lines.pid()],
        env: environment(way, cluster.socket_dir()),
        hosts: vec!["127.0.0.1".to_owned()],
        life: Life::Program(lines),
    }
}

fn direct(way: Way, cluster: &Cluster) -> Running {
    let mut endpoint = cluster.endpoint().clone();
    if !way.unix {
        endpoint.host = "127.0.0.1".to_owned();
    }
    Running {
        endpoint,
        pids: Vec::new(),
        env: environment(way, cluster.socket_dir()),
        hosts: vec!["127.0.0.1".to_owned()],
        life: Life::Cluster,
    }
}

/// A file that only this user may read.
fn write(account: Account, dir: &Path, name: &str, text: &str) -> Result<PathBuf, Failure> {
    let path = dir.join(name);
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    match account {
        Account::Own => {}
        Account::Unprivileged { uid, gid } => chown(&path, Some(uid), Some(gid))?,
    }
    Ok(path)
}

/// What tells libpq how to come in; `dir` holds the client's certificate, if there is one.
fn environment(way: Way, dir: &Path) -> Vec<(&'static str, String)> {
    let mode = if way.tls_client { "require" } else { "disable" };
    let mut env = vec![("PGSSLMODE", mode.to_owned())];
    match way.auth {
        Auth::Trust => {}
        Auth::Md5 | Auth::Scram => env.push(("PGPASSWORD", PASSWORD.to_owned())),
        Auth::Cert => {
            let file = |name: &str| dir.join(name).display().to_string();
            env.push(("PGSSLCERT", file("client.crt")));
            env.push(("PGSSLKEY", file("client.key")));
        }
    }
    env
}

fn clients_max(workload: &Workload) -> u32 {
    CLIENTS_MIN.max(workload.load.clients() + 1000)
}

/// As many addresses as give all clients a port.
fn hosts(workload: &Workload) -> Vec<String> {
    let count = workload
        .load
        .clients()
        .div_ceil(CONNECTIONS_PER_ADDRESS)
        .max(1);
    (1..=count)
        .map(|number| format!("127.0.0.{number}"))
        .collect()
}

/// The same file for pgweir and PgBouncer. Old PgBouncers refuse keys they do not know, so it holds only old ones; the
/// limit on prepared statements is 200 in both by default.
fn ini(workload: &Workload, scene: &Scene) -> Ini {
    let way = workload.way;
    let cluster = &scene.cluster;
    let ini = Ini::in_front_of(cluster)
        .set("listen_addr", hosts(workload).join(","))
        .set("pool_mode", "transaction")
        .set("default_pool_size", SERVERS)
        .set("max_client_conn", clients_max(workload))
        .set("log_connections", 0)
        .set("log_disconnections", 0)
        .set("log_stats", 0)
        .set(
            "server_tls_sslmode",
            if way.tls_server { "require" } else { "disable" },
        );
    let ini = match way.unix {
        true => ini.database(
            "*",
            &format!(
                "host={} port={}",
                cluster.socket_dir().display(),
                cluster.port()
            ),
        ),
        false => ini,
    };
    let ini = match workload.load {
        Load::Scraped { .. } => ini.set("metrics_listen", format!("{{dir}}/{PAGES}")),
        _ => ini,
    };
    proofs(encrypted(ini, way, &scene.certificates), way, scene)
}

fn encrypted(ini: Ini, way: Way, certificates: &Certificates) -> Ini {
    if !way.tls_client {
        return ini;
    }
    ini.set("client_tls_sslmode", "require")
        .set("client_tls_cert_file", "{dir}/server.crt")
        .set("client_tls_key_file", "{dir}/server.key")
        .file("server.crt", &certificates.server.cert)
        .file("server.key", &certificates.server.key)
}

fn proofs(ini: Ini, way: Way, scene: &Scene) -> Ini {
    let users = |secret: &str| format!("\"postgres\" \"{secret}\"\n");
    match way.auth {
        Auth::Trust => ini,
        Auth::Md5 => ini
            .set("auth_type", "md5")
            .file("userlist.txt", &users(&scene.secrets.md5)),
        Auth::Scram => ini
            .set("auth_type", "scram-sha-256")
            .file("userlist.txt", &users(&scene.secrets.scram)),
        Auth::Cert => ini
            .set("auth_type", "cert")
            .set("client_tls_sslmode", "verify-full")
            .set("client_tls_ca_file", "{dir}/ca.crt")
            .file("ca.crt", &scene.certificates.ca)
            .file("client.crt", &scene.certificates.client.cert)
            .file("client.key", &scene.certificates.client.key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workloads::find;

    #[test]
    fn many_clients_come_to_several_addresses() {
        let hosts_of = |name: &str| hosts(find(name).expect("a workload of that name"));
        assert_eq!(hosts_of("idle_10000"), ["127.0.0.1"]);
        assert_eq!(hosts_of("idle_50000").len(), 3);
    }

    #[test]
    fn libpq_uses_tls_only_where_it_is_told() {
        let env = environment(Way::PLAIN, Path::new("/x"));
        assert_eq!(env, [("PGSSLMODE", "disable".to_owned())]);
        let proven = Way {
            auth: Auth::Cert,
            tls_client: true,
            ..Way::PLAIN
        };
        let env = environment(proven, Path::new("/x"));
        assert!(env.contains(&("PGSSLCERT", "/x/client.crt".to_owned())));
    }
}
