//! The pure part of a query's way, over and over: `hotpath SCENARIO ROUNDS`. Nothing is timed here; `cargo xtask counts`
//! counts the instructions of a round with valgrind, which gives the same number every time.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use pgweir_pool::{
    Action, Actions, Checkout, Gate, PoolId, PoolLimits, PoolName, PoolScopes, Pools, Scope, SlotId,
};
use pgweir_session::residue::{Memory, Verdict, scan};
use pgweir_session::{
    ClientSide, Gather, Relay, Rules, StateRules, StatementTable, Tracked, Values,
};
use pgweir_wire::Header;

type Scenario = fn(usize);

/// Every scenario; what it is stands in `docs/counts.md`.
const SCENARIOS: [(&str, Scenario); 8] = [
    ("frames", frames),
    ("simple", simple),
    ("extended", extended),
    ("prepared", prepared),
    ("pipeline", pipeline),
    ("rows", rows),
    ("checkout", checkout),
    ("queue", queue),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let run = |name: &str, rounds: &str| -> Option<()> {
        let (_, scenario) = SCENARIOS.iter().find(|(known, _)| *known == name)?;
        scenario(rounds.parse().ok()?);
        Some(())
    };
    match args.as_slice() {
        [name, rounds] if run(name, rounds).is_some() => ExitCode::SUCCESS,
        _ => {
            let names = SCENARIOS.map(|(name, _)| name).join(" ");
            eprintln!("usage: hotpath SCENARIO ROUNDS, with one of: {names}");
            ExitCode::from(2)
        }
    }
}

fn frame(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    out.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
    out.put_slice(body);
}

fn batch(frames: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (tag, body) in frames {
        frame(&mut out, *tag, body);
    }
    out
}

const SELECT: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;\0";
/// As an application asks: the same with other numbers.
const SELECTS: [&[u8]; 3] = [
    SELECT,
    b"SELECT abalance FROM pgbench_accounts WHERE aid = 815;\0",
    b"SELECT abalance FROM pgbench_accounts WHERE aid = 99023;\0",
];
const DESCRIPTION: &[u8] =
    b"\0\x01abalance\0\0\0\x40\x01\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0";
const ROW: &[u8] = b"\0\x01\0\0\0\x050\x31\x32\x33\x34";

/// Headers and bodies, cut from one buffer.
fn frames(rounds: usize) {
    let reply = batch(&[
        (b'T', DESCRIPTION),
        (b'D', ROW),
        (b'C', b"SELECT 1\0"),
        (b'Z', b"I"),
    ]);
    for _ in 0..rounds {
        let mut rest = black_box(reply.as_slice());
        while let Ok(Some((header, body))) = Header::whole(rest, u32::MAX) {
            black_box(body);
            rest = &rest[header.frame_len()..];
        }
    }
}

/// A client and a server with a relay between them.
struct Pair {
    relay: Relay,
    side: ClientSide,
    tracked: Tracked,
    statements: StatementTable,
    to_server: Gather,
    to_client: Gather,
    fakes: BytesMut,
    memory: Memory,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let mut memory = Memory::default();
        memory.kept = Duration::from_secs(3600);
        memory.learn(scan(SELECT).print, Verdict::Clean, now);
        Self {
            memory,
            now,
            relay: Relay::new(Values::default()),
            side: ClientSide::default(),
            tracked: Tracked::new([]),
            statements: StatementTable::default(),
            to_server: Gather::default(),
            to_client: Gather::default(),
            fakes: BytesMut::new(),
        }
    }

    /// One lease: the client asks, the server answers, the server may go.
    fn exchange(&mut self, request: &[u8], reply: &[u8]) {
        let rules = Rules {
            max_prepared: Some(200),
            prepares_unnamed: false,
            max_message: i32::MAX as u32,
            refuses_queries: false,
            answers_as_postgres: false,
            backends: None,
            private: true,
            state: StateRules::default(),
            tracked: &self.tracked,
            statements: &self.statements,
        };
        self.relay.begin_lease(1);
        black_box(self.relay.fits(&mut self.side));
        self.to_server.clear();
        self.fakes.clear();
        let asked = self.relay.from_client(
            request,
            &mut self.side,
            &rules,
            &mut self.to_server,
            &mut self.fakes,
        );
        black_box(self.to_server.bytes(request));
        self.to_client.clear();
        let told = self
            .relay
            .from_server(reply, &mut self.side, &rules, &mut self.to_client);
        black_box(self.to_client.bytes(reply));
        assert!(
            asked.is_ok() && told.is_ok() && self.relay.may_release(),
            "the exchange is complete"
        );
        assert!(
            self.relay.question(&self.memory, self.now).is_none(),
            "the statement is known to leave nothing"
        );
    }
}

/// Query and its answer.
fn simple(rounds: usize) {
    let requests = SELECTS.map(|select| batch(&[(b'Q', select)]));
    let reply = batch(&[
        (b'T', DESCRIPTION),
        (b'D', ROW),
        (b'C', b"SELECT 1\0"),
        (b'Z', b"I"),
    ]);
    let mut pair = Pair::new();
    for round in 0..rounds {
        pair.exchange(black_box(&requests[round % 3]), black_box(&reply));
    }
}

