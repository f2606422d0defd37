//! A client without a server: idle, in the queue, or refused.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use pgweir_net::Input;
use pgweir_pool::{Checkout, Ticket};
use pgweir_session::{SkipBatch, Skipped, Violation, Wish, wish};
use pgweir_wire::{FrameError, HEADER_LEN, Severity, TransactionStatus, backend};

use super::taken::Taken;
use super::{Desk, Place, Session, error_codes};
use crate::clients::client::Mail;
use crate::clients::farewell::{Answer, Farewell, asides};
use crate::servers::{pins, pools};
use crate::watch::events;

/// Bytes that a waiting client may send ahead before it is no longer read.
const WAITING_BYTES_MAX: usize = 256 * 1024;

impl Session {
    /// Reads until the client wants something that needs a server.
    pub(super) fn poll_idle(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
    ) -> Poll<Result<(), Farewell>> {
        if self.route.is_left() {
            self.take_new_route()?;
        }
        loop {
            if self.line.has_unsent() {
                ready!(self.line.poll_drain(cx)).map_err(|_| Farewell::ClientGone)?;
            }
            if !self.deliver() {
                break;
            }
        }
        let input = ready!(self.poll_wish(cx, desk))?;
        Poll::Ready(self.check_out(cx, desk, input))
    }

    /// Reads until the client wants something that needs a server: that.
    #[inline]
    fn poll_wish(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
    ) -> Poll<Result<Input, Farewell>> {
        loop {
            let input = ready!(self.line.poll_read(cx, &mut desk.scratch));
            let input = input.map_err(|_| Farewell::ClientGone)?;
            if matches!(input, Input::End) {
                return Poll::Ready(Err(Farewell::ClientGone));
            }
            let (wish, consumed) = wish(input.bytes(&desk.scratch)).map_err(broken)?;
            match wish {
                Wish::Nothing => self.pass_over(input, &desk.scratch, consumed, None),
                Wish::Rest(header) => {
                    self.pass_over(input, &desk.scratch, consumed, Some(header));
                }
                Wish::Terminate => return Poll::Ready(Err(Farewell::ClientClosed)),
                Wish::Server => return Poll::Ready(Ok(input)),
            }
        }
    }

    /// Passes over what needs no answer. Of a CopyData that is there in part a header of the rest is kept.
    pub(super) fn pass_over(
        &mut self,
        input: Input,
        scratch: &[u8],
        unneeded: usize,
        rest: Option<[u8; HEADER_LEN]>,
    ) {
        self.line.keep(input, scratch, unneeded);
        if let Some(header) = rest {
            self.line.put_back_bytes(&header);
        } else if unneeded > 0 {
            self.line.offer_unread();
        }
    }

    /// Waits until the client asks for something, and answers that with what was found before.
    pub(super) fn poll_owing(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
    ) -> Poll<Result<(), Farewell>> {
        if self.line.has_unsent() {
            ready!(self.line.poll_drain(cx)).map_err(|_| Farewell::ClientGone)?;
        }
        let input = ready!(self.poll_wish(cx, desk))?;
        self.line.put_back(input, &desk.scratch);
        if let Place::Owing(answer) = std::mem::replace(&mut self.place, Place::Idle) {
            self.skip_batch_saying(TransactionStatus::Idle, &answer);
        }
        Poll::Ready(Ok(()))
    }

    /// Asks the pool for a server for what the client has sent.
    fn check_out(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        input: Input,
    ) -> Result<(), Farewell> {
        let now = Instant::now();
        let (home, party) = (&self.route.home, self.party.as_ref());
        match pools::checkout(&self.shared, &self.client, home, party, now) {
            Checkout::Ready(lease) => {
                self.begin_lease(lease, now, now);
                self.feed(cx, desk, input)
            }
            Checkout::Refused(refusal) => {
                self.line.put_back(input, &desk.scratch);
                self.go_without(Farewell::Refused(refusal))
            }
            Checkout::Wait(ticket) => {
                let mut state = self.client.state();
                if state.clocks.begin_wait(now) {
                    state.requested_at = now;
                    state.wait_notified = false;
                }
                drop(state);
                self.line.put_back(input, &desk.scratch);
                self.place = Place::Waiting(ticket);
                pins::call_back(&self.route.home);
                Ok(())
            }
        }
    }

    /// Waits for a server, and sees whether the client is still there.
    pub(super) fn poll_waiting(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        ticket: Ticket,
    ) -> Poll<Result<(), Farewell>> {
        if self.client.has_mail()
            && let Some(answered) = self.read_mail(ticket)
        {
            return Poll::Ready(answered);
        }
        if self.line.has_unsent()
            && let Poll::Ready(Err(_)) = self.line.poll_drain(cx)
        {
            return Poll::Ready(Err(Farewell::ClientGone));
        }
        let gone = self
            .line
            .poll_gone(cx, &mut desk.scratch, WAITING_BYTES_MAX);
        gone.map(|_| Err(Farewell::ClientGone))
    }

