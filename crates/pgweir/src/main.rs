//! pgweir: a PostgreSQL connection pooler.
//!
//! This file is the program's story: read the arguments, load the configuration, open the sockets,
//! serve until told to stop. One connection's life is in `serve`, one query's way in `relay`.
#![forbid(unsafe_code)]

mod accept;
mod admin;
mod args;
mod ask;
mod cancel;
mod client;
mod close;
mod conversation;
mod credentials;
mod farewell;
mod janitor;
mod log;
mod login;
mod open;
mod options;
mod pools;
mod relay;
mod reload;
mod reset;
mod serve;
mod server;
mod shared;
mod show;
mod shutdown;
mod signals;
mod system;
mod tls;

use std::process::ExitCode;
use std::sync::Arc;

use pgweir_config::Config;
use pgweir_net::Listener;

use crate::args::{Request, Run};
use crate::credentials::AuthFiles;
use crate::log::Log;
use crate::shared::{Shared, Shutdown};
use crate::tls::Tls;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Request::Version) => {
            println!("{}", pgweir_console::PRODUCT);
            println!("pgweir {}", env!("CARGO_PKG_VERSION"));
            println!("tls: rustls with aws-lc-rs");
            ExitCode::SUCCESS
        }
        Ok(Request::Help) => {
            print!("{}", args::HELP);
            ExitCode::SUCCESS
        }
        Ok(Request::Check(file)) => check(&file),
        Ok(Request::Run(options)) => run(&options),
        Err(text) => {
            eprintln!("pgweir: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Prints everything that is wrong with a configuration.
fn check(file: &str) -> ExitCode {
    let mut problems = pgweir_config::check(file, &mut reload::read);
    let has_errors = |problems: &[pgweir_config::Problem]| {
        problems
            .iter()
            .any(|problem| problem.severity == pgweir_config::Severity::Error)
    };
    let mut broken = has_errors(&problems);
    for problem in problems.drain(..) {
        println!("{problem}");
    }
    let mut config = Config::new(file);
    if !broken
        && config
            .load(pgweir_config::Phase::Start, &mut reload::read)
            .is_ok()
        && let Err(error) = Tls::load(&config.global)
    {
        println!("{file}: error: TLS setup failed: {error}");
        broken = true;
    }
    if broken {
        return ExitCode::FAILURE;
    }
    println!("{file}: no errors");
    ExitCode::SUCCESS
}

fn run(options: &Run) -> ExitCode {
    let log = Log::start(options.quiet, options.verbose);
    match prepare(options, log) {
        Ok(config) => serve(&config, log),
        Err(()) => ExitCode::FAILURE,
    }
}

/// Everything that can fail before the first client. What failed has been logged.
fn prepare(options: &Run, log: &'static Log) -> Result<Config, ()> {
    let mut config = reload::first(&options.config)?;
    if options.verbose > 0 {
        config.global.verbose = i32::from(options.verbose);
    }
    if let Err(error) = log.open_file(&config.global.logfile) {
        let path = &config.global.logfile;
        tracing::error!(fatal = true, "could not open logfile {path}: {error}");
        return Err(());
    }
    if rustix::process::getuid().is_root() {
        tracing::error!(fatal = true, "PgBouncer should not run as root");
        return Err(());
    }
    for (asked, what) in [
        (options.daemon, "-d"),
        (options.reboot, "-R"),
        (options.user.is_some(), "-u"),
    ] {
        if asked {
            tracing::error!(fatal = true, "option {what} is not supported yet");
            return Err(());
        }
    }
    Ok(config)
}

/// Serves until the process is told to stop.
fn serve(config: &Config, log: &'static Log) -> ExitCode {
    let runtime = match config.global.workers {
        ..=1 => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build(),
        workers => tokio::runtime::Builder::new_multi_thread()
            .worker_threads(usize::try_from(workers).unwrap_or(1))
            .enable_all()
            .build(),
    };
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(fatal = true, "cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(live(config.clone(), log));
    // What is still running has been told; nothing is waited for any more.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            tracing::error!(fatal = true, "{text}");
            ExitCode::FAILURE
        }
    }
}

async fn live(config: Config, log: &'static Log) -> Result<(), String> {
    let tls = Tls::load(&config.global).map_err(|error| {
        tracing::error!("TLS setup failed: {error}");
        "TLS setup failed".to_owned()
    })?;
    let files = AuthFiles::load(&config.global);
    let process_key = pgweir_auth::ProcessKey::new(credentials::random());
    let pidfile = write_pidfile(&config.global.pidfile)?;
    let shared = Arc::new(Shared::new(log, config, tls, files, process_key));
    let listeners = accept::open(&shared.config().global, shared.tcp_options())?;
    announce(&shared);
    let listening: Vec<_> = listeners
        .into_iter()
        .map(|l| spawn_listener(&shared, l))
        .collect();
    tokio::spawn(janitor::run(Arc::clone(&shared)));
    let signals = tokio::spawn(signals::run(Arc::clone(&shared)));
    wait_for_end(&shared, signals).await?;
    for listener in listening {
        // A listener that has to close does so at once.
        let _ = listener.await;
    }
    if let Some(path) = pidfile {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

fn spawn_listener(shared: &Arc<Shared>, listener: Listener) -> tokio::task::JoinHandle<()> {
    tokio::spawn(accept::run(Arc::clone(shared), listener))
}

fn announce(shared: &Shared) {
    let global = &shared.config().global;
    tracing::info!(
        "process up: pgweir {} ({}), max_client_conn: {}, workers: {}",
        env!("CARGO_PKG_VERSION"),
        pgweir_console::PRODUCT,
        global.max_client_conn,
        global.workers
    );
}

async fn wait_for_end(
    shared: &Arc<Shared>,
    mut signals: tokio::task::JoinHandle<std::io::Result<()>>,
) -> Result<(), String> {
    loop {
        let changed = shared.operator.changed.notified();
        if shared.operator.shutdown() == Shutdown::Now {
            return Ok(());
        }
        tokio::select! {
            () = changed => {}
            ended = &mut signals => {
                return match ended {
                    Ok(Err(error)) => Err(format!("cannot listen for signals: {error}")),
                    Ok(Ok(())) | Err(_) => Err("signal handling has ended".to_owned()),
                };
            }
        }
    }
}

/// Writes the process id, unless another process that lives has written its own.
fn write_pidfile(path: &str) -> Result<Option<String>, String> {
    if path.is_empty() {
        return Ok(None);
    }
    if let Ok(text) = std::fs::read_to_string(path)
        && let Ok(pid) = text.trim().parse::<i32>()
        && let Some(pid) = rustix::process::Pid::from_raw(pid)
        && rustix::process::test_kill_process(pid).is_ok()
    {
        return Err(format!(
            "pidfile '{path}' exists, another instance running?"
        ));
    }
    std::fs::write(path, format!("{}\n", std::process::id()))
        .map_err(|error| format!("could not write pidfile {path}: {error}"))?;
    Ok(Some(path.to_owned()))
}
