//! What clients listen to that keep no server for it: one connection listens for all of them.
//!
//! [`Board`] is that connection's list: which channels it hears, for whom, and what it has to be asked
//! next. A client comes to it in three steps, so that it misses nothing and hears nothing twice. It
//! [joins](Board::join): the connection begins to listen, and the client still has what its own server
//! hears. When that is [answered](Board::answered), a *mark* is sent through its server, a notification
//! that nobody else listens to. PostgreSQL gives every session its notifications in one order, so
//! what comes before the mark is the server's to tell, and what comes after it is the connection's: the
//! client [is there](Board::heard).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// Names of channels, as the server spells them.
pub type Channels = BTreeSet<Arc<str>>;

/// What the names of channels of marks begin with.
pub const MARKS: &str = "pgweir_marks_";

/// The commands that listen to all of them.
pub fn listen<'a>(channels: impl IntoIterator<Item = &'a Arc<str>>) -> String {
    commands("LISTEN", channels)
}

fn commands<'a>(verb: &str, channels: impl IntoIterator<Item = &'a Arc<str>>) -> String {
    let mut sql = String::new();
    for channel in channels {
        // Writing into a String cannot fail.
        let _ = write!(sql, "{verb} \"{}\";", channel.replace('"', "\"\""));
    }
    sql
}

/// The notification that divides what a server tells its client from what the shared connection tells.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mark {
    /// The channel, which needs no quotes.
    pub channel: Arc<str>,
    /// Which client it is for.
    pub token: u64,
}

impl Mark {
    /// The commands by which a server sends it, to itself as well.
    pub fn sql(&self) -> String {
        let Self { channel, token } = self;
        format!("LISTEN {channel};NOTIFY {channel},'{token}'")
    }

    /// Whether a notification is it.
    pub fn is(&self, channel: &[u8], payload: &[u8]) -> bool {
        channel == self.channel.as_bytes() && payload == self.token.to_string().as_bytes()
    }
}

/// Who listens to what by means of one connection. `S` is a client that can be told something.
#[derive(Debug)]
pub struct Board<S> {
    /// The channel of the marks, which the connection always listens to.
    marks: Arc<str>,
    channels: BTreeMap<Arc<str>, Place<S>>,
    /// By their tokens.
    joining: BTreeMap<u64, Joining<S>>,
    /// What the connection has been asked and has not answered.
    asked: Option<Vec<Arc<str>>>,
}

#[derive(Debug)]
struct Place<S> {
    /// Whether the connection listens to it, surely.
    is_heard: bool,
    /// By their clients' numbers.
    listening: BTreeMap<u64, S>,
    /// How many want to listen to it soon.
    joining: u32,
}

#[derive(Debug)]
struct Joining<S> {
    client: u64,
    who: S,
    channels: Channels,
    is_told: bool,
}

/// What is to be done with a notification.
#[derive(Debug)]
pub enum Heard<S> {
    /// It is for these.
    For(Vec<S>),
    /// It is a mark, or nobody's any more.
    Nobody,
}

impl<S: Clone> Board<S> {
    /// An empty one, of a connection that listens to the channel of marks.
    pub fn new(marks: Arc<str>) -> Self {
        Self {
            marks,
            channels: BTreeMap::new(),
            joining: BTreeMap::new(),
            asked: None,
        }
    }

    /// The channel of the marks.
    pub fn marks(&self) -> &Arc<str> {
        &self.marks
    }

    /// A client wants to be told what comes on these channels. The token is its own.
    pub fn join(&mut self, token: u64, client: u64, who: S, channels: Channels) {
        for channel in &channels {
            self.place(channel).joining += 1;
        }
        let joining = Joining {
            client,
            who,
            channels,
            is_told: false,
        };
        self.joining.insert(token, joining);
    }

    /// A client is there already: so another process says, which has had the connection.
    pub fn note_listening(&mut self, client: u64, who: &S, channels: &Channels) {
        for channel in channels {
            let place = self.place(channel);
            place.listening.insert(client, who.clone());
        }
    }

    /// The connection listens to it already: so another process says.
    pub fn note_heard(&mut self, channel: &Arc<str>) {
        self.place(channel).is_heard = true;
    }

    fn place(&mut self, channel: &Arc<str>) -> &mut Place<S> {
        self.channels
            .entry(Arc::clone(channel))
            .or_insert_with(|| Place {
                is_heard: false,
                listening: BTreeMap::new(),
                joining: 0,
            })
    }

    /// What the connection has to be asked now, if it owes no answer; [`Self::answered`] follows.
    pub fn command(&mut self) -> Option<String> {
        if self.asked.is_some() {
            return None;
        }
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for (channel, place) in &mut self.channels {
            match (place.is_wanted(), place.is_heard) {
                (true, false) => wanted.push(Arc::clone(channel)),
                (false, true) => {
                    // Who joins meanwhile waits until it is listened to again.
                    place.is_heard = false;
                    unwanted.push(Arc::clone(channel));
                }
                (true, true) | (false, false) => {}
            }
        }
        self.channels
            .retain(|_, place| place.is_wanted() || place.is_heard);
        let sql = commands("UNLISTEN", &unwanted) + &listen(&wanted);
        if sql.is_empty() {
            return None;
        }
        self.asked = Some(wanted);
        Some(sql)
    }

