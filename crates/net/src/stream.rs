//! One connection's bytes: TCP, Unix or TLS over TCP behind one type.
//!
//! Reads and writes go straight through: no buffer, no allocation, no system call of our own.
//! A write into TLS may leave encrypted bytes waiting inside, so whoever writes must also flush;
//! for TCP and Unix a flush costs nothing.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::net::{SendFlags, send};
use rustls::CommonState;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use crate::address::{Address, PeerCredentials};
use crate::connect::Target;
use crate::outbox::give_way;
use crate::pass_fd;
use crate::socket::{Reader, poll_recv, poll_send};
use crate::tls::{PeerCertificate, RecordSocket, TlsInfo};
use crate::unix_name::UnixName;

/// Between two tries to send a descriptor while too many are on their way.
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(5);

/// A connection to a client or to a server.
///
/// `AsyncWriteExt::shutdown` is the half-close: the peer reads end-of-file, we may still read.
#[derive(Debug)]
pub enum Stream {
    /// TCP without encryption.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP, after its handshake.
    Tls(Box<TlsSession>),
}

/// A TLS connection after its handshake.
#[derive(Debug)]
pub struct TlsSession {
    io: tokio_rustls::TlsStream<RecordSocket>,
    /// The channel binding of our own certificate, when we are the server; computed once per
    /// configuration.
    presented: Option<Arc<[u8]>>,
}

impl Stream {
    pub(crate) fn tls(
        io: impl Into<tokio_rustls::TlsStream<RecordSocket>>,
        presented: Option<Arc<[u8]>>,
    ) -> Self {
        Self::Tls(Box::new(TlsSession {
            io: io.into(),
            presented,
        }))
    }

