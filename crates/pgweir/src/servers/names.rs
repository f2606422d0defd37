//! Names of hosts: how long their addresses are good, and what follows when they change.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pgweir_config::Settings;
use pgweir_net::{Address, DnsTtl};

use crate::shared::Shared;

/// How long answers are good.
pub(crate) fn ttl(settings: &Settings) -> DnsTtl {
    DnsTtl {
        found: settings.dns_max_ttl.duration(),
        failed: settings.dns_nxdomain_ttl.duration(),
    }
}

/// An address of a host; a name that has several gives them in turn.
///
/// `None`: it has none now, and the log says so.
pub(crate) async fn resolve(shared: &Shared, name: &str) -> Option<IpAddr> {
    let ttl = ttl(&shared.config().global);
    match shared.resolver.lookup(name, ttl, Instant::now()).await {
        Ok(addresses) => addresses.first().copied(),
        Err(error) => {
            tracing::warn!("{error}");
            None
        }
    }
}

/// Servers at addresses that their host no longer has are not used again: there may have been a
/// failover. Those that are lent are closed when they come back.
pub(crate) fn leave_old_addresses(shared: &Shared) {
    let gone: HashSet<_> = shared.resolver.take_gone().into_iter().collect();
    if gone.is_empty() {
        return;
    }
    let at_old_address = shared.servers.iter().filter(|server| {
        let host = server.host.as_deref().unwrap_or_default();
        match server.address {
            Address::Tcp(address) => gone.contains(&(host.to_owned(), address.ip())),
            Address::Unix { .. } => false,
        }
    });
    let serials: HashSet<u64> = at_old_address.map(|server| *server.key()).collect();
    shared
        .pools()
        .outdate(|serial, _| serials.contains(&serial));
}

/// Looks at the zones of all names from time to time.
#[derive(Debug)]
pub(crate) struct ZoneWatch {
    last: Instant,
    /// A slow name server must not be asked again before it has answered.
    is_looking: Arc<AtomicBool>,
}

impl ZoneWatch {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            last: now,
            is_looking: Arc::default(),
        }
    }

    /// Starts to look, if it is time.
    pub(crate) fn tick(&mut self, shared: &Arc<Shared>, now: Instant) {
        let period = shared.config().global.dns_zone_check_period.limit();
        let is_time = period.is_some_and(|period| now.duration_since(self.last) >= period);
        if !is_time || self.is_looking.swap(true, Ordering::AcqRel) {
            return;
        }
        self.last = now;
        let (shared, is_looking) = (Arc::clone(shared), Arc::clone(&self.is_looking));
        tokio::spawn(async move {
            look_at_zones(&shared, now).await;
            is_looking.store(false, Ordering::Release);
        });
    }
}

async fn look_at_zones(shared: &Shared, now: Instant) {
    let (changes, failures) = shared.resolver.check_zones(now).await;
    for change in changes {
        tracing::info!(
            "zone '{}' serial changed: old={} new={}",
            change.name,
            change.before,
            change.serial
        );
    }
    for failure in failures {
        tracing::debug!(
            "failure to get zone '{}' serial: {}",
            failure.name,
            failure.reason
        );
    }
}
