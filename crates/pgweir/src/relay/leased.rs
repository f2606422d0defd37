//! A client with a server: bytes in both directions, until the server is released. How that begins and ends
//! is in [`lending`](super::lending).

use std::task::{Context, Poll};
use std::time::Instant;

use pgweir_config::PoolMode;
use pgweir_net::buffer::SCRATCH_LEN;
use pgweir_net::{Buffered, Input};
use pgweir_pool::SlotId;
use pgweir_session::{Phase, StateRules, Violation, Waits};
use pgweir_stats::Totals;
use pgweir_wire::TransactionStatus;

use super::{Desk, Place, Session};
use crate::clients::farewell::Farewell;
use crate::servers::close::Busy;
use crate::servers::server::{Server, Stage, Step, Work};
use crate::shared::Shared;

/// Rounds of reading and writing before other tasks get their turn.
const ROUNDS_MAX: usize = 32;

/// Bytes that are moved before they count while a query goes on.
const PUBLISHED_BYTES: u64 = 1024 * 1024;

/// A server in use.
pub(super) struct Held {
    pub(super) slot: SlotId,
    pub(super) server: Box<Server>,
}

impl Session {
    /// Moves bytes in both directions until neither moves or the server is released.
    pub(super) fn poll_leased(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
    ) -> Poll<Result<(), Farewell>> {
        for _ in 0..ROUNDS_MAX {
            let Place::Leased(held) = &mut self.place else {
                return Poll::Ready(Ok(()));
            };
            let mut moved = false;
            if held.server.line.has_unsent()
                && let Poll::Ready(Err(_)) = held.server.line.poll_drain(cx)
            {
                return Poll::Ready(self.server_lost());
            }
            if self.line.has_unsent() && self.line.poll_drain(cx).is_ready_err() {
                return Poll::Ready(Err(Farewell::ClientGone));
            }
            if held.may_be_told() {
                moved |= self.deliver();
            }
            let Place::Leased(held) = &mut self.place else {
                return Poll::Ready(Ok(()));
            };
            // The server first: what it says mostly ends the lease, and then the client is read by whoever serves it
            // next, not twice.
            let (from_server, from_client) = held.room(&self.line, self.braking);
            if !self.line.has_unsent()
                && from_server > 0
                && let Poll::Ready(input) = held
                    .server
                    .line
                    .poll_read(cx, &mut desk.scratch[..from_server])
            {
                match input {
                    Ok(Input::End) | Err(_) => return Poll::Ready(self.server_lost()),
                    Ok(input) => match self.hear(cx, desk, input) {
                        Ok(Heard::Released) => return Poll::Ready(Ok(())),
                        Ok(Heard::More) => moved = true,
                        Err(farewell) => return Poll::Ready(Err(farewell)),
                    },
                }
            }
            let Place::Leased(held) = &mut self.place else {
                return Poll::Ready(Ok(()));
            };
            let clear = !held.server.line.has_unsent() && !self.line.has_unsent();
            if held.serves()
                && clear
                && !held.server.relay.is_full()
                && from_client > 0
                && let Poll::Ready(input) =
                    self.line.poll_read(cx, &mut desk.scratch[..from_client])
            {
                match input {
                    Ok(Input::End) | Err(_) => return Poll::Ready(Err(Farewell::ClientGone)),
                    Ok(input) => {
                        if let Err(farewell) = self.feed(cx, desk, input) {
                            return Poll::Ready(Err(farewell));
                        }
                        moved = true;
                    }
                }
            }
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the client's bytes to its server.
    pub(super) fn feed(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        input: Input,
    ) -> Result<(), Farewell> {
        let Place::Leased(held) = &mut self.place else {
            unreachable!("bytes are fed to a server that is held")
        };
        if !held.serves() {
            self.line.put_back(input, &desk.scratch);
            return Ok(());
        }
        let Desk {
            scratch,
            to_server,
            fakes,
            ..
        } = desk;
        let was_quiet = held.server.relay.is_quiet();
        to_server.clear();
        fakes.clear();
        let bytes = input.bytes(scratch);
        if !was_quiet {
            held.server.work.moved += bytes.len() as u64;
        }
        let session_rules = session_rules(&self.shared, &held.server.work);
        let relay = &mut held.server.relay;
        let verdict = relay.from_client(bytes, &mut self.side, &session_rules, to_server, fakes);
        let out = to_server.bytes(bytes);
        let verdict = match verdict {
            Ok(verdict) => {
                // Neither what is offered again nor a Terminate.
                held.server.work.tally.bytes_received += verdict.consumed as u64;
                verdict
            }
            Err(violation) => {
                // What came before is in the books as sent, so it is sent.
                let _ = held.server.line.send(cx, out);
                tracing::info!(peer = %self.client, "{violation}");
                return Err(Farewell::Violation(violation));
            }
        };
        if was_quiet && held.server.work.query_start.is_none() && !held.server.relay.is_quiet() {
            let now = Instant::now();
            held.server.work.begin_query(now);
            held.server.relay.forget_cancel();
            let mut state = self.client.state();
            state.clocks.phase = Phase::Active;
            state.clocks.since = now;
            state.clocks.query_start = Some(now);
            state.clocks.transaction_start = held.server.work.transaction_start;
            state.requested_at = now;
        }
        held.publish(&self.route.home.totals);
        held.server.work.has_asked |= !out.is_empty();
        if !out.is_empty() && held.server.line.send(cx, out).is_err() {
            self.line.keep(input, scratch, verdict.consumed);
            return self.server_lost();
        }
        if !fakes.is_empty() {
            self.line
                .send(cx, fakes)
                .map_err(|_| Farewell::ClientGone)?;
        }
        self.line.keep(input, scratch, verdict.consumed);
        if held.server.relay.waits() != Waits::Nothing {
            self.end_wait_of_message();
            return Ok(());
        }
        if verdict.terminate {
            return Err(Farewell::ClientClosed);
        }
        // Everything the client sent was answered without the server (Close of a statement), or was the end of what
        // it copies and comes after the answer.
        if held.server.relay.is_quiet() && held.server.work.query_start.is_some() {
            self.turn_quiet();
        }
        Ok(())
    }

    /// Gives the server's bytes to the client.
    fn hear(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        input: Input,
    ) -> Result<Heard, Farewell> {
        let Place::Leased(held) = &mut self.place else {
            return Ok(Heard::Released);
        };
        let Desk {
            scratch, to_client, ..
        } = desk;
        to_client.clear();
        let bytes = input.bytes(scratch);
        let session_rules = session_rules(&self.shared, &held.server.work);
        let relay = &mut held.server.relay;
        let was_full = relay.is_full();
        let consumed = match relay.from_server(bytes, &mut self.side, &session_rules, to_client) {
            Ok(consumed) => consumed,
            Err(Violation::OwnQueryFailed(message))
                if matches!(held.server.work.stage, Stage::Check) =>
            {
                tracing::info!(peer = %held.server.info, "server_check_query: {message}");
                self.replace_server("test query failed", Busy::No);
                return Ok(Heard::Released);
            }
            Err(violation @ Violation::UndoFailed(_)) if !held.server.work.has_asked => {
                tracing::warn!(peer = %held.server.info, "{violation}");
                self.replace_server("parameters could not be reset", Busy::No);
                return Ok(Heard::Released);
            }
            Err(violation) => return Err(Farewell::Violation(violation)),
        };
        let out = to_client.bytes(bytes);
        held.server.work.tally.bytes_sent += out.len() as u64;
        held.server.work.moved += out.len() as u64;
        held.publish(&self.route.home.totals);
        let sent = match held.server.work.stage {
            // A server that is still being prepared has nothing to say to the client.
            Stage::Check | Stage::Fit(_) => Ok(()),
            _ if out.is_empty() => Ok(()),
            Stage::Forget
            | Stage::Refit
            | Stage::Comply
            | Stage::Look
            | Stage::Move(_)
            | Stage::Serve => self.line.send(cx, out),
        };
        if was_full && !held.server.relay.is_full() {
            self.line.offer_unread();
        }
        // Even if the client is gone: the server is read on from here when it is cleaned up.
        held.server.line.keep(input, scratch, consumed);
        sent.map_err(|_| Farewell::ClientGone)?;
        if !held.serves() {
            self.next_stage()?;
            return Ok(Heard::More);
        }
        if !held.server.relay.is_quiet() || held.server.work.query_start.is_none() {
            return Ok(Heard::More);
        }
        if held.server.work.rules.settings.pool_mode == PoolMode::Statement
            && held.server.relay.status() != TransactionStatus::Idle
        {
            return Err(Farewell::TransactionInStatementMode);
        }
        self.turn_quiet();
        // An order to end may have waited for this moment.
        Ok(
            match self.place.held().is_some() && !self.client.has_mail() {
                true => Heard::More,
                false => Heard::Released,
            },
        )
    }
}

impl Held {
    /// How much may be read from the server and from the client. While braking, no more than to the
    /// end of a frame.
    #[inline]
    fn room(&self, client: &Buffered, braking: bool) -> (usize, usize) {
        if !braking || !self.serves() {
            return (SCRATCH_LEN, SCRATCH_LEN);
        }
        let relay = &self.server.relay;
        let from_server = relay.missing_from_server(self.server.line.unread());
        let from_client = relay.missing_from_client(client.unread());
        (from_server.min(SCRATCH_LEN), from_client.min(SCRATCH_LEN))
    }

    pub(super) fn serves(&self) -> bool {
        matches!(self.server.work.stage, Stage::Serve)
    }

    /// Whether the client is in no transaction and in no message, and its server has told all that comes
    /// before what is heard elsewhere.
    fn may_be_told(&self) -> bool {
        match self.server.work.stage {
            Stage::Serve => self.is_between_transactions(),
            Stage::Move(Step::Asked | Step::Ending) => self.server.relay.is_between_replies(),
            Stage::Move(Step::Marking)
            | Stage::Check
            | Stage::Fit(_)
            | Stage::Refit
            | Stage::Comply
            | Stage::Forget
            | Stage::Look => false,
        }
    }

    /// A session between two transactions.
    pub(super) fn is_between_transactions(&self) -> bool {
        let work = &self.server.work;
        self.serves() && work.query_start.is_none() && self.server.relay.may_release()
    }

    /// Queries and transactions count from their beginning, and the bytes of a long COPY while it
    /// runs: monitors would not see it otherwise. What else there is can wait for the end.
    fn publish(&mut self, totals: &Totals) {
        let tally = &mut self.server.work.tally;
        if tally.query_count > 0 || tally.bytes_sent + tally.bytes_received > PUBLISHED_BYTES {
            totals.add(tally);
        }
    }
}

enum Heard {
    More,
    Released,
}

pub(super) fn session_rules<'a>(shared: &'a Shared, work: &Work) -> pgweir_session::Rules<'a> {
    let rules = &work.rules;
    pgweir_session::Rules {
        max_prepared: rules.max_prepared,
        prepares_unnamed: rules.settings.prepare_unnamed,
        max_message: rules.max_message,
        refuses_queries: rules.refuses_queries,
        answers_as_postgres: rules.answers_as_postgres,
        backends: Some(shared),
        private: work.is_private(),
        state: StateRules {
            judged: rules.judged,
            judge: Some(shared),
            remembers: rules.treatment.is_strict,
            allowed: rules.treatment.allowed,
        },
        tracked: &shared.tracked,
        statements: &shared.statements,
    }
}

trait ReadyErr {
    fn is_ready_err(&self) -> bool;
}

impl<T, E> ReadyErr for Poll<Result<T, E>> {
    fn is_ready_err(&self) -> bool {
        matches!(self, Self::Ready(Err(_)))
    }
}
