//! Names to addresses, with a cache, and a watch on the zones that they belong to.
//!
//! Nobody is held up by a slow name server but those who need that name. How long an answer is good
//! for is not the name server's decision but the caller's, as in PgBouncer.
//!
//! There is one entry per name ever looked up. Names come from the configuration, so the cache
//! needs no limit of its own.

mod hosts;
mod message;
mod resolv_conf;
mod servers;
mod source;
#[cfg(test)]
mod tests;
mod zones;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use source::Source;
pub use zones::{ZoneChange, ZoneRow};
use zones::{Zones, zone_of};

/// Looks up names and remembers the answers.
#[derive(Clone, Debug)]
pub struct Resolver {
    source: Source,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    names: HashMap<String, Entry>,
    zones: Zones,
}

/// How long answers are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsTtl {
    /// Of addresses.
    pub found: Duration,
    /// Of a failure.
    pub failed: Duration,
}

/// A name that has no address now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("DNS lookup failed: {name}: {reason}")]
pub struct DnsError {
    /// The name that was looked up.
    pub name: String,
    /// What the resolver said.
    pub reason: String,
}

/// One row of the cache, for the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedName {
    /// The name.
    pub name: String,
    /// How long the answer is still good; zero when it is too old or still awaited.
    pub ttl: Duration,
    /// The addresses; empty after a failure.
    pub addresses: Vec<IpAddr>,
}

type Outcome = Result<Arc<[IpAddr]>, DnsError>;

#[derive(Debug, Default)]
struct Entry {
    /// The last answer and when it was asked for.
    answer: Option<(Instant, Outcome)>,
    /// The query on its way. It is awaited here by everybody who wants the name.
    query: Option<watch::Receiver<Option<Outcome>>>,
    /// The last addresses found, kept over failures.
    found: Option<Arc<[IpAddr]>>,
    /// Addresses that a newer answer no longer had.
    gone: Vec<IpAddr>,
    /// How often addresses were handed out, to begin with another one each time.
    turn: usize,
}

impl Resolver {
    /// Asks the system, or with a `resolv.conf` of one's own the name servers in it.
    pub fn new(resolv_conf: Option<&Path>) -> Self {
        Self {
            source: Source::new(resolv_conf),
            known: Arc::default(),
        }
    }

