//! The console: reads commands, carries them out, answers.

mod gates;
mod orders;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgweir_config::CONSOLE_DATABASE;
use pgweir_console::tables::BACKENDS;
use pgweir_console::{
    Access, Command, CommandError, Notice, Order, Session, Show, ShutdownMode, Step, Verb,
};
use pgweir_wire::SizeLimits;

pub(crate) use self::gates::{cancel, pause_all, resume_all};
use self::gates::{hand_over, may_hold, may_suspend, pause, resume, was_taken_back};
use crate::clients::client::Client;
use crate::clients::conversation::{Conversation, Interrupted};
use crate::clients::farewell::Farewell;
use crate::operators::show;
use crate::process::shutdown;
use crate::servers::pools;
use crate::settings::reload;
use crate::shared::{Hold, Shared, Shutdown, lock};
use crate::takeover::hold::{self, HoldAt};
use crate::takeover::{fds, give};
use crate::watch::{backends, totals};

/// How often a waiting command looks again if nobody rings.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What became of a command.
enum Outcome {
    /// Answered with its tag.
    Done(Option<Notice>),
    /// Answered in full already.
    Answered,
    /// The connection ends without an answer.
    Hangup,
}

/// Serves one user of the console.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    talk: &mut Conversation,
    access: Access,
) -> Farewell {
    let session = Session::new(access);
    let mut uncounted = true;
    loop {
        let message = tokio::select! {
            message = talk.message(SizeLimits::HELD) => message,
            farewell = client.ordered_to_end() => return farewell,
        };
        let (tag, body) = match message {
            Ok(message) => message,
            Err(Interrupted::Gone) => return Farewell::ClientGone,
            Err(Interrupted::Frame(error)) => return Farewell::Header(error),
            Err(Interrupted::Startup(_)) => return Farewell::LoginMessage,
        };
        if std::mem::take(&mut uncounted) {
            totals::count_console_session(shared);
        }
        let mut out = Vec::new();
        match session.handle_frame(tag, &body, &mut out) {
            Step::Continue => {}
            Step::Run(Command::Show(Show::Fds)) => {
                let written = fds::write(shared, client, &mut talk.stream).await;
                if written.is_err() {
                    return Farewell::ClientGone;
                }
            }
            Step::Run(command @ Command::Handover) => match hand_over(shared, client).await {
                Ok(()) => {
                    if give::parcels(shared, &mut talk.stream).await.is_err() {
                        return Farewell::ClientGone;
                    }
                    command.write_done(None, &mut out);
                }
                Err(error) => error.write(&mut out),
            },
            Step::Run(command) => {
                let executing = execute(shared, client, &command, &mut out);
                let executed = tokio::select! {
                    executed = executing => executed,
                    farewell = client.ordered_to_end(), if only_waits(&command) => return farewell,
                    () = talk.gone(), if only_waits(&command) => return Farewell::ClientGone,
                };
                match executed {
                    Ok(Outcome::Done(notice)) => command.write_done(notice, &mut out),
                    Ok(Outcome::Answered) => {}
                    Ok(Outcome::Hangup) => return Farewell::ClientClosed,
                    Err(error) => {
                        log_error(shared, client, &error.to_string());
                        error.write(&mut out);
                    }
                }
            }
            Step::Refused(error) => log_error(shared, client, &error.to_string()),
            Step::Terminate => return Farewell::ClientClosed,
            Step::Close(violation) => {
                if let Some(error) = violation.error() {
                    log_error(shared, client, &error);
                }
                let _ = talk.send(&out).await;
                return Farewell::ConsoleProtocol(violation.reason());
            }
        }
        if !out.is_empty() && talk.send(&out).await.is_err() {
            return Farewell::ClientGone;
        }
    }
}

