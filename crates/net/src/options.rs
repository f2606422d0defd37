//! Socket options of TCP connections, the same for both sides.

use std::io;
use std::time::Duration;

use socket2::SockRef;

/// What is set on every TCP socket. Zero and `None` mean the kernel's own value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOptions {
    /// Probe silent peers; `None` turns probing off.
    pub keepalive: Option<TcpKeepalive>,
    /// How long sent data may stay unacknowledged before the connection is given up.
    pub user_timeout: Option<Duration>,
    /// Size in bytes of the kernel's send buffer and of its receive buffer.
    pub socket_buffer: usize,
}

/// When to probe and when to give up; `None` is the kernel's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpKeepalive {
    /// Silence before the first probe.
    pub idle: Option<Duration>,
    /// Time between probes.
    pub interval: Option<Duration>,
    /// Unanswered probes until the peer counts as gone.
    pub count: Option<u32>,
}

impl Default for TcpOptions {
    fn default() -> Self {
        Self {
            keepalive: Some(TcpKeepalive::default()),
            user_timeout: None,
            socket_buffer: 0,
        }
    }
}

impl TcpOptions {
    /// Sets the options on a socket, and TCP_NODELAY always: what is written here is complete
    /// messages, there is nothing to wait for.
    ///
    /// On a listening socket they are inherited by every connection it accepts, so an accept needs
    /// no call of its own. The buffer size must be known before the connection is made, because the
    /// window's scale is agreed in the handshake.
    ///
    /// The error names the option that the kernel refused.
    pub(crate) fn apply(&self, socket: SockRef<'_>) -> Result<(), (&'static str, io::Error)> {
        let named = |option: &'static str| move |error| (option, error);
        match self.keepalive {
            Some(keepalive) => {
                let mut params = socket2::TcpKeepalive::new();
                if let Some(idle) = keepalive.idle {
                    params = params.with_time(idle);
                }
                if let Some(interval) = keepalive.interval {
                    params = params.with_interval(interval);
                }
                if let Some(count) = keepalive.count {
                    params = params.with_retries(count);
                }
                socket
                    .set_tcp_keepalive(&params)
                    .map_err(named("setsockopt/SO_KEEPALIVE"))?;
            }
            None => socket
                .set_keepalive(false)
                .map_err(named("setsockopt/SO_KEEPALIVE"))?,
        }
        // Set even to nothing, as a listener may have had another value before.
        socket
            .set_tcp_user_timeout(self.user_timeout)
            .map_err(named("setsockopt/TCP_USER_TIMEOUT"))?;
        if self.socket_buffer > 0 {
            socket
                .set_send_buffer_size(self.socket_buffer)
                .map_err(named("setsockopt/SO_SNDBUF"))?;
            socket
                .set_recv_buffer_size(self.socket_buffer)
                .map_err(named("setsockopt/SO_RCVBUF"))?;
        }
        socket
            .set_tcp_nodelay(true)
            .map_err(named("setsockopt/TCP_NODELAY"))
    }
}
