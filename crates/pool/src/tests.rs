//! The laws of the pool: stories of single rules, and random life. Here is the world that all of them happen in.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::*;

mod causes;
mod dedicated;
mod gates;
mod holding;
mod laws;
mod overload;
mod queue;
mod sharing;
mod sizes;
mod stuck;
mod upkeep;

const SECOND: Duration = Duration::from_secs(1);

thread_local! {
    /// The number of the thread that the world is in.
    static HERE: Cell<u16> = const { Cell::new(0) };
}

fn limits(size: u32) -> PoolLimits {
    PoolLimits {
        size: Some(size),
        reserve_after: Some(5 * SECOND),
        lifetime: Some(3600 * SECOND),
        idle_timeout: Some(600 * SECOND),
        login_retry: 15 * SECOND,
        ..PoolLimits::default()
    }
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        message: "no".into(),
        sqlstate: None,
        kind,
    }
}

/// A world with opaque servers (numbers) and waiters (numbers) that carries out actions at once
/// or keeps them, as the story wants.
struct World {
    pools: Pools<u32, u32>,
    now: Instant,
    opening: Vec<SlotId>,
    closing: Vec<SlotId>,
    /// Failed logins whose connection does not end.
    stuck: Vec<SlotId>,
    leased: BTreeMap<u32, (SlotId, u32)>,
    tickets: BTreeMap<u32, (PoolId, Ticket)>,
    /// Clients whose server is theirs alone.
    owners: BTreeSet<u32>,
    refused: Vec<(u32, Refusal)>,
    /// What the waits that have ended are put down to.
    causes: BTreeMap<u32, Option<Cause>>,
    closed_because: Vec<CloseReason>,
    next: u32,
}

impl World {
    fn new() -> Self {
        HERE.set(0);
        Self {
            pools: Pools::of_threads(Threads {
                here: || HERE.get(),
                watches: |_| true,
            }),
            now: Instant::now(),
            opening: Vec::new(),
            closing: Vec::new(),
            stuck: Vec::new(),
            leased: BTreeMap::new(),
            tickets: BTreeMap::new(),
            owners: BTreeSet::new(),
            refused: Vec::new(),
            causes: BTreeMap::new(),
            closed_because: Vec::new(),
            next: 0,
        }
    }

    fn pool(&mut self, database: &str, user: &str, limits: PoolLimits) -> PoolId {
        let name = PoolName {
            database: database.into(),
            user: user.into(),
        };
        let servers = [
            Scope::HostServers("host".into()),
            Scope::DatabaseServers(name.database.clone()),
            Scope::UserServers(name.user.clone()),
        ];
        let scopes = PoolScopes {
            servers: servers.into(),
            login: Some(Scope::HostLogins("host".into())),
        };
        self.pools
            .ensure(&name, || scopes, limits, Gate::Open, self.now)
    }

    fn limit_database(&mut self, database: &str, limit: u32) {
        self.limit(Scope::DatabaseServers(database.into()), limit);
    }

    fn limit(&mut self, scope: Scope, limit: u32) {
        self.pools.budget.set_limit(&scope, Some(limit));
    }

    /// A new client asks for a server; its number.
    fn ask(&mut self, pool: PoolId) -> u32 {
        self.ask_as(pool, None)
    }

    /// A new client of an application that may have so many servers asks for one; its number.
    fn ask_for_app(&mut self, pool: PoolId, app: &str, limit: u32) -> u32 {
        let budget = &mut self.pools.budget;
        budget.set_limit_of_each(Kind::AppServers, Some(limit));
        self.ask_as(pool, Some(&[Scope::AppServers(app.into())].into()))
    }

    fn ask_as(&mut self, pool: PoolId, party: Option<&Party>) -> u32 {
        self.next += 1;
        let client = self.next;
        let mut actions = Actions::default();
        let outcome = self
            .pools
            .checkout(pool, self.now, party, || client, &mut actions);
        match outcome {
            Checkout::Ready(Lease { slot, server, .. }) => {
                self.leased.insert(client, (slot, server));
            }
            Checkout::Wait(ticket) => {
                self.tickets.insert(client, (pool, ticket));
            }
            Checkout::Refused(refusal) => self.refused.push((client, refusal)),
        }
        self.carry_out(actions);
        client
    }

