//! What a client has left in its server's session when a transaction has ended: looked for where that
//! is not known, and either the server is free of it, or it stays with the client for a while.
//!
//! Off the hot path: a transaction of statements that are known to leave nothing costs a look at the
//! pool's memory.

use std::fmt::Display;
use std::time::Instant;

use bytes::BytesMut;
use pgweir_session::residue::Probe;
use pgweir_session::{Kinds, Phase, Refused, Settled};
use pgweir_wire::SqlState;

use super::leased::Held;
use super::lending::may_leave;
use super::preparing::{fit, refit};
use super::{Place, Session};
use crate::clients::client::TaskOrder;
use crate::clients::farewell::asides::{self, Lost};
use crate::servers::pins::{self, Pin};
use crate::servers::reset;
use crate::servers::server::Stage;
use crate::shared::lock;

impl Session {
    /// A transaction has ended: asks the server what it has left, where that is not known. Then the client
    /// keeps it until the answer is there.
    #[inline]
    pub(super) fn begin_look(&mut self, now: Instant) -> bool {
        let Place::Leased(held) = &mut self.place else {
            return false;
        };
        if !held.server.work.is_private() {
            return false;
        }
        let home = &self.route.home;
        let mut memory = lock(&home.memory);
        memory.kept = held.server.work.rules.state_trust;
        memory.allowed = held.server.work.rules.treatment.allowed;
        if held.server.relay.residue().reads_drawn() {
            memory.note_reads_drawn();
        }
        let Some(question) = held.server.relay.question(&memory, now) else {
            return false;
        };
        drop(memory);
        self.ask(question);
        true
    }

