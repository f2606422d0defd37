//! The results as tables in Markdown.

use std::collections::BTreeMap;

use super::{
    measure::Sample,
    peer::Peer,
    results::{Detail, Results, Spread},
    workload::Workload,
    workloads::WORKLOADS,
};

/// What everybody paid, and pgweir in terms of PgBouncer and the bare relay.
pub(crate) fn costs(results: &Results, against: Option<&Results>) -> String {
    let peers = without_direct(results);
    let ratios = [
        (Peer::Pgweir, Peer::PgBouncer, "ratio to PgBouncer"),
        (Peer::Pgweir, Peer::Muxrelay, "ratio to muxrelay"),
        (Peer::Pgweir2, Peer::PgBouncer, "pgweir-2 to PgBouncer"),
    ];
    let ratios: Vec<_> = ratios
        .into_iter()
        .filter(|(of, to, _)| peers.contains(of) && peers.contains(to))
        .collect();
    let mut head = vec!["workload".to_owned(), "unit".to_owned()];
    head.extend(peers.iter().map(Peer::to_string));
    head.extend(ratios.iter().map(|(_, _, what)| (*what).to_owned()));
    head.extend(against.map(|_| "again".to_owned()));
    let mut rows = Vec::new();
    for workload in measured(results) {
        let name = workload.name;
        let mut row = vec![name.to_owned(), workload.load.unit().to_owned()];
        row.extend(
            peers
                .iter()
                .map(|peer| median(results, name, *peer, |it| it.cost)),
        );
        let all_ratios = ratios.iter();
        row.extend(all_ratios.map(|(of, to, _)| range(results.cost_ratio(name, *of, *to))));
        row.extend(
            against.map(|other| range(other.cost_ratio(name, Peer::Pgweir, Peer::PgBouncer))),
        );
        rows.push(row);
    }
    table(&head, &rows)
}

/// How much there was in a second.
pub(crate) fn rates(results: &Results) -> String {
    let peers = results.peers();
    let mut head = vec!["workload".to_owned(), "unit".to_owned()];
    head.extend(peers.iter().map(Peer::to_string));
    let ratios = [Peer::Pgweir, Peer::Pgweir2, Peer::PgBouncer2].into_iter();
    let ratios: Vec<Peer> = ratios.filter(|peer| peers.contains(peer)).collect();
    head.extend(ratios.iter().map(|peer| format!("{peer} to PgBouncer")));
    let mut rows = Vec::new();
    for workload in measured(results) {
        let Some(unit) = workload.load.rate() else {
            continue;
        };
        let name = workload.name;
        let mut row = vec![name.to_owned(), unit.to_owned()];
        row.extend(
            peers
                .iter()
                .map(|peer| median(results, name, *peer, |it| it.rate)),
        );
        let ratio = |peer: &Peer| range(results.ratio(name, *peer, Peer::PgBouncer, |it| it.rate));
        row.extend(ratios.iter().map(ratio));
        rows.push(row);
    }
    table(&head, &rows)
}

/// How long transactions took.
pub(crate) fn latencies(results: &Results) -> String {
    by_peer(results, &results.peers(), |name, peer| {
        let figures: [fn(&Sample) -> Option<f64>; 4] = [
            |it| it.p50_ms,
            |it| it.p95_ms,
            |it| it.p99_ms,
            |it| it.p999_ms,
        ];
        let words = figures.map(|figure| median(results, name, peer, figure));
        (words[0] != NONE).then(|| words.join(" / "))
    })
}

/// Context switches per transaction and the most memory.
pub(crate) fn switches(results: &Results) -> String {
    by_peer(results, &without_direct(results), |name, peer| {
        let switches = results.spread(name, peer, |it| it.switches)?;
        let peak = median(results, name, peer, |it| it.peak_mib);
        Some(format!("{:.2} / {peak}", switches.median))
    })
}

/// What those who were beside others paid.
pub(crate) fn neighbours(results: &Results) -> String {
    let peers = results.peers();
    let beside = by_peer(results, &peers, |name, peer| {
        let alone = results.spread(name, peer, |it| it.to_alone)?;
        let elsewhere = results.spread(name, peer, |it| it.to_elsewhere);
        let [alone, elsewhere] = [Some(alone), elsewhere].map(range);
        Some(format!("{alone} times, {elsewhere}"))
    });
    let active = by_peer(results, &peers, |name, peer| {
        let active = results.spread(name, peer, |it| it.active_us)?;
        Some(format!("{:.1} µs", active.median))
    });
    match (beside.is_empty(), active.is_empty()) {
        (true, true) => String::new(),
        (false, true) => beside,
        (true, false) => active,
        (false, false) => format!("{beside}\n{active}"),
    }
}

