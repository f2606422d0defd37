//! Limits and how much of them is used, what PostgreSQL has, and who is suspected of a leak.

use std::time::Instant;

use pgweir_console::tables::BudgetRow;
use pgweir_pool::leak::Stage;
use pgweir_stats::metrics::{
    LEAK_SUSPECTS, LEAKS, LIMIT_USED, LIMIT_VALUE, LIMIT_WAITING, PG_ASKED, PG_BACKENDS,
    PG_CONNECTIONS, PG_HEADROOM, PG_MAX_CONNECTIONS, SATURATION, STRICT_FINDINGS,
};
use pgweir_stats::prometheus::Page;

use crate::operators::show;
use crate::servers::survey::HostFacts;
use crate::shared::{Shared, lock};
use crate::watch::leaks::KINDS;
use crate::watch::strict::FindingKind;

/// Limits on the page, the fullest ones: each application and each address may have one.
const LIMITS_MAX: usize = 300;

pub(super) fn write(shared: &Shared, page: &mut Page) {
    limits(shared, page);
    postgres(shared, page);
    backends(shared, page);
    leaks(shared, page);
}

/// A row of SHOW BUDGET that has a limit, and the limit.
type Limited = (BudgetRow, u64);

fn limits(shared: &Shared, page: &mut Page) {
    let rows = show::budget::rows(shared);
    let rows = rows.into_iter().filter_map(|row| {
        let limit = row.limit?;
        Some((row, limit))
    });
    let mut rows: Vec<Limited> = rows.collect();
    if rows.len() > LIMITS_MAX {
        rows.sort_by(|a, b| saturation(b).total_cmp(&saturation(a)));
        rows.truncate(LIMITS_MAX);
    }
    let labels = |row: &BudgetRow| {
        let subject = row.subject.clone().unwrap_or_default();
        (row.name, subject, row.source)
    };
    let mut family = page.family(&SATURATION);
    for limited in &rows {
        let (name, subject, source) = labels(&limited.0);
        family.sample(&[name, &subject, source], saturation(limited));
    }
    for (metric, value) in [
        (&LIMIT_USED, (|(row, _)| row.used) as fn(&Limited) -> u64),
        (&LIMIT_VALUE, |(_, limit)| *limit),
        (&LIMIT_WAITING, |(row, _)| row.waiting.into()),
    ] {
        let mut family = page.family(metric);
        for limited in &rows {
            let (name, subject, source) = labels(&limited.0);
            family.sample(&[name, &subject, source], value(limited));
        }
    }
}

/// Nothing may be used of a limit of 0: it is full.
fn saturation((row, limit): &Limited) -> f64 {
    match limit {
        0 => 1.0,
        limit => row.used as f64 / *limit as f64,
    }
}

fn postgres(shared: &Shared, page: &mut Page) {
    let now = Instant::now();
    let facts = lock(&shared.facts);
    let mut hosts: Vec<_> = facts.hosts.iter().collect();
    hosts.sort_by_key(|(host, _)| *host);
    let headroom = |facts: &HostFacts| f64::from(facts.ordinary()) - f64::from(facts.backends);
    for (metric, value) in [
        (
            &PG_CONNECTIONS,
            &(|facts: &HostFacts| f64::from(facts.backends)) as &dyn Fn(&HostFacts) -> f64,
        ),
        (&PG_MAX_CONNECTIONS, &|facts| {
            f64::from(facts.max_connections)
        }),
        (&PG_HEADROOM, &headroom),
        (&PG_ASKED, &|facts| facts.age(now).as_secs_f64()),
    ] {
        let mut family = page.family(metric);
        for (host, facts) in &hosts {
            family.sample(&[host], value(facts));
        }
    }
}

fn backends(shared: &Shared, page: &mut Page) {
    let backends = lock(&shared.backends);
    let mut family = page.family(&PG_BACKENDS);
    for (host, counts) in &backends.found {
        for (whose, count) in [
            ("own", counts.own),
            ("ghost", counts.ghosts),
            ("orphan", counts.orphans),
            ("unclaimed", counts.unclaimed),
            ("foreign", counts.foreign),
        ] {
            family.sample(&[host, whose], count as f64);
        }
    }
}

fn leaks(shared: &Shared, page: &mut Page) {
    let leaks = lock(&shared.leaks);
    let all = leaks.all();
    let count = |stage: Stage, kind: &str| {
        let of = all
            .iter()
            .filter(|s| s.stage == stage && s.facts.kind.word() == kind);
        of.count() as u64
    };
    let mut family = page.family(&LEAK_SUSPECTS);
    for kind in KINDS {
        family
            .sample(&["suspected", kind], count(Stage::Suspected, kind))
            .sample(&["confirmed", kind], count(Stage::Confirmed, kind));
    }
    page.family(&LEAKS).sample(&[], leaks.count());
    drop(leaks);
    if let Some(strict) = &shared.strict {
        let (findings, mut family) = (strict.findings(), page.family(&STRICT_FINDINGS));
        for kind in FindingKind::ALL {
            family.sample(&[kind.word()], findings.count(kind));
        }
    }
}
