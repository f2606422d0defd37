//! `leak_action`: a statement that takes far too long is canceled; a client that holds a server in silence is
//! told, or its transaction is taken from it. Then it is where PostgreSQL would have it after an error: everything is refused until it
//! ends the transaction.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pgweir_net::Input;
use pgweir_session::Violation;
use pgweir_session::taken::{Form, Next, next};
use pgweir_wire::{TransactionStatus, backend};

use super::leased::Held;
use super::{Desk, Place, Session};
use crate::clients::cancel;
use crate::clients::client::Remedy;
use crate::clients::farewell::{Answer, Farewell, asides};
use crate::servers::reset;
use crate::watch::strict::FindingKind;
use crate::watch::{events, leaks};

/// What a client knows of the end of its transaction.
#[derive(Clone, Debug)]
pub(super) enum Taken {
    /// Nothing yet; this is what it will be told.
    Untold(Box<[u8]>),
    /// It has had an error, and has to end the transaction.
    Told,
}

impl Session {
    /// Does what is to be done about the client, if it still does what it is suspected for.
    #[cold]
    pub(super) fn remedy(&mut self, how: Remedy) {
        match how {
            Remedy::Cancel { query, usual } => self.cancel_overdue(query, usual),
            Remedy::Notice if self.is_silent() => self.tell(&asides::silent_too_long()),
            Remedy::Rollback if self.is_silent() => self.take_transaction(asides::rolled_back()),
            Remedy::Strict(kind) if self.is_silent() => self.take_found(kind),
            Remedy::Notice | Remedy::Rollback | Remedy::Strict(_) => {}
        }
    }

    /// Whether nothing moves in the client's transaction, and it is the client's turn.
    fn is_silent(&self) -> bool {
        let Place::Leased(held) = &self.place else {
            return false;
        };
        held.serves()
            && held.server.relay.is_quiet()
            && held.server.relay.status() != TransactionStatus::Idle
            && self.line.unread().is_empty()
            && !self.line.has_unsent()
            && !held.server.work.is_own
    }

    /// The query is canceled, and the client learns by which rule.
    fn cancel_overdue(&mut self, query: Instant, usual: Duration) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        let is_the_same = held.serves()
            && held.server.work.query_start == Some(query)
            && !held.server.relay.is_quiet()
            && held.server.relay.may_cancel();
        if !is_the_same {
            return;
        }
        let mut message = BytesMut::new();
        asides::took_too_long(usual, query.elapsed()).write(&mut message);
        held.server.relay.expect_cancel(&message);
        let (shared, client) = (Arc::clone(&self.shared), Arc::clone(&self.client));
        tokio::spawn(async move {
            let outcome = cancel::cancel(&shared, &client).await;
            tracing::warn!(peer = %client, "statement that takes far too long: {outcome}");
        });
    }

    /// A strict run takes the transaction.
    fn take_found(&mut self, kind: FindingKind) {
        let Place::Leased(held) = &self.place else {
            return;
        };
        let statement = leaks::shown(&self.shared.config(), held.server.relay.spoken().last());
        let why = "It was the last of its transaction, which was rolled back. Nothing of this request has been run.";
        self.take_transaction(asides::finding(kind, &statement, why));
    }

    /// The server is rolled back and serves others; the client learns of it when it goes on.
    fn take_transaction(&mut self, answer: Answer) {
        let taken = Place::Taken(Taken::Untold(answer.message()));
        let place = std::mem::replace(&mut self.place, taken);
        let Place::Leased(Held { slot, mut server }) = place else {
            self.place = place;
            return;
        };
        tracing::warn!(peer = %self.client, "transaction rolled back: its client was silent in it for too long");
        events::client_error(&self.shared, &self.client, &Farewell::Leaked);
        let (home, now) = (&self.route.home, Instant::now());
        server.work.end_lease(now, home.books(&self.application));
        server.report_tally(&self.shared, home);
        self.unpin();
        let mut state = self.client.state();
        state.end_request(now);
        state.link = None;
        drop(state);
        reset::spawn(&self.shared, slot, server, reset::After::Client);
    }

    /// Waits for what the client says next.
    pub(super) fn poll_taken(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        taken: Taken,
    ) -> Poll<Result<(), Farewell>> {
        if self.line.has_unsent() {
            ready!(self.line.poll_drain(cx)).map_err(|_| Farewell::ClientGone)?;
        }
        let input = ready!(self.line.poll_read(cx, &mut desk.scratch));
        let input = input.map_err(|_| Farewell::ClientGone)?;
        if matches!(input, Input::End) {
            return Poll::Ready(Err(Farewell::ClientGone));
        }
        let next = next(input.bytes(&desk.scratch), &self.side);
        let next = next.map_err(|error| Farewell::Violation(Violation::ClientFrame(error)))?;
        match (next, taken) {
            (Next::Nothing { unneeded, rest }, _) => {
                self.pass_over(input, &desk.scratch, unneeded, rest);
            }
            (Next::Terminate, _) => return Poll::Ready(Err(Farewell::ClientClosed)),
            // Any server can say that there is no transaction.
            (Next::Rollback, _) => {
                self.line.put_back(input, &desk.scratch);
                self.place = Place::Idle;
            }
            // So PostgreSQL answers; a server that is in no transaction would say that it has committed.
            (Next::Commit(Form::Simple), Taken::Told) => {
                self.line.put_back(input, &desk.scratch);
                let mut answer = BytesMut::new();
                backend::command_complete(&mut answer, "ROLLBACK");
                self.skip_batch_saying(TransactionStatus::Idle, &answer);
            }
            (Next::Commit(_), taken) => {
                self.line.put_back(input, &desk.scratch);
                let answer = match taken {
                    Taken::Untold(answer) => answer,
                    Taken::Told => asides::rolled_back().message(),
                };
                self.skip_batch_saying(TransactionStatus::Idle, &answer);
            }
            (Next::Sync, Taken::Told) => {
                self.line.put_back(input, &desk.scratch);
                self.skip_batch_saying(TransactionStatus::Failed, &[]);
            }
            (Next::Other, taken) | (Next::Sync, taken @ Taken::Untold(_)) => {
                self.line.put_back(input, &desk.scratch);
                let answer = match taken {
                    Taken::Untold(answer) => answer,
                    Taken::Told => asides::still_failed().message(),
                };
                self.skip_batch_saying(TransactionStatus::Failed, &answer);
            }
        }
        Poll::Ready(Ok(()))
    }
}
