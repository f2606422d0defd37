//! What PostgreSQL itself goes through while clients come and go.

use std::collections::HashSet;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use pgweir_tests::{
    Batch, Cluster, ClusterOptions, Ini, RawClient, Signal, Tenant, Watch, console, eventually,
    send_signal, start, story,
};

use crate::scene::{CANCELS, CAP, CLIENTS, Scene, capped};

/// Lets processes run again however the test ends.
struct Stopped(Vec<String>);

impl Stopped {
    fn new(pids: Vec<String>) -> Self {
        for pid in &pids {
            assert!(send_signal(pid, Signal::STOP), "{pid}");
        }
        Self(pids)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        for pid in &self.0 {
            send_signal(pid, Signal::CONT);
        }
    }
}

/// A slot comes back when PostgreSQL has ended the backend, not when the pooler has closed its socket.
#[test]
fn backends_that_stand_still_are_counted_until_they_are_gone() {
    let timeouts = |ini: Ini| {
        ini.set("server_close_timeout", 1)
            .set("cancel_drain_timeout", 1)
            .set("query_wait_notify", 0)
    };
    let Some(scene) = Scene::with(timeouts) else {
        return;
    };
    for _ in 0..2 {
        let mut crowd = scene.clients();
        for client in &mut crowd {
            client.send(&Batch::new().query("select pg_sleep(20)"));
        }
        scene.wait_for_busy(CAP);
        let stopped = Stopped::new(scene.backend_pids());
        drop(crowd);
        // Others ask, while nothing that was there before can end.
        let mut others = scene.clients();
        for client in &mut others {
            client.send(&Batch::new().query("select 1"));
        }
        // Long enough for everything to be given up.
        thread::sleep(Duration::from_secs(3));
        let now = scene.tenant.backends();
        assert!(now <= CAP, "{now} connections");
        let mut console = console(&scene.pooler);
        eventually(
            Duration::from_secs(20),
            || console.table("show quarantine").rows.len(),
            |lost| *lost == CAP as usize,
        );
        drop(stopped);
        for client in &mut others {
            assert_eq!(story(&client.until_ready()), "T D(1) C(SELECT 1) Z(I)");
        }
    }
    scene.ends_in_order();
}

#[test]
fn a_postgresql_that_restarts_under_load_is_not_flooded() {
    // A PostgreSQL of its own, because it is stopped.
    let Some(mut postgres) = Cluster::start_or_skip(ClusterOptions::default()) else {
        return;
    };
    postgres.psql("postgres", "create role crowd login");
    let ini = Ini::in_front_of(&postgres)
        .set("pool_mode", "transaction")
        .set("server_login_retry", 1)
        .file("userlist.txt", "\"postgres\" \"\"\n\"crowd\" \"\"\n");
    let pooler = start(capped(ini));
    let watch = Watch::through_restarts(postgres.port(), "crowd");
    let until = Instant::now() + Duration::from_secs(8);
    let port = pooler.port;
    let served: u32 = thread::scope(|scope| {
        let crowd: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(move || come_again(port, until)))
            .collect();
        while Instant::now() < until {
            thread::sleep(Duration::from_millis(1500));
            for how in [pgweir_tests::Stop::Fast, pgweir_tests::Stop::Immediate] {
                postgres.stop(how).expect("it stops");
                thread::sleep(Duration::from_millis(300));
                postgres.start_again().expect("it starts");
                thread::sleep(Duration::from_millis(700));
            }
        }
        let each = crowd.into_iter().map(|one| one.join().expect("no panic"));
        each.sum()
    });
    let seen = watch.end();
    assert!(seen.most <= CAP, "{seen:?}\n{}", pooler.log());
    assert!(
        seen.most > 0 && seen.count > 50 && served > 100,
        "{seen:?}, {served} served"
    );
    assert!(!pooler.log().contains("the books do not balance"));
}

