//! What a client has of its ear: its [`Subscription`], and the [`Subscriber`] in which the ear keeps what comes
//! for it until its task takes it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use pgweir_session::{Channels, Mark};
use pgweir_wire::{HEADER_LEN, Header, Reader};

use super::{Ear, State, find_or_open};
use crate::clients::client::{Client, TaskOrder};
use crate::clients::farewell::Farewell;
use crate::servers::server::ServerInfo;
use crate::shared::{PoolHome, Shared, lock};

/// A client, as its ear knows it.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) client: Arc<Client>,
    /// `listen_buffer`
    bound: usize,
    has_notifications: AtomicBool,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// NotificationResponse messages.
    messages: BytesMut,
    join: Join,
    /// More has come than is kept.
    is_over: bool,
}

/// How far a client has come to be listened for.
#[derive(Debug, Default)]
pub(crate) enum Join {
    /// It has asked for nothing.
    #[default]
    None,
    /// It has asked.
    Asked,
    /// The ear listens: the mark may be sent.
    Ready(Mark),
    /// It does not.
    Failed(String),
}

/// A client's hold on its ear.
#[derive(Debug)]
pub(crate) struct Subscription {
    ear: Arc<Ear>,
    subscriber: Arc<Subscriber>,
    /// What it has asked for last.
    joining: Channels,
}

/// Who wants to be listened for.
pub(crate) struct Wish<'a> {
    pub(crate) home: &'a Arc<PoolHome>,
    pub(crate) client: &'a Arc<Client>,
    pub(crate) bound: usize,
    /// Its `client_encoding`.
    pub(crate) encoding: Option<&'a Arc<str>>,
}

/// Subscribes a client that listens to nothing yet; its task will be notified.
///
/// # Errors
/// Why it has to keep its server.
pub(crate) fn subscribe(
    shared: &Arc<Shared>,
    wish: &Wish<'_>,
    channels: Channels,
) -> Result<Subscription, String> {
    let ear = find_or_open(shared, wish)?;
    let mut subscription = Subscription {
        subscriber: Arc::new(Subscriber::new(wish.client, wish.bound)),
        ear,
        joining: Channels::new(),
    };
    subscription.join(wish, channels)?;
    Ok(subscription)
}

impl Subscriber {
    fn new(client: &Arc<Client>, bound: usize) -> Self {
        Self {
            client: Arc::clone(client),
            bound,
            has_notifications: AtomicBool::new(false),
            kept: Mutex::default(),
        }
    }

    pub(super) fn set_join(&self, join: Join) {
        lock(&self.kept).join = join;
        self.client.order_once(TaskOrder::MoveOn);
    }

    /// Keeps a message for the client. `false`: it has to end, because it does not read.
    pub(super) fn push(&self, message: &[u8]) -> bool {
        let mut kept = lock(&self.kept);
        if kept.is_over {
            return true;
        }
        if kept.messages.len() + message.len() > self.bound {
            kept.is_over = true;
            kept.messages = BytesMut::new();
            drop(kept);
            self.client.end(Farewell::NotReading);
            return false;
        }
        kept.messages.extend_from_slice(message);
        self.has_notifications.store(true, Ordering::Release);
        drop(kept);
        self.client.order_once(TaskOrder::MoveOn);
        true
    }

    /// How much it has not taken yet.
    pub(super) fn kept_bytes(&self) -> u64 {
        lock(&self.kept).messages.len() as u64
    }
}

impl Subscription {
    /// For a client that another process has listened for.
    pub(crate) fn adopted(
        ear: &Arc<Ear>,
        client: &Arc<Client>,
        bound: usize,
        channels: &Channels,
        messages: &[u8],
    ) -> Self {
        let subscriber = Arc::new(Subscriber::new(client, bound));
        lock(&subscriber.kept).messages.extend_from_slice(messages);
        let has_some = !messages.is_empty();
        subscriber
            .has_notifications
            .store(has_some, Ordering::Release);
        let mut book = ear.book();
        book.board.note_listening(client.id, &subscriber, channels);
        drop(book);
        Self {
            ear: Arc::clone(ear),
            subscriber,
            joining: Channels::new(),
        }
    }

