//! The results as Markdown: tables for the terminal, and the page of the documentation.

use super::{
    peer::Peer,
    results::{Detail, Results, Spread},
    workload::{SCALE, SERVERS, WORKLOADS, Workload},
};

/// What pgweir wants to reach: a cost in terms of another's, for workloads that begin like this.
const BARS: [Bar; 3] = [
    Bar {
        start: "select_",
        what: "CPU per transaction at most that of PgBouncer",
        limit: Limit::Ratio(Peer::PgBouncer, 1.0),
    },
    Bar {
        start: "select_",
        what: "CPU per transaction at most 1.15 times that of the bare relay",
        limit: Limit::Ratio(Peer::Muxrelay, 1.15),
    },
    Bar {
        start: "idle_",
        what: "at most 2.5 KiB per idle client",
        limit: Limit::Cost(2.5),
    },
];

struct Bar {
    start: &'static str,
    what: &'static str,
    limit: Limit,
}

#[derive(Clone, Copy)]
enum Limit {
    Ratio(Peer, f64),
    Cost(f64),
}

/// All tables, the second measurement beside the first if there is one.
pub(crate) fn tables(results: &Results, against: Option<&Results>) -> String {
    let mut text = costs(results, against);
    text += "\n";
    text += &bars(results);
    text += "\n";
    text += &rates(results);
    if !results.details.is_empty() {
        text += "\n";
        text += &details(results);
    }
    if !results.skipped.is_empty() {
        text += "\nNot measured:\n\n";
        for line in &results.skipped {
            let line = line.lines().next().unwrap_or_default();
            text += &format!("* {line}\n");
        }
    }
    text
}

/// `docs/benchmarks.md`.
pub(crate) fn page(results: &Results, against: Option<&Results>) -> String {
    let Results {
        machine,
        rounds,
        seconds,
        ..
    } = results;
    let versions: String = results
        .versions
        .iter()
        .map(|version| format!("* {version}\n"))
        .collect();
    let workloads: String = measured(results)
        .map(|workload| format!("| {} | {} |\n", workload.name, workload.what))
        .collect();
    let second = against.map_or_else(String::new, |other| {
        format!(
            "\nThe last column is a second measurement of the same kind ({} UTC, {} rounds): its ratio to PgBouncer. How \
             far the two ratios differ is how far a single one can be trusted.\n",
            other.date, other.rounds
        )
    });
    format!(
        "# Benchmarks\n\n\
         This page is written by `cargo xtask bench --write`. It says what pgweir costs beside PgBouncer, and beside a \
         bare relay (`benches/src/bin/muxrelay.rs`) that moves the same bytes and does nothing else: no pooler that \
         uses epoll can cost less than that.\n\n\
         ## Where and with what\n\n\
         {} UTC; {} cores of {}, {:.0} GiB, {}. Load average {:.1} before and {:.1} at the end.\n\n{versions}\n\
         PostgreSQL keeps its data in memory (`/dev/shm`, fsync off). All peers: transaction mode, {SERVERS} servers \
         per pool, trust, TCP over 127.0.0.1, one thread, the same ini file, everything else at its default. pgbench \
         at scale {SCALE} with two threads runs on the same machine.\n\n\
         | workload | what it does |\n|---|---|\n{workloads}\n\
         ## What it costs\n\n\
         The median of {rounds} rounds. The ratios are pgweir's cost in terms of the other's, taken within each round: \
         the median, and in parentheses the lowest and the highest. Below 1 pgweir is cheaper.\n{second}\n\
         {}\n\
         ## How far to trust it\n\n\
         * The peers take turns within a round and the order changes from round to round, so that what else happens on \
         the machine meets all of them alike. Ratios are taken between neighbours only.\n\
         * Cost is the processor time of the pooler process as the kernel's scheduler counts it (`schedstat`, \
         nanoseconds), between pgbench's first and last progress line: logins are outside. It holds the kernel's work \
         on TCP in the pooler's name, which is nine tenths of it; on loopback part of the receiver's work is done \
         in the sender's name, for all peers alike.\n\
         * On a machine with few cores that it shares with PostgreSQL, with pgbench and perhaps with others, the cost \
         of the same run moves by a tenth and more. A ratio whose range holds 1 has not been decided.\n\
         * Rates and latencies say how busy the machine was. Do not compare them between pages, and between peers only \
         with great care.\n\
         * muxrelay skips everything a pooler is for. In `select_prepared_16` it gives each client a server of its own, \
         because it does not follow prepared statements; with more clients than servers it cannot take part.\n\
         * PgBouncer reads 4 KiB at a time by default (`pkt_buf`). Most of what it pays for large results is that; with \
         `pkt_buf = 65536` it comes close to the bare relay.\n\
         * Memory is the pooler's own (PSS), the growth from before the logins to after them. What the kernel keeps \
         for a socket is the same for all and not in it.\n\n\
         ## Do it yourself\n\n\
         ```\n\
         cargo xtask bench --quick                      # a first look, two rounds\n\
         cargo xtask bench --only select_simple         # some workloads only\n\
         cargo xtask bench --pgbouncer PATH             # a PgBouncer that is not in PATH\n\
         cargo xtask bench --syscalls --callgrind       # counts that hardly depend on the machine (perf, valgrind)\n\
         cargo xtask bench --rounds {rounds} --seconds {seconds} --write\n\
         ```\n\n\
         PostgreSQL is found or installed as for the tests. Every run is kept as JSON in `target/bench/`; \
         `--from FILE --against FILE --write` makes this page from two of them.\n",
        results.date,
        machine.cores,
        machine.cpu,
        machine.memory_gib,
        machine.kernel,
        machine.load_before,
        machine.load_after,
        tables(results, against),
    )
}

