//! Servers for one client alone, and the pooler's own.

use super::*;

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
