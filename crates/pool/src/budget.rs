//! Every count limit, in one place.
//!
//! A [`Scope`] has a limit; its gauge counts who uses it now. Taking and giving
//! back are the only ways to change a count. Servers do that by scope; clients, of which many come and go, by the numbers of
//! gauges ([`Budget::enter`], [`Budget::leave`]). The names in the docs are configuration keys.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::Instant;

use foldhash::fast::RandomState;
use slab::Slab;

use crate::gauge::Gauge;
use crate::scope::{Kind, Scope};

/// The number of a gauge, for whoever counts in it for long: it is found by it without a lookup. Good until it is given back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GaugeId(NonZeroU32);

/// Scopes of which there is one: every login asks for the first two, and under load every transaction for the third,
/// so their gauges are not looked up.
const ALWAYS: [(Scope, GaugeId); 3] = [
    (Scope::Clients, GaugeId::CLIENTS),
    (Scope::Logins, GaugeId::LOGINS),
    (Scope::Waiting, GaugeId::WAITING),
];

impl GaugeId {
    /// That of [`Scope::Clients`].
    pub const CLIENTS: Self = Self::at(0);
    /// That of [`Scope::Logins`].
    pub const LOGINS: Self = Self::at(1);
    /// That of [`Scope::Waiting`].
    pub const WAITING: Self = Self::at(2);

    const fn at(index: u32) -> Self {
        Self(NonZeroU32::MIN.saturating_add(index))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// All gauges.
#[derive(Debug)]
pub struct Budget {
    ids: HashMap<Scope, GaugeId, RandomState>,
    gauges: Slab<(Scope, Gauge)>,
    /// The limits of those that have one by kind.
    kinds: HashMap<Kind, u32>,
    /// How many of them are over their limit: almost always none, and every checkin asks.
    over: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            ids: HashMap::default(),
            gauges: ALWAYS
                .into_iter()
                .map(|(scope, id)| (id.index(), (scope, Gauge::default())))
                .collect(),
            kinds: HashMap::new(),
            over: 0,
        }
    }
}

impl Budget {
    /// The number of its gauge, if it has one.
    pub fn id(&self, scope: &Scope) -> Option<GaugeId> {
        match scope {
            Scope::Clients => Some(GaugeId::CLIENTS),
            Scope::Logins => Some(GaugeId::LOGINS),
            Scope::Waiting => Some(GaugeId::WAITING),
            scope => self.ids.get(scope).copied(),
        }
    }

    /// The number of its gauge, which is there from then on.
    fn id_or_new(&mut self, scope: &Scope) -> GaugeId {
        if let Some(id) = self.id(scope) {
            return id;
        }
        let gauge = self.unused(scope);
        let index = self.gauges.insert((scope.clone(), gauge));
        let id = GaugeId::at(u32::try_from(index).unwrap_or(u32::MAX));
        self.ids.insert(scope.clone(), id);
        id
    }

    fn unused(&self, scope: &Scope) -> Gauge {
        let limit = scope.kind().and_then(|kind| self.limit_of_each(kind));
        Gauge::reading(0, 0, limit)
    }

    fn find(&self, scope: &Scope) -> Option<&Gauge> {
        self.get(self.id(scope)?)
    }

    fn get(&self, id: GaugeId) -> Option<&Gauge> {
        self.gauges.get(id.index()).map(|(_, gauge)| gauge)
    }

    /// Changes a gauge, and how many are over.
    fn change(&mut self, id: GaugeId, change: impl FnOnce(&mut Gauge)) {
        let Some((_, gauge)) = self.gauges.get_mut(id.index()) else {
            debug_assert!(false, "whoever has a gauge's number counts in it");
            return;
        };
        let was_over = gauge.is_over();
        change(gauge);
        self.over += usize::from(gauge.is_over());
        self.over -= usize::from(was_over);
    }

