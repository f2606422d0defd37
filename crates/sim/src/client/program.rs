//! What a client does: episodes of queries, batches, transactions, pipelines and copies.

use std::collections::BTreeMap;

use bytes::BytesMut;
use pgweir_session::Tracked;
use pgweir_wire::frontend;

use super::{Awaited, Client};
use crate::frames::{frame, text_frame};
use crate::sql::{Op, Token};

/// One step of a program.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// Sends bytes; what will be answered.
    Send(Vec<u8>, Vec<Awaited>),
    /// Goes on when everything is answered.
    Settle,
    /// Does nothing for some microseconds.
    Pause(u64),
    /// Sends a CancelRequest.
    Cancel,
    /// Closes the connection.
    Leave,
}

/// An episode in the making.
struct Episode {
    steps: Vec<Step>,
    bytes: Vec<u8>,
    awaited: Vec<Awaited>,
    /// Statements that can be used from here on.
    usable: BTreeMap<String, Op>,
    /// Names that must not be given here.
    taken: Vec<String>,
    /// Whether something may fail: then nothing may rely on an earlier batch.
    risky: bool,
}

impl Episode {
    fn flush(&mut self) {
        if !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            self.steps
                .push(Step::Send(bytes, std::mem::take(&mut self.awaited)));
        }
    }

    fn settle(&mut self) {
        self.flush();
        self.steps.push(Step::Settle);
    }
}

impl Client {
    /// The next episode; the last one uses every statement that is prepared.
    pub(super) fn episode(&mut self, last: bool) -> Vec<Step> {
        let mut episode = Episode {
            steps: Vec::new(),
            bytes: Vec::new(),
            awaited: Vec::new(),
            usable: self.statements.clone(),
            taken: self.statements.keys().cloned().collect(),
            risky: self.crowded || self.rng.one_in(2),
        };
        match self.rng.between(0, 12) {
            _ if last => self.use_everything(&mut episode),
            0..=2 => self.simple(&mut episode),
            3..=4 => self.batch(&mut episode),
            5..=6 => self.transaction(&mut episode),
            7..=8 => self.pipeline(&mut episode),
            9 => self.copy(&mut episode),
            10 => self.set(&mut episode),
            11 => self.use_everything(&mut episode),
            _ => self.forget_everything(&mut episode),
        }
        if episode.risky && self.rng.one_in(3) {
            episode.flush();
            if self.rng.one_in(2) {
                episode.steps.push(Step::Pause(self.rng.between(0, 15_000)));
            }
            episode.steps.push(Step::Cancel);
            episode.settle();
            // Longer than any cancel travels: it must not hit an episode that takes no risk.
            episode.steps.push(Step::Pause(40_000));
        }
        episode.settle();
        episode.steps
    }

    fn token(&mut self) -> Token {
        self.seq += 1;
        Token {
            client: self.id,
            seq: self.seq,
        }
    }

    /// A statement that fits anywhere.
    fn plain_op(&mut self, risky: bool) -> Op {
        match self.rng.between(0, 11) {
            0 if risky => Op::Fail,
            1 if risky => Op::Syntax,
            2 => self.set_op(),
            3 => Op::Sleep(self.rng.between(0, 30_000)),
            4 => Op::CopyOut(self.rng.between(0, 30) as u32),
            5 => Op::Empty,
            _ => Op::Select(
                *self.rng.pick(&[0, 1, 2, 3, 40]),
                self.rng.between(0, 5) as u32,
            ),
        }
    }

    fn set_op(&mut self) -> Op {
        let index = self.rng.index(Tracked::ALWAYS.len());
        Op::Set(index, value(&mut self.rng, index))
    }

    fn query(&mut self, episode: &mut Episode, ops: Vec<Op>) {
        let ops: Vec<_> = ops.into_iter().map(|op| (op, self.token())).collect();
        let text: Vec<_> = ops
            .iter()
            .map(|(op, token)| format!("{op} {token}").trim().to_owned())
            .collect();
        text_frame(&mut episode.bytes, b'Q', &text.join(";"));
        episode.awaited.push(Awaited::Query(ops.into()));
    }

