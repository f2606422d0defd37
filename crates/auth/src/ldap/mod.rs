//! Passwords that an LDAP server judges: how the configuration says it, and the messages for it.
//!
//! ```text
//! pattern:  bind as prefix + user + suffix with the client's password
//! search:   bind as the configured DN, search the user's entry, bind anew as that entry
//! ```
//!
//! [`LdapOptions`] are the words behind `ldap` in an HBA rule, or those of `auth_ldap_options`.
//! [`request`] writes and [`Reply::read`] reads the four operations of LDAP that this takes. What a
//! server sends is read without recursion and up to a limit, because on a plain connection anybody
//! in between can be that server.

mod ber;
mod conf;
mod filter;
mod options;
mod reply;
pub mod request;
#[cfg(test)]
mod tests;
mod url;

pub use ber::Malformed;
pub use conf::{LdapConf, Requirement};
pub use filter::BadFilter;
pub use options::{BadOptions, BadUser, LdapOptions, Search, Security, UserDn};
pub use reply::{Outcome, Reply};
pub use url::BadUrl;

/// Which entries below the base a search looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The base itself.
    Base = 0,
    /// Those directly below it.
    One = 1,
    /// The base and everything below it.
    Sub = 2,
    /// Everything below it.
    Children = 3,
}
