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

use crate::census::describe;
use crate::client::Client;
use crate::farewell::Farewell;
use crate::shared::{Shared, Shutdown};

/// How often to look again for clients that have come meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
    let mut ordered = HashSet::new();
    while order(shared, &covers, &mut ordered) {
        let now = Instant::now();
        if now >= deadline {
            break;
        }
        wait(shared, LOOK_AGAIN.min(deadline - now)).await;
    }
    let cut = cut(shared, &covers);
    let deadline = Instant::now() + CUT_PATIENCE;
    while remaining(shared, &covers).next().is_some() && Instant::now() < deadline {
        wait(shared, LOOK_AGAIN).await;
    }
    Drained {
        ended: ordered.len(),
        cut,
    }
}

/// Tells everybody to end at rest; whether there is anybody to wait for.
fn order(shared: &Shared, covers: &impl Fn(&Client) -> bool, ordered: &mut HashSet<u64>) -> bool {
    // Whoever is still logging in is told, too, but not waited for: logins are refused by now, and
    // one that has got through ends as soon as it is in.
    for client in all(shared, covers) {
        client.end_at_rest();
    }
    let mut wanted = false;
    for client in remaining(shared, covers) {
        ordered.insert(client.id);
        wanted = true;
    }
    wanted
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

fn remaining<'a>(
    shared: &'a Shared,
    covers: &'a impl Fn(&Client) -> bool,
) -> impl Iterator<Item = Arc<Client>> + 'a {
    all(shared, covers).filter(|client| client.state().clocks.phase != Phase::Login)
}

/// Waits until something ends, or for so long.
async fn wait(shared: &Shared, time: Duration) {
    let _ = tokio::time::timeout(time, shared.ended.notified()).await;
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
        wait(&shared, LOOK_AGAIN).await;
    }
    // The last clients are being told why.
    tokio::time::sleep(LOOK_AGAIN).await;
    tracing::info!(
        "{} clients sent away, {} of them cut, exiting",
        drained.ended,
        drained.cut.len()
    );
    shared.operator.set_shutdown(Shutdown::Now);
}
