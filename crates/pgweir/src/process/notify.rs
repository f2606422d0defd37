//! Tells systemd how the service is doing, in the words of sd_notify(3). Without systemd it says
//! nothing.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::shared::Shutdown;

/// Clients can connect.
pub(crate) fn ready() {
    send("READY=1\nSTATUS=serving");
}

/// The configuration is being read again; [`ready`] follows. The time is what `Type=notify-reload`
/// asks for.
pub(crate) fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    let us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    send(&format!("RELOADING=1\nMONOTONIC_USEC={us}"));
}

/// The process is on its way out.
pub(crate) fn stopping(shutdown: Shutdown) {
    let waiting = match shutdown {
        Shutdown::WaitForServers => "\nSTATUS=waiting for servers to be released",
        Shutdown::WaitForClients | Shutdown::Drain => "\nSTATUS=waiting for clients to leave",
        Shutdown::No | Shutdown::Now => "",
    };
    send(&format!("STOPPING=1{waiting}"));
}

/// This process is the service's main process from now on.
pub(crate) fn main_process(pid: u32) {
    send(&format!("MAINPID={pid}"));
}

/// A service manager that does not listen is none of our business.
fn send(state: &str) {
    let Some(name) = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    let sent = address(name).and_then(|address| {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.send_to(state.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::debug!("cannot notify systemd: {error}");
    }
}

/// A name that begins with `@` is one in the abstract namespace.
fn address(name: OsString) -> std::io::Result<SockAddr> {
    match name.as_bytes() {
        [b'@', rest @ ..] => {
            let hidden = OsString::from_vec([&[0], rest].concat());
            SockAddr::unix(Path::new(&hidden))
        }
        _ => SockAddr::unix(Path::new(&name)),
    }
}
