//! Between clients and the pool: asks it, and carries out what it decides.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use pgweir_pool::{Action, Actions, Checkout, CloseReason, Greeting, Party, SlotId, Ticket};
use pgweir_session::Phase;
use pgweir_stats::Tally;

use crate::clients::client::{Client, Lease, Mail};
use crate::clients::farewell::Farewell;
use crate::servers::open::role_changed;
use crate::servers::server::{Server, micros};
use crate::servers::{close, open};
use crate::shared::{PoolHome, Shared};

/// Carries out what the pool has decided, mostly nothing. Never called while the pools are locked.
#[inline]
pub(crate) fn perform(shared: &Arc<Shared>, actions: Actions<Box<Server>, Arc<Client>>) {
    if !actions.is_empty() {
        carry_out(shared, actions);
    }
}

fn carry_out(shared: &Arc<Shared>, actions: Actions<Box<Server>, Arc<Client>>) {
    for action in actions {
        match action {
            Action::Open {
                pool,
                slot,
                dedicated_to,
            } => {
                open::spawn(shared, pool, slot, dedicated_to);
            }
            Action::Serve {
                waiter,
                lease,
                cause,
            } => {
                take_back(shared, waiter.deliver(Mail::Lease(lease), cause));
            }
            Action::Greet { waiter, cause } => {
                take_back(shared, waiter.deliver(Mail::Greet, Some(cause)));
            }
            Action::Refuse {
                waiter,
                refusal,
                cause,
            } => {
                let mail = Mail::Refused(Box::new(refusal));
                take_back(shared, waiter.deliver(mail, cause));
            }
            Action::Close {
                slot,
                server,
                reason,
            } => {
                close::spawn(shared, slot, server, close_text(reason), close::Busy::No);
            }
            Action::TakingReserve { waiter } => {
                tracing::warn!(peer = %waiter, "taking connection from reserve_pool");
            }
        }
    }
}

/// A server that nobody waits for any more goes to whoever is next.
fn take_back(shared: &Arc<Shared>, mail: Option<Mail>) {
    if let Some(Mail::Lease(lease)) = mail {
        checkin(shared, lease.slot, lease.server, Instant::now());
    }
}

/// Gives a server back that is ready for the next client.
pub(crate) fn checkin(shared: &Arc<Shared>, slot: SlotId, mut server: Box<Server>, now: Instant) {
    if let Some(is_standby) = server.relay.take_hot_standby() {
        role_changed(shared, &server.info, is_standby);
    }
    server.line.settle();
    let prepared = server.relay.statement_count();
    server.info.prepared.store(prepared, Ordering::Relaxed);
    let actions = shared.pools().checkin(slot, server, now);
    perform(shared, actions);
}

fn close_text(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Obsolete => "database configuration changed",
        CloseReason::Dirty => "server conn crashed?",
        CloseReason::Lifetime => "server lifetime over",
        CloseReason::IdleTimeout => "server idle timeout",
        CloseReason::Evicted => "evicted",
        CloseReason::Surplus => "too many servers in the pool",
        CloseReason::Paused => "pause mode",
        CloseReason::Closed => "maintenance",
        CloseReason::Unused => "database is to be dropped or copied",
        CloseReason::Removed => "database removed",
        CloseReason::Abandoned => "replication client was closed",
        CloseReason::Inherited => "it came from another pooler",
    }
}

/// Asks the pool for a server that is still there, for a client; `party` is charged for it.
#[inline]
pub(crate) fn checkout(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    home: &PoolHome,
    party: Option<&Party>,
    now: Instant,
) -> Checkout<Box<Server>> {
    loop {
        let mut actions = Actions::default();
        let outcome = {
            let waiter = || Arc::clone(client);
            let mut pools = shared.pools();
            pools.checkout(home.id, now, party, waiter, &mut actions)
        };
        perform(shared, actions);
        let Checkout::Ready(lease) = outcome else {
            return outcome;
        };
        if let Some(lease) = alive(shared, lease) {
            return Checkout::Ready(lease);
        }
    }
}

/// Gets a server while logging in, or says why there is none.
pub(crate) async fn acquire(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    home: &PoolHome,
) -> Result<Lease, Farewell> {
    loop {
        let lease = match checkout(shared, client, home, None, Instant::now()) {
            Checkout::Ready(lease) => return Ok(lease),
            Checkout::Refused(refusal) => return Err(Farewell::Refused(refusal)),
            Checkout::Wait(ticket) => match wait(shared, client, home, ticket).await? {
                Mail::Lease(lease) => lease,
                Mail::Refused(refusal) => return Err(Farewell::Refused(*refusal)),
                Mail::Greet => continue,
            },
        };
        if let Some(lease) = alive(shared, lease) {
            return Ok(lease);
        }
    }
}

/// Gets a server for a replication client alone.
pub(crate) async fn dedicate(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    home: &PoolHome,
) -> Result<Lease, Farewell> {
    let mut actions = Actions::default();
    let now = Instant::now();
    let ticket = shared
        .pools()
        .dedicate(home.id, now, || Arc::clone(client), &mut actions);
    perform(shared, actions);
    match wait(shared, client, home, ticket).await? {
        Mail::Lease(lease) => Ok(lease),
        Mail::Refused(refusal) => Err(Farewell::Refused(*refusal)),
        Mail::Greet => {
            debug_assert!(false, "whoever wants a server is not greeted");
            Err(Farewell::ServerLost)
        }
    }
}

