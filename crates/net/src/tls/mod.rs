//! TLS towards clients and towards servers.
//!
//! [`Acceptor`] answers clients, [`Connector`] calls servers. Both are made from settings that name
//! files' contents, never change afterwards and are cheap to clone: a new configuration is a new
//! value, and two are equal when everything that went into them is equal.
//!
//! There is one crypto provider, passed by hand, and no process-wide default. What it cannot do is
//! accepted in the configuration and answered with a warning: TLS 1.0 and 1.1, static RSA and DHE
//! key exchange, OpenSSL's cipher words. Certificates signed with SHA-1 are refused.
//!
//! Revocation is not checked: there is no setting that names a revocation list.

mod certificate;
mod chain;
mod client;
mod error;
mod info;
mod name;
mod parameters;
mod pem;
mod records;
mod server;
mod verify;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use certificate::PeerCertificate;
pub use client::{ClientSide, Connector, SslMode};
pub use error::{HandshakeError, TlsError};
pub use info::TlsInfo;
pub use parameters::Parameters;
pub use pem::Pem;
pub(crate) use records::RecordSocket;
pub use server::{Acceptor, ClientCertificate, Hello, ServerSide};

/// The protocol name that PostgreSQL's clients and servers agree on inside the handshake.
const ALPN: &[u8] = b"postgresql";
