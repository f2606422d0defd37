//! Where a server is opened: whose turn it is among several hosts, and at which address.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pgweir_config::{Config, Database, Host, LoadBalanceHosts};
use pgweir_net::{Target, UnixName, connect};
use pgweir_pool::{Failure, FailureKind, Scope, SlotId};
use tokio::time::timeout;

use super::connect_failure;
use super::diary::Diary;
use crate::names;
use crate::shared::{PoolHome, Rules, Shared};

/// Picks the host of an attempt. The next one goes to the next host in turn, or to this one for as
/// long as it works.
pub(super) fn choose_host<'a>(
    shared: &Shared,
    home: &'a PoolHome,
    rules: &'a Rules,
    slot: SlotId,
) -> Result<Choice<'a>, Failure> {
    let turn = home.turn.load(Ordering::Relaxed);
    let found = host_with_room(shared, &rules.database, slot, turn)?;
    let (turn, host) = found.map_or((turn, None), |(turn, host)| (turn, Some(host)));
    let sticky = rules.database.load_balance_hosts() == LoadBalanceHosts::Disable;
    let next = if sticky { turn } else { turn.wrapping_add(1) };
    home.turn.store(next, Ordering::Relaxed);
    Ok(Choice {
        host,
        home,
        turn: sticky.then_some(turn),
    })
}

pub(super) struct Choice<'a> {
    /// `None` is the Unix socket in `unix_socket_dir`.
    pub(super) host: Option<&'a Host>,
    home: &'a PoolHome,
    /// Which turn it was, if the next attempt is to have the same host.
    turn: Option<usize>,
}

impl Choice<'_> {
    /// It did not work: the next attempt goes to the next host. Attempts that ran side by side and
    /// failed alike go on by one host, not by as many as they were.
    pub(super) fn failed(&self) {
        if let Some(turn) = self.turn {
            let next = turn.wrapping_add(1);
            let order = Ordering::Relaxed;
            let _ = self.home.turn.compare_exchange(turn, next, order, order);
        }
    }
}

/// Finds an address of a host; a name that has several gives them in turn.
pub(super) async fn find_target(
    shared: &Shared,
    config: &Config,
    database: &Database,
    host: Option<&Host>,
    diary: &mut Diary,
) -> Result<(Target, Option<Arc<str>>), Failure> {
    let port = database.port();
    let name = match host {
        None => {
            let dir = &config.global.unix_socket_dir;
            if dir.is_empty() {
                let database = &database.name;
                tracing::error!("unix socket dir not configured: {database} (or set its host)");
                return Err(connect_failure("cannot connect"));
            }
            diary.skip("dns", format!("a Unix socket in {dir}"));
            return Ok((Target::Unix(UnixName::in_dir(dir, port)), None));
        }
        Some(Host::Unix(dir)) => {
            diary.skip("dns", format!("a Unix socket in {dir}"));
            return Ok((Target::Unix(UnixName::in_dir(dir, port)), None));
        }
        Some(Host::Tcp(name)) => name,
    };
    diary.begin("dns");
    let Some(ip) = names::resolve(shared, name).await else {
        diary.failed(format!("{name} has no address"));
        return Err(connect_failure("server DNS lookup failed"));
    };
    diary.done(format!("{name} is {ip}"));
    Ok((Target::Tcp((ip, port).into()), Some(name.as_str().into())))
}

/// Whether one of a database's hosts accepts a connection, on which nothing is said.
pub(crate) async fn reach(
    shared: &Shared,
    config: &Config,
    database: &Database,
) -> Result<(), Failure> {
    let hosts = database.hosts();
    let hosts: Vec<Option<&Host>> = match hosts.is_empty() {
        true => vec![None],
        false => hosts.iter().map(Some).collect(),
    };
    let patience = config.global.server_connect_timeout.limit();
    let patience = patience.unwrap_or(REACH_PATIENCE);
    let mut last = connect_failure("connect failed");
    for host in hosts {
        let attempt = async {
            let mut diary = Diary::default();
            let (target, _) = find_target(shared, config, database, host, &mut diary).await?;
            let connected = connect(&target, &shared.tcp_options()).await;
            connected.map_err(|_| connect_failure("connect failed"))
        };
        match timeout(patience, attempt).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(failure)) => last = failure,
            Err(_) => last = connect_failure("connect timeout"),
        }
    }
    Err(last)
}

/// How long that may take where `server_connect_timeout` sets no limit.
const REACH_PATIENCE: Duration = Duration::from_secs(15);

/// The host whose turn it is, or the next one that may have another server; `None` if the database
/// names no host. A host that is the only one has been asked with the other limits.
fn host_with_room<'a>(
    shared: &Shared,
    database: &'a Database,
    slot: SlotId,
    turn: usize,
) -> Result<Option<(usize, &'a Host)>, Failure> {
    let hosts = database.hosts();
    let has_room = |host: &Host| {
        let scope = Scope::HostServers(database.host_name(host).into());
        hosts.len() == 1 || shared.pools().choose_host(slot, &scope)
    };
    if hosts.is_empty() {
        return Ok(None);
    }
    let mut turns = (turn..turn + hosts.len()).map(|turn| (turn, &hosts[turn % hosts.len()]));
    match turns.find(|(_, host)| has_room(host)) {
        Some(found) => Ok(Some(found)),
        None => Err(Failure {
            kind: FailureKind::Busy,
            ..connect_failure("every host has max_host_connections servers")
        }),
    }
}
