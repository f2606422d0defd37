//! More want servers than there are: who waits, for how long, and who is told no.

use super::*;

fn why(refusal: &Refusal) -> Crowd {
    match refusal {
        Refusal::Crowded(crowded) => crowded.crowd,
        Refusal::Login(_) | Refusal::Failing(_) | Refusal::Closed(_) | Refusal::Removed => {
            panic!("not crowded: {refusal:?}")
        }
    }
}

#[test]
fn a_full_queue_lets_nobody_in() {
    let mut world = World::new();
    let max_waiting = Some(2);
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            max_waiting,
            ..limits(1)
        },
    );
    let holder = world.ask(pool);
    world.settle();
    let first = world.ask(pool);
    world.ask(pool);
    let refused = world.ask(pool);
    assert_eq!(world.refused.len(), 1);
    let (client, refusal) = &world.refused[0];
    assert_eq!((*client, why(refusal)), (refused, Crowd::PoolQueue));
    let Refusal::Crowded(crowded) = refusal else {
        unreachable!("asserted above")
    };
    let bound = Bound::PoolSize { used: 1, limit: 1 };
    assert_eq!(
        (&crowded.standing.bound, crowded.standing.waiting),
        (&bound, 2)
    );
    world.give_back(holder);
    assert!(world.leased.contains_key(&first));
}

#[test]
fn all_queues_together_have_a_limit() {
    let mut world = World::new();
    world.limit(Scope::Waiting, 2);
    let pools = [
        world.pool("p", "u", limits(1)),
        world.pool("q", "u", limits(1)),
    ];
    world.ask(pools[0]);
    world.ask(pools[1]);
    assert_eq!(world.refused.len(), 0);
    world.ask(pools[0]);
    assert_eq!(why(&world.refused[0].1), Crowd::AllQueues);
    world.settle();
    world.ask(pools[0]);
    assert_eq!(world.refused.len(), 1);
}

#[test]
fn overload_refuses_those_who_have_waited_too_long_and_serves_the_others() {
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
    let holder = world.ask(pool);
    world.settle();
    let old = world.ask(pool);
    world.now += 2 * SECOND;
    let young = world.ask(pool);
    world.give_back(holder);
    let refused: Vec<_> = world.refused.iter().map(|(client, _)| *client).collect();
    assert_eq!(refused, [old]);
    assert!(world.leased.contains_key(&young));
}

#[test]
fn a_queue_that_gets_empty_is_no_overload() {
    let mut world = World::new();
    let wait_target = Some(Duration::from_millis(5));
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            wait_target,
            ..limits(1)
        },
    );
    let mut holder = world.ask(pool);
    world.settle();
    for _ in 0..10 {
        let next = world.ask(pool);
        world.now += Duration::from_millis(50);
        world.give_back(holder);
        assert!(world.leased.contains_key(&next));
        holder = next;
    }
}

#[test]
fn an_application_at_its_limit_is_overtaken() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(3));
    let first = world.ask_for_app(pool, "report", 1);
    world.settle();
    let held_back = world.ask_for_app(pool, "report", 1);
    world.settle();
    assert!(!world.leased.contains_key(&held_back));
    let standing = world.pools.standing(pool, Some(&report()), world.now);
    let bound = standing.expect("the pool is there").bound;
    assert!(matches!(bound, Bound::Party(..)), "{bound:?}");
    let other = world.ask_for_app(pool, "shop", 1);
    world.settle();
    assert!(world.leased.contains_key(&other));
    world.give_back(first);
    assert!(world.leased.contains_key(&held_back));
}

fn report() -> Party {
    [Scope::AppServers("report".into())].into()
}

#[test]
fn what_an_application_gives_back_in_one_pool_it_gets_in_another() {
    let mut world = World::new();
    let here = world.pool("p", "u", limits(1));
    let there = world.pool("q", "u", limits(1));
    let first = world.ask_for_app(here, "report", 1);
    let warm = world.ask(there);
    world.settle();
    world.give_back(warm);
    let held_back = world.ask_for_app(there, "report", 1);
    assert!(
        !world.leased.contains_key(&held_back),
        "beside an idle server"
    );
    world.give_back(first);
    assert!(world.leased.contains_key(&held_back));
}

#[test]
fn a_client_that_vanishes_does_not_stay_on_its_applications_bill() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(2));
    let first = world.ask_for_app(pool, "report", 1);
    world.settle();
    let second = world.ask_for_app(pool, "report", 1);
    let (slot, _) = world.leased.remove(&first).expect("it was served");
    world.pools.closing(slot, world.now);
    world.closing.push(slot);
    world.settle();
    assert!(world.leased.contains_key(&second));
}

