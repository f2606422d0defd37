//! What the tasks of one round have sent, on its way together.
//!
//! Hot path. A round is what the runtime does between two looks at its sockets: some tasks that have something to
//! read, and most of them write a few bytes. Each write as a system call of its own wakes somebody who
//! then takes the processor from the round. Here they are collected, and leave with one system call at the end
//! of the round, by io_uring (`pgweir_uring`). ADR 26 has the figures.
//!
//! A thread that is never out of tasks has no end of a round. There, what lies here leaves when the places are taken, and
//! before anything is written directly ([`give_way`]): a task that keeps a thread busy does one or the other, because one that
//! only reads soon has nothing left to read.
//!
//! It changes when bytes leave, and nothing else: the bytes of one socket stay in order, a socket that takes only a
//! part keeps its writer waiting as ever, and nobody can take a socket away while bytes for it lie here ([`Outgoing`]).

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, RawFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Waker};

use pgweir_uring::{Ring, Send, Sent, send_one};

/// Sockets that may have something in the outbox. As many tasks as tokio runs between two looks at the sockets when it does
/// not run out of them.
const PLACES: usize = 64;

/// Bytes that one socket may have in it. What is more is worth a system call, and not worth a copy.
const PLACE_LEN: usize = 4096;

thread_local! {
    static HERE: Cell<Here> = const { Cell::new(Here::Unknown) };
}

/// Who is told that there will be no outbox any more; nobody until [`collect_sends`].
static REFUSED: OnceLock<fn(&io::Error)> = OnceLock::new();

/// Whether a thread has an outbox.
#[derive(Clone, Copy)]
enum Here {
    /// It has not ended a round yet: nobody may be there who would empty an outbox.
    Unknown,
    /// The kernel has refused it.
    None,
    Open(&'static Outbox),
}

/// The outbox of a thread.
#[derive(Debug)]
pub(crate) struct Outbox {
    /// How often it has been emptied.
    emptied: AtomicU64,
    /// For how many sockets there are [`Queue::rests`].
    rests: AtomicUsize,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    /// Until the kernel refuses it.
    ring: Option<Ring>,
    places: Vec<Place>,
    /// The first so many are taken.
    taken: usize,
    /// Reused.
    sent: Vec<Sent>,
    /// What could not be sent, until whoever has the socket asks for it.
    rests: HashMap<Stub, Rest>,
}

/// What one socket has in the outbox.
#[derive(Debug)]
struct Place {
    socket: RawFd,
    bytes: Vec<u8>,
    /// Who is told if it cannot all be sent.
    writer: Waker,
}

/// Where bytes lie or have lain.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
struct Stub {
    /// [`Outbox::emptied`] while they lie there.
    round: u64,
    place: usize,
}

/// What of a socket's bytes has not been sent, or why none will be.
type Rest = io::Result<Vec<u8>>;

/// Lets what the tasks of a round send leave together, on every thread that calls [`end_of_round`]. `refused` is
/// told if the kernel wants no more of it later.
///
/// # Errors
/// io_uring cannot be had; sockets are written to one by one.
pub fn collect_sends(refused: fn(&io::Error)) -> io::Result<()> {
    Ring::new(1)?;
    REFUSED.get_or_init(|| refused);
    Ok(())
}

/// Sends what the tasks of this round have sent. A thread that runs tasks has to call it whenever it is out of them and
/// goes to sleep (`tokio::runtime::Builder::on_thread_park`).
pub fn end_of_round() {
    match HERE.get() {
        Here::Open(outbox) => outbox.send_now(),
        Here::None => {}
        Here::Unknown => Outbox::open_here(),
    }
}

/// Sends what lies in this thread's outbox, because something is written past it: a thread that only writes long things
/// may not come to the end of its round for long.
#[inline]
pub(crate) fn give_way() {
    if let Here::Open(outbox) = HERE.get() {
        outbox.send_now();
    }
}

impl Outbox {
    /// This thread's, if it has one.
    #[inline]
    fn here() -> Option<&'static Self> {
        match HERE.get() {
            Here::Open(outbox) => Some(outbox),
            Here::None | Here::Unknown => None,
        }
    }

    #[cold]
    fn open_here() {
        let Some(refused) = REFUSED.get() else {
            return;
        };
        let outbox = Self::open().inspect_err(refused);
        HERE.set(outbox.map_or(Here::None, Here::Open));
    }

