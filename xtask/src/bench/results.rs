//! What was measured, as it is kept in a file, and the figures that follow from it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use super::{measure::Sample, peer::Peer};
use crate::step::Failure;

/// One measurement of all workloads.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Results {
    /// When it began, UTC.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    /// Name and version of everything that took part.
    pub(crate) versions: Vec<String>,
    pub(crate) rounds: u32,
    pub(crate) seconds: u32,
    pub(crate) runs: Vec<Run>,
    /// What a peer could not do, and why.
    pub(crate) skipped: Vec<String>,
    #[serde(default)]
    pub(crate) details: Vec<Detail>,
}

/// One run.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) peer: Peer,
    pub(crate) round: u32,
    #[serde(flatten)]
    pub(crate) sample: Sample,
}

/// A count that needs a run of its own: per transaction.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Detail {
    pub(crate) workload: String,
    pub(crate) peer: Peer,
    pub(crate) counts: BTreeMap<String, f64>,
}

/// Where it was measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: f64,
    pub(crate) kernel: String,
    /// How many programs wanted a core in the minute before it began, and at its end.
    pub(crate) load_before: f64,
    pub(crate) load_after: f64,
}

/// The middle of several figures, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(mut figures: Vec<f64>) -> Option<Self> {
        figures.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*figures.first()?, *figures.last()?);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            figures[middle]
        } else {
            f64::midpoint(figures[middle - 1], figures[middle])
        };
        Some(Self { median, min, max })
    }
}

impl Results {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
    }

    /// The measurements of several files as one: the rounds of a later one follow on those of the first.
    pub(crate) fn read_all(first: &Path, later: &[PathBuf]) -> Result<Self, Failure> {
        let mut later = later.iter();
        later.try_fold(Self::read(first)?, |results, path| {
            Ok(results.and(Self::read(path)?))
        })
    }

    fn and(mut self, mut later: Self) -> Self {
        for run in &mut later.runs {
            run.round += self.rounds_of(&run.workload);
        }
        let runs_later = |skipped: &String| {
            let everybody = skipped.split_once(", everybody:");
            everybody.is_some_and(|(workload, _)| later.rounds_of(workload) > 0)
        };
        self.skipped.retain(|skipped| !runs_later(skipped));
        self.skipped.append(&mut later.skipped);
        self.runs.append(&mut later.runs);
        self.details.append(&mut later.details);
        // Who was not found for the later one is here already, or took no part.
        let took_part = |version: &String| !version.starts_with("no ");
        for version in later.versions.into_iter().filter(took_part) {
            if !self.versions.contains(&version) {
                self.versions.push(version);
            }
        }
        self.machine.load_after = later.machine.load_after;
        self
    }

    fn rounds_of(&self, workload: &str) -> u32 {
        let runs = self.runs.iter().filter(|run| run.workload == workload);
        runs.map(|run| run.round + 1).max().unwrap_or_default()
    }

    /// How many rounds there are: `3 rounds`, or `2 to 6 rounds` where some workloads have more than others.
    pub(crate) fn how_many_rounds(&self) -> String {
        let rounds = self.runs.iter().map(|run| {
            let of_each = Peer::ALL.map(|peer| self.runs(&run.workload, peer).count());
            of_each.into_iter().max().unwrap_or_default()
        });
        let (fewest, most) = (rounds.clone().min(), rounds.max());
        match (fewest, most) {
            (Some(fewest), Some(most)) if most > fewest => format!("{fewest} to {most} rounds"),
            _ => format!("{} rounds", fewest.unwrap_or_default()),
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n")
            .map_err(|error| Failure::new(format!("{}: {error}", path.display())))
    }

    /// One figure of every run of a peer.
    pub(crate) fn spread(
        &self,
        workload: &str,
        peer: Peer,
        figure: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        let runs = self.runs(workload, peer);
        Spread::of(runs.filter_map(|run| figure(&run.sample)).collect())
    }

    /// One's figure in terms of another's, round by round: what disturbs one run of a round disturbs its
    /// neighbours too.
    pub(crate) fn ratio(
        &self,
        workload: &str,
        of: Peer,
        to: Peer,
        figure: impl Fn(&Sample) -> Option<f64>,
    ) -> Option<Spread> {
        let ratios = self.runs(workload, of).filter_map(|ours| {
            let mut theirs = self.runs(workload, to);
            let other = theirs.find(|other| other.round == ours.round)?;
            let (ours, theirs) = (figure(&ours.sample)?, figure(&other.sample)?);
            (theirs > 0.0).then_some(ours / theirs)
        });
        Spread::of(ratios.collect())
    }

    /// The ratio of costs.
    pub(crate) fn cost_ratio(&self, workload: &str, of: Peer, to: Peer) -> Option<Spread> {
        self.ratio(workload, of, to, |sample| sample.cost)
    }

    /// A count that took a run of its own.
    pub(crate) fn count(&self, workload: &str, peer: Peer, name: &str) -> Option<f64> {
        let mut details = self.details.iter();
        details.find_map(|detail| {
            let is_it = detail.workload == workload && detail.peer == peer;
            detail.counts.get(name).copied().filter(|_| is_it)
        })
    }

    /// Those who ran at all, in their order.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        let ran = |peer: &Peer| self.runs.iter().any(|run| run.peer == *peer);
        Peer::ALL.into_iter().filter(ran).collect()
    }

    fn runs(&self, workload: &str, peer: Peer) -> impl Iterator<Item = &Run> {
        let wanted = move |run: &&Run| run.workload == workload && run.peer == peer;
        self.runs.iter().filter(wanted)
    }
}

