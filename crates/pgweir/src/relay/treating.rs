//! What becomes of what a transaction has left, where that is not simply kept (`state_policy`, `strict`).
//!
//! Off the hot path: a look has found out what the session holds.

use std::time::Instant;

use bytes::BytesMut;
use pgweir_session::{Kinds, Parameters};

use super::{Place, Session};
use crate::clients::client::TaskOrder;
use crate::clients::farewell::asides::{self, Lost};
use crate::watch::strict;

/// What a session and its client had before a look.
pub(super) struct Before {
    bound: Kinds,
    requested: Parameters,
}

impl Session {
    /// What there is now, if it matters what a look will find beyond it.
    pub(super) fn before_look(&self) -> Option<Before> {
        let Place::Leased(held) = &self.place else {
            return None;
        };
        let examines = held.server.work.rules.treatment.examines();
        examines.then(|| Before {
            bound: held.server.relay.residue().bound(),
            requested: self.side.values.requested().clone(),
        })
    }

    /// The session is bound by these kinds, and the parameters of the client are in the books.
    pub(super) fn treat(&mut self, bound: Kinds, before: &Before, now: Instant) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        let treatment = held.server.work.rules.treatment;
        let (set, names) = self.side.set_beyond(&before.requested);
        let mut left = bound.without(before.bound).union(set);
        if held.server.relay.has_found_nothing_new(&self.side) {
            left = left.without(Kinds::LISTEN);
        }
        let said = held.server.relay.take_said();
        if treatment.is_strict {
            let names = names.join(", ");
            let found = strict::examine(&self.shared, &self.client, left, &said, &names);
            if let (caught, Some(answer)) = found {
                self.side.take_back(caught);
                self.unpin();
                self.client.take_order(TaskOrder::LetGo);
                self.release(now);
                self.place = Place::Owing(answer.message());
                return;
            }
        }
        let warned = treatment.warned.intersection(left);
        if !warned.is_empty() {
            held.server.work.tally.state_warning_count += 1;
            tracing::info!(peer = %self.client, "session state is left: {warned}");
            self.tell(&asides::state_warned(warned));
        }
        self.side.take_back(treatment.reset);
        let reset = treatment.reset.intersection(bound.union(set));
        match (reset.is_empty(), bound.without(reset)) {
            (true, _) => self.keep_or_move(bound, now),
            (false, rest) if rest.is_empty() || !self.pin(rest, now) => {
                self.unpin();
                self.lose(reset.union(bound), Lost::Policy, now);
            }
            (false, _) => self.take_back(reset, now),
        }
    }

    /// The server stays with the client, without a part of what it holds.
    fn take_back(&mut self, kinds: Kinds, now: Instant) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        held.server.work.tally.state_loss_count += 1;
        tracing::info!(peer = %self.client, "session state is taken back: {kinds}");
        let mut out = BytesMut::new();
        held.server.relay.take_back(kinds, &mut out);
        // No message of the client's is held back for it.
        self.ask_between(&out, now);
        self.tell(&asides::state_taken_back(kinds, Lost::Policy));
    }
}
