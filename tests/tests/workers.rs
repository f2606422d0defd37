//! The promise: several workers share the work, the clients, the servers and the limits.

use std::fs;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pgweir_tests::{
    Authority, Batch, Begin, Cluster, ClusterOptions, Http, Ini, Pooler, RawClient, SELECT_1,
    Tenant, TlsWire, eventually, http::Metrics, self_signed_tls, start, story,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

const WORKERS: u32 = 3;
const CLIENTS: usize = 9;
const ROUNDS: usize = 30;

/// What the kernel says of each thread that serves clients, beside the first: its name, and how often it has had the processor.
fn turns(pooler: &Pooler) -> Vec<(String, u64)> {
    let folder = pooler.ini_path().parent().expect("it is in a folder");
    let pid = fs::read_to_string(folder.join("pid")).expect("there is a pidfile");
    let tasks = format!("/proc/{}/task", pid.trim());
    let tasks = fs::read_dir(tasks).expect("it runs").flatten();
    let threads = tasks.filter_map(|task| {
        let read = |file| fs::read_to_string(task.path().join(file)).ok();
        let turns = read("schedstat")?.split_whitespace().nth(2)?.parse().ok()?;
        Some((read("comm")?.trim().to_owned(), turns))
    });
    let mut threads: Vec<_> = threads
        .filter(|(name, _)| name.starts_with("worker-"))
        .collect();
    threads.sort();
    threads
}

fn tenant_with_tls() -> Option<Tenant> {
    static POSTGRES: LazyLock<Option<Cluster>> = LazyLock::new(|| {
        Cluster::start_or_skip(ClusterOptions {
            tls: Some(self_signed_tls()),
            ..ClusterOptions::default()
        })
    });
    POSTGRES.as_ref().map(Tenant::of)
}

fn ini(tenant: &Tenant) -> Ini {
    let ini = Http::set(tenant.ini()).set("workers", WORKERS);
    ini.set("pidfile", "{dir}/pid").set("default_pool_size", 1)
}

fn clients(tenant: &Tenant, pooler: &Pooler) -> Vec<RawClient> {
    (0..CLIENTS).map(|_| tenant.client(pooler)).collect()
}

/// How many clients each thread has.
fn spread(pooler: &Pooler) -> Vec<f64> {
    let page = Http::of(pooler).get("/metrics");
    let metrics = Metrics::parse(&page.body);
    let of =
        |worker: u32| metrics.value("pgweir_worker_clients", &[("worker", &worker.to_string())]);
    (0..WORKERS).map(of).collect()
}

/// Clients begin in the thread that has accepted them, and those that stay are spread soon.
#[track_caller]
fn until_even(pooler: &Pooler) {
    let is_even = |spread: &Vec<f64>| spread.iter().all(|clients| *clients == 3.0);
    eventually(Duration::from_secs(10), || spread(pooler), is_even);
}

/// All ask at the same time, again and again, for the only server.
fn all_ask(tenant: &Tenant, mut clients: Vec<RawClient>) {
    for round in 0..ROUNDS {
        for (number, client) in clients.iter_mut().enumerate() {
            let question = format!("select '{number} in round {round}'");
            client.send(&Batch::new().query(&question));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let answer = client.until_ready();
            assert_eq!(answer[1].values(), [format!("{number} in round {round}")]);
        }
    }
    assert_eq!(tenant.backends(), 1, "one limit for all workers");
}

#[test]
fn each_has_clients_and_one_server_is_lent_to_all() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant));
    let clients = clients(&tenant, &pooler);
    until_even(&pooler);
    let before = turns(&pooler);
    let names: Vec<&str> = before.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["worker-1", "worker-2"]);

    all_ask(&tenant, clients);

    let after = turns(&pooler);
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        let turns = after - before;
        assert!(turns >= ROUNDS as u64 / 2, "{name} had {turns} turns");
    }
}

