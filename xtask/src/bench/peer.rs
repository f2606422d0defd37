//! Who is compared, and what each of them can do.

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use super::workload::{Auth, Load, Pgbench, Workload};
use crate::step::Failure;

/// PostgreSQL itself has a process for each client.
const DIRECT_CLIENTS_MAX: u32 = 64;

/// Who is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Peer {
    Pgweir,
    /// With two workers.
    Pgweir2,
    /// With `prepare_unnamed`.
    PgweirUnnamed,
    PgBouncer,
    /// Two processes on one port, each with half of the servers: how PgBouncer uses a second core.
    PgBouncer2,
    /// Reading as much at a time as the others.
    PgBouncer64k,
    Muxrelay,
    Pgcat,
    Odyssey,
    /// No pooler: PostgreSQL.
    Direct,
}

impl Peer {
    pub(crate) const ALL: [Self; 10] = [
        Self::Pgweir,
        Self::Pgweir2,
        Self::PgweirUnnamed,
        Self::PgBouncer,
        Self::PgBouncer2,
        Self::PgBouncer64k,
        Self::Muxrelay,
        Self::Pgcat,
        Self::Odyssey,
        Self::Direct,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pgweir => "pgweir",
            Self::Pgweir2 => "pgweir-2",
            Self::PgweirUnnamed => "pgweir-unnamed",
            Self::PgBouncer => "PgBouncer",
            Self::PgBouncer2 => "PgBouncer-2",
            Self::PgBouncer64k => "PgBouncer-64k",
            Self::Muxrelay => "muxrelay",
            Self::Pgcat => "pgcat",
            Self::Odyssey => "Odyssey",
            Self::Direct => "direct",
        }
    }

    /// Whether the workload was meant for it at all. What it was meant for and cannot do, [`unable`] says.
    pub(crate) fn takes_part(self, workload: &Workload, everything: bool) -> bool {
        let load = &workload.load;
        if matches!(load, Load::Scraped { .. }) {
            return self == Self::Pgweir;
        }
        match self {
            Self::Pgweir | Self::PgBouncer => true,
            Self::Pgweir2 => !matches!(load, Load::IdleTls { .. }),
            Self::PgBouncer2 => {
                // They cannot share a Unix socket, and one connection is with one of them.
                let apart =
                    workload.way.unix || matches!(load, Load::Read { .. } | Load::Write { .. });
                !apart && !matches!(load, Load::IdleTls { .. })
            }
            Self::PgweirUnnamed => load.parses_unnamed(),
            Self::PgBouncer64k => matches!(load, Load::Read { .. } | Load::Write { .. }),
            Self::Muxrelay => workload.way.is_plain() && !matches!(load, Load::Beside { .. }),
            Self::Pgcat | Self::Odyssey => !matches!(load, Load::IdleTls { .. }),
            Self::Direct => {
                let anew = match load {
                    Load::Pgbench(Pgbench { clients, args, .. }) => {
                        *clients > DIRECT_CLIENTS_MAX || args.contains(&"-C")
                    }
                    Load::Read { .. } | Load::Write { .. } => false,
                    Load::Idle { .. }
                    | Load::IdleTls { .. }
                    | Load::Beside { .. }
                    | Load::Scraped { .. } => true,
                };
                let asked = everything || workload.name.starts_with("select_simple");
                !anew && asked && workload.way.auth == Auth::Trust && !workload.way.tls_server
            }
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) pgweir: PathBuf,
    pub(crate) muxrelay: PathBuf,
    pub(crate) load: PathBuf,
    pub(crate) pgbouncer: Option<Program>,
    pub(crate) pgcat: Option<Program>,
    pub(crate) odyssey: Option<Program>,
}

/// Where the user says that programs are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) pgbouncer: Option<PathBuf>,
    pub(crate) pgcat: Option<PathBuf>,
    pub(crate) odyssey: Option<PathBuf>,
}

/// A pooler that others have built.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// As it says itself: `PgBouncer 1.25.2`.
    pub(crate) version: String,
}

impl Program {
    /// The one that was asked for, or the one in PATH or where Debian puts it.
    pub(crate) fn find(name: &str, asked: Option<&Path>) -> Result<Option<Self>, Failure> {
        if let Some(path) = asked {
            let found = Self::open(path.to_owned());
            return found.map(Some).ok_or_else(|| {
                Failure::new(format!("{} does not say its version", path.display()))
            });
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        Ok(folders
            .map(|folder| folder.join(name))
            .filter(|path| path.is_file())
            .find_map(Self::open))
    }

    fn open(path: PathBuf) -> Option<Self> {
        let output = Command::new(&path).arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let version = text.lines().find(|line| !line.trim().is_empty())?;
        let version = version.trim().to_owned();
        Some(Self { path, version })
    }

    /// Since 1.21 PgBouncer follows prepared statements in transaction mode.
    fn knows_prepared(&self) -> bool {
        let numbers = self.version.rsplit(' ').next().unwrap_or_default();
        let mut numbers = numbers.split('.').map(|number| number.parse::<u32>());
        matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (1, 21))
    }
}

