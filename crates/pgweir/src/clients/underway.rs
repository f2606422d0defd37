//! How many cancel requests for clients are on their way, theirs and the pooler's own: SHOW POOLS and SHOW
//! PEER_POOLS.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Those to one pool or peer, by how far they have come.
#[derive(Debug, Default)]
pub(crate) struct Underway {
    waiting: AtomicUsize,
    connecting: AtomicUsize,
    sent: AtomicUsize,
}

/// How many there are now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct UnderwayCounts {
    /// They wait for a place.
    pub(crate) waiting: usize,
    /// The connection for them is being opened.
    pub(crate) connecting: usize,
    /// The other end has not closed it yet.
    pub(crate) sent: usize,
}

/// One request counts for as long as this lives.
pub(crate) struct Counted<'a>(&'a AtomicUsize);

impl Underway {
    pub(crate) fn wait(&self) -> Counted<'_> {
        Counted::among(&self.waiting)
    }

    pub(crate) fn connect(&self) -> Counted<'_> {
        Counted::among(&self.connecting)
    }

    pub(crate) fn send(&self) -> Counted<'_> {
        Counted::among(&self.sent)
    }

    pub(crate) fn counts(&self) -> UnderwayCounts {
        UnderwayCounts {
            waiting: self.waiting.load(Ordering::Relaxed),
            connecting: self.connecting.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
        }
    }
}

impl<'a> Counted<'a> {
    fn among(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
