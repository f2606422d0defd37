//! The laws of the pool: stories of single rules, and random life with the books audited after
//! every step.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

mod causes;
mod gates;
mod overload;
mod sharing;
mod stuck;

const SECOND: Duration = Duration::from_secs(1);

fn limits(size: u32) -> PoolLimits {
    PoolLimits {
        size: Some(size),
        reserve_after: Some(5 * SECOND),
        lifetime: Some(3600 * SECOND),
        idle_timeout: Some(600 * SECOND),
        login_retry: 15 * SECOND,
        ..PoolLimits::default()
    }
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        message: "no".into(),
        sqlstate: None,
        kind,
    }
}

/// A world with opaque servers (numbers) and waiters (numbers) that carries out actions at once
/// or keeps them, as the story wants.
struct World {
    pools: Pools<u32, u32>,
    now: Instant,
    opening: Vec<SlotId>,
    closing: Vec<SlotId>,
    /// Failed logins whose connection does not end.
    stuck: Vec<SlotId>,
    leased: BTreeMap<u32, (SlotId, u32)>,
    tickets: BTreeMap<u32, (PoolId, Ticket)>,
    /// Clients whose server is theirs alone.
    owners: BTreeSet<u32>,
    refused: Vec<(u32, Refusal)>,
    /// What the waits that have ended are put down to.
    causes: BTreeMap<u32, Option<Cause>>,
    closed_because: Vec<CloseReason>,
    next: u32,
}

impl World {
    fn new() -> Self {
        Self {
            pools: Pools::default(),
            now: Instant::now(),
            opening: Vec::new(),
            closing: Vec::new(),
            stuck: Vec::new(),
            leased: BTreeMap::new(),
            tickets: BTreeMap::new(),
            owners: BTreeSet::new(),
            refused: Vec::new(),
            causes: BTreeMap::new(),
            closed_because: Vec::new(),
            next: 0,
        }
    }

    fn pool(&mut self, database: &str, user: &str, limits: PoolLimits) -> PoolId {
        let name = PoolName {
            database: database.into(),
            user: user.into(),
        };
        let servers = [
            Scope::HostServers("host".into()),
            Scope::DatabaseServers(name.database.clone()),
            Scope::UserServers(name.user.clone()),
        ];
        let scopes = PoolScopes {
            servers: servers.into(),
            login: Some(Scope::HostLogins("host".into())),
        };
        self.pools
            .ensure(&name, || scopes, limits, Gate::Open, self.now)
    }

    fn limit_database(&mut self, database: &str, limit: u32) {
        self.limit(Scope::DatabaseServers(database.into()), limit);
    }

    fn limit(&mut self, scope: Scope, limit: u32) {
        self.pools.budget.set_limit(&scope, Some(limit));
    }

    /// A new client asks for a server; its number.
    fn ask(&mut self, pool: PoolId) -> u32 {
        self.ask_as(pool, None)
    }

    /// A new client of an application that may have so many servers asks for one; its number.
    fn ask_for_app(&mut self, pool: PoolId, app: &str, limit: u32) -> u32 {
        let budget = &mut self.pools.budget;
        budget.set_limit_of_each(Kind::AppServers, Some(limit));
        self.ask_as(pool, Some(&[Scope::AppServers(app.into())].into()))
    }

    fn ask_as(&mut self, pool: PoolId, party: Option<&Party>) -> u32 {
        self.next += 1;
        let client = self.next;
        let mut actions = Actions::default();
        let outcome = self
            .pools
            .checkout(pool, self.now, party, || client, &mut actions);
        match outcome {
            Checkout::Ready(Lease { slot, server, .. }) => {
                self.leased.insert(client, (slot, server));
            }
            Checkout::Wait(ticket) => {
                self.tickets.insert(client, (pool, ticket));
            }
            Checkout::Refused(refusal) => self.refused.push((client, refusal)),
        }
        self.carry_out(actions);
        client
    }

    fn inherit(&mut self, pool: PoolId, past: Past) -> SlotId {
        let inherited = Inherited {
            past,
            host: None,
            is_control: false,
            opened_at: self.now,
        };
        self.pools.inherit(pool, inherited, self.now)
    }

