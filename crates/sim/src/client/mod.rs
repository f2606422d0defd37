//! A fake client: it runs a random program, knows what it may expect, and judges every reply.

mod program;
mod replies;

pub(crate) use self::program::value;

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use pgweir_wire::TransactionStatus as Block;

use self::program::Step;
use crate::frames::cut;
use crate::laws::Broken;
use crate::rng::Rng;
use crate::sql::{Op, Settings, Token};
use crate::wires::{End, Env, Event, Party, Read};

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    id: usize,
    end: End,
    rng: Rng,
    input: BytesMut,
    output: Vec<u8>,
    program: VecDeque<Step>,
    episodes: u32,
    waits_until: u64,
    /// It vanishes when it has written so many bytes.
    vanishes_at: Option<usize>,
    written: usize,
    life: Life,
    seq: u32,
    awaited: VecDeque<Awaited>,
    progress: Progress,
    /// The server skips what is sent until the next Sync.
    skipping: bool,
    /// ReadyForQuery that may or may not come for a Sync that was sent into a COPY.
    doubtful: u32,
    statements: BTreeMap<String, Op>,
    settings: Settings,
    block: Block,
    cancels_sent: u32,
    cancels_felt: u32,
    /// Whether it may be refused because too many others want a server.
    crowded: bool,
    /// What was refused so.
    refused: Vec<Token>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    Running,
    /// It has gone by its own will.
    Left,
    /// The pooler has closed the connection.
    Dismissed,
}

/// A message that has been sent and will be answered.
#[derive(Clone, Debug)]
enum Awaited {
    Query(VecDeque<(Op, Token)>),
    Parse {
        name: String,
        op: Op,
    },
    Bind(Token),
    DescribeStatement(Op),
    DescribePortal(Op),
    Execute {
        op: Op,
        token: Token,
        given: u32,
        max: u32,
    },
    Close(Option<String>),
    Sync,
}

/// How far the answer to the first awaited message has come.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    described: bool,
    rows: u32,
    copying: bool,
    failed: bool,
}

impl Client {
    /// A client that will live for some episodes. `startup` are its parameters; `crowded`: whether it
    /// may be refused.
    pub(crate) fn new(
        id: usize,
        end: End,
        mut rng: Rng,
        episodes: u32,
        startup: &[(usize, String)],
        crowded: bool,
    ) -> Self {
        let mut settings = Settings::default();
        for (index, value) in startup {
            settings.set(*index, value);
        }
        let vanishes_at = rng.one_in(3).then(|| rng.between(1, 4_000) as usize);
        Self {
            id,
            end,
            rng,
            input: BytesMut::new(),
            output: Vec::new(),
            program: VecDeque::new(),
            episodes,
            waits_until: 0,
            vanishes_at,
            written: 0,
            life: Life::Running,
            seq: 0,
            awaited: VecDeque::new(),
            progress: Progress::default(),
            skipping: false,
            doubtful: 0,
            statements: BTreeMap::new(),
            settings,
            block: Block::Idle,
            cancels_sent: 0,
            cancels_felt: 0,
            crowded,
            refused: Vec::new(),
        }
    }

    /// Whether it has come to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.life != Life::Running
    }

    /// What it was told has not been run.
    pub(crate) fn refused(&self) -> &[Token] {
        &self.refused
    }

    /// What it is waiting for, for whoever reads a failure.
    pub(crate) fn story(&self) -> String {
        format!(
            "client {}: {:?}, awaits {:?}, {:?}, {} steps left",
            self.id,
            self.life,
            self.awaited,
            self.progress,
            self.program.len()
        )
    }

    /// Reads replies and goes on with the program.
    pub(crate) fn wake(&mut self, env: &mut Env) -> Result<(), Broken> {
        if self.life != Life::Running {
            return Ok(());
        }
        loop {
            match env.read(self.end.read, usize::MAX) {
                Read::Bytes(bytes) => self.input.extend_from_slice(&bytes),
                Read::Nothing => break,
                Read::End => {
                    env.note(|| format!("client {} was dismissed", self.id));
                    self.life = Life::Dismissed;
                    env.close(self.end);
                    return Ok(());
                }
            }
            while let Some((tag, body)) =
                cut(&mut self.input).map_err(|problem| self.wrong(0, &problem))?
            {
                env.note(|| format!("client {} hears {}", self.id, crate::laws::show(tag, &body)));
                self.reply(tag, &body)?;
            }
        }
        self.go_on(env);
        Ok(())
    }

    fn go_on(&mut self, env: &mut Env) {
        loop {
            if !self.flush(env) || self.life != Life::Running || env.now_us < self.waits_until {
                return;
            }
            let Some(step) = self.program.pop_front() else {
                self.next_episode(env);
                continue;
            };
            match step {
                Step::Send(bytes, awaited) => {
                    env.note(|| {
                        format!(
                            "client {} says {:?}",
                            self.id,
                            crate::laws::show_all(&bytes)
                        )
                    });
                    self.output.extend(bytes);
                    for awaited in awaited {
                        if matches!(awaited, Awaited::Sync) {
                            self.skipping = false;
                        }
                        if !self.skipping {
                            self.awaited.push_back(awaited);
                        }
                    }
                }
                Step::Settle if self.awaited.is_empty() => {}
                Step::Settle => {
                    self.program.push_front(Step::Settle);
                    return;
                }
                Step::Pause(us) => self.pause(us, env),
                // It could hit a Sync of which nobody knows whether it has been answered.
                Step::Cancel if self.doubtful > 0 => {}
                Step::Cancel => {
                    env.note(|| format!("client {} asks for a cancel", self.id));
                    self.cancels_sent += 1;
                    env.within(3_000, Event::CancelAsked(self.id));
                }
                Step::Leave => {
                    env.note(|| format!("client {} leaves", self.id));
                    self.life = Life::Left;
                    env.close(self.end);
                }
            }
        }
    }

    fn pause(&mut self, us: u64, env: &mut Env) {
        self.waits_until = env.now_us + us;
        env.after(us, Event::Wake(Party::Client(self.id)));
    }

    fn next_episode(&mut self, env: &mut Env) {
        debug_assert!(self.awaited.is_empty());
        if self.episodes == 0 {
            let mut bytes = BytesMut::new();
            pgweir_wire::frontend::terminate(&mut bytes);
            self.program
                .push_back(Step::Send(bytes.to_vec(), Vec::new()));
            self.program.push_back(Step::Leave);
            return;
        }
        self.episodes -= 1;
        self.program = self.episode(self.episodes == 0).into();
        let us = self.rng.between(0, 20_000);
        self.pause(us, env);
    }

    /// Writes what is due; `false` if something is left.
    fn flush(&mut self, env: &mut Env) -> bool {
        let mut due = self.output.len();
        if let Some(at) = self.vanishes_at {
            due = due.min(at.saturating_sub(self.written));
        }
        // If the pooler is gone, reading will say so.
        let taken = env
            .write(self.end.write, &self.output[..due])
            .unwrap_or(due);
        self.output.drain(..taken);
        self.written += taken;
        if self.vanishes_at == Some(self.written) {
            env.note(|| format!("client {} vanishes", self.id));
            self.life = Life::Left;
            env.close(self.end);
        }
        self.output.is_empty()
    }

    fn wrong(&self, tag: u8, what: &str) -> Broken {
        Broken::WrongReply {
            client: self.id,
            tag: tag as char,
            what: what.to_owned(),
            awaited: format!("{:?} {:?}", self.awaited, self.progress),
        }
    }
}
