//! A client's life behind its login: idle, waiting, or holding a server. The twin of the binary's
//! `relay`.

use std::time::Instant;

use bytes::BytesMut;
use pgweir_pool::{Actions, Checkout, Lease, Refusal, SlotId, Ticket};
use pgweir_session::{ClientSide, Gather, SkipBatch, Skipped, Violation, Wish, wish};
use pgweir_wire::backend::{Report, ready_for_query};
use pgweir_wire::{FrameError, Severity, SqlState, TransactionStatus};

use super::line::Line;
use super::tasks::After;
use super::{Pooler, Server};
use crate::laws::Broken;
use crate::postgres::Postgres;
use crate::wires::{Env, Read};

/// A client that is logged in.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) pool: usize,
    pub(super) line: Line,
    pub(super) side: ClientSide,
    pub(super) place: Place,
    pub(super) mail: Option<Mail>,
    pub(super) canceled: bool,
    waits_since: Instant,
}

#[derive(Debug)]
pub(super) enum Place {
    Idle,
    Waiting(Ticket),
    Skipping(SkipBatch),
    Leased(Held),
    Ended,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) slot: SlotId,
    pub(super) server: Box<Server>,
    pub(super) stage: Stage,
    /// Whether something was asked since the last quiet moment.
    asked: bool,
}

/// What a server that was just lent has to do first.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    Check,
    Fit,
    Serve,
}

/// What the pool tells a session.
#[derive(Debug)]
pub(super) enum Mail {
    Lease(Lease<Box<Server>>),
    Refused(Refusal),
}

/// Why a session ends.
#[derive(Debug)]
enum Farewell {
    Left,
    ServerLost,
    Refused(Refusal),
    Violation(Violation),
}

/// Whether something moved.
type Moved = Result<bool, Farewell>;

impl Session {
    pub(super) fn new(pool: usize, line: Line, side: ClientSide, now: Instant) -> Self {
        Self {
            pool,
            line,
            side,
            place: Place::Idle,
            mail: None,
            canceled: false,
            waits_since: now,
        }
    }

    pub(super) fn story(&self) -> String {
        match &self.place {
            Place::Idle => "idle".to_owned(),
            Place::Waiting(_) => "waiting".to_owned(),
            Place::Skipping(_) => "skipping".to_owned(),
            Place::Leased(held) => format!("holds {} in {:?}", held.server.backend, held.stage),
            Place::Ended => "ended".to_owned(),
        }
    }
}

impl Pooler {
    /// A session looks around until nothing moves.
    pub(crate) fn wake_session(&mut self, id: usize, pg: &mut Postgres, env: &mut Env) {
        loop {
            let moved = match self.sessions[id].place {
                Place::Idle => self.idle(id, pg, env),
                Place::Waiting(ticket) => self.waiting(id, ticket, env),
                Place::Skipping(_) => self.skipping(id, env),
                Place::Leased(_) => self.leased(id, pg, env),
                Place::Ended => return self.return_late_mail(id, pg, env),
            };
            match moved {
                Ok(true) => {}
                Ok(false) => return,
                Err(farewell) => return self.end(id, farewell, pg, env),
            }
        }
    }

    fn idle(&mut self, id: usize, pg: &mut Postgres, env: &mut Env) -> Moved {
        let line = &mut self.sessions[id].line;
        line.drain(env).map_err(|_| Farewell::Left)?;
        if line.has_unsent() {
            return Ok(false);
        }
        let bytes = match line.read(env) {
            Read::Bytes(bytes) => bytes,
            Read::Nothing => return Ok(false),
            Read::End => return Err(Farewell::Left),
        };
        match wish(&bytes).map_err(broken)? {
            (Wish::Nothing, consumed) => {
                line.keep(bytes, consumed);
                if consumed > 0 {
                    line.offer_unread();
                }
                Ok(true)
            }
            (Wish::Rest(header), consumed) => {
                line.keep(bytes, consumed);
                line.put_back(&header);
                Ok(true)
            }
            (Wish::Terminate, _) => Err(Farewell::Left),
            (Wish::Server, _) => {
                line.put_back(&bytes);
                self.check_out(id, pg, env)
            }
        }
    }

    fn check_out(&mut self, id: usize, pg: &mut Postgres, env: &mut Env) -> Moved {
        loop {
            let mut actions = Actions::default();
            let pool = self.ids[self.sessions[id].pool];
            let outcome = self
                .pools
                .checkout(pool, env.now(), None, || id, &mut actions);
            self.perform(actions, pg, env);
            match outcome {
                Checkout::Ready(lease) => {
                    if let Some(lease) = self.alive(lease, env) {
                        self.begin_lease(id, lease, env);
                        return Ok(true);
                    }
                }
                Checkout::Refused(refusal) => return self.go_without(id, refusal, env),
                Checkout::Wait(ticket) => {
                    self.sessions[id].canceled = false;
                    self.sessions[id].waits_since = env.now();
                    env.note(|| format!("session {id} waits"));
                    self.sessions[id].place = Place::Waiting(ticket);
                    return Ok(true);
                }
            }
        }
    }

