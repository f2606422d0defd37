//! Operations on pools: the books balance after every one, and no limit is passed.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use libfuzzer_sys::{arbitrary, fuzz_target};
use pgweir_pool::{
    Action, Actions, Checkout, Failure, FailureKind, Gate, PoolId, PoolLimits, PoolName,
    PoolScopes, Pools, Scope, SlotId, Ticket,
};

#[derive(Debug, arbitrary::Arbitrary)]
enum Step {
    Ask(u8),
    Greet(u8),
    GiveBack(u8),
    Clean(u8),
    GiveUp(u8),
    Vanish(u8),
    Opened(u8),
    OpenFailed(u8, bool),
    Closed(u8),
    Quarantine(u8),
    Cancel(u8),
    CancelDone(u8),
    Wait(u16),
    Reconnect(u8),
    Pause(u8),
    Resume(u8),
    Resize(u8, u8, u8, u8),
    LimitDatabase(u8),
    Retire(u8),
}

#[derive(Default)]
struct World {
    pools: Pools<u32, u32>,
    opening: Vec<SlotId>,
    closing: Vec<SlotId>,
    leased: Vec<(SlotId, u32)>,
    canceling: Vec<SlotId>,
    waiting: Vec<(PoolId, Ticket, u32)>,
    last: u32,
}

impl World {
    fn carry_out(&mut self, actions: Actions<u32, u32>) {
        for action in actions {
            match action {
                Action::Open { slot, .. } => self.opening.push(slot),
                Action::Serve { waiter, lease, .. } => {
                    self.answered(waiter);
                    self.leased.push((lease.slot, lease.server));
                }
                Action::Greet { waiter, .. } | Action::Refuse { waiter, .. } => {
                    self.answered(waiter)
                }
                Action::Close { slot, .. } => self.closing.push(slot),
                Action::TakingReserve { .. } => {}
            }
        }
    }

    fn answered(&mut self, waiter: u32) {
        let place = self.waiting.iter().position(|(_, _, w)| *w == waiter);
        self.waiting
            .swap_remove(place.expect("only who waits is answered"));
    }
}

fn take<T>(items: &mut Vec<T>, n: u8) -> Option<T> {
    let len = items.len();
    (len > 0).then(|| items.swap_remove(usize::from(n) % len))
}

