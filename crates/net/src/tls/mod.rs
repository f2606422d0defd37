//! TLS towards clients and towards servers.

mod certificate;
mod info;

pub use certificate::PeerCertificate;
pub use info::TlsInfo;
