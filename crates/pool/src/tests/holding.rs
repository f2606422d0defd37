//! Pools that are held for another process, and servers that come from one.

use super::*;

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