    /// A new client asks for a server of its own; its number.
    fn ask_for_own(&mut self, pool: PoolId) -> u32 {
        self.next += 1;
        let client = self.next;
        let mut actions = Actions::default();
        let ticket = self.pools.dedicate(pool, self.now, || client, &mut actions);
        self.tickets.insert(client, (pool, ticket));
        self.owners.insert(client);
        self.carry_out(actions);
        client
    }

    /// The pooler itself asks for a server; the number of who does.
    fn ask_for_control(&mut self, pool: PoolId) -> Result<u32, Option<Scope>> {
        self.next += 1;
        let client = self.next;
        let mut actions = Actions::default();
        let (now, out) = (self.now, &mut actions);
        let ticket = self.pools.open_control(pool, client, now, out)?;
        self.tickets.insert(client, (pool, ticket));
        self.owners.insert(client);
        self.carry_out(actions);
        Ok(client)
    }

    fn carry_out(&mut self, actions: Actions<u32, u32>) {
        for action in actions {
            match action {
                Action::Open { slot, .. } => self.opening.push(slot),
                Action::Serve {
                    waiter,
                    lease: Lease { slot, server, .. },
                    cause,
                } => {
                    self.causes.insert(waiter, cause);
                    assert!(
                        self.tickets.remove(&waiter).is_some(),
                        "served, but did not wait"
                    );
                    self.leased.insert(waiter, (slot, server));
                }
                Action::Refuse {
                    waiter,
                    refusal,
                    cause,
                } => {
                    self.causes.insert(waiter, cause);
                    self.tickets.remove(&waiter);
                    self.refused.push((waiter, refusal));
                }
                Action::Close { slot, reason, .. } => {
                    self.closing.push(slot);
                    self.closed_because.push(reason);
                }
                Action::Greet { .. } | Action::TakingReserve { .. } => {}
            }
        }
        assert_eq!(self.pools.audit(), Ok(()));
    }

    fn finish_open(&mut self) -> bool {
        let Some(slot) = self.opening.pop() else {
            return false;
        };
        self.next += 1;
        let actions = self.pools.opened(slot, self.next, self.now);
        self.carry_out(actions);
        true
    }

    fn fail_open(&mut self, kind: FailureKind) -> bool {
        let Some(slot) = self.opening.pop() else {
            return false;
        };
        let actions = self.pools.open_failed(slot, failure(kind), self.now);
        self.carry_out(actions);
        true
    }

    /// A login fails, and PostgreSQL does not close its connection.
    fn get_stuck(&mut self, slot: SlotId) {
        let failure = failure(FailureKind::Connect);
        let actions = self.pools.open_stuck(slot, failure, self.now);
        self.carry_out(actions);
        self.stuck.push(slot);
    }

    fn finish_close(&mut self) -> bool {
        let Some(slot) = self.closing.pop() else {
            return false;
        };
        let actions = self.pools.closed(slot, self.now);
        self.carry_out(actions);
        true
    }

    fn give_back(&mut self, client: u32) {
        let (slot, server) = self.leased.remove(&client).expect("it holds a server");
        if self.owners.contains(&client) {
            self.pools.closing(slot, self.now);
            self.closing.push(slot);
            return;
        }
        let actions = self.pools.checkin(slot, server, self.now);
        self.carry_out(actions);
    }

    fn give_up(&mut self, client: u32) {
        let (pool, ticket) = self.tickets.remove(&client).expect("it waits");
        let left = self.pools.leave_queue(pool, ticket, self.now);
        assert_eq!(left.map(|(waiter, _)| waiter), Some(client));
        assert_eq!(self.pools.audit(), Ok(()));
    }

    fn tick(&mut self) {
        let upkeep = self.pools.tick(self.now, None, |_| false);
        self.carry_out(upkeep.actions);
    }

    /// Lets everything that is under way happen until nothing is.
    fn settle(&mut self) {
        while self.finish_open() || self.finish_close() {}
    }
}

#[test]
fn a_returned_server_goes_to_whoever_waits_longest() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let first = world.ask(pool);
    world.settle();
    let (second, third) = (world.ask(pool), world.ask(pool));
    world.give_back(first);
    assert!(world.leased.contains_key(&second));
    assert!(world.tickets.contains_key(&third));
}

