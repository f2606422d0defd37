//! Virtual time, and the wires between the parties: bytes travel in chunks of any size, wait, fill
//! up, and end.
//!
//! A connection is two wires. What a party writes is *sent*; an event makes some of it *arrive*;
//! then the reader is woken. A wire holds a limited number of bytes, so a slow reader is felt.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use crate::rng::Rng;

/// Who can be woken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Party {
    /// The pooler's side of a client.
    Session(usize),
    /// The pooler's side of a server.
    Server(usize),
    /// A client.
    Client(usize),
    /// A PostgreSQL backend.
    Backend(usize),
}

/// Something that happens at a moment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Event {
    /// Bytes arrive.
    Travel(usize),
    /// A party looks around.
    Wake(Party),
    /// A new connection reaches PostgreSQL.
    Accept(usize),
    /// The login of a backend is over.
    LoggedIn(usize),
    /// The pooler learns how the login went.
    Opened(usize),
    /// A client's CancelRequest reaches the pooler.
    CancelAsked(usize),
    /// A CancelRequest reaches PostgreSQL.
    CancelArrives(u64),
    /// The pooler knows that a CancelRequest has been dealt with.
    CancelEnds(u64),
    /// The patience for cleaning a server up is over.
    Impatience(usize),
    /// The pooler's regular upkeep.
    Tick,
    /// The operator or fate does something.
    Fate,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    /// The wire that is read here.
    pub(crate) read: usize,
    /// The wire that is written here.
    pub(crate) write: usize,
}

/// What a read brought.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Read {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// None now.
    Nothing,
    /// None any more.
    End,
}

/// The reader is gone: what is written goes nowhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Broken;

#[derive(Debug)]
struct Wire {
    sent: VecDeque<u8>,
    arrived: VecDeque<u8>,
    room: usize,
    delay_us_max: u64,
    chunk_max: u64,
    travelling: bool,
    refused: bool,
    shut: bool,
    end_arrived: bool,
    deaf: bool,
    reader: Party,
    writer: Party,
}

/// Time, wires, chance and the trace.
#[derive(Debug)]
pub(crate) struct Env {
    /// Microseconds since the beginning.
    pub(crate) now_us: u64,
    /// The source of all chance outside the clients' programs.
    pub(crate) rng: Rng,
    start: Instant,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    last_event: u64,
    wires: Vec<Wire>,
    trace: Option<Vec<String>>,
}

impl Env {
    /// The beginning. `start` is an arbitrary moment, because an `Instant` cannot be made.
    pub(crate) fn new(rng: Rng, start: Instant, trace: bool) -> Self {
        Self {
            now_us: 0,
            rng,
            start,
            queue: BinaryHeap::new(),
            last_event: 0,
            wires: Vec::new(),
            trace: trace.then(Vec::new),
        }
    }

    /// Now, as the pool wants it.
    pub(crate) fn now(&self) -> Instant {
        self.start + Duration::from_micros(self.now_us)
    }

    /// Plans an event.
    pub(crate) fn after(&mut self, delay_us: u64, event: Event) {
        self.last_event += 1;
        let at = self.now_us + delay_us;
        self.queue.push(Reverse((at, self.last_event, event)));
    }

    /// Plans an event within a time.
    pub(crate) fn within(&mut self, delay_us_max: u64, event: Event) {
        let delay = self.rng.between(0, delay_us_max);
        self.after(delay, event);
    }

    /// The next event; time moves there.
    pub(crate) fn next_event(&mut self) -> Option<Event> {
        let Reverse((at, _, event)) = self.queue.pop()?;
        self.now_us = at;
        Some(event)
    }

    /// Whether nothing is planned.
    pub(crate) fn is_calm(&self) -> bool {
        self.queue.is_empty()
    }

