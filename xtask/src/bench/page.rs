//! `docs/benchmarks.md`, and the same tables for the terminal.

use super::{
    goals::goals,
    plot::Picture,
    results::Results,
    tables::{costs, details, latencies, measured, neighbours, rates, skipped, switches},
    workload::{SCALE, SERVERS},
};

/// What the terminal shows.
pub(crate) fn summary(results: &Results, against: Option<&Results>) -> String {
    let skipped = skipped(results);
    let sections = [
        costs(results, against),
        goals(results),
        rates(results),
        headed("p50 / p95 / p99 / p99.9 in ms:\n\n", latencies(results)),
        headed(
            "Context switches per transaction / peak RSS in MiB:\n\n",
            switches(results),
        ),
        neighbours(results),
        details(results),
        headed("Not measured:\n\n", skipped),
    ];
    let sections: Vec<String> = sections.into_iter().filter(|it| !it.is_empty()).collect();
    sections.join("\n")
}

fn headed(head: &str, text: String) -> String {
    match text.is_empty() {
        true => text,
        false => format!("{head}{text}"),
    }
}

/// The whole page.
pub(crate) fn page(results: &Results, against: Option<&Results>, pictures: &[Picture]) -> String {
    let sections = [
        beginning(results),
        what_it_costs(results, against, pictures),
        headed(
            "## Goals\n\nMedians again; what is missed is missed by the median, however far the rounds lie apart.\n\n",
            goals(results),
        ),
        headed(
            "## How much, how fast\n\nThe medians, and in parentheses the ratio's lowest and highest.\n\n",
            rates(results),
        ),
        headed(
            "p50 / p95 / p99 / p99.9 of a transaction in ms, as pgbench saw them:\n\n",
            latencies(results),
        ),
        headed(
            "Beside others: how many times p99 is what it is alone, and what it is while those others are at another \
             instance on the same machine; what the active clients of the idle workloads cost per transaction.\n\n",
            neighbours(results),
        ),
        headed(
            "## What else was counted\n\nContext switches of the pooler per transaction / its peak memory in MiB (RSS, shared \
             pages included):\n\n",
            switches(results),
        ),
        headed("System calls, in runs of their own:\n\n", details(results)),
        headed("## Not measured\n\n", skipped(results)),
        how_far_to_trust(),
        do_it_yourself(results),
    ];
    let sections: Vec<String> = sections.into_iter().filter(|it| !it.is_empty()).collect();
    sections.join("\n")
}

fn beginning(results: &Results) -> String {
    let machine = &results.machine;
    let versions: String = results
        .versions
        .iter()
        .map(|version| format!("* {version}\n"))
        .collect();
    let workloads: String = measured(results)
        .map(|workload| format!("| {} | {} |\n", workload.name, workload.what))
        .collect();
    format!(
        "# Benchmarks\n\n\
         This page is written by `cargo xtask bench --write`. It says what pgweir costs beside PgBouncer, and beside a \
         bare relay (`benches/src/bin/muxrelay.rs`) that moves the same bytes and does nothing else: no pooler that \
         uses epoll can cost less than that.\n\n\
         ## Where and with what\n\n\
         {} UTC; {} cores of {}, {:.0} GiB, {}. Load average {:.1} before and {:.1} at the end.\n\n{versions}\n\
         PostgreSQL keeps its data in memory (`/dev/shm`, fsync off). All peers: transaction mode, {SERVERS} servers \
         per pool, trust, TCP over 127.0.0.1, no TLS unless the workload says so, one thread, the same ini file, \
         everything else at its default. pgweir-2 is pgweir with `workers = 2`, pgweir-unnamed with \
         `prepare_unnamed = 1`, PgBouncer-2 is two processes on one port (`so_reuseport`) with half of the servers each, \
         PgBouncer-64k has `pkt_buf = 65536`, direct is PostgreSQL without a pooler. pgbench at scale {SCALE} with two threads runs on \
         the same machine.\n\n\
         | workload | what it does |\n|---|---|\n{workloads}",
        results.date,
        machine.cores,
        machine.cpu,
        machine.memory_gib,
        machine.kernel,
        machine.load_before,
        machine.load_after,
    )
}

fn what_it_costs(results: &Results, against: Option<&Results>, pictures: &[Picture]) -> String {
    let second = against.map_or_else(String::new, |other| {
        format!(
            "\nThe last column is a second measurement of the same kind ({} UTC, {}): its ratio to PgBouncer. How far \
             the two ratios differ is how far a single one can be trusted.\n",
            other.date,
            other.how_many_rounds()
        )
    });
    let pictures: String = pictures
        .iter()
        .map(|picture| format!("![{}](benchmarks/{})\n\n", picture.title, picture.file))
        .collect();
    format!(
        "## What it costs\n\n\
         The median of {}. The ratios are one's cost in terms of the other's, taken within each round: the median, \
         and in parentheses the lowest and the highest. Below 1 the first is cheaper. In the pictures PgBouncer is the \
         line at 1.\n{second}\n\
         {pictures}{}",
        results.how_many_rounds(),
        costs(results, against)
    )
}