#[test]
fn a_returned_server_goes_to_whoever_is_near_among_those_who_came_together() {
    let mut world = World::new();
    world.pools.near.waiter = |client| client % 2 == 0;
    let pool = world.pool("p", "u", limits(1));
    let holder = world.ask(pool);
    world.settle();
    let waiting: Vec<u32> = (0..3).map(|_| world.ask(pool)).collect();
    world.give_back(holder);
    let near = waiting.iter().find(|client| **client % 2 == 0);
    assert_eq!(world.leased.keys().next(), near);
    assert_ne!(near, waiting.first(), "it has overtaken one");
}

#[test]
fn the_pool_size_holds_while_servers_are_being_closed() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let first = world.ask(pool);
    world.settle();
    let (slot, _) = world.leased.remove(&first).unwrap();
    world.pools.closing(slot, world.now);
    world.ask(pool);
    assert_eq!(world.opening.len(), 0, "PostgreSQL still has the old one");
    let actions = world.pools.closed(slot, world.now);
    world.carry_out(actions);
    assert_eq!(world.opening.len(), 1);
}

#[test]
fn one_login_is_tried_until_one_has_worked() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(10));
    for _ in 0..8 {
        world.ask(pool);
    }
    assert_eq!(world.opening.len(), 1);
    world.finish_open();
    assert_eq!(world.opening.len(), 4);
}

#[test]
fn while_held_nothing_is_lent_opened_or_closed() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(2));
    let (first, _second) = (world.ask(pool), world.ask(pool));
    world.settle();
    world.pools.hold();
    let third = world.ask(pool);
    world.give_back(first);
    world.tick();
    assert!(world.tickets.contains_key(&third));
    assert!(world.opening.is_empty() && world.closing.is_empty());

    let taken = world.pools.take_idle(world.now);
    assert_eq!(taken.len(), 1);
    assert_eq!(world.pools.view()[0].leased, 2);
    for (slot, server) in taken {
        let actions = world.pools.checkin(slot, server, world.now);
        world.carry_out(actions);
    }
    let actions = world.pools.resume(|_| true, world.now);
    world.carry_out(actions);
    assert!(world.leased.contains_key(&third));
}

#[test]
fn a_failed_login_is_not_tried_again_while_held() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(2));
    world.ask(pool);
    world.fail_open(FailureKind::Login);
    world.now += 20 * SECOND;
    world.pools.hold();
    world.ask(pool);
    assert!(world.opening.is_empty());
}

#[test]
fn an_inherited_server_counts_at_once_and_beyond_the_limits() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    world.limit_database("p", 1);
    for server in [1, 2] {
        let slot = world.inherit(pool, Past::Known);
        world.leased.insert(server, (slot, server));
    }
    world.next = 2;
    let third = world.ask(pool);
    assert!(world.opening.is_empty(), "the limit is passed already");
    world.give_back(1);
    world.settle();
    assert!(world.tickets.contains_key(&third), "still one too many");
    world.give_back(2);
    assert!(world.leased.contains_key(&third));
}

#[test]
fn what_is_not_known_or_out_of_date_ends_with_its_client() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(3));
    for (server, past) in [(1, Past::Unknown), (2, Past::Outdated), (3, Past::Known)] {
        let slot = world.inherit(pool, past);
        world.leased.insert(server, (slot, server));
    }
    for server in [1, 2, 3] {
        world.give_back(server);
    }
    assert_eq!(
        world.closed_because,
        [CloseReason::Inherited, CloseReason::Obsolete]
    );
    assert_eq!(world.pools.view()[0].idle, 1);
}

#[test]
fn a_refused_login_ends_all_who_wait() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(10));
    for _ in 0..3 {
        world.ask(pool);
    }
    world.fail_open(FailureKind::Login);
    assert_eq!(world.refused.len(), 3);
    world.ask(pool);
    assert!(matches!(world.refused[3].1, Refusal::Failing(_)));
}

#[test]
fn an_unreachable_server_lets_clients_wait_for_the_retry() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(10));
    let client = world.ask(pool);
    world.fail_open(FailureKind::Connect);
    assert!(world.tickets.contains_key(&client));
    world.tick();
    assert!(
        world.opening.is_empty(),
        "server_login_retry has not passed"
    );
    world.now += 15 * SECOND;
    world.tick();
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn the_reserve_opens_after_its_timeout() {
    let mut world = World::new();
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            reserve: 1,
            ..limits(1)
        },
    );
    world.ask(pool);
    world.settle();
    let (second, third) = (world.ask(pool), world.ask(pool));
    world.tick();
    assert!(world.opening.is_empty());
    world.now += 5 * SECOND;
    world.tick();
    world.settle();
    assert!(world.leased.contains_key(&second));
    assert!(world.tickets.contains_key(&third));
}

