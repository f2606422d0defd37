//! A session that changes to another thread.

use std::io;

use super::{Place, Session};
use crate::clients::client::TaskOrder;

impl Session {
    /// Takes the order to go on in another thread, once nothing of it lies in an outbox of this one. One that
    /// listens without a server stays.
    pub(super) fn take_change_order(&self) -> bool {
        let can_move = matches!(self.place, Place::Idle) && self.line.can_move();
        can_move && self.client.take_order(TaskOrder::ChangeThread) && self.subscription.is_none()
    }

    /// Lets this thread's reactor watch its socket.
    ///
    /// # Errors
    /// As the operating system says; the client is lost.
    pub(crate) fn come_here(self) -> io::Result<Self> {
        Ok(Self {
            line: self.line.move_here()?,
            ..self
        })
    }
}