    /// The connection has done what it was asked.
    pub fn answered(&mut self) {
        for channel in self.asked.take().unwrap_or_default() {
            if let Some(place) = self.channels.get_mut(&channel) {
                place.is_heard = true;
            }
        }
    }

    /// Those for whom the connection listens by now, with their tokens, each once: they may send their marks.
    pub fn ready(&mut self) -> Vec<(u64, S)> {
        let channels = &self.channels;
        let is_heard = |channel| channels.get(channel).is_some_and(|place| place.is_heard);
        let mut ready = Vec::new();
        for (token, joining) in &mut self.joining {
            if !joining.is_told && joining.channels.iter().all(is_heard) {
                joining.is_told = true;
                ready.push((*token, joining.who.clone()));
            }
        }
        ready
    }

    /// A notification has come on the connection.
    pub fn heard(&mut self, channel: &[u8], payload: &[u8]) -> Heard<S> {
        if channel == self.marks.as_bytes() {
            let token = std::str::from_utf8(payload).ok();
            if let Some(token) = token.and_then(|token| token.parse().ok()) {
                self.arrive(token);
            }
            return Heard::Nobody;
        }
        let name = std::str::from_utf8(channel).unwrap_or_default();
        match self.channels.get(name) {
            Some(place) => Heard::For(place.listening.values().cloned().collect()),
            None => Heard::Nobody,
        }
    }

    /// A client's mark has come: what follows is for it.
    fn arrive(&mut self, token: u64) {
        let Some(joining) = self.joining.remove(&token) else {
            return;
        };
        for channel in &joining.channels {
            let place = self.place(channel);
            place.joining -= 1;
            place.listening.insert(joining.client, joining.who.clone());
        }
    }

    /// A client does not listen to these any more. Its mark may not have come yet, although its server has
    /// seen it.
    pub fn leave(&mut self, client: u64, channels: &Channels) {
        for channel in channels {
            if let Some(place) = self.channels.get_mut(channel) {
                place.listening.remove(&client);
            }
        }
        let own = |joining: &&mut Joining<S>| joining.client == client;
        for joining in self.joining.values_mut().filter(own) {
            for channel in channels {
                if joining.channels.remove(channel)
                    && let Some(place) = self.channels.get_mut(channel)
                {
                    place.joining -= 1;
                }
            }
        }
    }

    /// A client gives up what it has not come to yet.
    pub fn give_up(&mut self, client: u64) {
        let channels = &mut self.channels;
        self.joining.retain(|_, joining| {
            if joining.client != client {
                return true;
            }
            for channel in &joining.channels {
                if let Some(place) = channels.get_mut(channel) {
                    place.joining -= 1;
                }
            }
            false
        });
    }

    /// A client is gone.
    pub fn forget(&mut self, client: u64) {
        self.give_up(client);
        for place in self.channels.values_mut() {
            place.listening.remove(&client);
        }
    }

    /// Everybody, when the connection is gone: who depends on it, because it listens to something or may
    /// have sent its mark, and who has only just asked.
    pub fn everybody(&self) -> (Vec<S>, Vec<S>) {
        let listening = self.channels.values().flat_map(|place| &place.listening);
        let mut depending: BTreeMap<u64, S> = listening
            .map(|(client, who)| (*client, who.clone()))
            .collect();
        let mut asking = Vec::new();
        for joining in self.joining.values() {
            match joining.is_told {
                true => {
                    depending.insert(joining.client, joining.who.clone());
                }
                false => asking.push(joining.who.clone()),
            }
        }
        (depending.into_values().collect(), asking)
    }

    /// How many clients listen to something.
    pub fn client_count(&self) -> usize {
        let listening = self.channels.values().flat_map(|p| p.listening.keys());
        listening.collect::<BTreeSet<_>>().len()
    }

    /// The channels that the connection listens to.
    pub fn channels(&self) -> impl Iterator<Item = &Arc<str>> {
        let heard = self.channels.iter().filter(|(_, place)| place.is_heard);
        heard.map(|(channel, _)| channel)
    }

    /// Whether somebody is on the way.
    pub fn is_anybody_joining(&self) -> bool {
        !self.joining.is_empty()
    }

    /// Whether it is nobody's.
    pub fn is_empty(&self) -> bool {
        let mut places = self.channels.values();
        self.joining.is_empty() && places.all(|place| !place.is_wanted())
    }
}

impl<S> Place<S> {
    fn is_wanted(&self) -> bool {
        self.joining > 0 || !self.listening.is_empty()
    }
}

#[cfg(test)]
mod tests;