#[test]
fn an_idle_server_of_another_user_makes_room() {
    let mut world = World::new();
    world.limit_database("p", 1);
    let (rich, poor) = (
        world.pool("p", "a", limits(5)),
        world.pool("p", "b", limits(5)),
    );
    let first = world.ask(rich);
    world.settle();
    world.give_back(first);
    let second = world.ask(poor);
    assert_eq!(world.closed_because, [CloseReason::Evicted]);
    assert!(
        world.opening.is_empty(),
        "the permit comes back when PostgreSQL has closed"
    );
    world.settle();
    assert!(world.leased.contains_key(&second));
}

#[test]
fn a_busy_pool_shares_the_limit_with_one_that_waits() {
    let mut world = World::new();
    world.limit_database("p", 4);
    let (rich, poor) = (
        world.pool("p", "a", limits(9)),
        world.pool("p", "b", limits(9)),
    );
    let mut busy: Vec<_> = (0..12).map(|_| world.ask(rich)).collect();
    world.settle();
    let waiting: Vec<_> = (0..4).map(|_| world.ask(poor)).collect();
    for _ in 0..8 {
        let Some(at) = busy
            .iter()
            .position(|client| world.leased.contains_key(client))
        else {
            break;
        };
        let client = busy.remove(at);
        world.give_back(client);
        world.settle();
        busy.push(world.ask(rich));
    }
    let served = waiting
        .iter()
        .filter(|client| world.leased.contains_key(client))
        .count();
    assert_eq!(served, 2, "half of the limit each");
}

#[test]
fn keeping_a_minimum_costs_no_other_pool_a_server() {
    let mut world = World::new();
    world.limit_database("p", 1);
    let a = world.pool("p", "a", limits(5));
    let first = world.ask(a);
    world.settle();
    world.give_back(first);
    world.pool(
        "p",
        "b",
        PoolLimits {
            min: 1,
            min_without_clients: true,
            ..limits(5)
        },
    );
    world.tick();
    assert!(world.closed_because.is_empty());
}

#[test]
fn a_server_with_a_cancel_on_its_way_waits_for_it() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let first = world.ask(pool);
    world.settle();
    let (slot, _) = world.leased[&first];
    assert!(world.pools.begin_cancel(slot));
    world.give_back(first);
    let second = world.ask(pool);
    assert!(
        world.tickets.contains_key(&second),
        "the cancel could hit the second client"
    );
    assert!(!world.pools.begin_cancel(slot), "nobody holds it now");
    assert!(world.pools.is_being_canceled(slot));
    let actions = world.pools.end_cancel(slot, world.now);
    world.carry_out(actions);
    assert!(!world.pools.is_being_canceled(slot));
    assert!(world.leased.contains_key(&second));
}

#[test]
fn a_paused_pool_serves_again_when_resumed() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let actions = world.pools.pause(|_| true, world.now);
    world.carry_out(actions);
    let client = world.ask(pool);
    assert!(world.opening.is_empty());
    let actions = world.pools.resume(|_| true, world.now);
    world.carry_out(actions);
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn a_reconnect_replaces_every_server() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(2));
    let (busy, idle) = (world.ask(pool), world.ask(pool));
    world.settle();
    world.give_back(idle);
    let actions = world.pools.reconnect(|_| true, world.now);
    world.carry_out(actions);
    assert_eq!(world.closed_because, [CloseReason::Obsolete]);
    assert!(world.pools.has_obsolete(|_| true));
    world.give_back(busy);
    assert_eq!(world.closed_because.len(), 2);
    assert!(!world.pools.has_obsolete(|_| true));
}