impl Machine {
    pub(crate) fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = meminfo
            .lines()
            .find_map(|line| line.strip_prefix("MemTotal:"))
            .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok());
        let cpu = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name"))
            .map(|rest| rest.trim_start_matches([' ', '\t', ':']).to_owned());
        Self {
            cpu: cpu.unwrap_or_else(|| said("uname", &["-m"])),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or_default() / f64::from(1 << 20),
            kernel: said("uname", &["-sr"]),
            load_before: load(),
            load_after: 0.0,
        }
    }
}

/// How many programs wanted a core in the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.unwrap_or_default()
}

/// What a small program says, or nothing.
pub(crate) fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    text.unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Costs of pgweir and PgBouncer in rounds of one workload.
    pub(crate) fn results(workload: &str, rounds: &[(f64, f64)]) -> Results {
        let run = |round: usize, peer, cost| Run {
            workload: workload.to_owned(),
            peer,
            round: round as u32,
            sample: Sample {
                cost: Some(cost),
                ..Sample::default()
            },
        };
        let runs = rounds
            .iter()
            .enumerate()
            .flat_map(|(round, (ours, theirs))| {
                [
                    run(round, Peer::Pgweir, *ours),
                    run(round, Peer::PgBouncer, *theirs),
                ]
            });
        Results {
            date: "2026-01-01 00:00".to_owned(),
            machine: Machine::this(),
            versions: Vec::new(),
            rounds: rounds.len() as u32,
            seconds: 1,
            runs: runs.collect(),
            skipped: Vec::new(),
            details: Vec::new(),
        }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // The machine was half as fast in the second round; the ratio does not see it.
        let results = results("w", &[(10.0, 20.0), (20.0, 40.0), (12.0, 20.0)]);
        let ratio = |to| results.cost_ratio("w", Peer::Pgweir, to);
        let spread = ratio(Peer::PgBouncer).expect("both ran");
        assert_eq!((spread.median, spread.min, spread.max), (0.5, 0.5, 0.6));
        assert_eq!(ratio(Peer::Muxrelay), None);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        assert_eq!(
            Spread::of(vec![4.0, 1.0, 2.0, 3.0]).map(|s| s.median),
            Some(2.5)
        );
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn rounds_of_a_later_measurement_follow_on_those_of_the_first() {
        let mut first = results("w", &[(10.0, 20.0), (20.0, 40.0)]);
        first.runs.extend(results("v", &[(1.0, 2.0)]).runs);
        // Somebody else comes later.
        let direct = results("v", &[(1.0, 2.0)]).runs.remove(0);
        first.skipped = ["x, everybody: no room", "y, everybody: no room"]
            .map(str::to_owned)
            .into();
        let mut later = results("w", &[(60.0, 40.0), (9.0, 10.0), (7.0, 10.0)]);
        later.runs.extend(results("x", &[(1.0, 1.0)]).runs);
        later.runs.push(Run {
            peer: Peer::Direct,
            ..direct
        });
        let both = first.and(later);
        let ratio = both.cost_ratio("w", Peer::Pgweir, Peer::PgBouncer);
        let spread = ratio.expect("both ran");
        assert_eq!((spread.median, spread.min, spread.max), (0.7, 0.5, 1.5));
        assert_eq!(both.how_many_rounds(), "1 to 5 rounds");
        assert_eq!(both.skipped, ["y, everybody: no room"]);
    }

    #[test]
    fn a_file_of_an_earlier_version_can_still_be_read() {
        let run = r#"{"workload":"w","peer":"pgbouncer","round":1,"cost":2.5,"p50_ms":1.0}"#;
        let run: Run = serde_json::from_str(run).expect("its fields have their old names");
        assert_eq!((run.peer, run.sample.cost), (Peer::PgBouncer, Some(2.5)));
        assert_eq!(run.sample.p999_ms, None);
    }

    #[test]
    fn come_out_of_the_file_as_they_went_in() {
        let results = results("w", &[(1.0, 2.0)]);
        let text = serde_json::to_string(&results).expect("plain data");
        let back: Results = serde_json::from_str(&text).expect("its own text");
        assert_eq!(back.runs[1].peer, Peer::PgBouncer);
        assert_eq!(back.runs[0].sample, results.runs[0].sample);
    }
}
