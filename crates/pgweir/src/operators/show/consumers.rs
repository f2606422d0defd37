//! SHOW CONSUMERS and SHOW APPS.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use pgweir_console::tables::{AppRow, ConsumerRow};
use pgweir_stats::usage::Account;

use crate::shared::{Shared, lock};
use crate::watch::consumers::Consumer;

/// Who uses how much; who has most of the servers' time first.
pub(super) fn consumers(shared: &Shared) -> Vec<ConsumerRow> {
    let usage = lock(&shared.consumers);
    let row = |(consumer, account, share): (&Consumer, &Account, f64)| ConsumerRow {
        user: Arc::clone(&consumer.user),
        application_name: Arc::clone(&consumer.app),
        address: consumer
            .address
            .map_or_else(|| "unix".to_owned(), |ip| ip.to_string()),
        clients: account.now.clients,
        servers: account.now.holding,
        waiting: account.now.waiting,
        held_percent: percent(share),
        peak_clients: account.peak_clients,
        peak_servers: account.peak_holding,
    };
    let mut rows: Vec<_> = usage.accounts().map(row).collect();
    rows.sort_by_key(|row| (Reverse(row.held_percent), Reverse(row.clients)));
    rows
}

/// Applications, by name.
pub(crate) fn apps(shared: &Shared) -> Vec<AppRow> {
    let usage = lock(&shared.consumers);
    let mut by_name: BTreeMap<Arc<str>, Vec<&Account>> = BTreeMap::new();
    for (consumer, account, _) in usage.accounts() {
        by_name
            .entry(Arc::clone(&consumer.app))
            .or_default()
            .push(account);
    }
    by_name
        .into_iter()
        .map(|(name, accounts)| app(name, &accounts))
        .collect()
}

/// One application, from the accounts of its addresses and users.
fn app(application_name: Arc<str>, accounts: &[&Account]) -> AppRow {
    let sum = |of: fn(&Account) -> u32| accounts.iter().map(|account| of(account)).sum();
    let most = |of: fn(&Account) -> u32| {
        let all = accounts.iter().map(|account| of(account));
        all.max().unwrap_or(0)
    };
    let patience = accounts.iter().filter_map(|account| account.gave_up_after);
    let patience = patience.max().map_or(0, |waited| waited.as_millis());
    let idle: f64 = accounts.iter().map(|account| account.idle_share()).sum();
    let present = accounts.iter().filter(|account| account.now.clients > 0);
    AppRow {
        application_name,
        addresses: u32::try_from(present.count()).unwrap_or(u32::MAX),
        clients: sum(|account| account.now.clients),
        pool_size: most(|account| account.peak_clients),
        servers: sum(|account| account.now.holding),
        peak_servers: most(|account| account.peak_holding),
        waiting: sum(|account| account.now.waiting),
        idle_percent: percent(idle / accounts.len().max(1) as f64),
        gave_up: accounts.iter().map(|account| account.gave_up).sum(),
        gave_up_after_ms: u64::try_from(patience).unwrap_or(u64::MAX),
    }
}

fn percent(share: f64) -> u32 {
    (share * 100.0).round() as u32
}
