//! What belongs to a pool: its clients and servers, counters and distributions.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use pgweir_pool::view::PoolView;
use pgweir_pool::{Cause, PoolName};
use pgweir_session::Phase;
use pgweir_stats::metrics::{
    BOUNDS_US, CLIENTS, HOLD, LOGIN, Metric, OLDEST_WAITER, QUERY, SERVERS, UNNAMED_POOLS, WAIT,
    WAIT_CAUSE, XACT,
};
use pgweir_stats::prometheus::{Page, seconds};
use pgweir_stats::{COUNTERS, LatencyHistogram, LatencyView, LoginPhase, Snapshot, Unit};

use crate::shared::{PoolHome, Shared};
use crate::watch::series::{Series, SeriesTimes};

/// All pools with the same labels, together.
#[derive(Debug, Default)]
struct Sum {
    pools: usize,
    clients: ByPhase,
    servers: Servers,
    oldest_wait: Option<Instant>,
    totals: Snapshot,
    latencies: LatencyView,
    /// Those of one are those of all.
    times: Option<Arc<SeriesTimes>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct ByPhase {
    idle: u64,
    waiting: u64,
    active: u64,
    idle_in_xact: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Servers {
    login: u64,
    idle: u64,
    leased: u64,
    test: u64,
    cancel: u64,
    closing: u64,
    quarantined: u64,
}

pub(super) fn write(shared: &Shared, page: &mut Page) {
    let sums = gather(shared);
    let unnamed: usize = sums
        .iter()
        .filter(|(series, _)| series.is_shared())
        .map(|(_, sum)| sum.pools)
        .sum();
    page.family(&UNNAMED_POOLS).sample(&[], unnamed);
    clients(&sums, page);
    servers(&sums, page);
    oldest_waiter(&sums, page);
    counters(&sums, page);
    histogram(&sums, &WAIT, |view| &view.wait, page);
    let waits = |times: &SeriesTimes, cause: Cause| times.waits.view(cause);
    histograms(
        &sums,
        &WAIT_CAUSE,
        Cause::ALL.map(|cause| (cause, cause.word())),
        waits,
        page,
    );
    histogram(&sums, &QUERY, |view| &view.query, page);
    histogram(&sums, &XACT, |view| &view.transaction, page);
    histogram(&sums, &HOLD, |view| &view.hold, page);
    let logins = |times: &SeriesTimes, phase: LoginPhase| times.logins.view(phase);
    histograms(
        &sums,
        &LOGIN,
        LoginPhase::ALL.map(|phase| (phase, phase.word())),
        logins,
        page,
    );
}

fn gather(shared: &Shared) -> BTreeMap<Series, Sum> {
    let (homes, remainders) = shared.counted();
    let mut clients = phases(shared);
    let mut sums: BTreeMap<Series, Sum> = BTreeMap::new();
    for home in homes.values() {
        let sum = sums.entry(home.series.clone()).or_default();
        add_counts(sum, home);
    }
    for (series, remainder) in remainders.series() {
        let sum = sums.entry(series.clone()).or_default();
        sum.totals += remainder.totals;
        sum.latencies.add(&remainder.latencies, &remainder.totals);
        sum.times = sum.times.take().or_else(|| remainder.times.clone());
    }
    for view in shared.pools().view() {
        let Some(home) = homes.get(&view.name) else {
            continue;
        };
        let sum = sums.entry(home.series.clone()).or_default();
        sum.pools += 1;
        sum.servers.add(&view);
        let waits = [sum.oldest_wait, view.oldest_wait];
        sum.oldest_wait = waits.into_iter().flatten().min();
        sum.clients
            .add(&clients.remove(&view.name).unwrap_or_default());
    }
    sums
}

fn add_counts(sum: &mut Sum, home: &PoolHome) {
    let totals = home.totals.snapshot();
    sum.totals += totals;
    sum.latencies.add(&home.latencies, &totals);
    sum.times.get_or_insert_with(|| Arc::clone(&home.times));
}

/// What the clients of each pool do.
fn phases(shared: &Shared) -> HashMap<PoolName, ByPhase> {
    let mut phases: HashMap<PoolName, ByPhase> = HashMap::new();
    for client in &shared.clients {
        let Some(route) = client.route() else {
            continue;
        };
        let phase = client.state().clocks.phase;
        let counted = match phases.get_mut(&route.home.name) {
            Some(counted) => counted,
            None => phases.entry(route.home.name.clone()).or_default(),
        };
        match phase {
            Phase::Login => {}
            Phase::Idle => counted.idle += 1,
            Phase::Waiting => counted.waiting += 1,
            Phase::Active => counted.active += 1,
            Phase::IdleInTransaction => counted.idle_in_xact += 1,
        }
    }
    phases
}

impl ByPhase {
    fn add(&mut self, other: &Self) {
        self.idle += other.idle;
        self.waiting += other.waiting;
        self.active += other.active;
        self.idle_in_xact += other.idle_in_xact;
    }
}

impl Servers {
    fn add(&mut self, view: &PoolView) {
        self.login += u64::from(view.opening);
        self.idle += u64::from(view.idle);
        self.leased += u64::from(view.leased);
        self.test += u64::from(view.resetting);
        self.cancel += u64::from(view.being_canceled);
        self.closing += u64::from(view.closing);
        self.quarantined += u64::from(view.quarantined);
    }
}

fn clients(sums: &BTreeMap<Series, Sum>, page: &mut Page) {
    let mut family = page.family(&CLIENTS);
    for (Series { database, user }, sum) in sums {
        let clients = &sum.clients;
        for (state, count) in [
            ("idle", clients.idle),
            ("waiting", clients.waiting),
            ("active", clients.active),
            ("idle_in_xact", clients.idle_in_xact),
        ] {
            family.sample(&[database, user, state], count);
        }
    }
}

fn servers(sums: &BTreeMap<Series, Sum>, page: &mut Page) {
    let mut family = page.family(&SERVERS);
    for (Series { database, user }, sum) in sums {
        let servers = &sum.servers;
        // Clients and servers are not counted at the same moment.
        let idle_in_xact = sum.clients.idle_in_xact.min(servers.leased);
        for (state, count) in [
            ("login", servers.login),
            ("idle", servers.idle),
            ("active", servers.leased - idle_in_xact),
            ("idle_in_xact", idle_in_xact),
            ("test", servers.test),
            ("cancel", servers.cancel),
            ("closing", servers.closing),
            ("quarantined", servers.quarantined),
        ] {
            family.sample(&[database, user, state], count);
        }
    }
}

fn oldest_waiter(sums: &BTreeMap<Series, Sum>, page: &mut Page) {
    let now = Instant::now();
    let mut family = page.family(&OLDEST_WAITER);
    for (Series { database, user }, sum) in sums {
        let waited = sum
            .oldest_wait
            .map(|since| now.saturating_duration_since(since));
        family.sample(&[database, user], waited.unwrap_or_default().as_secs_f64());
    }
}

fn counters(sums: &BTreeMap<Series, Sum>, page: &mut Page) {
    for counter in COUNTERS {
        let mut family = page.family(&counter.metric);
        for (Series { database, user }, sum) in sums {
            let labels: &[&str] = &[database, user];
            let value = (counter.value)(&sum.totals);
            match counter.unit {
                Unit::Microseconds => family.sample(labels, seconds(value)),
                Unit::Count | Unit::Bytes => family.sample(labels, value),
            };
        }
    }
}

fn histogram(
    sums: &BTreeMap<Series, Sum>,
    metric: &Metric,
    of: impl Fn(&LatencyView) -> &LatencyHistogram,
    page: &mut Page,
) {
    let mut family = page.family(metric);
    let used = sums.iter().filter(|(_, sum)| !sum.latencies.is_empty());
    for (Series { database, user }, sum) in used {
        family.histogram(&[database, user], of(&sum.latencies), BOUNDS_US);
    }
}

/// Times by cause, or by phase; those that there are.
fn histograms<T: Copy, const COUNT: usize>(
    sums: &BTreeMap<Series, Sum>,
    metric: &Metric,
    words: [(T, &str); COUNT],
    of: impl Fn(&SeriesTimes, T) -> Option<LatencyHistogram>,
    page: &mut Page,
) {
    let mut family = page.family(metric);
    for (Series { database, user }, sum) in sums {
        let Some(times) = &sum.times else { continue };
        for (key, word) in words {
            if let Some(histogram) = of(times, key) {
                family.histogram(&[database, user, word], &histogram, BOUNDS_US);
            }
        }
    }
}
