//! Logins that fail and whose connection PostgreSQL does not close.

use super::*;

fn stick(world: &mut World) -> SlotId {
    let slot = world.opening.pop().expect("a login is under way");
    world.get_stuck(slot);
    slot
}

fn refused(world: &World) -> Vec<u32> {
    world.refused.iter().map(|(client, _)| *client).collect()
}

#[test]
fn a_dedicated_login_that_is_stuck_does_not_count_as_one_under_way() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(5));
    let own = world.ask_for_own(pool);
    let slot = stick(&mut world);
    assert_eq!(refused(&world), [own]);
    // Until one has worked, one at a time is tried.
    let clients = [world.ask(pool), world.ask(pool)];
    assert_eq!(world.opening.len(), 1);
    world.settle();
    assert!(
        clients
            .iter()
            .all(|client| world.leased.contains_key(client))
    );
    let actions = world.pools.closed(slot, world.now);
    world.carry_out(actions);
    assert_eq!(world.pools.view()[0].total(), 2);
}

#[test]
fn a_login_that_is_stuck_lets_others_log_in() {
    let mut world = World::new();
    world.limit(Scope::HostLogins("host".into()), 1);
    let [first, second] = ["a", "b"].map(|user| world.pool("p", user, limits(1)));
    world.ask(first);
    let client = world.ask(second);
    assert_eq!(world.opening.len(), 1);
    stick(&mut world);
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn a_login_that_is_stuck_has_failed() {
    let mut world = World::new();
    let down_timeout = Some(SECOND);
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            down_timeout,
            ..limits(5)
        },
    );
    let client = world.ask(pool);
    world.now += 2 * SECOND;
    let slot = stick(&mut world);
    assert_eq!(refused(&world), [client]);
    assert!(world.opening.is_empty());
    assert_eq!(world.pools.view()[0].quarantined, 1);
    let actions = world.pools.closed(slot, world.now);
    world.carry_out(actions);
    assert_eq!(world.pools.view()[0].total(), 0);
}

#[test]
fn servers_that_do_not_end_are_no_servers() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(5));
    let [first, second] = [world.ask(pool), world.ask(pool)];
    world.settle();
    // The host is lost, and the network says nothing of it.
    for client in [first, second] {
        let (slot, _) = world.leased.remove(&client).expect("it was served");
        world.pools.closing(slot, world.now);
        if client == first {
            let actions = world.pools.quarantined(slot, world.now);
            world.carry_out(actions);
        }
    }
    let waiting = world.ask(pool);
    world.fail_open(FailureKind::Connect);
    let late = world.ask(pool);
    assert_eq!(refused(&world), [late]);
    assert!(world.tickets.contains_key(&waiting));
    // Those who wait are told in time, and somebody tries again.
    let down_timeout = Some(SECOND);
    let limits = PoolLimits {
        down_timeout,
        ..limits(5)
    };
    world.pools.set_limits(pool, limits);
    world.now += SECOND;
    world.tick();
    assert_eq!(refused(&world), [late, waiting]);
    assert!(world.pools.view()[0].failing.is_some());
    assert!(world.opening.is_empty());
    let actions = world.pools.probe(pool, world.now);
    world.carry_out(actions);
    assert_eq!(world.opening.len(), 1);
}
