//! The console that takes over: what it is given, and that it is no longer the successor when everything has been let go
//! meanwhile.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;

use super::hold::Standstill;
use crate::clients::client::Client;
use crate::shared::{Hold, Shared, lock};

/// How long it may take to read a parcel.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// A console for which everything is held. When it leaves, all goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Successor {
    client: u64,
    is_told: Told,
    /// How often all had been let go when it asked.
    releases: u64,
}

/// What a successor is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Told {
    /// Everything.
    All,
    /// What the rows of SHOW FDS have.
    Rows,
}

/// From here on this console has the sockets as well. `false` if somebody has resumed since it asked.
pub(crate) fn give(shared: &Shared, client: &Client) -> bool {
    // With the pools locked nobody lets anything go.
    let _pools = shared.pools();
    let stands =
        shared.standstill.is_successor(client) && shared.operator.hold() == Hold::Suspended;
    if stands {
        shared.standstill.given.store(true, Ordering::Release);
        shared.standstill.changed.notify_waiters();
    }
    stands
}

/// The same for whoever asks for the rows of SHOW FDS, if that is our own user and nobody else takes over.
pub(super) fn give_rows(shared: &Shared, client: &Client) -> bool {
    let other = shared.standstill.successor();
    let is_other = other.is_some_and(|other| other.client != client.id);
    let may = client.is_own_user() && !is_other && shared.operator.hold() == Hold::Suspended;
    if may {
        shared.standstill.set_successor(client, Told::Rows);
    }
    may && give(shared, client)
}

/// Writes to the successor, unless all has been let go more often than so often: nobody waits for its reading.
pub(super) async fn unless_let_go(
    shared: &Shared,
    releases: u64,
    writing: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    let written = tokio::select! {
        written = writing => written,
        () = shared.standstill.let_go(releases) => Err(io::Error::other("everything goes on here")),
    };
    if let Err(error) = &written {
        tracing::warn!("the takeover is broken off: {error}");
    }
    written
}

/// Whoever does not read is not waited for: everybody stands still meanwhile.
pub(super) async fn in_time(writing: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    let late = |_| Err(io::Error::new(io::ErrorKind::TimedOut, "it does not read"));
    timeout(READ_PATIENCE, writing).await.unwrap_or_else(late)
}

impl Standstill {
    /// How often all has been let go.
    pub(super) fn releases(&self) -> u64 {
        self.releases.load(Ordering::Acquire)
    }

    /// Resolves when all has been let go more often than so often.
    async fn let_go(&self, releases: u64) {
        loop {
            let changed = self.changed.notified();
            if self.releases() != releases {
                return;
            }
            changed.await;
        }
    }

    /// Everything is held for this console.
    pub(crate) fn set_successor(&self, client: &Client, is_told: Told) {
        *lock(&self.successor) = Some(Successor {
            client: client.id,
            is_told,
            releases: self.releases(),
        });
    }

    /// Who takes over, unless somebody has resumed since it asked.
    fn successor(&self) -> Option<Successor> {
        lock(&self.successor).filter(|successor| successor.releases == self.releases())
    }

    pub(crate) fn is_successor(&self, client: &Client) -> bool {
        let successor = self.successor();
        successor.is_some_and(|successor| successor.client == client.id)
    }

    /// Whether somebody has resumed since this console asked for everything: what it has is no longer as it was told. That is
    /// said once; then it is a console like any other.
    pub(crate) fn was_taken_back(&self, client: &Client) -> bool {
        let is_late = |successor: &mut Successor| {
            successor.client == client.id && successor.releases != self.releases()
        };
        lock(&self.successor).take_if(is_late).is_some()
    }

    /// Whether another process has the sockets as well, and does not know of everything that is here.
    pub(crate) fn has_given_rows(&self) -> bool {
        let successor = self.successor();
        let is_told_rows = successor.is_some_and(|successor| successor.is_told == Told::Rows);
        is_told_rows && self.given.load(Ordering::Acquire)
    }
}
