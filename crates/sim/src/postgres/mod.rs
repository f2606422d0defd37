//! A fake PostgreSQL: backends that are forked, counted and ended as PostgreSQL does it, whatever
//! the pooler believes.

mod backend;

use std::collections::BTreeSet;

use backend::Backend;

use crate::laws::{Broken, Token};
use crate::wires::{End, Env, Event, Party, Read};

/// How long a login takes at most.
const LOGIN_US_MAX: u64 = 8_000;

/// A cluster.
#[derive(Debug)]
pub(crate) struct Postgres {
    hosts: Vec<Host>,
    /// Most connections per pool, as the pooler was told.
    pub(crate) limits: Vec<u32>,
    /// Most connections in all, as the pooler was told.
    pub(crate) limit: u32,
    reports_late: bool,
    ran: BTreeSet<Token>,
}

#[derive(Debug)]
struct Host {
    backend: Backend,
    end: End,
    pool: usize,
    life: Life,
    peer_closed: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    Coming,
    Up,
    Gone,
}

impl Postgres {
    pub(crate) fn new(limits: Vec<u32>, limit: u32, reports_late: bool) -> Self {
        Self {
            hosts: Vec::new(),
            limits,
            limit,
            reports_late,
            ran: BTreeSet::new(),
        }
    }

    /// A connection sets out; the pooler's end of it.
    pub(crate) fn connect(&mut self, pool: usize, env: &mut Env) -> (usize, End) {
        let id = self.hosts.len();
        let (near, far) = env.connect(Party::Server(id), Party::Backend(id));
        self.hosts.push(Host {
            backend: Backend::new(self.reports_late),
            end: far,
            pool,
            life: Life::Coming,
            peer_closed: false,
        });
        env.within(500, Event::Accept(id));
        (id, near)
    }

    /// A connection is accepted: from now on it counts.
    pub(crate) fn accept(&mut self, id: usize, env: &mut Env) -> Result<(), Broken> {
        self.hosts[id].life = Life::Up;
        env.within(LOGIN_US_MAX, Event::LoggedIn(id));
        let pool = self.hosts[id].pool;
        let (of_pool, all) = (self.count_of(pool), self.count());
        env.note(|| {
            format!("backend {id} accepted for pool {pool}: {of_pool} there, {all} in all")
        });
        if of_pool > self.limits[pool] || all > self.limit {
            return Err(Broken::TooManyConnections { pool, of_pool, all });
        }
        Ok(())
    }

    /// How many connections there are.
    pub(crate) fn count(&self) -> u32 {
        (0..self.limits.len()).map(|pool| self.count_of(pool)).sum()
    }

    fn count_of(&self, pool: usize) -> u32 {
        let up = |host: &&Host| host.life == Life::Up && host.pool == pool;
        self.hosts.iter().filter(up).count() as u32
    }

    /// Backends that are up.
    pub(crate) fn up(&self) -> Vec<usize> {
        let up = |id: &usize| self.hosts[*id].life == Life::Up;
        (0..self.hosts.len()).filter(up).collect()
    }

    /// A CancelRequest arrives.
    pub(crate) fn cancel(&mut self, id: usize, env: &mut Env) -> Result<(), Broken> {
        env.note(|| format!("backend {id} is canceled"));
        self.hosts[id].backend.cancel();
        self.wake(id, env)
    }

    /// A backend ends without being asked to.
    pub(crate) fn crash(&mut self, id: usize, env: &mut Env) {
        env.note(|| format!("backend {id} crashes"));
        let host = &mut self.hosts[id];
        host.backend
            .die("terminating connection due to administrator command");
        if env.rng.one_in(2) {
            host.backend.output.clear();
            env.cut(host.end.write);
        }
        let _ = env.write(host.end.write, &std::mem::take(&mut host.backend.output));
        self.end(id, env);
    }

    /// Refuses a login.
    pub(crate) fn refuse(&mut self, id: usize, env: &mut Env) {
        self.end(id, env);
    }

    fn end(&mut self, id: usize, env: &mut Env) {
        env.note(|| format!("backend {id} ends"));
        self.hosts[id].life = Life::Gone;
        env.close(self.hosts[id].end);
    }

    /// Whether any backend has begun to run a statement.
    pub(crate) fn has_run(&self, token: &Token) -> bool {
        self.ran.contains(token)
    }

    /// Reads, works and writes as far as it goes.
    pub(crate) fn wake(&mut self, id: usize, env: &mut Env) -> Result<(), Broken> {
        let host = &mut self.hosts[id];
        if host.life != Life::Up {
            return Ok(());
        }
        loop {
            if !host.backend.output.is_empty() {
                let Ok(taken) = env.write(host.end.write, &host.backend.output) else {
                    // The peer is gone; PostgreSQL notices when it writes.
                    self.end(id, env);
                    return Ok(());
                };
                host.backend.output.drain(..taken);
                if !host.backend.output.is_empty() {
                    return Ok(());
                }
            }
            if host.backend.ended {
                self.end(id, env);
                return Ok(());
            }
            let mut moved = false;
            if host.backend.is_reading() {
                match env.read(host.end.read, usize::MAX) {
                    Read::Bytes(bytes) => {
                        host.backend.input.extend_from_slice(&bytes);
                        moved = true;
                    }
                    Read::Nothing => {}
                    Read::End => host.peer_closed = true,
                }
            }
            let sleeps = host.backend.advance(env.now_us);
            self.ran.extend(host.backend.ran.drain(..));
            if let Some(wrong) = host.backend.wrong.take() {
                return Err(Broken::CrossTalk(wrong));
            }
            if let Some(until) = sleeps {
                env.after(
                    until.saturating_sub(env.now_us),
                    Event::Wake(Party::Backend(id)),
                );
                return Ok(());
            }
            if host.peer_closed
                && !moved
                && host.backend.is_reading()
                && host.backend.output.is_empty()
            {
                self.end(id, env);
                return Ok(());
            }
            if !moved && host.backend.output.is_empty() && !host.backend.ended {
                return Ok(());
            }
        }
    }
}
