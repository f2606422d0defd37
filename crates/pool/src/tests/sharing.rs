//! Pools that share a limit: each has its part, and permits do not change hands all the time.

use std::sync::Arc;

use super::*;

/// Lets clients of all pools want servers all the time, each for `held`, and returns how long each
/// pool's servers were lent, in seconds, and how many logins that took.
fn crowd(world: &mut World, pools: &[PoolId], held: Duration, seconds: u64) -> (Vec<f64>, usize) {
    let mut lent = vec![0.0; pools.len()];
    let mut since: BTreeMap<u32, (Option<usize>, Instant)> = BTreeMap::new();
    let mut wanted: BTreeMap<u32, usize> = BTreeMap::new();
    let mut logins = 0;
    for (number, &pool) in pools.iter().enumerate() {
        for _ in 0..20 {
            wanted.insert(world.ask(pool), number);
        }
    }
    let end = world.now + Duration::from_secs(seconds);
    let mut next_tick = world.now;
    while world.now < end {
        world.now += Duration::from_millis(5);
        while world.finish_close() {}
        while world.finish_open() {
            logins += 1;
        }
        if world.now >= next_tick {
            next_tick += Duration::from_millis(333);
            world.tick();
        }
        for client in world.leased.keys() {
            // Those of an earlier crowd go as soon as they are served.
            let number = wanted.get(client).copied();
            since.entry(*client).or_insert((number, world.now));
        }
        let done: Vec<_> = since
            .iter()
            .filter(|(_, (_, began))| world.now - *began >= held)
            .map(|(client, &(number, began))| (*client, number, began))
            .collect();
        for (client, number, began) in done {
            since.remove(&client);
            if let Some(number) = number {
                lent[number] += (world.now - began).as_secs_f64();
                wanted.insert(world.ask(pools[number]), number);
            }
            world.give_back(client);
        }
    }
    (lent, logins)
}

fn assert_parts(lent: &[f64], parts: &[f64]) {
    let sum: f64 = lent.iter().sum();
    let all: f64 = parts.iter().sum();
    for (lent, part) in lent.iter().zip(parts) {
        let ratio = lent / sum / (part / all);
        assert!((0.97..1.03).contains(&ratio), "{lent:?} of {sum}: {ratio}");
    }
}

#[test]
fn three_equal_users_get_a_third_each() {
    for limit in [1, 2, 3, 10] {
        let mut world = World::new();
        world.limit_database("p", limit);
        let pools = ["a", "b", "c"].map(|user| world.pool("p", user, limits(20)));
        let (lent, logins) = crowd(&mut world, &pools, Duration::from_millis(20), 120);
        assert_parts(&lent, &[1.0, 1.0, 1.0]);
        assert!(logins <= 120 * 5 * limit as usize, "{logins} logins");
    }
}

#[test]
fn a_weight_of_two_gets_twice_as_much() {
    for limit in [1, 3, 10] {
        let mut world = World::new();
        world.limit_database("p", limit);
        let heavy = PoolLimits {
            weight: 2,
            ..limits(20)
        };
        let pools = [
            world.pool("p", "a", heavy),
            world.pool("p", "b", limits(20)),
        ];
        let (lent, _) = crowd(&mut world, &pools, Duration::from_millis(20), 120);
        assert_parts(&lent, &[2.0, 1.0]);
    }
}

#[test]
fn who_comes_later_gets_his_part_soon() {
    let mut world = World::new();
    world.limit_database("p", 4);
    let [early, late] = ["a", "b"].map(|user| world.pool("p", user, limits(20)));
    crowd(&mut world, &[early], Duration::from_millis(20), 60);
    let (lent, _) = crowd(&mut world, &[early, late], Duration::from_millis(20), 10);
    assert!(lent[1] / lent[0] > 0.9, "{lent:?}");
}

#[test]
fn two_pools_that_alternate_do_not_log_in_all_the_time() {
    let mut world = World::new();
    world.limit_database("p", 1);
    let pools = ["a", "b"].map(|user| world.pool("p", user, limits(1)));
    let start = world.now;
    let (mut logins, mut turns) = (0, 0);
    let mut client = world.ask(pools[0]);
    for millisecond in 0..10_000 {
        world.now = start + Duration::from_millis(millisecond);
        while world.finish_close() {}
        while world.finish_open() {
            logins += 1;
        }
        if millisecond % 333 == 0 {
            world.tick();
        }
        if world.leased.contains_key(&client) {
            world.give_back(client);
            turns += 1;
            client = world.ask(pools[turns % 2]);
        }
    }
    assert!(turns > 20, "{turns}");
    assert!(logins <= 52, "{logins} logins in ten seconds");
}

