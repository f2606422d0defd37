//! What has a limit. The names in the docs are configuration keys.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// What a limit applies to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Scope {
    /// All clients: `max_client_conn`.
    Clients,
    /// Clients of a database: `max_db_client_connections`.
    DatabaseClients(Arc<str>),
    /// Clients of a user: `max_user_client_connections`.
    UserClients(Arc<str>),
    /// Clients of an application, as its application_name says: `max_app_client_connections`.
    AppClients(Arc<str>),
    /// Clients of one address: `max_address_client_connections`.
    AddressClients(IpAddr),
    /// Clients that are logging in: `max_logins`.
    Logins,
    /// Clients that wait for a server, in all pools: `max_waiting`.
    Waiting,
    /// Servers of one PostgreSQL, over all databases and users: `max_host_connections`.
    HostServers(Arc<str>),
    /// Servers of a database: `max_db_connections`.
    DatabaseServers(Arc<str>),
    /// Servers of a user: `max_user_connections`.
    UserServers(Arc<str>),
    /// Servers lent to an application: `max_app_connections`.
    AppServers(Arc<str>),
    /// Servers lent to clients of one address: `max_address_connections`.
    AddressServers(IpAddr),
    /// Servers of one PostgreSQL that are connecting or logging in: `max_host_logins`.
    HostLogins(Arc<str>),
    /// Connections that carry a CancelRequest, all of them together: `max_cancels`.
    Cancels,
}

impl Scope {
    /// The key that sets the limit.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Clients => "max_client_conn",
            Self::DatabaseClients(_) => "max_db_client_connections",
            Self::UserClients(_) => "max_user_client_connections",
            Self::AppClients(_) => "max_app_client_connections",
            Self::AddressClients(_) => "max_address_client_connections",
            Self::Logins => "max_logins",
            Self::Waiting => "max_waiting",
            Self::HostServers(_) => "max_host_connections",
            Self::DatabaseServers(_) => "max_db_connections",
            Self::UserServers(_) => "max_user_connections",
            Self::AppServers(_) => "max_app_connections",
            Self::AddressServers(_) => "max_address_connections",
            Self::HostLogins(_) => "max_host_logins",
            Self::Cancels => "max_cancels",
        }
    }

    /// Whose limit it is; `None` where there is only one.
    pub fn subject(&self) -> Option<String> {
        match self {
            Self::Clients | Self::Logins | Self::Waiting | Self::Cancels => None,
            Self::DatabaseClients(name)
            | Self::UserClients(name)
            | Self::AppClients(name)
            | Self::HostServers(name)
            | Self::DatabaseServers(name)
            | Self::UserServers(name)
            | Self::AppServers(name)
            | Self::HostLogins(name) => Some(name.to_string()),
            Self::AddressClients(address) | Self::AddressServers(address) => {
                Some(address.to_string())
            }
        }
    }

    /// The kind of those that share one limit: clients choose their applications' names and come
    /// from anywhere, so no limit can be set for each.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::AppClients(_) => Some(Kind::AppClients),
            Self::AddressClients(_) => Some(Kind::AddressClients),
            Self::AppServers(_) => Some(Kind::AppServers),
            Self::AddressServers(_) => Some(Kind::AddressServers),
            Self::Clients
            | Self::DatabaseClients(_)
            | Self::UserClients(_)
            | Self::Logins
            | Self::Waiting
            | Self::HostServers(_)
            | Self::DatabaseServers(_)
            | Self::UserServers(_)
            | Self::HostLogins(_)
            | Self::Cancels => None,
        }
    }

    /// Whether its limit is known again when somebody comes: by its kind, or because it is set at every login.
    /// Clients choose these names, so no gauge is kept for a name that nobody uses.
    pub(crate) fn is_forgotten_unused(&self) -> bool {
        self.kind().is_some() || matches!(self, Self::DatabaseClients(_) | Self::UserClients(_))
    }
}

/// Scopes of which each has the same limit. Their gauges end with their last use.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// [`Scope::AppClients`]
    AppClients,
    /// [`Scope::AddressClients`]
    AddressClients,
    /// [`Scope::AppServers`]
    AppServers,
    /// [`Scope::AddressServers`]
    AddressServers,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())?;
        match self.subject() {
            Some(subject) if subject.is_empty() => f.write_str(" of \"\""),
            Some(subject) => write!(f, " of {subject}"),
            None => Ok(()),
        }
    }
}
