//! Random life: the books are audited after every step.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    AskForOwn(u8),
    AskForControl(u8),
    Ask(u8),
    AskForApp(u8),
    GiveBack(u8),
    GiveUp(u8),
    Vanish(u8),
    Opened,
    OpenFailed(bool),
    OpenStuck,
    StuckEnds,
    Closed,
    Cancel(u8),
    CancelDone,
    Wait(u8),
    Reconnect,
    Pause,
    Hold,
    Close,
    Resume,
    Resize(u8),
    Thread(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<u8>().prop_map(Step::Ask),
        1 => any::<u8>().prop_map(Step::AskForOwn),
        1 => any::<u8>().prop_map(Step::AskForControl),
        2 => any::<u8>().prop_map(Step::AskForApp),
        5 => any::<u8>().prop_map(Step::GiveBack),
        1 => any::<u8>().prop_map(Step::GiveUp),
        2 => any::<u8>().prop_map(Step::Vanish),
        6 => Just(Step::Opened),
        1 => any::<bool>().prop_map(Step::OpenFailed),
        1 => Just(Step::OpenStuck),
        1 => Just(Step::StuckEnds),
        5 => Just(Step::Closed),
        1 => any::<u8>().prop_map(Step::Cancel),
        2 => Just(Step::CancelDone),
        2 => any::<u8>().prop_map(Step::Wait),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Pause),
        1 => Just(Step::Hold),
        1 => Just(Step::Close),
        1 => Just(Step::Resume),
        1 => (0..4_u8).prop_map(Step::Resize),
        3 => (0..3_u16).prop_map(Step::Thread),
    ]
}

