//! What a wait is put down to.

use super::*;

#[track_caller]
fn cause(world: &World, client: u32) -> Cause {
    let cause = world.causes.get(&client).copied();
    cause.expect("it was served or refused").expect("it waited")
}

#[test]
fn a_login_that_is_under_way_is_one_for_as_many_as_there_are_logins() {
    let mut world = World::new();
    world.limit(Scope::HostLogins("host".into()), 1);
    let pool = world.pool("p", "u", limits(5));
    let (first, second) = (world.ask(pool), world.ask(pool));
    world.settle();
    assert_eq!(cause(&world, first), Cause::Login);
    assert_eq!(cause(&world, second), Cause::HostLogins);
}

#[test]
fn a_limit_is_named_by_its_key() {
    for (scope, expected) in [
        (Scope::DatabaseServers("p".into()), Cause::DatabaseServers),
        (Scope::UserServers("u".into()), Cause::UserServers),
        (Scope::HostServers("host".into()), Cause::HostServers),
    ] {
        let mut world = World::new();
        world.limit(scope.clone(), 1);
        let pool = world.pool("p", "u", limits(5));
        let holder = world.ask(pool);
        world.settle();
        let waiter = world.ask(pool);
        world.give_back(holder);
        assert_eq!(cause(&world, waiter), expected);
        assert_eq!(expected.word(), scope.key());
    }
}

#[test]
fn the_longest_stretch_counts() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let holder = world.ask(pool);
    world.settle();
    let [early, late] = [1, 5].map(|seconds| {
        let waiter = world.ask(pool);
        world.now += Duration::from_secs(seconds);
        waiter
    });
    // The first has waited for 6 s because the pool is full when it is paused for 3 s.
    let actions = world.pools.pause(|_| true, world.now);
    world.carry_out(actions);
    world.tick();
    world.now += Duration::from_secs(5);
    world.tick();
    world.now += Duration::from_millis(500);
    let actions = world.pools.resume(|_| true, world.now);
    world.carry_out(actions);
    world.give_back(holder);
    assert_eq!(cause(&world, early), Cause::PoolSize);
    world.tick();
    let (slot, _) = world.leased[&early];
    assert!(world.pools.slots.get(slot).is_some());
    world.give_back(early);
    assert_eq!(cause(&world, late), Cause::Paused);
}

#[test]
fn whoever_leaves_is_told_what_for() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    world.ask_for_app(pool, "report", 1);
    world.settle();
    let held_back = world.ask_for_app(pool, "report", 1);
    let (pool, ticket) = world.tickets[&held_back];
    let left = world.pools.leave_queue(pool, ticket, world.now);
    assert_eq!(left, Some((held_back, Some(Cause::AppServers))));
    assert_eq!(world.pools.leave_queue(pool, ticket, world.now), None);
}

#[test]
fn after_a_failure_it_is_the_failure() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    let waiter = world.ask(pool);
    world.now += Duration::from_secs(1);
    assert!(world.fail_open(FailureKind::Connect));
    world.tick();
    world.now += Duration::from_secs(16);
    world.tick();
    world.settle();
    assert_eq!(cause(&world, waiter), Cause::ServerDown);
}
