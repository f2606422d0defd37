//! What operators have ordered for a while: SHOW MAINTENANCE, SHOW OVERRIDES; and SHOW QUARANTINE.

use std::time::Instant;

use pgweir_config::{Change, Entry};
use pgweir_console::Target;
use pgweir_console::tables::{MaintenanceRow, OverrideRow, QuarantineRow};

use super::unix_time;
use crate::servers::quarantine;
use crate::settings::overrides::{Override, printed};
use crate::shared::{Shared, lock};

pub(super) fn maintenance(shared: &Shared) -> Vec<MaintenanceRow> {
    let now = Instant::now();
    let pools = shared.pools().view();
    let ordered = lock(&shared.operator.maintenance).clone();
    let row = |(database, ordered): (String, crate::operators::maintenance::Maintenance)| {
        let of_database = || pools.iter().filter(|pool| *pool.name.database == *database);
        let remaining = ordered
            .until
            .map(|until| until.saturating_duration_since(now));
        MaintenanceRow {
            waiting: of_database().map(|pool| pool.waiting).sum(),
            busy: of_database()
                .map(|pool| pool.leased + pool.resetting + pool.being_canceled)
                .sum(),
            mode: ordered.mode,
            message: ordered.message.to_string(),
            by: ordered.by,
            since: unix_time(shared, ordered.since),
            remaining,
            database,
        }
    };
    ordered.into_iter().map(row).collect()
}

pub(super) fn overrides(shared: &Shared) -> Vec<OverrideRow> {
    let now = Instant::now();
    let overrides = lock(&shared.overrides);
    let in_force = shared.config();
    let base = overrides.base(&in_force);
    let row = |active: &Override| {
        let Change { entry, key, .. } = &active.change;
        OverrideRow {
            key: key.clone(),
            target: target(entry),
            value: printed(&in_force, entry, key),
            reverts_to: printed(&base, entry, key),
            by: active.by.clone(),
            since: unix_time(shared, active.since),
            remaining: active.until.saturating_duration_since(now),
        }
    };
    overrides.active().iter().map(row).collect()
}

fn target(entry: &Entry) -> Target {
    match entry {
        Entry::Main => Target::Main,
        Entry::Database(name) => Target::Database(name.clone()),
        Entry::User(name) => Target::User(name.clone()),
    }
}

pub(super) fn quarantine(shared: &Shared) -> Vec<QuarantineRow> {
    let slots = quarantine::slots(shared).into_iter();
    let row = |slot: pgweir_pool::view::SlotView| {
        let info = shared.servers.get(&slot.id.serial())?;
        Some(QuarantineRow {
            id: slot.id.serial(),
            server: info.address.to_string(),
            database: info.home.name.database.clone(),
            user: info.home.name.user.clone(),
            backend: info.process_id(),
            since: unix_time(shared, slot.since),
        })
    };
    slots.filter_map(row).collect()
}
