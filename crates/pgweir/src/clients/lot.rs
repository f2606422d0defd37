//! Where clients rest that have been idle for long: without a task, and without a place in the
//! runtime's reactor. Those two are more than half of the memory of a client that asks nothing.
//!
//! Their sockets stand in an epoll set of their own. The first byte, the end of the connection or an
//! order from somebody else makes a task for the client again.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;

use crate::clients::client::TaskOrder;
use crate::clients::serve;
use crate::relay::{Resting, Session};
use crate::shared::{Shared, lock};

/// How long a client has been idle before it is sent to rest. Coming and going costs about as much as
/// a query.
const REST_AFTER: Duration = Duration::from_secs(5);

/// How many are sent to rest at a time, so that others do not wait for it.
const AT_A_TIME: usize = 1000;

/// The clients that rest.
pub(crate) struct Lot {
    sockets: OwnedFd,
    resting: Mutex<HashMap<u64, Box<Resting>, RandomState>>,
    /// Whose clients they are.
    shared: OnceLock<Weak<Shared>>,
}

impl Lot {
    /// # Errors
    /// The kernel gives no epoll set.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            sockets: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            resting: Mutex::default(),
            shared: OnceLock::new(),
        })
    }

    /// Takes a client in. It comes back if the kernel does not watch its socket.
    fn take_in(self: &Arc<Self>, resting: Box<Resting>) -> Result<(), Box<Resting>> {
        let client = Arc::clone(&resting.client);
        {
            let mut all = lock(&self.resting);
            let data = epoll::EventData::new_u64(client.id);
            let events = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
            let events = events | epoll::EventFlags::ONESHOT;
            if epoll::add(&self.sockets, &resting.socket, data, events).is_err() {
                return Err(resting);
            }
            all.insert(client.id, resting);
            let bell = Bell {
                lot: Arc::clone(self),
                id: client.id,
            };
            // While it cannot be let go: the task that it gets then has a waker of its own.
            client.attach(&Waker::from(Arc::new(bell)));
        }
        // Whoever had an order before that has rung at the task that is gone.
        if client.has_mail() {
            self.rouse(client.id);
        }
        Ok(())
    }

    /// How many rest.
    pub(crate) fn len(&self) -> usize {
        lock(&self.resting).len()
    }

    /// Lets a client go on soon.
    fn rouse(&self, id: u64) {
        if let Some(shared) = self.shared.get().and_then(Weak::upgrade) {
            let seat = shared.workers.seat();
            let shared = Arc::clone(&shared);
            seat.spawn(async move { resume(&shared, id) });
        }
    }

    /// Lets a client go. `None` if it has gone already.
    fn let_go(&self, id: u64) -> Option<Box<Resting>> {
        let mut all = lock(&self.resting);
        let resting = all.remove(&id)?;
        if all.len() < all.capacity() / 4 {
            all.shrink_to_fit();
        }
        // It cannot fail: the socket is open and was added.
        let _ = epoll::delete(&self.sockets, &resting.socket);
        Some(resting)
    }
}

/// Watches the sockets of those that rest, in a thread that sleeps until something happens on one.
///
/// # Errors
/// There can be no thread.
pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<()> {
    let lot = Arc::clone(&shared.lot);
    let _ = lot.shared.set(Arc::downgrade(shared));
    let watch = move || {
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            match epoll::wait(&lot.sockets, spare_capacity(&mut events), None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return tracing::error!("epoll_wait() failed: {error}"),
            }
            for event in &events {
                lot.rouse(event.data.u64());
            }
        }
    };
    thread::Builder::new().name("lot".to_owned()).spawn(watch)?;
    Ok(())
}

/// Lets a session's client rest. If that cannot be, the session comes back, or nothing does because its
/// socket is lost.
pub(crate) fn rest(session: Session) -> Result<(), Option<Box<Session>>> {
    let shared = Arc::clone(&session.shared);
    let client = Arc::clone(&session.client);
    let awake = |error: io::Error| {
        tracing::error!(peer = %client, "cannot go on with a client that was to rest: {error}");
        None
    };
    let resting = session.into_resting().map_err(awake)?;
    let Err(restless) = shared.lot.take_in(resting) else {
        return Ok(());
    };
    match restless.resume(&shared) {
        Ok(session) => Err(Some(Box::new(session))),
        Err(error) => Err(awake(error)),
    }
}

/// What wakes a client without a task.
struct Bell {
    lot: Arc<Lot>,
    id: u64,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.lot.rouse(self.id);
    }
}

/// Makes a task for a client in the thread that has a place for it, which is this one.
fn resume(shared: &Arc<Shared>, id: u64) {
    let Some(resting) = shared.lot.let_go(id) else {
        return shared.workers.leave();
    };
    let client = Arc::clone(&resting.client);
    client.state().told_to_rest = false;
    serve::go_on_here(shared, &client, resting.resume(shared));
}

/// Sends clients to rest that have been idle for long.
pub(crate) fn look(shared: &Shared, now: Instant) {
    let idle = shared.clients.iter();
    let idle = idle.filter(|client| client.mark_to_rest(now, REST_AFTER));
    idle.take(AT_A_TIME)
        .for_each(|client| client.order(TaskOrder::Rest));
}