/// When PostgreSQL is there again everybody wants a server at once. A login takes it a process and a hash: all of them at
/// once are the next outage.
#[test]
fn after_a_restart_servers_log_in_a_few_at_a_time() {
    const AT_ONCE: usize = 3;
    const SERVERS: usize = 12;
    let conf = ["log_connections = on", "pre_auth_delay = 1"].map(str::to_owned);
    let options = ClusterOptions {
        conf: conf.to_vec(),
        ..ClusterOptions::default()
    };
    let Some(mut postgres) = Cluster::start_or_skip(options) else {
        return;
    };
    postgres.psql("postgres", "create role crowd login");
    let ini = Ini::in_front_of(&postgres)
        .set("pool_mode", "transaction")
        .set("default_pool_size", SERVERS)
        .set("max_host_logins", AT_ONCE)
        .set("server_login_retry", 1)
        .file("userlist.txt", "\"postgres\" \"\"\n\"crowd\" \"\"\n");
    let pooler = start(ini);
    let login = [("user", "crowd"), ("database", "postgres")];
    let mut crowd: Vec<_> = (0..SERVERS)
        .map(|_| RawClient::login_with(pooler.port, &login))
        .collect();
    postgres
        .stop(pgweir_tests::Stop::Immediate)
        .expect("it stops");
    let before = postgres.log().len();
    postgres.start_again().expect("it starts");
    for client in &mut crowd {
        client.send(&Batch::new().query("select 1 from pg_sleep(8)"));
    }
    for client in &mut crowd {
        assert_eq!(
            story(&client.until_ready()),
            "T D(1) C(SELECT 1) Z(I)",
            "{}",
            pooler.log()
        );
    }
    let log = postgres.log();
    let begun = logins_begun(&log[before..], "crowd");
    assert!(begun.len() >= SERVERS, "{begun:?}\n{log}");
    // Each takes a second, so no second sees more of them begin.
    for window in begun.windows(AT_ONCE + 1) {
        assert!(window[AT_ONCE] - window[0] >= 0.9, "{begun:?}\n{log}");
    }
}

/// When logins of a user have begun, in PostgreSQL's own log, in seconds of the day.
fn logins_begun(log: &str, user: &str) -> Vec<f64> {
    let process = |line: &str| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned());
    let second = |line: &str| {
        let mut parts = line.get(11..23)?.split(':').map(str::parse::<f64>);
        let mut next = || parts.next()?.ok();
        Some(3600.0 * next()? + 60.0 * next()? + next()?)
    };
    let of_user = log
        .lines()
        .filter(|line| line.contains(&format!("] {user}@")));
    let of_user: HashSet<_> = of_user.filter_map(process).collect();
    log.lines()
        .filter(|line| line.contains("connection received"))
        .filter(|line| process(line).is_some_and(|process| of_user.contains(&process)))
        .filter_map(second)
        .collect()
}

/// Asks, and comes again when it is sent away. How often it was served.
fn come_again(port: u16, until: Instant) -> u32 {
    let mut served = 0;
    while Instant::now() < until {
        let login = [("user", "crowd"), ("database", "postgres")];
        let Ok(mut client) = RawClient::try_login(port, &login) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        while Instant::now() < until {
            if client.query("select 1 from pg_sleep(0.01)") != "T D(1) C(SELECT 1) Z(I)" {
                break;
            }
            served += 1;
        }
    }
    served
}

