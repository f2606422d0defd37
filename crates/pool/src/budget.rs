//! Every count limit, in one place.
//!
//! A [`Scope`] is something that has a limit; its gauge counts who uses it now. Taking and giving
//! back are the only ways to change a count. The names in the docs are PgBouncer's keys.

use std::collections::HashMap;
use std::fmt;
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
    /// Servers of a database: `max_db_connections`.
    DatabaseServers(Arc<str>),
    /// Servers of a user: `max_user_connections`.
    UserServers(Arc<str>),
    /// Connections that carry a CancelRequest, all of them together.
    Cancels,
}

impl Scope {
    /// The key that sets the limit.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Clients => "max_client_conn",
            Self::DatabaseClients(_) => "max_db_client_connections",
            Self::UserClients(_) => "max_user_client_connections",
            Self::DatabaseServers(_) => "max_db_connections",
            Self::UserServers(_) => "max_user_connections",
            Self::Cancels => "cancel connections",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())?;
        match self {
            Self::Clients | Self::Cancels => Ok(()),
            Self::DatabaseClients(name)
            | Self::UserClients(name)
            | Self::DatabaseServers(name)
            | Self::UserServers(name) => write!(f, " of {name}"),
        }
    }
}

/// A limit and its use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Gauge {
    /// How many there are now.
    pub used: u32,
    /// The most there have been.
    pub peak: u32,
    /// How many there may be; `None` is no limit.
    pub limit: Option<u32>,
}

impl Gauge {
    fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.used > limit)
    }

    fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.used >= limit)
    }
}

/// All gauges.
#[derive(Debug, Default)]
pub struct Budget {
    gauges: HashMap<Scope, Gauge>,
    /// How many of them are over their limit: almost always none, and every checkin asks.
    over: usize,
}

impl Budget {
    /// Sets a limit; it holds from now on. Who is there already stays.
    pub fn set_limit(&mut self, scope: Scope, limit: Option<u32>) {
        let gauge = self.gauges.entry(scope).or_default();
        self.over -= usize::from(gauge.is_over());
        gauge.limit = limit;
        self.over += usize::from(gauge.is_over());
    }

    /// How a scope stands.
    pub fn gauge(&self, scope: &Scope) -> Gauge {
        self.gauges.get(scope).copied().unwrap_or_default()
    }

    /// All scopes that have a limit or a user.
    pub fn iter(&self) -> impl Iterator<Item = (&Scope, &Gauge)> {
        self.gauges.iter()
    }

    /// The first of `scopes` in which there is no room.
    pub fn binding<'a>(&self, scopes: &'a [Scope]) -> Option<&'a Scope> {
        scopes.iter().find(|scope| self.gauge(scope).is_full())
    }

    /// Whether a scope holds more than its limit allows (after the limit was lowered).
    pub fn is_over(&self, scope: &Scope) -> bool {
        self.over > 0 && self.gauge(scope).is_over()
    }

    /// Takes one unit of every scope, or none at all.
    ///
    /// # Errors
    /// The first scope in which there is no room.
    pub fn take<'a>(&mut self, scopes: &'a [Scope]) -> Result<(), &'a Scope> {
        if let Some(full) = self.binding(scopes) {
            return Err(full);
        }
        self.take_unlimited(scopes);
        Ok(())
    }

    /// Takes one unit of every scope, even beyond the limit: for what is exempt but still counted.
    pub fn take_unlimited(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            let gauge = self.gauges.entry(scope.clone()).or_default();
            self.over -= usize::from(gauge.is_over());
            gauge.used += 1;
            self.over += usize::from(gauge.is_over());
            gauge.peak = gauge.peak.max(gauge.used);
        }
    }

    /// Gives one unit of every scope back.
    pub fn give_back(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            let Some(gauge) = self.gauges.get_mut(scope) else {
                debug_assert!(false, "{scope} was given back but never taken");
                continue;
            };
            debug_assert!(
                gauge.used > 0,
                "{scope} was given back more often than taken"
            );
            self.over -= usize::from(gauge.is_over());
            gauge.used = gauge.used.saturating_sub(1);
            self.over += usize::from(gauge.is_over());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Scope {
        Scope::DatabaseServers("p0".into())
    }

    #[test]
    fn a_full_scope_gives_nothing() {
        let mut budget = Budget::default();
        budget.set_limit(database(), Some(1));
        assert_eq!(budget.take(&[database()]), Ok(()));
        assert_eq!(budget.take(&[database()]), Err(&database()));
        budget.give_back(&[database()]);
        assert_eq!(budget.take(&[database()]), Ok(()));
    }

    #[test]
    fn all_or_nothing_is_taken() {
        let mut budget = Budget::default();
        budget.set_limit(database(), Some(0));
        assert_eq!(budget.take(&[Scope::Clients, database()]), Err(&database()));
        assert_eq!(budget.gauge(&Scope::Clients).used, 0);
    }

    #[test]
    fn a_lowered_limit_shows_what_is_over() {
        let mut budget = Budget::default();
        budget.take_unlimited(&[database(), database()]);
        budget.set_limit(database(), Some(1));
        assert!(budget.is_over(&database()));
        assert!(!budget.is_over(&Scope::Clients));
        assert_eq!(
            budget.gauge(&database()),
            Gauge {
                used: 2,
                peak: 2,
                limit: Some(1)
            }
        );
        budget.give_back(&[database()]);
        assert!(!budget.is_over(&database()));
        budget.set_limit(database(), Some(0));
        assert!(budget.is_over(&database()));
        budget.set_limit(database(), None);
        assert!(!budget.is_over(&database()));
    }
}