    /// The server has said what its session holds.
    pub(super) fn looked(&mut self, now: Instant) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        self.client.drop_wait_orders();
        let refused = held.server.relay.take_refused();
        if is_canceled(refused.as_deref())
            && !std::mem::replace(&mut held.server.work.looks_again, true)
        {
            // A late cancel of the client's has hit it.
            let question = held
                .server
                .relay
                .whole_question(&lock(&self.route.home.memory), now);
            return self.ask(question);
        }
        held.server.work.looks_again = false;
        let before = self.before_look();
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        let settled = {
            let mut memory = lock(&self.route.home.memory);
            let tracked = &self.shared.tracked;
            let relay = &mut held.server.relay;
            relay.settle(&mut self.side, tracked, &mut memory, now)
        };
        match (settled, before) {
            (Settled::Bound(_), None) if self.move_listening() => {}
            (Settled::Bound(kinds), Some(before)) => self.treat(kinds, &before, now),
            (Settled::Bound(kinds), None) => self.keep_or_move(kinds, now),
            (Settled::Unknown, _) => {
                if let Some(refused) = refused {
                    tracing::warn!(peer = %self.client, "session state not known: {}", refused.message);
                }
                self.unpin();
                self.lose("all of it", Lost::Unknown, now);
            }
        }
    }

    /// What the server listens to is moved elsewhere; if there is nothing to move, the server leaves its client or
    /// stays with it.
    pub(super) fn keep_or_move(&mut self, kinds: Kinds, now: Instant) {
        if !self.move_listening() {
            self.keep(kinds, now);
        }
    }

    /// The server leaves its client, or stays with it because of what it holds.
    pub(super) fn keep(&mut self, kinds: Kinds, now: Instant) {
        if kinds.is_empty() {
            self.unpin();
            return self.release(now);
        }
        match self.pin(kinds, now) {
            true => self.stay(now),
            false => {
                self.unpin();
                self.lose(kinds, Lost::Needed, now);
            }
        }
    }

    /// Keeps the server for the client, unless somebody else needs it.
    pub(super) fn pin(&mut self, kinds: Kinds, now: Instant) -> bool {
        let Place::Leased(held) = &mut self.place else {
            return false;
        };
        if self.client.has_order(TaskOrder::LetGo) {
            return false;
        }
        if let Some(pin) = &mut self.client.state().pin {
            pin.kinds = kinds;
            return true;
        }
        held.server.work.tally.pin_count += 1;
        let max = held.server.work.rules.settings.max_pinned;
        let pin = Pin {
            kinds,
            since: now,
            is_firm: false,
        };
        pins::pin(&self.shared, &self.route.home, &self.client, pin, max)
    }

    /// A server that has stayed with its client in another process stays with it here, and can be called back.
    pub(super) fn pin_inherited(&mut self) {
        let Place::Leased(held) = &self.place else {
            return;
        };
        let residue = held.server.relay.residue();
        let is_free = may_leave(&held.server.work.rules) && !held.server.work.is_own;
        if is_free && held.is_between_transactions() && !residue.is_settled() {
            let kinds = residue.announced();
            self.pin(kinds, Instant::now());
        }
    }

    /// The server is free to leave the client again.
    pub(super) fn unpin(&self) {
        pins::unpin(&self.route.home, &self.client);
    }

    /// Somebody else needs the server that stays with the client: what it holds is looked for once
    /// more, then it goes.
    pub(super) fn let_go(&mut self) {
        let is_pinned = self.client.state().pin.is_some();
        let Some(held) = self.place.held().filter(|_| is_pinned) else {
            self.client.take_order(TaskOrder::LetGo);
            return;
        };
        if held.is_between_transactions() {
            let now = Instant::now();
            let question = held
                .server
                .relay
                .whole_question(&lock(&self.route.home.memory), now);
            self.ask(question);
            self.client.state().clocks.begin_asking(now);
        }
    }

    fn ask(&mut self, question: Probe) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        let mut out = BytesMut::new();
        let login = &self.route.home.name.user;
        held.server.relay.look(question, login, &mut out);
        held.server.line.queue(&out);
        held.server.work.stage = Stage::Look;
        held.server.work.tally.state_look_count += 1;
    }

    /// The server stays with the client between two transactions.
    fn stay(&mut self, now: Instant) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        held.server.work.stage = match held.server.relay.fits(&mut self.side) {
            true => Stage::Serve,
            false => {
                let tracked = &self.shared.tracked;
                refit(&self.client, &mut self.side, tracked, &mut held.server)
            }
        };
        let mut state = self.client.state();
        state.clocks.phase = match held.serves() {
            true => Phase::Active,
            false => Phase::Waiting,
        };
        state.clocks.since = now;
    }

    /// The server does not take what the client had set elsewhere, and is fitted without it.
    #[cold]
    pub(super) fn lose_parameters(&mut self, reason: &str) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        held.server.work.tally.state_loss_count += 1;
        let tracked = &self.shared.tracked;
        held.server.work.stage = fit(&self.client, &mut self.side, tracked, &mut held.server);
        tracing::info!(peer = %self.client, "parameters set in a session are lost: {reason}");
        self.tell(&asides::parameters_lost(reason));
    }

    /// The server goes back to its pool without what the client has left there, and the client is
    /// told.
    pub(super) fn lose(&mut self, what: impl Display, lost: Lost, now: Instant) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        held.server.work.tally.state_loss_count += 1;
        tracing::info!(peer = %self.client, "session state is taken back: {what}");
        self.tell(&asides::state_taken_back(what, lost));
        self.client.take_order(TaskOrder::LetGo);
        self.release(now);
    }
}

fn is_canceled(refused: Option<&Refused>) -> bool {
    refused.is_some_and(|refused| refused.code == Some(SqlState::QUERY_CANCELED))
}

/// What becomes of a server that is given back: it may need care first.
pub(super) fn needs_care(held: &Held) -> bool {
    let relay = &held.server.relay;
    held.server.work.rules.resets_always
        || relay.is_in_doubt()
        || (held.server.work.is_private() && reset::has_residue(&held.server))
}
