//! The shell's part, played deterministically over the real `Pools` and the real `Relay`s.
//!
//! It repeats the decisions of the shell (`relay`, `reset`, `close`, `cancel`, `pools` of the
//! binary) as closely as code without tasks can: [`session`] is a client's task, [`tasks`] is what
//! servers go through between clients, this file is what lies between them and the pool.

mod line;
mod session;
mod tasks;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pgweir_pool::{
    Action, Actions, Failure, FailureKind, Gate, PoolId, PoolLimits, PoolName, PoolScopes, Pools,
    Scope, SlotId,
};
use pgweir_session::{ClientSide, Relay, Rules, StatementTable, Tracked, Values};

use self::line::Line;
use self::session::{Mail, Session};
use self::tasks::{Flight, Task};
use crate::laws::Broken;
use crate::postgres::Postgres;
use crate::sql::Settings;
use crate::wires::{End, Env, Event};

/// How the pooler is configured.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// `pool_size` of each pool; they share one database.
    pub(crate) sizes: Vec<u32>,
    /// `max_db_connections`
    pub(crate) database_limit: u32,
    /// `max_prepared_statements`
    pub(crate) max_prepared: usize,
    /// `prepare_unnamed`
    pub(crate) prepares_unnamed: bool,
    /// Whether idle servers are checked before they are lent.
    pub(crate) checks: bool,
    /// Whether sessions keep their servers.
    pub(crate) session_mode: bool,
    /// `server_lifetime`
    pub(crate) lifetime: Duration,
    /// How those are bounded who wait, if they are.
    pub(crate) queue: Option<Queue>,
}

impl Setup {
    fn rules<'a>(&self, tracked: &'a Tracked, statements: &'a StatementTable) -> Rules<'a> {
        Rules {
            max_prepared: Some(self.max_prepared).filter(|_| !self.session_mode),
            prepares_unnamed: self.prepares_unnamed,
            ..Rules::plain(tracked, statements)
        }
    }
}

/// Who waits is bounded.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    /// `max_pool_waiting`
    pub(crate) max: u32,
    /// `query_wait_timeout`
    pub(crate) timeout: Duration,
    /// `query_wait_target`
    pub(crate) target: Option<Duration>,
}

/// A server connection.
#[derive(Debug)]
pub(crate) struct Server {
    backend: usize,
    line: Line,
    relay: Relay,
}

/// The pooler.
#[derive(Debug)]
pub(crate) struct Pooler {
    pub(crate) pools: Pools<Box<Server>, usize>,
    ids: Vec<PoolId>,
    sessions: Vec<Session>,
    tasks: BTreeMap<usize, Task>,
    /// Which session holds a backend.
    holders: BTreeMap<usize, usize>,
    flights: BTreeMap<u64, Flight>,
    last_flight: u64,
    tracked: Tracked,
    table: StatementTable,
    setup: Setup,
    /// Backends that have died without being asked to.
    crashed: Vec<usize>,
    broken: Option<Broken>,
}

impl Pooler {
    pub(crate) fn new(setup: Setup, env: &Env) -> Self {
        let mut pools = Pools::default();
        let database: std::sync::Arc<str> = "db".into();
        let scope = Scope::DatabaseServers(database.clone());
        pools.budget.set_limit(&scope, Some(setup.database_limit));
        let limits = |size| PoolLimits {
            size: Some(size),
            lifetime: Some(setup.lifetime),
            idle_timeout: Some(Duration::from_millis(300)),
            login_retry: Duration::from_millis(50),
            check_after: setup.checks.then_some(Duration::from_millis(3)),
            max_waiting: setup.queue.as_ref().map(|queue| queue.max),
            wait_target: setup.queue.as_ref().and_then(|queue| queue.target),
            ..PoolLimits::default()
        };
        let mut make = |(number, &size): (usize, &u32)| {
            let name = PoolName {
                database: database.clone(),
                user: format!("user{number}").into(),
            };
            let scopes = || PoolScopes {
                servers: [scope.clone()].into(),
                login: None,
            };
            pools.ensure(&name, scopes, limits(size), Gate::Open, env.now())
        };
        let ids = setup.sizes.iter().enumerate().map(&mut make).collect();
        Self {
            pools,
            ids,
            sessions: Vec::new(),
            tasks: BTreeMap::new(),
            holders: BTreeMap::new(),
            flights: BTreeMap::new(),
            last_flight: 0,
            tracked: Tracked::new([]),
            table: StatementTable::default(),
            setup,
            crashed: Vec::new(),
            broken: None,
        }
    }

    /// A client has logged in.
    pub(crate) fn join(
        &mut self,
        pool: usize,
        end: End,
        startup: &[(usize, String)],
        now: Instant,
    ) {
        let mut side = ClientSide::default();
        for (index, value) in startup {
            side.values.set(*index, value);
        }
        side.values.fill(&boot_values());
        self.pools.client_joined(self.ids[pool]);
        self.sessions
            .push(Session::new(pool, Line::new(end), side, now));
    }