    fn inherit(&mut self, pool: PoolId, past: Past) -> SlotId {
        let inherited = Inherited {
            past,
            host: None,
            is_control: false,
            opened_at: self.now,
        };
        self.pools.inherit(pool, inherited, self.now)
    }

    /// A new client asks for a server of its own; its number.
    fn ask_for_own(&mut self, pool: PoolId) -> u32 {
        self.next += 1;
        let client = self.next;
        let mut actions = Actions::default();
        let ticket = self.pools.dedicate(pool, self.now, || client, &mut actions);
        self.tickets.insert(client, (pool, ticket));
        self.owners.insert(client);
        self.carry_out(actions);
        client
    }

    /// The pooler itself asks for a server; the number of who does.
    fn ask_for_control(&mut self, pool: PoolId) -> Result<u32, Option<Scope>> {
        self.next += 1;
        let client = self.next;
        let mut actions = Actions::default();
        let (now, out) = (self.now, &mut actions);
        let ticket = self.pools.open_control(pool, client, now, out)?;
        self.tickets.insert(client, (pool, ticket));
        self.owners.insert(client);
        self.carry_out(actions);
        Ok(client)
    }

    fn carry_out(&mut self, actions: Actions<u32, u32>) {
        for action in actions {
            match action {
                Action::Open { slot, .. } => self.opening.push(slot),
                Action::Serve {
                    waiter,
                    lease: Lease { slot, server, .. },
                    cause,
                } => {
                    self.causes.insert(waiter, cause);
                    assert!(
                        self.tickets.remove(&waiter).is_some(),
                        "served, but did not wait"
                    );
                    self.leased.insert(waiter, (slot, server));
                }
                Action::Refuse {
                    waiter,
                    refusal,
                    cause,
                } => {
                    self.causes.insert(waiter, cause);
                    self.tickets.remove(&waiter);
                    self.refused.push((waiter, refusal));
                }
                Action::Close { slot, reason, .. } => {
                    self.closing.push(slot);
                    self.closed_because.push(reason);
                }
                Action::Greet { .. } | Action::TakingReserve { .. } => {}
            }
        }
        assert_eq!(self.pools.audit(), Ok(()));
    }

    fn finish_open(&mut self) -> bool {
        let Some(slot) = self.opening.pop() else {
            return false;
        };
        self.next += 1;
        let actions = self.pools.opened(slot, self.next, self.now);
        self.carry_out(actions);
        true
    }

    fn fail_open(&mut self, kind: FailureKind) -> bool {
        let Some(slot) = self.opening.pop() else {
            return false;
        };
        let actions = self.pools.open_failed(slot, failure(kind), self.now);
        self.carry_out(actions);
        true
    }

    /// A login fails, and PostgreSQL does not close its connection.
    fn get_stuck(&mut self, slot: SlotId) {
        let failure = failure(FailureKind::Connect);
        let actions = self.pools.open_stuck(slot, failure, self.now);
        self.carry_out(actions);
        self.stuck.push(slot);
    }

    fn finish_close(&mut self) -> bool {
        let Some(slot) = self.closing.pop() else {
            return false;
        };
        let actions = self.pools.closed(slot, self.now);
        self.carry_out(actions);
        true
    }

    fn give_back(&mut self, client: u32) {
        let (slot, server) = self.leased.remove(&client).expect("it holds a server");
        if self.owners.contains(&client) {
            self.pools.closing(slot, self.now);
            self.closing.push(slot);
            return;
        }
        let actions = self.pools.checkin(slot, server, self.now);
        self.carry_out(actions);
    }

    fn give_up(&mut self, client: u32) {
        let (pool, ticket) = self.tickets.remove(&client).expect("it waits");
        let left = self.pools.leave_queue(pool, ticket, self.now);
        assert_eq!(left.map(|(waiter, _)| waiter), Some(client));
        assert_eq!(self.pools.audit(), Ok(()));
    }

    fn tick(&mut self) {
        let upkeep = self.pools.tick(self.now, None, |_| false);
        self.carry_out(upkeep.actions);
    }

    /// Lets everything that is under way happen until nothing is.
    fn settle(&mut self) {
        while self.finish_open() || self.finish_close() {}
    }
}