    fn waiting(&mut self, id: usize, ticket: Ticket, env: &mut Env) -> Moved {
        match self.sessions[id].mail.take() {
            Some(Mail::Lease(lease)) => {
                match self.alive(lease, env) {
                    Some(lease) => self.begin_lease(id, lease, env),
                    None => self.sessions[id].place = Place::Idle,
                }
                return Ok(true);
            }
            Some(Mail::Refused(refusal)) => return self.go_without(id, refusal, env),
            None => {}
        }
        let pool = self.ids[self.sessions[id].pool];
        let session = &mut self.sessions[id];
        if std::mem::take(&mut session.canceled) {
            if self.pools.leave_queue(pool, ticket, env.now()).is_some() {
                self.answer_canceled(id, env);
            }
            return Ok(true);
        }
        match session.line.is_gone(env) {
            true => Err(Farewell::Left),
            false => Ok(false),
        }
    }

    /// The client gets no server; where that is because of the crowd, it can ask again.
    fn go_without(&mut self, id: usize, refusal: Refusal, env: &mut Env) -> Moved {
        match refusal {
            Refusal::Crowded(_) => self.answer_crowded(id, env),
            other => return Err(Farewell::Refused(other)),
        }
        Ok(true)
    }

    /// Waits that have lasted too long end.
    pub(super) fn expire_waits(&mut self, pg: &mut Postgres, env: &mut Env) {
        let Some(timeout) = self.setup.queue.as_ref().map(|queue| queue.timeout) else {
            return;
        };
        for id in 0..self.sessions.len() {
            let session = &self.sessions[id];
            let Place::Waiting(ticket) = session.place else {
                continue;
            };
            let waited = env.now().saturating_duration_since(session.waits_since);
            let pool = self.ids[session.pool];
            if waited > timeout && self.pools.leave_queue(pool, ticket, env.now()).is_some() {
                self.answer_crowded(id, env);
                self.wake_session(id, pg, env);
            }
        }
    }

    fn answer_crowded(&mut self, id: usize, env: &mut Env) {
        env.note(|| format!("session {id} is refused"));
        self.answer_without_server(id, SqlState::TOO_MANY_CONNECTIONS, "query_wait_timeout");
    }

    fn answer_canceled(&mut self, id: usize, env: &mut Env) {
        env.note(|| format!("session {id} is canceled while it waits"));
        let message = "canceling statement due to user request";
        self.answer_without_server(id, SqlState::QUERY_CANCELED, message);
    }

    fn answer_without_server(&mut self, id: usize, code: SqlState, message: &str) {
        let session = &mut self.sessions[id];
        let mut out = BytesMut::new();
        Report {
            severity: Severity::Error,
            code,
            message,
            detail: None,
            hint: None,
        }
        .write(&mut out);
        session.line.queue(&out);
        session.line.offer_unread();
        session.place = Place::Skipping(SkipBatch::default());
    }

    fn skipping(&mut self, id: usize, env: &mut Env) -> Moved {
        let Session { line, place, .. } = &mut self.sessions[id];
        line.drain(env).map_err(|_| Farewell::Left)?;
        if line.has_unsent() {
            return Ok(false);
        }
        let bytes = match line.read(env) {
            Read::Bytes(bytes) => bytes,
            Read::Nothing => return Ok(false),
            Read::End => return Err(Farewell::Left),
        };
        let Place::Skipping(skip) = place else {
            return Ok(true);
        };
        match skip.skip(&bytes).map_err(broken)? {
            Skipped::Part(consumed) => line.keep(bytes, consumed),
            Skipped::All(consumed) => {
                line.keep(bytes, consumed);
                line.offer_unread();
                let mut out = BytesMut::new();
                ready_for_query(&mut out, TransactionStatus::Idle);
                line.queue(&out);
                *place = Place::Idle;
            }
        }
        Ok(true)
    }

    /// A server that was idle and has been closed or has spoken is not lent.
    fn alive(&mut self, lease: Lease<Box<Server>>, env: &mut Env) -> Option<Lease<Box<Server>>> {
        if !env.is_readable(lease.server.line.end.read) {
            return Some(lease);
        }
        let Lease { slot, server, .. } = lease;
        env.note(|| format!("backend {} got dirty", server.backend));
        self.pools.closing(slot, env.now());
        self.close(slot, server, env);
        None
    }