#[test]
fn a_permit_that_comes_free_goes_to_who_has_had_least() {
    for greedy_first in [true, false] {
        let mut world = World::new();
        world.limit_database("p", 2);
        let [a, b, c] = ["a", "b", "c"].map(|user| world.pool("p", user, limits(20)));
        world.ask(a);
        let leaving = world.ask(c);
        world.settle();
        // One pool has a server and waits for another; the other one has none.
        let mut ask = [a, b];
        if !greedy_first {
            ask.reverse();
        }
        let mut asked = ask.map(|pool| world.ask(pool));
        if !greedy_first {
            asked.reverse();
        }
        let [greedy, poor] = asked;
        for _ in 0..10 {
            world.now += SECOND / 3;
            world.tick();
        }
        let (slot, _) = world.leased.remove(&leaving).expect("it was served");
        world.pools.closing(slot, world.now);
        world.closing.push(slot);
        world.finish_close();
        // At once, and not after a login for the other one.
        let opening = |id| {
            let views = world.pools.view();
            let view = views.into_iter().find(|view| view.id == id);
            view.map(|view| view.opening)
        };
        assert_eq!(
            (opening(a), opening(b)),
            (Some(0), Some(1)),
            "{greedy_first}"
        );
        world.settle();
        assert!(world.leased.contains_key(&poor), "{greedy_first}");
        assert!(!world.leased.contains_key(&greedy), "{greedy_first}");
    }
}

/// A crowd holds every server for long; one client of another pool wants one for a moment, now and then.
#[test]
fn a_heavy_user_cannot_starve_a_light_one() {
    const HELD: Duration = Duration::from_millis(500);
    let mut world = World::new();
    world.limit_database("p", 4);
    let [heavy, light] = ["a", "b"].map(|user| world.pool("p", user, limits(20)));
    for _ in 0..40 {
        world.ask(heavy);
    }
    let mut since: BTreeMap<u32, Instant> = BTreeMap::new();
    let (mut asked, mut longest, mut served) = (None, Duration::ZERO, 0);
    let start = world.now;
    for step in 0..60_000 / 5 {
        world.now = start + 5 * step * Duration::from_millis(1);
        while world.finish_close() {}
        while world.finish_open() {}
        if step % 67 == 0 {
            world.tick();
        }
        if step % 200 == 199 && asked.is_none() {
            asked = Some((world.ask(light), world.now));
        }
        if let Some((client, at)) = asked
            && world.leased.contains_key(&client)
        {
            longest = longest.max(world.now - at);
            served += 1;
            asked = None;
            world.give_back(client);
        }
        for client in world.leased.keys() {
            since.entry(*client).or_insert(world.now);
        }
        let done: Vec<_> = since
            .iter()
            .filter(|(_, began)| world.now - **began >= HELD)
            .map(|(client, _)| *client)
            .collect();
        for client in done {
            since.remove(&client);
            world.ask(heavy);
            world.give_back(client);
        }
    }
    assert!(served > 50, "{served}");
    // As soon as somebody gives a server back it is his turn; forty wait before him.
    assert!(longest <= HELD + HELD / 2, "{longest:?}");
}

#[test]
fn the_first_login_of_a_pool_has_its_turn() {
    let mut world = World::new();
    world.limit_database("p", 2);
    let (rich, new) = (
        world.pool("p", "a", limits(5)),
        world.pool("p", "b", limits(5)),
    );
    let first = world.ask(rich);
    let second = world.ask(rich);
    world.settle();
    world.ask(rich);
    let mut actions = Actions::default();
    let greeting = world.pools.greet(new, world.now, || 0, &mut actions);
    assert!(matches!(greeting, Greeting::Wait(_)));
    world.carry_out(actions);
    world.give_back(first);
    assert_eq!(world.closed_because, [CloseReason::Evicted]);
    world.settle();
    assert!(world.pools.pool(new).greeted);
    assert!(world.leased.contains_key(&second));
}

#[test]
fn a_client_that_wants_a_server_alone_has_its_turn_at_a_shared_limit() {
    let mut world = World::new();
    world.limit_database("p", 2);
    let (rich, poor) = (
        world.pool("p", "a", limits(5)),
        world.pool("p", "b", limits(5)),
    );
    let [first, _] = [world.ask(rich), world.ask(rich)];
    world.settle();
    world.ask(rich);
    let own = world.ask_for_own(poor);
    world.give_back(first);
    world.settle();
    assert!(world.leased.contains_key(&own));
}

