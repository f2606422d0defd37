//! Names to addresses, with a cache.
//!
//! The system's resolver is asked on tokio's blocking threads, so a slow name server holds up only
//! those who need that name. It does not report how long an answer is good for: the caller's
//! limits decide. The system is asked in one place, [`ask_system`], where a resolver that knows
//! lifetimes can take its place.
//!
//! There is one entry per name ever asked for. Names come from the configuration, so the cache
//! needs no limit of its own.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Looks up names and remembers the answers.
#[derive(Clone, Debug, Default)]
pub struct Resolver {
    names: Arc<Mutex<HashMap<String, Entry>>>,
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
        self.lookup_with(name, ttl, now, ask_system(name.to_owned()))
            .await
    }

    async fn lookup_with(
        &self,
        name: &str,
        ttl: DnsTtl,
        now: Instant,
        query: impl Future<Output = Outcome> + Send + 'static,
    ) -> Result<Vec<IpAddr>, DnsError> {
        let mut receiver = {
            let mut names = self.lock();
            let entry = names.entry(name.to_owned()).or_default();
            if entry.remaining(ttl, now) > Duration::ZERO
                && let Some((_, outcome)) = &entry.answer
            {
                let outcome = outcome.clone();
                return entry.hand_out(outcome);
            }
            match &entry.query {
                Some(receiver) => receiver.clone(),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    entry.query = Some(receiver.clone());
                    tokio::spawn(self.clone().carry_out(name.to_owned(), now, query, sender));
                    receiver
                }
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
        match self.lock().get_mut(name) {
            Some(entry) => entry.hand_out(outcome),
            None => outcome.map(|addresses| addresses.to_vec()),
        }
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
        if let Some(entry) = self.lock().get_mut(&name) {
            entry.learn(asked_at, outcome.clone());
        }
        sender.send_replace(Some(outcome));
    }

    /// The cache as it is now.
    pub fn snapshot(&self, ttl: DnsTtl, now: Instant) -> Vec<CachedName> {
        let mut rows: Vec<_> = self
            .lock()
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

    /// Names and their addresses that newer answers no longer had, each reported once: the servers
    /// there may have been replaced.
    pub fn take_gone(&self) -> Vec<(String, IpAddr)> {
        let mut gone = Vec::new();
        for (name, entry) in self.lock().iter_mut() {
            gone.extend(entry.gone.drain(..).map(|ip| (name.clone(), ip)));
        }
        gone
    }

    /// Queries on their way.
    pub fn queries(&self) -> usize {
        self.lock()
            .values()
            .filter(|entry| entry.query.is_some())
            .count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Every change under the lock is complete before anything that could panic.
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
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
        if let Some(entry) = self.resolver.lock().get_mut(self.name) {
            entry.query = None;
        }
    }
}

async fn ask_system(name: String) -> Outcome {
    let failed = |reason: String| DnsError {
        name: name.clone(),
        reason,
    };
    let found = tokio::net::lookup_host((name.as_str(), 0))
        .await
        .map_err(|error| {
            let text = error.to_string();
            let reason = text.strip_prefix("failed to lookup address information: ");
            failed(reason.unwrap_or(&text).to_owned())
        })?;
    let mut addresses = Vec::new();
    for addr in found {
        if !addresses.contains(&addr.ip()) {
            addresses.push(addr.ip());
        }
    }
    if addresses.is_empty() {
        return Err(failed("the name has no address".to_owned()));
    }
    Ok(addresses.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const TTL: DnsTtl = DnsTtl {
        found: Duration::from_secs(15),
        failed: Duration::from_secs(5),
    };

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    /// A name server of one answer that counts its queries.
    #[derive(Clone, Default)]
    struct Fake {
        asked: Arc<AtomicUsize>,
    }

    impl Fake {
        fn answers(&self, list: &[&str]) -> impl Future<Output = Outcome> + Send + 'static {
            let (asked, answer) = (self.asked.clone(), ips(list));
            async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                asked.fetch_add(1, Ordering::SeqCst);
                Ok(answer.into())
            }
        }

        fn fails(&self) -> impl Future<Output = Outcome> + Send + 'static {
            let asked = self.asked.clone();
            async move {
                asked.fetch_add(1, Ordering::SeqCst);
                Err(DnsError {
                    name: "db".to_owned(),
                    reason: "no".to_owned(),
                })
            }
        }

        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn asks_once_for_everybody_and_remembers() {
        let (dns, fake, now) = (Resolver::default(), Fake::default(), Instant::now());
        let (a, b) = tokio::join!(
            dns.lookup_with("db", TTL, now, fake.answers(&["10.0.0.1"])),
            dns.lookup_with("db", TTL, now, fake.answers(&["10.0.0.1"])),
        );
        assert_eq!(a.unwrap(), b.unwrap());
        dns.lookup_with("db", TTL, now + TTL.found / 2, fake.answers(&[]))
            .await
            .unwrap();
        assert_eq!((fake.asked(), dns.queries()), (1, 0));
        dns.lookup_with("db", TTL, now + TTL.found, fake.answers(&["10.0.0.1"]))
            .await
            .unwrap();
        assert_eq!(fake.asked(), 2);
    }

    #[tokio::test]
    async fn remembers_a_failure_for_its_own_time() {
        let (dns, fake, now) = (Resolver::default(), Fake::default(), Instant::now());
        let error = dns
            .lookup_with("db", TTL, now, fake.fails())
            .await
            .unwrap_err();
        assert_eq!(error.to_string(), "DNS lookup failed: db: no");
        let soon = now + Duration::from_secs(4);
        dns.lookup_with("db", TTL, soon, fake.answers(&["10.0.0.1"]))
            .await
            .unwrap_err();
        let later = now + TTL.failed;
        dns.lookup_with("db", TTL, later, fake.answers(&["10.0.0.1"]))
            .await
            .unwrap();
        assert_eq!(fake.asked(), 2);
    }

    #[tokio::test]
    async fn one_query_goes_on_when_those_who_asked_give_up() {
        let (dns, fake, now) = (Resolver::default(), Fake::default(), Instant::now());
        for _ in 0..3 {
            let wait = Duration::from_millis(1);
            let lookup = dns.lookup_with("db", TTL, now, fake.answers(&["10.0.0.1"]));
            assert!(tokio::time::timeout(wait, lookup).await.is_err());
        }
        assert_eq!(dns.queries(), 1);
        dns.lookup_with("db", TTL, now, fake.answers(&[]))
            .await
            .unwrap();
        assert_eq!(fake.asked(), 1);
    }

    #[tokio::test]
    async fn a_query_that_panics_is_forgotten() {
        let (dns, fake, now) = (Resolver::default(), Fake::default(), Instant::now());
        let broken = async { panic!("a bug") };
        let error = dns.lookup_with("db", TTL, now, broken).await.unwrap_err();
        assert_eq!(error.reason, "the lookup was abandoned");
        dns.lookup_with("db", TTL, now, fake.answers(&["10.0.0.1"]))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn begins_with_another_address_each_time() {
        let (dns, fake, now) = (Resolver::default(), Fake::default(), Instant::now());
        let mut firsts = Vec::new();
        for _ in 0..4 {
            let query = fake.answers(&["10.0.0.1", "10.0.0.2"]);
            firsts.push(dns.lookup_with("db", TTL, now, query).await.unwrap()[0]);
        }
        assert_eq!(
            firsts,
            ips(&["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2"])
        );
    }

    #[tokio::test]
    async fn reports_addresses_that_went_away_once() {
        let (dns, fake, now) = (Resolver::default(), Fake::default(), Instant::now());
        let query = fake.answers(&["10.0.0.1", "10.0.0.2"]);
        dns.lookup_with("db", TTL, now, query).await.unwrap();
        let now = now + TTL.found;
        dns.lookup_with("db", TTL, now, fake.fails())
            .await
            .unwrap_err();
        assert_eq!(dns.take_gone(), []);
        let query = fake.answers(&["10.0.0.2", "10.0.0.3"]);
        dns.lookup_with("db", TTL, now + TTL.failed, query)
            .await
            .unwrap();
        assert_eq!(dns.take_gone(), [("db".to_owned(), ips(&["10.0.0.1"])[0])]);
        assert_eq!(dns.take_gone(), []);
    }

    #[tokio::test]
    async fn shows_what_it_knows() {
        let (dns, fake, now) = (Resolver::default(), Fake::default(), Instant::now());
        dns.lookup_with("good", TTL, now, fake.answers(&["10.0.0.1"]))
            .await
            .unwrap();
        dns.lookup_with("bad", TTL, now, fake.fails())
            .await
            .unwrap_err();
        let second = Duration::from_secs(1);
        let row = |name: &str, ttl, list| CachedName {
            name: name.to_owned(),
            ttl,
            addresses: ips(list),
        };
        assert_eq!(
            dns.snapshot(TTL, now + second),
            [
                row("bad", TTL.failed - second, &[]),
                row("good", TTL.found - second, &["10.0.0.1"])
            ]
        );
    }

    #[tokio::test]
    async fn asks_the_system() {
        let (dns, now) = (Resolver::default(), Instant::now());
        let ip = dns.lookup("127.0.0.7", TTL, now).await.unwrap();
        assert_eq!(ip, ips(&["127.0.0.7"]));
        let local = dns.lookup("localhost", TTL, now).await.unwrap();
        assert!(local.iter().all(IpAddr::is_loopback));
        let error = dns
            .lookup("no-such-host.invalid", TTL, now)
            .await
            .unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("DNS lookup failed: no-such-host.invalid: ")
        );
    }
}