/// Those who are looked up and those who look up are within the same limit.
#[test]
fn lookups_while_the_pools_are_full_open_nothing_beside_them() {
    const USERS: usize = 6;
    let Some(tenant) = Tenant::new() else { return };
    let name = tenant.name.clone();
    let users: Vec<String> = (0..USERS).map(|n| format!("{name}_{n}")).collect();
    for user in &users {
        let create = format!("create role {user} login password 'secret'");
        tenant.postgres.psql("postgres", &create);
    }
    let ini = capped(tenant.ini().file("userlist.txt", "\"postgres\" \"\"\n"))
        .set("auth_type", "plain")
        .set("auth_user", "postgres");
    let pooler = start(ini);
    let port = pooler.port;
    let until = Instant::now() + Duration::from_secs(4);
    let mut root = RawClient::login(tenant.postgres.port(), "postgres", "postgres");
    let count = format!("select count(*) from pg_stat_activity where datname = '{name}'");
    let (mut most, mut samples) = (0, 0);
    let served: u32 = thread::scope(|scope| {
        let crowd: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (user, database) = (&users[n % USERS], &name);
                scope.spawn(move || look_up(port, database, user, until))
            })
            .collect();
        while Instant::now() < until {
            let now: u32 = root.value(&count).parse().expect("a number");
            most = most.max(now);
            samples += 1;
            thread::sleep(Duration::from_millis(5));
        }
        let each = crowd.into_iter().map(|one| one.join().expect("no panic"));
        each.sum()
    });
    assert!(most <= CAP, "{most} connections\n{}", pooler.log());
    assert!(most > 1 && samples > 50, "{most} in {samples} samples");
    assert!(served > CLIENTS as u32, "{served} served");
    assert!(!pooler.log().contains("the books do not balance"));
}

/// Logs in again and again, each time with a transaction that keeps a server for a while.
fn look_up(port: u16, database: &str, user: &str, until: Instant) -> u32 {
    let mut served = 0;
    while Instant::now() < until {
        let mut client = RawClient::connect(port);
        client.start_login(&[("user", user), ("database", database)]);
        if !client.read().is_ok_and(|asked| asked.tag == b'R') {
            continue;
        }
        client.send(&Batch::new().password(b"secret\0"));
        assert_eq!(client.finish_login(), Ok(()), "{user}");
        let sleep = client.query("select 1 from pg_sleep(0.02)");
        assert_eq!(sleep, "T D(1) C(SELECT 1) Z(I)", "{user}");
        served += 1;
    }
    served
}

/// A PostgreSQL whose connections can be counted on the wire, because no other test has any.
fn a_postgres_alone() -> Option<&'static Cluster> {
    static ALONE: OnceLock<Option<Cluster>> = OnceLock::new();
    ALONE
        .get_or_init(|| Cluster::start_or_skip(ClusterOptions::default()))
        .as_ref()
}

#[test]
fn an_online_restart_opens_nothing_beside_what_is_handed_over() {
    let Some(tenant) = a_postgres_alone().map(Tenant::of) else {
        return;
    };
    let mut pooler = start(capped(tenant.ini()).set("server_lifetime", 2));
    let watch = tenant.watch_machine();
    let until = Instant::now() + Duration::from_secs(6);
    let (name, port) = (&tenant.name, pooler.port);
    let mut takeovers = 0;
    thread::scope(|scope| {
        for n in 0..20 {
            scope.spawn(move || {
                let login = || RawClient::login(port, name, name);
                let mut client = login();
                while Instant::now() < until {
                    let answer = client.query("select 1 from pg_sleep(0.01)");
                    assert_eq!(answer, "T D(1) C(SELECT 1) Z(I)");
                    if n % 3 == 0 {
                        // Gone in the middle of a query, which is canceled.
                        client.send(&Batch::new().query("select pg_sleep(20)"));
                        client.is_silent_for(Duration::from_millis(30));
                        client = login();
                    }
                }
            });
        }
        while Instant::now() < until {
            pooler.reboot().expect("taken over");
            takeovers += 1;
        }
    });
    let seen = watch.end();
    assert!(seen.most <= CAP, "{seen:?}\n{}", pooler.log());
    assert!(seen.most_sockets <= CAP + CANCELS, "{seen:?}");
    assert!(
        seen.most_sockets > 0 && seen.count > 50 && takeovers > 2,
        "{seen:?}, {takeovers}"
    );
}
