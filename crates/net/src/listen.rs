//! Sockets that clients connect to.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::SetUsize};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::address::Address;
use crate::options::TcpOptions;
use crate::os_text;
use crate::stream::Stream;
use crate::unix_file::{SocketFile, UnixPermissions, make_room};
use crate::unix_name::UnixName;

/// A socket that clients connect to.
///
/// Dropping it closes it at once: the kernel refuses new connections and those that nobody has
/// accepted yet. The file of a Unix socket stays until [`Listener::remove_file`], because a listener may
/// live on in another process.
#[derive(Debug)]
pub struct Listener {
    socket: ListenSocket,
    /// As the log names it, such as `127.0.0.1:6432`.
    name: String,
    /// The port, or the number in the Unix socket's name.
    port: u16,
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

#[derive(Debug)]
enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

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

/// A socket that could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The operating system refused.
    #[error("cannot listen on {name}: {step}(): {}", os_text(.source))]
    Os {
        /// The socket.
        name: String,
        /// The call that failed.
        step: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// A living process accepts connections on this Unix socket.
    #[error("unix socket is in use, cannot continue ({name})")]
    UnixInUse {
        /// The socket.
        name: UnixName,
    },
    /// PostgreSQL's lock file says that a server owns this Unix socket.
    #[error("unix port {port} is in use (lock file {} exists)", .lock_file.display())]
    UnixLocked {
        /// The port in the socket's name.
        port: u16,
        /// The lock file.
        lock_file: PathBuf,
    },
    /// Something that is not a socket has the socket's name; it is not ours to remove.
    #[error("cannot listen on {name}: the file exists and is not a socket")]
    NotASocket {
        /// The socket.
        name: UnixName,
    },
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
        let (socket, port) = match address.as_socket() {
            Some(addr) => (
                ListenSocket::Tcp(TcpListener::from_std(socket.into())?),
                addr.port(),
            ),
            None => (
                ListenSocket::Unix(UnixListener::from_std(socket.into())?),
                unix_port,
            ),
        };
        Ok(Self {
            socket,
            name,
            port,
            file: None,
        })
    }

    /// Waits for the next connection. Dropping the future loses none.
    ///
    /// An error is about this process, most often too many open files, not about one client:
    /// the caller should pause before the next try, because the connection is still waiting.
    pub async fn accept(&self) -> io::Result<(Stream, Address)> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// [`Listener::accept`] as a poll function. Only the last caller is woken.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Address)>> {
        loop {
            let accepted = match &self.socket {
                ListenSocket::Tcp(listener) => ready!(listener.poll_accept(cx))
                    .map(|(tcp, addr)| (Stream::Tcp(tcp), Address::Tcp(addr))),
                ListenSocket::Unix(listener) => {
                    ready!(listener.poll_accept(cx)).map(|(unix, _)| {
                        let stream = Stream::Unix(unix);
                        let peer = stream.peer_credentials();
                        (
                            stream,
                            Address::Unix {
                                peer,
                                port: self.port,
                            },
                        )
                    })
                }
            };
            match accepted {
                Err(error) if is_about_one_client(&error) => continue,
                other => return Poll::Ready(other),
            }
        }
    }

    /// Changes what connections accepted from now on inherit. Nothing to do for a Unix socket.
    pub fn set_tcp_options(&self, options: &TcpOptions) -> Result<(), ListenError> {
        match &self.socket {
            ListenSocket::Tcp(listener) => {
                options
                    .apply(SockRef::from(listener))
                    .map_err(|(step, source)| ListenError::Os {
                        name: self.name.clone(),
                        step,
                        source,
                    })
            }
            ListenSocket::Unix(_) => Ok(()),
        }
    }

    /// Lets the kernel hold new connections back until their first bytes are there, or for about
    /// `time` (whole seconds); zero is not at all. A login then begins with something to read. Nothing to do
    /// for a Unix socket.
    pub fn set_defer_accept(&self, time: Duration) -> Result<(), ListenError> {
        let ListenSocket::Tcp(listener) = &self.socket else {
            return Ok(());
        };
        let seconds = usize::try_from(time.as_secs()).unwrap_or(usize::MAX);
        setsockopt(listener, TcpDeferAccept, &seconds).map_err(|errno| ListenError::Os {
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
        self.port
    }

    /// Whether this is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self.socket, ListenSocket::Unix(_))
    }

    /// Makes this listener responsible for its Unix socket's file after a takeover: the process
    /// that bound it is leaving.
    pub fn own_file(&mut self) {
        if let ListenSocket::Unix(listener) = &self.socket {
            let address = listener.local_addr().ok();
            let path = address.as_ref().and_then(|address| address.as_pathname());
            self.file = path.and_then(|path| SocketFile::of(path).ok());
        }
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
        match &self.socket {
            ListenSocket::Tcp(listener) => listener.as_fd(),
            ListenSocket::Unix(listener) => listener.as_fd(),
        }
    }
}

