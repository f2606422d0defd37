//! What clients of one application take and wait for.
//!
//! Hot path: the usual transaction, one query that did not wait, costs two atomic additions here, beside the one in
//! its pool's [`Latencies`]: the sum is kept, because no counter of an application has it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::{Latencies, LatencyView, Snapshot};

/// Of one application.
#[derive(Debug, Default)]
pub struct Application {
    latencies: Latencies,
    /// Times in `latencies`, added up: those that were alone, other queries, other transactions.
    alone_us: AtomicU64,
    queries_us: AtomicU64,
    transactions_us: AtomicU64,
    holding_ms: AtomicU64,
    waiting_ms: AtomicU64,
}

impl Application {
    /// For so long so many clients have held a server, and so many have waited for one.
    pub fn spend(&self, passed: Duration, holding: u32, waiting: u32) {
        let ms = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
        for (sum, clients) in [(&self.holding_ms, holding), (&self.waiting_ms, waiting)] {
            sum.fetch_add(ms.saturating_mul(u64::from(clients)), Relaxed);
        }
    }

    /// Milliseconds that clients have held servers, and waited for them.
    pub fn spent_ms(&self) -> (u64, u64) {
        let [holding, waiting] = [&self.holding_ms, &self.waiting_ms];
        (holding.load(Relaxed), waiting.load(Relaxed))
    }

    /// What was recorded.
    pub fn view(&self) -> LatencyView {
        let [alone, queries, transactions] =
            [&self.alone_us, &self.queries_us, &self.transactions_us].map(|sum| sum.load(Relaxed));
        let totals = Snapshot {
            query_time_us: queries + alone,
            xact_time_us: transactions + alone,
            ..Snapshot::default()
        };
        let mut view = LatencyView::default();
        view.add(&self.latencies, &totals);
        view
    }
}

/// What the times of a client are recorded in: its pool, and its application.
#[derive(Clone, Copy, Debug)]
pub struct Books<'a> {
    /// Those of the pool.
    pub pool: &'a Latencies,
    /// The application.
    pub application: &'a Application,
}

impl Books<'_> {
    /// A query has ended that was a transaction of its own and a lease of its own, and had not waited.
    #[inline]
    pub fn alone(self, us: u64) {
        self.pool.alone.record(us);
        self.application.latencies.alone.record(us);
        self.application.alone_us.fetch_add(us, Relaxed);
    }

    /// Another query has ended.
    pub fn query(self, us: u64) {
        self.pool.query(us);
        self.application.latencies.query(us);
        self.application.queries_us.fetch_add(us, Relaxed);
    }

    /// A transaction has ended, and its lease with it.
    pub fn transaction(self, us: u64) {
        self.pool.transaction(us);
        self.application.latencies.transaction(us);
        self.application.transactions_us.fetch_add(us, Relaxed);
    }

    /// A transaction has ended whose client keeps the server.
    pub fn session_transaction(self, us: u64) {
        self.pool.session_transaction(us);
        self.application.latencies.session_transaction(us);
        self.application.transactions_us.fetch_add(us, Relaxed);
    }

    /// A lease has ended otherwise than with a transaction.
    pub fn session(self, us: u64) {
        self.pool.session(us);
        self.application.latencies.session(us);
    }

    /// A client got its server after so long. Said once per lease.
    pub fn wait(self, us: u64) {
        self.pool.wait(us);
        self.application.latencies.wait(us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_have_the_same_and_an_application_knows_its_sums() {
        let (pool, application) = (Latencies::default(), Application::default());
        let books = Books {
            pool: &pool,
            application: &application,
        };
        books.alone(1_000);
        books.wait(300);
        books.query(400);
        books.transaction(2_000);
        books.wait(0);
        books.session_transaction(30);
        books.session(50_000);
        let view = application.view();
        let mut of_pool = LatencyView::default();
        let totals = Snapshot {
            query_time_us: 1_400,
            xact_time_us: 3_030,
            ..Snapshot::default()
        };
        of_pool.add(&pool, &totals);
        for (own, same, count, sum_us) in [
            (&view.wait, &of_pool.wait, 3, 300),
            (&view.query, &of_pool.query, 2, 1_400),
            (&view.transaction, &of_pool.transaction, 3, 3_030),
            (&view.hold, &of_pool.hold, 3, 53_000),
        ] {
            assert_eq!((own.count(), own.sum_us()), (count, sum_us));
            assert_eq!((same.count(), same.sum_us()), (count, sum_us));
            assert_eq!(own.max_us(), same.max_us());
        }
    }

    #[test]
    fn time_is_spent_by_each_client() {
        let application = Application::default();
        application.spend(Duration::from_millis(333), 2, 3);
        application.spend(Duration::from_millis(1), 0, 1);
        assert_eq!(application.spent_ms(), (666, 1_000));
    }
}