    /// It lives as long as the program, as do the threads that have one.
    fn open() -> io::Result<&'static Self> {
        let place = || Place {
            socket: -1,
            bytes: Vec::new(),
            writer: Waker::noop().clone(),
        };
        Ok(Box::leak(Box::new(Self {
            emptied: AtomicU64::new(0),
            rests: AtomicUsize::new(0),
            queue: Mutex::new(Queue {
                ring: Some(Ring::new(PLACES as u32)?),
                places: std::iter::repeat_with(place).take(PLACES).collect(),
                taken: 0,
                sent: Vec::new(),
                rests: HashMap::new(),
            }),
        })))
    }

    /// Takes bytes for a socket; `false` if they have to be written directly.
    fn put(
        &'static self,
        out: &mut Outgoing,
        cx: &Context<'_>,
        socket: RawFd,
        bytes: &[u8],
    ) -> bool {
        let mut queue = self.lock();
        if out.lies_here() {
            return queue.append(out.stub.place, cx, bytes);
        }
        if queue.rests.contains_key(&out.stub) {
            return false;
        }
        if queue.taken == PLACES {
            self.send_all(&mut queue);
        }
        if queue.ring.is_none() {
            return false;
        }
        out.outbox = Some(self);
        out.stub = Stub {
            round: self.emptied.load(Ordering::Relaxed),
            place: queue.taken,
        };
        queue.fill(cx, socket, bytes);
        true
    }

    /// Sends everything now.
    fn send_now(&self) {
        self.send_all(&mut self.lock());
    }

    fn send_all(&self, queue: &mut Queue) {
        if queue.taken == 0 {
            return;
        }
        let outcome = queue.send();
        let round = self.emptied.load(Ordering::Relaxed);
        queue.keep_rests(round);
        self.rests.store(queue.rests.len(), Ordering::Release);
        self.emptied.store(round + 1, Ordering::Release);
        // Only now: whoever is woken looks at these two, on another thread perhaps at once.
        queue.wake_writers(round);
        if let (Err(error), Some(refused)) = (outcome, REFUSED.get()) {
            refused(&error);
        }
    }

    /// What could not be sent of what lay there.
    #[cold]
    fn take_rest(&self, stub: Stub) -> Option<Rest> {
        let mut queue = self.lock();
        let rest = queue.rests.remove(&stub);
        self.rests.store(queue.rests.len(), Ordering::Release);
        rest
    }

    fn has_rest(&self, stub: Stub) -> bool {
        self.rests.load(Ordering::Acquire) > 0 && self.lock().rests.contains_key(&stub)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn fill(&mut self, cx: &Context<'_>, socket: RawFd, bytes: &[u8]) {
        let place = &mut self.places[self.taken];
        place.socket = socket;
        place.bytes.clear();
        place.bytes.extend_from_slice(bytes);
        place.writer.clone_from(cx.waker());
        self.taken += 1;
    }

    fn append(&mut self, place: usize, cx: &Context<'_>, bytes: &[u8]) -> bool {
        let place = &mut self.places[place];
        if place.bytes.len() + bytes.len() > PLACE_LEN {
            return false;
        }
        place.bytes.extend_from_slice(bytes);
        place.writer.clone_from(cx.waker());
        true
    }

    /// Sends what is there. Without a ring, and where it has been refused, one by one.
    fn send(&mut self) -> io::Result<()> {
        let places = &self.places[..self.taken];
        let sends = places.iter().map(Place::to_send);
        let outcome = match (&mut self.ring, places) {
            (Some(ring), [_, _, ..]) => ring.send_each(sends.clone(), &mut self.sent),
            _ => {
                self.sent.clear();
                Ok(())
            }
        };
        let done = self.sent.len();
        self.sent
            .extend(sends.skip(done).map(|send| send_one(&send)));
        if outcome.is_err() {
            self.ring = None;
        }
        outcome
    }

    /// Keeps what has not been sent.
    fn keep_rests(&mut self, round: u64) {
        for (index, sent) in self.sent.drain(..).enumerate() {
            let place = &self.places[index];
            let rest = match sent {
                Ok(len) if len == place.bytes.len() => continue,
                Ok(len) => Ok(place.bytes[len..].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(place.bytes.clone()),
                Err(error) => Err(error),
            };
            let stub = Stub {
                round,
                place: index,
            };
            self.rests.insert(stub, rest);
        }
        self.taken = 0;
    }

    /// Tells those of whom something has been kept.
    fn wake_writers(&self, round: u64) {
        for stub in self.rests.keys().filter(|stub| stub.round == round) {
            self.places[stub.place].writer.wake_by_ref();
        }
    }
}

impl Place {
    fn to_send(&self) -> Send<'_> {
        Send {
            socket: self.socket,
            bytes: &self.bytes,
        }
    }
}

/// What a socket has in an outbox, or has had. It belongs to one socket, and must be dropped or settled before that is closed or
/// given away: another socket may get its number.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// The last one that bytes were put into.
    outbox: Option<&'static Outbox>,
    stub: Stub,
}

impl Outgoing {
    /// Whether so many bytes may be put into an outbox at a time.
    #[inline]
    pub(crate) fn takes(len: usize) -> bool {
        len <= PLACE_LEN
    }

    /// Puts bytes into this thread's outbox; `false` if they have to be written directly, behind what [`Self::send_out`] gives.
    #[inline]
    pub(crate) fn put(&mut self, cx: &Context<'_>, socket: &impl AsFd, bytes: &[u8]) -> bool {
        if !Self::takes(bytes.len()) {
            return false;
        }
        let Some(outbox) = Outbox::here() else {
            return false;
        };
        // A connection that moves between threads is settled where it was.
        if self.lies_here() && self.outbox.is_some_and(|last| !std::ptr::eq(last, outbox)) {
            return false;
        }
        outbox.put(self, cx, socket.as_fd().as_raw_fd(), bytes)
    }

    /// Whether bytes wait in the outbox for the end of the round.
    #[inline]
    pub(crate) fn lies_here(&self) -> bool {
        self.outbox
            .is_some_and(|outbox| outbox.emptied.load(Ordering::Acquire) == self.stub.round)
    }

    /// Whether the round is over and something could not be sent.
    #[inline]
    pub(crate) fn has_rest(&self) -> bool {
        self.outbox.is_some_and(|outbox| outbox.has_rest(self.stub))
    }

    /// Sends what lies there now, and gives what could not be sent.
    ///
    /// # Errors
    /// As the operating system says.
    #[inline]
    pub(crate) fn send_out(&self) -> io::Result<Vec<u8>> {
        let Some(outbox) = self.outbox else {
            return Ok(Vec::new());
        };
        if self.lies_here() {
            outbox.send_now();
        }
        match outbox.has_rest(self.stub) {
            true => outbox.take_rest(self.stub).unwrap_or(Ok(Vec::new())),
            false => Ok(Vec::new()),
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        // Nobody is left who would write the rest.
        let _ = self.send_out();
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
