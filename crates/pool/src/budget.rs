//! Every count limit, in one place.
//!
//! A [`Scope`] has a limit; its gauge counts who uses it now. Taking and giving
//! back are the only ways to change a count. The names in the docs are configuration keys.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::scope::{Kind, Scope};

/// How often a permit may be taken from one pool for another, on the average. Every switch costs a
/// login: without a bound, pools that share a limit could spend their time on logins.
const SWITCHES_PER_PERMIT_AND_SECOND: u32 = 5;

/// A limit and its use.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Gauge {
    /// How many there are now.
    pub used: u32,
    /// The most there have been.
    pub peak: u32,
    /// How many there may be; `None` is no limit.
    pub limit: Option<u32>,
    /// When the switches made so far are worn off.
    switched_until: Option<Instant>,
}

impl Gauge {
    /// A gauge as it reads.
    pub fn reading(used: u32, peak: u32, limit: Option<u32>) -> Self {
        Self {
            used,
            peak,
            limit,
            switched_until: None,
        }
    }

    fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.used > limit)
    }

    /// Whether nothing more can be taken.
    pub fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.used >= limit)
    }

    /// Changes it. Whether it was over its limit, and whether it is.
    fn change(&mut self, change: impl FnOnce(&mut Self)) -> (bool, bool) {
        let was_over = self.is_over();
        change(self);
        (was_over, self.is_over())
    }

    /// Whether a permit may go from one pool to another now; if so, that is counted. As many as
    /// there are permits may go at once, and then as many a second as the average allows.
    fn may_switch(&mut self, now: Instant) -> bool {
        let permits = self.limit.unwrap_or(u32::MAX).max(1);
        let spacing =
            Duration::from_secs(1) / SWITCHES_PER_PERMIT_AND_SECOND.saturating_mul(permits);
        let until = self.switched_until.map_or(now, |until| until.max(now));
        let burst = Duration::from_secs(1) / SWITCHES_PER_PERMIT_AND_SECOND;
        let allowed = until.saturating_duration_since(now) < burst;
        if allowed {
            self.switched_until = Some(until + spacing);
        }
        allowed
    }
}

/// All gauges.
#[derive(Debug, Default)]
pub struct Budget {
    gauges: HashMap<Scope, Gauge, RandomState>,
    /// [`Scope::Clients`], [`Scope::Logins`] and [`Scope::Waiting`]: every login asks for the first two, and under
    /// load every transaction for the third, so they are not looked up.
    clients: Gauge,
    logins: Gauge,
    waiting: Gauge,
    /// The limits of those that have one by kind.
    kinds: HashMap<Kind, u32>,
    /// How many of them are over their limit: almost always none, and every checkin asks.
    over: usize,
}

impl Budget {
    /// Sets a limit; it holds from now on. Who is there already stays.
    pub fn set_limit(&mut self, scope: &Scope, limit: Option<u32>) {
        self.change(scope, |gauge| gauge.limit = limit);
    }

    fn find(&self, scope: &Scope) -> Option<&Gauge> {
        match scope {
            Scope::Clients => Some(&self.clients),
            Scope::Logins => Some(&self.logins),
            Scope::Waiting => Some(&self.waiting),
            scope => self.gauges.get(scope),
        }
    }

    fn find_mut(&mut self, scope: &Scope) -> Option<&mut Gauge> {
        match scope {
            Scope::Clients => Some(&mut self.clients),
            Scope::Logins => Some(&mut self.logins),
            Scope::Waiting => Some(&mut self.waiting),
            scope => self.gauges.get_mut(scope),
        }
    }

    /// Changes a gauge, which is there from then on, and how many are over.
    fn change(&mut self, scope: &Scope, change: impl FnOnce(&mut Gauge)) {
        let (was_over, is_over) = match self.find_mut(scope) {
            Some(gauge) => gauge.change(change),
            None => {
                let mut gauge = Self::unused(&self.kinds, scope);
                let over = gauge.change(change);
                self.gauges.insert(scope.clone(), gauge);
                over
            }
        };
        self.over -= usize::from(was_over);
        self.over += usize::from(is_over);
    }

