//! Sizes hold, and room is made where a limit is shared.

use super::*;

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