/// Parse, Bind, Describe, Execute, Sync of the unnamed statement.
fn extended(rounds: usize) {
    batches_of(1, rounds);
}

/// Ten times Parse, Bind, Describe, Execute of the unnamed statement, and one Sync.
fn pipeline(rounds: usize) {
    batches_of(10, rounds);
}

fn batches_of(statements: usize, rounds: usize) {
    let parse = [b"\0", SELECT, b"\0\0"].concat();
    let request = batch(&[
        (b'P', &parse),
        (b'B', b"\0\0\0\0\0\0\0\0"),
        (b'D', b"P\0"),
        (b'E', b"\0\0\0\0\0"),
    ]);
    let reply = batch(&[
        (b'1', b""),
        (b'2', b""),
        (b'T', DESCRIPTION),
        (b'D', ROW),
        (b'C', b"SELECT 1\0"),
    ]);
    let request = [request.repeat(statements), batch(&[(b'S', b"")])].concat();
    let reply = [reply.repeat(statements), batch(&[(b'Z', b"I")])].concat();
    let mut pair = Pair::new();
    for _ in 0..rounds {
        pair.exchange(black_box(&request), black_box(&reply));
    }
}

/// Bind, Describe, Execute, Sync of a named statement that the server has.
fn prepared(rounds: usize) {
    let parse = [b"P0_1\0", SELECT, b"\0\0"].concat();
    let mut pair = Pair::new();
    pair.exchange(
        &batch(&[(b'P', &parse), (b'S', b"")]),
        &batch(&[(b'1', b""), (b'Z', b"I")]),
    );
    let request = batch(&[
        (b'B', b"\0P0_1\0\0\0\0\0\0\0"),
        (b'D', b"P\0"),
        (b'E', b"\0\0\0\0\0"),
        (b'S', b""),
    ]);
    let reply = batch(&[
        (b'2', b""),
        (b'T', DESCRIPTION),
        (b'D', ROW),
        (b'C', b"SELECT 1\0"),
        (b'Z', b"I"),
    ]);
    for _ in 0..rounds {
        pair.exchange(black_box(&request), black_box(&reply));
    }
}

/// An answer of a thousand rows.
fn rows(rounds: usize) {
    let request = batch(&[(b'Q', SELECT)]);
    let mut reply = batch(&[(b'T', DESCRIPTION)]);
    for _ in 0..1000 {
        frame(&mut reply, b'D', ROW);
    }
    reply.extend(batch(&[(b'C', b"SELECT 1000\0"), (b'Z', b"I")]));
    let mut pair = Pair::new();
    for _ in 0..rounds {
        pair.exchange(black_box(&request), black_box(&reply));
    }
}

/// Pools with one pool of two servers.
fn pools(now: Instant) -> (Pools<u32, u32>, PoolId) {
    let mut pools = Pools::default();
    let name = PoolName {
        database: "app".into(),
        user: "app".into(),
    };
    let scopes = PoolScopes {
        servers: [Scope::DatabaseServers("app".into())].into(),
        login: None,
    };
    let limits = PoolLimits {
        size: Some(2),
        ..PoolLimits::default()
    };
    let id = pools.ensure(&name, || scopes, limits, Gate::Open, now);
    (pools, id)
}

/// Opens what is asked for, and collects what is served.
fn settle(pools: &mut Pools<u32, u32>, actions: Actions<u32, u32>, now: Instant) -> Vec<Leased> {
    let mut served = Vec::new();
    for action in actions {
        match action {
            Action::Open { slot, .. } => {
                let actions = pools.opened(slot, 0, now);
                served.extend(settle(pools, actions, now));
            }
            Action::Serve { lease, .. } => served.push((lease.slot, lease.server)),
            _ => {}
        }
    }
    served
}

type Leased = (SlotId, u32);

fn lease(pools: &mut Pools<u32, u32>, id: PoolId, now: Instant) -> Option<Leased> {
    let mut actions = Actions::default();
    let outcome = pools.checkout(id, now, None, || 0, &mut actions);
    match outcome {
        Checkout::Ready(lease) => Some((lease.slot, lease.server)),
        Checkout::Wait(_) => settle(pools, actions, now).pop(),
        Checkout::Refused(_) => None,
    }
}

/// A free server is lent and given back.
fn checkout(rounds: usize) {
    let mut now = Instant::now();
    let (mut pools, id) = pools(now);
    for _ in 0..rounds {
        now += Duration::from_micros(50);
        let (slot, server) = lease(&mut pools, id, now).expect("a server is free");
        black_box(pools.checkin(slot, server, now));
    }
}

/// A server is given back to one of ten who wait, and another begins to.
fn queue(rounds: usize) {
    let mut now = Instant::now();
    let (mut pools, id) = pools(now);
    let mut held: Vec<_> = (0..2).filter_map(|_| lease(&mut pools, id, now)).collect();
    for _ in 0..10 {
        assert!(lease(&mut pools, id, now).is_none(), "all servers are lent");
    }
    for _ in 0..rounds {
        now += Duration::from_micros(50);
        let (slot, server) = held.pop().expect("two are held");
        let actions = pools.checkin(slot, server, now);
        held.extend(settle(&mut pools, actions, now));
        assert!(lease(&mut pools, id, now).is_none(), "somebody waits");
    }
}
