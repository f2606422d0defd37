//! What came in through a listening socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::net::{TcpStream, UnixStream};

use crate::address::Address;
use crate::stream::Stream;

/// A connection that has been accepted and that no reactor watches yet: it can be given to any thread for nothing.
#[derive(Debug)]
pub struct Accepted {
    socket: OwnedFd,
    /// The other end's address; `None` for a Unix socket.
    peer: Option<SocketAddr>,
    /// The listener's port, or the number in the Unix socket's name.
    port: u16,
}

impl Accepted {
    pub(super) fn from(listener: impl AsFd, port: u16) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, peer) = acceptfrom_with(listener, flags)?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        Ok(Self { socket, peer, port })
    }

    /// Lets the reactor of the runtime that this is called in watch it.
    ///
    /// # Errors
    /// As the operating system says, such as that it watches too many already; the connection is closed.
    pub fn open(self) -> io::Result<(Stream, Address)> {
        if let Some(peer) = self.peer {
            let tcp = TcpStream::from_std(self.socket.into())?;
            return Ok((Stream::Tcp(tcp), Address::Tcp(peer)));
        }
        let stream = Stream::Unix(UnixStream::from_std(self.socket.into())?);
        let peer = stream.peer_credentials();
        let port = self.port;
        Ok((stream, Address::Unix { peer, port }))
    }
}