#[test]
fn a_client_that_wants_a_server_alone_has_its_turn_in_a_full_pool() {
    let mut world = World::new();
    let pool = world.pool("p", "u", limits(2));
    let [first, second] = [world.ask(pool), world.ask(pool)];
    world.settle();
    let before = world.ask(pool);
    let own = world.ask_for_own(pool);
    let after = world.ask(pool);
    world.give_back(first);
    assert!(world.leased.contains_key(&before));
    world.give_back(second);
    assert_eq!(world.closed_because, [CloseReason::Evicted]);
    // One server makes room for it, and not more.
    world.give_back(before);
    assert!(world.leased.contains_key(&after));
    world.settle();
    assert!(world.leased.contains_key(&own));
}

/// Two hosts of one server each, and a pool that is on both.
fn two_full_hosts(world: &mut World) -> (PoolId, Arc<[Scope]>) {
    let hosts = ["one", "two"].map(|host| Scope::HostServers(host.into()));
    for host in &hosts {
        world.limit(host.clone(), 1);
    }
    let pool = world.pool("several", "u", limits(5));
    let own = Scope::DatabaseServers("several".into());
    world.set_servers_count_in(pool, &[own]);
    (pool, hosts.into())
}

impl World {
    fn set_servers_count_in(&mut self, pool: PoolId, servers: &[Scope]) {
        let scopes = PoolScopes {
            servers: servers.into(),
            login: None,
        };
        self.pools.set_scopes(pool, scopes);
    }

    /// The attempt to open a server finds every host full.
    fn find_all_full(&mut self, hosts: &Arc<[Scope]>) {
        let slot = self.opening.pop().expect("a server is being opened");
        for host in hosts.iter() {
            assert!(!self.pools.choose_host(slot, host));
        }
        let failure = failure(FailureKind::Busy);
        let hosts = Arc::clone(hosts);
        let actions = self.pools.no_host(slot, hosts, failure, self.now);
        self.carry_out(actions);
    }
}

#[test]
fn an_idle_server_makes_room_on_one_of_several_hosts() {
    let mut world = World::new();
    let (pool, hosts) = two_full_hosts(&mut world);
    // One permit is held by a server of a pool on that host, the other by one of a pool on several.
    let other = world.pool("single", "u", limits(5));
    world.set_servers_count_in(other, &hosts[1..]);
    let several = world.pool("others", "u", limits(5));
    world.set_servers_count_in(several, &[Scope::DatabaseServers("others".into())]);
    world.ask(other);
    world.settle();
    let idle = world.ask(several);
    let slot = world.opening[0];
    assert!(world.pools.choose_host(slot, &hosts[0]));
    world.settle();
    world.give_back(idle);

    let client = world.ask(pool);
    world.find_all_full(&hosts);
    assert!(world.opening.is_empty());
    assert_eq!(world.closed_because, [CloseReason::Evicted]);
    world.finish_close();
    assert_eq!(world.opening.len(), 1, "there is no pause");
    let slot = world.opening[0];
    assert!(world.pools.choose_host(slot, &hosts[0]));
    world.settle();
    assert!(world.leased.contains_key(&client));
}

#[test]
fn a_busy_server_makes_room_on_one_of_several_hosts() {
    let mut world = World::new();
    let (pool, hosts) = two_full_hosts(&mut world);
    world.limit(hosts[0].clone(), 0);
    world.limit(hosts[1].clone(), 2);
    let rich = world.pool("single", "u", limits(5));
    world.set_servers_count_in(rich, &hosts[1..]);
    let [first, second] = [world.ask(rich), world.ask(rich)];
    world.settle();
    let next = world.ask(rich);
    let client = world.ask(pool);
    world.find_all_full(&hosts);
    world.give_back(first);
    assert_eq!(world.closed_because, [CloseReason::Evicted]);
    world.finish_close();
    let slot = world.opening[0];
    assert!(world.pools.choose_host(slot, &hosts[1]));
    world.settle();
    assert!(world.leased.contains_key(&client));
    world.give_back(second);
    assert!(world.leased.contains_key(&next));
}

#[test]
fn who_waits_for_one_of_several_hosts_is_told_so() {
    let mut world = World::new();
    let (pool, hosts) = two_full_hosts(&mut world);
    hosts.iter().for_each(|host| world.limit(host.clone(), 0));
    world.ask(pool);
    world.find_all_full(&hosts);
    let standing = world.pools.standing(pool, None, world.now);
    let bound = standing.expect("it is there").bound;
    assert!(matches!(bound, Bound::Shared(scope, _) if scope == hosts[0]));
    // A changed configuration may have other hosts.
    world.set_servers_count_in(pool, &[]);
    world.tick();
    assert_eq!(world.opening.len(), 1);
}
