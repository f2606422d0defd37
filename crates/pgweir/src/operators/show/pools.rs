//! SHOW POOLS: how the servers and clients of each pool stand.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pgweir_config::{CONSOLE_DATABASE, LoadBalanceHosts};
use pgweir_console::tables::PoolRow;
use pgweir_pool::SlotState;
use pgweir_pool::view::SlotView;

use crate::shared::{Shared, read};

pub(crate) fn rows(shared: &Shared) -> Vec<PoolRow> {
    let homes = shared.homes();
    let now = Instant::now();
    let views = shared.pools().view();
    let stale_after = shared.config().global.server_check_delay.duration();
    let mut used: BTreeMap<_, usize> = BTreeMap::new();
    for slot in shared.pools().slots() {
        if slot.state == SlotState::Idle && is_used(&slot, stale_after, now) {
            *used.entry(slot.pool).or_default() += 1;
        }
    }
    let mut rows: Vec<_> = views
        .into_iter()
        .filter_map(|view| {
            let home = homes.get(&view.name)?;
            let rules = read(&home.rules);
            let used = used.get(&view.id).copied().unwrap_or_default();
            let several = rules.database.hosts().len() > 1;
            let cl_active = view.active_clients() as usize;
            let cancels = home.cancels.counts();
            Some(PoolRow {
                database: view.name.database,
                user: view.name.user,
                cl_active,
                cl_waiting: view.waiting as usize,
                cl_active_cancel_req: cancels.sent,
                cl_waiting_cancel_req: cancels.waiting + cancels.connecting,
                sv_active: view.leased as usize,
                sv_active_cancel: cancels.sent,
                sv_being_canceled: view.being_canceled as usize,
                sv_idle: (view.idle as usize).saturating_sub(used),
                sv_used: used,
                sv_tested: view.resetting as usize,
                sv_login: view.opening as usize,
                maxwait: view
                    .oldest_wait
                    .map_or(Duration::ZERO, |since| now.saturating_duration_since(since)),
                pool_mode: rules.settings.pool_mode.word(),
                load_balance_hosts: several.then(|| match rules.settings.load_balance_hosts {
                    LoadBalanceHosts::Disable => "disable",
                    LoadBalanceHosts::RoundRobin => "round-robin",
                }),
            })
        })
        .collect();
    let consoles = shared
        .clients
        .iter()
        .filter(|c| c.is_console.load(Ordering::Relaxed))
        .count();
    rows.push(PoolRow {
        database: CONSOLE_DATABASE.into(),
        user: CONSOLE_DATABASE.into(),
        cl_active: consoles,
        cl_waiting: 0,
        cl_active_cancel_req: 0,
        cl_waiting_cancel_req: 0,
        sv_active: 0,
        sv_active_cancel: 0,
        sv_being_canceled: 0,
        sv_idle: 0,
        sv_used: 0,
        sv_tested: 0,
        sv_login: 0,
        maxwait: Duration::ZERO,
        pool_mode: "statement",
        load_balance_hosts: None,
    });
    rows.sort_by(|a, b| (&a.database, &a.user).cmp(&(&b.database, &b.user)));
    rows
}

/// Idle for so long that it will be checked before its next use: PgBouncer's state `used`.
pub(super) fn is_used(slot: &SlotView, stale_after: Duration, now: Instant) -> bool {
    now.saturating_duration_since(slot.since) > stale_after
}
