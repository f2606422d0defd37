//! The threads that run tasks, each with a runtime and a reactor of its own.
//!
//! A client stays with the thread that it was given when it came, and the pool prefers servers, and whoever waits for one,
//! of the thread that asks: then nothing of a transaction has to wake another thread, or wait for it.
//! ADR 2 has the figures. Everything else, such as the console's and the janitor's work, runs on the first thread or
//! wherever it was asked for.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pgweir_pool::Threads;
use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};
use tokio::time::sleep;

use crate::servers::server::Server;

thread_local! {
    static HERE: Cell<u16> = const { Cell::new(0) };
}

/// The number of a thread that runs tasks; the first is 0.
pub(crate) fn here() -> u16 {
    HERE.get()
}

/// What the pool knows of threads.
pub(crate) fn threads() -> Threads<Box<Server>> {
    Threads {
        here,
        watches: |server| server.thread == here(),
    }
}

/// The threads.
#[derive(Debug)]
pub(crate) struct Workers(Box<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// Clients that it has been given and that have not ended or gone to rest.
    clients: AtomicUsize,
}

impl Workers {
    /// Starts so many threads, of which this is the first: its runtime is to be run here.
    ///
    /// # Errors
    /// There can be no runtime, or no thread.
    pub(crate) fn start(count: u16) -> io::Result<(Runtime, Self)> {
        let first = runtime()?;
        let mut workers = vec![Worker::of(&first)];
        for number in 1..count.max(1) {
            let runtime = runtime()?;
            workers.push(Worker::of(&runtime));
            let run = move || {
                HERE.set(number);
                runtime.block_on(tick());
            };
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(run)?;
        }
        Ok((first, Self(workers.into())))
    }

    /// A place for one more client, where there are fewest; here if that is nearly as good: a login in another thread has to
    /// wake it.
    pub(crate) fn seat(&self) -> Seat<'_> {
        self.seat_elsewhere(1).unwrap_or(self.seat_here())
    }

    /// A place for a client that has just come and can be moved later: here, unless that has many more than others. Most
    /// that come often ask little and leave, and another thread would have to be woken for each step of it.
    pub(crate) fn seat_of_newcomer(&self) -> Seat<'_> {
        self.seat_elsewhere(NEWCOMERS).unwrap_or(self.seat_here())
    }

    /// A place in another thread, if one has fewer clients by more than so many.
    pub(crate) fn seat_elsewhere(&self, more: usize) -> Option<Seat<'_>> {
        let quietest = self.0.iter().min_by_key(|worker| worker.clients())?;
        (quietest.clients() + more < self.here().clients()).then_some(Seat(quietest))
    }

    /// The thread that has most clients, and how many of them had better be elsewhere, if that is worth their moves.
    pub(crate) fn crowd(&self) -> Option<(u16, usize)> {
        crowd(self.clients())
    }

    /// How many clients each thread has.
    pub(crate) fn clients(&self) -> impl ExactSizeIterator<Item = usize> + Clone {
        self.0.iter().map(Worker::clients)
    }

    /// A place in this thread.
    pub(crate) fn seat_here(&self) -> Seat<'_> {
        Seat(self.here())
    }

    /// A place for each of several clients that come at once, in turn.
    pub(crate) fn seat_of(&self, index: usize) -> Seat<'_> {
        Seat(&self.0[index % self.0.len()])
    }

    fn here(&self) -> &Worker {
        &self.0[usize::from(here())]
    }

    /// A client's task has ended, in its own thread.
    pub(crate) fn leave(&self) {
        self.here().clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Worker {
    fn of(runtime: &Runtime) -> Self {
        Self {
            runtime: runtime.handle().clone(),
            clients: AtomicUsize::new(0),
        }
    }

    fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }
}

/// How many more clients than another a thread may have before it gives away those who come to it.
const NEWCOMERS: usize = 32;

fn crowd(clients: impl ExactSizeIterator<Item = usize> + Clone) -> Option<(u16, usize)> {
    let even = clients.clone().sum::<usize>().div_ceil(clients.len());
    let fewest = clients.clone().min()?;
    let (thread, most) = clients.enumerate().max_by_key(|&(_, clients)| clients)?;
    let is_crowded = most > fewest + fewest / 8 + 1;
    is_crowded.then_some((u16::try_from(thread).ok()?, most - even))
}

/// How often a thread looks up that has nothing to do.
const TICK: Duration = Duration::from_secs(1);

/// Keeps a timer going. Without any, whoever set one would wake its own thread, with two system calls: tokio takes it
/// for one that the reactor does not know of. Every reset of a server sets one.
async fn tick() {
    loop {
        sleep(TICK).await;
    }
}

fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .on_thread_park(pgweir_net::end_of_round)
        .build()
}

/// A place for a client in one of the threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seat<'a>(&'a Worker);

impl Seat<'_> {
    /// Until the guard is dropped, sockets that are opened here belong to that thread's reactor.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.0.runtime.enter()
    }

    /// Lets a client's task run there; the client is counted until that calls [`Workers::leave`].
    pub(crate) fn spawn(self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.clients.fetch_add(1, Ordering::Relaxed);
        self.0.runtime.spawn(task);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_too_many_in_one_thread_are_counted() {
        let crowd = |clients: &[usize]| crowd(clients.iter().copied());
        assert_eq!(crowd(&[16, 0]), Some((0, 8)));
        assert_eq!(crowd(&[0, 9, 0]), Some((1, 6)));
        assert_eq!(crowd(&[1, 3]), Some((1, 1)));
        assert_eq!(crowd(&[2, 3]), None, "no move would make it even");
        assert_eq!(crowd(&[100, 110]), None, "not worth it");
        assert_eq!(crowd(&[5]), None);
    }

    #[test]
    fn a_client_begins_where_it_has_come_and_one_that_cannot_move_where_there_are_fewest() {
        let (runtime, workers) = Workers::start(2).expect("starts");
        let is_here = |seat: Seat<'_>| std::ptr::eq(seat.0, workers.here());
        let come = |count| {
            for _ in 0..count {
                workers.seat_here().spawn(std::future::pending());
            }
        };
        come(1);
        assert!(is_here(workers.seat()));
        come(1);
        assert!(!is_here(workers.seat()));
        come(NEWCOMERS - 2);
        assert!(is_here(workers.seat_of_newcomer()));
        come(1);
        assert!(!is_here(workers.seat_of_newcomer()));
        drop(runtime);
    }
}
