//! What black-box tests say most often, so that they read as stories: a PostgreSQL, a pooler in front of it, and
//! programs that use both.

#![forbid(unsafe_code)]

use std::{
    fmt::Debug,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub use pgweir_harness::*;

mod authority;
pub mod dns;
pub mod http;
mod program;
pub mod promql;
pub mod protobuf;
pub mod raw;
mod service;
mod strait;
mod tls_wire;

pub use authority::{Authority, Identity};
pub use dns::NameServer;
pub use http::Http;
pub use program::{Ender, Program, Run, Running, finish, finish_within};
pub use raw::{Batch, End, Message, RawClient, Wire, cancel, story};
pub use service::{Call, Service};
pub use strait::Strait;
pub use tls_wire::{Begin, TlsWire};

/// The PostgreSQL that all tests of one program share, or nothing after saying why the test is skipped. Its guard
/// removes it when the program ends.
///
/// It trusts everybody but members of the roles `wants_scram`, `wants_md5` and `wants_password`.
#[track_caller]
pub fn shared_postgres() -> Option<&'static Cluster> {
    static POSTGRES: OnceLock<Option<Cluster>> = OnceLock::new();
    let options = || ClusterOptions {
        max_connections: 300,
        hba: vec![
            "host all +wants_scram 127.0.0.1/32 scram-sha-256".to_owned(),
            "host all +wants_md5 127.0.0.1/32 md5".to_owned(),
            "host all +wants_password 127.0.0.1/32 password".to_owned(),
        ],
        ..ClusterOptions::default()
    };
    let shared = POSTGRES.get_or_init(|| {
        let postgres = Cluster::start_or_skip(options())?;
        for role in ["wants_scram", "wants_md5", "wants_password"] {
            postgres.psql("postgres", &format!("create role {role}"));
        }
        Some(postgres)
    });
    if shared.is_none() {
        skip("the PostgreSQL of this program's tests could not be started");
    }
    shared.as_ref()
}

/// A user and a database of the same name for one test, so that tests can share a PostgreSQL and still count.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Where it lives.
    pub postgres: &'static Cluster,
    /// The name of the user and of the database.
    pub name: String,
}

impl Tenant {
    /// A new one, or nothing after saying why the test is skipped.
    #[track_caller]
    pub fn new() -> Option<Self> {
        shared_postgres().map(Self::of)
    }

    /// A new one in this PostgreSQL.
    #[track_caller]
    pub fn of(postgres: &'static Cluster) -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let name = format!("tenant{}", LAST.fetch_add(1, Ordering::Relaxed));
        let mut root = RawClient::login(postgres.port(), "postgres", "postgres");
        root.rows(&format!("create role {name} login"));
        root.rows(&format!("create database {name} owner {name}"));
        Self { postgres, name }
    }

    /// A configuration in transaction mode that lets this user and `postgres` in without passwords.
    pub fn ini(&self) -> Ini {
        let users = format!("\"postgres\" \"\"\n\"{}\" \"\"\n", self.name);
        Ini::in_front_of(self.postgres)
            .set("pool_mode", "transaction")
            .file("userlist.txt", &users)
    }

    /// A pooler in transaction mode with so many servers.
    #[track_caller]
    pub fn pooler(&self, servers: u32) -> Pooler {
        start(self.ini().set("default_pool_size", servers))
    }

    /// A client of a pooler.
    #[track_caller]
    pub fn client(&self, pooler: &Pooler) -> RawClient {
        RawClient::login(pooler.port, &self.name, &self.name)
    }

    /// The same, of an application that says its name.
    #[track_caller]
    pub fn client_named(&self, pooler: &Pooler, application: &str) -> RawClient {
        let parameters = [
            ("user", &*self.name),
            ("database", &self.name),
            ("application_name", application),
        ];
        RawClient::login_with(pooler.port, &parameters)
    }

