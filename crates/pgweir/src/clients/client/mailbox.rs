//! How a client's task is told something. It has one mailbox with a place for each kind of news; whoever puts
//! something there rings, and the task looks at each of its turns whether there may be something.

mod orders;
mod suspicion;

use std::sync::MutexGuard;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use pgweir_pool::{Cause, Refusal};

pub(crate) use self::orders::TaskOrder;
use self::orders::TaskOrders;
pub(crate) use self::suspicion::Remedy;
use self::suspicion::SuspectMail;
use super::Client;
use crate::clients::farewell::Farewell;
use crate::process::workers;
use crate::servers::server::Server;
use crate::shared::lock;
use crate::takeover::hold::HoldAt;

/// A server on its way to, or held by, a client.
pub(crate) type Lease = pgweir_pool::Lease<Box<Server>>;

/// What others tell a client's task.
#[derive(Debug)]
pub(crate) enum Mail {
    /// The server it waits for.
    Lease(Lease),
    /// Its pool has had a login.
    Greet,
    /// It gets no server.
    Refused(Box<Refusal>),
}

/// What others have told a client's task, and it has not taken yet.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    waker: Option<Waker>,
    mail: Option<Mail>,
    /// What the wait for it is put down to.
    cause: Option<Cause>,
    /// The first order to end counts.
    end: Option<Box<Farewell>>,
    orders: TaskOrders,
    /// Nobody waits for the next mail any more: who brings it takes it back.
    returns_next: bool,
    /// Orders for somebody who waits.
    wait: Option<WaitOrders>,
    /// It may be a leak suspect. Kept apart, because that is rare.
    suspect: Option<Box<SuspectMail>>,
    /// Stands until it is taken back.
    hold: Option<HoldAt>,
}

/// What a client that waits is to do. It is for one request: an order that comes too late must not
/// hit the next one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WaitOrders {
    request: u32,
    /// To tell its client that it waits.
    pub(crate) notice: bool,
    /// To stop waiting.
    pub(crate) canceled: bool,
}

/// Where a client is, as far as that decides what its task can do at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Between two transactions.
    pub(crate) between_transactions: bool,
    /// In a queue.
    pub(crate) waits: bool,
}

impl Mailbox {
    /// The orders for a request, which replace those for an earlier one.
    fn wait_orders(&mut self, request: u32) -> &mut WaitOrders {
        let orders = self.wait.get_or_insert_default();
        if orders.request != request {
            *orders = WaitOrders {
                request,
                ..WaitOrders::default()
            };
        }
        orders
    }

    /// Whether there is something besides the order to hold that is done at once where the client is. What cannot
    /// be stays here, and must not wake a task that has put its session down.
    fn calls(&self, standing: Standing) -> bool {
        let suspect = self.suspect.as_ref();
        self.end.is_some()
            || self.orders.call(standing.between_transactions)
            || suspect.is_some_and(|mail| mail.calls())
            || (standing.waits && (self.mail.is_some() || self.wait.is_some()))
    }

    fn is_empty(&self) -> bool {
        let anywhere = Standing {
            between_transactions: true,
            waits: true,
        };
        !self.calls(anywhere) && self.orders.is_empty() && self.hold.is_none()
    }
}

impl Client {
    /// Remembers which task to wake, and that it runs in this thread. A task keeps its waker for life.
    pub(crate) fn attach(&self, waker: &Waker) {
        self.thread.store(workers::here(), Ordering::Relaxed);
        self.mailbox().waker = Some(waker.clone());
    }

    /// The same for the task that runs this.
    pub(crate) async fn attach_here(&self) {
        std::future::poll_fn(|cx| {
            self.attach(cx.waker());
            Poll::Ready(())
        })
        .await;
    }

    /// Gives the task something it waits for; comes back if it does not wait any more.
    #[must_use]
    pub(crate) fn deliver(&self, mail: Mail, cause: Option<Cause>) -> Option<Mail> {
        let mut mailbox = self.mailbox();
        if std::mem::take(&mut mailbox.returns_next) {
            return Some(mail);
        }
        debug_assert!(
            mailbox.mail.is_none(),
            "a client waits for one thing at a time"
        );
        mailbox.mail = Some(mail);
        mailbox.cause = cause;
        self.ring(mailbox);
        None
    }