    /// Sets a limit; it holds from now on. Who is there already stays.
    pub fn set_limit(&mut self, scope: &Scope, limit: Option<u32>) {
        let id = self.id_or_new(scope);
        self.change(id, |gauge| gauge.limit = limit);
    }

    /// Sets the limit of every scope of a kind; it holds from now on.
    pub fn set_limit_of_each(&mut self, kind: Kind, limit: Option<u32>) {
        match limit {
            Some(limit) => self.kinds.insert(kind, limit),
            None => self.kinds.remove(&kind),
        };
        let of_kind = |(scope, id): (&Scope, &GaugeId)| (scope.kind() == Some(kind)).then_some(*id);
        let ids: Vec<_> = self.ids.iter().filter_map(of_kind).collect();
        for id in ids {
            self.change(id, |gauge| gauge.limit = limit);
        }
    }

    /// The limit of every scope of a kind.
    pub fn limit_of_each(&self, kind: Kind) -> Option<u32> {
        self.kinds.get(&kind).copied()
    }

    /// How a scope stands.
    pub fn gauge(&self, scope: &Scope) -> Gauge {
        let gauge = self.find(scope).copied();
        gauge.unwrap_or_else(|| self.unused(scope))
    }

    /// All scopes that have a limit or a user.
    pub fn iter(&self) -> impl Iterator<Item = (&Scope, &Gauge)> {
        let all = self.gauges.iter().map(|(_, (scope, gauge))| (scope, gauge));
        all.filter(|(_, gauge)| gauge.used > 0 || gauge.limit.is_some())
    }

    /// Whether a permit of this scope may go from one pool to another now; if so, that is counted.
    pub(crate) fn may_switch(&mut self, scope: &Scope, now: Instant) -> bool {
        let id = self.id(scope);
        let found = id.and_then(|id| self.gauges.get_mut(id.index()));
        found.is_none_or(|(_, gauge)| gauge.may_switch(now))
    }