fn how_far_to_trust() -> String {
    "## How far to trust it\n\n\
     * The peers take turns within a round, and from round to round each follows another one, so that what one of them \
     leaves behind and what else happens on the machine meets all of them alike. Ratios are taken within a round.\n\
     * Cost is the processor time of the pooler process (user and system) as the kernel's scheduler counts it \
     (`schedstat`, nanoseconds), between pgbench's first and last progress line: logins are outside, unless they are \
     what is measured. It holds the kernel's work on TCP in the pooler's name, which is nine tenths of it; on loopback \
     part of the receiver's work is done in the sender's name, for all peers alike.\n\
     * On a machine with few cores that it shares with PostgreSQL, with pgbench and perhaps with others, the cost \
     of the same run moves by a tenth and more. A ratio whose range holds 1 has not been decided.\n\
     * Rates and latencies say how busy the machine was. Do not compare them between pages, and between peers only \
     with great care. Where pgbench and PostgreSQL take all cores, a pooler that needs less leaves more to them, and \
     a second thread has no core to run on.\n\
     * muxrelay skips everything a pooler is for. In `select_prepared_16` it gives each client a server of its own, \
     because it does not follow prepared statements; with more clients than servers it cannot take part.\n\
     * PgBouncer reads 4 KiB at a time by default (`pkt_buf`). Most of what it pays for large results is that; with \
     `pkt_buf = 65536` it comes close to the bare relay.\n\
     * Logins are pgbench's with `-C`, two at a time. `connect_16` asks one SELECT after each, the others nothing.\n\
     * A thread of pgbench lets its clients log in, and prepares their statements, one after the other; with many clients \
     runs get some seconds more before anything counts, but in `select_prepared_5000` the tail may still be that.\n\
     * A thread of pgbench asks the kernel about the sockets of all its clients each time, so with thousands it takes about as \
     much processor time as a pooler, and the more the fewer replies it finds at a time.\n\
     * Beside others: the same pgbench runs alone, then while they are at a second instance of the same pooler, and then \
     with them, so that all three see the same machine. The others need processor time too, whoever the pooler is: what \
     one instance adds is the last to the second.\n\
     * `scraped_16` has a page read each second in every other two seconds of one run, so that both kinds of seconds are the \
     same process'; its cost is one's CPU per transaction in terms of the other's.\n\
     * Memory of idle clients is the pooler's own (PSS), the growth from before the logins to ten seconds after them. What the \
     kernel keeps for a socket is the same for all and not in it.\n\
     * Poolers with a configuration of their own (pgcat, Odyssey) have one worker here and what their manuals give as \
     defaults; their own people may know better. pgcat has its cache of prepared statements on (200), because \
     `select_prepared_*` needs it. It then takes statements without a name from there as well, so that PostgreSQL parses \
     nothing twice in `pipeline_16` and `select_extended_*`: pgweir-unnamed is what to set beside it.\n"
        .to_owned()
}

fn do_it_yourself(results: &Results) -> String {
    format!(
        "## Do it yourself\n\n\
         ```\n\
         cargo xtask bench                              # the main workloads, about 25 minutes\n\
         cargo xtask bench --quick                      # a first look, two short rounds\n\
         cargo xtask bench --all                        # every workload, and everybody in each\n\
         cargo xtask bench --only select_simple,copy    # some workloads only\n\
         cargo xtask bench --peers pgweir,PgBouncer     # some peers only\n\
         cargo xtask bench --pgbouncer PATH             # a PgBouncer that is not in PATH; --pgcat, --odyssey\n\
         cargo xtask bench --syscalls --callgrind       # counts that hardly depend on the machine (perf, valgrind)\n\
         cargo xtask bench --rounds {} --seconds {} --write\n\
         ```\n\n\
         PostgreSQL is found or installed as for the tests. Every run is kept as JSON in `target/bench/`; \
         `--from FILE,FILE --against FILE --write` makes this page from them: the rounds of the first ones are put together, \
         the last is set beside them.\n",
        results.rounds, results.seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{plot, results::tests::results};

    #[test]
    fn the_page_shows_what_ran_and_nothing_else() {
        let results = results("copy_out", &[(1.0, 2.0)]);
        let page = page(&results, None, &plot::pictures(&results));
        assert!(page.contains("](benchmarks/transfers.svg)"), "{page}");
        assert!(page.contains("| copy_out | s CPU per GB | 1.00 | 2.00 |"));
        assert!(!page.contains("| copy_in |") && !page.contains("simple.svg"));
        assert!(!page.contains("Not measured"), "{page}");
    }
}