/// The addresses behind one word of a listen list: `*` is every address of both families, and a
/// name may stand for several. Names are looked up in place, so this is for program start.
pub fn resolve_listen_address(word: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if word == "*" {
        let any4 = SocketAddr::from(([0, 0, 0, 0], port));
        let any6 = SocketAddr::from(([0; 8], port));
        // A kernel without IPv6 refuses to make such a socket at all.
        let has_ipv6 = Socket::new(Domain::IPV6, Type::STREAM, None).is_ok();
        return Ok(if has_ipv6 {
            vec![any4, any6]
        } else {
            vec![any4]
        });
    }
    let mut found = Vec::new();
    for addr in (word, port).to_socket_addrs()? {
        if !found.contains(&addr) {
            found.push(addr);
        }
    }
    Ok(found)
}

fn backlog(options: &ListenOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
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

fn socket_name(address: &SockAddr) -> String {
    if let Some(addr) = address.as_socket() {
        return addr.to_string();
    }
    if let Some(path) = address.as_pathname() {
        return format!("unix:{}", path.display());
    }
    match address.as_abstract_namespace() {
        Some(name) => format!("unix:@{}", String::from_utf8_lossy(name)),
        None => "unix".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::connect::{Target, connect};

    const PERMISSIONS: UnixPermissions = UnixPermissions {
        mode: 0o777,
        group: None,
    };

    fn options() -> ListenOptions {
        ListenOptions {
            backlog: 16,
            reuse_port: false,
            tcp: TcpOptions::default(),
        }
    }

    fn local_tcp() -> Listener {
        Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), &options()).unwrap()
    }

    async fn reach(target: &Target) -> Stream {
        connect(target, &TcpOptions::default()).await.unwrap()
    }

    fn tcp_target(listener: &Listener) -> Target {
        Target::Tcp(listener.name().parse().unwrap())
    }

    #[tokio::test]
    async fn accepts_over_tcp_with_inherited_options() {
        let mut options = options();
        options.tcp.user_timeout = Some(Duration::from_secs(9));
        let listener = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        let client = reach(&tcp_target(&listener)).await;
        let (server, address) = listener.accept().await.unwrap();
        assert_eq!(address, client.local_address(0).unwrap());
        let fd = server.as_fd();
        let socket = SockRef::from(&fd);
        assert!(socket.tcp_nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_secs(9))
        );
    }

    #[tokio::test]
    async fn accepts_over_unix_and_removes_its_file_when_closed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let permissions = UnixPermissions {
            mode: 0o700,
            group: None,
        };
        let listener = Listener::bind_unix(dir, 6432, permissions, &options()).unwrap();
        let name = UnixName::in_dir(dir, 6432);
        assert_eq!(listener.name(), name.to_string());
        let path = name.file().unwrap().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);

        let _client = reach(&Target::Unix(name)).await;
        let (_server, address) = listener.accept().await.unwrap();
        assert_eq!(
            address.to_string(),
            format!("unix({}):6432", std::process::id())
        );
        listener.remove_file();
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn accepts_in_the_abstract_namespace() {
        let dir = format!("@pgweir-test-{}", std::process::id());
        let listener = Listener::bind_unix(&dir, 7, PERMISSIONS, &options()).unwrap();
        assert_eq!(listener.name(), format!("unix:{dir}/.s.PGSQL.7"));
        let mut client = reach(&Target::Unix(UnixName::in_dir(&dir, 7))).await;
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert_eq!(server.read_u8().await.unwrap(), b'x');
        let error = Listener::bind_unix(&dir, 7, PERMISSIONS, &options()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unix socket is in use, cannot continue")
        );
    }

    #[tokio::test]
    async fn replaces_a_stale_unix_socket_but_not_a_living_one() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        let first = Listener::bind_unix(dir, 1, PERMISSIONS, &options()).unwrap();
        let error = Listener::bind_unix(dir, 1, PERMISSIONS, &options()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unix socket is in use, cannot continue")
        );

        drop(first);
        let second = Listener::bind_unix(dir, 1, PERMISSIONS, &options()).unwrap();
        let _client = reach(&Target::Unix(UnixName::in_dir(dir, 1))).await;
        second.accept().await.unwrap();
    }

    #[tokio::test]
    async fn leaves_foreign_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().to_str().unwrap();
        fs::write(dir.path().join(".s.PGSQL.1"), "notes").unwrap();
        let error = Listener::bind_unix(text, 1, PERMISSIONS, &options()).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("the file exists and is not a socket"),
            "{error}"
        );

        fs::write(dir.path().join(".s.PGSQL.2.lock"), "1").unwrap();
        let error = Listener::bind_unix(text, 2, PERMISSIONS, &options()).unwrap_err();
        assert!(
            error.to_string().starts_with("unix port 2 is in use"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_closed_listener_leaves_the_file_of_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let text = dir.path().to_str().unwrap();
        let old = Listener::bind_unix(text, 1, PERMISSIONS, &options()).unwrap();
        let path = dir.path().join(".s.PGSQL.1");
        fs::rename(&path, dir.path().join("aside")).unwrap();
        let _new = Listener::bind_unix(text, 1, PERMISSIONS, &options()).unwrap();
        old.remove_file();
        assert!(path.exists());
    }

    #[tokio::test]
    async fn names_the_address_that_is_taken() {
        let first = local_tcp();
        let addr = first.name().parse().unwrap();
        let error = Listener::bind_tcp(addr, &options()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot listen on {addr}: bind(): Address already in use")
        );
    }

    #[tokio::test]
    async fn two_can_share_a_port_only_when_asked_to() {
        let shared = ListenOptions {
            reuse_port: true,
            ..options()
        };
        let first = Listener::bind_tcp("127.0.0.1:0".parse().unwrap(), &shared).unwrap();
        let addr = first.name().parse().unwrap();
        Listener::bind_tcp(addr, &shared).unwrap();
        Listener::bind_tcp(addr, &options()).unwrap_err();
    }

    #[tokio::test]
    async fn dropping_refuses_newcomers_and_those_in_the_queue() {
        let listener = local_tcp();
        let target = tcp_target(&listener);
        let mut queued = reach(&target).await;
        drop(listener);
        assert!(matches!(queued.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        connect(&target, &TcpOptions::default()).await.unwrap_err();
    }

    #[tokio::test]
    async fn adopts_a_listening_socket_and_nothing_else() {
        let listener = local_tcp();
        let target = tcp_target(&listener);
        let fd = listener.as_fd().try_clone_to_owned().unwrap();
        drop(listener);
        let adopted = Listener::from_fd(fd, 0, &TcpOptions::default()).unwrap();
        let client = reach(&target).await;
        adopted.accept().await.unwrap();

        let fd = client.as_fd().try_clone_to_owned().unwrap();
        let error = Listener::from_fd(fd, 0, &TcpOptions::default()).unwrap_err();
        assert!(
            error.to_string().ends_with("not a listening socket"),
            "{error}"
        );
    }

    #[test]
    fn a_star_is_every_address() {
        let all = resolve_listen_address("*", 6432).unwrap();
        assert_eq!(all.first(), Some(&"0.0.0.0:6432".parse().unwrap()));
        let one = resolve_listen_address("127.0.0.1", 6432).unwrap();
        assert_eq!(one, ["127.0.0.1:6432".parse().unwrap()]);
        let six = resolve_listen_address("::1", 6432).unwrap();
        assert_eq!(six, ["[::1]:6432".parse().unwrap()]);
    }
}
