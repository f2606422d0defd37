//! Sends clients away: between their transactions as long as there is time, and then wherever they
//! are.
//!
//! A client in the middle of hot traffic is between two transactions many times per second. There
//! its own task ends it (`relay`), so that nothing is cut and nothing runs after it was told.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgweir_console::tables::ClientToEnd;
use pgweir_session::Phase;
use tokio::time::sleep;

use crate::clients::client::{Client, TaskOrder};
use crate::clients::farewell::Farewell;
use crate::shared::{Hold, Shared, Shutdown};
use crate::watch::census::describe;

/// How often to tell some more clients, and to look who is left.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How many clients are told at once, if there is time: all of them will log in elsewhere, and a
/// login costs more than a query.
const BATCH: usize = 100;

/// How long clients that are cut may take to be gone.
const CUT_PATIENCE: Duration = Duration::from_secs(5);

/// What a drain did.
#[derive(Debug, Default)]
pub(crate) struct Drained {
    /// Clients that have ended, those that were cut among them.
    pub(crate) ended: usize,
    /// Clients that were in the middle of something at the deadline.
    pub(crate) cut: Vec<ClientToEnd>,
}

/// Sends the clients for which `covers` holds away. Consoles stay.
pub(crate) async fn drain(
    shared: &Arc<Shared>,
    covers: impl Fn(&Client) -> bool,
    within: Duration,
) -> Drained {
    let deadline = Instant::now() + within;
    let (mut pace, mut seen) = (BATCH, HashSet::<u64>::new());
    loop {
        let present: Vec<_> = remaining(shared, &covers).map(|client| client.id).collect();
        seen.extend(&present);
        let untold: Vec<_> = untold(shared, &covers).collect();
        pace = pace.max(pace_for(untold.len(), within));
        for client in untold.iter().take(pace) {
            client.order_once(TaskOrder::EndBetweenTransactions);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if present.is_empty() || left.is_zero() {
            break;
        }
        sleep(LOOK_AGAIN.min(left)).await;
    }
    let cut = cut(shared, &covers);
    let deadline = Instant::now() + CUT_PATIENCE;
    while remaining(shared, &covers).next().is_some() && Instant::now() < deadline {
        sleep(LOOK_AGAIN).await;
    }
    Drained {
        ended: seen.len(),
        cut,
    }
}

/// How many clients to tell at a look, so that so many have been told when half of the time is over.
fn pace_for(clients: usize, within: Duration) -> usize {
    let looks = within.as_millis() / 2 / LOOK_AGAIN.as_millis();
    clients.div_ceil(usize::try_from(looks).unwrap_or(usize::MAX).max(1))
}

/// Ends whoever is left.
fn cut(shared: &Shared, covers: &impl Fn(&Client) -> bool) -> Vec<ClientToEnd> {
    let now = Instant::now();
    let mut cut = Vec::new();
    for client in remaining(shared, covers) {
        cut.extend(describe(shared, &client, now));
        client.end(Farewell::Drained);
    }
    cut.sort_by_key(|client| client.id);
    cut
}

fn all<'a>(
    shared: &'a Shared,
    covers: &'a impl Fn(&Client) -> bool,
) -> impl Iterator<Item = Arc<Client>> + 'a {
    let clients = shared.clients.iter().map(|client| Arc::clone(&client));
    clients.filter(|client| !client.is_console.load(Ordering::Relaxed) && covers(client))
}

/// Whoever is still logging in is told, too, but not waited for: logins are refused by now, and one
/// that has got through ends as soon as it is in.
fn untold<'a>(
    shared: &'a Shared,
    covers: &'a impl Fn(&Client) -> bool,
) -> impl Iterator<Item = Arc<Client>> + 'a {
    all(shared, covers).filter(|client| !client.has_order(TaskOrder::EndBetweenTransactions))
}

fn remaining<'a>(
    shared: &'a Shared,
    covers: &'a impl Fn(&Client) -> bool,
) -> impl Iterator<Item = Arc<Client>> + 'a {
    all(shared, covers).filter(|client| client.state().clocks.phase != Phase::Login)
}

/// Sends everybody away and then ends the process.
pub(crate) async fn shut_down(shared: Arc<Shared>, within: Duration) {
    let drained = drain(&shared, |_| true, within).await;
    for client in &drained.cut {
        tracing::warn!(
            "cut at the end of shutdown_drain_timeout: {}/{}@{}, application \"{}\", {}",
            client.database,
            client.user,
            client.address,
            client.app,
            client.state.word()
        );
    }
    let deadline = Instant::now() + CUT_PATIENCE;
    while shared.pools().is_busy(|_| true) && Instant::now() < deadline {
        sleep(LOOK_AGAIN).await;
    }
    // The last clients are being told why.
    sleep(LOOK_AGAIN).await;
    // Whoever takes over meanwhile says himself when this process is to end.
    while shared.operator.hold() == Hold::Suspended {
        sleep(LOOK_AGAIN).await;
    }
    tracing::info!(
        "{} clients sent away, {} of them cut, exiting",
        drained.ended,
        drained.cut.len()
    );
    shared.operator.set_shutdown(Shutdown::Now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_been_told_when_half_of_the_time_is_over() {
        for (clients, seconds) in [(1_u32, 1), (250, 30), (100_000, 10), (99_999, 7)] {
            let within = Duration::from_secs(seconds);
            let pace = pace_for(clients as usize, within);
            let looks = clients.div_ceil(u32::try_from(pace).expect("no more than clients"));
            assert!(LOOK_AGAIN * looks <= within / 2, "{clients} in {within:?}");
        }
        assert_eq!(pace_for(250, Duration::ZERO), 250);
    }
}