    /// Sets the limit of every scope of a kind; it holds from now on.
    pub fn set_limit_of_each(&mut self, kind: Kind, limit: Option<u32>) {
        match limit {
            Some(limit) => self.kinds.insert(kind, limit),
            None => self.kinds.remove(&kind),
        };
        let scopes: Vec<_> = self.gauges.keys().cloned().collect();
        for scope in scopes.into_iter().filter(|s| s.kind() == Some(kind)) {
            self.set_limit(&scope, limit);
        }
    }

    /// The limit of every scope of a kind.
    pub fn limit_of_each(&self, kind: Kind) -> Option<u32> {
        self.kinds.get(&kind).copied()
    }

    /// How a scope stands.
    pub fn gauge(&self, scope: &Scope) -> Gauge {
        let unused = || Self::unused(&self.kinds, scope);
        self.find(scope).copied().unwrap_or_else(unused)
    }

    fn unused(kinds: &HashMap<Kind, u32>, scope: &Scope) -> Gauge {
        let limit = scope.kind().and_then(|kind| kinds.get(&kind).copied());
        Gauge {
            limit,
            ..Gauge::default()
        }
    }

    /// All scopes that have a limit or a user.
    pub fn iter(&self) -> impl Iterator<Item = (&Scope, &Gauge)> {
        let apart = [
            (&Scope::Clients, &self.clients),
            (&Scope::Logins, &self.logins),
            (&Scope::Waiting, &self.waiting),
        ];
        let known = |(_, gauge): &(_, &Gauge)| **gauge != Gauge::default();
        self.gauges.iter().chain(apart.into_iter().filter(known))
    }

    /// Whether a permit of this scope may go from one pool to another now; if so, that is counted.
    pub(crate) fn may_switch(&mut self, scope: &Scope, now: Instant) -> bool {
        self.find_mut(scope)
            .is_none_or(|gauge| gauge.may_switch(now))
    }

