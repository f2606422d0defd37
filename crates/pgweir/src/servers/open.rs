//! Opens a server: resolve, connect, encrypt, log in, greet.
//!
//! The slot was taken before this began. Whatever happens here, it ends with exactly one of
//! [`opened`](pgweir_pool::Pools::opened), [`open_failed`](pgweir_pool::Pools::open_failed) where no socket is left,
//! [`open_stuck`](pgweir_pool::Pools::open_stuck) where PostgreSQL does not close it, and
//! [`no_host`](pgweir_pool::Pools::no_host) where it has not begun.

mod connect_query;
pub(crate) mod diary;
mod encrypt;
mod host;
mod opening;
mod proof;
mod role;
pub(crate) mod secret;
pub(crate) mod source;

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pgweir_config::{Host, TargetSessionAttrs};
use pgweir_net::{Address, Target};
use pgweir_pool::{Actions, Failure, FailureKind, PoolId, Scope, SlotId};
use tokio::time::timeout;

use crate::clients::client::Client;
use crate::servers::close::Stuck;
use crate::servers::open::diary::Diary;
pub(crate) use crate::servers::open::host::reach;
use crate::servers::open::host::{Candidate, PassedOver, candidates, find_target};
use crate::servers::open::opening::{Opening, Refused};
pub(crate) use crate::servers::open::role::role_changed;
use crate::servers::open::secret::Tries;
use crate::servers::server::{Server, ServerInfo};
use crate::servers::{close, pools};
use crate::shared::{PoolHome, Rules, Shared, lock};
use crate::watch::{events, logins};

/// Starts to open a server with a permit that has been taken.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    pool: PoolId,
    slot: SlotId,
    dedicated_to: Option<Arc<Client>>,
) {
    let Some(home) = shared.home_of(pool) else {
        let failure = connect_failure("pool was removed");
        let actions = shared.pools().open_failed(slot, failure, Instant::now());
        return pools::perform(shared, actions);
    };
    tokio::spawn(run(Arc::clone(shared), home, slot, dedicated_to));
}

async fn run(
    shared: Arc<Shared>,
    home: Arc<PoolHome>,
    slot: SlotId,
    dedicated_to: Option<Arc<Client>>,
) {
    let asked_by = dedicated_to.as_ref().map(|client| client.id);
    let mut diary = Diary::default();
    let result = attempt(&shared, &home, slot, dedicated_to, &mut diary).await;
    if let Err(Unopened { failure, .. }) = &result {
        diary.failed(described(failure));
    }
    logins::note(&home, &diary);
    keep(&shared, &home, asked_by, diary);
    let actions = match result {
        Ok(server) => {
            home.totals.add(&mut pgweir_stats::Tally {
                server_open_count: 1,
                ..Default::default()
            });
            shared.pools().opened(slot, server, Instant::now())
        }
        Err(unopened) => give_up(&shared, &home, slot, unopened),
    };
    pools::perform(&shared, actions);
    shared.ended.notify_waiters();
}

/// Gives the slot back, or leaves it to whoever waits for its end.
fn give_up(
    shared: &Shared,
    home: &PoolHome,
    slot: SlotId,
    unopened: Unopened,
) -> Actions<Box<Server>, Arc<Client>> {
    let (failure, now) = (unopened.failure, Instant::now());
    if let Some(hosts) = unopened.full {
        return shared.pools().no_host(slot, hosts, failure, now);
    }
    events::login_failure(shared, home, &failure);
    if let Some(stuck) = unopened.stuck {
        let actions = shared.pools().open_stuck(slot, failure, now);
        stuck.wait_for_end();
        return actions;
    }
    shared.servers.remove(&slot.serial());
    shared.pools().open_failed(slot, failure, now)
}

/// A failure with PostgreSQL's code.
fn described(failure: &Failure) -> String {
    match failure.sqlstate {
        Some(code) => format!("{} ({})", failure.message, String::from_utf8_lossy(&code)),
        None => failure.message.to_string(),
    }
}

/// Keeps what an attempt went through for whoever asks.
fn keep(shared: &Shared, home: &PoolHome, asked_by: Option<u64>, diary: Diary) {
    if let Some(client) = asked_by
        && let Some(kept) = lock(&shared.diaries).get_mut(&client)
    {
        kept.clone_from(&diary);
    }
    if diary.failure().is_some() {
        *lock(&home.last_failure) = Some((Instant::now(), diary));
    }
}

