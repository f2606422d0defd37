//! What came in through a listening socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::net::{RecvFlags, SocketFlags, acceptfrom_with, recv};
use tokio::net::{TcpStream, UnixStream};

use crate::address::Address;
use crate::stream::Stream;

/// A connection that has been accepted and that no reactor watches yet: it can be given to any thread for nothing.
#[derive(Debug)]
pub struct Accepted {
    socket: OwnedFd,
    /// The other end's address; `None` for a Unix socket.
    peer: Option<SocketAddr>,
    end: Arc<End>,
}

/// Our end of a listener's connections.
#[derive(Debug)]
pub(super) struct End {
    /// The address that all of them have; `None` where the listener's stands for several, and for a Unix socket.
    pub(super) local: Option<SocketAddr>,
    /// The port, or the number in the Unix socket's name.
    pub(super) port: u16,
}

/// A connection that the reactor watches.
#[derive(Debug)]
pub struct Opened {
    /// The connection.
    pub stream: Stream,
    /// The other end.
    pub peer: Address,
    /// Our end.
    pub local: Address,
}

impl Accepted {
    pub(super) fn from(listener: impl AsFd, end: &Arc<End>) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (socket, peer) = acceptfrom_with(listener, flags)?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        let end = Arc::clone(end);
        Ok(Self { socket, peer, end })
    }

    /// Reads what is there already, without waiting: how many bytes. After [`Listener::set_defer_accept`] that is
    /// most often what the client begins with, and the reactor need not be asked for it.
    ///
    /// Nothing, the end and an error are all 0: whoever reads next learns which of them it is.
    ///
    /// [`Listener::set_defer_accept`]: super::Listener::set_defer_accept
    pub fn read_now(&self, buf: &mut [u8]) -> usize {
        recv(&self.socket, buf, RecvFlags::empty()).map_or(0, |(_, len)| len)
    }

    /// Lets the reactor of the runtime that this is called in watch it.
    ///
    /// # Errors
    /// As the operating system says, such as that it watches too many already; the connection is closed.
    pub fn open(self) -> io::Result<Opened> {
        let End { local, port } = *self.end;
        let (stream, peer) = match self.peer {
            Some(peer) => {
                let tcp = TcpStream::from_std(self.socket.into())?;
                (Stream::Tcp(tcp), Address::Tcp(peer))
            }
            None => {
                let stream = Stream::Unix(UnixStream::from_std(self.socket.into())?);
                let peer = stream.peer_credentials();
                (stream, Address::Unix { peer, port })
            }
        };
        let local = match local {
            Some(local) => Address::Tcp(local),
            None => stream.local_address(port).unwrap_or(peer),
        };
        Ok(Opened {
            stream,
            peer,
            local,
        })
    }
}