/// Counts that took runs of their own.
pub(crate) fn details(results: &Results) -> String {
    if results.details.is_empty() {
        return String::new();
    }
    let head = ["workload", "peer", "count per transaction"].map(str::to_owned);
    let rows = results.details.iter().map(|detail| {
        vec![
            detail.workload.clone(),
            detail.peer.to_string(),
            counts(detail),
        ]
    });
    table(&head, &rows.collect::<Vec<_>>())
}

/// The counts of a detail in one line.
pub(crate) fn counts(detail: &Detail) -> String {
    let counts = detail.counts.iter();
    let words: Vec<String> = counts
        .map(|(name, count)| format!("{name} {count:.2}"))
        .collect();
    words.join(", ")
}

/// What could not be done, together where the reason is the same.
pub(crate) fn skipped(results: &Results) -> String {
    let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for line in results.skipped.iter().filter_map(|it| it.lines().next()) {
        let (who, why) = line.split_once(": ").unwrap_or((line, ""));
        let (workload, peer) = who.split_once(", ").unwrap_or((who, ""));
        let workloads = reasons.entry((peer, why)).or_default();
        if !workloads.contains(&workload) {
            workloads.push(workload);
        }
    }
    reasons
        .iter()
        .map(|((peer, why), workloads)| format!("* {peer}: {why} ({})\n", workloads.join(", ")))
        .collect()
}

/// Those that ran at all, in their order.
pub(crate) fn measured(results: &Results) -> impl Iterator<Item = &'static Workload> {
    let has = |workload: &&Workload| results.runs.iter().any(|run| run.workload == workload.name);
    WORKLOADS.iter().filter(has)
}

/// One row a workload, one column a peer; nothing if no cell has anything.
fn by_peer(
    results: &Results,
    peers: &[Peer],
    cell: impl Fn(&str, Peer) -> Option<String>,
) -> String {
    let mut rows = Vec::new();
    for workload in measured(results) {
        let cells: Vec<_> = peers
            .iter()
            .map(|peer| cell(workload.name, *peer))
            .collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![workload.name.to_owned()];
        row.extend(
            cells
                .into_iter()
                .map(|cell| cell.unwrap_or_else(|| NONE.to_owned())),
        );
        rows.push(row);
    }
    if rows.is_empty() {
        return String::new();
    }
    let mut head = vec!["workload".to_owned()];
    head.extend(peers.iter().map(Peer::to_string));
    table(&head, &rows)
}

fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let rule = format!("|{}\n", "---|".repeat(head.len()));
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(head) + &rule + &rows
}

fn without_direct(results: &Results) -> Vec<Peer> {
    let peers = results.peers().into_iter();
    peers.filter(|peer| *peer != Peer::Direct).collect()
}

const NONE: &str = "-";

fn median(
    results: &Results,
    workload: &str,
    peer: Peer,
    figure: impl Fn(&Sample) -> Option<f64>,
) -> String {
    match results.spread(workload, peer, figure) {
        None => NONE.to_owned(),
        Some(Spread { median, .. }) if median >= 1000.0 => format!("{median:.0}"),
        Some(Spread { median, .. }) if median >= 10.0 => format!("{median:.1}"),
        Some(Spread { median, .. }) => format!("{median:.2}"),
    }
}

fn range(spread: Option<Spread>) -> String {
    match spread {
        None => NONE.to_owned(),
        Some(Spread { median, min, max }) => format!("{median:.2} ({min:.2}-{max:.2})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    #[test]
    fn a_row_has_as_many_cells_as_the_head() {
        let results = results("copy_out", &[(1.0, 2.0)]);
        let text = costs(&results, Some(&results));
        let widths: Vec<usize> = text.lines().map(|line| line.matches('|').count()).collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }

    #[test]
    fn tables_hold_who_ran_and_nobody_else() {
        let text = costs(&results("copy_out", &[(1.0, 2.0)]), None);
        let row = "| copy_out | s CPU per GB | 1.00 | 2.00 | 0.50 (0.50-0.50) |";
        assert!(text.contains(row) && !text.contains("pgcat"), "{text}");
        assert!(!text.contains("| copy_in |"), "{text}");
    }

    #[test]
    fn a_reason_is_said_once() {
        let mut results = results("copy_out", &[]);
        results.skipped = ["a, pgcat: no TLS", "b, pgcat: no TLS", "b, pgcat: no TLS"]
            .map(str::to_owned)
            .into();
        assert_eq!(skipped(&results), "* pgcat: no TLS (a, b)\n");
    }

    #[test]
    fn what_nobody_has_is_no_table() {
        assert_eq!(latencies(&results("copy_out", &[(1.0, 2.0)])), "");
    }
}
