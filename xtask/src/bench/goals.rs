//! What pgweir wants to reach, and whether it did: one row per goal.

use super::{
    peer::Peer,
    results::{Results, Spread},
    tables::measured,
};

/// A goal for some workloads.
struct Goal {
    what: &'static str,
    /// Names of workloads; a `*` at the end stands for anything.
    on: &'static [&'static str],
    figure: Figure,
    bound: Bound,
}

/// What is looked at.
#[derive(Clone, Copy)]
enum Figure {
    /// The cost of one in terms of another's.
    Cost(Peer, Peer),
    /// What is done in a second in terms of another's.
    Rate(Peer, Peer),
    /// p99 in terms of another's.
    P99(Peer, Peer),
    /// pgweir's own cost.
    Own,
    /// p99 beside others in terms of p99 while they are at another instance of pgweir.
    Beside,
    /// pgweir's system calls per transaction.
    Syscalls,
}

#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

const fn cheaper(what: &'static str, on: &'static [&'static str], to: Peer, at_most: f64) -> Goal {
    Goal {
        what,
        on,
        figure: Figure::Cost(Peer::Pgweir, to),
        bound: Bound::AtMost(at_most),
    }
}

const EXTENDED: &[&str] = &["select_extended_*"];
const PREPARED: &[&str] = &["select_prepared_*"];
const AT_16: &[&str] = &[
    "select_simple_16",
    "select_extended_16",
    "select_prepared_16",
];
const TRANSFERS: &[&str] = &["rows_small", "rows_big", "copy_out", "copy_in"];
const TAILS: &[&str] = &[
    "select_simple_16",
    "select_simple_64",
    "select_simple_1000",
    "select_extended_16",
    "select_extended_64",
    "select_extended_1000",
    "select_prepared_16",
    "select_prepared_64",
    "select_prepared_1000",
];

use Peer::{Muxrelay, PgBouncer, PgBouncer64k, Pgweir, Pgweir2};

const GOALS: &[Goal] = &[
    cheaper(
        "CPU at most 0.98 of PgBouncer's",
        &["select_simple_16"],
        PgBouncer,
        0.98,
    ),
    cheaper(
        "CPU at most 0.82 of PgBouncer's",
        &["select_simple_64"],
        PgBouncer,
        0.82,
    ),
    cheaper(
        "CPU at most 0.85 of PgBouncer's",
        &["select_simple_1000"],
        PgBouncer,
        0.85,
    ),
    cheaper("CPU at most 0.97 of PgBouncer's", EXTENDED, PgBouncer, 0.97),
    cheaper("CPU at most 0.85 of PgBouncer's", PREPARED, PgBouncer, 0.85),
    cheaper(
        "CPU at most 0.95 of PgBouncer's",
        &["tpcb_16"],
        PgBouncer,
        0.95,
    ),
    cheaper(
        "CPU at most 0.98 of PgBouncer's",
        &["tls_client_16"],
        PgBouncer,
        0.98,
    ),
    cheaper(
        "CPU at most 1.08 times that of the bare relay",
        AT_16,
        Muxrelay,
        1.08,
    ),
    Goal {
        what: "at most 4.3 system calls per transaction",
        on: &["select_simple_16", "select_simple_64"],
        figure: Figure::Syscalls,
        bound: Bound::AtMost(4.3),
    },
    Goal {
        what: "throughput with two workers at least PgBouncer's",
        on: &["*"],
        figure: Figure::Rate(Pgweir2, PgBouncer),
        bound: Bound::AtLeast(1.0),
    },
    Goal {
        what: "p99 at most PgBouncer's",
        on: TAILS,
        figure: Figure::P99(Pgweir, PgBouncer),
        bound: Bound::AtMost(1.0),
    },
    cheaper(
        "CPU per login at most PgBouncer's",
        &["login_trust"],
        PgBouncer,
        1.0,
    ),
    cheaper(
        "CPU per login at most 0.95 of PgBouncer's",
        &["login_scram"],
        PgBouncer,
        0.95,
    ),
    cheaper(
        "CPU per login at most 0.70 of PgBouncer's",
        &["login_scram_tls"],
        PgBouncer,
        0.70,
    ),
    cheaper(
        "CPU at most 0.29 of PgBouncer's",
        &["rows_big"],
        PgBouncer,
        0.29,
    ),
    cheaper(
        "CPU at most 0.9 of PgBouncer's with pkt_buf = 65536",
        &["rows_big"],
        PgBouncer64k,
        0.9,
    ),
    cheaper(
        "CPU at most 0.65 of PgBouncer's",
        &["rows_small"],
        PgBouncer,
        0.65,
    ),
    cheaper(
        "CPU at most 0.50 of PgBouncer's",
        &["copy_in"],
        PgBouncer,
        0.50,
    ),
    cheaper(
        "CPU at most 0.75 of PgBouncer's",
        &["copy_out"],
        PgBouncer,
        0.75,
    ),
    Goal {
        what: "p99 beside others at most 1.10 times that while they are at another instance",
        on: &["login_storm_16"],
        figure: Figure::Beside,
        bound: Bound::AtMost(1.10),
    },
    Goal {
        what: "MB/s at least 0.95 of the bare relay's",
        on: TRANSFERS,
        figure: Figure::Rate(Pgweir, Muxrelay),
        bound: Bound::AtLeast(0.95),
    },
    cheaper(
        "memory per idle client at most PgBouncer's",
        &["idle_10000"],
        PgBouncer,
        1.0,
    ),
    Goal {
        what: "at most 15 KiB per idle client with TLS",
        on: &["idle_tls_*"],
        figure: Figure::Own,
        bound: Bound::AtMost(15.0),
    },
    Goal {
        what: "CPU per transaction at most 1.01 times that without somebody who reads metrics and status",
        on: &["scraped_16"],
        figure: Figure::Own,
        bound: Bound::AtMost(1.01),
    },
];

/// All goals of which something was measured, as a list.
pub(crate) fn goals(results: &Results) -> String {
    let mut text = String::new();
    for goal in GOALS {
        let (mut met, mut missed) = (Vec::new(), Vec::new());
        for workload in measured(results).filter(|it| goal.is_for(it.name)) {
            let Some(value) = goal.value(results, workload.name) else {
                continue;
            };
            let (Bound::AtMost(limit) | Bound::AtLeast(limit)) = goal.bound;
            // Two digits, unless they do not tell it from the limit.
            let digits = if (value - limit).abs() < 0.005 { 3 } else { 2 };
            let said = format!("{} ({value:.digits$})", workload.name);
            match goal.bound {
                Bound::AtMost(limit) if value <= limit => met.push(said),
                Bound::AtLeast(limit) if value >= limit => met.push(said),
                Bound::AtMost(_) | Bound::AtLeast(_) => missed.push(said),
            }
        }
        if met.is_empty() && missed.is_empty() {
            continue;
        }
        text += &format!("* Goal: {}.", goal.what);
        if !met.is_empty() {
            text += &format!(" Met: {}.", met.join(", "));
        }
        if !missed.is_empty() {
            text += &format!(" **Missed: {}.**", missed.join(", "));
        }
        text += "\n";
    }
    text
}

impl Goal {
    fn is_for(&self, name: &str) -> bool {
        self.on
            .iter()
            .any(|pattern| match pattern.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == *pattern,
            })
    }

    fn value(&self, results: &Results, workload: &str) -> Option<f64> {
        let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
        match self.figure {
            Figure::Cost(of, to) => median(results.cost_ratio(workload, of, to)),
            Figure::Rate(of, to) => median(results.ratio(workload, of, to, |it| it.rate)),
            Figure::P99(of, to) => median(results.ratio(workload, of, to, |it| it.p99_ms)),
            Figure::Beside => median(results.spread(workload, Pgweir, |it| it.to_elsewhere)),
            Figure::Own => median(results.spread(workload, Pgweir, |it| it.cost)),
            Figure::Syscalls => results.count(workload, Pgweir, "syscalls all"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::{
        results::{Detail, tests::results},
        workloads::WORKLOADS,
    };

    #[test]
    fn a_missed_goal_is_said() {
        let rounds = [(11.0, 10.0), (12.0, 10.0), (9.0, 10.0)];
        let text = goals(&results("select_simple_16", &rounds));
        assert!(
            text.contains("**Missed: select_simple_16 (1.10).**"),
            "{text}"
        );
        let text = goals(&results("select_simple_16", &[(9.0, 10.0)]));
        assert!(text.contains("Met: select_simple_16 (0.90)."), "{text}");
    }

    #[test]
    fn throughput_has_to_be_at_least_something() {
        let mut results = results("copy_in", &[(1.0, 1.0)]);
        for (run, rate) in results.runs.iter_mut().zip([80.0, 100.0]) {
            run.sample.rate = Some(rate);
        }
        results.runs[0].peer = Pgweir2;
        let text = goals(&results);
        assert!(
            text.contains("least PgBouncer's. **Missed: copy_in (0.80).**"),
            "{text}"
        );
    }

    #[test]
    fn counts_are_compared_too() {
        let mut results = results("select_simple_64", &[(1.0, 1.0)]);
        results.details.push(Detail {
            workload: "select_simple_64".to_owned(),
            peer: Pgweir,
            counts: BTreeMap::from([("syscalls all".to_owned(), 4.08)]),
        });
        let text = goals(&results);
        assert!(text.contains("Met: select_simple_64 (4.08)"), "{text}");
    }

    #[test]
    fn every_goal_is_for_workloads_that_exist() {
        for goal in GOALS {
            for pattern in goal.on {
                let start = pattern.trim_end_matches('*');
                assert!(
                    WORKLOADS.iter().any(|it| it.name.starts_with(start)),
                    "{pattern}"
                );
            }
        }
    }
}
