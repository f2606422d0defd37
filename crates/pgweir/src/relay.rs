//! A logged-in client: idle, waiting, or holding a server. The way of every query.
//!
//! Hot path. One task polls the client, its server and its mailbox; [`pgweir_session::Relay`] says
//! what to do with the bytes. A query on a free server costs four system calls: read, write, read,
//! write. Nothing is allocated, and the clock is read when a query begins and when it ends.
//!
//! Load-bearing rules:
//! 1. Nothing of a batch is given to a server before the server is checked out for all of it.
//! 2. What a peer does not take is kept in its [`Buffered`]; while there is something kept for one
//!    side, the other side is not read.
//! 3. A server leaves through [`Session::release`] or [`Session::into_parts`], never by `Drop`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::BytesMut;
use pgweir_config::{ErrorCodes, PoolMode};
use pgweir_net::buffer::SCRATCH_LEN;
use pgweir_net::{Buffered, Input};
use pgweir_pool::{Actions, Checkout, Refusal, SlotId, Ticket};
use pgweir_session::{ClientSide, Gather, Phase, Values, Violation};
use pgweir_stats::Tally;
use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{Header, Severity, SqlState, TransactionStatus, backend};

use crate::client::{Client, Lease, Mail};
use crate::farewell::{Answer, Farewell};
use crate::server::Server;
use crate::shared::{Route, Rules, Shared, lock};
use crate::{pools, reset};

/// Rounds of reading and writing before other tasks get their turn.
const ROUNDS_MAX: usize = 32;

/// Bytes that a waiting client may send ahead before it is no longer read.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// What a thread needs to move bytes; shared by all its clients.
struct Desk {
    scratch: Box<[u8]>,
    to_server: Gather,
    to_client: Gather,
    fakes: BytesMut,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk {
        scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
        to_server: Gather::default(),
        to_client: Gather::default(),
        fakes: BytesMut::new(),
    });
}

/// A client that is logged in.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: Arc<Client>,
    pub(crate) route: Arc<Route>,
    pub(crate) line: Buffered,
    side: ClientSide,
    place: Place,
}

enum Place {
    Idle,
    Waiting(Ticket),
    Leased(Held),
}

/// A server in use.
struct Held {
    slot: SlotId,
    server: Box<Server>,
    stage: Stage,
    rules: Arc<Rules>,
    tally: Tally,
    query_start: Option<Instant>,
    transaction_start: Option<Instant>,
}

/// What a server that was just lent has to do first.
#[derive(Clone, Debug)]
enum Stage {
    /// Show that it is still there.
    Check,
    /// Take over the client's parameters, which were these.
    Fit(Values),
    /// Serve.
    Serve,
}

