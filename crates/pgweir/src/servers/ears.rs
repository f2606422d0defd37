//! Ears: for each database in which clients have executed LISTEN outside session pooling, one connection
//! that listens for all of them. It is a server like any other to the budget, beyond `pool_size`, which
//! is for clients.
//!
//! [`Board`] decides what it listens to and for whom; [`run`](run::run) is its task. A client's task holds
//! a [`Subscription`], and ends it by dropping it. What comes for a client is kept in its [`Subscriber`]
//! until the client's task takes it, up to `listen_buffer`.

pub(crate) mod run;
mod subscription;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pgweir_console::tables::ListenerRow;
use pgweir_pool::SlotId;
use pgweir_session::Board;
use pgweir_session::channels::MARKS;
use tokio::sync::Notify;

use crate::clients::client::Lease;
use crate::clients::credentials;
use crate::clients::farewell::Farewell;
use crate::servers::server::ServerInfo;
use crate::settings::limits;
use crate::shared::{PoolHome, Shared, Shutdown, lock};

use self::subscription::Subscriber;
pub(crate) use self::subscription::{Join, Subscription, Wish, subscribe};

/// How long it stays open when nobody listens any more.
const UNUSED_FOR: Duration = Duration::from_secs(10);

/// Those that are there, by database, and when one could not be opened.
#[derive(Debug, Default)]
pub(crate) struct Ears {
    all: BTreeMap<Arc<str>, Arc<Ear>>,
    failed: BTreeMap<Arc<str>, Instant>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Ear {
    /// The pool whose user it is logged in as: that of the first client.
    pub(crate) home: Arc<PoolHome>,
    /// The `client_encoding` in which it hears.
    pub(crate) encoding: Option<Arc<str>>,
    since: Instant,
    book: Mutex<Book>,
    /// Rung for its task alone.
    changed: Notify,
    /// The connection, while everything is held.
    parked: Mutex<Option<Lease>>,
}

#[derive(Debug)]
struct Book {
    board: Board<Arc<Subscriber>>,
    state: State,
    last_token: u64,
    server: Option<(SlotId, Arc<ServerInfo>)>,
    /// Why it is to end.
    order: Option<Arc<str>>,
    unused_since: Option<Instant>,
    delivered: u64,
    ended: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Opening,
    Open,
    /// Everything is held.
    Held,
    Closed,
}

/// The one of a client's database, opened if it is not there.
fn find_or_open(shared: &Arc<Shared>, wish: &Wish<'_>) -> Result<Arc<Ear>, String> {
    let rules = wish.home.rules();
    if limits::hosts(&rules).len() > 1 {
        return Err("the database has several hosts".to_owned());
    }
    let database = &wish.home.name.database;
    let mut ears = lock(&shared.ears);
    if let Some(ear) = ears.all.get(database)
        && ear.book().state != State::Closed
    {
        return Ok(Arc::clone(ear));
    }
    let again = rules.config.global.server_login_retry.duration();
    if ears
        .failed
        .get(database)
        .is_some_and(|at| at.elapsed() < again)
    {
        return Err("no connection could be opened lately".to_owned());
    }
    let marks = u128::from_ne_bytes(credentials::random());
    let marks = format!("{MARKS}{marks:032x}");
    let home = Arc::clone(wish.home);
    let ear = Arc::new(Ear::new(home, wish.encoding.cloned(), marks.into()));
    ears.all.insert(Arc::clone(database), Arc::clone(&ear));
    tokio::spawn(run::run(Arc::clone(shared), Arc::clone(&ear)));
    Ok(ear)
}

impl Ear {
    fn new(home: Arc<PoolHome>, encoding: Option<Arc<str>>, marks: Arc<str>) -> Self {
        Self {
            home,
            encoding,
            since: Instant::now(),
            book: Mutex::new(Book {
                board: Board::new(marks),
                state: State::Opening,
                last_token: 0,
                server: None,
                order: None,
                unused_since: None,
                delivered: 0,
                ended: 0,
            }),
            changed: Notify::new(),
            parked: Mutex::new(None),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// The channel of its marks, and those that it listens to.
    pub(crate) fn hears(&self) -> (Arc<str>, Vec<Arc<str>>) {
        let book = self.book();
        let channels = book.board.channels().map(Arc::clone).collect();
        (Arc::clone(book.board.marks()), channels)
    }

    /// Whether nothing of it can be told to another process.
    pub(crate) fn is_encrypted(&self) -> bool {
        let book = self.book();
        let server = book.server.as_ref();
        server.is_none_or(|(_, info)| info.tls.get().is_some())
    }

    /// Lets its task look at what has changed.
    pub(crate) fn ring(&self) {
        self.changed.notify_one();
    }

    fn end(&self, why: &str) {
        self.book().order.get_or_insert_with(|| why.into());
        self.ring();
    }

    /// Nobody hears anything by it any more. Who depended on it ends, because something may be lost; who has
    /// only asked is told that there is none.
    fn close(&self, why: &str) {
        let (depending, asking) = {
            let mut book = self.book();
            book.state = State::Closed;
            book.board.everybody()
        };
        for subscriber in depending {
            subscriber.client.end(Farewell::NotHeard(why.into()));
        }
        for subscriber in asking {
            subscriber.set_join(Join::Failed(why.to_owned()));
        }
    }
}

/// Ends those that are not needed any more, or stand in the way of an order.
pub(crate) fn look_after(shared: &Shared) {
    let ears: Vec<_> = lock(&shared.ears).all.values().map(Arc::clone).collect();
    let shutdown = shared.operator.shutdown();
    for ear in ears {
        let (slot, unused_since) = {
            let mut book = ear.book();
            let unused_since = match book.board.is_empty() {
                true => Some(*book.unused_since.get_or_insert_with(Instant::now)),
                false => None,
            };
            book.unused_since = unused_since;
            (book.server.as_ref().map(|(slot, _)| *slot), unused_since)
        };
        let (lends, is_obsolete) = {
            let pools = shared.pools();
            let is_obsolete = slot.is_some_and(|slot| pools.is_obsolete(slot));
            (pools.lends(ear.home.id), is_obsolete)
        };
        if !lends || shutdown == Shutdown::WaitForServers {
            ear.end("the database is being paused");
        } else if is_obsolete {
            ear.end("the connection to PostgreSQL is replaced");
        } else if unused_since.is_some_and(|since| since.elapsed() >= UNUSED_FOR) {
            ear.end("nobody listens");
        }
    }
}

/// Everything is to be held still, or goes on.
pub(crate) fn ring_all(shared: &Shared) {
    lock(&shared.ears).all.values().for_each(|ear| ear.ring());
}

/// How many connections are put down.
pub(crate) fn held(shared: &Shared) -> usize {
    let ears = lock(&shared.ears);
    let held = ears.all.values();
    held.filter(|ear| lock(&ear.parked).is_some()).count()
}

/// Takes what is put down, to describe it; [`put_back`] follows.
pub(crate) fn lend(shared: &Shared) -> Vec<(Arc<Ear>, Lease)> {
    let ears = lock(&shared.ears);
    let held = ears.all.values();
    held.filter_map(|ear| Some((Arc::clone(ear), lock(&ear.parked).take()?)))
        .collect()
}

pub(crate) fn put_back(lent: Vec<(Arc<Ear>, Lease)>) {
    for (ear, lease) in lent {
        *lock(&ear.parked) = Some(lease);
        ear.ring();
    }
}

/// One that another process has had, with the channels that it listens to. [`run::listen_on`] follows.
pub(crate) fn adopt(
    shared: &Shared,
    home: &Arc<PoolHome>,
    encoding: Option<Arc<str>>,
    marks: Arc<str>,
    channels: impl IntoIterator<Item = Arc<str>>,
) -> Arc<Ear> {
    let ear = Arc::new(Ear::new(Arc::clone(home), encoding, marks));
    {
        let mut book = ear.book();
        channels
            .into_iter()
            .for_each(|channel| book.board.note_heard(&channel));
    }
    let database = Arc::clone(&home.name.database);
    lock(&shared.ears).all.insert(database, Arc::clone(&ear));
    ear
}

/// The one of a database.
pub(crate) fn find(shared: &Shared, database: &str) -> Option<Arc<Ear>> {
    lock(&shared.ears).all.get(database).map(Arc::clone)
}

/// SHOW LISTENERS.
pub(crate) fn rows(shared: &Shared) -> Vec<ListenerRow> {
    let ears: Vec<_> = lock(&shared.ears).all.values().map(Arc::clone).collect();
    let row = |ear: &Arc<Ear>| {
        let book = ear.book();
        let (depending, _) = book.board.everybody();
        let kept = |subscriber: &Arc<Subscriber>| subscriber.kept_bytes();
        ListenerRow {
            database: Arc::clone(&ear.home.name.database),
            user: Arc::clone(&ear.home.name.user),
            state: match (book.state, book.order.is_some()) {
                (State::Closed, _) | (_, true) => "closing",
                (State::Opening, _) => "opening",
                (State::Open | State::Held, _) if book.board.is_empty() => "idle",
                (State::Open | State::Held, _) => "open",
            },
            server_pid: book
                .server
                .as_ref()
                .map_or(0, |(_, info)| info.process_id()),
            channels: u32::try_from(book.board.channels().count()).unwrap_or(u32::MAX),
            clients: u32::try_from(book.board.client_count()).unwrap_or(u32::MAX),
            delivered: book.delivered,
            buffered: depending.iter().map(kept).sum(),
            ended: book.ended,
            open_ms: u64::try_from(ear.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    };
    ears.iter().map(row).collect()
}
