//! SHOW SAMPLES, SHOW EVENTS, SHOW STATEMENTS and SHOW FINDINGS.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use pgweir_console::UnixTime;
use pgweir_console::tables::{EventRow, FindingRow, SampleRow, StatementRow};
use pgweir_stats::{Slow, SlowName};

use super::unix_time;
use crate::shared::{Shared, lock};
use crate::watch::journal::Event;
use crate::watch::strict::{self, Counted};

/// Second by second, the oldest first.
pub(super) fn samples(shared: &Shared) -> Vec<SampleRow> {
    let now = Instant::now();
    let samples = lock(&shared.samples);
    let rows = samples.all().map(|(at, sample)| SampleRow {
        time: unix_time(shared, at),
        age: now.saturating_duration_since(at),
        database: sample.database.clone(),
        clients: sample.clients,
        waiting: sample.waiting,
        oldest_wait: sample.oldest_wait,
        busy: sample.busy,
        idle: sample.idle,
        opening: sample.opening,
        closing: sample.closing,
        silent: sample.silent,
        queries: sample.queries,
        transactions: sample.transactions,
        query_us: sample.query_us,
        failure: sample.failure.clone(),
    });
    rows.collect()
}

/// What was logged, the oldest first.
pub(super) fn events(shared: &Shared) -> Vec<EventRow> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let at = |seconds| UnixTime(i64::try_from(seconds).unwrap_or(i64::MAX));
    let row = |event: Event| EventRow {
        first: at(event.first),
        last: at(event.last),
        age: now.saturating_sub(event.last),
        count: event.count,
        level: event.level,
        peer: event.peer,
        text: event.text,
    };
    shared.log.events().into_iter().map(row).collect()
}

/// What took long, what cost most first.
pub(super) fn statements(shared: &Shared) -> Vec<StatementRow> {
    let slow = lock(&shared.slow).all();
    let row = |(name, slow): (SlowName, Slow)| StatementRow {
        database: name.database,
        user: name.user,
        application_name: slow.application,
        count: slow.count,
        total_ms: slow.total_us / 1_000,
        mean_ms: slow.total_us / slow.count.max(1) / 1_000,
        max_ms: slow.max_us / 1_000,
        statement: name.statement,
    };
    slow.into_iter().map(row).collect()
}

/// What a strict run has found, in the order in which it was found.
pub(super) fn findings(shared: &Shared) -> Vec<FindingRow> {
    let Some(strict) = &shared.strict else {
        return Vec::new();
    };
    let at = |time: SystemTime| {
        let seconds = time
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        UnixTime(i64::try_from(seconds).unwrap_or(i64::MAX))
    };
    let row = |counted: &Counted| FindingRow {
        kind: counted.finding.kind.word(),
        severity: strict::severity(counted.finding.kind),
        count: counted.count,
        first: at(counted.first),
        last: at(counted.last),
        database: counted.finding.database.clone(),
        user: counted.finding.user.clone(),
        application_name: counted.finding.application.clone(),
        address: counted.finding.address.clone(),
        statement: counted.finding.statement.clone(),
        detail: counted.finding.detail.clone(),
    };
    strict.findings().all().iter().map(row).collect()
}