    fn simple(&mut self, episode: &mut Episode) {
        let ops = (0..self.rng.between(1, 3))
            .map(|_| self.plain_op(episode.risky))
            .collect();
        self.query(episode, ops);
    }

    fn set(&mut self, episode: &mut Episode) {
        let ops = vec![self.set_op(), Op::Select(1, 0)];
        self.query(episode, ops);
    }

    fn batch(&mut self, episode: &mut Episode) {
        for _ in 0..self.rng.between(1, 4) {
            self.unit(episode);
            if self.rng.one_in(4) {
                frame(&mut episode.bytes, b'H', b"");
                episode.settle();
                episode.steps.push(Step::Pause(self.rng.between(0, 5_000)));
            }
        }
        self.sync(episode);
    }

    fn sync(&self, episode: &mut Episode) {
        frame(&mut episode.bytes, b'S', b"");
        episode.awaited.push(Awaited::Sync);
        if episode.risky {
            let known = self.statements.clone();
            episode.usable.retain(|name, _| known.contains_key(name));
        }
    }

    /// One statement of an extended query.
    fn unit(&mut self, episode: &mut Episode) {
        let usable: Vec<_> = episode.usable.keys().cloned().collect();
        match self.rng.between(0, 9) {
            0..=2 => {
                let op = self.plain_op(episode.risky);
                self.parse(episode, "", &op);
                self.execute(episode, "", &op);
            }
            3..=4 => {
                let name = format!("s{}", self.rng.between(0, 7));
                if !episode.taken.contains(&name) {
                    // Few different ones, so that clients share them.
                    let op =
                        Op::Select(self.rng.between(0, 3) as u32, self.rng.between(0, 3) as u32);
                    self.parse(episode, &name, &op);
                    episode.taken.push(name.clone());
                    episode.usable.insert(name.clone(), op.clone());
                    if self.rng.one_in(2) {
                        self.execute(episode, &name, &op);
                    }
                }
            }
            5 => {
                let name = match self.rng.one_in(3) || usable.is_empty() {
                    true => "unknown".to_owned(),
                    false => self.rng.pick(&usable).clone(),
                };
                episode.usable.remove(&name);
                if !episode.risky {
                    episode.taken.retain(|taken| *taken != name);
                }
                frame(&mut episode.bytes, b'C', format!("S{name}\0").as_bytes());
                episode.awaited.push(Awaited::Close(Some(name)));
            }
            6 => {
                frame(&mut episode.bytes, b'C', b"Pnone\0");
                episode.awaited.push(Awaited::Close(None));
            }
            _ if usable.is_empty() => {}
            _ => {
                let name = self.rng.pick(&usable).clone();
                let op = episode.usable[&name].clone();
                self.execute(episode, &name, &op);
            }
        }
    }

    fn parse(&self, episode: &mut Episode, name: &str, op: &Op) {
        let mut out = BytesMut::new();
        frontend::parse_renamed(&mut out, name, format!("{op}\0\0\0").as_bytes());
        episode.bytes.extend(&out);
        episode.awaited.push(Awaited::Parse {
            name: name.to_owned(),
            op: op.clone(),
        });
    }

    fn execute(&mut self, episode: &mut Episode, name: &str, op: &Op) {
        let token = self.token();
        if self.rng.one_in(4) {
            frame(&mut episode.bytes, b'D', format!("S{name}\0").as_bytes());
            episode.awaited.push(Awaited::DescribeStatement(op.clone()));
        }
        let text = token.to_string();
        let mut body = format!("\0{name}\0").into_bytes();
        body.extend([0, 0, 0, 1, 0, 0, 0, text.len() as u8]);
        body.extend(text.as_bytes());
        body.extend([0, 0]);
        frame(&mut episode.bytes, b'B', &body);
        episode.awaited.push(Awaited::Bind(token));
        if self.rng.one_in(4) {
            frame(&mut episode.bytes, b'D', b"P\0");
            episode.awaited.push(Awaited::DescribePortal(op.clone()));
        }
        let max = match (op, self.rng.one_in(3)) {
            (Op::Select(rows @ 2.., _), true) => self.rng.between(1, u64::from(*rows) - 1) as u32,
            _ => 0,
        };
        self.run_portal(episode, op, token, 0, max);
        if max > 0 {
            self.run_portal(episode, op, token, max, 0);
        }
    }