    /// Takes over a connected socket that came from elsewhere, such as another process.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = socket2::Socket::from(fd);
        socket.set_nonblocking(true)?;
        if socket.local_addr()?.is_unix() {
            Ok(Self::Unix(UnixStream::from_std(socket.into())?))
        } else {
            Ok(Self::Tcp(TcpStream::from_std(socket.into())?))
        }
    }

    /// Gives the socket away, to hand it to another process. A TLS stream cannot move, because its
    /// keys live here: it comes back unchanged.
    pub fn into_fd(self) -> Result<io::Result<OwnedFd>, Self> {
        match self {
            Self::Tcp(tcp) => Ok(tcp.into_std().map(OwnedFd::from)),
            Self::Unix(unix) => Ok(unix.into_std().map(OwnedFd::from)),
            Self::Tls(_) => Err(self),
        }
    }

    /// Moves a plain socket to the reactor of the runtime that this is called in. A TLS stream stays where it is.
    ///
    /// # Errors
    /// As the operating system says; the connection is lost.
    pub(crate) fn move_here(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(tcp) => Self::Tcp(TcpStream::from_std(tcp.into_std()?)?),
            Self::Unix(unix) => Self::Unix(UnixStream::from_std(unix.into_std()?)?),
            Self::Tls(tls) => Self::Tls(tls),
        })
    }

    /// Reads from a connection that should be silent, without waiting.
    ///
    /// While nothing has happened on it this is `WouldBlock` without a system call, because the
    /// reactor has flagged no readiness: looking at an idle server before lending it out is free.
    /// `Ok(0)` is end-of-file; `Ok(n)` are bytes that nobody asked for.
    ///
    /// It must not be used while a task waits to read: that task would no longer be woken.
    pub fn try_read_idle(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.try_read(buf),
            Self::Unix(unix) => unix.try_read(buf),
            Self::Tls(tls) => {
                let mut cx = Context::from_waker(Waker::noop());
                let mut buf = ReadBuf::new(buf);
                match tls.poll_read(&mut cx, &mut buf) {
                    Poll::Ready(Ok(())) => Ok(buf.filled().len()),
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Reads once; no bytes are the end. As `poll_read`, but a plain socket does it at less cost.
    #[inline]
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut Reader,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => poll_recv(tcp, cx, reader, buf),
            Self::Unix(unix) => poll_recv(unix, cx, reader, buf),
            Self::Tls(tls) => {
                let mut buf = ReadBuf::new(buf);
                ready!(tls.poll_read(cx, &mut buf))?;
                Poll::Ready(Ok(buf.filled().len()))
            }
        }
    }

    /// Writes once. As `poll_write`, but a plain socket does it at less cost.
    #[inline]
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(tcp) => {
                give_way();
                poll_send(tcp, cx, buf)
            }
            Self::Unix(unix) => {
                give_way();
                poll_send(unix, cx, buf)
            }
            Self::Tls(tls) => Pin::new(&mut tls.io).poll_write(cx, buf),
        }
    }

    /// Sends what a plain socket takes without waiting, whatever the reactor knows of it: how many bytes. Of a new socket it
    /// knows nothing yet, and a write would wait for it to look.
    ///
    /// It is 0 with TLS, and where nothing can be sent: a write that follows says why.
    pub fn send_now(&mut self, bytes: &[u8]) -> usize {
        give_way();
        let sent = match self {
            Self::Tcp(tcp) => send(tcp, bytes, SendFlags::NOSIGNAL),
            Self::Unix(unix) => send(unix, bytes, SendFlags::NOSIGNAL),
            Self::Tls(_) => Ok(0),
        };
        sent.unwrap_or(0)
    }

    /// The other end. `port` is the number to show for a Unix socket.
    pub fn peer_address(&self, port: u16) -> io::Result<Address> {
        match self.tcp() {
            Some(tcp) => tcp.peer_addr().map(Address::Tcp),
            None => Ok(Address::Unix {
                peer: self.peer_credentials(),
                port,
            }),
        }
    }

    /// Our end. `port` is the number to show for a Unix socket.
    pub fn local_address(&self, port: u16) -> io::Result<Address> {
        match self.tcp() {
            Some(tcp) => tcp.local_addr().map(Address::Tcp),
            None => Ok(Address::Unix { peer: None, port }),
        }
    }

    /// Who the kernel says is at the other end; `None` for TCP.
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        let Self::Unix(unix) = self else { return None };
        let cred = unix.peer_cred().ok()?;
        let pid = cred
            .pid()
            .and_then(|pid| u32::try_from(pid).ok())
            .filter(|&pid| pid != 0);
        Some(PeerCredentials {
            uid: cred.uid(),
            gid: cred.gid(),
            pid,
        })
    }

    /// Where the other end listens, for a connection that was made to it.
    pub fn peer_target(&self) -> io::Result<Target> {
        match self.tcp() {
            Some(tcp) => tcp.peer_addr().map(Target::Tcp),
            None => SockRef::from(self)
                .peer_addr()
                .map(|address| Target::Unix(UnixName::of(&address))),
        }
    }

    /// Writes all of it with a descriptor on its first byte. What the kernel takes at once leaves in
    /// one message.
    ///
    /// # Errors
    /// As the operating system says; descriptors travel over Unix sockets only.
    pub async fn write_with_fd(&mut self, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
        let Self::Unix(unix) = self else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let send = || pass_fd::send(unix.as_fd(), bytes, fd);
        let sent = loop {
            match unix.async_io(Interest::WRITABLE, send).await {
                // The kernel holds so many descriptors on their way; the reader has to take some.
                Err(error) if is_too_many_in_flight(&error) => sleep(IN_FLIGHT_PAUSE).await,
                other => break other?,
            }
        };
        unix.write_all(&bytes[sent..]).await
    }

    /// Whether this is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix(_))
    }

    /// Whether an end is something to say, as it is in TLS. To close a plain socket is all there is to say.
    pub fn says_goodbye(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// What the TLS handshake agreed on; `None` without TLS.
    pub fn tls_info(&self) -> Option<TlsInfo> {
        Some(TlsInfo::of(self.tls_state()?))
    }

    /// The certificate that the peer showed in the TLS handshake.
    pub fn peer_certificate(&self) -> Option<PeerCertificate<'_>> {
        self.tls_state()?
            .peer_certificates()?
            .first()
            .map(PeerCertificate::new)
    }

    /// The `tls-server-end-point` channel binding (RFC 5929): a hash over the certificate of
    /// whichever side is the TLS server. `None` without TLS, and for certificates whose signature
    /// names no hash, such as Ed25519.
    pub fn server_end_point_binding(&self) -> Option<Vec<u8>> {
        let Self::Tls(session) = self else {
            return None;
        };
        match &session.io {
            tokio_rustls::TlsStream::Server(_) => session.presented.as_deref().map(<[u8]>::to_vec),
            tokio_rustls::TlsStream::Client(_) => self.peer_certificate()?.end_point_binding(),
        }
    }

    /// The socket under TLS.
    pub(crate) fn record_socket(&self) -> Option<&RecordSocket> {
        match self {
            Self::Tls(session) => Some(session.io.get_ref().0),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }

    /// Lets what TLS writes leave at the end of a round; see [`RecordSocket::post`].
    pub(crate) fn post(&mut self) {
        if let Self::Tls(session) = self {
            session.io.get_mut().0.post();
        }
    }

    /// Closes at once: what the kernel has not sent is discarded and a TCP peer sees a reset.
    pub fn abort(self) {
        if let Some(tcp) = self.tcp() {
            // A socket that is already gone is as closed as it can be.
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Tls(session) => Some(session.io.get_ref().0.tcp()),
            Self::Unix(_) => None,
        }
    }

    fn tls_state(&self) -> Option<&CommonState> {
        match self {
            Self::Tls(session) => Some(session.io.get_ref().1),
            Self::Tcp(_) | Self::Unix(_) => None,
        }
    }
}

fn is_too_many_in_flight(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::TOOMANYREFS.raw_os_error())
}

impl TlsSession {
    /// What comes now is wanted at once; see [`RecordSocket::settle`].
    pub(crate) fn settle(&mut self) {
        self.io.get_mut().0.settle();
    }

    /// A peer that closes its socket without the farewell of TLS is simply gone: most PostgreSQL
    /// clients leave like that, and the messages above have lengths, so nothing can be cut unseen.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.io).poll_read(cx, buf) {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(()))
            }
            other => other,
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buf),
            Self::Tls(tls) => tls.poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        give_way();
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Unix(unix) => Pin::new(unix).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(&mut tls.io).poll_write(cx, buf),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        give_way();
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(&mut tls.io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Unix(unix) => unix.is_write_vectored(),
            Self::Tls(tls) => tls.io.is_write_vectored(),
        }
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(tls) => Pin::new(&mut tls.io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(&mut tls.io).poll_shutdown(cx),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
            Self::Tls(tls) => tls.io.get_ref().0.tcp().as_fd(),
        }
    }
}

#[cfg(test)]
mod tests;
