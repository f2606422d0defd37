//! What PostgreSQL says of its own limits: asked once a minute on a server that nobody uses, and at
//! a login where a limit of ours is a part of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_pool::{PoolName, SlotId};
use pgweir_session::Rules;
use tokio::time::timeout;

use crate::servers::close::{self, Busy};
use crate::servers::server::Server;
use crate::servers::{ask, pools};
use crate::settings::{limits, preflight};
use crate::shared::{PoolHome, Shared, lock};

/// How long an answer is believed.
const KEPT: Duration = Duration::from_secs(60);

/// How long PostgreSQL may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

// The type of another role's backend is hidden from ordinary users. Unlike clients', the launcher of logical replication
// has no database.
pub(crate) const QUESTION: &str = "SELECT current_setting('max_connections'), \
    current_setting('superuser_reserved_connections'), \
    coalesce(current_setting('reserved_connections', true), '0'), \
    (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE usename IS NOT NULL \
    AND datname IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend'), \
    (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname = current_user), \
    (SELECT datconnlimit FROM pg_catalog.pg_database WHERE datname = current_database())";

/// What is known of the servers' side.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// By host, as `limits` names it.
    pub(crate) hosts: HashMap<Arc<str>, HostFacts>,
    pub(crate) pools: BTreeMap<PoolName, PoolFacts>,
    /// Hosts that are being asked.
    asking: Vec<Arc<str>>,
    /// When a server of each pool was asked last, with or without success.
    asked_at: HashMap<PoolName, Instant>,
}

impl Facts {
    /// Whether a server of this pool is to be asked: too little is known, and it has not just failed to answer.
    fn is_due(&self, host: &Arc<str>, pool: &PoolName, now: Instant) -> bool {
        let facts = self.hosts.get(host);
        let is_known =
            facts.is_some_and(|facts| facts.age(now) < KEPT) && self.pools.contains_key(pool);
        !is_known && !self.was_asked(pool, now) && !self.asking.contains(host)
    }

    fn was_asked(&self, pool: &PoolName, now: Instant) -> bool {
        let at = self.asked_at.get(pool);
        at.is_some_and(|&at| now.saturating_duration_since(at) < KEPT)
    }

    fn begin(&mut self, host: &Arc<str>, pool: &PoolName, now: Instant) {
        self.asking.push(Arc::clone(host));
        self.asked_at.insert(pool.clone(), now);
    }
}

/// What one PostgreSQL has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostFacts {
    pub(crate) max_connections: u32,
    /// Of these, kept for superusers and for roles with special rights.
    pub(crate) reserved: u32,
    /// Client backends when it was asked, whoever they belong to.
    pub(crate) backends: u32,
    asked_at: Instant,
}

impl HostFacts {
    /// How long ago it was asked.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked_at)
    }

    /// Connections that ordinary users may have.
    pub(crate) fn ordinary(&self) -> u32 {
        self.max_connections.saturating_sub(self.reserved)
    }
}

/// PostgreSQL's own limits on what a pool logs in as; `None` is no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolFacts {
    pub(crate) role: Option<u32>,
    pub(crate) database: Option<u32>,
}

/// Asks the hosts about which too little is known, where a server is idle.
pub(crate) fn refresh(shared: &Arc<Shared>, now: Instant) {
    for home in shared.homes().into_values() {
        let hosts = limits::hosts(&home.rules());
        // Which of several hosts a server is on is not worth the trouble: each has its turn.
        let [host] = &*hosts else { continue };
        if !lock(&shared.facts).is_due(host, &home.name, now) {
            continue;
        }
        let lent = shared.pools().lend_idle(home.id, now);
        if let Some((slot, server)) = lent {
            lock(&shared.facts).begin(host, &home.name, now);
            tokio::spawn(ask_and_return(
                Arc::clone(shared),
                slot,
                server,
                Arc::clone(host),
            ));
        }
    }
}

