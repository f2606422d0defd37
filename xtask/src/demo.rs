//! `cargo xtask demo`: many clients on few connections, counted by PostgreSQL itself.

use std::{
    env,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::Duration,
};

use pgweir_harness::{Cluster, ClusterOptions, Error, Ini, Pooler};

use crate::step::{self, Failure, brings_pooler, cargo};

/// What the user asked for.
#[derive(Debug, Clone, Copy)]
struct Demo {
    clients: u32,
    servers: u32,
    seconds: u32,
    debug: bool,
    keep: bool,
}

pub(crate) fn run(args: &[&str]) -> Result<(), Failure> {
    let demo = Demo::parse(args)?;
    let postgres = step::postgres()?;
    if let Some(missing) = postgres.missing() {
        return Err(Failure::new(format!(
            "the demo needs {missing}, which {postgres} comes without"
        )));
    }
    let binary = demo.binary()?;

    say("Starting a throwaway PostgreSQL, and the pooler in front of it in transaction mode.");
    let cluster = Cluster::start_with(
        postgres,
        ClusterOptions {
            max_connections: demo.servers + 10,
            ..ClusterOptions::default()
        },
    )?;
    let ini = Ini::in_front_of(&cluster)
        .set("pool_mode", "transaction")
        .set("default_pool_size", demo.servers)
        .set("max_client_conn", demo.clients + 50);
    let pooler = match binary {
        Some(binary) => Pooler::start_binary(&binary, ini)?,
        None => Pooler::start(ini)?,
    };

    say("Filling the tables of pgbench, straight into PostgreSQL.");
    cluster
        .endpoint()
        .pgbench("postgres", &["-i", "-q", "-s", "5"])?;

    demo.load(&cluster, &pooler)?;

    say("SHOW STATS of the pooler's console:");
    console(&pooler, &["-x", "-c", "SHOW STATS"])?;
    if !demo.keep {
        println!("\nAll of it is removed now; --keep leaves it running, to look around.");
        return Ok(());
    }
    say("Look around yourself:");
    println!(
        "  psql -h 127.0.0.1 -p {} -U postgres postgres     through the pooler",
        pooler.port
    );
    println!(
        "  psql -h 127.0.0.1 -p {} -U postgres pgbouncer    its console: SHOW HELP",
        pooler.port
    );
    println!(
        "  psql -h 127.0.0.1 -p {} -U postgres postgres     past the pooler",
        cluster.port()
    );
    println!("  {}   its configuration", pooler.ini_path().display());
    println!("\nIt runs until you press Ctrl-C; then all of it is removed.");
    loop {
        thread::park();
    }
}

impl Demo {
    fn parse(args: &[&str]) -> Result<Self, Failure> {
        let mut demo = Self {
            clients: 200,
            servers: 20,
            seconds: 10,
            debug: false,
            keep: false,
        };
        let mut args = args.iter().copied();
        while let Some(name) = args.next() {
            let number = match name {
                "--clients" => &mut demo.clients,
                "--servers" => &mut demo.servers,
                "--seconds" => &mut demo.seconds,
                "--debug" => {
                    demo.debug = true;
                    continue;
                }
                "--keep" => {
                    demo.keep = true;
                    continue;
                }
                unknown => return Err(Failure::usage(unknown)),
            };
            *number = args
                .next()
                .and_then(|value| value.parse().ok())
                .filter(|value| *value > 0)
                .ok_or_else(|| Failure::new(format!("{name} takes a number above zero")))?;
        }
        Ok(demo)
    }

    /// Builds pgweir, unless the caller brings a pooler.
    fn binary(self) -> Result<Option<PathBuf>, Failure> {
        if brings_pooler() {
            return Ok(None);
        }
        let (profile, folder): (&[&str], _) = if self.debug {
            (&[], "debug")
        } else {
            (&["--release"], "release")
        };
        step::run(cargo(&["build", "--package", "pgweir"]).args(profile))?;
        // This program is target/debug/xtask.
        let target = env::current_exe()?
            .ancestors()
            .nth(2)
            .map(|target| target.join(folder));
        Ok(target.map(|folder| folder.join("pgweir")))
    }

    /// Runs the clients, and asks PostgreSQL every second how many connections it has.
    fn load(self, cluster: &Cluster, pooler: &Pooler) -> Result<(), Failure> {
        let Self {
            clients,
            servers,
            seconds,
            ..
        } = self;
        say(&format!(
            "{clients} clients of pgbench share {servers} servers for {seconds} seconds."
        ));
        let (clients, seconds) = (clients.to_string(), seconds.to_string());
        let args = [
            "-S", "-n", "-P", "1", "-j", "2", "-c", &clients, "-T", &seconds,
        ];
        let mut pgbench = pooler.endpoint().pgbench_command("postgres", &args)?;

        let (running, peak) = (AtomicBool::new(true), AtomicU32::new(0));
        let status = thread::scope(|scope| {
            scope.spawn(|| self.watch(cluster, pooler, &running, &peak));
            let status = pgbench.status();
            running.store(false, Ordering::Relaxed);
            status
        })?;
        if !status.success() {
            return Err(Failure::new(format!(
                "pgbench ended with {status}; the pooler's log:\n{}",
                pooler.log()
            )));
        }
        let peak = peak.load(Ordering::Relaxed);
        say(&format!(
            "PostgreSQL never had more than {peak} client connections for {clients} clients."
        ));
        Ok(())
    }

    fn watch(self, cluster: &Cluster, pooler: &Pooler, running: &AtomicBool, peak: &AtomicU32) {
        for second in 0.. {
            thread::sleep(Duration::from_millis(990));
            if !running.load(Ordering::Relaxed) {
                return;
            }
            match cluster.try_backends() {
                Ok(count) => {
                    eprintln!("          PostgreSQL itself counts {count} client connections");
                    peak.fetch_max(count, Ordering::Relaxed);
                }
                Err(error) => eprintln!("{error}"),
            }
            if second == self.seconds / 3 {
                say("SHOW POOLS while they run:");
                if let Err(error) = console(pooler, &["-c", "SHOW POOLS"]) {
                    eprintln!("{error}");
                }
            }
        }
    }
}

/// Lets psql show the console's answer as it would on a terminal.
fn console(pooler: &Pooler, args: &[&str]) -> Result<(), Error> {
    let mut psql = pooler
        .unix_endpoint()
        .psql_command("pgbouncer", "pgbouncer")?;
    let _ = psql.args(args).status();
    Ok(())
}

fn say(text: &str) {
    println!("\n== {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_numbers_and_switches_in_any_order() {
        let demo = Demo::parse(&["--keep", "--clients", "50"]).expect("both are known");
        assert!(demo.keep);
        assert_eq!((demo.clients, demo.servers), (50, 20));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert!(Demo::parse(&["--client", "50"]).is_err());
        assert!(Demo::parse(&["--clients", "many"]).is_err());
        assert!(Demo::parse(&["--seconds"]).is_err());
    }
}
