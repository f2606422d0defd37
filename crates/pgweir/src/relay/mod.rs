//! A logged-in client: idle, waiting, or holding a server. The way of every query.
//!
//! Hot path. One task polls the client, its server and its mailbox; [`pgweir_session::Relay`] says
//! what to do with the bytes. A query on a free server is two reads and two writes; what several
//! tasks write leaves with one system call (`net::outbox`). Nothing is allocated, and the clock is read when a query
//! begins and when it ends.
//!
//! Load-bearing rules:
//! 1. Nothing of a batch is given to a server before the server is checked out for all of it.
//! 2. What a peer does not take is kept in its [`Buffered`]; while there is something kept for one
//!    side, the other side is not read; nor is the client while its server has too much to answer first
//!    ([`pgweir_session::Relay::is_full`]).
//! 3. A server leaves through `release`, `replace_server`, `take_transaction`, `into_server` or [`Session::into_remains`],
//!    never by `Drop`.
//! 4. A session that is put down (`holding`) is nowhere else: nobody reads or writes its sockets.

mod apart;
mod changing;
mod holding;
mod leased;
mod lending;
mod listening;
mod preparing;
mod rerouting;
mod resting;
mod taken;
mod treating;
mod waiting;

use std::cell::RefCell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use pgweir_config::ErrorCodes;
use pgweir_net::Buffered;
use pgweir_net::buffer::SCRATCH_LEN;
use pgweir_pool::{Party, Ticket};
use pgweir_session::{ClientSide, Gather, SkipBatch};
use pgweir_stats::Application;
use pgweir_wire::TransactionStatus;

use crate::clients::client::{Client, TaskOrder};
use crate::clients::farewell::Farewell;
use crate::relay::leased::Held;
use crate::relay::taken::Taken;
use crate::servers::ears::Subscription;
use crate::servers::{pins, pools, reset};
use crate::shared::{Route, Shared};
use crate::watch::leaks::SpokenWords;
use crate::watch::{consumers, strict};

/// What a thread needs to move bytes; shared by all its clients.
struct Desk {
    scratch: Box<[u8]>,
    to_server: Gather,
    to_client: Gather,
    fakes: BytesMut,
}

thread_local! {
    static DESK: RefCell<Desk> = RefCell::new(Desk {
        scratch: vec![0; SCRATCH_LEN].into_boxed_slice(),
        to_server: Gather::default(),
        to_client: Gather::default(),
        fakes: BytesMut::new(),
    });
}

pub(crate) use self::holding::Unanswered;
pub(crate) use self::resting::Resting;

/// A client that is logged in.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) client: Arc<Client>,
    pub(crate) route: Arc<Route>,
    pub(crate) line: Buffered,
    side: ClientSide,
    /// What its times are recorded in beside its pool.
    application: Arc<Application>,
    /// In which minute since its client came its application was looked up.
    looked_up: u32,
    /// Who is charged for its leases.
    party: Option<Party>,
    place: Place,
    /// Where it listens without a server.
    subscription: Option<Box<Subscription>>,
    /// Whether it is to come to a halt at the end of the frames that are under way.
    braking: bool,
}

/// Why a session stops to be served here.
pub(crate) enum Stop {
    /// It has ended.
    Ended(Farewell),
    /// It is to be put down, and may go on later.
    Held,
    /// It has been idle for long, and needs no task until something happens.
    Rests,
    /// It is to go on in another thread.
    ChangesThread,
}

/// Where a client is.
enum Place {
    /// It has asked nothing.
    Idle,
    /// It waits for a server; what it asked is kept unread.
    Waiting(Ticket),
    /// It gets no server: what it asked is passed over, then it is told that it may ask again, and
    /// what state its transaction is in.
    Skipping(SkipBatch, TransactionStatus),
    /// Its transaction was ended without it; the next batch is answered with an error.
    Taken(Taken),
    /// It has asked nothing since something was found; the next batch is answered with this error.
    Owing(Box<[u8]>),
    /// It has a server.
    Leased(Held),
}

impl Place {
    fn held(&self) -> Option<&Held> {
        match self {
            Self::Leased(held) => Some(held),
            Self::Idle
            | Self::Waiting(_)
            | Self::Skipping(..)
            | Self::Taken(_)
            | Self::Owing(_) => None,
        }
    }
}

