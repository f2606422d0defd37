//! What servers go through without a client: opening, cleaning up, closing, being canceled. The
//! twin of the binary's `reset`, `ask`, `close` and `cancel`.

use bytes::BytesMut;
use pgweir_pool::SlotId;
use pgweir_session::{Abandon, ClientSide, Gather, Rules};
use pgweir_wire::{TransactionStatus, frontend};

use super::session::{Place, Stage};
use super::{Pooler, Server};
use crate::laws::Broken;
use crate::postgres::Postgres;
use crate::wires::{End, Env, Event, Read};

/// `cancel_drain_timeout`: longer than the slowest wire needs for the longest answer.
const PATIENCE_US: u64 = 30_000_000;

/// What happens to a backend that no session holds and that is not idle in a pool.
#[derive(Debug)]
pub(super) enum Task {
    Opening {
        slot: SlotId,
        end: End,
        refused: bool,
    },
    Cleaning {
        slot: SlotId,
        server: Box<Server>,
        step: Step,
        since_us: u64,
    },
    Closing {
        slot: SlotId,
        end: End,
    },
}

/// How far a server has been cleaned up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// A CancelRequest is on its way.
    Cancel,
    /// What is owed is read and thrown away.
    Drain,
    /// A query runs that shows whether everything was read.
    Probe,
    /// ROLLBACK is running.
    RollBack,
    /// `server_reset_query` is running.
    Reset,
}

/// Why a server is cleaned up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum After {
    /// Its client has given it back, and it has to show that it is quiet.
    Release,
    /// Its client is gone.
    Client,
}

/// A CancelRequest on its way.
#[derive(Debug)]
pub(super) struct Flight {
    backend: usize,
    then: Then,
}

#[derive(Debug)]
enum Then {
    EndCancel(SlotId),
    Drain,
    Close(SlotId, Box<Server>),
}

impl Pooler {
    /// A client asks to cancel what its connection is doing.
    pub(crate) fn cancel_asked(&mut self, id: usize, pg: &mut Postgres, env: &mut Env) {
        match &self.sessions[id].place {
            Place::Idle | Place::Skipping(_) | Place::Ended => {}
            Place::Waiting(_) => {
                self.sessions[id].canceled = true;
                self.wake_session(id, pg, env);
            }
            Place::Leased(held) if held.stage != Stage::Serve => {
                self.sessions[id].canceled = true;
            }
            Place::Leased(held) => {
                let (slot, backend) = (held.slot, held.server.backend);
                if self.pools.begin_cancel(slot) {
                    self.send_cancel(backend, Then::EndCancel(slot), env);
                }
            }
        }
    }

    fn send_cancel(&mut self, backend: usize, then: Then, env: &mut Env) {
        self.last_flight += 1;
        let flight = self.last_flight;
        self.flights.insert(flight, Flight { backend, then });
        env.within(4_000, Event::CancelArrives(flight));
    }

    /// A CancelRequest reaches PostgreSQL.
    pub(crate) fn cancel_arrives(
        &self,
        flight: u64,
        pg: &mut Postgres,
        env: &mut Env,
    ) -> Result<(), Broken> {
        if let Some(Flight { backend, .. }) = self.flights.get(&flight) {
            pg.cancel(*backend, env)?;
        }
        env.within(1_000, Event::CancelEnds(flight));
        Ok(())
    }

    /// PostgreSQL has closed the connection of a CancelRequest.
    pub(crate) fn cancel_ends(&mut self, flight: u64, pg: &mut Postgres, env: &mut Env) {
        let Some(Flight { backend, then }) = self.flights.remove(&flight) else {
            return;
        };
        match then {
            Then::EndCancel(slot) => {
                let actions = self.pools.end_cancel(slot, env.now());
                self.perform(actions, pg, env);
                self.wake_server(backend, pg, env);
            }
            Then::Drain => {
                if let Some(Task::Cleaning { step, .. }) = self.tasks.get_mut(&backend) {
                    *step = Step::Drain;
                }
                self.wake_server(backend, pg, env);
            }
            Then::Close(slot, server) => self.close(slot, server, env),
        }
    }

    /// Closes a server: from Terminate until PostgreSQL has closed, its slot is taken.
    pub(super) fn close(&mut self, slot: SlotId, server: Box<Server>, env: &mut Env) {
        let end = server.line.end;
        let mut goodbye = BytesMut::new();
        frontend::terminate(&mut goodbye);
        let _ = env.write(end.write, &goodbye);
        env.shut(end.write);
        self.tasks
            .insert(server.backend, Task::Closing { slot, end });
        env.after(0, Event::Wake(crate::wires::Party::Server(server.backend)));
    }

    /// Closes a server that may be working on something.
    pub(super) fn give_up(&mut self, slot: SlotId, server: Box<Server>, env: &mut Env) {
        env.note(|| format!("backend {} is given up", server.backend));
        self.pools.closing(slot, env.now());
        self.send_cancel(server.backend, Then::Close(slot, server), env);
    }