/// Whether something depends on what the pool's PostgreSQL has, and that is not known yet.
pub(crate) fn is_needed(shared: &Shared, home: &PoolHome) -> bool {
    let rules = home.rules();
    let global = &rules.config.global;
    let matters = global.max_host_connections.is_relative()
        || global.preflight == pgweir_config::Preflight::Enforce;
    let hosts = limits::hosts(&rules);
    let [host] = &*hosts else { return false };
    let facts = lock(&shared.facts);
    matters && !facts.hosts.contains_key(host) && !facts.was_asked(&home.name, Instant::now())
}

async fn ask_and_return(
    shared: Arc<Shared>,
    slot: SlotId,
    mut server: Box<Server>,
    host: Arc<str>,
) {
    let answer = timeout(PATIENCE, ask(&shared, &mut server)).await;
    lock(&shared.facts).asking.retain(|asked| *asked != host);
    match answer {
        Ok(Ok(())) => pools::checkin(&shared, slot, server, Instant::now()),
        Ok(Err(error)) => {
            tracing::debug!(peer = %server.info, "limits of PostgreSQL are not known: {error}");
            match server.relay.may_release() {
                true => pools::checkin(&shared, slot, server, Instant::now()),
                false => close::give_up(&shared, slot, server, "survey failed", Busy::Yes),
            }
        }
        Err(_) => close::give_up(&shared, slot, server, "survey timed out", Busy::Yes),
    }
}

async fn ask(shared: &Arc<Shared>, server: &mut Server) -> Result<(), String> {
    let rules = Rules::plain(&shared.tracked, &shared.statements);
    let row = ask::row(server, QUESTION, &rules).await?;
    let texts = row.iter().map(|cell| str::from_utf8(cell.as_deref()?).ok());
    learn(shared, &server.info.home, texts)
}

/// Takes in the answer to [`QUESTION`], and sets the limits that follow from it.
pub(crate) fn learn<'a>(
    shared: &Shared,
    home: &PoolHome,
    row: impl Iterator<Item = Option<&'a str>>,
) -> Result<(), String> {
    let numbers: Option<Vec<i64>> = row.map(|text| text?.parse().ok()).collect();
    let now = Instant::now();
    let Some([max, superusers, reserved, backends, role, database]) = numbers.as_deref() else {
        let mut facts = lock(&shared.facts);
        facts.asked_at.insert(home.name.clone(), now);
        return Err("an answer of another form was expected".to_owned());
    };
    let count = |number: i64| u32::try_from(number).unwrap_or(0);
    let limit = |number: i64| u32::try_from(number).ok();
    let host = HostFacts {
        max_connections: count(*max),
        reserved: count(superusers + reserved),
        backends: count(*backends),
        asked_at: now,
    };
    let pool = PoolFacts {
        role: limit(*role),
        database: limit(*database),
    };
    note(shared, home, host, pool);
    Ok(())
}

fn note(shared: &Shared, home: &PoolHome, host_facts: HostFacts, pool_facts: PoolFacts) {
    let rules = home.rules();
    let hosts = limits::hosts(&rules);
    let [host] = &*hosts else { return };
    let mut facts = lock(&shared.facts);
    facts.pools.insert(home.name.clone(), pool_facts);
    facts.hosts.insert(Arc::clone(host), host_facts);
    drop(facts);
    {
        let mut pools = shared.pools();
        // Whoever puts another one in force looks at all pools after that, and so comes later.
        let config = shared.config();
        limits::apply_to_host(&mut pools.budget, host, &config.global, Some(&host_facts));
    }
    preflight::look(shared);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(database: &str) -> PoolName {
        PoolName {
            database: database.into(),
            user: "u".into(),
        }
    }

    #[test]
    fn a_pool_that_does_not_answer_is_not_asked_all_the_time() {
        let (mut facts, host) = (Facts::default(), Arc::<str>::from("one"));
        let now = Instant::now();
        assert!(facts.is_due(&host, &pool("a"), now));
        facts.begin(&host, &pool("a"), now);
        assert!(!facts.is_due(&host, &pool("b"), now), "one asks");
        // It fails: the next one may know.
        facts.asking.clear();
        assert!(!facts.is_due(&host, &pool("a"), now));
        assert!(facts.is_due(&host, &pool("b"), now));
        assert!(facts.is_due(&host, &pool("a"), now + KEPT));
    }
}