/// Whether a command gives its orders at once, and then only waits until they have been carried out: that goes on without
/// its console.
fn only_waits(command: &Command) -> bool {
    matches!(
        command,
        Command::Pause(_)
            | Command::Kill(_)
            | Command::KillClient(_)
            | Command::Order(Order::KillClients { .. })
            | Command::WaitClose(_)
    )
}

fn log_command(client: &Client, command: &str, database: Option<&str>) {
    match database {
        None => tracing::info!(peer = %client, "{command} command issued"),
        Some(name) => tracing::info!(peer = %client, "{command} '{name}' command issued"),
    }
}

/// PgBouncer logs what the console refuses twice: as an error of its own, and as one that a client
/// was told.
fn log_error(shared: &Shared, client: &Client, text: &str) {
    tracing::error!("{text}");
    if shared.config().global.log_pooler_errors {
        tracing::warn!(peer = %client, "pooler error: {text}");
    }
}

async fn execute(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    command: &Command,
    out: &mut Vec<u8>,
) -> Result<Outcome, CommandError> {
    match command {
        Command::Show(Show::Backends) => {
            BACKENDS.write_reply(&backends::show(shared).await, out);
            return Ok(Outcome::Answered);
        }
        Command::Show(what) => {
            show::write(shared, *what, out);
            return Ok(Outcome::Answered);
        }
        Command::Set { key, value } => {
            let notice = reload::set(shared, key, value).map_err(|()| CommandError::SetFailed)?;
            return Ok(Outcome::Done(notice));
        }
        Command::Reload => {
            tracing::info!(peer = %client, "RELOAD command issued");
            reload::reload(shared).map_err(|()| CommandError::ReloadFailed)?;
        }
        Command::Pause(database) => pause(shared, client, database.as_deref()).await?,
        Command::Resume(database) => resume(shared, client, database.as_deref())?,
        Command::Suspend => {
            may_suspend(shared)?;
            tracing::info!(peer = %client, "SUSPEND command issued");
            hold::everything(shared, HoldAt::Boundary).await;
        }
        Command::Handover => unreachable!("it is answered where the sockets are"),
        Command::Disable(database) => {
            log_command(client, "DISABLE", Some(database));
            known(shared, database, Verb::Disable)?;
            lock(&shared.operator.disabled).insert(database.clone());
        }
        Command::Enable(database) => {
            log_command(client, "ENABLE", Some(database));
            known(shared, database, Verb::Enable)?;
            lock(&shared.operator.disabled).remove(database);
        }
        Command::Reconnect(database) => {
            log_command(client, "RECONNECT", database.as_deref());
            let which = selection(shared, database.as_deref(), Verb::Reconnect)?;
            reload::reconnect(shared, |name| which.covers(name));
        }
        Command::Kill(database) => kill(shared, client, database.as_deref()).await?,
        Command::KillClient(id) => kill_client(shared, *id).await?,
        Command::WaitClose(database) => {
            log_command(client, "WAIT_CLOSE", database.as_deref());
            let which = selection(shared, database.as_deref(), Verb::WaitClose)?;
            wait_until(shared, || {
                !shared.pools().has_obsolete(|name| which.covers(name))
            })
            .await;
        }
        Command::Order(order) => return orders::run(shared, client, order, out).await,
        Command::Shutdown(mode) => {
            let (how, text) = match mode {
                ShutdownMode::Now => (Shutdown::Now, "SHUTDOWN command issued"),
                ShutdownMode::WaitForServers => (
                    Shutdown::WaitForServers,
                    "SHUTDOWN WAIT_FOR_SERVERS command issued",
                ),
                ShutdownMode::WaitForClients => (
                    Shutdown::WaitForClients,
                    "SHUTDOWN WAIT_FOR_CLIENTS command issued",
                ),
            };
            if how == Shutdown::Now && was_taken_back(shared, client) {
                return Err(CommandError::NotPaused);
            }
            tracing::info!(peer = %client, "{text}");
            if how == Shutdown::Now && shared.standstill.has_given_rows() {
                give::end_what_stays(shared).await;
            }
            shutdown::begin(shared, how);
            if how == Shutdown::Now {
                return Ok(Outcome::Hangup);
            }
        }
    }
    Ok(Outcome::Done(None))
}