    /// The task does not want the mail that is on its way, or here already.
    pub(crate) fn decline_mail(&self) -> Option<Mail> {
        self.take(|mailbox| {
            let mail = mailbox.mail.take();
            mailbox.returns_next = mail.is_none();
            mail
        })
    }

    /// Tells the task to end.
    pub(crate) fn end(&self, farewell: Farewell) {
        let mut mailbox = self.mailbox();
        mailbox.end.get_or_insert_with(|| Box::new(farewell));
        self.ring(mailbox);
    }

    /// Tells the waiting task that its query is not wanted any more.
    pub(crate) fn cancel_wait(&self, request: u32) {
        let mut mailbox = self.mailbox();
        mailbox.wait_orders(request).canceled = true;
        self.ring(mailbox);
    }

    /// Tells the waiting task to tell its client that it waits.
    pub(crate) fn notify_wait(&self, request: u32) {
        let mut mailbox = self.mailbox();
        mailbox.wait_orders(request).notice = true;
        self.ring(mailbox);
    }

    /// Tells the task to put its session down. Stands until [`Self::release`].
    pub(crate) fn hold(&self, at: HoldAt) {
        let mut mailbox = self.mailbox();
        if mailbox.hold != Some(at) {
            mailbox.hold = Some(at);
            self.ring(mailbox);
        }
    }

    /// The task may go on.
    pub(crate) fn release(&self) {
        let mut mailbox = self.mailbox();
        if mailbox.hold.take().is_some() {
            self.ring(mailbox);
        }
    }

    /// Whether the task is to put its session down, and where.
    pub(crate) fn hold_order(&self) -> Option<HoldAt> {
        self.mailbox().hold
    }

    /// Whether something has come, besides the order to hold, that is done at once where the client is.
    pub(crate) fn is_called(&self, standing: Standing) -> bool {
        self.mailbox().calls(standing)
    }

    /// Resolves when something like that comes. For the client's own task.
    pub(crate) async fn called(&self, standing: Standing) {
        std::future::poll_fn(|_| match self.is_called(standing) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Resolves when somebody has told the client to end. For the client's own task.
    pub(crate) async fn ordered_to_end(&self) -> Farewell {
        std::future::poll_fn(
            |_| match self.has_mail().then(|| self.take_end()).flatten() {
                Some(farewell) => Poll::Ready(farewell),
                None => Poll::Pending,
            },
        )
        .await
    }

    /// Whether there may be something in the mailbox. Cheap enough to ask at every turn.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.has_mail.load(Ordering::Acquire)
    }

    /// The order to end, if there is one.
    pub(crate) fn take_end(&self) -> Option<Farewell> {
        self.take(|mailbox| mailbox.end.take())
            .map(|farewell| *farewell)
    }

    /// The thing waited for, if it is there, and what the wait is put down to.
    pub(crate) fn take_mail(&self) -> Option<(Mail, Option<Cause>)> {
        self.take(|mailbox| Some((mailbox.mail.take()?, mailbox.cause.take())))
    }

    /// What it is to do for its present request.
    pub(crate) fn take_wait_orders(&self) -> WaitOrders {
        let request = self.state().request;
        let orders = self.take(|mailbox| mailbox.wait.take());
        orders
            .filter(|orders| orders.request == request)
            .unwrap_or_default()
    }

    /// What its client has canceled while the pooler asked for itself has not begun.
    pub(crate) fn drop_wait_orders(&self) {
        let _ = self.take_wait_orders();
    }

    fn ring(&self, mailbox: MutexGuard<'_, Mailbox>) {
        self.has_mail.store(true, Ordering::Release);
        let waker = mailbox.waker.clone();
        drop(mailbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn take<T>(&self, f: impl FnOnce(&mut Mailbox) -> T) -> T {
        let mut mailbox = self.mailbox();
        let taken = f(&mut mailbox);
        self.has_mail.store(!mailbox.is_empty(), Ordering::Release);
        taken
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox> {
        lock(&self.mailbox)
    }
}
