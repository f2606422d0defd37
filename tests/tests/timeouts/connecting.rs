//! Servers and cancels that do not come about.

use std::{
    net::{TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pgweir_tests::{
    Batch, Pooler, RawClient, SELECT_1, Tenant, cancel, console, eventually, start, story,
};

/// A listener that accepts and says nothing, and where it is.
fn silent() -> (TcpListener, String) {
    let silent = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = silent.local_addr().expect("bound").port();
    (silent, format!("host=127.0.0.1 port={port}"))
}

#[test]
fn server_connect_timeout_limits_a_server_that_does_not_answer() {
    let Some(tenant) = Tenant::new() else { return };
    let (_silent, place) = silent();
    let pooler = start(
        tenant
            .ini()
            .database("silent", &place)
            .set("server_connect_timeout", 1)
            .set("server_login_retry", 1)
            .set("server_close_timeout", 1)
            .set("query_wait_timeout", 3),
    );
    let parameters = [("user", &*tenant.name), ("database", "silent")];
    let said = RawClient::try_login(pooler.port, &parameters).map(|_| ());
    assert!(
        matches!(&said, Err(text) if text.starts_with("E(FATAL 08P01 ")),
        "{said:?}"
    );
    assert!(
        pooler.log().contains("closing because: connect timeout"),
        "{}",
        pooler.log()
    );
}

#[test]
fn a_login_that_fails_is_told_although_its_connection_does_not_end() {
    let Some(tenant) = Tenant::new() else { return };
    let (silent, place) = silent();
    let pooler = start(
        tenant
            .ini()
            .database("silent", &place)
            .set("server_tls_sslmode", "disable")
            .set("server_connect_timeout", 1)
            .set("server_close_timeout", 1)
            .set("server_down_timeout", 1)
            .set("query_wait_timeout", 60),
    );
    let parameters = [("user", &*tenant.name), ("database", "silent")];
    let asked = Instant::now();
    let said = RawClient::try_login(pooler.port, &parameters).map(|_| ());
    assert!(
        matches!(&said, Err(text) if text.contains("server login has been failing")),
        "{said:?}"
    );
    assert!(asked.elapsed() < Duration::from_secs(10));
    let mut console = console(&pooler);
    let quarantined = || console.table("show quarantine").rows.len();
    eventually(Duration::from_secs(5), quarantined, |&slots| slots > 0);
    // It ends after all.
    drop(silent);
    let quarantined = || console.table("show quarantine").rows.len();
    eventually(Duration::from_secs(10), quarantined, |&slots| slots == 0);
}

#[test]
fn server_connect_timeout_limits_a_connection_that_does_not_come_about() {
    let Some(tenant) = Tenant::new() else { return };
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let _queue = stop_answering(&listener);
    let pooler = start(
        tenant
            .ini()
            .database("deaf", &format!("host=127.0.0.1 port={port}"))
            .set("server_connect_timeout", 1)
            .set("query_wait_timeout", 2),
    );
    let parameters = [("user", &*tenant.name), ("database", "deaf")];
    let said = RawClient::try_login(pooler.port, &parameters).map(|_| ());
    assert!(said.is_err(), "{said:?}");
    let log = pooler.log();
    assert!(log.contains("closing because: connect failed"), "{log}");
}

/// A client whose query sleeps in PostgreSQL, behind a hop that takes connections and passes on only the first.
struct Sleeper {
    tenant: Tenant,
    pooler: Pooler,
    client: RawClient,
    hop: TcpListener,
}

impl Sleeper {
    fn new() -> Option<Self> {
        let tenant = Tenant::new()?;
        let hop = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = hop.local_addr().expect("bound").port();
        let name = &tenant.name;
        let pooler = start(
            tenant
                .ini()
                .database("hop", &format!("host=127.0.0.1 port={port} dbname={name}"))
                .set("cancel_wait_timeout", 2),
        );
        let first = hop.try_clone().expect("a socket");
        let target = ("127.0.0.1", tenant.postgres.port());
        thread::spawn(move || forward(&first, target));
        let mut client = RawClient::login(pooler.port, "hop", name);
        client.send(&Batch::new().query("select 1 from pg_sleep(4)"));
        let slept = "select 1 from pg_stat_activity where wait_event = 'PgSleep' and datname = ";
        let slept = format!("{slept}'{name}'");
        let mut root = tenant.root();
        let asleep = || root.rows(&slept).len();
        eventually(Duration::from_secs(10), asleep, |&sleepers| sleepers == 1);
        Some(Self {
            tenant,
            pooler,
            client,
            hop,
        })
    }

    /// Cancels the query; ends when the pooler has dealt with that.
    fn cancel(&self) -> JoinHandle<()> {
        let (port, key) = (self.pooler.port, self.client.key.clone());
        thread::spawn(move || cancel(port, &key.expect("logged in")))
    }

    /// Waits until its pool has so many cancel requests that wait, and that are sent.
    #[track_caller]
    fn cancels_become(&self, operator: &mut RawClient, waiting: i64, sent: i64) {
        let cancels = || {
            let pools = operator.table("show pools");
            let row = pools.find("user", &self.tenant.name).expect("its pool");
            [
                "cl_waiting_cancel_req",
                "cl_active_cancel_req",
                "sv_active_cancel",
            ]
            .map(|column| row.number(column))
        };
        eventually(Duration::from_secs(5), cancels, |cancels| {
            *cancels == [waiting, sent, sent]
        });
    }
}

#[test]
fn cancel_wait_timeout_gives_up_a_cancel_that_does_not_get_through() {
    let Some(mut sleeper) = Sleeper::new() else {
        return;
    };
    let mut operator = console(&sleeper.pooler);
    let _queue = stop_answering(&sleeper.hop);
    let cancel = sleeper.cancel();
    sleeper.cancels_become(&mut operator, 1, 0);
    cancel.join().expect("it is not answered");
    assert_eq!(story(&sleeper.client.until_ready()), SELECT_1);
    sleeper.cancels_become(&mut operator, 0, 0);
    let log = sleeper.pooler.log();
    assert!(
        log.contains("closing because: cancel_wait_timeout"),
        "{log}"
    );
}

#[test]
fn show_pools_counts_cancels_that_postgresql_has_not_dealt_with() {
    let Some(mut sleeper) = Sleeper::new() else {
        return;
    };
    let mut operator = console(&sleeper.pooler);
    let cancel = sleeper.cancel();
    sleeper.cancels_become(&mut operator, 0, 1);
    drop(sleeper.hop.accept().expect("the request"));
    cancel.join().expect("it is not answered");
    sleeper.cancels_become(&mut operator, 0, 0);
    assert_eq!(story(&sleeper.client.until_ready()), SELECT_1);
}

/// From now on whoever connects gets no answer: the queue is short, and full of these.
fn stop_answering(listener: &TcpListener) -> Vec<TcpStream> {
    let address = listener.local_addr().expect("bound");
    socket2::SockRef::from(listener)
        .listen(0)
        .expect("it listens already");
    let knock = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).ok();
    std::iter::from_fn(knock).take(16).collect()
}

#[test]
fn after_a_failed_login_the_next_attempt_waits_for_server_login_retry() {
    let Some(tenant) = Tenant::new() else { return };
    let port = {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        listener.local_addr().expect("bound").port()
    };
    let pooler = start(
        tenant
            .ini()
            .database("later", &format!("host=127.0.0.1 port={port}"))
            .set("server_login_retry", 1),
    );
    let mut client = RawClient::connect(pooler.port);
    client.start_login(&[("user", &tenant.name), ("database", "later")]);
    thread::sleep(Duration::from_millis(2500));
    let attempts = pooler
        .log()
        .matches("closing because: connect failed")
        .count();
    assert!(
        (2..=4).contains(&attempts),
        "{attempts} in 2.5 s\n{}",
        pooler.log()
    );

    // Somebody like PostgreSQL begins to listen: the waiting client is served.
    let target = ("127.0.0.1", tenant.postgres.port());
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("still free");
    thread::spawn(move || forward(&listener, target));
    let said = client.finish_login();
    assert!(
        said == Ok(())
            || said == Err("E(FATAL 3D000 database \"later\" does not exist)".to_owned()),
        "{said:?}"
    );
}

/// Passes the bytes of one connection on, in both directions.
fn forward(listener: &TcpListener, target: (&str, u16)) {
    let Ok((mut inside, _)) = listener.accept() else {
        return;
    };
    let mut outside = TcpStream::connect(target).expect("PostgreSQL listens");
    let (mut back, mut forth) = (
        outside.try_clone().expect("a socket"),
        inside.try_clone().expect("a socket"),
    );
    thread::spawn(move || std::io::copy(&mut back, &mut forth));
    let _ = std::io::copy(&mut inside, &mut outside);
}