    /// Notes what happens, if anybody reads it.
    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} {}", self.now_us, line()));
        }
    }

    /// Everything noted.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// A connection between two parties; the end of each.
    pub(crate) fn connect(&mut self, a: Party, b: Party) -> (End, End) {
        let forth = self.wire(a, b);
        let back = self.wire(b, a);
        let near = End {
            read: back,
            write: forth,
        };
        let far = End {
            read: forth,
            write: back,
        };
        (near, far)
    }

    fn wire(&mut self, writer: Party, reader: Party) -> usize {
        let slow = self.rng.one_in(6);
        let (room, delay_us_max) = match slow {
            true => (self.rng.between(64, 400), 8_000),
            false => (self.rng.between(600, 20_000), 400),
        };
        let chunk_max = *self.rng.pick(&[7, 60, 2_000, 2_000, 2_000]);
        self.wires.push(Wire {
            sent: VecDeque::new(),
            arrived: VecDeque::new(),
            room: room as usize,
            delay_us_max,
            chunk_max,
            travelling: false,
            refused: false,
            shut: false,
            end_arrived: false,
            deaf: false,
            reader,
            writer,
        });
        self.wires.len() - 1
    }

    /// Writes as much as there is room for; how much that was.
    ///
    /// # Errors
    /// The reader is gone.
    pub(crate) fn write(&mut self, id: usize, bytes: &[u8]) -> Result<usize, Broken> {
        let wire = &mut self.wires[id];
        if wire.deaf || wire.shut {
            return Err(Broken);
        }
        let used = wire.sent.len() + wire.arrived.len();
        let taken = bytes.len().min(wire.room.saturating_sub(used));
        wire.refused = taken < bytes.len();
        wire.sent.extend(&bytes[..taken]);
        self.set_off(id);
        Ok(taken)
    }

    /// Reads up to `max` bytes that have arrived.
    pub(crate) fn read(&mut self, id: usize, max: usize) -> Read {
        let wire = &mut self.wires[id];
        if wire.arrived.is_empty() {
            return match wire.end_arrived {
                true => Read::End,
                false => Read::Nothing,
            };
        }
        let len = max.min(wire.arrived.len());
        let bytes = wire.arrived.drain(..len).collect();
        if std::mem::take(&mut wire.refused) {
            let writer = wire.writer;
            self.after(0, Event::Wake(writer));
        }
        Read::Bytes(bytes)
    }

    /// Whether a reader would find something.
    pub(crate) fn is_readable(&self, id: usize) -> bool {
        !self.wires[id].arrived.is_empty() || self.wires[id].end_arrived
    }

    /// The writer has said everything.
    pub(crate) fn shut(&mut self, id: usize) {
        self.wires[id].shut = true;
        self.set_off(id);
    }

    /// Closes an end: nothing more is written or read there.
    pub(crate) fn close(&mut self, end: End) {
        self.shut(end.write);
        let wire = &mut self.wires[end.read];
        wire.deaf = true;
        wire.arrived.clear();
        wire.sent.clear();
    }

    /// Loses the last bytes that were sent and have not arrived.
    pub(crate) fn cut(&mut self, id: usize) {
        let keep = self.rng.index(self.wires[id].sent.len() + 1);
        self.wires[id].sent.truncate(keep);
    }

    /// Some bytes arrive; who is to be told.
    pub(crate) fn travel(&mut self, id: usize) -> Option<Party> {
        let chunk = self.rng.between(1, self.wires[id].chunk_max) as usize;
        let wire = &mut self.wires[id];
        wire.travelling = false;
        if wire.deaf {
            return None;
        }
        let len = chunk.min(wire.sent.len());
        let moved: Vec<u8> = wire.sent.drain(..len).collect();
        wire.arrived.extend(moved);
        wire.end_arrived = wire.shut && wire.sent.is_empty();
        let reader = wire.reader;
        self.set_off(id);
        Some(reader)
    }

    fn set_off(&mut self, id: usize) {
        let wire = &mut self.wires[id];
        let something = !wire.sent.is_empty() || (wire.shut && !wire.end_arrived);
        if something && !wire.travelling && !wire.deaf {
            wire.travelling = true;
            let delay = wire.delay_us_max;
            self.within(delay, Event::Travel(id));
        }
    }
}
