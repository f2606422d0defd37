//! Clients that pgbench cannot play: thousands that do nothing, one that reads or writes a great deal.
//!
//! `load idle HOST[,HOST...] PORT CLIENTS` logs them in, as many at each address, prints `ready` and waits; a line
//! `query` on its input makes each of them run one query, and `ready` is printed again; the end of the input ends it.
//! `load read PORT SQL TIMES` runs SQL and reads the answer. `load write PORT SQL MEGABYTES ROW` sends rows to
//! `COPY ... FROM STDIN`. Both print one line of JSON, a [`Transfer`].
//! `load trickle PORT SQL BYTES_PER_SECOND` runs SQL and reads the answer slowly, again and again.
//! `load demand PORT SQL CONNECTIONS RATE SECONDS KNOCKING` sends requests at a fixed rate, or with RATE 0 in a closed loop,
//! while KNOCKING others try to log in, and prints an [`Outcome`](pgweir_benches::Outcome).
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, BufRead, Write},
    process::ExitCode,
    time::{Duration, Instant},
};

use pgweir_benches::{Client, Demand, Transfer};
use serde::Serialize;

const SCRATCH_LEN: usize = 256 * 1024;

/// Rows are sent in messages of about this size, as psql and most drivers do.
const COPY_MESSAGE_LEN: usize = 8 * 1024;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load {}: {error}", args.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> io::Result<()> {
    let mut scratch = vec![0; SCRATCH_LEN];
    match args {
        ["idle", hosts, port, clients] => {
            let hosts: Vec<&str> = hosts.split(',').collect();
            idle(&hosts, number(port)?, number(clients)?, &mut scratch)
        }
        ["read", port, sql, times] => {
            let mut client = Client::connect(number(port)?, &mut scratch)?;
            let times: u32 = number(times)?;
            timed(|| (0..times).try_fold(0, |sum, _| Ok(sum + client.query(sql, &mut scratch)?)))
        }
        ["trickle", port, sql, bytes_per_second] => {
            let mut client = Client::connect(number(port)?, &mut scratch)?;
            let bytes_per_second = number(bytes_per_second)?;
            loop {
                client.query_slowly(sql, bytes_per_second)?;
            }
        }
        ["write", port, sql, megabytes, row] => {
            let mut client = Client::connect(number(port)?, &mut scratch)?;
            let data = format!("{row}\n").repeat(COPY_MESSAGE_LEN.div_ceil(row.len() + 1));
            let bytes = number::<u64>(megabytes)? * 1_000_000;
            timed(|| client.copy_in(sql, data.as_bytes(), bytes, &mut scratch))
        }
        ["demand", port, sql, connections, rate, seconds, knocking] => {
            let demand = Demand {
                port: number(port)?,
                sql,
                connections: number(connections)?,
                rate: number(rate)?,
                knocking: number(knocking)?,
                time: Duration::from_secs(number(seconds)?),
            };
            say(&demand.run()?)
        }
        _ => Err(io::Error::other("cannot make sense of these arguments")),
    }
}

fn idle(hosts: &[&str], port: u16, count: usize, scratch: &mut [u8]) -> io::Result<()> {
    let mut clients = (0..count)
        .zip(hosts.iter().cycle())
        .map(|(_, host)| Client::connect_to(host, port, scratch))
        .collect::<io::Result<Vec<_>>>()?;
    ready()?;
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "query" => {
                for client in &mut clients {
                    client.query("SELECT 1", scratch)?;
                }
                ready()?;
            }
            unknown => return Err(io::Error::other(format!("unknown order {unknown}"))),
        }
    }
    Ok(())
}

fn ready() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()
}

fn timed(transfer: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
    let start = Instant::now();
    let bytes = transfer()?;
    let seconds = start.elapsed().as_secs_f64();
    say(&Transfer { bytes, seconds })
}

fn say(what: &impl Serialize) -> io::Result<()> {
    let line = serde_json::to_string(what).map_err(io::Error::other)?;
    println!("{line}");
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse()
        .map_err(|_| io::Error::other(format!("{text} is no number here")))
}