/// One attempt: one host, or with `target_session_attrs` one after the other. Every socket that was
/// opened has been closed by PostgreSQL when this fails, but for one that is stuck.
async fn attempt(
    shared: &Arc<Shared>,
    home: &Arc<PoolHome>,
    slot: SlotId,
    dedicated_to: Option<Arc<Client>>,
    diary: &mut Diary,
) -> Result<Box<Server>, Unopened> {
    let rules = home.rules();
    let mut passed_over = PassedOver::default();
    let mut stuck = None;
    for candidate in candidates(home, &rules, Instant::now()) {
        if !candidate.take(shared, slot) {
            passed_over.note_full(&candidate);
            continue;
        }
        let dedicated_to = dedicated_to.clone();
        let opened = at_host(shared, home, &rules, slot, &candidate, dedicated_to, diary).await;
        let unopened = match opened {
            Ok(server) => return Ok(server),
            Err(unopened) => unopened,
        };
        diary.failed(described(&unopened.failure));
        if unopened.is_given_up {
            return Err(unopened);
        }
        candidate.failed(Instant::now());
        let goes_on = passed_over.note(&candidate, unopened.failure);
        stuck = unopened.stuck;
        if !goes_on || stuck.is_some() {
            break;
        }
        let actions = shared.pools().leave_host(slot, Instant::now());
        pools::perform(shared, actions);
    }
    let full = passed_over.all_full();
    let failure = passed_over.failure(rules.database.target_session_attrs());
    if full.is_some() {
        log_nowhere(shared, home, &failure);
    }
    Err(Unopened {
        failure,
        is_given_up: false,
        stuck,
        full,
    })
}

/// Why there is no server, and what may follow.
struct Unopened {
    failure: Failure,
    /// Logins are given up, which says nothing about the host.
    is_given_up: bool,
    /// A connection that has not ended in time: it must not be followed by another one.
    stuck: Option<Stuck>,
    /// There was room on none of these hosts, which are all.
    full: Option<Arc<[Scope]>>,
}

impl From<Failure> for Unopened {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            is_given_up: false,
            stuck: None,
            full: None,
        }
    }
}

/// The part of an attempt that concerns one host.
async fn at_host(
    shared: &Arc<Shared>,
    home: &Arc<PoolHome>,
    rules: &Arc<Rules>,
    slot: SlotId,
    candidate: &Candidate<'_>,
    dedicated_to: Option<Arc<Client>>,
    diary: &mut Diary,
) -> Result<Box<Server>, Unopened> {
    diary.forgive("the next host is tried");
    let database = &rules.database;
    let found = find_target(shared, &rules.config, database, candidate.host, diary).await;
    let (target, host) = match found {
        Ok(found) => found,
        Err(failure) => {
            log_nowhere(shared, home, &failure);
            return Err(failure.into());
        }
    };
    let address = match &target {
        Target::Tcp(address) => Address::Tcp(*address),
        Target::Unix(_) => Address::Unix {
            peer: None,
            port: database.port(),
        },
    };
    let place = Place {
        target,
        name: candidate.host.map_or("", Host::as_str),
        host,
        address,
        wanted: candidate.wanted,
    };
    try_secrets(shared, home, rules, slot, &place, dedicated_to, diary).await
}

/// There is no address that a connection could have gone to.
fn log_nowhere(shared: &Shared, home: &PoolHome, failure: &Failure) {
    let (name, id) = (&home.name, shared.next_id());
    let peer = format!("S-{id:#x}: {}/{}@(bad-af)", name.database, name.user);
    log_end(shared, &peer, &failure.message, 0);
}

/// Where a server is.
struct Place<'a> {
    target: Target,
    /// As the configuration names it.
    name: &'a str,
    host: Option<Arc<str>>,
    address: Address,
    /// What it has to be.
    wanted: TargetSessionAttrs,
}

