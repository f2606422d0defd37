//! What PostgreSQL says of its own limits: asked once a minute on a server that nobody uses, and at
//! a login where a limit of ours is a part of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_pool::{PoolName, Scope, SlotId};
use pgweir_session::Rules;
use tokio::time::timeout;

use crate::close::{self, Busy};
use crate::server::Server;
use crate::shared::{PoolHome, Shared, lock};
use crate::{ask, limits, pools, preflight};

/// How long an answer is believed.
const KEPT: Duration = Duration::from_secs(60);

/// How long PostgreSQL may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

const QUESTION: &str = "SELECT current_setting('max_connections'), \
    current_setting('superuser_reserved_connections'), \
    coalesce(current_setting('reserved_connections', true), '0'), \
    (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend'), \
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
        if !is_due(shared, host, &home, now) {
            continue;
        }
        let lent = shared.pools().lend_idle(home.id, now);
        if let Some((slot, server)) = lent {
            lock(&shared.facts).asking.push(Arc::clone(host));
            tokio::spawn(ask_and_return(
                Arc::clone(shared),
                slot,
                server,
                Arc::clone(host),
            ));
        }
    }
}

fn is_due(shared: &Shared, host: &Arc<str>, home: &PoolHome, now: Instant) -> bool {
    let facts = lock(&shared.facts);
    let is_fresh = |facts: &HostFacts| now.saturating_duration_since(facts.asked_at) < KEPT;
    let known = facts.hosts.get(host).is_some_and(is_fresh) && facts.pools.contains_key(&home.name);
    !known && !facts.asking.contains(host)
}

/// Whether something depends on what the pool's PostgreSQL has, and that is not known yet.
pub(crate) fn is_needed(shared: &Shared, rules: &crate::shared::Rules) -> bool {
    let unknown = |host| !lock(&shared.facts).hosts.contains_key(host);
    let global = &rules.config.global;
    let matters = global.max_host_connections.is_relative()
        || global.preflight == pgweir_config::Preflight::Enforce;
    matters && limits::hosts(rules).iter().all(unknown)
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
            // It is not asked again before the answer would be old.
            note(&shared, &server.info.home, None);
            match server.relay.may_release() {
                true => pools::checkin(&shared, slot, server, Instant::now()),
                false => close::give_up(&shared, slot, server, "survey failed", Busy::Yes),
            }
        }
        Err(_) => close::give_up(&shared, slot, server, "survey timed out", Busy::Yes),
    }
}

/// Asks, and sets the limits that follow from the answer.
pub(crate) async fn ask(shared: &Arc<Shared>, server: &mut Server) -> Result<(), String> {
    let rules = Rules::plain(&shared.tracked, &shared.statements);
    let row = ask::row(server, QUESTION, &rules).await?;
    let numbers: Option<Vec<i64>> = row
        .iter()
        .map(|cell| str::from_utf8(cell.as_deref()?).ok()?.parse().ok())
        .collect();
    let Some([max, superusers, reserved, backends, role, database]) = numbers.as_deref() else {
        return Err("an answer of another form was expected".to_owned());
    };
    let count = |number: i64| u32::try_from(number).unwrap_or(0);
    let limit = |number: i64| u32::try_from(number).ok();
    let host = HostFacts {
        max_connections: count(*max),
        reserved: count(superusers + reserved),
        backends: count(*backends),
        asked_at: Instant::now(),
    };
    let pool = PoolFacts {
        role: limit(*role),
        database: limit(*database),
    };
    note(shared, &server.info.home, Some((host, pool)));
    Ok(())
}

fn note(shared: &Shared, home: &PoolHome, answer: Option<(HostFacts, PoolFacts)>) {
    let rules = home.rules();
    let hosts = limits::hosts(&rules);
    let [host] = &*hosts else { return };
    let none = PoolFacts {
        role: None,
        database: None,
    };
    let mut facts = lock(&shared.facts);
    let (host_facts, pool_facts) = answer.unzip();
    facts
        .pools
        .insert(home.name.clone(), pool_facts.unwrap_or(none));
    let Some(host_facts) = host_facts else { return };
    facts.hosts.insert(Arc::clone(host), host_facts);
    drop(facts);
    let global = &rules.config.global;
    if global.max_host_connections.is_relative() {
        let servers = global.host_servers(Some(host_facts.ordinary()));
        let scope = Scope::HostServers(Arc::clone(host));
        shared.pools().budget.set_limit(&scope, servers);
    }
    preflight::look(shared);
}
