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
    let (dns, fake, now) = (Resolver::new(None), Fake::default(), Instant::now());
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
    let (dns, fake, now) = (Resolver::new(None), Fake::default(), Instant::now());
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
    let (dns, fake, now) = (Resolver::new(None), Fake::default(), Instant::now());
    for _ in 0..3 {
        let lookup = dns.lookup_with("db", TTL, now, fake.answers(&["10.0.0.1"]));
        let mut lookup = std::pin::pin!(lookup);
        // It is asked once and then given up, however fast the machine is.
        let pending = std::future::poll_fn(|cx| {
            std::task::Poll::Ready(lookup.as_mut().poll(cx).is_pending())
        });
        assert!(pending.await);
    }
    assert_eq!(dns.queries(), 1);
    dns.lookup_with("db", TTL, now, fake.answers(&[]))
        .await
        .unwrap();
    assert_eq!(fake.asked(), 1);
}

#[tokio::test]
async fn a_query_that_panics_is_forgotten() {
    let (dns, fake, now) = (Resolver::new(None), Fake::default(), Instant::now());
    let broken = async { panic!("a bug") };
    let error = dns.lookup_with("db", TTL, now, broken).await.unwrap_err();
    assert_eq!(error.reason, "the lookup was abandoned");
    dns.lookup_with("db", TTL, now, fake.answers(&["10.0.0.1"]))
        .await
        .unwrap();
}

#[tokio::test]
async fn begins_with_another_address_each_time() {
    let (dns, fake, now) = (Resolver::new(None), Fake::default(), Instant::now());
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
    let (dns, fake, now) = (Resolver::new(None), Fake::default(), Instant::now());
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
async fn an_address_that_is_remembered_may_have_gone_as_well() {
    let (dns, fake, now) = (Resolver::new(None), Fake::default(), Instant::now());
    for ip in ips(&["10.0.0.1", "10.0.0.2"]) {
        dns.remember("db", ip);
        dns.remember("10.0.0.9", ip);
    }
    let query = fake.answers(&["10.0.0.2"]);
    dns.lookup_with("db", TTL, now, query).await.unwrap();
    assert_eq!(dns.take_gone(), [("db".to_owned(), ips(&["10.0.0.1"])[0])]);
}

#[tokio::test]
async fn shows_what_it_knows() {
    let (dns, fake, now) = (Resolver::new(None), Fake::default(), Instant::now());
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
    let (dns, now) = (Resolver::new(None), Instant::now());
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
