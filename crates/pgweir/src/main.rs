//! pgweir: a PostgreSQL connection pooler.
//!
//! This file is the program's story: read the arguments, load the configuration, open the sockets,
//! serve until told to stop. One connection's life is in `clients::serve`, one query's way in `relay`.
#![forbid(unsafe_code)]

mod clients;
mod operators;
mod process;
mod relay;
mod servers;
mod settings;
mod shared;
mod takeover;
mod watch;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::Arc;

use crate::clients::lot::Lot;
use crate::clients::{accept, credentials, lot};
use crate::process::args::{Request, Run};
use crate::process::log::Log;
use crate::process::signals::{Harmless, Signals};
use crate::process::system::Background;
use crate::process::workers::Workers;
use crate::process::{args, check, convert, from_env, notify, system};
use crate::settings::auth_files::AuthFiles;
use crate::settings::tls::Tls;
use crate::settings::{preflight, reload};
use crate::shared::{Shared, Shutdown, lock};
use crate::takeover::take;
use crate::watch::{http, janitor, otel, strict};
use listenfd::ListenFd;
use pgweir_config::{Config, Settings};
use pgweir_net::Listener;

fn main() -> ExitCode {
    pgweir_alloc::give_back_at_once();
    let mut arguments = std::env::args_os();
    // It may be installed under the name of what it replaces.
    let name = arguments.next().unwrap_or_else(|| "pgweir".into());
    match args::parse(arguments) {
        Ok(Request::Version) => {
            let version = env!("CARGO_PKG_VERSION");
            let product = pgweir_console::PRODUCT;
            say(&format!(
                "{product}\npgweir {version}\nadns: getaddrinfo\ntls: rustls with aws-lc-rs\n"
            ))
        }
        Ok(Request::Help(text)) => say(text),
        Ok(Request::Check(file)) => check::run(&file),
        Ok(Request::Convert(file)) => convert::run(&file),
        Ok(Request::Tool(arguments)) => pgweir_tool::run(arguments),
        Ok(Request::Run(options)) => run(&options),
        Err(text) => {
            let name = name.display();
            eprintln!("{name}: {text}\nTry \"{name} --help\" for more information.");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output. Whoever closes it early (`| head -1`) has read enough.
fn say(text: &str) -> ExitCode {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn run(options: &Run) -> ExitCode {
    let log = Log::start(options.quiet, options.verbose);
    match prepare(options, log) {
        Ok(Some(start)) => serve(start, log),
        Ok(None) => ExitCode::SUCCESS,
        Err(()) => ExitCode::FAILURE,
    }
}

/// What a process begins with.
struct Start {
    config: Config,
    /// The sockets that systemd listens on for us.
    sockets: ListenFd,
    /// The process to take over from.
    old: Option<UnixStream>,
}

/// Everything that can fail before the first client. What failed has been logged. `None`: the
/// program goes on in another process.
fn prepare(options: &Run, log: &'static Log) -> Result<Option<Start>, ()> {
    if options.from_env
        && let Err(text) = from_env::write(&options.config)
    {
        return fatal(&text);
    }
    let mut config = reload::first(&options.config, log)?;
    let global = &mut config.global;
    if options.verbose > 0 {
        global.verbose = i32::from(options.verbose);
    }
    global.strict |= options.strict;
    if let Some(file) = &options.report {
        global.strict_report.clone_from(file);
    }
    if options.user.is_some() {
        global.user.clone_from(&options.user);
    }
    if let Some(user) = &global.user
        && let Err(text) = system::become_user(user)
    {
        return fatal(&text);
    }
    if rustix::process::getuid().is_root() {
        return fatal("PgBouncer should not run as root (set the key \"user\", or use -u)");
    }
    let sockets = ListenFd::from_env();
    let find_old = |config: &Config| match sockets.len() {
        0 => take::find(&config.global),
        // Whatever runs has sockets of its own.
        _ => None,
    };
    if let Err(text) = look_around(options, &config, find_old(&config).is_some()) {
        log.open_for_a_refusal(&config.global);
        return fatal(&text);
    }
    if options.daemon {
        match system::go_to_background() {
            Ok(Background::Arrived) => {}
            Ok(Background::Left) => return Ok(None),
            Ok(Background::Lost) => return fatal("it could not start; its log says why"),
            Err(error) => return fatal(&format!("cannot start in the background: {error}")),
        }
    }
    if let Err(error) = log.open(&config.global) {
        return fatal(&error);
    }
    let old = match options.reboot {
        true => find_old(&config),
        false => None,
    };
    if options.reboot && old.is_none() {
        tracing::info!("old process not found, try to continue normally");
    }
    Ok(Some(Start {
        config,
        sockets,
        old,
    }))
}

/// What can be seen to go wrong as long as somebody looks at our exit code.
fn look_around(options: &Run, config: &Config, is_running: bool) -> Result<(), String> {
    let global = &config.global;
    if is_running && !options.reboot {
        return Err("unix socket is in use, cannot continue".to_owned());
    }
    if !is_running {
        system::check_pidfile(&global.pidfile)?;
    }
    if options.daemon && global.pidfile.is_empty() {
        return Err("daemon needs pidfile configured".to_owned());
    }
    if options.daemon && global.logfile.is_empty() && !global.syslog {
        tracing::warn!("daemon without logfile and syslog: nothing will be logged");
    }
    Ok(())
}

fn fatal<T>(text: &str) -> Result<T, ()> {
    tracing::error!(fatal = true, "{text}");
    Err(())
}

/// Serves until the process is told to stop.
fn serve(start: Start, log: &'static Log) -> ExitCode {
    let workers = u16::try_from(start.config.global.workers.max(1)).unwrap_or(u16::MAX);
    let (runtime, workers) = match Workers::start(workers) {
        Ok(started) => started,
        Err(error) => {
            tracing::error!(fatal = true, "cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(live(start, log, workers));
    // What is still running has been told; nothing is waited for any more.
    runtime.shutdown_background();
    match result {
        Ok(End::Clean) => ExitCode::SUCCESS,
        Ok(End::Found) => ExitCode::from(strict::EXIT_CODE),
        Err(text) => {
            tracing::error!(fatal = true, "{text}");
            ExitCode::FAILURE
        }
    }
}

/// How the process ends that was told to end.
enum End {
    Clean,
    /// A strict run has found something.
    Found,
}

async fn live(start: Start, log: &'static Log, workers: Workers) -> Result<End, String> {
    let Start {
        config,
        sockets,
        old,
    } = start;
    let harmless = Harmless::install()?;
    collect_sends(&config.global);
    let tls = Tls::load(&config.global).map_err(|error| {
        tracing::error!("TLS setup failed: {error}");
        "TLS setup failed".to_owned()
    })?;
    let files = AuthFiles::load(&config.global, &AuthFiles::default());
    let process_key = pgweir_auth::ProcessKey::new(credentials::random());
    let pidfile = config.global.pidfile.clone();
    let lot = Lot::open().map_err(|error| format!("epoll_create1() failed: {error}"))?;
    let shared = Shared::new(log, config, tls, files, process_key, lot, workers);
    let shared = Arc::new(shared);
    strict::start(&shared)?;
    let mut pages = Vec::new();
    let (listeners, signals, _pidfile) = match old {
        None => {
            let pidfile = system::write_pidfile(&pidfile)?;
            preflight::at_start(&shared).await?;
            let listeners = open_listeners(&shared, sockets)?;
            pages = http::open(&shared.config(), shared.tcp_options())?;
            (listeners, Signals::install(harmless)?, pidfile)
        }
        Some(old) => {
            let listeners = takeover::take_over(&shared, old).await?;
            let signals = Signals::install(harmless)?;
            tokio::spawn(http::take_over(Arc::clone(&shared)));
            let pidfile = system::wait_for_pidfile(&pidfile).await;
            (listeners, signals, pidfile)
        }
    };
    announce(&shared);
    let listening: Vec<_> = listeners
        .into_iter()
        .map(|l| spawn_listener(&shared, l))
        .chain(pages.into_iter().map(|l| http::start(&shared, l)))
        .collect();
    lot::start(&shared).map_err(|error| format!("cannot start a thread: {error}"))?;
    tokio::spawn(janitor::run(Arc::clone(&shared)));
    otel::start(&shared);
    let signals = tokio::spawn(signals.obey(Arc::clone(&shared)));
    notify::ready();
    system::tell_that_it_serves();
    wait_for_end(&shared, signals).await?;
    for listener in listening {
        // A listener that has to close does so at once.
        let _ = listener.await;
    }
    Ok(match strict::finish(&shared) {
        false => End::Clean,
        true => End::Found,
    })
}

/// Lets what the tasks of one round send leave together, where the kernel allows it.
fn collect_sends(global: &Settings) {
    if global.io_uring
        && let Err(error) = pgweir_net::collect_sends(|error| {
            tracing::warn!("io_uring failed, sockets are written to one by one: {error}");
        })
    {
        tracing::info!("no io_uring, sockets are written to one by one: {error}");
    }
}

fn open_listeners(shared: &Shared, sockets: ListenFd) -> Result<Vec<Listener>, String> {
    let (config, options) = (shared.config(), shared.tcp_options());
    match sockets.len() {
        0 => accept::open(&config.global, options),
        _ => accept::adopt(sockets, &config.global, options),
    }
}

fn spawn_listener(shared: &Arc<Shared>, listener: Listener) -> tokio::task::JoinHandle<()> {
    accept::tune(&listener, &shared.config().global);
    let listener = Arc::new(listener);
    lock(&shared.listeners).push(Arc::clone(&listener));
    tokio::spawn(accept::run(Arc::clone(shared), listener))
}

fn announce(shared: &Shared) {
    let config = shared.config();
    let global = &config.global;
    let users = shared.files().users.iter().count();
    tracing::info!("{}", system::file_limits(&config, users));
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
    mut signals: tokio::task::JoinHandle<Result<(), String>>,
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
                    Ok(Err(text)) => Err(text),
                    Ok(Ok(())) | Err(_) => Err("signal handling has ended".to_owned()),
                };
            }
        }
    }
}
