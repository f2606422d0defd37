//! Listening sockets and what comes in through them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use listenfd::ListenFd;
use pgweir_config::{ErrorCodes, Settings};
use pgweir_net::{
    Accepted, ListenOptions, Listener, TcpOptions, UnixPermissions, group_id,
    resolve_listen_address,
};

use tokio::time::timeout;

use crate::clients::client::Client;
use crate::clients::farewell::Farewell;
use crate::clients::serve;
use crate::process::shortage::Shortage;
use crate::process::workers::Seat;
use crate::shared::{Hold, Shared, Shutdown, lock};

/// How long to wait after an accept has failed: mostly the process is out of descriptors, and
/// trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long whoever is to be told that nothing is left for it may take to show up: mostly it is there.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(10);

/// Opens every socket that the configuration names.
///
/// # Errors
/// The text for the log; the program cannot start.
pub(crate) fn open(settings: &Settings, tcp: TcpOptions) -> Result<Vec<Listener>, String> {
    let options = ListenOptions {
        backlog: u32::try_from(settings.listen_backlog).unwrap_or(128),
        reuse_port: settings.so_reuseport,
        tcp,
    };
    let mut listeners = Vec::new();
    for word in settings.listen_addr.iter() {
        let addresses = resolve_listen_address(word, settings.listen_port)
            .map_err(|error| format!("cannot resolve listen_addr {word}: {error}"))?;
        for address in addresses {
            match Listener::bind_tcp(address, &options) {
                Ok(listener) => {
                    tracing::info!("listening on {}", listener.name());
                    listeners.push(listener);
                }
                // A name may stand for addresses that this machine does not have.
                Err(error) => tracing::warn!("{error}"),
            }
        }
    }
    if listeners.is_empty() && !settings.listen_addr.is_empty() {
        let list: Vec<&str> = settings.listen_addr.iter().collect();
        return Err(format!(
            "failed to listen on any address in listen_addr list: {}",
            list.join(", ")
        ));
    }
    if !settings.unix_socket_dir.is_empty() {
        let permissions = UnixPermissions {
            mode: settings.unix_socket_mode.0,
            group: group(&settings.unix_socket_group)?,
        };
        let (dir, port) = (&settings.unix_socket_dir, settings.listen_port);
        let listener = Listener::bind_unix(dir, port, permissions, &options)
            .map_err(|error| error.to_string())?;
        tracing::info!("listening on {}", listener.name());
        listeners.push(listener);
    }
    if listeners.is_empty() {
        return Err("nowhere to listen on: listen_addr and unix_socket_dir are both empty".into());
    }
    Ok(listeners)
}

/// Takes the sockets that systemd listens on for us. It made them, so it also removes their files.
///
/// # Errors
/// The text for the log; the program cannot start.
pub(crate) fn adopt(
    mut sockets: ListenFd,
    settings: &Settings,
    tcp: TcpOptions,
) -> Result<Vec<Listener>, String> {
    for (key, is_set) in [
        ("listen_addr", settings.listen_addr.iter().next().is_some()),
        (
            "unix_socket_dir",
            !matches!(&*settings.unix_socket_dir, "" | "/tmp"),
        ),
    ] {
        if is_set {
            tracing::warn!("sockets passed from service manager, {key} ignored");
        }
    }
    let mut listeners = Vec::new();
    for index in 0..sockets.len() {
        let socket = take_socket(&mut sockets, index)
            .map_err(|error| format!("socket passed from service manager: {error}"))?;
        let listener = Listener::from_fd(socket, settings.listen_port, &tcp)
            .map_err(|error| error.to_string())?;
        tracing::info!("socket passed from service manager ({})", listener.name());
        listeners.push(listener);
    }
    Ok(listeners)
}

