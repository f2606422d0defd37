//! Clients are evened out between the threads. Each begins in the one that has accepted it (`Workers::seat_of_newcomer`); those
//! that stay are moved to where there are fewer, and so are some of those that remain when others have left.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::clients::client::TaskOrder;
use crate::clients::serve;
use crate::relay::Session;
use crate::shared::Shared;

/// How old a client is that is taken for one that stays. To move it costs less than a query.
const STAYS_AFTER: Duration = Duration::from_millis(250);

/// Sends clients from the thread that has most to others.
pub(crate) fn look(shared: &Shared, now: Instant) {
    let Some((crowded, surplus)) = shared.workers.crowd() else {
        return;
    };
    let clients = shared.clients.iter();
    let movable = clients.filter(|client| {
        client.thread.load(Ordering::Relaxed) == crowded
            && client.may_change_thread(now, STAYS_AFTER)
    });
    movable
        .take(surplus)
        .for_each(|client| client.order_once(TaskOrder::ChangeThread));
}

/// Lets a session go on where there are fewer. It comes back if that is here.
pub(crate) fn change(session: Box<Session>) -> Option<Box<Session>> {
    let shared = Arc::clone(&session.shared);
    let Some(seat) = shared.workers.seat_elsewhere(1) else {
        return Some(session);
    };
    let client = Arc::clone(&session.client);
    let there = Arc::clone(&shared);
    seat.spawn(async move { serve::go_on_here(&there, &client, session.come_here()) });
    None
}