    /// Asks for more channels; the client's task will be notified.
    ///
    /// # Errors
    /// Why it has to keep its server.
    pub(crate) fn join(&mut self, wish: &Wish<'_>, channels: Channels) -> Result<(), String> {
        if self.ear.encoding.as_ref() != wish.encoding {
            return Err("it has another client_encoding than others that listen".to_owned());
        }
        let mut book = self.ear.book();
        match book.state {
            State::Opening | State::Open if book.order.is_none() => {}
            State::Opening | State::Open | State::Held | State::Closed => {
                return Err("the connection is being closed".to_owned());
            }
        }
        self.joining = channels.clone();
        lock(&self.subscriber.kept).join = Join::Asked;
        book.last_token += 1;
        let (token, client) = (book.last_token, self.subscriber.client.id);
        let who = Arc::clone(&self.subscriber);
        book.board.join(token, client, who, channels);
        book.unused_since = None;
        drop(book);
        self.ear.ring();
        Ok(())
    }

    /// How far that has come; told once.
    pub(crate) fn take_join(&self) -> Join {
        let mut kept = lock(&self.subscriber.kept);
        match kept.join {
            Join::None | Join::Asked => Join::None,
            Join::Ready(_) | Join::Failed(_) => std::mem::take(&mut kept.join),
        }
    }

    /// What was asked for last.
    pub(crate) fn joining(&self) -> &Channels {
        &self.joining
    }

    /// The mark has come: all that was asked for is heard here.
    pub(crate) fn note_joined(&mut self) {
        self.joining = Channels::new();
    }

    /// What was asked for is not wanted any more.
    pub(crate) fn give_up(&mut self) {
        let joining = std::mem::take(&mut self.joining);
        let client = self.subscriber.client.id;
        self.ear.book().board.give_up(client);
        // The mark may have come there.
        self.leave(&joining);
        self.ear.ring();
    }

    /// The client does not listen to these any more, and is not told what has come for them.
    pub(crate) fn leave(&self, channels: &Channels) {
        if channels.is_empty() {
            return;
        }
        self.ear
            .book()
            .board
            .leave(self.subscriber.client.id, channels);
        let mut kept = lock(&self.subscriber.kept);
        kept.messages = without(&kept.messages, channels);
        drop(kept);
        self.ear.ring();
    }

    /// Whether its ear is where this server is.
    pub(crate) fn is_beside(&self, server: &ServerInfo) -> bool {
        let book = self.ear.book();
        let own = book.server.as_ref();
        own.is_some_and(|(_, own)| own.target == server.target)
    }

    #[inline]
    pub(crate) fn has_notifications(&self) -> bool {
        self.subscriber.has_notifications.load(Ordering::Acquire)
    }

    /// Takes the messages that have come.
    pub(crate) fn take(&self) -> BytesMut {
        let mut kept = lock(&self.subscriber.kept);
        self.subscriber
            .has_notifications
            .store(false, Ordering::Release);
        std::mem::take(&mut kept.messages)
    }

    /// The messages that have come, which stay.
    pub(crate) fn messages(&self) -> Vec<u8> {
        lock(&self.subscriber.kept).messages.to_vec()
    }

    pub(crate) fn ear(&self) -> &Arc<Ear> {
        &self.ear
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.ear.book().board.forget(self.subscriber.client.id);
        self.ear.ring();
    }
}

/// NotificationResponse messages but for those of some channels.
fn without(messages: &[u8], channels: &Channels) -> BytesMut {
    let (mut left, mut rest) = (BytesMut::new(), messages);
    while let Ok(Some((_, body))) = Header::whole(rest, u32::MAX) {
        let (message, others) = rest.split_at(HEADER_LEN + body.len());
        let mut reader = Reader::new(body);
        let channel = reader.i32().and_then(|_| reader.string());
        let channel = channel.ok().and_then(|name| std::str::from_utf8(name).ok());
        if !channel.is_some_and(|channel| channels.contains(channel)) {
            left.extend_from_slice(message);
        }
        rest = others;
    }
    left
}
