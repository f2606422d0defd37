//! Opens one connection to one place.
//!
//! There is no timeout here and no choice between addresses: both are the caller's.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::{TcpSocket, UnixStream};

use crate::options::TcpOptions;
use crate::os_text;
use crate::stream::Stream;
use crate::unix_name::UnixName;

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An Internet address and port.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixName),
}

/// A connection that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {target}: {step}: {}", os_text(.source))]
pub struct ConnectError {
    /// Where to.
    pub target: Target,
    /// The call that failed, such as `connect` or `setsockopt/SO_SNDBUF`.
    pub step: &'static str,
    /// What the operating system said.
    pub source: io::Error,
}

/// Connects. The options are set before the handshake, so that buffer sizes count in it.
pub async fn connect(target: &Target, options: &TcpOptions) -> Result<Stream, ConnectError> {
    let result = match target {
        Target::Tcp(addr) => connect_tcp(*addr, options).await,
        Target::Unix(name) => connect_unix(name).await,
    };
    result.map_err(|(step, source)| ConnectError {
        target: target.clone(),
        step,
        source,
    })
}

async fn connect_tcp(
    addr: SocketAddr,
    options: &TcpOptions,
) -> Result<Stream, (&'static str, io::Error)> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)
        .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
        .map_err(|error| ("socket", error))?;
    options.apply(SockRef::from(&socket))?;
    let tcp = TcpSocket::from_std_stream(socket.into())
        .connect(addr)
        .await
        .map_err(|error| ("connect", error))?;
    Ok(Stream::Tcp(tcp))
}

/// Between two tries to enter the queue of a Unix listener that is full.
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// A Unix listener whose queue is full refuses with EAGAIN instead of letting the caller wait, so
/// the waiting is done here, until the caller's own deadline ends it.
async fn connect_unix(name: &UnixName) -> Result<Stream, (&'static str, io::Error)> {
    loop {
        match UnixStream::connect(name.as_path()).await {
            Ok(unix) => return Ok(Stream::Unix(unix)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(FULL_QUEUE_PAUSE).await;
            }
            Err(error) => return Err(("connect", error)),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => write!(f, "{addr}"),
            Self::Unix(name) => write!(f, "{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::options::TcpKeepalive;

    #[tokio::test]
    async fn sets_the_options_before_connecting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::Tcp(listener.local_addr().unwrap());
        let options = TcpOptions {
            keepalive: Some(TcpKeepalive {
                idle: Some(Duration::from_secs(11)),
                interval: Some(Duration::from_secs(7)),
                count: Some(3),
            }),
            user_timeout: Some(Duration::from_millis(1500)),
            socket_buffer: 65536,
        };
        let Stream::Tcp(tcp) = connect(&target, &options).await.unwrap() else {
            panic!("not TCP");
        };
        let socket = SockRef::from(&tcp);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(11)
        );
        assert_eq!(
            socket.tcp_keepalive_interval().unwrap(),
            Duration::from_secs(7)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(
            socket.tcp_user_timeout().unwrap(),
            Some(Duration::from_millis(1500))
        );
        // Linux reports twice what was asked for.
        assert!(socket.send_buffer_size().unwrap() >= 65536);
    }

    #[tokio::test]
    async fn says_what_was_refused() {
        let addr = {
            let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let error = connect(&Target::Tcp(addr), &TcpOptions::default())
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("cannot connect to {addr}: connect: Connection refused")
        );

        let dir = tempfile::tempdir().unwrap();
        let name = UnixName::in_dir(dir.path().to_str().unwrap(), 1);
        let error = connect(&Target::Unix(name), &TcpOptions::default())
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("connect: No such file or directory"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn waits_for_room_in_the_queue_of_a_unix_listener() {
        let dir = tempfile::tempdir().unwrap();
        let name = UnixName::in_dir(dir.path().to_str().unwrap(), 1);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket
            .bind(&socket2::SockAddr::unix(name.as_path()).unwrap())
            .unwrap();
        socket.listen(0).unwrap();
        let target = Target::Unix(name);
        let options = TcpOptions::default();
        let _first = connect(&target, &options).await.unwrap();
        let second = connect(&target, &options);
        tokio::pin!(second);
        assert!(
            tokio::time::timeout(Duration::from_millis(30), &mut second)
                .await
                .is_err()
        );
        let _accepted = socket.accept().unwrap();
        second.await.unwrap();
    }
}
