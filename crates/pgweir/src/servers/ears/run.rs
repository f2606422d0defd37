//! The task of an ear: opens its connection, asks it to listen, and passes on what comes.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use pgweir_session::params::literal;
use pgweir_session::{ClientSide, Heard, Mark, Rules};
use pgweir_stats::Tally;
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{ErrorFields, HEADER_LEN, Header, Reader};
use tokio::time::timeout;

use super::{Book, Ear, Join, State};
use crate::clients::client::Lease;
use crate::servers::ask;
use crate::servers::close::{self, Busy};
use crate::servers::control;
use crate::servers::server::Server;
use crate::shared::{Hold, Shared, lock};

/// Why the connection is not listened on any more.
enum End {
    /// It is gone.
    Lost(String),
    /// Somebody has said so.
    Ordered(String),
    /// Everything is to be held still.
    Held,
}

/// Opens the connection and listens.
pub(super) async fn run(shared: Arc<Shared>, ear: Arc<Ear>) {
    match open(&shared, &ear).await {
        Ok(lease) => listen_on(shared, ear, lease).await,
        Err(why) => {
            let database = &ear.home.name.database;
            tracing::warn!("no connection can listen in {database} for clients: {why}");
            lock(&shared.ears)
                .failed
                .insert(Arc::clone(database), Instant::now());
            ear.close(&why);
            forget(&shared, &ear);
        }
    }
}

async fn open(shared: &Arc<Shared>, ear: &Ear) -> Result<Lease, String> {
    let mut lease = control::open_for_long(shared, &ear.home).await?;
    let marks = Arc::clone(ear.book().board.marks());
    let encoding = ear.encoding.as_ref();
    let encoding = encoding.map(|name| format!("SET client_encoding TO {};", literal(name)));
    let sql = format!("{}LISTEN {marks}", encoding.unwrap_or_default());
    let rules = Rules::plain(&shared.tracked, &shared.statements);
    let asked = timeout(
        control::patience(shared),
        ask::run(&mut lease.server, &sql, &rules),
    )
    .await;
    if let Err(problem) = asked.unwrap_or_else(|_| Err("no answer to LISTEN".to_owned())) {
        let reason = "it cannot listen";
        close::give_up(shared, lease.slot, lease.server, reason, Busy::Yes);
        return Err(problem);
    }
    Ok(lease)
}

/// Listens on a connection that is open, until it ends.
pub(crate) async fn listen_on(shared: Arc<Shared>, ear: Arc<Ear>, lease: Lease) {
    let Lease {
        slot, mut server, ..
    } = lease;
    {
        let mut book = ear.book();
        book.state = State::Open;
        book.server = Some((slot, Arc::clone(&server.info)));
    }
    let (why, busy) = loop {
        match listen(&shared, &ear, &mut server).await {
            End::Lost(why) => break (why, Busy::Gone),
            End::Ordered(why) => break (why, Busy::No),
            End::Held => {
                let lease = Lease::of(slot, server);
                server = put_down(&shared, &ear, lease).await.server;
            }
        }
    };
    tracing::info!(peer = %server.info, "does not listen for clients any more: {why}");
    ear.close(&why);
    forget(&shared, &ear);
    close::give_up(&shared, slot, server, "it listened for clients", busy);
}

fn forget(shared: &Shared, ear: &Arc<Ear>) {
    let mut ears = lock(&shared.ears);
    let database = &ear.home.name.database;
    if ears
        .all
        .get(database)
        .is_some_and(|there| Arc::ptr_eq(there, ear))
    {
        ears.all.remove(database);
    }
}

/// Waits until everything goes on.
async fn put_down(shared: &Shared, ear: &Ear, lease: Lease) -> Lease {
    *lock(&ear.parked) = Some(lease);
    shared.ended.notify_waiters();
    loop {
        // While it is being described it is not there.
        if shared.operator.hold() != Hold::Suspended
            && let Some(lease) = lock(&ear.parked).take()
        {
            ear.book().state = State::Open;
            return lease;
        }
        ear.changed.notified().await;
    }
}

async fn listen(shared: &Shared, ear: &Ear, server: &mut Server) -> End {
    let rules = Rules {
        backends: Some(shared),
        ..Rules::plain(&shared.tracked, &shared.statements)
    };
    let (mut said, mut last) = (BytesMut::new(), None);
    loop {
        {
            let mut book = ear.book();
            if let Some(why) = &book.order {
                let why = why.to_string();
                // Whoever comes now gets another one.
                book.state = State::Closed;
                return End::Ordered(why);
            }
            if server.relay.is_quiet() {
                book.board.answered();
                if let Some(sql) = book.board.command() {
                    let mut out = BytesMut::new();
                    server.relay.ask(&sql, &mut out);
                    server.line.queue(&out);
                }
                let may_stop = !book.board.is_anybody_joining() && server.relay.is_quiet();
                if may_stop && said.is_empty() && shared.operator.hold() == Hold::Suspended {
                    // Who asks now keeps its server.
                    book.state = State::Held;
                    return End::Held;
                }
            }
            book.tell_ready();
        }
        tokio::select! {
            () = ear.changed.notified() => {}
            heard = hear(server, &rules, &mut said) => {
                last = pass_on(ear, &mut said).or(last);
                if let Err(problem) = heard {
                    return End::Lost(last.unwrap_or(problem));
                }
            }
        }
    }
}

impl Book {
    /// Lets clients send their marks for whom the connection listens by now.
    fn tell_ready(&mut self) {
        for (token, subscriber) in self.board.ready() {
            let channel = Arc::clone(self.board.marks());
            subscriber.set_join(Join::Ready(Mark { channel, token }));
        }
    }
}

/// Reads what the connection says next. Nothing is lost if this is dropped.
async fn hear(server: &mut Server, rules: &Rules<'_>, said: &mut BytesMut) -> Result<(), String> {
    let mut nobody = ClientSide::default();
    poll_fn(|cx| {
        ask::write(server, cx)?;
        match ready!(ask::poll_said(server, &mut nobody, rules, cx, said))? {
            true => Poll::Ready(Ok(())),
            false => Poll::Ready(Err("PostgreSQL has closed the connection".to_owned())),
        }
    })
    .await
}

/// Passes on the whole messages of what was said; the last error among them.
fn pass_on(ear: &Ear, said: &mut BytesMut) -> Option<String> {
    let (mut last, mut delivered) = (None, 0);
    let mut book = ear.book();
    while let Ok(Some((header, body))) = Header::whole(said, u32::MAX) {
        let len = HEADER_LEN + body.len();
        match header.tag {
            tag::NOTIFICATION_RESPONSE => delivered += book.notify(&said[..len]),
            tag::ERROR_RESPONSE => {
                let fields = ErrorFields::parse(body);
                last = Some(String::from_utf8_lossy(fields.message).into_owned());
            }
            _ => {}
        }
        said.advance(len);
    }
    book.delivered += delivered;
    ear.home.totals.add(&mut Tally {
        notification_count: delivered,
        ..Tally::default()
    });
    last
}

impl Book {
    /// Keeps a notification for those that listen to it; how many these are.
    fn notify(&mut self, message: &[u8]) -> u64 {
        let mut reader = Reader::new(&message[HEADER_LEN..]);
        let (Ok(_), Ok(channel), Ok(payload)) = (reader.i32(), reader.string(), reader.string())
        else {
            return 0;
        };
        let Heard::For(subscribers) = self.board.heard(channel, payload) else {
            return 0;
        };
        for subscriber in &subscribers {
            self.ended += u64::from(!subscriber.push(message));
        }
        subscribers.len() as u64
    }
}
