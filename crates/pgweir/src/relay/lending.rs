//! How a lease begins and how it ends: its first stage, what becomes of it when the server owes nothing any
//! more, and when a server is lost.

use std::sync::Arc;
use std::time::Instant;

use pgweir_config::PoolMode;
use pgweir_session::Phase;
use pgweir_wire::TransactionStatus;

use super::apart::needs_care;
use super::leased::Held;
use super::preparing::refit;
use super::{Place, Session};
use crate::clients::client::Lease;
use crate::clients::farewell::Farewell;
use crate::servers::close::{self, Busy};
use crate::servers::server::Stage;
use crate::servers::{pools, reset};
use crate::shared::{Rules, lock};
use crate::watch::slow;

impl Session {
    pub(super) fn begin_lease(&mut self, lease: Lease, asked: Instant, now: Instant) {
        let Lease {
            slot,
            mut server,
            stale,
        } = lease;
        let is_other = Arc::ptr_eq(&self.application, &self.shared.other_application);
        if is_other && self.looked_up != self.client.minute(now) {
            self.find_application(now);
        }
        self.route.refresh(&mut server.work.rules);
        server.relay.begin_lease(self.client.id);
        if self.side.channels.is_some() {
            server.relay.note_elsewhere();
        }
        server.info.note_lease(self.client.process_id());
        let forget = self.must_forget_drawn(&server);
        let stage = if stale || forget || !server.relay.fits(&mut self.side) {
            self.prepare(&mut server, stale)
        } else {
            Stage::Serve
        };
        {
            let mut state = self.client.state();
            // While the server is being prepared the client still waits for it: a cancel must not
            // hit a query that is not the client's.
            state.clocks.phase = match stage {
                Stage::Check
                | Stage::Forget
                | Stage::Fit(_)
                | Stage::Refit
                | Stage::Comply
                | Stage::Look
                | Stage::Move(_) => Phase::Waiting,
                Stage::Serve => Phase::Active,
            };
            state.clocks.since = now;
            state.clocks.query_start = Some(asked);
            state.clocks.transaction_start = Some(now);
            state.requested_at = asked;
            state.link = Some(slot);
        }
        if self.shared.log.is_noisy() {
            let waited = now.saturating_duration_since(asked).as_secs_f64() * 1_000.0;
            tracing::trace!(peer = %self.client, "borrows {}, after {waited:.1} ms", server.info);
        }
        server.work.begin(stage, asked, now);
        self.place = Place::Leased(Held { slot, server });
    }

    /// Takes a server that is this client's alone.
    pub(crate) fn take_own(&mut self, lease: Lease) {
        self.side.values = lease.server.relay.values().clone();
        let now = Instant::now();
        self.begin_lease(lease, now, now);
        if let Place::Leased(held) = &mut self.place {
            let work = &mut held.server.work;
            work.is_own = true;
            (work.query_start, work.transaction_start) = (None, None);
            (work.tally.query_count, work.tally.xact_count) = (0, 0);
            work.wait_us = None;
        }
        let mut state = self.client.state();
        state.clocks.query_start = None;
        state.clocks.transaction_start = None;
    }

    /// The server owes nothing any more: a query has ended, and perhaps the lease with it.
    pub(super) fn turn_quiet(&mut self) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        let now = Instant::now();
        let idle = held.server.relay.status() == TransactionStatus::Idle;
        let release = idle && !held.server.work.is_own && may_leave(&held.server.work.rules);
        let home = &self.route.home;
        let books = home.books(&self.application);
        if idle && held.server.relay.take_altered() {
            self.shared.statements.note_altered();
            lock(&home.memory).forget();
        }
        let noted = held.server.work.end_query(idle, release, now, books);
        if let Some(noted) = noted {
            slow::look_at(&self.shared, &self.client, home, &mut held.server, noted);
        }
        held.server.report_tally(&self.shared, home);
        let looks = release && self.begin_look(now);
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        if release && !looks && held.server.relay.residue().bound().is_empty() {
            self.release(now);
            return;
        }
        if idle && !looks && held.server.relay.was_reset() {
            held.server.work.stage = refit(
                &self.client,
                &mut self.side,
                &self.shared.tracked,
                &mut held.server,
            );
        }
        let name = self.shared.application_name(&self.side.values);
        let mut state = self.client.state();
        let is_renamed = state.set_application_name(name);
        state.clocks.query_start = None;
        state.clocks.since = now;
        if idle {
            state.clocks.transaction_start = None;
        }
        state.clocks.phase = match (idle, held.serves()) {
            (true, true) => Phase::Active,
            // A cancel must not hit what the pooler asks.
            (true, false) => Phase::Waiting,
            (false, _) => Phase::IdleInTransaction,
        };
        drop(state);
        if is_renamed {
            self.find_application(now);
        }
    }

    /// Gives the server back.
    pub(super) fn release(&mut self, now: Instant) {
        let Place::Leased(held) = std::mem::replace(&mut self.place, Place::Idle) else {
            return;
        };
        let is_renamed = {
            let name = self.shared.application_name(&self.side.values);
            let mut state = self.client.state();
            let is_renamed = state.set_application_name(name);
            state.end_request(now);
            state.link = None;
            is_renamed
        };
        if is_renamed {
            self.find_application(now);
        }
        if self.shared.log.is_noisy() {
            tracing::trace!(peer = %self.client, "gives {} back", held.server.info);
        }
        if needs_care(&held) {
            reset::spawn(&self.shared, held.slot, held.server, reset::After::Release);
        } else {
            pools::checkin(&self.shared, held.slot, held.server, now);
        }
    }

    /// The server has closed its connection. If it has been sent nothing of the client's yet, the client gets another
    /// one and notices nothing; otherwise it loses a transaction, or what it has left in the session.
    pub(super) fn server_lost(&mut self) -> Result<(), Farewell> {
        let Place::Leased(held) = &mut self.place else {
            return Ok(());
        };
        if held.serves() || held.server.work.has_asked {
            let relay = &held.server.relay;
            return Err(match relay.has_said_goodbye() {
                true => Farewell::ServerEnded,
                false if relay.may_have_committed() => Farewell::OutcomeUnknown,
                false => Farewell::ServerLost,
            });
        }
        self.replace_server("server conn crashed?", Busy::Gone);
        Ok(())
    }

    /// Gives a server up that has not served the client yet. What the client sent is still there:
    /// it asks again.
    pub(super) fn replace_server(&mut self, reason: &'static str, busy: Busy) {
        let Place::Leased(held) = std::mem::replace(&mut self.place, Place::Idle) else {
            return;
        };
        self.unpin();
        self.client.state().link = None;
        close::give_up(&self.shared, held.slot, held.server, reason, busy);
        self.line.offer_unread();
    }
}

/// Whether the end of a transaction ends the lease: a session keeps its server.
pub(super) fn may_leave(rules: &Rules) -> bool {
    match rules.settings.pool_mode {
        PoolMode::Session => false,
        PoolMode::Transaction | PoolMode::Statement => true,
    }
}
