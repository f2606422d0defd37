//! Bytes and sockets: streams, TLS, listening, connecting, names.
//!
//! This crate knows no PostgreSQL message. It turns addresses into [`Stream`]s and streams into TLS
//! streams, and says in its errors what failed and where. It sets no deadlines: whoever awaits one of its futures wraps it
//! in a timeout, and dropping a future is always safe. Its two short timers end no wait: they try again.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod address;
pub mod buffer;
mod bulk;
mod connect;
mod dns;
mod listen;
mod options;
mod outbox;
mod pass_fd;
mod socket;
mod stream;
pub mod tls;
mod unix_file;
mod unix_name;

pub use address::{Address, PeerCredentials};
pub use buffer::{Buffered, Input};
pub use connect::{ConnectError, Target, connect};
pub use dns::{CachedName, DnsError, DnsTtl, Resolver, ZoneChange, ZoneRow};
pub use listen::{Accepted, ListenError, ListenOptions, Listener, Opened, resolve_listen_address};
pub use options::{TcpKeepalive, TcpOptions};
pub use outbox::{collect_sends, end_of_round};
pub use pass_fd::receive_with_fds;
pub use stream::{Stream, TlsSession};
pub use unix_file::{UnixPermissions, group_id};
pub use unix_name::UnixName;

/// The operating system's words for an error, without the number that `io::Error` adds to them.
///
/// Log lines are matched by people's monitoring, and they know `Connection refused`.
pub fn os_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
