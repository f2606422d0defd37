//! Listening sockets and what comes in through them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pgweir_config::Settings;
use pgweir_net::{
    ListenOptions, Listener, TcpOptions, UnixPermissions, group_id, resolve_listen_address,
};

use crate::serve;
use crate::shared::{Shared, Shutdown};

/// How long to wait after an accept has failed: mostly the process is out of descriptors, and
/// trying again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
    let mut failure = None;
    for word in settings.listen_addr.iter() {
        let addresses = resolve_listen_address(word, settings.listen_port)
            .map_err(|error| format!("cannot resolve listen_addr {word}: {error}"))?;
        for address in addresses {
            // Families and names overlap in practice: one that fails is no reason not to start.
            match Listener::bind_tcp(address, &options) {
                Ok(listener) => {
                    tracing::info!("listening on {}", listener.name());
                    listeners.push(listener);
                }
                Err(error) => {
                    tracing::warn!("{error}");
                    failure = Some(error);
                }
            }
        }
    }
    if let Some(error) = failure
        && listeners.is_empty()
    {
        return Err(format!(
            "failed to listen on any address in listen_addr list: {error}"
        ));
    }
    if !settings.unix_socket_dir.is_empty() {
        let permissions = UnixPermissions {
            mode: settings.unix_socket_mode.0,
            group: group(&settings.unix_socket_group).map_err(|error| {
                format!("unix_socket_group {}: {error}", settings.unix_socket_group)
            })?,
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

fn group(name: &str) -> io::Result<Option<u32>> {
    if name.is_empty() {
        Ok(None)
    } else {
        group_id(name)
    }
}

/// Accepts until the listener has to close.
pub(crate) async fn run(shared: Arc<Shared>, listener: Listener) {
    loop {
        // Registered before the order is looked at, so that none is missed.
        let changed = shared.operator.changed.notified();
        if must_close(&shared, &listener) {
            return listener.close();
        }
        tokio::select! {
            () = changed => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    tokio::spawn(serve::serve(Arc::clone(&shared), stream, address));
                }
                Err(error) => {
                    tracing::error!("accept() failed on {}: {error}", listener.name());
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// While the process drains, the Unix socket stays for the console.
fn must_close(shared: &Shared, listener: &Listener) -> bool {
    match shared.operator.shutdown() {
        Shutdown::No => false,
        Shutdown::WaitForServers | Shutdown::WaitForClients => !listener.is_unix(),
        Shutdown::Now => true,
    }
}
