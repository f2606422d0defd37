//! A session whose client rests: what is kept of it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use pgweir_net::{Buffered, Stream};
use pgweir_pool::Party;
use pgweir_session::ClientSide;
use pgweir_stats::Application;

use super::{Place, Session};
use crate::clients::client::{Client, TaskOrder};
use crate::shared::{Route, Shared};

/// An idle client without its task.
pub(crate) struct Resting {
    pub(crate) client: Arc<Client>,
    pub(crate) socket: OwnedFd,
    route: Arc<Route>,
    side: ClientSide,
    application: Arc<Application>,
    party: Option<Party>,
}

impl Session {
    /// Takes the order to rest: whether there is one, and nothing stands in its way: no buffer holds anything, nothing is
    /// heard for it, and its socket is one that can be watched from elsewhere (TLS has records of its own).
    pub(super) fn take_rest_order(&self) -> bool {
        self.client.take_order(TaskOrder::Rest)
            && matches!(self.place, Place::Idle)
            && self.subscription.is_none()
            && !self.client.has_mail()
            && self.line.unread().is_empty()
            && self.line.is_drained()
            && matches!(self.line.stream(), Stream::Tcp(_) | Stream::Unix(_))
    }

    /// What remains of it while its client rests.
    ///
    /// # Errors
    /// The socket cannot be taken from the runtime; the client is lost.
    pub(crate) fn into_resting(self) -> io::Result<Box<Resting>> {
        let socket = self.line.into_stream().into_fd();
        Ok(Box::new(Resting {
            socket: socket.map_err(|_| io::ErrorKind::Unsupported)??,
            client: self.client,
            route: self.route,
            side: self.side,
            application: self.application,
            party: self.party,
        }))
    }
}

impl Resting {
    /// # Errors
    /// The socket cannot be given to the runtime; the client is lost.
    pub(crate) fn resume(self, shared: &Arc<Shared>) -> io::Result<Session> {
        Ok(Session {
            shared: Arc::clone(shared),
            client: self.client,
            route: self.route,
            line: Buffered::new(Stream::from_fd(self.socket)?),
            side: self.side,
            application: self.application,
            looked_up: 0,
            party: self.party,
            place: Place::Idle,
            subscription: None,
            braking: false,
        })
    }
}
