//! Holds everything still: SUSPEND, and the first half of handing over.
//!
//! New clients are not accepted any more, and those that log in come to an end of it. Then every
//! client's task puts its session down here and waits; the idle servers are taken out of their
//! pools. What is held can be described and passed on, and on RESUME everybody takes up what he has
//! put down.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pgweir_pool::{SlotId, SlotState};
use tokio::sync::Notify;

use super::successor::Successor;
use crate::clients::client::Client;
use crate::clients::farewell::Farewell;
use crate::relay::Session;
use crate::servers::server::Server;
use crate::servers::{ears, pools};
use crate::shared::{Hold, ServerPools, Shared, Shutdown, lock};

/// How often to look whether all is held, if nobody rings.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How long clients have at least, even if logins have used all the time.
const TO_PUT_DOWN: Duration = Duration::from_secs(1);

/// Where a client's task may put its session down.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HoldAt {
    /// Between two messages in both directions, with nothing left in a buffer: what PgBouncer needs.
    Boundary,
    /// Anywhere, because everything is told.
    Anywhere,
}

/// What has been put down.
#[derive(Default)]
pub(crate) struct Standstill {
    /// By their clients' ids.
    pub(super) sessions: Mutex<HashMap<u64, Box<Session>>>,
    /// The idle ones.
    pub(super) servers: Mutex<Vec<(SlotId, Box<Server>)>>,
    /// Listeners that accept nobody.
    closed_doors: AtomicUsize,
    /// Whether clients that were logging in are waited for: a pool that is new needs a server then.
    awaits_logins: AtomicBool,
    /// Whether logins to servers are to be given up.
    no_logins: AtomicBool,
    /// The console that takes over.
    pub(super) successor: Mutex<Option<Successor>>,
    /// Whether another process has the sockets as well: nothing may happen on them now.
    pub(super) given: AtomicBool,
    /// How often all has been let go.
    pub(super) releases: AtomicU64,
    pub(super) changed: Notify,
}

/// Holds everything. Who cannot be held within `suspend_timeout` is told so and closed. Ends early if
/// somebody resumes.
pub(crate) async fn everything(shared: &Arc<Shared>, at: HoldAt) {
    shared.standstill.set_awaits_logins(true);
    shared.operator.set_hold(Hold::Suspended);
    let patience = shared.config().global.suspend_timeout.limit();
    let mut deadline = patience.map(|patience| Instant::now() + patience);
    if at == HoldAt::Anywhere {
        // Before anybody has to stand still: logins and what cleans servers come to their end, and nobody new gets a server.
        if !until(shared, deadline, || no_logins(shared)).await {
            unheld(shared)
                .filter(|client| !client.is_greeted())
                .for_each(|client| client.end(Farewell::SuspendTimeout));
        }
        shared.standstill.set_awaits_logins(false);
        let mut unclean = resetting(shared);
        let cleaned = || {
            let still = resetting(shared);
            unclean.retain(|slot| still.contains(slot));
            unclean.is_empty()
        };
        until(shared, deadline, cleaned).await;
        if !hold_pools(shared, |_| {}) {
            return;
        }
        until(shared, deadline, || !is_opening(shared)).await;
        deadline = deadline.map(|deadline| deadline.max(Instant::now() + TO_PUT_DOWN));
    }
    let told_to_hold = || {
        unheld(shared).for_each(|client| client.hold(at));
        ears::ring_all(shared);
        is_all_held(shared)
    };
    if !until(shared, deadline, told_to_hold).await {
        unheld(shared).for_each(|client| client.end(Farewell::SuspendTimeout));
        hold_pools(shared, |_| shared.standstill.give_logins_up());
        until(shared, None, told_to_hold).await;
    }
    shared.standstill.set_awaits_logins(false);
    hold_pools(shared, |pools| {
        lock(&shared.standstill.servers).extend(pools.take_idle(Instant::now()));
    });
}

/// No pool lends or opens any more. `false` if somebody has resumed: nobody would let them go again.
fn hold_pools(shared: &Shared, then: impl FnOnce(&mut ServerPools)) -> bool {
    let mut pools = shared.pools();
    let holds = shared.operator.hold() == Hold::Suspended;
    if holds {
        pools.hold();
        then(&mut pools);
    }
    holds
}

/// Lets everything go on.
pub(crate) fn release(shared: &Arc<Shared>) {
    for client in &shared.clients {
        client.release();
    }
    let servers = {
        // With the pools locked nobody is putting servers there, gives logins up, or gives anything away.
        let _pools = shared.pools();
        shared.standstill.releases.fetch_add(1, Ordering::AcqRel);
        shared.standstill.no_logins.store(false, Ordering::Release);
        shared.standstill.given.store(false, Ordering::Release);
        std::mem::take(&mut *lock(&shared.standstill.servers))
    };
    check_in(shared, servers);
    ears::ring_all(shared);
    shared.standstill.changed.notify_waiters();
}

fn check_in(shared: &Arc<Shared>, servers: Vec<(SlotId, Box<Server>)>) {
    let now = Instant::now();
    for (slot, server) in servers {
        pools::checkin(shared, slot, server, now);
    }
}

/// Idle servers that have been described are held again, or go home if all has been let go meanwhile.
pub(super) fn put_back_idle(
    shared: &Arc<Shared>,
    servers: Vec<(SlotId, Box<Server>)>,
    releases: u64,
) {
    {
        let _pools = shared.pools();
        if shared.standstill.releases() == releases {
            return lock(&shared.standstill.servers).extend(servers);
        }
    }
    check_in(shared, servers);
}