    /// Orders and answers for the client that waits. `None` if it goes on waiting.
    fn read_mail(&mut self, ticket: Ticket) -> Option<Result<(), Farewell>> {
        let orders = self.client.take_wait_orders();
        if orders.canceled {
            self.cancel_wait(ticket);
            return Some(Ok(()));
        }
        let mail = self.client.take_mail().map(|(mail, cause)| {
            let (since, now) = (self.client.state().clocks.since, Instant::now());
            self.route.home.times.waits.note(cause, since, now);
            (mail, since, now)
        });
        match mail {
            Some((Mail::Lease(lease), since, now)) => {
                if let Some(lease) = pools::alive(&self.shared, lease) {
                    self.begin_lease(lease, since, now);
                } else {
                    // What the client sent is still there: it asks again.
                    self.place = Place::Idle;
                }
                return Some(Ok(()));
            }
            Some((Mail::Refused(refusal), ..)) => {
                return Some(self.go_without(Farewell::Refused(*refusal)));
            }
            Some((Mail::Greet, ..)) | None => {}
        }
        if orders.notice {
            self.tell_waiting();
        }
        None
    }

    /// The query that waits is not wanted any more: the client is answered as if it had run. A
    /// server that is on its way is given back unused.
    fn cancel_wait(&mut self, ticket: Ticket) {
        let home = &self.route.home;
        let since = Some(self.client.state().clocks.since);
        pools::abandon_wait(&self.shared, &self.client, home, ticket, since);
        self.answer_canceled();
    }

    pub(super) fn answer_canceled(&mut self) {
        self.skip_batch(&asides::canceled_while_waiting());
    }

    /// An order to end has come. A client that only waits may keep its connection.
    pub(super) fn end_wait(&mut self, farewell: Farewell) -> Result<(), Farewell> {
        let Place::Waiting(ticket) = self.place else {
            return Err(farewell);
        };
        let codes = error_codes(Some(&self.route), &self.shared);
        if !farewell.spares_connection(codes) {
            return Err(farewell);
        }
        if self.leave_queue(ticket) {
            self.go_without(farewell)
        } else {
            Ok(())
        }
    }

    /// Whether the place in the queue was still there; if not, a server is on its way.
    pub(super) fn leave_queue(&self, ticket: Ticket) -> bool {
        let since = Some(self.client.state().clocks.since);
        pools::leave_queue(&self.shared, &self.route.home, ticket, since)
    }

    /// The client gets no server. Nothing of its batch has been run, so where the dialect has a way
    /// to say so, its connection goes on.
    fn go_without(&mut self, farewell: Farewell) -> Result<(), Farewell> {
        let codes = error_codes(Some(&self.route), &self.shared);
        let party = self.party.as_ref();
        match farewell.explained(codes, &self.shared, &self.client, party) {
            Some(answer) if farewell.spares_connection(codes) => {
                tracing::warn!(peer = %self.client, "pooler error: {}", answer.text);
                events::client_error(&self.shared, &self.client, &farewell);
                self.skip_batch(&Answer {
                    severity: Severity::Error,
                    ..answer
                });
                Ok(())
            }
            Some(_) | None => Err(farewell),
        }
    }

    /// Answers a batch that no server has seen, and leaves the client in no transaction.
    fn skip_batch(&mut self, answer: &Answer) {
        self.skip_batch_saying(TransactionStatus::Idle, &answer.message());
    }

    /// Passes over a batch; `said` is all that it is answered with before its ReadyForQuery.
    pub(super) fn skip_batch_saying(&mut self, status: TransactionStatus, said: &[u8]) {
        self.line.queue(said);
        self.line.offer_unread();
        self.place = Place::Skipping(SkipBatch::default(), status);
        self.client.state().end_request(Instant::now());
    }

    /// Reads to the end of a batch that was answered with an error.
    pub(super) fn poll_skipping(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
    ) -> Poll<Result<(), Farewell>> {
        ready!(self.line.poll_drain(cx)).map_err(|_| Farewell::ClientGone)?;
        loop {
            let input = ready!(self.line.poll_read(cx, &mut desk.scratch));
            let input = input.map_err(|_| Farewell::ClientGone)?;
            if matches!(input, Input::End) {
                return Poll::Ready(Err(Farewell::ClientGone));
            }
            let Place::Skipping(skip, status) = &mut self.place else {
                return Poll::Ready(Ok(()));
            };
            match skip.skip(input.bytes(&desk.scratch)).map_err(broken)? {
                Skipped::Part(consumed) => self.line.keep(input, &desk.scratch, consumed),
                Skipped::All(consumed) => {
                    self.line.keep(input, &desk.scratch, consumed);
                    self.line.offer_unread();
                    let mut out = BytesMut::new();
                    backend::ready_for_query(&mut out, *status);
                    self.place = match status {
                        TransactionStatus::Idle => Place::Idle,
                        _ => Place::Taken(Taken::Told),
                    };
                    self.line.queue(&out);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// `query_wait_notify`
    fn tell_waiting(&mut self) {
        self.tell(&asides::queued());
    }

    /// Tells the client something that no reply belongs to.
    pub(super) fn tell(&mut self, aside: &Answer) {
        let mut out = BytesMut::new();
        aside.write(&mut out);
        self.line.queue(&out);
    }
}

fn broken(error: FrameError) -> Farewell {
    Farewell::Violation(Violation::ClientFrame(error))
}