impl Programs {
    /// What is not here, and what would bring it.
    pub(crate) fn absent(&self) -> Vec<String> {
        let all = [
            ("pgbouncer", self.pgbouncer.is_some()),
            ("pgcat", self.pgcat.is_some()),
            ("odyssey", self.odyssey.is_some()),
        ];
        let absent = all.iter().filter(|(_, is_here)| !is_here);
        absent
            .map(|(name, _)| format!("no {name}: none in PATH or /usr/sbin, and no --{name} PATH"))
            .collect()
    }

    /// Whether there is a program for this peer.
    pub(crate) fn have(&self, peer: Peer) -> bool {
        match peer {
            Peer::Pgweir | Peer::Pgweir2 | Peer::PgweirUnnamed | Peer::Muxrelay | Peer::Direct => {
                true
            }
            Peer::PgBouncer | Peer::PgBouncer2 | Peer::PgBouncer64k => self.pgbouncer.is_some(),
            Peer::Pgcat => self.pgcat.is_some(),
            Peer::Odyssey => self.odyssey.is_some(),
        }
    }
}

/// Why a peer cannot do a workload that it takes part in, or nothing if it can.
pub(crate) fn unable(peer: Peer, workload: &Workload, programs: &Programs) -> Option<String> {
    let way = workload.way;
    match peer {
        Peer::Pgweir | Peer::Pgweir2 | Peer::PgweirUnnamed | Peer::PgBouncer64k | Peer::Direct => {
            None
        }
        Peer::PgBouncer | Peer::PgBouncer2 => match &programs.pgbouncer {
            Some(it) if workload.load.needs_prepared() && !it.knows_prepared() => Some(format!(
                "{} does not follow prepared statements",
                it.version
            )),
            Some(_) | None => None,
        },
        Peer::Muxrelay => match workload.relay.mode() {
            Some(_) => None,
            None if workload.load.needs_prepared() => {
                Some("prepared statements need the same server every time".to_owned())
            }
            None => Some("it listens on one address".to_owned()),
        },
        Peer::Pgcat => match way.auth {
            Auth::Trust | Auth::Md5 if !way.unix => None,
            Auth::Trust | Auth::Md5 => Some("it knows no Unix sockets".to_owned()),
            Auth::Scram | Auth::Cert => Some("it asks clients for MD5 passwords only".to_owned()),
        },
        Peer::Odyssey => match way.auth {
            Auth::Cert => Some("its rules for certificates are not written here".to_owned()),
            Auth::Trust | Auth::Md5 | Auth::Scram if way.unix => {
                Some("its Unix sockets are not configured here".to_owned())
            }
            Auth::Trust | Auth::Md5 | Auth::Scram => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::workloads::find;

    #[test]
    fn knows_which_versions_follow_prepared_statements() {
        let pgbouncer = |version: &str| Program {
            path: PathBuf::new(),
            version: version.to_owned(),
        };
        assert!(!pgbouncer("PgBouncer 1.18.0").knows_prepared());
        assert!(pgbouncer("PgBouncer 1.25.2").knows_prepared());
        assert!(!pgbouncer("something else").knows_prepared());
    }

    #[test]
    fn postgresql_itself_takes_part_where_there_is_something_to_see() {
        let takes_part = |name: &str, everything| {
            let workload = find(name).expect("a workload of that name");
            Peer::Direct.takes_part(workload, everything)
        };
        assert!(takes_part("select_simple_64", false));
        assert!(!takes_part("select_simple_1000", true));
        assert!(!takes_part("tpcb_16", false));
        assert!(takes_part("tpcb_16", true));
        assert!(!takes_part("connect_16", true));
        assert!(!takes_part("tls_server_16", true));
    }

    #[test]
    fn the_relay_knows_neither_passwords_nor_tls() {
        let takes_part = |name: &str| {
            let workload = find(name).expect("a workload of that name");
            Peer::Muxrelay.takes_part(workload, true)
        };
        assert!(takes_part("login_trust") && takes_part("rows_big"));
        assert!(!takes_part("login_scram") && !takes_part("tls_client_16"));
    }
}