    fn run_portal(&self, episode: &mut Episode, op: &Op, token: Token, given: u32, max: u32) {
        let mut body = vec![0];
        body.extend(max.to_be_bytes());
        frame(&mut episode.bytes, b'E', &body);
        episode.awaited.push(Awaited::Execute {
            op: op.clone(),
            token,
            given,
            max,
        });
    }

    fn transaction(&mut self, episode: &mut Episode) {
        let waits = self.rng.one_in(2);
        self.query(episode, vec![Op::Begin]);
        for _ in 0..self.rng.between(0, 4) {
            if waits {
                episode.settle();
                episode.steps.push(Step::Pause(self.rng.between(0, 10_000)));
            }
            match self.rng.one_in(2) {
                true => self.simple(episode),
                false => self.batch(episode),
            }
        }
        let end = match self.rng.one_in(3) {
            true => Op::Rollback,
            false => Op::Commit,
        };
        match self.rng.one_in(3) {
            true => self.extended(episode, &end),
            false => self.query(episode, vec![end]),
        }
    }

    fn extended(&mut self, episode: &mut Episode, op: &Op) {
        self.parse(episode, "", op);
        self.execute(episode, "", op);
        self.sync(episode);
    }

    fn pipeline(&mut self, episode: &mut Episode) {
        for _ in 0..self.rng.between(2, 5) {
            match self.rng.between(0, 4) {
                0..=1 => self.simple(episode),
                2 => self.set(episode),
                _ => self.batch(episode),
            }
        }
    }

    fn copy(&mut self, episode: &mut Episode) {
        let op = match self.rng.one_in(4) && episode.risky {
            true => Op::CopyInRefused,
            false => Op::CopyIn,
        };
        // A Sync that was sent into a COPY may be answered or not, and so may be refused or not: nobody
        // could tell what a refusal is about.
        let forms = if self.crowded { 1 } else { 2 };
        match self.rng.between(0, forms) {
            0 => self.query(episode, vec![op]),
            1 => self.query(episode, vec![Op::Select(1, 0), op, Op::Select(1, 1)]),
            _ => self.extended(episode, &op),
        }
    }

    fn use_everything(&mut self, episode: &mut Episode) {
        for (name, op) in self.statements.clone() {
            self.execute(episode, &name, &op);
            if self.rng.one_in(2) {
                self.sync(episode);
            }
        }
        self.sync(episode);
    }

    fn forget_everything(&mut self, episode: &mut Episode) {
        let op = match self.rng.one_in(2) {
            true => Op::DiscardAll,
            false => Op::DeallocateAll,
        };
        self.query_bare(episode, op);
        episode.usable.clear();
        if !self.rng.one_in(3) {
            return episode.settle();
        }
        self.batch(episode);
    }

    /// A query whose text the pooler may know, and so without a token.
    fn query_bare(&mut self, episode: &mut Episode, op: Op) {
        let token = self.token();
        text_frame(&mut episode.bytes, b'Q', &op.to_string());
        episode
            .awaited
            .push(Awaited::Query([(op, token)].into_iter().collect()));
    }
}

/// A value for the parameter at an index of [`Tracked::ALWAYS`].
pub(crate) fn value(rng: &mut crate::rng::Rng, index: usize) -> String {
    let choices: &[&str] = match Tracked::ALWAYS[index] {
        "DateStyle" => &["ISO", "German", "ISO, MDY"],
        "client_encoding" => &["utf8", "LATIN1"],
        "TimeZone" => &["GMT", "Europe/Paris", "Asia/Tokyo"],
        "standard_conforming_strings" => &["on"],
        _ => &["psql", "it's; mine", r"back\slash", "other"],
    };
    (*rng.pick(choices)).to_owned()
}
