//! Orders to a client's task that are no more than a word. Each stands until the task takes it.

use super::Client;

/// What a client's task can be told in a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum TaskOrder {
    /// To end as soon as the client is between two transactions. Nobody takes it back.
    EndBetweenTransactions = 1,
    /// To give up the server that stays with the client as soon as it is between two transactions: it is needed
    /// elsewhere.
    LetGo = 1 << 1,
    /// To look again at what the client has sent.
    LookAgain = 1 << 2,
    /// Something has happened where the client listens. That can wait while the session is put down.
    MoveOn = 1 << 3,
    /// Its login leads elsewhere now. That can wait while the session is put down.
    Reroute = 1 << 4,
    /// To rest if nothing stands in its way, because it has been idle for long. Of no interest while the session is
    /// put down.
    Rest = 1 << 5,
    /// To ask for no server: one stands in for the client, and it is not known yet whether that is ended in its
    /// place.
    StandBack = 1 << 6,
    /// To go on in another thread, which has fewer clients, as soon as the client is between two transactions. Of no
    /// interest while the session is put down.
    ChangeThread = 1 << 7,
}

/// Those that have come and were not taken yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TaskOrders(u8);

/// Done at once wherever the client is.
const AT_ONCE: u8 = TaskOrder::LookAgain as u8;

/// Done at once between two transactions.
const BETWEEN_TRANSACTIONS: u8 = TaskOrder::EndBetweenTransactions as u8 | TaskOrder::LetGo as u8;

impl TaskOrders {
    /// Whether there is one that is done at once where the client is.
    pub(super) fn call(self, between_transactions: bool) -> bool {
        let at_once = match between_transactions {
            true => AT_ONCE | BETWEEN_TRANSACTIONS,
            false => AT_ONCE,
        };
        self.0 & at_once != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn has(self, order: TaskOrder) -> bool {
        self.0 & order as u8 != 0
    }

    fn add(&mut self, order: TaskOrder) {
        self.0 |= order as u8;
    }

    /// Whether it was there.
    fn take(&mut self, order: TaskOrder) -> bool {
        let was_there = self.has(order);
        self.0 &= !(order as u8);
        was_there
    }
}

impl Client {
    /// Gives the task an order.
    pub(crate) fn order(&self, order: TaskOrder) {
        let mut mailbox = self.mailbox();
        mailbox.orders.add(order);
        self.ring(mailbox);
    }

    /// The same where it is said again and again: the task is woken once.
    pub(crate) fn order_once(&self, order: TaskOrder) {
        let mut mailbox = self.mailbox();
        if !mailbox.orders.has(order) {
            mailbox.orders.add(order);
            self.ring(mailbox);
        }
    }

    /// Whether the task has been given an order that it has not taken.
    pub(crate) fn has_order(&self, order: TaskOrder) -> bool {
        self.mailbox().orders.has(order)
    }

    /// Takes an order, or calls it off. Whether it was there.
    pub(crate) fn take_order(&self, order: TaskOrder) -> bool {
        self.take(|mailbox| mailbox.orders.take(order))
    }

    /// A server begins to stand in for it, or has done so: meanwhile it asks for none.
    pub(crate) fn stand_in(&self, begins: bool) {
        let mut mailbox = self.mailbox();
        match begins {
            true => mailbox.orders.add(TaskOrder::StandBack),
            false => {
                mailbox.orders.take(TaskOrder::StandBack);
            }
        }
        self.ring(mailbox);
    }

    /// Whether a server stands in for it.
    pub(crate) fn is_stood_in(&self) -> bool {
        self.take(|mailbox| mailbox.orders.has(TaskOrder::StandBack))
    }
}
