//! Closed pools refuse, paused pools hold, and nobody is forgotten behind a gate.

use super::*;

fn closed(message: &str) -> Refusal {
    Refusal::Closed(message.into())
}

fn set(world: &mut World, gate: &Gate) {
    let actions = world.pools.set_gates(|_| Some(gate.clone()), world.now);
    world.carry_out(actions);
}

#[test]
fn a_closed_pool_refuses_whoever_waits_and_whoever_comes() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let busy = world.ask(pool);
    world.settle();
    let (waiting, own) = (world.ask(pool), world.ask_for_own(pool));
    set(&mut world, &Gate::Closed("back at noon".into()));
    let (next, next_own) = (world.ask(pool), world.ask_for_own(pool));
    let refused = [waiting, own, next, next_own].map(|client| (client, closed("back at noon")));
    assert_eq!(world.refused, refused);
    // What is under way ends as it would, and its server is not kept.
    world.give_back(busy);
    assert_eq!(world.closed_because, [CloseReason::Closed]);
    world.settle();
    set(&mut world, &Gate::Open);
    let client = world.ask(pool);
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn a_client_in_login_is_refused_by_a_closed_pool() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let greet = |world: &mut World, client| {
        let mut actions = Actions::default();
        let greeting = world.pools.greet(pool, world.now, || client, &mut actions);
        world.carry_out(actions);
        assert!(matches!(greeting, Greeting::Wait(_)));
    };
    greet(&mut world, 1);
    set(&mut world, &Gate::Closed("no".into()));
    greet(&mut world, 2);
    assert_eq!(world.refused, [(1, closed("no")), (2, closed("no"))]);
}

#[test]
fn a_closed_pool_may_become_a_paused_one() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    set(&mut world, &Gate::Closed("no".into()));
    set(&mut world, &Gate::Paused);
    let client = world.ask(pool);
    assert!(world.refused.is_empty() && world.opening.is_empty());
    set(&mut world, &Gate::Open);
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn a_paused_pool_holds_even_if_the_last_login_failed() {
    let mut world = World::new();
    let down_timeout = Some(SECOND);
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            down_timeout,
            ..limits(1)
        },
    );
    world.ask(pool);
    world.fail_open(FailureKind::Login);
    assert_eq!(world.refused.len(), 1);
    set(&mut world, &Gate::Paused);
    let client = world.ask(pool);
    world.now += 60 * SECOND;
    world.tick();
    assert_eq!(world.refused.len(), 1, "nobody tries, so nothing is known");
    set(&mut world, &Gate::Open);
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn waiting_for_a_gate_is_no_overload() {
    let mut world = World::new();
    let wait_target = Some(SECOND);
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            wait_target,
            ..limits(1)
        },
    );
    set(&mut world, &Gate::Paused);
    let (first, second) = (world.ask(pool), world.ask(pool));
    world.now += 60 * SECOND;
    world.tick();
    set(&mut world, &Gate::Open);
    world.settle();
    assert!(world.leased.contains_key(&first));
    world.give_back(first);
    assert!(world.leased.contains_key(&second));
    assert!(world.refused.is_empty());
}

#[test]
fn the_queue_of_a_paused_pool_is_bounded() {
    let mut world = World::new();
    let max_waiting = Some(1);
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            max_waiting,
            ..limits(1)
        },
    );
    set(&mut world, &Gate::Paused);
    world.ask(pool);
    let refused = world.ask(pool);
    assert!(matches!(
        &world.refused[..],
        [(client, Refusal::Crowded(crowded))]
            if *client == refused && crowded.standing.bound == Bound::Paused
    ));
}

#[test]
fn a_quarantined_server_is_counted_until_it_is_released() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let first = world.ask(pool);
    world.settle();
    let (slot, _) = world.leased.remove(&first).expect("it was served");
    world.pools.closing(slot, world.now);
    let actions = world.pools.quarantined(slot, world.now);
    world.carry_out(actions);
    let next = world.ask(pool);
    assert_eq!(world.pools.view()[0].quarantined, 1);
    assert!(world.opening.is_empty(), "the slot is taken");
    // An operator knows that the backend is gone: for the pool that is its end.
    let actions = world.pools.closed(slot, world.now);
    world.carry_out(actions);
    world.settle();
    assert!(world.leased.contains_key(&next));
}
