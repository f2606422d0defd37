//! Who gets a server that comes back, and what a login that fails means for who waits.

use super::*;

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
fn a_returned_server_goes_to_one_of_the_same_thread_among_those_who_came_together() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let holder = world.ask(pool);
    world.settle();
    let mut ask_from = |thread| {
        HERE.set(thread);
        world.ask(pool)
    };
    let (far, near) = (ask_from(0), ask_from(1));
    world.give_back(holder);
    assert_eq!(world.leased.keys().next(), Some(&near), "it has overtaken");
    world.give_back(near);
    assert_eq!(world.leased.keys().next(), Some(&far));
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