    /// A login at PostgreSQL is over.
    pub(crate) fn opened(&mut self, backend: usize, pg: &mut Postgres, env: &mut Env) {
        let Some(Task::Opening { slot, end, refused }) = self.tasks.remove(&backend) else {
            return;
        };
        let actions = if refused || self.crashed.contains(&backend) {
            env.close(end);
            let failure = Failure {
                message: "no".into(),
                sqlstate: None,
                kind: FailureKind::Connect,
            };
            self.pools.open_failed(slot, failure, env.now())
        } else {
            let server = Box::new(Server {
                backend,
                line: Line::new(end),
                relay: Relay::new(boot_values()),
            });
            self.pools.opened(slot, server, env.now())
        };
        self.perform(actions, pg, env);
    }

    /// The login at PostgreSQL will be answered with an error.
    pub(crate) fn refuse_login(&mut self, backend: usize) {
        if let Some(Task::Opening { refused, .. }) = self.tasks.get_mut(&backend) {
            *refused = true;
        }
    }

    /// A backend dies; whoever holds it may be sent away.
    pub(crate) fn crashed(&mut self, backend: usize) {
        self.crashed.push(backend);
    }

    /// Regular upkeep.
    pub(crate) fn tick(&mut self, pg: &mut Postgres, env: &mut Env) {
        let now = env.now();
        let upkeep = self.pools.tick(now, None, |server: &mut Box<Server>| {
            env.is_readable(server.line.end.read)
        });
        self.perform(upkeep.actions, pg, env);
        self.expire_waits(pg, env);
    }

    /// The operator asks for new connections, or pauses and resumes.
    pub(crate) fn operate(&mut self, pg: &mut Postgres, env: &mut Env) {
        let now = env.now();
        let actions = match env.rng.between(0, 3) {
            0 => self.pools.reconnect(|_| true, now),
            1 => self.pools.pause(|_| true, now),
            _ => self.pools.resume(|_| true, now),
        };
        self.perform(actions, pg, env);
    }

    /// Ends every pause.
    pub(crate) fn resume(&mut self, pg: &mut Postgres, env: &mut Env) {
        let actions = self.pools.resume(|_| true, env.now());
        self.perform(actions, pg, env);
    }

    /// What the laws say about the pooler now.
    pub(crate) fn judge(&mut self) -> Result<(), Broken> {
        match self.broken.take() {
            Some(broken) => Err(broken),
            None => Ok(self.pools.audit()?),
        }
    }

    /// Where everybody is, for whoever reads a failure.
    pub(crate) fn story(&self) -> String {
        let sessions: Vec<_> = self.sessions.iter().map(Session::story).collect();
        let slots: Vec<_> = self.pools.slots().map(|slot| slot.state).collect();
        format!(
            "{sessions:?}; slots {slots:?}; tasks {:?}",
            self.tasks.keys()
        )
    }

    fn perform(&mut self, actions: Actions<Box<Server>, usize>, pg: &mut Postgres, env: &mut Env) {
        for action in actions {
            match action {
                Action::Open {
                    pool,
                    slot,
                    dedicated_to: _,
                } => {
                    let number = self.ids.iter().position(|id| *id == pool);
                    let (backend, end) = pg.connect(number.unwrap_or_default(), env);
                    let refused = false;
                    self.tasks
                        .insert(backend, Task::Opening { slot, end, refused });
                }
                Action::Serve {
                    waiter,
                    lease,
                    cause: _,
                } => {
                    self.sessions[waiter].mail = Some(Mail::Lease(lease));
                    env.after(0, Event::Wake(crate::wires::Party::Session(waiter)));
                }
                Action::Refuse {
                    waiter, refusal, ..
                } => {
                    self.sessions[waiter].mail = Some(Mail::Refused(refusal));
                    env.after(0, Event::Wake(crate::wires::Party::Session(waiter)));
                }
                Action::Close {
                    slot,
                    server,
                    reason,
                } => {
                    env.note(|| format!("backend {} is closed: {reason:?}", server.backend));
                    self.close(slot, server, env);
                }
                Action::Greet { .. } | Action::TakingReserve { .. } => {}
            }
        }
    }

    fn checkin(&mut self, slot: SlotId, server: Box<Server>, pg: &mut Postgres, env: &mut Env) {
        env.note(|| format!("backend {} is given back", server.backend));
        let actions = self.pools.checkin(slot, server, env.now());
        self.perform(actions, pg, env);
    }
}

/// What every backend of the fake PostgreSQL reports when it begins.
fn boot_values() -> Values {
    let (settings, mut values) = (Settings::default(), Values::default());
    for index in 0..Tracked::ALWAYS.len() {
        values.set(index, settings.get(index));
    }
    values
}
