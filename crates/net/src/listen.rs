//! Sockets that clients connect to.

mod accepted;
mod error;
mod names;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::SetUsize};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use accepted::End;
pub use accepted::{Accepted, Opened};
pub use error::ListenError;
pub use names::resolve_listen_address;
use names::socket_name;

use crate::options::TcpOptions;
use crate::unix_file::{SocketFile, UnixPermissions, make_room};
use crate::unix_name::UnixName;

/// A socket that clients connect to.
///
/// Dropping it closes it at once: the kernel refuses new connections and those that nobody has
/// accepted yet. The file of a Unix socket stays until [`Listener::remove_file`], because a listener may
/// live on in another process.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<Socket>,
    is_unix: bool,
    /// As the log names it, such as `127.0.0.1:6432`.
    name: String,
    end: Arc<End>,
    /// The Unix socket's file, when this listener made it.
    file: Option<SocketFile>,
}

/// The kernel's option, in seconds; tcp(7).
#[derive(Clone, Copy)]
struct TcpDeferAccept;

nix::setsockopt_impl!(
    TcpDeferAccept,
    libc::IPPROTO_TCP,
    libc::TCP_DEFER_ACCEPT,
    usize,
    SetUsize
);

/// What all listeners are made with.
#[derive(Clone, Copy, Debug)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted.
    pub backlog: u32,
    /// Lets several processes listen on one TCP port; the kernel spreads connections over them.
    pub reuse_port: bool,
    /// What accepted TCP connections inherit.
    pub tcp: TcpOptions,
}

impl Listener {
    /// Listens on one TCP address. An IPv6 socket takes IPv6 only, so that `*` can be one socket
    /// per family.
    pub fn bind_tcp(addr: SocketAddr, options: &ListenOptions) -> Result<Self, ListenError> {
        let failed = |step| {
            move |source| ListenError::Os {
                name: addr.to_string(),
                step,
                source,
            }
        };
        let socket =
            Socket::new(Domain::for_address(addr), Type::STREAM, None).map_err(failed("socket"))?;
        socket
            .set_reuse_address(true)
            .map_err(failed("setsockopt"))?;
        if addr.is_ipv6() {
            socket
                .set_only_v6(true)
                .map_err(failed("setsockopt/IPV6_V6ONLY"))?;
        }
        if options.reuse_port {
            socket
                .set_reuse_port(true)
                .map_err(failed("setsockopt/SO_REUSEPORT"))?;
        }
        socket.bind(&addr.into()).map_err(failed("bind"))?;
        options
            .tcp
            .apply(SockRef::from(&socket))
            .map_err(|(step, error)| failed(step)(error))?;
        socket.listen(backlog(options)).map_err(failed("listen"))?;
        Self::adopt(socket, 0).map_err(failed("listen"))
    }

    /// Listens on a Unix socket. A file left by a process that is gone is replaced; one that
    /// somebody still listens on is not.
    pub fn bind_unix(
        dir: &str,
        port: u16,
        permissions: UnixPermissions,
        options: &ListenOptions,
    ) -> Result<Self, ListenError> {
        Self::bind_name(&UnixName::in_dir(dir, port), port, permissions, options)
    }

    /// As [`Listener::bind_unix`], at any path.
    pub fn bind_path(
        path: &str,
        permissions: UnixPermissions,
        options: &ListenOptions,
    ) -> Result<Self, ListenError> {
        Self::bind_name(&UnixName::at(path), 0, permissions, options)
    }

