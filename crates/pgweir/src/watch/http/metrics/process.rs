//! The process: what it is, since when, and what it takes from the machine.

use std::sync::atomic::Ordering;
use std::time::{Instant, UNIX_EPOCH};

use pgweir_stats::metrics::{
    BUILD_INFO, DATABASE_READY, PROCESS_CPU, PROCESS_FILES, PROCESS_FILES_MAX, PROCESS_MEMORY,
    READY, RESTING, SCRAPE, START_TIME, STATE, WORKER_CLIENTS,
};
use pgweir_stats::prometheus::{Page, seconds};
use rustix::time::{ClockId, clock_gettime};

use crate::operators::show::budget;
use crate::shared::{Shared, lock};
use crate::watch::health::{self, State};

pub(super) fn write(shared: &Shared, page: &mut Page) {
    let version = env!("CARGO_PKG_VERSION");
    page.family(&BUILD_INFO)
        .sample(&[version, pgweir_console::VERSION], 1_u64);
    let started = shared.started_on.duration_since(UNIX_EPOCH);
    page.family(&START_TIME)
        .sample(&[], started.unwrap_or_default().as_secs_f64());
    let last_us = shared.http.last_us.load(Ordering::Relaxed);
    page.family(&SCRAPE).sample(&[], seconds(last_us));
    page.family(&RESTING).sample(&[], shared.lot.len());
    let mut family = page.family(&WORKER_CLIENTS);
    for (worker, clients) in shared.workers.clients().enumerate() {
        family.sample(&[&worker.to_string()], clients);
    }
    let state = State::now(shared);
    let mut family = page.family(&STATE);
    for other in State::ALL {
        family.sample(&[other.word()], other == state);
    }
    readiness(shared, page);
    resources(page);
}

fn readiness(shared: &Shared, page: &mut Page) {
    let databases = health::databases(shared, Instant::now());
    page.family(&READY)
        .sample(&[], health::is_ready(shared, &databases));
    let mut family = page.family(&DATABASE_READY);
    let config = shared.config();
    let names = lock(&shared.names);
    let has_name = |name: &str| *names.of_database(name, &config) == *name;
    for database in databases.iter().filter(|database| has_name(&database.name)) {
        family.sample(&[&database.name], database.why.is_none());
    }
}

fn resources(page: &mut Page) {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let time = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
    page.family(&PROCESS_CPU).sample(&[], time);
    let (files, limit) = budget::files();
    page.family(&PROCESS_FILES).sample(&[], files);
    let limit = limit.map_or(f64::INFINITY, |limit| limit as f64);
    page.family(&PROCESS_FILES_MAX).sample(&[], limit);
    if let Some(bytes) = budget::memory() {
        page.family(&PROCESS_MEMORY).sample(&[], bytes);
    }
}