    /// The first of `scopes` in which there is no room.
    pub fn binding<'a>(&self, scopes: &'a [Scope]) -> Option<&'a Scope> {
        scopes.iter().find(|scope| self.gauge(scope).is_full())
    }

    /// Whether a scope holds more than its limit allows (after the limit was lowered).
    pub fn is_over(&self, scope: &Scope) -> bool {
        self.over > 0 && self.gauge(scope).is_over()
    }

    /// The first of these that holds more than its limit allows.
    pub fn first_over(&self, ids: impl IntoIterator<Item = GaugeId>) -> Option<&Scope> {
        if self.over == 0 {
            return None;
        }
        let mut found = ids.into_iter().filter_map(|id| self.gauges.get(id.index()));
        let over = found.find(|(_, gauge)| gauge.is_over());
        over.map(|(scope, _)| scope)
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
        match self.binding(scopes) {
            Some(full) => Err(full),
            None => {
                self.take_unlimited(scopes);
                Ok(())
            }
        }
    }

    /// Takes one unit of every scope, even beyond the limit: for what is exempt but still counted.
    pub fn take_unlimited(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            let id = self.id_or_new(scope);
            self.count(id);
        }
    }

    /// Gives one unit of every scope back.
    pub fn give_back(&mut self, scopes: &[Scope]) {
        for scope in scopes {
            match self.id(scope) {
                Some(id) => self.leave([id]),
                None => debug_assert!(false, "{scope} was given back but never taken"),
            }
        }
    }

    /// Takes one unit of every scope, or none at all, for somebody who keeps the numbers of the gauges. The first scopes get
    /// these limits.
    ///
    /// # Errors
    /// The first scope in which there is no room.
    pub fn enter<'a, const N: usize>(
        &mut self,
        scopes: &'a [Scope; N],
        limits: &[Option<u32>],
    ) -> Result<[GaugeId; N], &'a Scope> {
        let ids = scopes.each_ref().map(|scope| self.id_or_new(scope));
        for (&id, &limit) in ids.iter().zip(limits) {
            self.change(id, |gauge| gauge.limit = limit);
        }
        let is_full = |id: GaugeId| self.get(id).is_some_and(Gauge::is_full);
        if let Some(full) = ids.iter().position(|&id| is_full(id)) {
            return Err(&scopes[full]);
        }
        for id in ids {
            self.count(id);
        }
        Ok(ids)
    }

    /// As [`Self::enter`], even beyond the limits, which stay as they are.
    pub fn enter_unlimited<const N: usize>(&mut self, scopes: &[Scope; N]) -> [GaugeId; N] {
        scopes.each_ref().map(|scope| {
            let id = self.id_or_new(scope);
            self.count(id);
            id
        })
    }

    /// Gives one unit of each back.
    pub fn leave(&mut self, ids: impl IntoIterator<Item = GaugeId>) {
        for id in ids {
            self.change(id, |gauge| {
                debug_assert!(gauge.used > 0, "given back more often than taken");
                gauge.used = gauge.used.saturating_sub(1);
            });
        }
    }

    /// Takes one unit, if there is room.
    pub(crate) fn count_one(&mut self, id: GaugeId) -> bool {
        let has_room = self.get(id).is_some_and(|gauge| !gauge.is_full());
        if has_room {
            self.count(id);
        }
        has_room
    }

    fn count(&mut self, id: GaugeId) {
        self.change(id, |gauge| {
            gauge.used += 1;
            gauge.peak = gauge.peak.max(gauge.used);
        });
    }

    /// Forgets the scopes that nobody uses, and whose limit is known again when somebody comes. Clients choose such names.
    pub(crate) fn forget_unused(&mut self) {
        self.retain(|scope, gauge| gauge.used > 0 || !scope.is_forgotten_unused());
    }

    /// Forgets the limits of databases and users on servers, but for these and those that are in use.
    pub(crate) fn keep_limits_on_servers(&mut self, of_pools: &HashSet<&Scope>) {
        self.retain(|scope, gauge| {
            let is_of_pools = matches!(scope, Scope::DatabaseServers(_) | Scope::UserServers(_));
            !is_of_pools || gauge.used > 0 || of_pools.contains(scope)
        });
    }

    fn retain(&mut self, keep: impl Fn(&Scope, &Gauge) -> bool) {
        let gauges = &mut self.gauges;
        self.ids.retain(|scope, id| {
            let found = gauges.get(id.index());
            let keeps = found.is_some_and(|(_, gauge)| keep(scope, gauge));
            if !keeps {
                gauges.try_remove(id.index());
            }
            keeps
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
            budget.forget_unused();
            assert_eq!(budget.ids.len(), 0);
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
        let known = of_both("d");
        let first = budget.enter(&known, &[Some(1), Some(5)]).expect("room");
        for number in 0..5 {
            let other = of_both(&number.to_string());
            let entered = budget.enter(&other, &[Some(1), Some(5)]);
            assert_eq!(entered, Err(&Scope::UserClients("u".into())));
        }
        budget.forget_unused();
        assert_eq!(budget.ids.len(), 2);
        budget.leave(first);
        budget.forget_unused();
        assert_eq!(budget.ids.len(), 0);
    }

    #[test]
    fn clients_count_by_the_numbers_of_gauges() {
        let mut budget = Budget::default();
        let scopes = [Scope::Clients, Scope::UserClients("u".into())];
        let first = budget.enter(&scopes, &[None, Some(1)]).expect("room");
        assert_eq!(budget.enter(&scopes, &[None, Some(1)]), Err(&scopes[1]));
        assert_eq!(budget.gauge(&Scope::Clients).used, 1, "all or nothing");
        let beyond = budget.enter_unlimited(&scopes);
        assert_eq!(beyond, first);
        assert_eq!(budget.first_over(first), Some(&scopes[1]));
        budget.leave(first);
        assert_eq!(budget.first_over(beyond), None);
        assert_eq!(budget.gauge(&scopes[1]), Gauge::reading(1, 2, Some(1)));
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
}
