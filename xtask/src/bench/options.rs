//! What the user asked for.

use std::path::PathBuf;

use super::{
    peer::{Asked, Peer},
    workload::Workload,
    workloads::WORKLOADS,
};
use crate::step::Failure;

#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) rounds: u32,
    /// How long one run of pgbench takes.
    pub(crate) seconds: u32,
    /// Every workload, and everybody in each.
    pub(crate) all: bool,
    /// Beginnings of names of workloads; none means the main ones.
    pub(crate) only: Vec<String>,
    /// None means all.
    pub(crate) peers: Vec<Peer>,
    /// Programs that are not in PATH.
    pub(crate) asked: Asked,
    /// Counts system calls wherever that is possible, not only where there is a goal.
    pub(crate) syscalls: bool,
    pub(crate) callgrind: bool,
    pub(crate) write: bool,
    /// Earlier results to use instead of measuring; none means to measure.
    pub(crate) from: Vec<PathBuf>,
    /// Another measurement to set beside this one.
    pub(crate) against: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(args: &[&str]) -> Result<Self, Failure> {
        let mut options = Self {
            rounds: 3,
            seconds: 4,
            ..Self::default()
        };
        let mut args = args.iter().copied();
        while let Some(name) = args.next() {
            let mut value = || {
                args.next()
                    .ok_or_else(|| Failure::new(format!("{name} takes a value")))
            };
            match name {
                "--quick" => (options.rounds, options.seconds) = (2, 3),
                "--all" => options.all = true,
                "--rounds" => options.rounds = number(name, value()?, 1)?,
                "--seconds" => options.seconds = number(name, value()?, 3)?,
                "--only" => {
                    for start in value()?.split(',') {
                        options.only.push(known(start)?);
                    }
                }
                "--peers" => {
                    for name in value()?.split(',') {
                        options.peers.push(peer(name)?);
                    }
                }
                "--pgbouncer" => options.asked.pgbouncer = Some(value()?.into()),
                "--pgcat" => options.asked.pgcat = Some(value()?.into()),
                "--odyssey" => options.asked.odyssey = Some(value()?.into()),
                "--syscalls" => options.syscalls = true,
                "--callgrind" => options.callgrind = true,
                "--write" => options.write = true,
                "--from" => options.from.extend(value()?.split(',').map(PathBuf::from)),
                "--against" => options.against = Some(value()?.into()),
                unknown => return Err(Failure::usage(unknown)),
            }
        }
        Ok(options)
    }

    pub(crate) fn workloads(&self) -> impl Iterator<Item = &'static Workload> {
        let wanted = |workload: &&Workload| {
            let mut beginnings = self.only.iter();
            match self.only.is_empty() {
                true => self.all || workload.is_main,
                false => beginnings.any(|start| workload.name.starts_with(start)),
            }
        };
        WORKLOADS.iter().filter(wanted)
    }

    pub(crate) fn wants(&self, peer: Peer) -> bool {
        self.peers.is_empty() || self.peers.contains(&peer)
    }
}

fn number(name: &str, text: &str, min: u32) -> Result<u32, Failure> {
    let number = text.parse().ok().filter(|number| *number >= min);
    number.ok_or_else(|| Failure::new(format!("{name} takes a number, {min} or more")))
}

fn known(start: &str) -> Result<String, Failure> {
    if WORKLOADS.iter().any(|it| it.name.starts_with(start)) {
        return Ok(start.to_owned());
    }
    let names: Vec<&str> = WORKLOADS.iter().map(|it| it.name).collect();
    let names = names.join(" ");
    Err(Failure::new(format!(
        "no workload begins with {start}; there are {names}"
    )))
}

fn peer(name: &str) -> Result<Peer, Failure> {
    let mut peers = Peer::ALL.into_iter();
    let found = peers.find(|peer| peer.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let names = Peer::ALL.map(Peer::name).join(" ");
        Failure::new(format!("nobody is called {name}; there are {names}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(args: &[&str]) -> Vec<&'static str> {
        let options = Options::parse(args).expect("all known");
        options.workloads().map(|it| it.name).collect()
    }

    #[test]
    fn picks_workloads_by_the_beginnings_of_their_names() {
        let args = ["--only", "copy,unix", "--rounds", "3"];
        assert_eq!(names(&args), ["unix_16", "copy_out", "copy_in"]);
        assert_eq!(Options::parse(&args).expect("all known").rounds, 3);
    }

    #[test]
    fn only_the_main_ones_run_without_being_asked_for() {
        assert!(names(&[]).len() < names(&["--all"]).len());
        assert_eq!(names(&["--all"]).len(), WORKLOADS.len());
        assert!(!names(&[]).contains(&"select_simple_5000"));
    }

    #[test]
    fn peers_are_called_as_in_the_tables() {
        let options = Options::parse(&["--peers", "pgweir-2,PgBouncer"]).expect("both known");
        assert_eq!(options.peers, [Peer::Pgweir2, Peer::PgBouncer]);
        assert!(options.wants(Peer::Pgweir2) && !options.wants(Peer::Direct));
        assert!(Options::default().wants(Peer::Direct));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(Options::parse(&["--only", "nothing"]).is_err());
        assert!(Options::parse(&["--peers", "nobody"]).is_err());
        assert!(Options::parse(&["--rounds", "0"]).is_err());
        assert!(Options::parse(&["--slow"]).is_err());
    }
}
