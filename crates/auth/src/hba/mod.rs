//! Host-based authentication: which connection is asked for what.
//!
//! PgBouncer's dialect of `pg_hba.conf`. The first rule that fits a connection decides; without
//! one there is no way in. A bad line is reported and skipped, the others count.

mod parse;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

pub use self::parse::{Problem, ProblemKind};
use crate::ident::IdentMap;
use crate::ldap::{BadOptions, LdapOptions};

/// The rules of an HBA file, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hba {
    /// The rules.
    pub rules: Vec<Rule>,
}

/// What a rule is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection<'a> {
    /// The database that the client asks for.
    pub database: &'a str,
    /// The user that the client wants to be.
    pub user: &'a str,
    /// Whether it is for *physical* replication: that has no database, and only rules for the
    /// database `replication` apply. Logical replication is like any other connection.
    pub replication: bool,
    /// Whether TLS is in use.
    pub tls: bool,
    /// Where it comes from; none is the Unix socket.
    pub address: Option<IpAddr>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where it stands, counted from 1.
    pub line: usize,
    /// The connections it is for.
    pub origin: Origin,
    /// The databases it is for.
    pub databases: Names,
    /// The users it is for.
    pub users: Names,
    /// What they are asked for.
    pub method: Method,
}

/// From where a connection comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `local`: the Unix socket.
    Local,
    /// `host`, `hostssl` or `hostnossl`: from these addresses.
    Host(Tls, Addresses),
}

/// What a rule says about TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// `host`: with or without.
    Any,
    /// `hostssl`: only with.
    Only,
    /// `hostnossl`: only without.
    Never,
}

/// A set of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// `all`, of both families.
    All,
    /// Those that equal `base` where `mask` has ones. The ones need not stand together.
    V4 {
        /// Has no ones outside the mask.
        base: Ipv4Addr,
        /// Which bits count.
        mask: Ipv4Addr,
    },
    /// The same for IPv6.
    V6 {
        /// Has no ones outside the mask.
        base: Ipv6Addr,
        /// Which bits count.
        mask: Ipv6Addr,
    },
}

/// A list of databases or users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// `all`.
    all: bool,
    /// `sameuser`: user and database have the same name.
    same: bool,
    /// `replication`, which `all` does not include.
    replication: bool,
    names: HashSet<String>,
}

/// What a client is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// Nothing.
    Trust,
    /// It is turned away.
    Reject,
    /// md5, or SCRAM for users with a SCRAM secret.
    Md5,
    /// `password` or `plain`: the password in clear text.
    Password,
    /// SCRAM-SHA-256.
    ScramSha256,
    /// To be the operating system user of that name, or one that the map allows.
    Peer(Option<Arc<IdentMap>>),
    /// A certificate of that name, or one that the map allows.
    Cert(Option<Arc<IdentMap>>),
    /// What an LDAP server thinks of its password. Options that make no sense are reported, and
    /// keep everybody out whom the rule is for: the next rule was not meant for them.
    Ldap(Result<Arc<LdapOptions>, BadOptions>),
    /// What PAM thinks of its password.
    Pam,
}

impl Hba {
    /// The rule that decides about this connection.
    pub fn rule_for(&self, connection: &Connection<'_>) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.fits(connection))
    }

    /// Whether anybody may get in who comes as this connection does, whichever user he turns out to be.
    pub fn admits_somebody(&self, connection: &Connection<'_>) -> bool {
        let mut rules = self.rules.iter();
        let first = rules.find(|rule| match rule.method {
            Method::Reject => rule.fits_all_users(connection),
            _ => rule.fits_some_user(connection),
        });
        first.is_some_and(|rule| rule.method != Method::Reject)
    }
}

impl Rule {
    fn fits(&self, connection: &Connection<'_>) -> bool {
        let Connection {
            database,
            user,
            replication,
            tls,
            address,
        } = *connection;
        let database_fits = if replication {
            self.databases.replication
        } else {
            self.databases.contain(database, user)
        };
        self.origin.fits(tls, address) && database_fits && self.users.contain(user, database)
    }

    /// Whether it fits, but for the user.
    fn fits_some_user(&self, connection: &Connection<'_>) -> bool {
        let databases = &self.databases;
        let database_fits = match connection.replication {
            true => databases.replication,
            false => databases.same || databases.contain_of_all(connection.database),
        };
        self.origin.fits(connection.tls, connection.address) && database_fits
    }

    /// Whether it fits, whoever the user is.
    fn fits_all_users(&self, connection: &Connection<'_>) -> bool {
        let is_apart = connection.replication || self.databases.contain_of_all(connection.database);
        self.users.all && is_apart && self.fits_some_user(connection)
    }
}

impl Origin {
    fn fits(self, tls: bool, address: Option<IpAddr>) -> bool {
        match (self, address) {
            (Self::Local, None) => true,
            (Self::Local, Some(_)) | (Self::Host(..), None) => false,
            (Self::Host(wanted, addresses), Some(address)) => {
                wanted.fits(tls) && addresses.contain(address)
            }
        }
    }
}

impl Tls {
    fn fits(self, tls: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Only => tls,
            Self::Never => !tls,
        }
    }
}

impl Addresses {
    fn contain(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::All, IpAddr::V4(_) | IpAddr::V6(_)) => true,
            (Self::V4 { base, mask }, IpAddr::V4(address)) => address & mask == base,
            (Self::V6 { base, mask }, IpAddr::V6(address)) => address & mask == base,
            (Self::V4 { .. }, IpAddr::V6(_)) | (Self::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }
}

impl Names {
    /// `other` is the user where this is about databases, and the other way round.
    fn contain(&self, name: &str, other: &str) -> bool {
        self.contain_of_all(name) || (self.same && name == other)
    }

    /// The same, whatever the other is.
    fn contain_of_all(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }
}