    /// A client of PostgreSQL itself, as this user.
    #[track_caller]
    pub fn direct(&self) -> RawClient {
        RawClient::login(self.postgres.port(), &self.name, &self.name)
    }

    /// A superuser in this tenant's database, past any pooler. PostgreSQL keeps connections back for superusers.
    #[track_caller]
    pub fn root(&self) -> RawClient {
        RawClient::login(self.postgres.port(), &self.name, "postgres")
    }

    /// Gives this user a password, and gives what PostgreSQL stores of it in this form.
    #[track_caller]
    pub fn set_password(&self, encryption: &str, password: &str) -> String {
        let (mut root, name) = (self.root(), &self.name);
        root.rows(&format!("set password_encryption = '{encryption}'"));
        root.rows(&format!("alter role {name} password '{password}'"));
        let stored = "select rolpassword from pg_authid where rolname";
        root.value(&format!("{stored} = '{name}'"))
    }

    /// How many connections of this user PostgreSQL counts.
    #[track_caller]
    pub fn backends(&self) -> u32 {
        count_backends(&mut self.root(), &self.name)
    }

    /// Counts this user's connections every few milliseconds from now on.
    #[track_caller]
    pub fn watch(&self) -> Watch {
        let mut root = self.root();
        let name = self.name.clone();
        Watch {
            backends: Sampler::start(move || count_backends(&mut root, &name)),
            sockets: None,
        }
    }

    /// The same, and what the pooler itself has open towards PostgreSQL, cancel requests among it.
    #[track_caller]
    pub fn watch_sockets(&self, pooler: &Pooler) -> Watch {
        self.watch_sockets_to(pooler, self.postgres.port())
    }

    /// The same, where the way to PostgreSQL goes over another port.
    #[track_caller]
    pub fn watch_sockets_to(&self, pooler: &Pooler, port: u16) -> Watch {
        let pid = pooler.pid;
        let sockets = move || match connections_to(pid, port) {
            Ok(Some(count)) => u32::try_from(count).expect("few"),
            // The pooler may have ended, and some systems do not tell.
            Ok(None) | Err(_) => 0,
        };
        Watch {
            sockets: Some(Sampler::start(sockets)),
            ..self.watch()
        }
    }

    /// The same, and what the whole machine has open towards PostgreSQL but for those who watch: of several processes that
    /// hand a socket over, both hold it.
    #[track_caller]
    pub fn watch_machine(&self) -> Watch {
        const WATCHERS: u32 = 1;
        let watch = self.watch();
        let port = self.postgres.port();
        let sockets = move || sockets_to(port).saturating_sub(WATCHERS);
        Watch {
            sockets: Some(Sampler::start(sockets)),
            ..watch
        }
    }
}

/// How many TCP sockets of any process are connected, or connecting, to a port of this machine; none where the system does
/// not say.
fn sockets_to(port: u16) -> u32 {
    let remote = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap_or_default();
    let open = table.lines().skip(1).filter(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        // One that only waits for its time to be over belongs to nobody.
        fields.get(2).is_some_and(|to| to.ends_with(&remote)) && fields.get(9) != Some(&"0")
    });
    open.count() as u32
}

fn count_backends(root: &mut RawClient, user: &str) -> u32 {
    let sql = format!(
        "select count(*) from pg_stat_activity \
         where backend_type = 'client backend' and usename = '{user}'"
    );
    root.value(&sql).parse().expect("a number")
}

/// Counts a user's connections, in PostgreSQL's own view, until it is asked for the result.
#[derive(Debug)]
pub struct Watch {
    backends: Sampler,
    sockets: Option<Sampler>,
}

