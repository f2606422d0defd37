//! The promise: several workers share the work, the servers and the limits.

use std::fs;
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use pgweir_tests::{
    Batch, Cluster, ClusterOptions, Ini, Pooler, RawClient, Tenant, eventually, self_signed_tls,
    start, story,
};

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
    let ini = tenant.ini().set("workers", WORKERS);
    ini.set("pidfile", "{dir}/pid").set("default_pool_size", 1)
}

/// All ask at the same time, again and again, for the only server.
fn all_ask(tenant: &Tenant, pooler: &Pooler) {
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| tenant.client(pooler)).collect();
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
    let before = turns(&pooler);
    let names: Vec<&str> = before.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["worker-1", "worker-2"]);

    all_ask(&tenant, &pooler);

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
    all_ask(&tenant, &pooler);
}

/// What one has left waits for the next, whichever thread that is.
#[test]
fn a_server_that_ends_while_it_is_idle_is_noticed_by_all() {
    let Some(tenant) = Tenant::new() else { return };
    let pooler = start(ini(&tenant));
    let mut clients: Vec<RawClient> = (0..CLIENTS).map(|_| tenant.client(&pooler)).collect();
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