/// The counts of a detail in one line.
pub(crate) fn counts(detail: &Detail) -> String {
    let counts = detail.counts.iter();
    let words: Vec<String> = counts
        .map(|(name, count)| format!("{name} {count:.2}"))
        .collect();
    words.join(", ")
}

fn measured(results: &Results) -> impl Iterator<Item = &'static Workload> {
    let has = |workload: &&Workload| results.runs.iter().any(|run| run.workload == workload.name);
    WORKLOADS.iter().filter(has)
}

fn costs(results: &Results, against: Option<&Results>) -> String {
    let mut text = "| workload | unit | pgweir | PgBouncer | muxrelay | ratio to PgBouncer | ratio to muxrelay |"
        .to_owned();
    text += if against.is_some() { " again |" } else { "" };
    text += "\n|---|---|---|---|---|---|---|";
    text += if against.is_some() { "---|\n" } else { "\n" };
    for workload in measured(results) {
        let cost = |peer| {
            let spread = results.spread(workload.name, peer, |sample| Some(sample.cost));
            figure(spread.map(|spread| spread.median))
        };
        let ratio = |peer| range(results.ratio(workload.name, peer));
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} |",
            workload.name,
            workload.load.unit(),
            cost(Peer::Pgweir),
            cost(Peer::PgBouncer),
            cost(Peer::Muxrelay),
            ratio(Peer::PgBouncer),
            ratio(Peer::Muxrelay),
        );
        if let Some(other) = against {
            let again = other.ratio(workload.name, Peer::PgBouncer);
            text += &format!(" {} |", range(again));
        }
        text += "\n";
    }
    text
}

fn bars(results: &Results) -> String {
    let mut text = String::new();
    for Bar { start, what, limit } in &BARS {
        let (mut met, mut missed) = (Vec::new(), Vec::new());
        for workload in measured(results).filter(|it| it.name.starts_with(start)) {
            let (value, limit) = match *limit {
                Limit::Ratio(peer, limit) => (results.ratio(workload.name, peer), limit),
                Limit::Cost(limit) => {
                    let cost =
                        results.spread(workload.name, Peer::Pgweir, |sample| Some(sample.cost));
                    (cost, limit)
                }
            };
            match value {
                Some(value) if value.median <= limit => met.push(workload.name.to_owned()),
                Some(value) => missed.push(format!("{} ({:.2})", workload.name, value.median)),
                None => {}
            }
        }
        if !met.is_empty() || !missed.is_empty() {
            text += &format!(
                "* Goal: {what}. Met: {}. **Missed: {}.**\n",
                list(&met),
                list(&missed)
            );
        }
    }
    text
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn rates(results: &Results) -> String {
    let mut text = "| workload | unit | pgweir | PgBouncer | muxrelay | p50/p99 ms pgweir | PgBouncer | muxrelay |\n\
                    |---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for workload in measured(results) {
        let Some(unit) = workload.load.rate() else {
            continue;
        };
        let rate = |peer| {
            let rate = results.spread(workload.name, peer, |sample| sample.rate);
            figure(rate.map(|rate| rate.median))
        };
        let latency = |peer| {
            let p50 = results.spread(workload.name, peer, |sample| sample.p50_ms);
            let p99 = results.spread(workload.name, peer, |sample| sample.p99_ms);
            match (p50, p99) {
                (Some(p50), Some(p99)) => format!("{:.2} / {:.2}", p50.median, p99.median),
                _ => "-".to_owned(),
            }
        };
        text += &format!("| {} | {unit} |", workload.name);
        for peer in Peer::ALL {
            text += &format!(" {} |", rate(peer));
        }
        for peer in Peer::ALL {
            text += &format!(" {} |", latency(peer));
        }
        text += "\n";
    }
    text
}

fn details(results: &Results) -> String {
    let mut text = "Per transaction:\n\n| workload | peer | count |\n|---|---|---|\n".to_owned();
    for detail in &results.details {
        let counts = counts(detail);
        text += &format!("| {} | {} | {counts} |\n", detail.workload, detail.peer);
    }
    text
}

fn figure(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 1000.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

fn range(spread: Option<Spread>) -> String {
    match spread {
        None => "-".to_owned(),
        Some(Spread { median, min, max }) => format!("{median:.2} ({min:.2}-{max:.2})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn a_missed_goal_is_said() {
        let text = bars(&results(
            "select_simple_16",
            &[(11.0, 10.0), (12.0, 10.0), (9.0, 10.0)],
        ));
        assert!(text.contains("Missed: select_simple_16 (1.10)"), "{text}");
    }

    #[test]
    fn the_page_holds_every_workload_that_ran_and_no_other() {
        let page = page(&results("copy_out", &[(1.0, 2.0)]), None);
        assert!(
            page.contains("| copy_out | s CPU per GB | 1.00 | 2.00 | - | 0.50 (0.50-0.50) |"),
            "{page}"
        );
        assert!(!page.contains("| copy_in |"), "{page}");
    }
}
