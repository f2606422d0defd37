//! A connection of an application from its first byte to its farewell. The way of its queries is in `relay`.

pub(crate) mod accept;
pub(crate) mod cancel;
pub(crate) mod client;
pub(crate) mod conversation;
pub(crate) mod credentials;
pub(crate) mod farewell;
pub(crate) mod ldap;
pub(crate) mod login;
pub(crate) mod lot;
pub(crate) mod options;
#[cfg_attr(not(feature = "pam"), path = "pam_not_built.rs")]
pub(crate) mod pam;
pub(crate) mod peers;
pub(crate) mod pids;
pub(crate) mod seats;
pub(crate) mod serve;
pub(crate) mod underway;
pub(crate) mod welcome;