/// What remains of a session.
pub(crate) struct Remains {
    pub(crate) line: Buffered,
    /// Whether the client can still be told something: it is not in the middle of a message.
    pub(crate) can_be_told: bool,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        client: Arc<Client>,
        route: Arc<Route>,
        line: Buffered,
        side: ClientSide,
        party: Option<Party>,
    ) -> Self {
        let now = Instant::now();
        let application = shared.application(&client, now);
        Self {
            looked_up: client.minute(now),
            shared,
            client,
            route,
            line,
            side,
            application,
            party,
            place: Place::Idle,
            subscription: None,
            braking: false,
        }
    }

    /// Its client may have another name now, or the name a place among those that have something of their own.
    #[cold]
    fn find_application(&mut self, now: Instant) {
        self.looked_up = self.client.minute(now);
        self.application = self.shared.application(&self.client, now);
    }

    /// Serves the client until it ends or is to be put down.
    pub(crate) async fn run(&mut self) -> Stop {
        poll_fn(|cx| DESK.with_borrow_mut(|desk| self.poll(cx, desk))).await
    }

    fn poll(&mut self, cx: &mut Context<'_>, desk: &mut Desk) -> Poll<Stop> {
        loop {
            if self.client.has_mail() || self.braking {
                if let Some(stop) = self.obey() {
                    return Poll::Ready(stop);
                }
                if matches!(self.place, Place::Idle) && self.client.is_stood_in() {
                    return Poll::Pending;
                }
            }
            let step = match &self.place {
                Place::Idle => self.poll_idle(cx, desk),
                Place::Waiting(ticket) => {
                    let ticket = *ticket;
                    self.poll_waiting(cx, desk, ticket)
                }
                Place::Skipping(..) => self.poll_skipping(cx, desk),
                Place::Taken(taken) => {
                    let taken = taken.clone();
                    self.poll_taken(cx, desk, taken)
                }
                Place::Leased(_) => self.poll_leased(cx, desk),
                Place::Owing(_) => self.poll_owing(cx, desk),
            };
            match step {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(farewell)) => return Poll::Ready(Stop::Ended(farewell)),
                Poll::Pending if self.client.has_mail() && self.follow_hold_order() => {
                    return Poll::Ready(Stop::Held);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Somebody wants to know what the client has asked of the server that it holds.
    #[cold]
    fn answer_inquiry(&self) {
        if let Place::Leased(held) = &self.place {
            let (spoken, work) = (held.server.relay.spoken(), &held.server.work);
            self.client.answer_inquiry(SpokenWords {
                first: spoken.first().to_vec(),
                last: spoken.last().to_vec(),
                print: spoken.print(),
                query: work.query_start,
                moved: work.moved,
            });
        }
    }

    /// Does what others have ordered: to end, or to stop for a while.
    fn obey(&mut self) -> Option<Stop> {
        if self.client.take_inquiry() {
            self.answer_inquiry();
        }
        if self.client.take_order(TaskOrder::LookAgain) {
            self.line.offer_unread();
        }
        if self.client.take_order(TaskOrder::MoveOn) {
            self.move_on();
        }
        if self.client.take_order(TaskOrder::Reroute) {
            self.wait_elsewhere();
        }
        if let Some(how) = self.client.take_remedy() {
            self.remedy(how);
        }
        if let Some(farewell) = self.order_to_end() {
            return Some(Stop::Ended(farewell));
        }
        if self.client.has_order(TaskOrder::LetGo) {
            self.let_go();
        }
        if self.take_rest_order() {
            return Some(Stop::Rests);
        }
        if self.take_change_order() {
            return Some(Stop::ChangesThread);
        }
        self.follow_hold_order().then_some(Stop::Held)
    }

    /// The order to end, if one has come that holds where the client is.
    fn order_to_end(&mut self) -> Option<Farewell> {
        if let Some(farewell) = self.client.take_end()
            && let Err(farewell) = self.end_wait(farewell)
        {
            return Some(farewell);
        }
        let ends = || self.client.has_order(TaskOrder::EndBetweenTransactions);
        (self.is_between_transactions() && ends()).then_some(Farewell::Drained)
    }

    /// Whether its client is between two transactions, or has begun none.
    fn is_between_transactions(&self) -> bool {
        let held = self.place.held();
        held.is_none_or(Held::is_between_transactions)
    }

    /// Ends the session: the server is drained, reset or closed, the place in the queue given up.
    pub(crate) fn into_remains(self: Box<Self>, farewell: &Farewell) -> Remains {
        let Self {
            shared,
            client,
            route,
            mut line,
            application,
            place,
            subscription,
            ..
        } = *self;
        pins::unpin(&route.home, &client);
        client.state().link = None;
        let mut can_be_told = true;
        match place {
            Place::Idle => {
                // What came in time is not lost with what comes after it.
                let said = subscription.map(|subscription| subscription.take());
                line.queue(&said.unwrap_or_default());
            }
            Place::Skipping(..) | Place::Taken(_) | Place::Owing(_) => {}
            Place::Waiting(ticket) => {
                consumers::note_gone(&shared, &client, farewell);
                let since = Some(client.state().clocks.since);
                pools::abandon_wait(&shared, &client, &route.home, ticket, since);
            }
            Place::Leased(mut held) => {
                let relay = &held.server.relay;
                can_be_told = relay.is_between_replies();
                if relay.status() != TransactionStatus::Idle && !held.server.work.is_own {
                    strict::note_abandoned(&shared, &client, farewell, relay.spoken().last());
                }
                let books = route.home.books(&application);
                held.server.work.end_lease(Instant::now(), books);
                held.server.report_tally(&shared, &route.home);
                reset::after_client(&shared, held.slot, held.server, farewell);
            }
        }
        Remains { line, can_be_told }
    }
}

/// Which dialect a client of this route is spoken to in.
pub(crate) fn error_codes(route: Option<&Arc<Route>>, shared: &Shared) -> ErrorCodes {
    match route {
        Some(route) => route.rules().config.global.error_codes,
        None => shared.config().global.error_codes,
    }
}