fn limits(size: u8, reserve: u8, min: u8) -> PoolLimits {
    PoolLimits {
        size: (size % 8 < 6).then(|| u32::from(size % 8)),
        min: u32::from(min % 4),
        min_without_clients: min >= 128,
        reserve: u32::from(reserve % 3),
        reserve_after: (reserve < 128).then(|| Duration::from_secs(5)),
        lifetime: Some(Duration::from_secs(u64::from(size) * 10)),
        idle_timeout: Some(Duration::from_secs(600)),
        login_retry: Duration::from_secs(15),
        check_after: Some(Duration::from_secs(30)),
        round_robin: size >= 128,
        weight: u32::from(reserve % 3),
        max_waiting: (min % 2 == 0).then_some(5),
        wait_target: (min % 3 == 0).then(|| Duration::from_secs(3)),
        down_timeout: (min % 5 == 0).then(|| Duration::from_secs(3)),
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let mut now = Instant::now();
    let mut world = World::default();
    let databases: [Arc<str>; 2] = ["p".into(), "q".into()];
    let names = [("p", "a"), ("p", "b"), ("q", "a")];
    let scope = Scope::DatabaseServers(databases[0].clone());
    world.pools.budget.set_limit(&scope, Some(4));
    for step in steps {
        let ids = names.map(|(database, user)| {
            let name = PoolName {
                database: database.into(),
                user: user.into(),
            };
            let servers = [
                Scope::DatabaseServers(database.into()),
                Scope::UserServers(user.into()),
            ];
            let scopes = || PoolScopes {
                servers: servers.into(),
                login: Some(Scope::HostLogins("host".into())),
            };
            world
                .pools
                .ensure(&name, scopes, limits(3, 0, 0), Gate::Open, now)
        });
        let id = |n: u8| ids[usize::from(n) % ids.len()];
        let which = |n: u8| move |name: &str| n.is_multiple_of(2) || name == "p";
        let mut actions = Actions::default();
        match step {
            Step::Ask(n) => {
                world.last += 1;
                let client = world.last;
                match world
                    .pools
                    .checkout(id(n), now, None, || client, &mut actions)
                {
                    Checkout::Ready(lease) => world.leased.push((lease.slot, lease.server)),
                    Checkout::Wait(ticket) => world.waiting.push((id(n), ticket, client)),
                    Checkout::Refused(_) => {}
                }
            }
            Step::Greet(n) => {
                world.last += 1;
                let client = world.last;
                if let pgweir_pool::Greeting::Wait(ticket) =
                    world.pools.greet(id(n), now, || client, &mut actions)
                {
                    world.waiting.push((id(n), ticket, client));
                }
            }
            Step::GiveBack(n) => {
                if let Some((slot, server)) = take(&mut world.leased, n) {
                    actions = world.pools.checkin(slot, server, now);
                }
            }
            Step::Clean(n) => {
                if let Some((slot, _)) = world.leased.get(usize::from(n)) {
                    world.pools.resetting(*slot, now);
                }
            }
            Step::GiveUp(n) => {
                if let Some((pool, ticket, client)) = take(&mut world.waiting, n) {
                    let left = world.pools.leave_queue(pool, ticket, now);
                    assert_eq!(left.map(|(waiter, _)| waiter), Some(client));
                }
            }
            Step::Vanish(n) => {
                if let Some((slot, _)) = take(&mut world.leased, n) {
                    world.pools.closing(slot, now);
                    world.closing.push(slot);
                }
            }
            Step::Opened(n) => {
                if let Some(slot) = take(&mut world.opening, n) {
                    world.last += 1;
                    actions = world.pools.opened(slot, world.last, now);
                }
            }
            Step::OpenFailed(n, login) => {
                if let Some(slot) = take(&mut world.opening, n) {
                    let kind = match login {
                        true => FailureKind::Login,
                        false => FailureKind::Connect,
                    };
                    let failure = Failure {
                        message: "no".into(),
                        sqlstate: None,
                        kind,
                    };
                    actions = world.pools.open_failed(slot, failure, now);
                }
            }
            Step::Closed(n) => {
                if let Some(slot) = take(&mut world.closing, n) {
                    actions = world.pools.closed(slot, now);
                }
            }
            Step::Quarantine(n) => {
                if let Some(slot) = world.closing.get(usize::from(n)) {
                    world.pools.quarantined(*slot, now);
                }
            }
            Step::Cancel(n) => {
                if let Some((slot, _)) = world.leased.get(usize::from(n))
                    && world.pools.begin_cancel(*slot)
                {
                    world.canceling.push(*slot);
                }
            }
            Step::CancelDone(n) => {
                if let Some(slot) = take(&mut world.canceling, n) {
                    actions = world.pools.end_cancel(slot, now);
                }
            }
            Step::Wait(seconds) => {
                now += Duration::from_secs(u64::from(seconds));
                let upkeep = world
                    .pools
                    .tick(now, Some(Duration::from_secs(100)), |_| false);
                actions = upkeep.actions;
            }
            Step::Reconnect(n) => actions = world.pools.reconnect(which(n), now),
            Step::Pause(n) => actions = world.pools.pause(which(n), now),
            Step::Resume(n) => actions = world.pools.resume(which(n), now),
            Step::Resize(n, size, reserve, min) => {
                world.pools.set_limits(id(n), limits(size, reserve, min));
            }
            Step::LimitDatabase(limit) => {
                let limit = u32::from(limit % 8);
                world.pools.budget.set_limit(&scope, Some(limit));
            }
            Step::Retire(n) => actions = world.pools.retire(id(n), now),
        }
        world.carry_out(actions);
        assert_eq!(world.pools.audit(), Ok(()));
    }
});