#[test]
fn servers_at_an_old_address_are_closed_when_nobody_has_them() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(3));
    let clients = [world.ask(pool), world.ask(pool), world.ask(pool)];
    world.settle();
    let [busy, idle, elsewhere] = clients;
    let serial = |world: &World, client| world.leased[&client].0.serial();
    let old = [serial(&world, busy), serial(&world, idle)];
    world.give_back(idle);
    world.give_back(elsewhere);
    let is_old = |serial, _| old.contains(&serial);
    let is_idle = |serial, state| is_old(serial, state) && state == SlotState::Idle;
    assert_eq!(world.pools.outdate(is_idle), 1);
    assert_eq!(world.pools.outdate(is_old), 1, "the other one");
    assert_eq!(world.pools.outdate(is_old), 0);
    assert_eq!(world.closed_because, []);
    world.tick();
    assert_eq!(
        world.closed_because,
        [CloseReason::Obsolete],
        "the idle one"
    );
    world.give_back(busy);
    assert_eq!(world.closed_because, [CloseReason::Obsolete; 2]);
}

#[test]
fn lifetimes_end_one_after_the_other() {
    let mut world = World::new();
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            lifetime: Some(10 * SECOND),
            ..limits(2)
        },
    );
    let clients = [world.ask(pool), world.ask(pool)];
    world.settle();
    clients
        .into_iter()
        .for_each(|client| world.give_back(client));
    world.now += 10 * SECOND;
    world.tick();
    assert_eq!(world.closed_because.len(), 1);
    world.now += 5 * SECOND;
    world.tick();
    assert_eq!(world.closed_because.len(), 2);
}

#[test]
fn a_lowered_pool_size_drains_the_surplus() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(3));
    let clients = [world.ask(pool), world.ask(pool), world.ask(pool)];
    world.settle();
    world.pools.set_limits(pool, limits(1));
    clients
        .into_iter()
        .for_each(|client| world.give_back(client));
    assert_eq!(
        world.closed_because,
        [CloseReason::Surplus, CloseReason::Surplus]
    );
}

#[test]
fn a_server_that_made_room_for_nothing_is_replaced() {
    let mut world = World::new();
    world.limit_database("p", 2);
    let (rich, poor) = (
        world.pool("p", "a", limits(5)),
        world.pool("p", "b", limits(5)),
    );
    let (idle, first) = (world.ask(rich), world.ask(poor));
    world.settle();
    world.give_back(idle);
    world.pools.client_joined(poor);
    let second = world.ask(poor);
    assert_eq!(world.closed_because, [CloseReason::Evicted]);
    world.give_back(first);
    assert!(
        world.leased.contains_key(&second),
        "the pool's own server came back first"
    );
    world.settle();
    assert_eq!(world.pools.pool(poor).counts.connected(), 2);
}

#[test]
fn a_server_that_makes_room_and_does_not_end_is_not_waited_for() {
    let mut world = World::new();
    world.limit_database("p", 2);
    let (rich, poor) = (
        world.pool("p", "a", limits(5)),
        world.pool("p", "b", limits(5)),
    );
    let both = [world.ask(rich), world.ask(rich)];
    world.settle();
    for client in both {
        world.give_back(client);
    }
    let client = world.ask(poor);
    let stuck = world.closing.pop().expect("one makes room");
    let actions = world.pools.quarantined(stuck, world.now);
    world.carry_out(actions);
    assert_eq!(world.closing.len(), 1, "the next one makes room");
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn a_server_that_a_cancel_may_still_hit_is_not_lent_again() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let client = world.ask(pool);
    world.settle();
    let (slot, _) = world.leased[&client];
    assert!(world.pools.begin_cancel(slot));
    world.pools.spoil(slot);
    let actions = world.pools.end_cancel(slot, world.now);
    world.carry_out(actions);
    world.give_back(client);
    assert_eq!(world.closed_because, [CloseReason::Obsolete]);
}

#[test]
fn a_retired_pool_goes_with_its_last_client_and_server() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let tick = |world: &mut World| {
        let upkeep = world.pools.tick(world.now, None, |_| false);
        let removed = upkeep.removed.clone();
        world.carry_out(upkeep.actions);
        removed
    };
    world.pools.client_joined(pool);
    let client = world.ask(pool);
    world.settle();
    world.give_back(client);
    let actions = world.pools.retire(pool, world.now);
    world.carry_out(actions);
    assert_eq!(world.closed_because, [CloseReason::Removed]);
    assert_eq!(tick(&mut world), []);
    world.settle();
    assert_eq!(tick(&mut world), [], "a client is left");
    world.pools.client_left(pool, world.now);
    world.pools.revive(pool);
    assert_eq!(tick(&mut world), [], "somebody has come again");
    let actions = world.pools.retire(pool, world.now);
    world.carry_out(actions);
    assert_eq!(tick(&mut world), [pool]);
    // Who was on his way there is refused.
    let late = world.ask(pool);
    assert!(matches!(
        &world.refused[..],
        [(client, Refusal::Removed)] if *client == late
    ));
    let own = world.ask_for_own(pool);
    assert_eq!(world.refused.last().map(|(client, _)| *client), Some(own));
}