    fn begin_lease(&mut self, id: usize, lease: Lease<Box<Server>>, env: &mut Env) {
        let Lease {
            slot,
            mut server,
            stale,
        } = lease;
        let side = &mut self.sessions[id].side;
        // No client has the number 0.
        server.relay.begin_lease(id as u64 + 1);
        let mut out = BytesMut::new();
        let stage = if stale {
            server.relay.ask("SELECT 1 0", &mut out);
            Stage::Check
        } else if server.relay.fit(side, &self.tracked, &mut out) {
            Stage::Fit
        } else {
            Stage::Serve
        };
        env.note(|| format!("session {id} gets backend {} for {stage:?}", server.backend));
        server.line.queue(&out);
        self.holders.insert(server.backend, id);
        self.sessions[id].line.offer_unread();
        self.sessions[id].place = Place::Leased(Held {
            slot,
            server,
            stage,
            asked: true,
        });
    }

    fn leased(&mut self, id: usize, pg: &mut Postgres, env: &mut Env) -> Moved {
        let session = &mut self.sessions[id];
        let Place::Leased(held) = &mut session.place else {
            return Ok(false);
        };
        if held.server.line.drain(env).is_err() {
            return self.server_lost(id, env);
        }
        session.line.drain(env).map_err(|_| Farewell::Left)?;
        let clear = !held.server.line.has_unsent() && !session.line.has_unsent();
        let mut moved = false;
        if held.stage == Stage::Serve && clear && !held.server.relay.is_full() {
            match session.line.read(env) {
                Read::Bytes(bytes) => {
                    self.feed(id, bytes, pg, env)?;
                    moved = true;
                }
                Read::Nothing => {}
                Read::End => return Err(Farewell::Left),
            }
        }
        let session = &mut self.sessions[id];
        let Place::Leased(held) = &mut session.place else {
            return Ok(true);
        };
        if session.line.has_unsent() {
            return Ok(moved);
        }
        match held.server.line.read(env) {
            Read::Bytes(bytes) => {
                self.hear(id, bytes, pg, env)?;
                Ok(true)
            }
            Read::Nothing => Ok(moved),
            Read::End => self.server_lost(id, env),
        }
    }