/// One database or all of them.
enum Which {
    All,
    One(String),
}

impl Which {
    fn covers(&self, database: &str) -> bool {
        match self {
            Self::All => true,
            Self::One(name) => name == database,
        }
    }
}

fn selection(shared: &Shared, database: Option<&str>, verb: Verb) -> Result<Which, CommandError> {
    match database {
        None => Ok(Which::All),
        Some(name) => known(shared, name, verb).map(|()| Which::One(name.to_owned())),
    }
}

/// What a command is about that pauses, which it cannot where everything is held already. A database by its name can be resumed
/// at any time, and KILL pauses them so.
fn to_pause(
    shared: &Shared,
    client: &Client,
    database: Option<&str>,
    command: &str,
    verb: Verb,
) -> Result<Which, CommandError> {
    match (verb, database) {
        (Verb::Pause, None) => may_hold(shared)?,
        _ if shared.operator.hold() != Hold::None => return Err(CommandError::AlreadyPaused),
        _ => {}
    }
    log_command(client, command, database);
    selection(shared, database, verb)
}

fn known(shared: &Shared, database: &str, verb: Verb) -> Result<(), CommandError> {
    if database == CONSOLE_DATABASE {
        return Err(CommandError::AdminDatabase {
            verb,
            database: database.to_owned(),
        });
    }
    match shared.config().database(database) {
        Some(_) => Ok(()),
        None => Err(CommandError::NoSuchDatabase(database.to_owned())),
    }
}

async fn kill(
    shared: &Arc<Shared>,
    client: &Client,
    database: Option<&str>,
) -> Result<(), CommandError> {
    let which = to_pause(shared, client, database, "KILL", Verb::Kill)?;
    // Even a KILL of all pauses the databases one by one, and so they are resumed.
    let databases: Vec<String> = match &which {
        Which::All => {
            let homes = shared.homes().into_keys();
            homes.map(|name| name.database.to_string()).collect()
        }
        Which::One(name) => vec![name.clone()],
    };
    lock(&shared.operator.paused).extend(databases);
    // Those that are there now: who comes meanwhile waits for RESUME.
    let is_victim = |client: &Client| {
        let identity = client.identity.get();
        !client.is_console.load(Ordering::Relaxed)
            && identity.is_some_and(|identity| which.covers(&identity.database))
    };
    let mut victims = Vec::new();
    for client in shared.clients.iter().filter(|client| is_victim(client)) {
        client.end(Farewell::DatabaseRemoved);
        victims.push(client.id);
    }
    let actions = shared
        .pools()
        .pause(|name| which.covers(name), Instant::now());
    pools::perform(shared, actions);
    wait_until(shared, || {
        victims.retain(|id| shared.clients.contains_key(id));
        victims.is_empty()
    })
    .await;
    Ok(())
}

async fn kill_client(shared: &Arc<Shared>, id: u64) -> Result<(), CommandError> {
    let shown = |client: &Client| u64::from(pgweir_console::tables::shown_id(client.id)) == id;
    let victim = shared
        .clients
        .iter()
        .find(|client| shown(client))
        .map(|c| Arc::clone(&c));
    let Some(victim) = victim else {
        return Err(CommandError::ClientNotFound);
    };
    victim.end(Farewell::Killed);
    wait_until(shared, || !shared.clients.contains_key(&victim.id)).await;
    Ok(())
}

/// Waits until `done`, looking whenever something has ended.
async fn wait_until(shared: &Shared, mut done: impl FnMut() -> bool) {
    loop {
        let ended = shared.ended.notified();
        if done() || shared.operator.shutdown() == Shutdown::Now {
            return;
        }
        let _ = tokio::time::timeout(LOOK_AGAIN, ended).await;
    }
}