#[test]
fn logins_that_wait_are_no_clients_that_wait() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    for _ in 0..3 {
        world.pools.client_joined(pool);
    }
    world.ask(pool);
    world.settle();
    world.ask(pool);
    let actions = world.pools.reconnect(|_| true, world.now);
    world.carry_out(actions);
    let mut actions = Actions::default();
    for _ in 0..2 {
        world.pools.greet(pool, world.now, || 0, &mut actions);
    }
    world.carry_out(actions);
    world.ask_for_own(pool);
    let view = &world.pools.view()[0];
    assert_eq!((view.waiting, view.queued()), (4, 1));
    assert_eq!(view.active_clients(), 2);
}

#[test]
fn limits_go_with_their_last_pool() {
    let mut world = World::new();
    let scope = Scope::DatabaseServers("p".into());
    world.limit(scope.clone(), 5);
    let pools = ["a", "b"].map(|user| world.pool("p", user, limits(1)));
    for (pool, limit) in pools.into_iter().zip([Some(5), None]) {
        let actions = world.pools.retire(pool, world.now);
        world.carry_out(actions);
        world.tick();
        assert_eq!(world.pools.budget.gauge(&scope).limit, limit);
    }
}

#[test]
fn a_client_that_goes_over_to_another_pool_counts_there_alone() {
    let mut world = World::new();
    let [from, to] = ["a", "b"].map(|user| world.pool("p", user, limits(1)));
    world.pools.client_joined(from);
    let clients = |world: &World| [from, to].map(|pool| world.pools.pool(pool).clients);
    assert!(world.pools.client_moved(from, to, world.now));
    assert_eq!(clients(&world), [0, 1]);
    assert!(world.pools.client_moved(to, to, world.now));
    assert_eq!(clients(&world), [0, 1]);
    world.pools.remove_pool(from);
    assert!(!world.pools.client_moved(to, from, world.now));
    assert_eq!(world.pools.pool(to).clients, 1);
}

#[test]
fn an_idle_server_that_postgres_closed_is_not_lent() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(3));
    let client = world.ask(pool);
    world.settle();
    world.give_back(client);
    let upkeep = world.pools.tick(world.now, None, |_| true);
    world.carry_out(upkeep.actions);
    assert_eq!(world.closing.len(), 1);
}

#[test]
fn a_dedicated_server_takes_the_place_of_an_idle_one() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let first = world.ask(pool);
    world.settle();
    world.give_back(first);
    let client = world.ask_for_own(pool);
    assert_eq!(world.closed_because, [CloseReason::Evicted]);
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn a_dedicated_server_takes_the_place_of_an_idle_one_at_a_shared_limit() {
    let mut world = World::new();
    world.limit_database("p", 1);
    let pool = world.pool("p", "u", limits(5));
    let first = world.ask(pool);
    world.settle();
    world.give_back(first);
    let client = world.ask_for_own(pool);
    assert_eq!(world.closed_because, [CloseReason::Evicted]);
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn a_dedicated_server_is_not_for_others() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(2));
    let own = world.ask_for_own(pool);
    world.give_up(own);
    let other = world.ask(pool);
    assert_eq!(world.opening.len(), 2);
    let dedicated = world.opening.remove(0);
    let actions = world.pools.opened(dedicated, 0, world.now);
    world.carry_out(actions);
    assert_eq!(world.closed_because, [CloseReason::Abandoned]);
    world.settle();
    assert!(world.leased.contains_key(&other));
}

#[test]
fn a_refused_dedicated_login_concerns_its_client_only() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(2));
    let own = world.ask_for_own(pool);
    let other = world.ask(pool);
    world.opening.reverse();
    world.fail_open(FailureKind::Login);
    assert_eq!(
        world
            .refused
            .iter()
            .map(|(client, _)| *client)
            .collect::<Vec<_>>(),
        [own]
    );
    world.settle();
    assert!(world.leased.contains_key(&other));
}

