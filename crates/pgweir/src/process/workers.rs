//! The threads that run tasks, each with a runtime and a reactor of its own.
//!
//! A client stays with the thread that it was given when it came, and the pool prefers servers, and whoever waits for one,
//! of the thread that asks: then nothing of a transaction has to wake another thread, or wait for it.
//! ADR 2 has the figures. Everything else, such as the console's and the janitor's work, runs on the first thread or
//! wherever it was asked for.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pgweir_pool::Near;
use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};
use tokio::time::sleep;

use crate::clients::client::Client;
use crate::servers::server::Server;

thread_local! {
    static HERE: Cell<u16> = const { Cell::new(0) };
}

/// The number of a thread that runs tasks; the first is 0.
pub(crate) fn here() -> u16 {
    HERE.get()
}

/// Whom this thread prefers.
pub(crate) fn near() -> Near<Box<Server>, Arc<Client>> {
    Near {
        server: |server| server.thread == here(),
        waiter: |client| client.thread.load(Ordering::Relaxed) == here(),
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
        let clients = |worker: &Worker| worker.clients.load(Ordering::Relaxed);
        let here = self.here();
        let quietest = self.0.iter().min_by_key(|worker| clients(worker));
        let chosen = quietest.filter(|worker| clients(worker) + 1 < clients(here));
        Seat(chosen.unwrap_or(here))
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
}

/// How often a thread looks up that has nothing to do.
const TICK: Duration = Duration::from_secs(1);

/// Keeps a timer going. Without any, whoever set one would wake its own thread, with two system calls: tokio takes it
/// for one that the reactor does not know of. Every login sets one.
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
