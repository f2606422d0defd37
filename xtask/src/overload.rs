//! `cargo xtask overload`: what is left of the throughput when more is asked than PostgreSQL can do.
//!
//! A request takes a server for a fixed time (`pg_sleep`), so the capacity is known and does not depend on who else
//! uses the processors. Then more clients than servers ask in a closed loop, and requests come at twice the capacity
//! whether or not earlier ones have been answered.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use pgweir_benches::Outcome;
use pgweir_harness::{Cluster, ClusterOptions, Ini, Pooler};

use crate::bench;
use crate::step::{self, Failure};

/// The page that `--write` writes.
const PAGE: &str = "docs/overload.md";

/// Servers of the pool.
const SERVERS: u32 = 20;

/// What every request does.
const SQL: &str = "SELECT pg_sleep(0.01)";

/// Connections that carry what comes by itself: more than can ever wait.
const CONNECTIONS: u32 = 600;

/// Runs of each case; the medians count.
const ROUNDS: usize = 3;

/// One case of the table.
struct Case {
    name: &'static str,
    /// Keys and values beside the common ones.
    keys: &'static [(&'static str, &'static str)],
    connections: u32,
    /// How many try to log in beside them.
    knocking: u32,
    /// How many times the capacity is asked for; 0 is a closed loop.
    times: u32,
}

const CASES: [Case; 7] = [
    Case {
        name: "as many clients as servers",
        keys: &[],
        connections: SERVERS,
        knocking: 0,
        times: 0,
    },
    Case {
        name: "ten times as many clients",
        keys: &[],
        connections: 10 * SERVERS,
        knocking: 0,
        times: 0,
    },
    Case {
        name: "fifty times as many clients",
        keys: &[],
        connections: 50 * SERVERS,
        knocking: 0,
        times: 0,
    },
    Case {
        name: "twice the capacity, no bound",
        keys: &[],
        connections: CONNECTIONS,
        knocking: 0,
        times: 2,
    },
    Case {
        name: "twice the capacity, `max_pool_waiting = 40`",
        keys: &[("max_pool_waiting", "40")],
        connections: CONNECTIONS,
        knocking: 0,
        times: 2,
    },
    Case {
        name: "twice the capacity, `query_wait_target = 0.05`",
        keys: &[("query_wait_target", "0.05")],
        connections: CONNECTIONS,
        knocking: 0,
        times: 2,
    },
    Case {
        name: "ten times as many clients, `max_client_conn` beside them",
        keys: &[("max_client_conn", "200")],
        connections: 10 * SERVERS,
        knocking: 20,
        times: 0,
    },
];

pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    let write = match args {
        [] => false,
        ["--write"] => true,
        [unknown, ..] => return Err(Failure::usage(unknown)),
    };
    bench::raise_file_limit()?;
    let programs = bench::programs(&bench::Asked::default())?;
    let cluster = Cluster::start_with(step::postgres()?, ClusterOptions::default())?;
    let mut outcomes: Vec<Vec<Outcome>> = CASES.iter().map(|_| Vec::new()).collect();
    for round in 0..ROUNDS {
        let mut capacity = 0.0;
        for (case, outcomes) in CASES.iter().zip(&mut outcomes) {
            let pooler = Pooler::start_binary(&programs.pgweir, ini(&cluster, case))?;
            let rate = (capacity * f64::from(case.times)) as u32;
            let outcome = demand(&programs.load, pooler.port, case, rate)?;
            if capacity == 0.0 {
                capacity = outcome.goodput();
            }
            println!("  {round} {:<50} {:6.0}/s", case.name, outcome.goodput());
            outcomes.push(outcome);
        }
    }
    let table = table(&outcomes);
    print!("\n{table}");
    if write {
        fs::write(PAGE, page(&table))?;
        println!("\nWritten to {PAGE}.");
    }
    Ok(())
}

fn ini(cluster: &Cluster, case: &Case) -> Ini {
    let ini = Ini::in_front_of(cluster)
        .set("pool_mode", "transaction")
        .set("default_pool_size", SERVERS)
        .set("max_client_conn", 2000)
        .set("error_codes", "postgres")
        .set("log_connections", 0)
        .set("log_disconnections", 0)
        // Every refusal would be a line.
        .set("log_pooler_errors", 0);
    let mut keys = case.keys.iter();
    keys.by_ref()
        .fold(ini, |ini, (key, value)| ini.set(key, value))
}

fn demand(load: &Path, port: u16, case: &Case, rate: u32) -> Result<Outcome, Failure> {
    let numbers = [case.connections, rate, 5, case.knocking].map(|number| number.to_string());
    let mut command = Command::new(load);
    command
        .args(["demand", &port.to_string(), SQL])
        .args(&numbers);
    let output = command.output()?;
    if !output.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&output.stderr)));
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The medians.
fn table(outcomes: &[Vec<Outcome>]) -> String {
    let mut table = String::from(
        "| what is asked | served per second | of the capacity | served p50 / p99 ms | refused | refused p99 ms |\n\
         |---|---|---|---|---|---|\n",
    );
    let median = |outcomes: &[Outcome], of: fn(&Outcome) -> f64| -> f64 {
        let mut values: Vec<f64> = outcomes.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let capacity = outcomes
        .first()
        .map_or(1.0, |first| median(first, Outcome::goodput));
    for (case, outcomes) in CASES.iter().zip(outcomes) {
        let of = |of| median(outcomes, of);
        let all = |outcome: &Outcome| (outcome.served + outcome.refused) as f64;
        let refused = of(|outcome| outcome.refused as f64) / of(all);
        // Writing into a String cannot fail.
        let _ = writeln!(
            table,
            "| {} | {:.0} | {:.0} % | {:.0} / {:.0} | {:.0} % | {:.0} |",
            case.name,
            of(Outcome::goodput),
            100.0 * of(Outcome::goodput) / capacity,
            of(|outcome| outcome.served_p50_ms),
            of(|outcome| outcome.served_p99_ms),
            100.0 * refused,
            of(|outcome| outcome.refused_p99_ms),
        );
    }
    table
}

fn page(table: &str) -> String {
    format!(
        "# Overload\n\n\
         Written by `cargo xtask overload --write`: what is left of the throughput when more is asked than PostgreSQL can \
         do. {SERVERS} servers, transaction mode, every request `{SQL}`, so that the capacity depends on nothing else. In \
         the first rows each client asks again when it has its answer; in the others requests are due at fixed times, and \
         what they wait for counts from then on. Medians of {ROUNDS} runs of 5 seconds.\n\n{table}\n\
         Without a bound everybody is served, and ever later: at twice the capacity the queue grows as long as the load \
         lasts. `max_pool_waiting` bounds the queue, and `query_wait_target` what is waited for; who is refused is told \
         so at once, and keeps the connection. In the last row twenty others log in again and again while `max_client_conn` \
         is reached: the share of what is refused is theirs.\n"
    )
}