#[test]
fn control_is_beyond_the_size_of_its_pool_and_within_every_other_limit() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    world.limit_database("p", 2);
    let client = world.ask(pool);
    world.settle();
    let control = world.ask_for_control(pool).expect("there is room");
    let full = world.ask_for_control(pool);
    assert_eq!(full, Err(Some(Scope::DatabaseServers("p".into()))));
    world.settle();
    // The client's server is not in its way.
    world.give_back(client);
    assert!(world.closing.is_empty());
    assert_eq!(world.pools.view()[0].idle, 1);
    world.give_back(control);
    world.settle();
    let view = &world.pools.view()[0];
    assert_eq!((view.idle, view.total()), (1, 1));
    let more = [world.ask(pool), world.ask(pool)];
    assert_eq!(world.leased.len(), 1, "{more:?}");
}

#[derive(Clone, Debug)]
enum Step {
    AskForOwn(u8),
    AskForControl(u8),
    Ask(u8),
    AskForApp(u8),
    GiveBack(u8),
    GiveUp(u8),
    Vanish(u8),
    Opened,
    OpenFailed(bool),
    OpenStuck,
    StuckEnds,
    Closed,
    Cancel(u8),
    CancelDone,
    Wait(u8),
    Reconnect,
    Pause,
    Hold,
    Close,
    Resume,
    Resize(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Ask),
        1 => any::<u8>().prop_map(Step::AskForOwn),
        1 => any::<u8>().prop_map(Step::AskForControl),
        2 => any::<u8>().prop_map(Step::AskForApp),
        5 => any::<u8>().prop_map(Step::GiveBack),
        1 => any::<u8>().prop_map(Step::GiveUp),
        2 => any::<u8>().prop_map(Step::Vanish),
        6 => Just(Step::Opened),
        1 => any::<bool>().prop_map(Step::OpenFailed),
        1 => Just(Step::OpenStuck),
        1 => Just(Step::StuckEnds),
        5 => Just(Step::Closed),
        1 => any::<u8>().prop_map(Step::Cancel),
        2 => Just(Step::CancelDone),
        2 => any::<u8>().prop_map(Step::Wait),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Pause),
        1 => Just(Step::Hold),
        1 => Just(Step::Close),
        1 => Just(Step::Resume),
        1 => (0..4_u8).prop_map(Step::Resize),
    ]
}