fn take_socket(sockets: &mut ListenFd, index: usize) -> io::Result<OwnedFd> {
    let taken = match sockets.take_tcp_listener(index) {
        Ok(tcp) => tcp.map(OwnedFd::from),
        Err(_) => sockets.take_unix_listener(index)?.map(OwnedFd::from),
    };
    taken.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn group(name: &str) -> Result<Option<u32>, String> {
    if name.is_empty() {
        return Ok(None);
    }
    match group_id(name) {
        Ok(Some(id)) => Ok(Some(id)),
        Ok(None) => Err(format!("could not find group '{name}'")),
        Err(error) => Err(format!("could not find group '{name}': {error}")),
    }
}

/// How long the kernel may hold a connection back whose first bytes are not there yet.
const DEFER_ACCEPT: Duration = Duration::from_secs(45);

/// Puts `tcp_defer_accept` in force: a connection is not worth a turn before it says something.
pub(crate) fn tune(listener: &Listener, settings: &Settings) {
    let time = match settings.tcp_defer_accept > 0 {
        true => DEFER_ACCEPT,
        false => Duration::ZERO,
    };
    if let Err(error) = listener.set_defer_accept(time) {
        tracing::warn!("{error}");
    }
}

/// Accepts until the listener has to close.
pub(crate) async fn run(shared: Arc<Shared>, listener: Arc<Listener>) {
    let mut spare = spare();
    loop {
        // Registered before the order is looked at, so that none is missed.
        let changed = shared.operator.changed.notified();
        if must_close(&shared, &listener) {
            return close(&shared, &listener);
        }
        if shared.operator.hold() == Hold::Suspended {
            shared.standstill.closed_door(changed).await;
            continue;
        }
        tokio::select! {
            () = changed => {}
            accepted = listener.accept() => match accepted {
                Ok(accepted) => admit(&shared, accepted, seat(&shared)),
                Err(error) => {
                    tracing::error!("accept() failed on {}: {error}", listener.name());
                    let told = match Shortage::of(&error) {
                        Some(short) => refuse(&shared, &listener, &mut spare, short).await,
                        None => false,
                    };
                    if !told {
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            },
        }
    }
}

/// Where a client that has come begins. What it may encrypt stays with the thread that has done so.
fn seat(shared: &Shared) -> Seat<'_> {
    match shared.tls().acceptor.is_some() {
        true => shared.workers.seat(),
        false => shared.workers.seat_of_newcomer(),
    }
}

/// Gives a client to a thread.
fn admit(shared: &Arc<Shared>, accepted: Accepted, seat: Seat<'_>) {
    seat.spawn(serve::serve(Arc::clone(shared), accepted));
}

/// A file that is given up when there are no others, so that somebody can still be told that.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Tells one client that no file, or no memory, is left for it, in the place of the spare file. In PgBouncer's
/// dialect it waits at the door, as it does there. Whether somebody was taken from the door.
async fn refuse(
    shared: &Arc<Shared>,
    listener: &Listener,
    spare: &mut Option<File>,
    short: Shortage,
) -> bool {
    if shared.config().global.error_codes == ErrorCodes::Pgbouncer {
        return false;
    }
    drop(spare.take());
    let accepted = timeout(REFUSAL_PATIENCE, listener.accept()).await;
    *spare = self::spare();
    let Ok(Ok(accepted)) = accepted else {
        return false;
    };
    if spare.is_some() {
        // Something has come free meanwhile.
        admit(shared, accepted, shared.workers.seat_here());
        return true;
    }
    let Ok(opened) = accepted.open() else {
        return false;
    };
    let client = Client::of(shared.next_id(), &opened, Instant::now());
    serve::turn_away(
        Arc::clone(shared),
        Arc::new(client),
        opened.stream,
        Farewell::Short(short),
    )
    .await;
    *spare = self::spare();
    true
}

/// A socket that has been handed over, or may have been, lives on in another process: its file stays.
fn close(shared: &Shared, listener: &Arc<Listener>) {
    if shared.operator.hold() != Hold::Suspended {
        listener.remove_file();
    }
    lock(&shared.listeners).retain(|other| !Arc::ptr_eq(other, listener));
}

/// While the process waits for its end, the Unix socket stays for the console. While it sends its
/// clients away, it tells new ones that they have to go elsewhere: a refused socket is taken for a
/// machine that is down.
fn must_close(shared: &Shared, listener: &Listener) -> bool {
    match shared.operator.shutdown() {
        Shutdown::No | Shutdown::Drain => false,
        Shutdown::WaitForServers | Shutdown::WaitForClients => !listener.is_unix(),
        Shutdown::Now => true,
    }
}