fn nth<K: Copy + Ord, V>(map: &BTreeMap<K, V>, n: u8) -> Option<K> {
    let len = map.len();
    (len > 0).then(|| {
        *map.keys()
            .nth(usize::from(n) % len)
            .expect("n is below len")
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens: the books balance, no limit is passed, and when life calms down everybody
    /// who waits is served.
    #[test]
    fn no_life_unbalances_the_books(steps in proptest::collection::vec(step(), 1..200)) {
        let mut world = World::new();
        world.limit_database("p", 4);
        world.limit(Scope::HostServers("host".into()), 5);
        world.limit(Scope::HostLogins("host".into()), 2);
        world.limit(Scope::Waiting, 20);
        let ids = [
            world.pool("p", "a", limits(3)),
            world.pool("p", "b", PoolLimits { reserve: 1, min: 1, ..limits(2) }),
            world.pool("q", "a", PoolLimits { wait_target: Some(3 * SECOND), ..limits(2) }),
        ];
        let mut canceling = Vec::new();
        // Nothing is opened while the pools are held.
        let mut opening_max = usize::MAX;
        for step in steps {
            match step {
                Step::Ask(pool) => { world.ask(ids[usize::from(pool) % ids.len()]); }
                Step::AskForApp(pool) => {
                    world.ask_for_app(ids[usize::from(pool) % ids.len()], "shop", 1);
                }
                Step::AskForOwn(pool) => {
                    world.ask_for_own(ids[usize::from(pool) % ids.len()]);
                }
                // Closing takes a pool out of a hold here, which the shell does not do.
                Step::AskForControl(_) if opening_max != usize::MAX => {}
                Step::AskForControl(pool) => {
                    // Whether there is room does not matter here.
                    let _ = world.ask_for_control(ids[usize::from(pool) % ids.len()]);
                }
                Step::GiveBack(n) => if let Some(client) = nth(&world.leased, n) {
                    world.give_back(client);
                },
                Step::GiveUp(n) => if let Some(client) = nth(&world.tickets, n) {
                    world.give_up(client);
                },
                Step::Vanish(n) => if let Some(client) = nth(&world.leased, n) {
                    let (slot, _) = world.leased.remove(&client).unwrap();
                    world.pools.closing(slot, world.now);
                    world.closing.push(slot);
                },
                Step::Opened => { world.finish_open(); }
                Step::OpenFailed(login) => {
                    world.fail_open(if login { FailureKind::Login } else { FailureKind::Connect });
                }
                Step::OpenStuck => if let Some(slot) = world.opening.pop() {
                    world.get_stuck(slot);
                },
                Step::StuckEnds => if let Some(slot) = world.stuck.pop() {
                    world.closing.push(slot);
                    world.finish_close();
                },
                Step::Closed => { world.finish_close(); }
                Step::Cancel(n) => if let Some(client) = nth(&world.leased, n) {
                    let (slot, _) = world.leased[&client];
                    if world.pools.begin_cancel(slot) {
                        canceling.push(slot);
                    }
                },
                Step::CancelDone => if let Some(slot) = canceling.pop() {
                    let actions = world.pools.end_cancel(slot, world.now);
                    world.carry_out(actions);
                },
                Step::Wait(seconds) => {
                    world.now += u32::from(seconds) * SECOND;
                    world.tick();
                }
                Step::Reconnect => {
                    let actions = world.pools.reconnect(|name| name == "p", world.now);
                    world.carry_out(actions);
                }
                Step::Pause => {
                    let actions = world.pools.pause(|name| name == "p", world.now);
                    world.carry_out(actions);
                }
                Step::Hold => {
                    world.pools.hold();
                    opening_max = world.opening.len();
                    for (slot, server) in world.pools.take_idle(world.now) {
                        let actions = world.pools.checkin(slot, server, world.now);
                        world.carry_out(actions);
                    }
                }
                Step::Close => {
                    let gate = |name: &str| (name == "q").then(|| Gate::Closed("no".into()));
                    let actions = world.pools.set_gates(gate, world.now);
                    world.carry_out(actions);
                }
                Step::Resume => {
                    opening_max = usize::MAX;
                    let actions = world.pools.resume(|_| true, world.now);
                    world.carry_out(actions);
                }
                Step::Resize(size) => {
                    let wait_target = Some(3 * SECOND);
                    let limits = PoolLimits { wait_target, ..limits(u32::from(size)) };
                    world.pools.set_limits(ids[2], limits);
                }
                Step::Thread(thread) => HERE.set(thread),
            }
            prop_assert_eq!(world.pools.audit(), Ok(()));
            prop_assert!(world.opening.len() <= opening_max);
            let database = world.pools.budget.gauge(&Scope::DatabaseServers("p".into()));
            prop_assert!(database.used <= 4);
            for (scope, limit) in [
                (Scope::HostServers("host".into()), 5),
                (Scope::HostLogins("host".into()), 2),
                (Scope::AppServers("shop".into()), 1),
                (Scope::Waiting, 20),
            ] {
                let used = world.pools.budget.gauge(&scope).used;
                prop_assert!(used <= limit, "{used} of {scope}");
            }
            for view in world.pools.view() {
                let total = view.opening + view.idle + view.leased + view.resetting
                    + view.being_canceled + view.closing + view.quarantined;
                prop_assert!(total - view.control <= 3, "{view:?}");
            }
        }
        // Calm: what was stuck ends, cancels arrive, pauses end, limits are sane, everybody gives back what he gets.
        world.pools.set_limits(ids[2], limits(2));
        let stuck = std::mem::take(&mut world.stuck);
        world.closing.extend(stuck);
        for slot in canceling {
            let actions = world.pools.end_cancel(slot, world.now);
            world.carry_out(actions);
        }
        let actions = world.pools.resume(|_| true, world.now);
        world.carry_out(actions);
        for _ in 0..1000 {
            if world.tickets.is_empty() && world.leased.is_empty() {
                break;
            }
            world.settle();
            while let Some(client) = nth(&world.leased, 0) {
                world.give_back(client);
            }
            world.now += 20 * SECOND;
            world.tick();
        }
        prop_assert!(world.tickets.is_empty(), "{} are never served", world.tickets.len());
    }
}