fn nth<K: Copy + Ord, V>(map: &BTreeMap<K, V>, n: u8) -> Option<K> {
    let len = map.len();
    (len > 0).then(|| {
        *map.keys()
            .nth(usize::from(n) % len)
            .expect("n is below len")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens: the books balance, no limit is passed, and when life calms down everybody
    /// who waits is served.
    #[test]
    fn no_life_unbalances_the_books(steps in proptest::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        world.limit_database("p", 4);
        world.limit(Scope::HostServers("host".into()), 5);
        world.limit(Scope::HostLogins("host".into()), 2);
        world.limit(Scope::Waiting, 20);
        let ids = [
            world.pool("p", "a", limits(3)),
            world.pool("p", "b", PoolLimits { reserve: 1, min: 1, ..limits(2) }),
            world.pool("q", "a", PoolLimits { wait_target: Some(3 * SECOND), ..limits(2) }),
        ];
        let mut canceling = Vec::new();
        // Nothing is opened while the pools are held.
        let mut opening_max = usize::MAX;
        for step in steps {
            match step {
                Step::Ask(pool) => { world.ask(ids[usize::from(pool) % ids.len()]); }
                Step::AskForApp(pool) => {
                    world.ask_for_app(ids[usize::from(pool) % ids.len()], "shop", 1);
                }
                Step::AskForOwn(pool) => {
                    world.ask_for_own(ids[usize::from(pool) % ids.len()]);
                }
                // Closing takes a pool out of a hold here, which the shell does not do.
                Step::AskForControl(_) if opening_max != usize::MAX => {}
                Step::AskForControl(pool) => {
                    // Whether there is room does not matter here.
                    let _ = world.ask_for_control(ids[usize::from(pool) % ids.len()]);
                }
                Step::GiveBack(n) => if let Some(client) = nth(&world.leased, n) {
                    world.give_back(client);
                },
                Step::GiveUp(n) => if let Some(client) = nth(&world.tickets, n) {
                    world.give_up(client);
                },
                Step::Vanish(n) => if let Some(client) = nth(&world.leased, n) {
                    let (slot, _) = world.leased.remove(&client).unwrap();
                    world.pools.closing(slot, world.now);
                    world.closing.push(slot);
                },
                Step::Opened => { world.finish_open(); }
                Step::OpenFailed(login) => {
                    world.fail_open(if login { FailureKind::Login } else { FailureKind::Connect });
                }
                Step::OpenStuck => if let Some(slot) = world.opening.pop() {
                    world.get_stuck(slot);
                },
                Step::StuckEnds => if let Some(slot) = world.stuck.pop() {
                    world.closing.push(slot);
                    world.finish_close();
                },
                Step::Closed => { world.finish_close(); }
                Step::Cancel(n) => if let Some(client) = nth(&world.leased, n) {
                    let (slot, _) = world.leased[&client];
                    if world.pools.begin_cancel(slot) {
                        canceling.push(slot);
                    }
                },
                Step::CancelDone => if let Some(slot) = canceling.pop() {
                    let actions = world.pools.end_cancel(slot, world.now);
                    world.carry_out(actions);
                },
                Step::Wait(seconds) => {
                    world.now += u32::from(seconds) * SECOND;
                    world.tick();
                }
                Step::Reconnect => {
                    let actions = world.pools.reconnect(|name| name == "p", world.now);
                    world.carry_out(actions);
                }
                Step::Pause => {
                    let actions = world.pools.pause(|name| name == "p", world.now);
                    world.carry_out(actions);
                }
                Step::Hold => {
                    world.pools.hold();
                    opening_max = world.opening.len();
                    for (slot, server) in world.pools.take_idle(world.now) {
                        let actions = world.pools.checkin(slot, server, world.now);
                        world.carry_out(actions);
                    }
                }
                Step::Close => {
                    let gate = |name: &str| (name == "q").then(|| Gate::Closed("no".into()));
                    let actions = world.pools.set_gates(gate, world.now);
                    world.carry_out(actions);
                }
                Step::Resume => {
                    opening_max = usize::MAX;
                    let actions = world.pools.resume(|_| true, world.now);
                    world.carry_out(actions);
                }
                Step::Resize(size) => {
                    let wait_target = Some(3 * SECOND);
                    let limits = PoolLimits { wait_target, ..limits(u32::from(size)) };
                    world.pools.set_limits(ids[2], limits);
                }
            }
            prop_assert_eq!(world.pools.audit(), Ok(()));
            prop_assert!(world.opening.len() <= opening_max);
            let database = world.pools.budget.gauge(&Scope::DatabaseServers("p".into()));
            prop_assert!(database.used <= 4);
            for (scope, limit) in [
                (Scope::HostServers("host".into()), 5),
                (Scope::HostLogins("host".into()), 2),
                (Scope::AppServers("shop".into()), 1),
                (Scope::Waiting, 20),
            ] {
                let used = world.pools.budget.gauge(&scope).used;
                prop_assert!(used <= limit, "{used} of {scope}");
            }
            for view in world.pools.view() {
                let total = view.opening + view.idle + view.leased + view.resetting
                    + view.being_canceled + view.closing + view.quarantined;
                prop_assert!(total - view.control <= 3, "{view:?}");
            }
        }
        // Calm: what was stuck ends, cancels arrive, pauses end, limits are sane, everybody gives back what he gets.
        world.pools.set_limits(ids[2], limits(2));
        let stuck = std::mem::take(&mut world.stuck);
        world.closing.extend(stuck);
        for slot in canceling {
            let actions = world.pools.end_cancel(slot, world.now);
            world.carry_out(actions);
        }
        let actions = world.pools.resume(|_| true, world.now);
        world.carry_out(actions);
        for _ in 0..1000 {
            if world.tickets.is_empty() && world.leased.is_empty() {
                break;
            }
            world.settle();
            while let Some(client) = nth(&world.leased, 0) {
                world.give_back(client);
            }
            world.now += 20 * SECOND;
            world.tick();
        }
        prop_assert!(world.tickets.is_empty(), "{} are never served", world.tickets.len());
    }
}
