//! A client that listens and keeps no server for it: its channels are moved from the server on which it
//! has executed LISTEN to the connection that listens for many ([`crate::servers::ears`]), and what comes
//! there is told when the client can be told.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use pgweir_config::ListenMode;
use pgweir_session::{Channels, Kinds, Listening, Mark};

use super::leased::Held;
use super::{Place, Session};
use crate::servers::ears::{self, Join, Subscription, Wish};
use crate::servers::server::{Stage, Step};

impl Session {
    /// A look has found what the server listens to: whether that is being moved. Then the client keeps
    /// the server until [`Self::moved`] is done.
    pub(super) fn move_listening(&mut self) -> bool {
        let Place::Leased(held) = &mut self.place else {
            return false;
        };
        let Some(Listening { channels, is_all }) = held.server.relay.take_listening() else {
            return false;
        };
        if is_all {
            self.retain_channels(&channels);
        }
        let known = self.side.channels.as_deref();
        let is_new = |channel: &&Arc<str>| known.is_none_or(|known| !known.contains(*channel));
        let new: Channels = channels.iter().filter(is_new).map(Arc::clone).collect();
        let Place::Leased(held) = &mut self.place else {
            return false;
        };
        let listens = held.server.relay.residue().bound().has(Kinds::LISTEN);
        if !listens || held.server.work.rules.settings.listen == ListenMode::Pin {
            return false;
        }
        if new.is_empty() {
            self.end_listening();
            return true;
        }
        match self.join(new) {
            Ok(()) => {
                self.step(Step::Asked);
                true
            }
            Err(reason) => {
                tracing::debug!(peer = %self.client, "it listens on its own server: {reason}");
                false
            }
        }
    }

    /// Asks for these channels to be listened to.
    fn join(&mut self, channels: Channels) -> Result<(), String> {
        let Place::Leased(held) = &self.place else {
            return Ok(());
        };
        let encoding = self.shared.tracked.index("client_encoding");
        let wish = Wish {
            home: &self.route.home,
            client: &self.client,
            bound: held.server.work.rules.settings.listen_buffer,
            encoding: encoding.and_then(|index| self.side.values.get(index)),
        };
        match &mut self.subscription {
            Some(subscription) => subscription.join(&wish, channels),
            None => {
                let subscription = ears::subscribe(&self.shared, &wish, channels)?;
                self.subscription = Some(Box::new(subscription));
                Ok(())
            }
        }
    }

    /// The client listens to none but these.
    fn retain_channels(&mut self, channels: &Channels) {
        let Some(known) = &mut self.side.channels else {
            return;
        };
        let gone: Channels = known.difference(channels).map(Arc::clone).collect();
        known.retain(|channel| channels.contains(channel));
        if known.is_empty() {
            self.side.channels = None;
        }
        match &self.subscription {
            // What it has not been told of these it is not told any more.
            Some(_) if self.side.channels.is_none() => self.subscription = None,
            Some(subscription) => subscription.leave(&gone),
            None => {}
        }
    }

    /// Something has happened where the client listens.
    #[cold]
    pub(super) fn move_on(&mut self) {
        let (Some(subscription), true) = (&self.subscription, self.place.is_moving()) else {
            return;
        };
        match subscription.take_join() {
            Join::None | Join::Asked => {}
            Join::Ready(mark) => self.mark(mark),
            Join::Failed(reason) => self.stay_with(&reason),
        }
    }

    /// The other connection listens: a mark is sent through the client's own server.
    fn mark(&mut self, mark: Mark) {
        let (Some(subscription), Place::Leased(held)) = (&mut self.subscription, &mut self.place)
        else {
            return;
        };
        if !subscription.is_beside(&held.server.info) {
            return self.stay_with("the database is at several addresses");
        }
        let mut out = BytesMut::new();
        let channels = subscription.joining().clone();
        held.server.relay.send_mark(mark, channels, &mut out);
        held.server.line.queue(&out);
        self.step(Step::Marking);
    }

    /// A step of the move is done.
    pub(super) fn moved(&mut self, step: Step) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        match step {
            // It has only said something.
            Step::Asked => held.server.work.stage = Stage::Move(step),
            Step::Marking => match (held.server.relay.take_refused(), held.is_marked()) {
                (None, true) => {
                    if let Some(subscription) = &mut self.subscription {
                        subscription.note_joined();
                    }
                    self.end_listening();
                }
                (Some(refused), _) => self.stay_with(&refused.message),
                (None, false) => self.stay_with("its server did not hear itself"),
            },
            Step::Ending => {
                held.server.relay.unlistened(&self.side);
                let bound = held.server.relay.residue().bound();
                self.client.drop_wait_orders();
                self.keep(bound, Instant::now());
            }
        }
    }

    /// All that the server listens to is told elsewhere: it stops.
    fn end_listening(&mut self) {
        if let Place::Leased(held) = &mut self.place {
            let mut out = BytesMut::new();
            held.server.relay.unlisten(&mut out);
            held.server.line.queue(&out);
        }
        self.step(Step::Ending);
    }

    /// What is new is not moved: the server stays with the client for it.
    fn stay_with(&mut self, reason: &str) {
        tracing::debug!(peer = %self.client, "it listens on its own server: {reason}");
        if let Some(subscription) = &mut self.subscription {
            subscription.give_up();
        }
        if self.side.channels.is_none() {
            self.subscription = None;
        }
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        held.server.relay.forget_mark();
        let bound = held.server.relay.residue().bound();
        self.client.drop_wait_orders();
        self.keep(bound, Instant::now());
    }

    fn step(&mut self, step: Step) {
        if let Place::Leased(held) = &mut self.place {
            held.server.work.stage = Stage::Move(step);
        }
    }

    /// The client's next message may end something that it listens to elsewhere: PostgreSQL has to know
    /// what that is.
    pub(super) fn listen_again(&mut self) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        let mut out = BytesMut::new();
        held.server.relay.listen_again(&self.side, &mut out);
        self.ask_first(&out);
    }

    /// Tells the client what has come for it; whether there was anything. Only where it is in no
    /// transaction and in no message, and has taken what was said before.
    #[inline]
    pub(super) fn deliver(&mut self) -> bool {
        let Some(subscription) = &self.subscription else {
            return false;
        };
        if !subscription.has_notifications() || self.line.has_unsent() {
            return false;
        }
        let said = subscription.take();
        self.line.queue(&said);
        !said.is_empty()
    }

    /// Where it listens without a server.
    pub(crate) fn subscription(&self) -> Option<&Subscription> {
        self.subscription.as_deref()
    }

    /// Goes on to listen, as it did in another process.
    pub(crate) fn listen_on(&mut self, subscription: Subscription) {
        self.subscription = Some(Box::new(subscription));
    }
}

impl Held {
    fn is_marked(&self) -> bool {
        self.server.relay.is_marked()
    }
}

impl Place {
    /// Whether what the client's server listens to waits to be moved.
    fn is_moving(&self) -> bool {
        matches!(self, Self::Leased(held) if matches!(held.server.work.stage, Stage::Move(Step::Asked)))
    }
}
