//! A session that is put down: when it may be, what it holds, and how one that comes from another
//! process is taken up.

use std::time::Instant;

use pgweir_pool::SlotId;
use pgweir_session::handover::Bytes;
use pgweir_session::{ClientSide, Phase, SkipBatch};
use pgweir_wire::TransactionStatus;
use serde::{Deserialize, Serialize};

use super::taken::Taken;
use super::{Place, Session};
use crate::clients::client::{Lease, Standing};
use crate::relay::leased::Held;
use crate::servers::server::Server;
use crate::takeover::hold::HoldAt;

/// What a client without a server is to be answered before it gets one, told to another process.
#[derive(Deserialize, Serialize)]
pub(crate) enum Unanswered {
    /// What it has sent is passed over, then it is told the state of its transaction: the byte of ReadyForQuery.
    Skips(SkipBatch, char),
    /// Its transaction was ended without it; the message that says so, if it has not had that yet.
    Taken(Option<Bytes>),
    /// Something was found, which the message says.
    Owes(Bytes),
}

impl Session {
    /// Follows an order to be put down, as far as the session has come. Whether it stands where it can be.
    pub(super) fn follow_hold_order(&mut self) -> bool {
        let order = self.client.hold_order();
        if order.is_some() {
            self.send_out();
        }
        self.braking = order == Some(HoldAt::Boundary);
        match order {
            None => false,
            Some(HoldAt::Anywhere) => self.can_be_told(),
            Some(HoldAt::Boundary) => self.is_at_boundary(),
        }
    }

    /// Lets nothing of it lie in the outbox. A peer that is gone shows itself again.
    fn send_out(&mut self) {
        let _ = self.line.send_out();
        if let Place::Leased(held) = &mut self.place {
            let _ = held.server.line.send_out();
        }
    }

    /// What the client's task can do at once, put down as it is.
    pub(crate) fn standing(&self) -> Standing {
        Standing {
            between_transactions: self.is_between_transactions(),
            waits: matches!(self.place, Place::Waiting(_)),
        }
    }

    /// Whether all of it can be told to another process.
    fn can_be_told(&self) -> bool {
        match &self.place {
            Place::Idle | Place::Owing(_) | Place::Skipping(..) | Place::Taken(_) => true,
            // A server may be on its way.
            Place::Waiting(_) => !self.client.is_called(self.standing()),
            Place::Leased(held) => held.serves(),
        }
    }

    /// Whether both its sockets stand between two messages and no buffer holds anything.
    fn is_at_boundary(&self) -> bool {
        let empty = |line: &pgweir_net::Buffered| line.unread().is_empty() && !line.has_unsent();
        let rest = match &self.place {
            Place::Idle | Place::Owing(_) => true,
            Place::Waiting(_) | Place::Skipping(..) | Place::Taken(_) => false,
            Place::Leased(held) => {
                let relay = &held.server.relay;
                held.serves()
                    && empty(&held.server.line)
                    && relay.missing_from_server(&[]) == 0
                    && relay.missing_from_client(&[]) == 0
            }
        };
        rest && empty(&self.line)
    }

    /// The server that it holds.
    pub(crate) fn server(&self) -> Option<(SlotId, &Server)> {
        let held = self.place.held()?;
        Some((held.slot, &held.server))
    }

    /// The server alone; the client is left.
    pub(crate) fn into_server(self) -> Option<Lease> {
        match self.place {
            Place::Leased(Held { slot, server }) => Some(Lease::of(slot, server)),
            Place::Idle
            | Place::Waiting(_)
            | Place::Skipping(..)
            | Place::Taken(_)
            | Place::Owing(_) => None,
        }
    }

    /// What the client keeps between leases.
    pub(crate) fn side(&self) -> &ClientSide {
        &self.side
    }

    /// Whether it stands in a queue for a server, and since when.
    pub(crate) fn waits_since(&self) -> Option<Instant> {
        match self.place {
            Place::Waiting(_) => Some(self.client.state().clocks.since),
            Place::Idle
            | Place::Skipping(..)
            | Place::Taken(_)
            | Place::Owing(_)
            | Place::Leased(_) => None,
        }
    }

    /// What it is to be answered before it gets a server.
    pub(crate) fn unanswered(&self) -> Option<Unanswered> {
        match &self.place {
            Place::Skipping(batch, status) => Some(Unanswered::Skips(*batch, status.byte().into())),
            Place::Taken(Taken::Untold(answer)) => {
                Some(Unanswered::Taken(Some(Bytes(answer.to_vec()))))
            }
            Place::Taken(Taken::Told) => Some(Unanswered::Taken(None)),
            Place::Owing(answer) => Some(Unanswered::Owes(Bytes(answer.to_vec()))),
            Place::Idle | Place::Waiting(_) | Place::Leased(_) => None,
        }
    }

    /// Goes on where the client was in another process.
    pub(crate) fn answer_first(&mut self, unanswered: Unanswered) {
        self.place = match unanswered {
            Unanswered::Skips(batch, status) => {
                let status = u8::try_from(status).ok();
                let status = status.and_then(TransactionStatus::from_byte);
                Place::Skipping(batch, status.unwrap_or(TransactionStatus::Failed))
            }
            Unanswered::Taken(Some(answer)) => Place::Taken(Taken::Untold(answer.0.into())),
            Unanswered::Taken(None) => Place::Taken(Taken::Told),
            Unanswered::Owes(answer) => Place::Owing(answer.0.into()),
        };
    }

    /// Goes on with a server that the client has held before, in another process.
    pub(crate) fn hold_on_to(&mut self, lease: Lease) {
        let Lease {
            slot, mut server, ..
        } = lease;
        if self.side.channels.is_some() {
            server.relay.note_elsewhere();
        }
        server.relay.go_on_with(self.client.id);
        server.work.has_asked = true;
        self.shared.pools().charge(slot, self.party.as_ref());
        let in_transaction = server.relay.status() != TransactionStatus::Idle;
        let is_known = !server.relay.owes_unknown();
        let mut state = self.client.state();
        state.clocks.phase = match server.relay.is_quiet() && in_transaction {
            true => Phase::IdleInTransaction,
            false => Phase::Active,
        };
        state.clocks.query_start = server.work.query_start.filter(|_| is_known);
        state.clocks.transaction_start = server.work.transaction_start;
        state.link = Some(slot);
        drop(state);
        self.place = Place::Leased(Held { slot, server });
        self.pin_inherited();
    }
}
