//! Opens a server: resolve, connect, encrypt, log in, greet.
//!
//! The slot was taken before this began. Whatever happens here, it ends with exactly one of
//! [`opened`](pgweir_pool::Pools::opened) and [`open_failed`](pgweir_pool::Pools::open_failed), and with the second only when no socket is left.

mod connect_query;
pub(crate) mod diary;
mod host;
mod opening;
pub(crate) mod secret;

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pgweir_net::{Address, Target};
use pgweir_pool::{Failure, FailureKind, PoolId, SlotId};
use tokio::time::timeout;

use crate::client::Client;
use crate::open::diary::Diary;
pub(crate) use crate::open::host::reach;
use crate::open::host::{choose_host, find_target};
use crate::open::opening::Opening;
use crate::server::{Server, ServerInfo};
use crate::shared::{PoolHome, Shared, lock};
use crate::{close, events, pools};

/// Starts to open a server with a permit that has been taken.
pub(crate) fn spawn(
    shared: &Arc<Shared>,
    pool: PoolId,
    slot: SlotId,
    dedicated_to: Option<Arc<Client>>,
) {
    let Some(home) = shared.homes().into_values().find(|home| home.id == pool) else {
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
    if let Err(failure) = &result {
        diary.failed(described(failure));
    }
    keep(&shared, &home, asked_by, diary);
    let actions = match result {
        Ok(server) => {
            home.totals.add(&mut pgweir_stats::Tally {
                server_open_count: 1,
                ..Default::default()
            });
            shared.pools().opened(slot, server, Instant::now())
        }
        Err(failure) => {
            shared.servers.remove(&slot.serial());
            events::login_failure(&shared, &home, &failure);
            shared.pools().open_failed(slot, failure, Instant::now())
        }
    };
    pools::perform(&shared, actions);
    shared.ended.notify_waiters();
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

/// One attempt. Every socket that was opened has been closed by PostgreSQL when this fails.
async fn attempt(
    shared: &Arc<Shared>,
    home: &Arc<PoolHome>,
    slot: SlotId,
    dedicated_to: Option<Arc<Client>>,
    diary: &mut Diary,
) -> Result<Box<Server>, Failure> {
    let rules = Arc::clone(
        &home
            .rules
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner),
    );
    let id = shared.next_id();
    let chosen = match choose_host(shared, home, &rules, slot) {
        Ok(choice) => {
            let found =
                find_target(shared, &rules.config, &rules.database, choice.host, diary).await;
            if found.is_err() {
                choice.failed();
            }
            found.map(|found| (choice, found))
        }
        Err(failure) => Err(failure),
    };
    let (choice, (target, host)) = match chosen {
        Ok(chosen) => chosen,
        Err(failure) => {
            let name = &home.name;
            let peer = format!("S-{id:#x}: {}/{}@(bad-af)", name.database, name.user);
            log_end(shared, &peer, &failure.message, 0);
            return Err(failure);
        }
    };
    let address = match &target {
        Target::Tcp(address) => Address::Tcp(*address),
        Target::Unix(_) => Address::Unix {
            peer: None,
            port: rules.database.port(),
        },
    };
    let now = Instant::now();
    let info = Arc::new(ServerInfo {
        id,
        home: Arc::clone(home),
        fd: OnceLock::new(),
        target,
        host,
        address,
        connected_at: now,
        local: OnceLock::new(),
        tls: OnceLock::new(),
        certificate_expiry: OnceLock::new(),
        cancel_key: OnceLock::new(),
        welcome: OnceLock::new(),
        served: AtomicI32::new(0),
        served_before: AtomicI32::new(0),
        prepared: AtomicUsize::new(0),
    });
    shared.servers.insert(slot.serial(), Arc::clone(&info));
    let patience = shared.config().global.server_connect_timeout.limit();
    let mut opening = Opening {
        shared,
        info: &info,
        rules: &rules,
        talk: None,
        dedicated_to,
        diary,
    };
    let outcome = tokio::select! {
        outcome = timeout(patience.unwrap_or(Duration::MAX), opening.run()) => outcome,
        () = shared.held.no_more_logins() => Ok(Err(connect_failure("suspend_timeout").into())),
    };
    if outcome.is_err() {
        let seconds = now.elapsed().as_secs_f64();
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
    choice.failed();
    log_end(shared, &info, &trouble.log, now.elapsed().as_secs());
    if let Some(mut talk) = opening.talk.take() {
        // PostgreSQL counts a login until its backend has ended: the slot waits for that.
        let _ending = close::Ending::begin(shared, slot, Some(&talk.stream));
        close::wait_for_end(shared, slot, &mut talk.stream).await;
    }
    Err(trouble.failure)
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