#[test]
fn while_no_login_works_nobody_waits_longer_than_he_should() {
    let mut world = World::new();
    let down_timeout = Some(5 * SECOND);
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            down_timeout,
            ..limits(2)
        },
    );
    let client = world.ask(pool);
    world.fail_open(FailureKind::Connect);
    world.now += 4 * SECOND;
    world.tick();
    assert!(world.refused.is_empty(), "it may come back");
    world.fail_open(FailureKind::Connect);
    world.now += SECOND;
    world.tick();
    let failing = Refusal::Failing(failure(FailureKind::Connect));
    assert_eq!(world.refused, [(client, failing)]);
}

#[test]
fn a_postgres_without_a_connection_to_spare_is_waited_for() {
    let mut world = World::new();
    let down_timeout = Some(SECOND);
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            down_timeout,
            ..limits(2)
        },
    );
    let early = world.ask(pool);
    world.fail_open(FailureKind::Busy);
    world.now += 2 * SECOND;
    let late = world.ask(pool);
    world.tick();
    assert!(world.refused.is_empty(), "{:?}", world.refused);
    world.settle();
    assert!(world.leased.contains_key(&early));
    world.give_back(early);
    assert!(world.leased.contains_key(&late));
}

#[test]
fn a_server_that_cannot_be_reached_is_tried_soon_and_then_more_seldom() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(1));
    world.ask(pool);
    let start = world.now;
    let mut attempts = Vec::new();
    for _ in 0..60_000 / 50 {
        if world.fail_open(FailureKind::Connect) {
            attempts.push((world.now - start).as_millis());
        }
        world.now += Duration::from_millis(50);
        world.tick();
    }
    let pauses: Vec<_> = attempts.windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(pauses[..7], [200, 400, 800, 1600, 3200, 6400, 12_800]);
    assert!(
        pauses[7..].iter().all(|pause| *pause == 15_000),
        "{pauses:?}"
    );
}

#[test]
fn logins_at_one_host_are_counted_over_all_its_pools() {
    let mut world = World::new();
    world.limit(Scope::HostLogins("host".into()), 2);
    let pools = ["a", "b", "c"].map(|name| world.pool(name, "u", limits(1)));
    let clients = pools.map(|pool| world.ask(pool));
    assert_eq!(world.opening.len(), 2);
    world.finish_open();
    assert_eq!(world.opening.len(), 2, "the third has its turn");
    world.settle();
    assert!(
        clients
            .iter()
            .all(|client| world.leased.contains_key(client))
    );
}

#[test]
fn a_failed_login_makes_room_for_another_pools() {
    let mut world = World::new();
    world.limit(Scope::HostLogins("host".into()), 1);
    let pools = ["a", "b"].map(|name| world.pool(name, "u", limits(1)));
    let [_, second] = pools.map(|pool| world.ask(pool));
    world.fail_open(FailureKind::Connect);
    world.settle();
    assert!(world.leased.contains_key(&second));
}

#[test]
fn a_chosen_host_has_a_limit_too() {
    let mut world = World::new();
    let replica = Scope::HostServers("replica".into());
    world.limit(replica.clone(), 1);
    let pool = world.pool("p", "u", limits(2));
    world.ask(pool);
    world.finish_open();
    world.ask(pool);
    world.ask(pool);
    let slots: Vec<_> = world.pools.slots().map(|slot| slot.id).collect();
    assert_eq!(slots.len(), 2);
    assert!(world.pools.choose_host(slots[0], &replica));
    assert!(!world.pools.choose_host(slots[1], &replica));
    assert_eq!(world.pools.audit(), Ok(()));
    let now = world.now;
    world.pools.leave_host(slots[0], now);
    assert_eq!(world.pools.budget.gauge(&replica).used, 0);
    assert!(world.pools.choose_host(slots[1], &replica));
    assert_eq!(world.pools.audit(), Ok(()));
    world.settle();
    assert_eq!(world.pools.budget.gauge(&replica).used, 1);
}

#[test]
fn logins_that_fail_are_not_repeated_without_a_pause() {
    let mut world = World::new();
    let login_retry = Duration::ZERO;
    let pool = world.pool(
        "p",
        "u",
        PoolLimits {
            login_retry,
            ..limits(1)
        },
    );
    for kind in [FailureKind::Connect, FailureKind::Busy, FailureKind::Own] {
        world.ask(pool);
        world.fail_open(kind);
        assert!(world.opening.is_empty(), "{kind:?}");
        world.now += SECOND;
        world.tick();
        assert_eq!(world.opening.len(), 1, "{kind:?}");
    }
}
