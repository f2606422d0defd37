//! One life: clients, the pooler and PostgreSQL, from a seed to the end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::laws::Broken;
use crate::pooler::{Pooler, Queue, Setup};
use crate::postgres::Postgres;
use crate::rng::Rng;
use crate::wires::{Env, Event, Party};

/// Between two rounds of upkeep.
const TICK_US: u64 = 20_000;

/// By then everybody must have been served: programs are short.
const END_US: u64 = 120_000_000;

/// What a life is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// How many clients there are.
    pub clients: usize,
    /// How many things each client does.
    pub episodes: u32,
    /// Whether backends die, logins fail and the operator interferes.
    pub trouble: bool,
    /// Whether there are more clients than may wait, and they have little patience.
    pub crowded: bool,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x5eed);
        let plan = Self {
            seed,
            clients: rng.between(1, 8) as usize,
            episodes: rng.between(1, 12) as u32,
            trouble: rng.one_in(3),
            crowded: rng.one_in(3),
        };
        match plan.crowded {
            true => Self {
                clients: plan.clients * 3,
                ..plan
            },
            false => plan,
        }
    }

    /// Smaller plans, the smallest first.
    pub fn smaller(&self) -> Vec<Self> {
        let mut plans = Vec::new();
        for clients in 1..=self.clients {
            for episodes in 1..=self.episodes {
                for trouble in [false, true] {
                    plans.push(Self {
                        clients,
                        episodes,
                        trouble: self.trouble && trouble,
                        ..self.clone()
                    });
                }
            }
        }
        plans.sort_by_key(|plan| (plan.clients as u32 * plan.episodes, plan.trouble));
        plans
    }
}

/// How a life went.
#[derive(Debug)]
pub struct Outcome {
    /// The law that broke, if one did.
    pub broken: Option<Broken>,
    /// Virtual time that passed.
    pub lasted: Duration,
    /// Events that happened.
    pub events: u64,
    /// What happened, if it was to be noted.
    pub trace: Vec<String>,
}

/// Lives a plan. `start` is an arbitrary moment.
pub fn live(plan: &Plan, start: Instant, trace: bool) -> Outcome {
    let mut world = World::new(plan, start, trace);
    // The world is only told about after a panic, never lived on.
    let lived = catch_unwind(AssertUnwindSafe(|| world.run()));
    let broken = lived.unwrap_or(Err(Broken::Panic)).err();
    Outcome {
        broken,
        lasted: Duration::from_micros(world.env.now_us),
        events: world.events,
        trace: world.env.take_trace(),
    }
}

struct World {
    env: Env,
    pg: Postgres,
    pooler: Pooler,
    clients: Vec<Client>,
    trouble: bool,
    events: u64,
}

impl World {
    fn new(plan: &Plan, start: Instant, trace: bool) -> Self {
        let mut rng = Rng::new(plan.seed);
        let mut env = Env::new(rng.fork(), start, trace);
        let pools = rng.between(1, 3) as usize;
        let sizes: Vec<_> = (0..pools).map(|_| rng.between(1, 3) as u32).collect();
        let setup = Setup {
            database_limit: rng.between(1, 4) as u32,
            max_prepared: rng.between(1, 6) as usize,
            prepares_unnamed: rng.one_in(2),
            checks: rng.one_in(2),
            session_mode: rng.one_in(8),
            lifetime: Duration::from_millis(rng.between(20, 2_000)),
            queue: plan.crowded.then(|| Queue {
                max: rng.between(1, 4) as u32,
                timeout: Duration::from_millis(rng.between(1, 60)),
                target: rng.one_in(3).then_some(Duration::from_millis(5)),
            }),
            sizes: sizes.clone(),
        };
        env.note(|| format!("{setup:?}"));
        let pg = Postgres::new(sizes, setup.database_limit, rng.one_in(2));
        let mut pooler = Pooler::new(setup, &env);
        let mut clients = Vec::new();
        for id in 0..plan.clients {
            let (near, far) = env.connect(Party::Session(id), Party::Client(id));
            let mut startup = Vec::new();
            for index in 0..pgweir_session::Tracked::ALWAYS.len() {
                if rng.one_in(3) {
                    startup.push((index, crate::client::value(&mut rng, index)));
                }
            }
            pooler.join(rng.index(pools), near, &startup, env.now());
            let (rng, episodes) = (rng.fork(), plan.episodes);
            clients.push(Client::new(id, far, rng, episodes, &startup, plan.crowded));
            env.within(50_000, Event::Wake(Party::Client(id)));
        }
        env.after(TICK_US, Event::Tick);
        if plan.trouble {
            env.within(200_000, Event::Fate);
        }
        Self {
            env,
            pg,
            pooler,
            clients,
            trouble: plan.trouble,
            events: 0,
        }
    }

