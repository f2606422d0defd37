//! Servers and pools that are replaced or go.

use super::*;

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
fn names_that_clients_chose_are_forgotten_when_nobody_uses_them() {
    let mut world = World::new();
    let scopes = [
        Scope::UserClients("u".into()),
        Scope::AppClients("a".into()),
    ];
    let ids = world.pools.budget.enter_unlimited(&scopes);
    let known = |world: &World| scopes.each_ref().map(|scope| world.pools.budget.id(scope));
    world.tick();
    assert_eq!(known(&world), ids.map(Some));
    world.pools.budget.leave(ids);
    world.tick();
    assert_eq!(known(&world), [None, None]);
}
