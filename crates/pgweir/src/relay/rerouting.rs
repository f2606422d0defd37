//! A client whose login leads to another pool since a RELOAD, because the entry of its database forces another
//! user: it goes there as soon as it has no server.

use std::time::Instant;

use super::{Place, Session};
use crate::clients::farewell::Farewell;

impl Session {
    /// Its login leads elsewhere now: who waits for a server does so there. Who has one comes when it is over.
    #[cold]
    pub(super) fn wait_elsewhere(&mut self) {
        let Place::Waiting(ticket) = self.place else {
            return;
        };
        // If it has no place in the queue any more, the answer is on its way.
        if self.route.is_left() && self.leave_queue(ticket) {
            // What the client sent is still there: it asks again.
            self.place = Place::Idle;
            self.line.offer_unread();
        }
    }

    /// Goes over to the pool that its login leads to now.
    ///
    /// # Errors
    /// There is no such database any more.
    #[cold]
    pub(super) fn take_new_route(&mut self) -> Result<(), Farewell> {
        let route = self.shared.route(&self.route.database, &self.route.user);
        let route = route.map_err(|_| Farewell::DatabaseRemoved)?;
        let (from, to) = (self.route.home.id, route.home.id);
        let moved = self.shared.pools().client_moved(from, to, Instant::now());
        // If the other pool is being forgotten at this moment, the next turn finds another one.
        if moved {
            self.client.counted().pool = Some(to);
            self.client.set_route(&route);
            self.route = route;
        }
        Ok(())
    }
}
