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
mod census;
mod client;
mod close;
mod conversation;
mod credentials;
mod farewell;
mod janitor;
mod ldap;
mod leaks;
mod limits;
mod log;
mod login;
mod names;
mod open;
mod options;
#[cfg_attr(not(feature = "pam"), path = "pam_not_built.rs")]
mod pam;
mod peers;
mod pools;
mod preflight;
mod relay;
mod reload;
mod reset;
mod serve;
mod server;
mod shared;
mod show;
mod shutdown;
mod signals;
mod survey;
mod system;
mod tls;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use pgweir_config::Config;
use pgweir_net::Listener;

use crate::args::{Request, Run};
use crate::credentials::AuthFiles;
use crate::log::Log;
use crate::shared::{Shared, Shutdown};
use crate::system::Background;
use crate::tls::Tls;

fn main() -> ExitCode {
    match args::parse(std::env::args_os().skip(1)) {
        Ok(Request::Version) => {
            let version = env!("CARGO_PKG_VERSION");
            let product = pgweir_console::PRODUCT;
            say(&format!(
                "{product}\npgweir {version}\ntls: rustls with aws-lc-rs\n"
            ))
        }
        Ok(Request::Help) => say(args::HELP),
        Ok(Request::Check(file)) => check(&file),
        Ok(Request::Run(options)) => run(&options),
        Err(text) => {
            eprintln!("pgweir: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output. Whoever closes it early (`| head -1`) has read enough.
fn say(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
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
    {
        // Without these files it starts all the same, as PgBouncer does.
        for (_, text) in AuthFiles::read(&config.global).1 {
            println!("{file}: warning: {text}");
        }
        if let Err(error) = Tls::load(&config.global) {
            println!("{file}: error: TLS setup failed: {error}");
            broken = true;
        }
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
        Ok(Some(config)) => serve(&config, log),
        Ok(None) => ExitCode::SUCCESS,
        Err(()) => ExitCode::FAILURE,
    }
}

/// Everything that can fail before the first client. What failed has been logged. `None`: the
/// program goes on in another process.
fn prepare(options: &Run, log: &'static Log) -> Result<Option<Config>, ()> {
    let mut config = reload::first(&options.config)?;
    let global = &mut config.global;
    if options.verbose > 0 {
        global.verbose = i32::from(options.verbose);
    }
    if options.user.is_some() {
        global.user.clone_from(&options.user);
    }
    if options.daemon && (global.pidfile.is_empty() || global.logfile.is_empty() && !global.syslog)
    {
        return fatal("daemon needs pidfile configured, and logfile or syslog");
    }
    if let Some(user) = &global.user
        && let Err(text) = system::become_user(user)
    {
        return fatal(&text);
    }
    if rustix::process::getuid().is_root() {
        return fatal("PgBouncer should not run as root (set the key \"user\", or use -u)");
    }
    if options.daemon {
        match system::go_to_background() {
            Ok(Background::Arrived) => {}
            Ok(Background::Left) => return Ok(None),
            Err(error) => return fatal(&format!("cannot start in the background: {error}")),
        }
    }
    if let Err(error) = log.open(&config.global) {
        return fatal(&error);
    }
    if options.reboot {
        tracing::warn!("online restart (-R) is not supported yet: this is a normal start");
    }
    Ok(Some(config))
}

fn fatal<T>(text: &str) -> Result<T, ()> {
    tracing::error!(fatal = true, "{text}");
    Err(())
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
    let _pidfile = system::write_pidfile(&config.global.pidfile)?;
    let shared = Arc::new(Shared::new(log, config, tls, files, process_key));
    preflight::at_start(&shared).await?;
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