    fn run(&mut self) -> Result<(), Broken> {
        while let Some(event) = self.env.next_event() {
            self.events += 1;
            self.happen(event)?;
            self.pooler.judge()?;
            if self.env.now_us > END_US {
                return Err(Broken::Starved(self.story()));
            }
        }
        self.count()
    }

    fn happen(&mut self, event: Event) -> Result<(), Broken> {
        let Self {
            env, pg, pooler, ..
        } = self;
        match event {
            Event::Travel(wire) => match env.travel(wire) {
                Some(reader) => return self.wake(reader),
                None => return Ok(()),
            },
            Event::Wake(party) => return self.wake(party),
            Event::Accept(backend) => return pg.accept(backend, env),
            Event::LoggedIn(backend) => {
                if self.trouble && env.rng.one_in(8) {
                    pg.refuse(backend, env);
                    pooler.refuse_login(backend);
                }
                env.within(1_000, Event::Opened(backend));
            }
            Event::Opened(backend) => pooler.opened(backend, pg, env),
            Event::CancelAsked(client) => pooler.cancel_asked(client, pg, env),
            Event::CancelArrives(flight) => return pooler.cancel_arrives(flight, pg, env),
            Event::CancelEnds(flight) => pooler.cancel_ends(flight, pg, env),
            Event::Impatience(backend) => pooler.impatience(backend, env),
            Event::Tick => {
                pooler.tick(pg, env);
                if !self.is_over() || !self.env.is_calm() {
                    self.env.after(TICK_US, Event::Tick);
                }
            }
            Event::Fate => self.fate(),
        }
        Ok(())
    }

    fn wake(&mut self, party: Party) -> Result<(), Broken> {
        let Self {
            env,
            pg,
            pooler,
            clients,
            ..
        } = self;
        match party {
            Party::Client(id) => clients[id].wake(env),
            Party::Backend(id) => pg.wake(id, env),
            Party::Session(id) => {
                pooler.wake_session(id, pg, env);
                Ok(())
            }
            Party::Server(id) => {
                pooler.wake_server(id, pg, env);
                Ok(())
            }
        }
    }

    fn fate(&mut self) {
        let Self {
            env, pg, pooler, ..
        } = self;
        let up = pg.up();
        if env.rng.one_in(2) && !up.is_empty() {
            let backend = *env.rng.pick(&up);
            pooler.crashed(backend);
            pg.crash(backend, env);
        } else {
            pooler.operate(pg, env);
        }
        if env.rng.one_in(4) {
            // From here on life is calm.
            pooler.resume(pg, env);
        } else {
            env.within(200_000, Event::Fate);
        }
    }

    /// Whether everybody has gone and every connection is closed or idle.
    fn is_over(&self) -> bool {
        self.clients.iter().all(Client::is_done) && self.pooler.pools.slots().next().is_none()
    }

    fn count(&self) -> Result<(), Broken> {
        let ours = self.pooler.pools.slots().count() as u32;
        let there = self.pg.count();
        let mut refused = self.clients.iter().flat_map(Client::refused);
        if let Some(token) = refused.find(|token| self.pg.has_run(token)) {
            return Err(Broken::RanRefused(*token));
        }
        match ours == there && self.is_over() {
            true => Ok(()),
            false => Err(Broken::Lost { there, ours }),
        }
    }

    fn story(&self) -> String {
        let waiting = self.clients.iter().filter(|client| !client.is_done());
        let stories: Vec<_> = waiting.map(Client::story).collect();
        format!("{stories:?}; {}", self.pooler.story())
    }
}