    /// The addresses of a name, beginning with a different one each time, so that whoever takes
    /// the first spreads the load. An address in text form is itself.
    ///
    /// Everybody who asks for a name at the same time shares one query. It goes on when they all
    /// give up, so a dead name server never has more than one query per name from here.
    pub async fn lookup(
        &self,
        name: &str,
        ttl: DnsTtl,
        now: Instant,
    ) -> Result<Vec<IpAddr>, DnsError> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let query = self.source.clone().addresses(name.to_owned());
        self.lookup_with(name, ttl, now, query).await
    }

    /// The addresses of a name that is none of the servers': neither remembered nor shown.
    pub async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, DnsError> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let found = self.source.clone().addresses(name.to_owned()).await;
        found.map(|addresses| addresses.to_vec())
    }

    /// Hosts and ports that the DNS names for a service such as `_ldap._tcp.example.org`, the best
    /// ones first.
    pub async fn services(&self, name: &str) -> Result<Vec<(String, u16)>, DnsError> {
        self.source.services(name).await
    }

    /// Asks for the serial of every zone that names were looked up in, one after the other. The
    /// names of a zone whose serial has grown are asked again at once.
    ///
    /// Gives back what has changed, and what could not be found out.
    pub async fn check_zones(&self, now: Instant) -> (Vec<ZoneChange>, Vec<DnsError>) {
        let zones = self.lock().zones.names();
        let (mut changes, mut failures) = (Vec::new(), Vec::new());
        for zone in zones {
            match self.source.serial(&zone).await {
                Ok(serial) => {
                    let change = self.lock().zones.learn(&zone, serial);
                    if change.is_some() {
                        self.ask_again(&zone, now);
                    }
                    changes.extend(change);
                }
                Err(error) => failures.push(error),
            }
        }
        (changes, failures)
    }

    /// Asks again for the names of a zone; nobody waits for the answers.
    fn ask_again(&self, zone: &str, now: Instant) {
        let mut known = self.lock();
        for (name, entry) in &mut known.names {
            let is_inside = zone_of(name).as_deref() == Some(zone);
            if is_inside && entry.answer.is_some() && entry.query.is_none() {
                let query = self.source.clone().addresses(name.clone());
                self.start(name, entry, now, query);
            }
        }
    }

    /// The zones as they are known now.
    pub fn zones(&self) -> Vec<ZoneRow> {
        let known = self.lock();
        known.zones.rows(known.names.keys().map(String::as_str))
    }

    /// How many zones there are.
    pub fn zone_count(&self) -> usize {
        self.lock().zones.len()
    }

    async fn lookup_with(
        &self,
        name: &str,
        ttl: DnsTtl,
        now: Instant,
        query: impl Future<Output = Outcome> + Send + 'static,
    ) -> Result<Vec<IpAddr>, DnsError> {
        let mut receiver = {
            let mut known = self.lock();
            known.zones.register(name);
            let entry = known.names.entry(name.to_owned()).or_default();
            if entry.remaining(ttl, now) > Duration::ZERO
                && let Some((_, outcome)) = &entry.answer
            {
                let outcome = outcome.clone();
                return entry.hand_out(outcome);
            }
            match &entry.query {
                Some(receiver) => receiver.clone(),
                None => self.start(name, entry, now, query),
            }
        };
        let outcome = match receiver.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone(),
            Err(_) => None,
        };
        let outcome = outcome.unwrap_or_else(|| {
            Err(DnsError {
                name: name.to_owned(),
                reason: "the lookup was abandoned".to_owned(),
            })
        });
        match self.lock().names.get_mut(name) {
            Some(entry) => entry.hand_out(outcome),
            None => outcome.map(|addresses| addresses.to_vec()),
        }
    }

    fn start(
        &self,
        name: &str,
        entry: &mut Entry,
        now: Instant,
        query: impl Future<Output = Outcome> + Send + 'static,
    ) -> watch::Receiver<Option<Outcome>> {
        let (sender, receiver) = watch::channel(None);
        entry.query = Some(receiver.clone());
        tokio::spawn(self.clone().carry_out(name.to_owned(), now, query, sender));
        receiver
    }

    /// Runs to its end even if nobody waits any more; the system's resolver has its own timeout.
    async fn carry_out(
        self,
        name: String,
        asked_at: Instant,
        query: impl Future<Output = Outcome>,
        sender: watch::Sender<Option<Outcome>>,
    ) {
        // When the query panics this is dropped, and the next caller may ask again.
        let _forget = ForgetQuery {
            resolver: &self,
            name: &name,
        };
        let outcome = query.await;
        if let Some(entry) = self.lock().names.get_mut(&name) {
            entry.learn(asked_at, outcome.clone());
        }
        sender.send_replace(Some(outcome));
    }

    /// The cache as it is now.
    pub fn snapshot(&self, ttl: DnsTtl, now: Instant) -> Vec<CachedName> {
        let mut rows: Vec<_> = self
            .lock()
            .names
            .iter()
            .map(|(name, entry)| CachedName {
                name: name.clone(),
                ttl: entry.remaining(ttl, now),
                addresses: match &entry.answer {
                    Some((_, Ok(addresses))) => addresses.to_vec(),
                    Some((_, Err(_))) | None => Vec::new(),
                },
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// Something at this address was reached by the name before the name was ever asked for here: if the first answer
    /// lacks the address, it is gone.
    pub fn remember(&self, name: &str, ip: IpAddr) {
        if name.parse::<IpAddr>().is_ok() {
            return;
        }
        let mut known = self.lock();
        let entry = known.names.entry(name.to_owned()).or_default();
        let found = entry.found.as_deref().unwrap_or_default();
        if !found.contains(&ip) {
            entry.found = Some(found.iter().copied().chain([ip]).collect());
        }
    }

    /// Names and their addresses that newer answers no longer had, each reported once: the servers
    /// there may have been replaced.
    pub fn take_gone(&self) -> Vec<(String, IpAddr)> {
        let mut gone = Vec::new();
        for (name, entry) in &mut self.lock().names {
            gone.extend(entry.gone.drain(..).map(|ip| (name.clone(), ip)));
        }
        gone
    }

    /// Queries on their way.
    pub fn queries(&self) -> usize {
        self.lock()
            .names
            .values()
            .filter(|entry| entry.query.is_some())
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Every change under the lock is complete before anything that could panic.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn remaining(&self, ttl: DnsTtl, now: Instant) -> Duration {
        let Some((asked_at, outcome)) = &self.answer else {
            return Duration::ZERO;
        };
        let ttl = if outcome.is_ok() {
            ttl.found
        } else {
            ttl.failed
        };
        ttl.saturating_sub(now.saturating_duration_since(*asked_at))
    }

    fn learn(&mut self, asked_at: Instant, outcome: Outcome) {
        if let Ok(addresses) = &outcome
            && let Some(before) = self.found.replace(addresses.clone())
        {
            self.gone.retain(|ip| !addresses.contains(ip));
            for ip in before.iter().filter(|ip| !addresses.contains(ip)) {
                if !self.gone.contains(ip) {
                    self.gone.push(*ip);
                }
            }
        }
        self.answer = Some((asked_at, outcome));
    }

    fn hand_out(&mut self, outcome: Outcome) -> Result<Vec<IpAddr>, DnsError> {
        let mut addresses = outcome?.to_vec();
        if !addresses.is_empty() {
            let first = self.turn % addresses.len();
            addresses.rotate_left(first);
            self.turn = self.turn.wrapping_add(1);
        }
        Ok(addresses)
    }
}

struct ForgetQuery<'a> {
    resolver: &'a Resolver,
    name: &'a str,
}

impl Drop for ForgetQuery<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.resolver.lock().names.get_mut(self.name) {
            entry.query = None;
        }
    }
}
