//! Servers that stay with a client between its transactions, because their sessions hold something of
//! it that no other server can give it.
//!
//! A *firm* pin lasts until that has ended; there are `max_pinned` per pool at most. Any other is
//! *loose*: the server stays with its client until somebody else needs it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use pgweir_session::Kinds;

use crate::clients::client::{Client, TaskOrder};
use crate::shared::{PoolHome, Shared, Shutdown, lock};

/// One such server, seen from its client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    /// What the session holds.
    pub(crate) kinds: Kinds,
    pub(crate) since: Instant,
    pub(crate) is_firm: bool,
}

/// Those of one pool.
#[derive(Debug, Default)]
pub(crate) struct Pins {
    pub(crate) firm: u32,
    /// With these clients, the longest first. One that has been told to let go is not here any more.
    loose: VecDeque<Arc<Client>>,
}

/// Pins the client's server. `false`: somebody else needs it.
pub(crate) fn pin(
    shared: &Shared,
    home: &PoolHome,
    client: &Arc<Client>,
    pin: Pin,
    max: u32,
) -> bool {
    let is_firm = {
        let mut pins = lock(&home.pins);
        let is_firm = pins.firm < max;
        match is_firm {
            true => pins.firm += 1,
            false => pins.loose.push_back(Arc::clone(client)),
        }
        is_firm
    };
    client.state().pin = Some(Box::new(Pin { is_firm, ..pin }));
    // Who began to wait before the pin was entered has not seen it.
    if !is_firm && shared.pools().waiting(home.id) > 0 {
        unpin(home, client);
        return false;
    }
    true
}

/// The server is free to leave its client.
pub(crate) fn unpin(home: &PoolHome, client: &Arc<Client>) {
    let Some(pin) = client.state().pin.take() else {
        return;
    };
    let mut pins = lock(&home.pins);
    match pin.is_firm {
        true => pins.firm = pins.firm.saturating_sub(1),
        false => pins.loose.retain(|other| !Arc::ptr_eq(other, client)),
    }
}

/// Somebody waits for a server of this pool: one that stays loosely with a client is called back.
#[inline]
pub(crate) fn call_back(home: &PoolHome) {
    let called = lock(&home.pins).loose.pop_front();
    if let Some(client) = called {
        client.order_once(TaskOrder::LetGo);
    }
}

/// Calls back what is needed elsewhere, or has to come home.
pub(crate) fn look_after(shared: &Shared) {
    for home in shared.homes().into_values() {
        if lock(&home.pins).is_empty() {
            continue;
        }
        let (waiting, is_open) = {
            let pools = shared.pools();
            // Another pool may wait for what this one's servers count in.
            let waiting = pools
                .waiting(home.id)
                .max(usize::from(pools.is_anybody_starving()));
            (waiting, pools.lends(home.id))
        };
        for _ in 0..waiting {
            call_back(&home);
        }
        let ends = !is_open || shared.operator.shutdown() == Shutdown::WaitForServers;
        call_home(shared, &home, ends);
    }
}

/// Calls back what is obsolete, or all.
fn call_home(shared: &Shared, home: &PoolHome, all: bool) {
    for client in &shared.clients {
        let state = client.state();
        let (Some(_), Some(slot)) = (&state.pin, state.link) else {
            continue;
        };
        drop(state);
        let is_here = client.route().is_some_and(|route| route.home.id == home.id);
        if is_here && (all || shared.pools().is_obsolete(slot)) {
            client.order_once(TaskOrder::LetGo);
        }
    }
}

impl Pins {
    fn is_empty(&self) -> bool {
        self.firm == 0 && self.loose.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.firm as usize + self.loose.len()
    }
}
