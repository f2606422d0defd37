//! A pooler with all caps set, clients to come, and somebody who counts in PostgreSQL.

use std::thread;
use std::time::{Duration, Instant};

use pgweir_tests::{Ini, Pooler, RawClient, Tenant, Watch, console, eventually, start};

/// Every cap there is, in every test of this file.
pub(crate) const CAP: u32 = 5;

/// Connections for cancel requests that may be beside them.
pub(crate) const CANCELS: u32 = 2;

/// Far more clients than servers.
pub(crate) const CLIENTS: usize = 40;

pub(crate) const PID: &str = "select pg_backend_pid()";

/// A pooler with all caps set, clients to come, and somebody who counts in PostgreSQL.
pub(crate) struct Scene {
    pub(crate) tenant: Tenant,
    pub(crate) pooler: Pooler,
    pub(crate) watch: Watch,
}

impl Scene {
    pub(crate) fn new() -> Option<Self> {
        Self::with(|ini| ini)
    }

    pub(crate) fn with(change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
        let tenant = Tenant::new()?;
        let pooler = start(change(capped(tenant.ini())));
        let watch = tenant.watch_sockets(&pooler);
        Some(Self {
            tenant,
            pooler,
            watch,
        })
    }

    pub(crate) fn clients(&self) -> Vec<RawClient> {
        let client = |_| self.tenant.client(&self.pooler);
        (0..CLIENTS).map(client).collect()
    }

    pub(crate) fn wait_for_busy(&self, count: u32) {
        self.wait_for(count, "state = 'active'");
    }

    /// Waits until so many connections are seen in that state.
    pub(crate) fn wait_for(&self, count: u32, state: &str) {
        let sql = format!(
            "select count(*) from pg_stat_activity where usename = '{}' and {state}",
            self.tenant.name
        );
        let mut root = self.tenant.root();
        eventually(
            Duration::from_secs(5),
            || root.value(&sql),
            |seen| *seen == count.to_string(),
        );
    }

    pub(crate) fn backend_pids(&self) -> Vec<String> {
        self.tenant.root().rows(&format!(
            "select pid from pg_stat_activity where usename = '{}' order by pid",
            self.tenant.name
        ))
    }

    /// A new client is served without a noticeable wait.
    pub(crate) fn serves_again(&self) {
        let started = Instant::now();
        let mut client = self.tenant.client(&self.pooler);
        assert_eq!(client.value("select 1"), "1");
        let waited = started.elapsed();
        assert!(waited < Duration::from_secs(2), "waited {waited:?}");
    }

    /// Runs pgbench with many clients beside something else; not one of its transactions may fail.
    pub(crate) fn under_pgbench(&self, seconds: u32, meanwhile: impl FnOnce()) {
        let name = &self.tenant.name;
        self.tenant
            .postgres
            .pgbench(name, &["-i", "-q", "-U", name]);
        let endpoint = self.pooler.endpoint();
        let run = thread::scope(|scope| {
            let bench = scope.spawn(|| {
                let time = seconds.to_string();
                let load = ["-n", "-N", "-c", "20", "-j", "2", "-T", &time, "-U", name];
                endpoint.pgbench(name, &load)
            });
            meanwhile();
            bench.join().expect("pgbench was run")
        });
        let run = run.unwrap_or_else(|error| panic!("{error}\n{}", self.pooler.log()));
        assert!(run.transactions > 0, "{}", run.output);
        assert_eq!(run.failed, 0, "{}", run.output);
        let written = self
            .tenant
            .root()
            .value("select count(*) from pgbench_history");
        let written: u64 = written.parse().expect("a number");
        // At its end pgbench may leave one transaction of each client unfinished, or not counted.
        assert!(
            (run.transactions..=run.transactions + 20).contains(&written),
            "{written} written, {} told",
            run.transactions
        );
    }

    /// The limit has held all the time, and the pooler's books say what PostgreSQL says.
    pub(crate) fn ends_in_order(self) {
        self.books_agree();
        // What starts too late is seen too.
        thread::sleep(Duration::from_millis(300));
        let seen = self.watch.end();
        assert!(seen.most <= CAP, "{seen:?}\n{}", self.pooler.log());
        assert!(seen.most_sockets <= CAP + CANCELS, "{seen:?}");
        assert!(seen.count >= 5, "{seen:?}");
        let log = self.pooler.log();
        assert!(!log.contains("the books do not balance"), "{log}");
    }

    pub(crate) fn books_agree(&self) {
        let mut console = console(&self.pooler);
        eventually(
            Duration::from_secs(3),
            || {
                let pools = console.table("show pools");
                let pool = pools.find("database", &self.tenant.name).expect("a pool");
                let servers: i64 = ["sv_active", "sv_idle", "sv_used", "sv_tested", "sv_login"]
                    .map(|state| pool.number(state))
                    .iter()
                    .sum();
                let shown = console.table("show servers");
                let mut pids: Vec<String> = shown
                    .iter()
                    .map(|server| server.get("remote_pid").expect("a column").to_owned())
                    .collect();
                pids.sort();
                let mut real = self.backend_pids();
                real.sort();
                (servers, pids, real)
            },
            |(servers, pids, real)| *servers == real.len() as i64 && pids == real,
        );
    }
}

pub(crate) fn capped(ini: Ini) -> Ini {
    ini.set("default_pool_size", CAP)
        .set("max_db_connections", CAP)
        .set("max_user_connections", CAP)
        .set("max_client_conn", 200)
        .set("max_cancels", CANCELS)
        .set("query_wait_timeout", 30)
}
