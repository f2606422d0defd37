//! Who is at the other end of a socket, in the words of the log.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// One end of a connection.
///
/// Printed whole it is what follows the `@` in a log line: `127.0.0.1:5432`, `[::1]:5432`,
/// `unix(4711):6432` or, when the process is unknown, `unix:6432`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An Internet address.
    Tcp(SocketAddr),
    /// A process on this machine.
    Unix {
        /// Who the kernel says it is; `None` when the kernel does not say.
        peer: Option<PeerCredentials>,
        /// Unix sockets have no port; this is the number in the socket's file name.
        port: u16,
    },
}

/// The process at the other end of a Unix socket at the moment it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerCredentials {
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// Process id; `None` across process namespaces, where the kernel reports zero.
    pub pid: Option<u32>,
}

impl Address {
    /// The port, or the number in the Unix socket's name.
    pub fn port(&self) -> u16 {
        match self {
            Self::Tcp(addr) => addr.port(),
            Self::Unix { port, .. } => *port,
        }
    }

    /// The IP address; `None` for a Unix socket. An IPv4 address that a socket for both families gives as one of IPv6 is
    /// what it was.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(addr) => Some(addr.ip().to_canonical()),
            Self::Unix { .. } => None,
        }
    }

    /// Whether this is a Unix socket.
    pub fn is_unix(&self) -> bool {
        matches!(self, Self::Unix { .. })
    }

    /// The credentials of a Unix peer.
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix { peer, .. } => *peer,
        }
    }

    /// The address without its port, as the console's `addr` columns show it: `127.0.0.1`, `::1`,
    /// `unix`.
    pub fn host(&self) -> Host<'_> {
        Host(self)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix {
                peer: Some(PeerCredentials { pid: Some(pid), .. }),
                port,
            } => {
                write!(f, "unix({pid}):{port}")
            }
            Self::Unix { port, .. } => write!(f, "unix:{port}"),
        }
    }
}

/// Shows an [`Address`] without its port.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a>(&'a Address);

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Address::Tcp(addr) => write!(f, "{}", addr.ip()),
            Address::Unix { .. } => f.write_str("unix"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_client_of_a_socket_for_both_families_has_its_own_address() {
        let address = Address::Tcp("[::ffff:10.1.2.3]:5432".parse().unwrap());
        assert_eq!(address.ip(), "10.1.2.3".parse().ok());
    }

    #[test]
    fn prints_as_log_lines_and_columns_do() {
        let peer = |pid| {
            Some(PeerCredentials {
                uid: 1000,
                gid: 1000,
                pid,
            })
        };
        let cases = [
            (
                Address::Tcp("127.0.0.1:5432".parse().unwrap()),
                "127.0.0.1:5432",
                "127.0.0.1",
            ),
            (
                Address::Tcp("[::1]:5432".parse().unwrap()),
                "[::1]:5432",
                "::1",
            ),
            (
                Address::Unix {
                    peer: peer(Some(4711)),
                    port: 6432,
                },
                "unix(4711):6432",
                "unix",
            ),
            (
                Address::Unix {
                    peer: peer(None),
                    port: 6432,
                },
                "unix:6432",
                "unix",
            ),
            (
                Address::Unix {
                    peer: None,
                    port: 6432,
                },
                "unix:6432",
                "unix",
            ),
        ];
        for (address, whole, host) in cases {
            assert_eq!(address.to_string(), whole);
            assert_eq!(address.host().to_string(), host);
        }
    }
}