/// A TLS connection stays with the thread that has opened it, whoever borrows it.
#[test]
fn a_server_behind_tls_is_lent_to_all() {
    let Some(tenant) = tenant_with_tls() else {
        return;
    };
    let pooler = start(ini(&tenant).set("server_tls_sslmode", "require"));
    let clients = clients(&tenant, &pooler);
    until_even(&pooler);
    all_ask(&tenant, clients);
}

/// What one has left waits for the next, whichever thread that is.
#[test]
fn a_server_that_ends_while_it_is_idle_is_noticed_by_all() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant));
    let mut clients = clients(&tenant, &pooler);
    until_even(&pooler);
    let mut root = tenant.root();
    for client in &mut clients {
        assert_eq!(client.query("select 1"), "T D(1) C(SELECT 1) Z(I)");
        let ended = format!(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = '{}'",
            tenant.name
        );
        assert_eq!(root.rows(&ended), ["t"]);
        eventually(
            Duration::from_secs(5),
            || tenant.backends(),
            |count| *count == 0,
        );
        // PostgreSQL counts a backend no more a little before its socket is closed.
        sleep(Duration::from_millis(100));
    }
    clients[0].send(&Batch::new().query("select 2"));
    assert_eq!(story(&clients[0].until_ready()), "T D(2) C(SELECT 1) Z(I)");
}

/// Whoever is moved to another thread is in the middle of its work, and nothing of that changes.
#[test]
fn clients_go_on_in_another_thread_as_they_were() {
    let Some(tenant) = Tenant::new() else { return };
    let ini = ini(&tenant).set("max_prepared_statements", 10);
    let pooler = start(ini.set("default_pool_size", CLIENTS));
    let begin = |number| {
        let mut client = tenant.client(&pooler);
        assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        client.rows(&format!("set application_name = 'client {number}'"));
        let kept = format!("select '{number}, ' || $1");
        client.ask(&Batch::new().parse("kept", &kept).sync());
        client
    };
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(begin).collect();
    let before = spread(&pooler);
    assert!(before[0] > 3.0, "who holds a server stays: {before:?}");

    // All but one may be moved now, and ask and ask while they are.
    for client in &mut clients[1..] {
        assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        for (number, client) in clients.iter_mut().enumerate().skip(1) {
            let execute = Batch::new().bind("", "kept", &["still"]);
            let answer = client.ask(&execute.execute("").sync());
            assert!(answer.contains(&format!("{number}, still")), "{answer}");
        }
        let spread = spread(&pooler);
        if spread == [3.0; 3] {
            break;
        }
        assert!(Instant::now() < deadline, "{spread:?}");
    }
    assert_eq!(clients[0].query("commit"), "C(COMMIT) Z(I)");
    for (number, client) in clients.iter_mut().enumerate() {
        let name = client.value("show application_name");
        assert_eq!(name, format!("client {number}"));
        assert_eq!(client.query("select 1"), SELECT_1);
    }

    // Where others have left, those that remain are spread anew.
    let mut gone = clients.drain(..);
    let mut left: Vec<RawClient> = gone.by_ref().step_by(3).collect();
    drop(gone);
    let is_even = |spread: &Vec<f64>| spread.iter().all(|clients| *clients == 1.0);
    eventually(Duration::from_secs(10), || spread(&pooler), is_even);
    for client in &mut left {
        assert_eq!(client.query("select 1"), SELECT_1);
    }
}

/// Another thread cannot serve a client behind TLS, so it begins where there are fewest.
#[test]
fn clients_that_may_encrypt_are_spread_at_once() {
    let Some(tenant) = Tenant::new() else { return };
    let authority = Authority::new("us");
    let ini = ini(&tenant).set("client_tls_sslmode", "allow");
    let pooler = start(authority.leaf("us", &["localhost"]).towards_clients(ini));
    let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("its own");
    let connect = |_| TlsWire::connect(pooler.port, &root, Begin::Asked);
    let _clients: Vec<TlsWire> = (0..CLIENTS).map(connect).collect();
    let spread = spread(&pooler);
    assert!(spread.iter().all(|clients| *clients >= 2.0), "{spread:?}");
}