    fn feed(
        &mut self,
        id: usize,
        bytes: Vec<u8>,
        pg: &mut Postgres,
        env: &mut Env,
    ) -> Result<(), Farewell> {
        let Session {
            line, side, place, ..
        } = &mut self.sessions[id];
        let Place::Leased(held) = place else {
            return Ok(());
        };
        let rules = self.setup.rules(&self.tracked, &self.table);
        let (mut to_server, mut fakes) = (Gather::default(), BytesMut::new());
        let relay = &mut held.server.relay;
        let was_quiet = relay.is_quiet();
        let verdict = relay.from_client(&bytes, side, &rules, &mut to_server, &mut fakes);
        let out = to_server.bytes(&bytes);
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(violation) => {
                let _ = held.server.line.send(env, out);
                return Err(Farewell::Violation(violation));
            }
        };
        held.asked |= was_quiet && !relay.is_quiet();
        let sent = held.server.line.send(env, out);
        if sent.is_err() {
            line.keep(bytes, verdict.consumed);
            return self.server_lost(id, env).map(|_| ());
        }
        line.send(env, &fakes).map_err(|_| Farewell::Left)?;
        line.keep(bytes, verdict.consumed);
        if verdict.terminate {
            return Err(Farewell::Left);
        }
        if held.server.relay.may_release() && held.asked {
            self.turn_quiet(id, pg, env);
        }
        Ok(())
    }

    fn hear(
        &mut self,
        id: usize,
        bytes: Vec<u8>,
        pg: &mut Postgres,
        env: &mut Env,
    ) -> Result<(), Farewell> {
        let Session {
            line, side, place, ..
        } = &mut self.sessions[id];
        let Place::Leased(held) = place else {
            return Ok(());
        };
        let rules = self.setup.rules(&self.tracked, &self.table);
        let mut to_client = Gather::default();
        let relay = &mut held.server.relay;
        let was_full = relay.is_full();
        let consumed = relay
            .from_server(&bytes, side, &rules, &mut to_client)
            .map_err(Farewell::Violation)?;
        if was_full && !relay.is_full() {
            line.offer_unread();
        }
        let sent = match held.stage {
            Stage::Serve => line.send(env, to_client.bytes(&bytes)),
            Stage::Check | Stage::Fit => Ok(()),
        };
        held.server.line.keep(bytes, consumed);
        sent.map_err(|_| Farewell::Left)?;
        if held.stage != Stage::Serve {
            if held.server.relay.is_quiet() {
                let mut out = BytesMut::new();
                let fits = held.stage == Stage::Check
                    && held.server.relay.fit(side, &self.tracked, &mut out);
                held.server.line.queue(&out);
                held.stage = if fits { Stage::Fit } else { Stage::Serve };
                self.begin_service(id, pg, env);
            }
            return Ok(());
        }
        if held.server.relay.is_quiet() && held.asked {
            self.turn_quiet(id, pg, env);
        }
        Ok(())
    }

    /// The server is ready for what the client asked, unless the client has canceled it.
    fn begin_service(&mut self, id: usize, pg: &mut Postgres, env: &mut Env) {
        let session = &mut self.sessions[id];
        let serves = matches!(&session.place, Place::Leased(held) if held.stage == Stage::Serve);
        if serves && std::mem::take(&mut session.canceled) {
            self.release(id, pg, env);
            self.answer_canceled(id, env);
        }
    }

    /// The server owes nothing any more: a query has ended, and perhaps the lease with it.
    fn turn_quiet(&mut self, id: usize, pg: &mut Postgres, env: &mut Env) {
        let session = &mut self.sessions[id];
        let Place::Leased(held) = &mut session.place else {
            return;
        };
        held.asked = false;
        if held.server.relay.status() == TransactionStatus::Idle && !self.setup.session_mode {
            self.release(id, pg, env);
        }
    }

    fn release(&mut self, id: usize, pg: &mut Postgres, env: &mut Env) {
        let session = &mut self.sessions[id];
        let Place::Leased(held) = std::mem::replace(&mut session.place, Place::Idle) else {
            return;
        };
        self.holders.remove(&held.server.backend);
        match held.server.relay.may_release() {
            true => self.checkin(held.slot, held.server, pg, env),
            false => self.clean_up(held.slot, held.server, After::Release, pg, env),
        }
    }

    /// The server has closed its connection. If it was only being prepared for the client, another
    /// one is looked for.
    fn server_lost(&mut self, id: usize, env: &mut Env) -> Moved {
        let session = &mut self.sessions[id];
        match &session.place {
            Place::Leased(held) if held.stage != Stage::Serve => {}
            _ => return Err(Farewell::ServerLost),
        }
        if let Place::Leased(held) = std::mem::replace(&mut session.place, Place::Idle) {
            session.line.offer_unread();
            self.holders.remove(&held.server.backend);
            self.pools.closing(held.slot, env.now());
            self.close(held.slot, held.server, env);
        }
        Ok(true)
    }

    fn end(&mut self, id: usize, farewell: Farewell, pg: &mut Postgres, env: &mut Env) {
        env.note(|| format!("session {id} ends: {farewell:?}"));
        let pool = self.ids[self.sessions[id].pool];
        let session = &mut self.sessions[id];
        let place = std::mem::replace(&mut session.place, Place::Ended);
        let holds = match &place {
            Place::Leased(held) => Some(held.server.backend),
            Place::Idle | Place::Waiting(_) | Place::Skipping(_) | Place::Ended => None,
        };
        let excused = match &farewell {
            Farewell::Left => true,
            Farewell::Refused(refusal) => {
                env.note(|| format!("{refusal:?}"));
                true
            }
            Farewell::ServerLost | Farewell::Violation(_) => {
                holds.is_some_and(|backend| self.crashed.contains(&backend))
            }
        };
        if !excused {
            self.broken.get_or_insert(Broken::SentAway {
                client: id,
                why: format!("{farewell:?}"),
            });
        }
        env.close(session.line.end);
        self.pools.client_left(pool, env.now());
        match place {
            Place::Idle | Place::Skipping(_) | Place::Ended => {}
            Place::Waiting(ticket) => {
                if self.pools.leave_queue(pool, ticket, env.now()).is_none() {
                    self.return_late_mail(id, pg, env);
                }
            }
            Place::Leased(held) => {
                self.holders.remove(&held.server.backend);
                match farewell {
                    Farewell::ServerLost => {
                        self.pools.closing(held.slot, env.now());
                        self.close(held.slot, held.server, env);
                    }
                    Farewell::Violation(violation) if !violation.is_clients() => {
                        self.give_up(held.slot, held.server, env);
                    }
                    _ => self.clean_up(held.slot, held.server, After::Client, pg, env),
                }
            }
        }
    }

    fn return_late_mail(&mut self, id: usize, pg: &mut Postgres, env: &mut Env) {
        if let Some(Mail::Lease(Lease { slot, server, .. })) = self.sessions[id].mail.take() {
            self.checkin(slot, server, pg, env);
        }
    }
}

fn broken(error: FrameError) -> Farewell {
    Farewell::Violation(Violation::ClientFrame(error))
}
