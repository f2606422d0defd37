//! A pooler, and what becomes of clients and servers that are over their time.

use std::time::{Duration, Instant};

use pgweir_tests::{Ini, Pooler, RawClient, Tenant, eventually, start};

pub(crate) const PID: &str = "select pg_backend_pid()";

pub(crate) struct Scene {
    pub(crate) tenant: Tenant,
    pub(crate) ini: Ini,
    pub(crate) pooler: Pooler,
}

impl Scene {
    /// A pool of one, unless it is changed.
    pub(crate) fn new(change: impl FnOnce(Ini) -> Ini) -> Option<Self> {
        let tenant = Tenant::new()?;
        let ini = change(tenant.ini().set("default_pool_size", 1));
        let pooler = start(ini.clone());
        Some(Self {
            tenant,
            ini,
            pooler,
        })
    }

    pub(crate) fn client(&self) -> RawClient {
        self.tenant.client(&self.pooler)
    }

    /// The client is sent away with this text, in time and in order, and the log says the same.
    #[track_caller]
    pub(crate) fn is_told(&self, client: &mut RawClient, text: &str) {
        let asked = Instant::now();
        let said = client.until_closed();
        let waited = asked.elapsed();
        let error = format!("E(FATAL 08P01 {text})");
        assert!(said.ends_with(&error), "{said}");
        assert!(waited < Duration::from_secs(3), "after {waited:?}");
        let log = self.pooler.log();
        assert!(
            log.contains(&format!("closing because: {text} (age=")),
            "{log}"
        );
    }

    #[track_caller]
    pub(crate) fn backends_become(&self, expected: u32) {
        eventually(
            Duration::from_secs(4),
            || self.tenant.backends(),
            |count| *count == expected,
        );
    }

    /// No query and no transaction of the user is left in PostgreSQL.
    #[track_caller]
    pub(crate) fn nothing_runs(&self) {
        let mut root = self.tenant.root();
        let running = format!(
            "select count(*) from pg_stat_activity where usename = '{}' and state <> 'idle'",
            self.tenant.name
        );
        eventually(
            Duration::from_secs(2),
            || root.value(&running),
            |count| count == "0",
        );
    }

    /// Uses so many servers at once, so that they are all open.
    pub(crate) fn occupy(&self, count: usize) {
        let mut clients: Vec<RawClient> = (0..count).map(|_| self.client()).collect();
        for client in &mut clients {
            assert_eq!(client.query("begin"), "C(BEGIN) Z(T)");
        }
        for client in &mut clients {
            assert_eq!(client.query("commit"), "C(COMMIT) Z(I)");
        }
    }
}