impl Watch {
    /// Counts what `user` has in a PostgreSQL that may be away for a while.
    pub fn through_restarts(port: u16, user: &str) -> Self {
        let user = user.to_owned();
        let mut root = None;
        let look = move || {
            let login = [("user", "postgres"), ("database", "postgres")];
            let client = match root.take() {
                Some(client) => Some(client),
                None => RawClient::try_login(port, &login).ok(),
            };
            let Some(mut client) = client else { return 0 };
            let sql = format!(
                "select count(*) from pg_stat_activity \
                 where backend_type = 'client backend' and usename = '{user}'"
            );
            let asked = client.try_send_bytes(Batch::new().query(&sql).as_bytes());
            let answer = asked.map(|()| client.until_ready()).unwrap_or_default();
            let row = answer.iter().find(|message| message.tag == b'D');
            let count = row.and_then(|row| row.values().first()?.parse().ok());
            if count.is_some() {
                root = Some(client);
            }
            count.unwrap_or(0)
        };
        Self {
            backends: Sampler::start(look),
            sockets: None,
        }
    }
}

/// What a [`Watch`] saw.
#[derive(Clone, Copy, Debug)]
pub struct Samples {
    /// The largest number of connections at one moment.
    pub most: u32,
    /// The largest number of the pooler's sockets at one moment, where they were counted.
    pub most_sockets: u32,
    /// How often it looked.
    pub count: u32,
}

impl Watch {
    /// Stops counting.
    pub fn end(self) -> Samples {
        let (most, count) = self.backends.end();
        let sockets = self.sockets.map(Sampler::end);
        Samples {
            most,
            most_sockets: sockets.map_or(0, |(most, _)| most),
            count,
        }
    }
}

/// Looks at something every few milliseconds, in a thread of its own.
#[derive(Debug)]
struct Sampler {
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<(u32, u32)>,
}

impl Sampler {
    fn start(mut look: impl FnMut() -> u32 + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut most, mut count) = (0, 0);
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(look());
                count += 1;
                thread::sleep(Duration::from_millis(5));
            }
            (most, count)
        });
        Self { stop, thread }
    }

    /// The most that was seen, and how often it looked.
    fn end(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the sampler could count")
    }
}

/// Asks until the answer is as expected.
///
/// # Panics
/// With the last answer, if it is not the expected one in time.
#[track_caller]
pub fn eventually<T: Debug>(
    limit: Duration,
    mut ask: impl FnMut() -> T,
    expected: impl Fn(&T) -> bool,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        let answer = ask();
        if expected(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "after {limit:?}: {answer:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The console over TCP, as the administrator `postgres`.
#[track_caller]
pub fn console(pooler: &Pooler) -> RawClient {
    RawClient::login(pooler.port, "pgbouncer", "postgres")
}

/// The story of the answer to `select 1` outside of a transaction.
pub const SELECT_1: &str = "T D(1) C(SELECT 1) Z(I)";

/// A PostgreSQL with the database `app`, or nothing after saying why the test is skipped.
#[track_caller]
pub fn postgres_with_app() -> Option<Cluster> {
    let postgres = Cluster::start_or_skip(ClusterOptions::default())?;
    postgres.psql("postgres", "create database app");
    Some(postgres)
}

/// The pooler in transaction mode in front of a cluster, with so many servers for each database and user.
///
/// # Panics
/// If it does not start.
#[track_caller]
pub fn transaction_pooler(postgres: &Cluster, servers: u32) -> Pooler {
    start(
        Ini::in_front_of(postgres)
            .set("pool_mode", "transaction")
            .set("default_pool_size", servers),
    )
}

/// The pooler with this configuration.
///
/// # Panics
/// If it does not start.
#[track_caller]
pub fn start(ini: Ini) -> Pooler {
    match Pooler::start(ini) {
        Ok(pooler) => pooler,
        Err(error) => panic!("{error}"),
    }
}

/// A certificate for this machine that nobody has signed but itself.
///
/// # Panics
/// If it cannot be made.
pub fn self_signed_tls() -> Tls {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("both are valid names");
    Tls {
        cert: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
        ca: None,
    }
}
