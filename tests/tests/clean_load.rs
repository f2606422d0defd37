//! The promise: nobody is named who works. pgbench in all its protocols, pg_dump, COPY in both directions, reports, batch
//! jobs and a pool of idle connections, with the default configuration, for `PGWEIR_CLEAN_MINUTES`.
//!
//! It takes long, so it is run by name:
//! `PGWEIR_CLEAN_MINUTES=20 cargo test --package pgweir-tests --test clean_load -- --ignored --nocapture`

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pgweir_tests::{Endpoint, RawClient, Tenant, console, start};

/// How long it goes on if nothing is said.
const MINUTES: u64 = 2;

/// What runs again and again beside pgbench: the application and what psql is told.
const JOBS: [(&str, &str); 6] = [
    (
        "copy out",
        "copy (select * from pgbench_accounts) to stdout",
    ),
    (
        "copy in",
        "copy copied from program 'seq 1 200000'; truncate copied",
    ),
    (
        "report",
        "select count(*), avg(a.abalance) from pgbench_accounts a join pgbench_accounts b using (bid) \
         where a.aid % 50 = 0 and b.aid % 20 = 0",
    ),
    (
        "batch",
        "begin; update batch set n = n + 1; delete from batch where n < 0; commit; select pg_sleep(20)",
    ),
    ("vacuum", "vacuum analyze batch"),
    ("sleeper", "begin; select pg_sleep(15); select 1; commit"),
];

fn endpoint_command(endpoint: &Endpoint, program: &str, application: &str) -> Command {
    let mut command = endpoint
        .psql_command("postgres", "postgres")
        .expect("there is a psql");
    let beside = Path::new(command.get_program()).with_file_name(program);
    command = endpoint.account.command(&beside, &endpoint.dir);
    command
        .env("PGAPPNAME", application)
        .env("PGHOST", &endpoint.host)
        .env("PGPORT", endpoint.port.to_string())
        .env("PGUSER", "postgres")
        .stdout(Stdio::null());
    command
}

/// Runs a program over and over until the time is up; how often it has worked.
fn again_and_again(until: Instant, mut command: Command) -> u32 {
    let mut runs = 0;
    while Instant::now() < until {
        let status = command.status().expect("it can be run");
        assert!(status.success(), "{command:?} has failed");
        runs += 1;
        thread::sleep(Duration::from_millis(200));
    }
    runs
}

#[test]
#[ignore = "takes minutes; see the head of this file"]
fn nobody_is_named_who_works() {
    let Some(tenant) = Tenant::new() else { return };
    let minutes = std::env::var("PGWEIR_CLEAN_MINUTES").ok();
    let minutes = minutes
        .and_then(|text| text.parse().ok())
        .unwrap_or(MINUTES);
    let name = tenant.name.as_str();
    tenant.postgres.pgbench(name, &["-i", "-s", "3", "-q"]);
    let mut root = tenant.root();
    root.rows("create table copied (n int)");
    root.rows("create table batch as select g as id, 0 as n from generate_series(1, 200000) g");
    let pooler = start(tenant.ini().set("default_pool_size", 8));
    let endpoint = pooler.endpoint();
    let idle: Vec<_> = (0..20)
        .map(|_| {
            let parameters = [
                ("user", name),
                ("database", name),
                ("application_name", "idle pool"),
            ];
            RawClient::login_with(pooler.port, &parameters)
        })
        .collect();

    let until = Instant::now() + Duration::from_secs(60 * minutes);
    let seconds = (60 * minutes).to_string();
    thread::scope(|scope| {
        for protocol in ["simple", "extended", "prepared"] {
            let arguments = ["-n", "-M", protocol, "-c", "4", "-R", "100", "-T", &seconds];
            let mut command = endpoint_command(&endpoint, "pgbench", protocol);
            command.args(arguments).arg(name);
            scope.spawn(move || assert!(command.status().expect("it can be run").success()));
        }
        for (application, sql) in JOBS {
            let mut command = endpoint_command(&endpoint, "psql", application);
            command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", name]);
            for statement in sql.split("; ") {
                command.args(["-c", statement]);
            }
            scope.spawn(move || eprintln!("{application}: {}", again_and_again(until, command)));
        }
        let mut dump = endpoint_command(&endpoint, "pg_dump", "pg_dump");
        dump.args(["-d", name]);
        scope.spawn(move || eprintln!("pg_dump: {}", again_and_again(until, dump)));
    });
    drop(idle);
    let leaks = console(&pooler).table("show leaks");
    assert!(leaks.rows.is_empty(), "{leaks}\n{}", pooler.log());
    let log = pooler.log();
    let said = log
        .lines()
        .filter(|line| line.contains("leak") || line.contains("backend"));
    let said: Vec<_> = said.collect();
    assert!(said.is_empty(), "{said:?}");
    eprintln!("{minutes} minutes: nobody was named");
}