    fn bind_name(
        name: &UnixName,
        port: u16,
        permissions: UnixPermissions,
        options: &ListenOptions,
    ) -> Result<Self, ListenError> {
        let failed = |step| {
            let name = name.to_string();
            move |source| ListenError::Os { name, step, source }
        };
        if let Some(path) = name.file() {
            make_room(name, path, port)?;
        }
        let address = SockAddr::unix(name.as_path()).map_err(failed("bind"))?;
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("socket"))?;
        socket
            .bind(&address)
            .map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => ListenError::UnixInUse { name: name.clone() },
                _ => failed("bind")(source),
            })?;
        // Permissions come before listen(): until then nobody can connect.
        let mut file = None;
        if let Some(path) = name.file() {
            let made = SocketFile::of(path).map_err(failed("lstat"))?;
            made.permit(permissions)
                .map_err(|(step, source)| failed(step)(source))?;
            file = Some(made);
        }
        socket.listen(backlog(options)).map_err(failed("listen"))?;
        let mut listener = Self::adopt(socket, port).map_err(failed("listen"))?;
        listener.file = file;
        Ok(listener)
    }

    /// Takes over a listening socket from a service manager or from another process. `unix_port`
    /// is the number to show for a Unix socket.
    ///
    /// A Unix socket's file is not removed by [`Listener::remove_file`], because whoever made it may want
    /// it again; see [`Listener::own_file`].
    pub fn from_fd(fd: OwnedFd, unix_port: u16, tcp: &TcpOptions) -> Result<Self, ListenError> {
        let socket = Socket::from(fd);
        let name = socket
            .local_addr()
            .map(|addr| socket_name(&addr))
            .unwrap_or_default();
        let failed = |step| move |source| ListenError::Os { name, step, source };
        match socket.is_listener() {
            Ok(true) => {}
            Ok(false) => {
                let source = io::Error::new(io::ErrorKind::InvalidInput, "not a listening socket");
                return Err(failed("from_fd")(source));
            }
            Err(source) => return Err(failed("from_fd")(source)),
        }
        let listener = Self::adopt(socket, unix_port).map_err(failed("from_fd"))?;
        listener.set_tcp_options(tcp)?;
        Ok(listener)
    }

    fn adopt(socket: Socket, unix_port: u16) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let name = socket_name(&address);
        let address = address.as_socket();
        Ok(Self {
            socket: watch(socket)?,
            is_unix: address.is_none(),
            name,
            end: Arc::new(End {
                local: address.filter(|address| !address.ip().is_unspecified()),
                port: address.map_or(unix_port, |address| address.port()),
            }),
            file: None,
        })
    }

    /// Waits for the next connection. Dropping the future loses none; of several callers only the last is woken.
    ///
    /// An error is about this process, most often too many open files, not about one client:
    /// the caller should pause before the next try, because the connection is still waiting.
    pub async fn accept(&self) -> io::Result<Accepted> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        loop {
            let mut readable = ready!(self.socket.poll_read_ready(cx))?;
            match readable.try_io(|socket| Accepted::from(socket, &self.end)) {
                Ok(Err(error)) if is_about_one_client(&error) => {}
                Ok(accepted) => {
                    // An accept in vain costs the kernel a file: many times this question.
                    if !is_anybody_there(&self.socket) {
                        readable.clear_ready();
                    }
                    return Poll::Ready(accepted);
                }
                // Another process was faster; the readiness has been cleared.
                Err(_) => {}
            }
        }
    }

    /// Changes what connections accepted from now on inherit. Nothing to do for a Unix socket.
    pub fn set_tcp_options(&self, options: &TcpOptions) -> Result<(), ListenError> {
        if self.is_unix {
            return Ok(());
        }
        options
            .apply(SockRef::from(&self.socket))
            .map_err(|(step, source)| ListenError::Os {
                name: self.name.clone(),
                step,
                source,
            })
    }

    /// Lets the kernel hold new connections back until their first bytes are there, or for about
    /// `time` (whole seconds); zero is not at all. A login then begins with something to read. Nothing to do
    /// for a Unix socket.
    pub fn set_defer_accept(&self, time: Duration) -> Result<(), ListenError> {
        if self.is_unix {
            return Ok(());
        }
        let seconds = usize::try_from(time.as_secs()).unwrap_or(usize::MAX);
        setsockopt(&self.socket, TcpDeferAccept, &seconds).map_err(|errno| ListenError::Os {
            name: self.name.clone(),
            step: "setsockopt/TCP_DEFER_ACCEPT",
            source: errno.into(),
        })
    }

    /// As the log names it: `127.0.0.1:6432`, `[::]:6432`, `unix:/tmp/.s.PGSQL.6432`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port, or the number in the Unix socket's name.
    pub fn port(&self) -> u16 {
        self.end.port
    }

    /// Whether this is a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.is_unix
    }

    /// Makes this listener responsible for its Unix socket's file after a takeover: the process
    /// that bound it is leaving.
    pub fn own_file(&mut self) {
        let address = self.socket.get_ref().local_addr().ok();
        let path = address.as_ref().and_then(SockAddr::as_pathname);
        self.file = path.and_then(|path| SocketFile::of(path).ok());
    }

    /// Removes the Unix socket's file, if it is still the one made here. Listening ends when this
    /// is dropped.
    pub fn remove_file(&self) {
        if let Some(file) = &self.file {
            file.remove();
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[expect(
    deprecated,
    reason = "its successor is unsafe, for types that may change their descriptor; a Socket keeps it"
)]
fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

fn backlog(options: &ListenOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

/// Whether a connection waits to be accepted. Where the kernel does not say, there may be one.
fn is_anybody_there(socket: &impl AsFd) -> bool {
    let mut sockets = [PollFd::new(socket, PollFlags::IN)];
    poll(&mut sockets, Some(&Timespec::default())) != Ok(0)
}

/// Errors of accept() that tell of one connection that broke before it was accepted.
fn is_about_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;
