//! Where a server is opened: whose turn it is among several hosts, who is passed over, and at which address.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgweir_config::{Config, Database, Host, LoadBalanceHosts, TargetSessionAttrs};
use pgweir_net::{Target, UnixName, connect};
use pgweir_pool::{Failure, FailureKind, Scope, SlotId};
use tokio::time::timeout;

use super::connect_failure;
use super::diary::Diary;
use crate::servers::names;
use crate::shared::{PoolHome, Rules, Shared, lock};

/// A host to try.
pub(super) struct Candidate<'a> {
    /// `None` is the Unix socket in `unix_socket_dir`.
    pub(super) host: Option<&'a Host>,
    /// What PostgreSQL has to be there.
    pub(super) wanted: TargetSessionAttrs,
    database: &'a Database,
    home: &'a PoolHome,
    turn: usize,
}

/// The hosts of a database, in the order in which an attempt tries them. Those that were passed over
/// lately come last: most of them are what they were.
pub(super) fn candidates<'a>(
    home: &'a PoolHome,
    rules: &'a Rules,
    now: Instant,
) -> Vec<Candidate<'a>> {
    let database = &rules.database;
    let (wanted, hosts) = (database.target_session_attrs(), database.hosts());
    let first = home.turn.load(Ordering::Relaxed);
    let turns = first..first + hosts.len().max(1);
    let candidate = |wanted, turn: usize| Candidate {
        host: hosts.get(turn % hosts.len().max(1)),
        wanted,
        database,
        home,
        turn,
    };
    if wanted == TargetSessionAttrs::Any {
        return turns.map(|turn| candidate(wanted, turn)).collect();
    }
    let retry = rules.config.global.server_login_retry.duration();
    let (late, mut order): (Vec<_>, Vec<_>) = turns
        .clone()
        .map(|turn| candidate(wanted, turn))
        .partition(|candidate| candidate.was_passed_over(retry, now));
    match wanted {
        TargetSessionAttrs::PreferStandby => {
            order.extend(turns.map(|turn| candidate(TargetSessionAttrs::Any, turn)));
        }
        TargetSessionAttrs::Any
        | TargetSessionAttrs::ReadWrite
        | TargetSessionAttrs::ReadOnly
        | TargetSessionAttrs::Primary
        | TargetSessionAttrs::Standby => order.extend(late),
    }
    order
}

impl Candidate<'_> {
    /// As limits and the log name it.
    pub(super) fn name(&self) -> String {
        match self.host {
            Some(host) => self.database.host_name(host),
            None => format!("port {}", self.database.port()),
        }
    }

    /// Counts the slot at this host, if that may have another server. The next attempt goes to the next
    /// host in turn, or to this one for as long as it works. A host that is the only one has been
    /// asked with the other limits.
    pub(super) fn take(&self, shared: &Shared, slot: SlotId) -> bool {
        let has_room = self.database.hosts().len() <= 1
            || shared
                .pools()
                .choose_host(slot, &Scope::HostServers(self.name().into()));
        if has_room {
            let next = match self.is_sticky() {
                true => self.turn,
                false => self.turn.wrapping_add(1),
            };
            self.home.turn.store(next, Ordering::Relaxed);
        }
        has_room
    }

    /// It did not work: the next attempt goes to the next host. Attempts that ran side by side and
    /// failed alike go on by one host, not by as many as they were.
    pub(super) fn failed(&self, now: Instant) {
        if self.is_sticky() {
            let next = self.turn.wrapping_add(1);
            let order = Ordering::Relaxed;
            let _ = self
                .home
                .turn
                .compare_exchange(self.turn, next, order, order);
        }
        if self.wanted != TargetSessionAttrs::Any {
            lock(&self.home.passed_over).insert(self.name(), now);
        }
    }

    fn is_sticky(&self) -> bool {
        self.database.load_balance_hosts() == LoadBalanceHosts::Disable
    }

    fn was_passed_over(&self, retry: Duration, now: Instant) -> bool {
        let passed_over = lock(&self.home.passed_over);
        let at = passed_over.get(&self.name());
        at.is_some_and(|&at| now.saturating_duration_since(at) < retry)
    }
}

/// Hosts that an attempt could not use, in the order in which they were tried.
#[derive(Default)]
pub(super) struct PassedOver {
    hosts: Vec<(String, Failure)>,
    /// Whether any of them was tried.
    is_tried: bool,
}

impl PassedOver {
    /// The hosts, if there was room on none of them.
    pub(super) fn all_full(&self) -> Option<Arc<[Scope]>> {
        let scope = |(name, _): &(String, Failure)| Scope::HostServers(name.as_str().into());
        (!self.is_tried).then(|| self.hosts.iter().map(scope).collect())
    }

    /// Notes a host that has no room.
    pub(super) fn note_full(&mut self, candidate: &Candidate<'_>) {
        let failure = Failure {
            kind: FailureKind::Busy,
            ..connect_failure("it has max_host_connections servers")
        };
        self.add(candidate, failure);
    }

    /// Notes why a host was not used. `true`: the attempt goes on with the next one, as libpq does, which
    /// does not go on where a login was refused.
    pub(super) fn note(&mut self, candidate: &Candidate<'_>, failure: Failure) -> bool {
        let goes_on = candidate.database.target_session_attrs() != TargetSessionAttrs::Any
            && matches!(failure.kind, FailureKind::Connect | FailureKind::Busy);
        self.is_tried = true;
        self.add(candidate, failure);
        goes_on
    }

    fn add(&mut self, candidate: &Candidate<'_>, failure: Failure) {
        let name = candidate.name();
        self.hosts.retain(|(known, _)| *known != name);
        self.hosts.push((name, failure));
    }

    /// Why there is no server.
    pub(super) fn failure(mut self, wanted: TargetSessionAttrs) -> Failure {
        let last = self.hosts.pop().filter(|_| self.is_tried);
        let Some((last, failure)) = last else {
            return Failure {
                kind: FailureKind::Busy,
                ..connect_failure("every host has max_host_connections servers")
            };
        };
        let is_final = matches!(failure.kind, FailureKind::Login | FailureKind::Own);
        if wanted == TargetSessionAttrs::Any || is_final {
            return failure;
        }
        let mut text = format!("no host for target_session_attrs={}: ", wanted.word());
        let mut kind = failure.kind;
        for (name, failure) in &self.hosts {
            text += &format!("{name}: {}; ", failure.message);
            // One that is busy may be the right one: it is waited for.
            if failure.kind == FailureKind::Busy {
                kind = FailureKind::Busy;
            }
        }
        text += &format!("{last}: {}", failure.message);
        Failure {
            message: text.into(),
            kind,
            ..failure
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