/// Waits until the pool of a client in login has had a login of its own.
pub(crate) async fn greet(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    home: &PoolHome,
) -> Result<(), Farewell> {
    let mut actions = Actions::default();
    let outcome =
        shared
            .pools()
            .greet(home.id, Instant::now(), || Arc::clone(client), &mut actions);
    perform(shared, actions);
    match outcome {
        Greeting::Known => Ok(()),
        Greeting::Wait(ticket) => match wait(shared, client, home, ticket).await? {
            Mail::Greet => {
                let waited = client.state().clocks.since.elapsed();
                home.totals.add(&mut Tally {
                    wait_time_us: micros(waited),
                    ..Tally::default()
                });
                Ok(())
            }
            Mail::Refused(refusal) => Err(Farewell::Refused(*refusal)),
            Mail::Lease(lease) => {
                debug_assert!(false, "a greeting brings no server");
                checkin(shared, lease.slot, lease.server, Instant::now());
                Ok(())
            }
        },
    }
}

/// Waits for mail. If the wait is dropped, the place in the queue is given up.
pub(crate) async fn wait(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    home: &PoolHome,
    ticket: Ticket,
) -> Result<Mail, Farewell> {
    let since = Instant::now();
    let mut place = QueuePlace {
        shared,
        client,
        home,
        ticket,
        since,
        answered: false,
    };
    client.state().clocks.begin_wait(since);
    let mail = std::future::poll_fn(|_| {
        if let Some(end) = client.take_end() {
            return Poll::Ready(Err(end));
        }
        client
            .take_mail()
            .map_or(Poll::Pending, |mail| Poll::Ready(Ok(mail)))
    })
    .await;
    let (mail, cause) = mail?;
    place.answered = true;
    home.times.waits.note(cause, since, Instant::now());
    Ok(mail)
}

/// Leaves the queue when dropped; a server that had been given meanwhile goes back.
struct QueuePlace<'a> {
    shared: &'a Arc<Shared>,
    client: &'a Arc<Client>,
    home: &'a PoolHome,
    ticket: Ticket,
    since: Instant,
    answered: bool,
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.client.state().clocks.phase = Phase::Login;
        if !self.answered {
            let since = Some(self.since);
            abandon_wait(self.shared, self.client, self.home, self.ticket, since);
        }
    }
}

/// Gives up a place in the queue whose answer has not been taken, and what was given for it meanwhile. Since when
/// there was a wait, if it was one.
pub(crate) fn abandon_wait(
    shared: &Arc<Shared>,
    client: &Arc<Client>,
    home: &PoolHome,
    ticket: Ticket,
    since: Option<Instant>,
) {
    // With several threads the answer may have been decided and not have arrived yet.
    if !leave_queue(shared, home, ticket, since) {
        take_back(shared, client.decline_mail());
    }
}

/// Gives up a place in the queue. `false` if it was not there any more, because the answer is on its way.
pub(crate) fn leave_queue(
    shared: &Shared,
    home: &PoolHome,
    ticket: Ticket,
    since: Option<Instant>,
) -> bool {
    let now = Instant::now();
    let left = shared.pools().leave_queue(home.id, ticket, now);
    let Some((_, cause)) = left else {
        return false;
    };
    if let Some(since) = since {
        home.times.waits.note(cause, since, now);
    }
    true
}

/// Looks at a server that was idle, and brings it to this thread: one that PostgreSQL has closed, or that said something
/// unasked, is closed and not lent.
#[inline]
pub(crate) fn alive(shared: &Arc<Shared>, mut lease: Lease) -> Option<Lease> {
    if is_dirty(&mut lease.server) {
        drop_dirty(shared, lease);
        return None;
    }
    if lease.server.is_elsewhere() {
        return bring_here(shared, lease);
    }
    Some(lease)
}

/// Lets this thread's reactor watch a server that another thread has used.
#[cold]
fn bring_here(shared: &Arc<Shared>, lease: Lease) -> Option<Lease> {
    let Lease {
        slot,
        server,
        stale,
    } = lease;
    let info = Arc::clone(&server.info);
    match server.come_here() {
        Ok(server) => Some(Lease {
            slot,
            server,
            stale,
        }),
        Err(error) => {
            tracing::error!(peer = %info, "the connection is lost: {error}");
            close::write_off(shared, slot);
            None
        }
    }
}

#[cold]
fn drop_dirty(shared: &Arc<Shared>, lease: Lease) {
    let reason = "idle server got dirty";
    close::give_up(shared, lease.slot, lease.server, reason, close::Busy::Gone);
}

/// Whether an idle server has been closed or has spoken. Costs no system call while nothing has happened on it.
pub(crate) fn is_dirty(server: &mut Server) -> bool {
    let mut byte = [0; 1];
    match server.line.stream_mut().try_read_idle(&mut byte) {
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        Ok(_) => true,
    }
}
