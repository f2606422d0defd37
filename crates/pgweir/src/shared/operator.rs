//! What an operator has ordered for the whole pooler or for a database, and not taken back. What becomes of
//! an order is decided where it is carried out (`admin`, `drain`, `maintenance`, `shutdown`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

use super::lock;
use crate::operators::maintenance::Maintenance;

/// What an operator has ordered and not taken back.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    paused_all: AtomicU8,
    shutdown: AtomicU8,
    pub(crate) paused: Mutex<HashSet<String>>,
    pub(crate) disabled: Mutex<HashSet<String>>,
    pub(crate) maintenance: Mutex<BTreeMap<String, Maintenance>>,
    /// Databases whose clients are being sent away, and by how many orders.
    pub(crate) draining: Mutex<HashMap<String, u32>>,
    /// Rung when the listeners have to close or pause, or the process has to end.
    pub(crate) changed: Notify,
}

/// How far the process is on its way out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Shutdown {
    /// Not at all.
    No,
    /// It ends when no server is lent any more.
    WaitForServers,
    /// It ends when no client is left.
    WaitForClients,
    /// The same, and clients are being sent away.
    Drain,
    /// It ends.
    Now,
}

/// Whether the whole pooler is held back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Hold {
    /// No.
    None,
    /// PAUSE.
    Paused,
    /// SUSPEND.
    Suspended,
}

impl Operator {
    pub(crate) fn shutdown(&self) -> Shutdown {
        match self.shutdown.load(Ordering::Acquire) {
            0 => Shutdown::No,
            1 => Shutdown::WaitForServers,
            2 => Shutdown::WaitForClients,
            3 => Shutdown::Drain,
            _ => Shutdown::Now,
        }
    }

    pub(crate) fn set_shutdown(&self, shutdown: Shutdown) {
        self.shutdown.store(shutdown as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn hold(&self) -> Hold {
        match self.paused_all.load(Ordering::Acquire) {
            0 => Hold::None,
            1 => Hold::Paused,
            _ => Hold::Suspended,
        }
    }

    pub(crate) fn set_hold(&self, hold: Hold) {
        self.paused_all.store(hold as u8, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(crate) fn is_paused(&self, database: &str) -> bool {
        self.hold() == Hold::Paused || lock(&self.paused).contains(database)
    }

    pub(crate) fn is_disabled(&self, database: &str) -> bool {
        lock(&self.disabled).contains(database)
    }
}