    /// The first of `scopes` in which there is no room.
    pub fn binding<'a>(&self, scopes: &'a [Scope]) -> Option<&'a Scope> {
        scopes.iter().find(|scope| self.gauge(scope).is_full())
    }

    /// Whether a scope holds more than its limit allows (after the limit was lowered).
    pub fn is_over(&self, scope: &Scope) -> bool {
        self.over > 0 && self.gauge(scope).is_over()
    }

    /// How much more than its limit a scope holds.
    pub fn excess(&self, scope: &Scope) -> u32 {
        let gauge = self.gauge(scope);
        gauge.used.saturating_sub(gauge.limit.unwrap_or(u32::MAX))
    }

    /// Takes one unit of every scope, or none at all.
    ///
    /// # Errors
    /// The first scope in which there is no room.
    pub fn take<'a>(&mut self, scopes: &'a [Scope]) -> Result<(), &'a Scope> {
        if let Some(full) = self.binding(scopes) {
            for scope in scopes.iter().filter(|scope| scope.is_forgotten_unused()) {
                if self.gauge(scope).used == 0 {
                    self.gauges.remove(scope);
                }
            }
            return Err(full);
        }
        self.take_unlimited(scopes);
        Ok(())
    }

    /// Takes one unit of every scope, even beyond the limit: for what is exempt but still counted.
    pub fn take_unlimited(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            self.change(scope, |gauge| {
                gauge.used += 1;
                gauge.peak = gauge.peak.max(gauge.used);
            });
        }
    }

    /// Gives one unit of every scope back.
    pub fn give_back(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            let Some(gauge) = self.find_mut(scope) else {
                debug_assert!(false, "{scope} was given back but never taken");
                continue;
            };
            debug_assert!(
                gauge.used > 0,
                "{scope} was given back more often than taken"
            );
            let (was_over, is_over) =
                gauge.change(|gauge| gauge.used = gauge.used.saturating_sub(1));
            let is_unused = gauge.used == 0;
            self.over -= usize::from(was_over);
            if is_unused && scope.is_forgotten_unused() {
                self.gauges.remove(scope);
            } else {
                self.over += usize::from(is_over);
            }
        }
    }

    /// Forgets the limits of databases and users on servers, but for these and those that are in use.
    pub(crate) fn keep_limits_on_servers(&mut self, of_pools: &HashSet<&Scope>) {
        self.gauges.retain(|scope, gauge| {
            let is_of_pools = matches!(scope, Scope::DatabaseServers(_) | Scope::UserServers(_));
            !is_of_pools || gauge.used > 0 || of_pools.contains(scope)
        });
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
        budget.set_limit(&database(), Some(1));
        assert_eq!(budget.take(&[database()]), Ok(()));
        assert_eq!(budget.take(&[database()]), Err(&database()));
        budget.give_back(&[database()]);
        assert_eq!(budget.take(&[database()]), Ok(()));
    }

    #[test]
    fn all_or_nothing_is_taken() {
        let mut budget = Budget::default();
        budget.set_limit(&database(), Some(0));
        assert_eq!(budget.take(&[Scope::Clients, database()]), Err(&database()));
        assert_eq!(budget.gauge(&Scope::Clients).used, 0);
    }

    #[test]
    fn a_lowered_limit_shows_what_is_over() {
        let mut budget = Budget::default();
        budget.take_unlimited(&[database(), database()]);
        budget.set_limit(&database(), Some(1));
        assert!(budget.is_over(&database()));
        assert!(!budget.is_over(&Scope::Clients));
        assert_eq!(budget.gauge(&database()), Gauge::reading(2, 2, Some(1)));
        budget.give_back(&[database()]);
        assert!(!budget.is_over(&database()));
        budget.set_limit(&database(), Some(0));
        assert!(budget.is_over(&database()));
        budget.set_limit(&database(), None);
        assert!(!budget.is_over(&database()));
    }

    #[test]
    fn applications_and_addresses_are_forgotten_when_they_are_gone() {
        let mut budget = Budget::default();
        let app = Scope::AppClients("shop".into());
        let app = std::slice::from_ref(&app);
        budget.set_limit_of_each(Kind::AppClients, Some(1));
        for _ in 0..2 {
            assert_eq!(budget.take(app), Ok(()));
            assert_eq!(budget.take(app), Err(&app[0]));
            budget.give_back(app);
            assert_eq!(budget.iter().count(), 0);
        }
    }

    #[test]
    fn databases_and_users_that_clients_invent_are_forgotten() {
        let mut budget = Budget::default();
        let of_both = |database: &str| {
            [
                Scope::UserClients("u".into()),
                Scope::DatabaseClients(database.into()),
            ]
        };
        let enter = |budget: &mut Budget, scopes: &[Scope; 2]| {
            budget.set_limit(&scopes[0], Some(1));
            budget.set_limit(&scopes[1], Some(5));
            budget.take(scopes).is_ok()
        };
        let first = of_both("d");
        assert!(enter(&mut budget, &first));
        for number in 0..5 {
            assert!(!enter(&mut budget, &of_both(&number.to_string())));
        }
        assert_eq!(budget.iter().count(), 2);
        budget.give_back(&first);
        assert_eq!(budget.iter().count(), 0);
    }

    #[test]
    fn a_limit_of_each_holds_for_those_that_are_there() {
        let mut budget = Budget::default();
        let app = [Scope::AppServers("shop".into())];
        budget.take_unlimited(&app);
        budget.set_limit_of_each(Kind::AppServers, Some(1));
        assert_eq!(budget.take(&app), Err(&app[0]));
        budget.set_limit_of_each(Kind::AppServers, None);
        assert_eq!(budget.take(&app), Ok(()));
    }

    #[test]
    fn permits_change_hands_at_a_bounded_rate() {
        let mut budget = Budget::default();
        budget.set_limit(&database(), Some(2));
        let start = Instant::now();
        let mut switches = 0;
        for millisecond in 0..10_000 {
            let now = start + Duration::from_millis(millisecond);
            switches += u32::from(budget.may_switch(&database(), now));
        }
        let expected = 10 * 2 * SWITCHES_PER_PERMIT_AND_SECOND + 2;
        assert!((expected - 2..=expected).contains(&switches), "{switches}");
    }
}