/// Logs in with each secret in turn, for as long as PostgreSQL refuses no more than that.
async fn try_secrets(
    shared: &Arc<Shared>,
    home: &Arc<PoolHome>,
    rules: &Arc<Rules>,
    slot: SlotId,
    place: &Place<'_>,
    dedicated_to: Option<Arc<Client>>,
    diary: &mut Diary,
) -> Result<Box<Server>, Unopened> {
    let mut tries = Tries::new();
    let mut refused: Option<Unopened> = None;
    loop {
        let found = match tries.next(shared, home, rules, place.name).await {
            Ok(Some(found)) => found,
            Ok(None) => break,
            Err(reason) => {
                tracing::warn!("{reason}");
                if refused.is_none() {
                    diary.begin("secret");
                    diary.failed(reason);
                    refused = Some(connect_failure("no password can be read").into());
                }
                break;
            }
        };
        if refused.is_some() {
            diary.forgive("PostgreSQL does not take it; another one is tried");
        }
        let info = server_info(shared, home, place);
        let mut opening = Opening {
            shared,
            info: &info,
            rules,
            secret: &found,
            wanted: place.wanted,
            talk: None,
            dedicated_to: dedicated_to.clone(),
            refused: None,
            diary: &mut *diary,
        };
        let unopened = match one_connection(shared, slot, &mut opening).await {
            Ok(server) => {
                *lock(&home.proven_secret) = Some(found.secret);
                return Ok(server);
            }
            Err(unopened) => unopened,
        };
        let is_about_it = match opening.refused {
            Some(Refused::Secret) => true,
            Some(Refused::Authorization) => found.is_token,
            None => false,
        };
        let is_last = !is_about_it || unopened.is_given_up || unopened.stuck.is_some();
        refused = Some(unopened);
        if is_last {
            break;
        }
    }
    Err(refused.unwrap_or_else(|| connect_failure("no password").into()))
}

fn server_info(shared: &Shared, home: &Arc<PoolHome>, place: &Place<'_>) -> Arc<ServerInfo> {
    Arc::new(ServerInfo {
        id: shared.next_id(),
        home: Arc::clone(home),
        fd: OnceLock::new(),
        target: place.target.clone(),
        host: place.host.clone(),
        address: place.address,
        connected_at: Instant::now(),
        local: OnceLock::new(),
        tls: OnceLock::new(),
        certificate_expiry: OnceLock::new(),
        cancel_key: OnceLock::new(),
        welcome: OnceLock::new(),
        served: AtomicI32::new(0),
        served_before: AtomicI32::new(0),
        prepared: AtomicUsize::new(0),
    })
}

/// Connects and logs in once. When this fails, PostgreSQL has closed the socket, or it is stuck.
async fn one_connection(
    shared: &Arc<Shared>,
    slot: SlotId,
    opening: &mut Opening<'_>,
) -> Result<Box<Server>, Unopened> {
    let info = Arc::clone(opening.info);
    shared.servers.insert(slot.serial(), Arc::clone(&info));
    let patience = shared.config().global.server_connect_timeout.limit();
    let mut is_given_up = false;
    let outcome = tokio::select! {
        outcome = timeout(patience.unwrap_or(Duration::MAX), opening.run()) => outcome,
        () = shared.standstill.no_more_logins() => {
            is_given_up = true;
            Ok(Err(connect_failure("suspend_timeout").into()))
        }
    };
    let age = info.connected_at.elapsed();
    if outcome.is_err() {
        let seconds = age.as_secs_f64();
        let text = format!("no answer within {seconds:.1} s (server_connect_timeout)");
        opening.diary.failed(text);
    }
    let trouble = match outcome {
        Ok(Ok(server)) => return Ok(server),
        Ok(Err(trouble)) => trouble,
        // Local is known from when the connection stands.
        Err(_) if info.local.get().is_none() => connect_failure("connect failed").into(),
        Err(_) => connect_failure("connect timeout").into(),
    };
    opening.diary.failed(described(&trouble.failure));
    log_end(shared, &info, &trouble.log, age.as_secs());
    // PostgreSQL counts a login until its backend has ended: the slot waits for that.
    let stuck = match opening.talk.take() {
        Some(talk) => close::end_login(shared, slot, talk.stream).await,
        None => None,
    };
    Err(Unopened {
        is_given_up,
        stuck,
        ..trouble.failure.into()
    })
}

fn log_end(shared: &Shared, peer: &impl fmt::Display, reason: &str, age: u64) {
    if shared.config().global.log_disconnections {
        tracing::info!(peer = %peer, "closing because: {reason} (age={age}s)");
    }
}

/// PostgreSQL was not reached.
fn connect_failure(message: &str) -> Failure {
    Failure {
        message: message.into(),
        sqlstate: None,
        kind: FailureKind::Connect,
    }
}