/// Puts a session down, and gives it back when it may go on: everything is let go, or somebody has
/// something to say to its client and no other process has its sockets.
pub(crate) async fn put_down(session: Box<Session>) -> Box<Session> {
    let shared = Arc::clone(&session.shared);
    let client = Arc::clone(&session.client);
    let standing = session.standing();
    lock(&shared.standstill.sessions).insert(client.id, session);
    shared.ended.notify_waiters();
    loop {
        let changed = shared.standstill.changed.notified();
        let let_go = shared.operator.hold() != Hold::Suspended;
        let given = shared.standstill.given.load(Ordering::Acquire);
        if !let_go && given {
            changed.await;
        } else if !let_go && !client.is_called(standing) {
            tokio::select! {
                () = changed => {}
                () = client.called(standing) => {}
            }
        } else if let Some(session) = lock(&shared.standstill.sessions).remove(&client.id) {
            if let_go {
                // It may have been told to hold after everybody was let go.
                client.release();
            }
            return session;
        } else {
            // It is being described at this moment.
            changed.await;
        }
    }
}

impl Standstill {
    /// Takes all sessions away, to describe them; [`Self::put_back`] follows.
    pub(super) fn lend_sessions(&self) -> HashMap<u64, Box<Session>> {
        std::mem::take(&mut lock(&self.sessions))
    }

    pub(super) fn put_back(&self, sessions: HashMap<u64, Box<Session>>) {
        lock(&self.sessions).extend(sessions);
        self.changed.notify_waiters();
    }

    /// A listener accepts nobody until the orders have changed.
    pub(crate) async fn closed_door(&self, changed: impl Future<Output = ()>) {
        self.closed_doors.fetch_add(1, Ordering::AcqRel);
        changed.await;
        self.closed_doors.fetch_sub(1, Ordering::AcqRel);
    }

    /// Resolves when logins to servers are to be given up.
    pub(crate) async fn no_more_logins(&self) {
        loop {
            let changed = self.changed.notified();
            if self.no_logins.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn awaits_logins(&self) -> bool {
        self.awaits_logins.load(Ordering::Acquire)
    }

    fn set_awaits_logins(&self, awaits: bool) {
        self.awaits_logins.store(awaits, Ordering::Release);
    }

    fn give_logins_up(&self) {
        self.no_logins.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }
}

/// Waits until `done`; `false` if that takes too long. Also ends if somebody has resumed.
async fn until(shared: &Shared, deadline: Option<Instant>, mut done: impl FnMut() -> bool) -> bool {
    loop {
        let ended = shared.ended.notified();
        let given_up = shared.operator.hold() != Hold::Suspended
            || shared.operator.shutdown() == Shutdown::Now;
        if given_up || done() {
            return true;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return false;
        }
        let _ = tokio::time::timeout(LOOK_AGAIN, ended).await;
    }
}

fn no_logins(shared: &Shared) -> bool {
    all_doors_closed(shared) && unheld(shared).all(|client| client.is_greeted())
}

fn all_doors_closed(shared: &Shared) -> bool {
    shared.standstill.closed_doors.load(Ordering::Acquire) >= lock(&shared.listeners).len()
}

/// The clients, consoles apart, whose tasks still go on.
fn unheld(shared: &Shared) -> impl Iterator<Item = Arc<Client>> {
    let sessions = lock(&shared.standstill.sessions);
    let unheld: Vec<_> = shared
        .clients
        .iter()
        .filter(|client| !client.is_console.load(Ordering::Relaxed))
        .filter(|client| !sessions.contains_key(&client.id))
        .map(|client| Arc::clone(&client))
        .collect();
    unheld.into_iter()
}

/// Servers that are being cleaned up.
fn resetting(shared: &Shared) -> HashSet<SlotId> {
    let pools = shared.pools();
    let resetting = pools.slots().filter(|slot| {
        let is_reset = matches!(slot.state, SlotState::Resetting | SlotState::BeingCanceled);
        is_reset || pools.is_being_canceled(slot.id)
    });
    resetting.map(|slot| slot.id).collect()
}

fn is_opening(shared: &Shared) -> bool {
    let pools = shared.pools();
    let mut opening = pools
        .slots()
        .filter(|slot| slot.state == SlotState::Opening);
    opening.any(|slot| !shared.endings.contains_key(&slot.id))
}

/// Whether every client and every slot is accounted for: with a session that has been put down, idle
/// in its pool, or ending on a socket that we know of. A server that is on its way from one hand
/// to another is in none of these places.
fn is_all_held(shared: &Shared) -> bool {
    if !all_doors_closed(shared) || unheld(shared).next().is_some() {
        return false;
    }
    let held = lock(&shared.standstill.sessions)
        .values()
        .filter(|session| session.server().is_some())
        .count();
    let pools = shared.pools();
    let mut lent = 0;
    for slot in pools.slots() {
        match slot.state {
            SlotState::Idle => {}
            SlotState::Leased if pools.is_being_canceled(slot.id) => return false,
            SlotState::Leased => lent += 1,
            SlotState::Resetting | SlotState::BeingCanceled => return false,
            SlotState::Opening | SlotState::Closing | SlotState::Quarantined => {
                if !shared.endings.contains_key(&slot.id) {
                    return false;
                }
            }
        }
    }
    // What has been idle may have been taken already, by an order that was taken back meanwhile.
    lent == held + ears::held(shared) + lock(&shared.standstill.servers).len()
}