    /// Makes a server fit for the next client.
    pub(super) fn clean_up(
        &mut self,
        slot: SlotId,
        mut server: Box<Server>,
        after: After,
        pg: &mut Postgres,
        env: &mut Env,
    ) {
        let backend = server.backend;
        let clean = server.relay.may_release() && !server.line.has_unsent();
        if clean && !self.setup.session_mode {
            return self.checkin(slot, server, pg, env);
        }
        env.note(|| format!("backend {backend} is cleaned up"));
        self.pools.resetting(slot, env.now());
        env.after(PATIENCE_US, Event::Impatience(backend));
        let mut step = Step::Drain;
        if after == After::Client && !server.relay.is_quiet() {
            let mut out = BytesMut::new();
            if server.relay.abandon(&mut out) == Abandon::Close {
                return self.give_up(slot, server, env);
            }
            server.line.queue(&out);
            // A query of the pooler's own was preparing the server.
            if !server.relay.is_asking() {
                step = Step::Cancel;
                self.send_cancel(backend, Then::Drain, env);
            }
        }
        let since_us = env.now_us;
        let task = Task::Cleaning {
            slot,
            server,
            step,
            since_us,
        };
        self.tasks.insert(backend, task);
        self.wake_server(backend, pg, env);
    }

    /// Something has happened on a server connection.
    pub(crate) fn wake_server(&mut self, backend: usize, pg: &mut Postgres, env: &mut Env) {
        if let Some(&holder) = self.holders.get(&backend) {
            return self.wake_session(holder, pg, env);
        }
        match self.tasks.get(&backend) {
            None | Some(Task::Opening { .. }) => {}
            Some(Task::Closing { slot, end }) => {
                let (slot, end) = (*slot, *end);
                while let Read::Bytes(_) = env.read(end.read, usize::MAX) {}
                if env.read(end.read, 1) == Read::End {
                    self.tasks.remove(&backend);
                    env.close(end);
                    let actions = self.pools.closed(slot, env.now());
                    self.perform(actions, pg, env);
                }
            }
            Some(Task::Cleaning { .. }) => self.go_on_cleaning(backend, pg, env),
        }
    }

    fn go_on_cleaning(&mut self, backend: usize, pg: &mut Postgres, env: &mut Env) {
        loop {
            let Some(Task::Cleaning {
                slot, server, step, ..
            }) = self.tasks.get_mut(&backend)
            else {
                return;
            };
            if *step == Step::Cancel {
                return;
            }
            let slot = *slot;
            let rules = Rules {
                max_prepared: Some(usize::MAX),
                ..Rules::plain(&self.tracked, &self.table)
            };
            let mut problem = server.line.drain(env).err().map(|_| "gone".to_owned());
            while problem.is_none() && !server.relay.is_quiet() {
                match server.line.read(env) {
                    Read::Bytes(bytes) => {
                        let (mut nobody, mut heard) = (ClientSide::default(), Gather::default());
                        let relay = &mut server.relay;
                        match relay.from_server(&bytes, &mut nobody, &rules, &mut heard) {
                            Ok(consumed) => {
                                server.line.keep(bytes, consumed);
                                let mut out = BytesMut::new();
                                let _ = server.relay.abandon(&mut out);
                                server.line.queue(&out);
                                let drained = server.line.drain(env);
                                problem = drained.err().map(|_| "gone".to_owned());
                            }
                            Err(violation) => problem = Some(violation.to_string()),
                        }
                    }
                    Read::Nothing => return,
                    Read::End => problem = Some("server conn crashed?".to_owned()),
                }
            }
            // A late cancel of the client's could hit what is asked now.
            if problem.is_none() && self.pools.is_being_canceled(slot) {
                return;
            }
            let mut out = BytesMut::new();
            let next = match (&problem, *step) {
                (Some(_), _) | (None, Step::Reset) => None,
                (None, _) if server.relay.is_in_doubt() => {
                    server.relay.ask("", &mut out);
                    Some(Step::Probe)
                }
                (None, Step::Drain | Step::Probe)
                    if server.relay.status() != TransactionStatus::Idle =>
                {
                    server.relay.ask("ROLLBACK", &mut out);
                    Some(Step::RollBack)
                }
                (None, _) if self.setup.session_mode => {
                    server.relay.ask("DISCARD ALL", &mut out);
                    Some(Step::Reset)
                }
                (None, _) => None,
            };
            if let Some(next) = next {
                *step = next;
                server.line.queue(&out);
                continue;
            }
            let done = server.relay.may_release();
            let Some(Task::Cleaning { server, .. }) = self.tasks.remove(&backend) else {
                return;
            };
            match problem {
                None if done => self.checkin(slot, server, pg, env),
                problem => {
                    let why = problem.unwrap_or_else(|| "still in a transaction".to_owned());
                    self.blame(backend, why);
                    self.give_up(slot, server, env);
                }
            }
            return;
        }
    }

    /// The patience for cleaning a server up is over.
    pub(crate) fn impatience(&mut self, backend: usize, env: &mut Env) {
        match self.tasks.get(&backend) {
            // The timer may be one of an earlier time.
            Some(Task::Cleaning { since_us, .. }) if since_us + PATIENCE_US == env.now_us => {}
            _ => return,
        }
        if let Some(Task::Cleaning {
            slot, server, step, ..
        }) = self.tasks.remove(&backend)
        {
            let why = format!("{step:?} takes too long: {:?}", server.relay);
            self.blame(backend, why);
            self.give_up(slot, server, env);
        }
    }

    /// A server that worked is closed.
    fn blame(&mut self, backend: usize, why: String) {
        if !self.crashed.contains(&backend) {
            self.broken.get_or_insert(Broken::GivenUp { backend, why });
        }
    }
}