/// What remains of a session.
pub(crate) struct Remains {
    pub(crate) line: Buffered,
    /// Whether the client can still be told something: it is not in the middle of a message.
    pub(crate) can_be_told: bool,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        client: Arc<Client>,
        route: Arc<Route>,
        line: Buffered,
        side: ClientSide,
    ) -> Self {
        Self {
            shared,
            client,
            route,
            line,
            side,
            place: Place::Idle,
        }
    }

    /// Serves the client until it ends, and says why it did.
    pub(crate) async fn run(&mut self) -> Farewell {
        poll_fn(|cx| DESK.with_borrow_mut(|desk| self.poll(cx, desk))).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Farewell> {
        loop {
            if self.client.has_mail()
                && let Some(farewell) = self.client.take_end()
            {
                return Poll::Ready(farewell);
            }
            let step = match self.place {
                Place::Idle => ready!(self.poll_idle(cx, desk)),
                Place::Waiting(ticket) => ready!(self.poll_waiting(cx, desk, ticket)),
                Place::Leased(_) => ready!(self.poll_leased(cx, desk)),
            };
            if let Err(farewell) = step {
                return Poll::Ready(farewell);
            }
        }
    }

    /// Reads until the client wants something that needs a server.
    fn poll_idle(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<(), Farewell>> {
        if self.line.has_unsent() {
            ready!(self.line.poll_drain(cx)).map_err(|_| Farewell::ClientGone)?;
        }
        loop {
            let input = ready!(self.line.poll_read(cx, &mut desk.scratch));
            let input = input.map_err(|_| Farewell::ClientGone)?;
            if matches!(input, Input::End) {
                return Poll::Ready(Err(Farewell::ClientGone));
            }
            let (wish, consumed) = wish(input.bytes(&desk.scratch))?;
            match wish {
                Wish::Nothing => {
                    self.line.keep(input, &desk.scratch, consumed);
                    if consumed > 0 {
                        self.line.offer_held();
                    }
                }
                Wish::Terminate => return Poll::Ready(Err(Farewell::ClientClosed)),
                Wish::Server => return Poll::Ready(self.check_out(cx, desk, input)),
            }
        }
    }

    /// Asks the pool for a server for what the client has sent.
    fn check_out(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        input: Input,
    ) -> Result<(), Farewell> {
        let now = Instant::now();
        loop {
            let mut actions = Actions::default();
            let outcome = {
                let client = &self.client;
                let mut pools = self.shared.pools();
                pools.checkout(self.route.home.id, now, || Arc::clone(client), &mut actions)
            };
            pools::perform(&self.shared, actions);
            let lease = match outcome {
                Checkout::Ready {
                    slot,
                    server,
                    stale,
                } => Lease {
                    slot,
                    server,
                    stale,
                },
                Checkout::Refused(refusal) => return Err(Farewell::Refused(refusal)),
                Checkout::Wait(ticket) => {
                    let mut state = self.client.state();
                    state.clocks.begin_wait(now);
                    state.requested_at = now;
                    state.ticket = Some(ticket);
                    state.wait_notified = false;
                    drop(state);
                    self.line.put_back(input, &desk.scratch);
                    self.place = Place::Waiting(ticket);
                    return Ok(());
                }
            };
            let Some(lease) = pools::alive(&self.shared, lease) else {
                continue;
            };
            self.begin_lease(lease, now, now);
            return self.feed(cx, desk, input);
        }
    }

    /// Waits for a server, and sees whether the client is still there.
    fn poll_waiting(
        &mut self,
        cx: &mut Context<'_>,
        desk: &mut Desk,
        ticket: Ticket,
    ) -> Poll<Result<(), Farewell>> {
        match self.client.take_mail() {
            Some(Mail::Lease(lease)) => {
                if let Some(lease) = pools::alive(&self.shared, lease) {
                    let now = Instant::now();
                    let since = self.client.state().clocks.since;
                    self.begin_lease(lease, since, now);
                } else {
                    // What the client sent is still there: it asks again.
                    self.place = Place::Idle;
                }
                return Poll::Ready(Ok(()));
            }
            Some(Mail::Refused(refusal)) => return Poll::Ready(self.refused(refusal)),
            Some(Mail::Greet) | None => {}
        }
        let (canceled, notify) = self.client.take_wait_orders();
        if canceled {
            return Poll::Ready(self.cancel_wait(ticket));
        }
        if notify {
            self.tell_waiting();
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

    /// The query that waits is not wanted any more: the client is answered as if it had run.
    fn cancel_wait(&mut self, ticket: Ticket) -> Result<(), Farewell> {
        if self
            .shared
            .pools()
            .leave_queue(self.route.home.id, ticket)
            .is_none()
        {
            // The server is on its way already; the cancel came too late.
            return Ok(());
        }
        let answer = Answer {
            severity: Severity::Error,
            code: SqlState::QUERY_CANCELED,
            text: "canceling statement due to user request".into(),
            detail: Some("The statement was waiting for a server and has not been run.".into()),
        };
        self.answer_unserved(&answer)
    }

    /// The pool has no server for the client. In PostgreSQL's dialect the connection goes on.
    fn refused(&mut self, refusal: Refusal) -> Result<(), Farewell> {
        self.place = Place::Idle;
        Err(Farewell::Refused(refusal))
    }

    /// Answers a batch that no server has seen, and waits for the next one.
    fn answer_unserved(&mut self, answer: &Answer) -> Result<(), Farewell> {
        self.place = Place::Idle;
        let held = self.line.take_held();
        let Some(rest) = skip_batch(&held) else {
            // The batch has no end yet: only closing can keep the protocol right.
            return Err(Farewell::Expired(pgweir_session::Expiry::QueryWait));
        };
        let mut out = BytesMut::new();
        answer.write(&mut out);
        backend::ready_for_query(&mut out, TransactionStatus::Idle);
        self.line.queue(&out);
        self.line.put_back_bytes(rest);
        let now = Instant::now();
        let mut state = self.client.state();
        state.ticket = None;
        state.clocks.phase = Phase::Idle;
        state.clocks.since = now;
        state.clocks.query_start = None;
        Ok(())
    }

    fn tell_waiting(&mut self) {
        let mut out = BytesMut::new();
        Answer {
            severity: Severity::Notice,
            code: SqlState::SUCCESSFUL_COMPLETION,
            text: "No server connection available in postgres backend, client being queued".into(),
            detail: None,
        }
        .write(&mut out);
        self.line.queue(&out);
    }

    fn begin_lease(&mut self, lease: Lease, asked: Instant, now: Instant) {
        let Lease {
            slot,
            mut server,
            stale,
        } = lease;
        let rules = self.route.rules();
        let mut out = BytesMut::new();
        let stage = if stale {
            server.relay.ask(check_query(&rules), &mut out);
            Stage::Check
        } else if server
            .relay
            .fit(&mut self.side, &self.shared.tracked, &mut out)
        {
            self.log_fit(&out);
            Stage::Fit(self.side.values.clone())
        } else {
            Stage::Serve
        };
        server.line.queue(&out);
        {
            let mut loan = lock(&server.info.loan);
            loan.client = Some(Arc::clone(&self.client));
            loan.requested_at = now;
        }
        {
            let mut state = self.client.state();
            state.clocks.phase = Phase::Active;
            state.clocks.since = now;
            state.clocks.query_start = Some(asked);
            state.clocks.transaction_start = Some(now);
            state.requested_at = asked;
            state.ticket = None;
            state.link = Some((slot, Arc::clone(&server.info)));
        }
        let wait = now.saturating_duration_since(asked);
        let tally = Tally {
            server_assignment_count: 1,
            wait_time_us: micros(wait),
            ..Tally::default()
        };
        self.place = Place::Leased(Held {
            slot,
            server,
            stage,
            rules,
            tally,
            query_start: Some(asked),
            transaction_start: Some(now),
        });
    }

    /// Moves bytes in both directions until neither moves or the server is released.
    fn poll_leased(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Result<(), Farewell>> {
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
            let clear = !held.server.line.has_unsent() && !self.line.has_unsent();
            if held.serves()
                && clear
                && let Poll::Ready(input) = self.line.poll_read(cx, &mut desk.scratch)
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
            let Place::Leased(held) = &mut self.place else {
                return Poll::Ready(Ok(()));
            };
            if !self.line.has_unsent()
                && let Poll::Ready(input) = held.server.line.poll_read(cx, &mut desk.scratch)
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
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Gives the client's bytes to its server.
    fn feed(
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
        held.tally.bytes_received += bytes.len() as u64;
        let session_rules = session_rules(&self.shared, &held.rules);
        let relay = &mut held.server.relay;
        let verdict = relay.from_client(bytes, &mut self.side, &session_rules, to_server, fakes);
        let out = to_server.bytes(bytes);
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(violation) => {
                // What came before is in the books as sent, so it is sent.
                let _ = held.server.line.send(cx, out);
                tracing::info!(peer = %self.client, "{violation}");
                return Err(Farewell::Violation(violation));
            }
        };
        if was_quiet && held.query_start.is_none() && !held.server.relay.is_quiet() {
            let now = Instant::now();
            held.query_start = Some(now);
            held.transaction_start.get_or_insert(now);
            let mut state = self.client.state();
            state.clocks.phase = Phase::Active;
            state.clocks.since = now;
            state.clocks.query_start = Some(now);
            state.clocks.transaction_start = held.transaction_start;
            state.requested_at = now;
        }
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
        if verdict.terminate {
            return Err(Farewell::ClientClosed);
        }
        // Everything the client sent was answered without the server (Close of a statement).
        if held.server.relay.may_release() && held.query_start.is_some() {
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
        let session_rules = session_rules(&self.shared, &held.rules);
        let relay = &mut held.server.relay;
        let consumed = match relay.from_server(bytes, &mut self.side, &session_rules, to_client) {
            Ok(consumed) => consumed,
            Err(violation) => return Err(Farewell::Violation(violation)),
        };
        let out = to_client.bytes(bytes);
        held.tally.bytes_sent += out.len() as u64;
        // A server that is still being prepared has nothing to say to the client.
        let sent = match out.is_empty() || !held.serves() {
            true => Ok(()),
            false => self.line.send(cx, out),
        };
        // Even if the client is gone: the server is read on from here when it is cleaned up.
        held.server.line.keep(input, scratch, consumed);
        sent.map_err(|_| Farewell::ClientGone)?;
        if !held.serves() {
            self.next_stage();
            return Ok(Heard::More);
        }
        if !held.server.relay.is_quiet() || held.query_start.is_none() {
            return Ok(Heard::More);
        }
        if held.rules.settings.pool_mode == PoolMode::Statement
            && held.server.relay.status() != TransactionStatus::Idle
        {
            return Err(Farewell::TransactionInStatementMode);
        }
        self.turn_quiet();
        match self.place {
            Place::Leased(_) => Ok(Heard::More),
            Place::Idle | Place::Waiting(_) => Ok(Heard::Released),
        }
    }

    fn next_stage(&mut self) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        if !held.server.relay.is_quiet() {
            return;
        }
        match std::mem::replace(&mut held.stage, Stage::Serve) {
            Stage::Check => {
                let mut out = BytesMut::new();
                let before = self.side.values.clone();
                if held
                    .server
                    .relay
                    .fit(&mut self.side, &self.shared.tracked, &mut out)
                {
                    held.server.line.queue(&out);
                    held.stage = Stage::Fit(before);
                    self.log_fit(&out);
                }
            }
            Stage::Fit(before) => self.log_canonical(&before),
            Stage::Serve => {}
        }
    }

    fn log_fit(&self, query: &[u8]) {
        let sql = String::from_utf8_lossy(query.get(5..).unwrap_or_default());
        tracing::debug!(peer = %self.client, "varcache_apply: {}", sql.trim_end_matches('\0'));
    }

    /// The server may spell a value in its own way, which the client has from now on.
    fn log_canonical(&self, before: &Values) {
        for (index, name) in self.shared.tracked.names().enumerate() {
            if let (Some(was), Some(is)) = (before.get(index), self.side.values.get(index))
                && was != is
            {
                tracing::debug!(
                    peer = %self.client,
                    "varcache_set_canonical: setting {name} to its canonical version {was} -> {is}"
                );
            }
        }
    }

    /// The server owes nothing any more: a query has ended, and perhaps the lease with it.
    fn turn_quiet(&mut self) {
        let Place::Leased(held) = &mut self.place else {
            return;
        };
        let now = Instant::now();
        let idle = held.server.relay.status() == TransactionStatus::Idle;
        held.end_query(idle, now);
        self.route.home.totals.add(&mut held.tally);
        let release = idle && may_leave(&held.rules);
        if release {
            self.release(now);
            return;
        }
        let mut state = self.client.state();
        state.clocks.query_start = None;
        state.clocks.since = now;
        if idle {
            state.clocks.transaction_start = None;
            state.clocks.phase = Phase::Active;
        } else {
            state.clocks.phase = Phase::IdleInTransaction;
        }
    }

    /// Gives the server back.
    fn release(&mut self, now: Instant) {
        let Place::Leased(held) = std::mem::replace(&mut self.place, Place::Idle) else {
            return;
        };
        {
            let mut state = self.client.state();
            state.clocks.phase = Phase::Idle;
            state.clocks.since = now;
            state.clocks.query_start = None;
            state.clocks.transaction_start = None;
            state.link = None;
        }
        let global = &held.rules.config.global;
        let reset = global.server_reset_query_always && !global.server_reset_query.is_empty();
        if reset || held.server.relay.is_in_doubt() {
            reset::spawn(&self.shared, held.slot, held.server, reset::After::Release);
        } else {
            pools::checkin(&self.shared, held.slot, held.server, now);
        }
    }

    /// The server has closed its connection. If it was only being checked or fitted, the client
    /// gets another one and notices nothing.
    fn server_lost(&mut self) -> Result<(), Farewell> {
        let Place::Leased(held) = &mut self.place else {
            return Ok(());
        };
        if held.serves() {
            return Err(Farewell::ServerLost);
        }
        let Place::Leased(held) = std::mem::replace(&mut self.place, Place::Idle) else {
            return Ok(());
        };
        self.client.state().link = None;
        let reason = "server conn crashed?";
        let gone = crate::close::Busy::Gone;
        crate::close::give_up(&self.shared, held.slot, held.server, reason, gone);
        self.line.offer_held();
        Ok(())
    }

    /// Ends the session: the server is drained, reset or closed, the place in the queue given up.
    pub(crate) fn into_remains(self, farewell: &Farewell) -> Remains {
        let Self {
            shared,
            client,
            route,
            line,
            place,
            ..
        } = self;
        client.state().link = None;
        let mut can_be_told = true;
        match place {
            Place::Idle => {}
            Place::Waiting(ticket) => pools::leave_queue(&shared, &client, route.home.id, ticket),
            Place::Leased(mut held) => {
                can_be_told = held.server.relay.is_between_replies();
                route.home.totals.add(&mut held.tally);
                reset::after_client(&shared, held.slot, held.server, farewell);
            }
        }
        Remains { line, can_be_told }
    }
}

impl Held {
    fn serves(&self) -> bool {
        matches!(self.stage, Stage::Serve)
    }

    fn end_query(&mut self, idle: bool, now: Instant) {
        let parsed = self.server.relay.take_tally();
        self.tally.client_parse_count += parsed.client_parses;
        self.tally.server_parse_count += parsed.server_parses;
        self.tally.bind_count += parsed.binds;
        if let Some(start) = self.query_start.take() {
            self.tally.query_count += 1;
            self.tally.query_time_us += micros(now.saturating_duration_since(start));
        }
        if idle && let Some(start) = self.transaction_start.take() {
            self.tally.xact_count += 1;
            self.tally.xact_time_us += micros(now.saturating_duration_since(start));
        }
    }
}

enum Heard {
    More,
    Released,
}

/// What the first message of an idle client wants.
enum Wish {
    /// Nothing, or not enough of it is there to say.
    Nothing,
    Terminate,
    Server,
}

/// Looks at the messages of a client that holds no server; also, how many bytes need no server.
fn wish(bytes: &[u8]) -> Result<(Wish, usize), Farewell> {
    let mut at = 0;
    loop {
        let header = Header::peek(&bytes[at..], u32::MAX)
            .map_err(|error| Farewell::Violation(Violation::ClientFrame(error)))?;
        let Some(header) = header else {
            return Ok((Wish::Nothing, at));
        };
        match header.tag {
            tag::TERMINATE => return Ok((Wish::Terminate, at)),
            // Left over from a COPY that failed, or a Flush of nothing: PostgreSQL ignores them too.
            tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL | tag::FLUSH => {
                if bytes.len() < at + header.frame_len() {
                    return Ok((Wish::Nothing, at));
                }
                at += header.frame_len();
            }
            _ if at > 0 => return Ok((Wish::Nothing, at)),
            _ => return Ok((Wish::Server, 0)),
        }
    }
}

/// What follows the first batch in `bytes`; `None` if its end is not there.
fn skip_batch(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        let header = Header::peek(rest, u32::MAX).ok()??;
        rest = rest.get(header.frame_len()..)?;
        if matches!(header.tag, tag::QUERY | tag::SYNC | tag::FUNCTION_CALL) {
            return Some(rest);
        }
    }
}

/// The only place that asks for the pool mode on release: a session keeps its server.
fn may_leave(rules: &Rules) -> bool {
    match rules.settings.pool_mode {
        PoolMode::Session => false,
        PoolMode::Transaction | PoolMode::Statement => true,
    }
}

fn check_query(rules: &Rules) -> &str {
    match rules.config.global.server_check_query.as_str() {
        "<empty>" => "",
        query => query,
    }
}

fn session_rules<'a>(shared: &'a Shared, rules: &Rules) -> pgweir_session::Rules<'a> {
    pgweir_session::Rules {
        max_prepared: rules.max_prepared,
        max_message: rules.config.global.max_packet_size,
        tracked: &shared.tracked,
        statements: &shared.statements,
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

trait ReadyErr {
    fn is_ready_err(&self) -> bool;
}

impl<T, E> ReadyErr for Poll<Result<T, E>> {
    fn is_ready_err(&self) -> bool {
        matches!(self, Self::Ready(Err(_)))
    }
}

/// Which dialect a client of this route is spoken to in.
pub(crate) fn error_codes(route: Option<&Arc<Route>>, shared: &Shared) -> ErrorCodes {
    match route {
        Some(route) => route.rules().config.global.error_codes,
        None => shared.config().global.error_codes,
    }
}
