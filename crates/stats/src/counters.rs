//! The table of counters and the four things made from it.
//!
//! A task counts into a [`Tally`], plain integers without atomics, and now and then (at the end of
//! a transaction, say) gives it to the [`Totals`] of its pool with [`Totals::add`]. A reader takes a
//! [`Snapshot`]. [`COUNTERS`] lists the rows for those who print them.
//!
//! A new counter is one row in `counters!` below. Rows that are not PgBouncer's are `Native`: they
//! show up in the metrics, never in `SHOW STATS`, whose columns monitors read by position.
//! Every row is a family of the metrics, by pool.

use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::metrics::{Metric, POOL};
use crate::prometheus::Kind;

/// What a counter's number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// How many times something happened.
    Count,
    /// Bytes of protocol traffic.
    Bytes,
    /// Time added up, in microseconds.
    Microseconds,
}

/// Who knows a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// PgBouncer has it; it is a column of `SHOW STATS`.
    PgBouncer,
    /// Ours alone; it appears in the metrics only.
    Native,
}

/// One row of the table of counters.
#[derive(Clone, Copy, Debug)]
pub struct Counter {
    /// The name, as in `SHOW STATS_TOTALS`, with the unit where PgBouncer leaves it out.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// What the number means.
    pub unit: Unit,
    /// Whether PgBouncer has it.
    pub origin: Origin,
    /// The family that it is in the metrics, times in seconds.
    pub metric: Metric,
    /// What follows `pgbouncer_stats_totals_` in the exporter's name for it, where it has one.
    pub exporter: Option<&'static str>,
    /// Reads this counter from a snapshot.
    pub value: fn(&Snapshot) -> u64,
}

/// Declares every counter. A row is `name: unit, origin, average, "metric" [as "exporter's"], "help";`
/// where `average` says how PgBouncer averages it over a period: `per_second`, or `per(counter)` for
/// a time that is divided by how often another counter rose.
macro_rules! counters {
    ($($name:ident: $unit:ident, $origin:ident, $average:ident $(($divisor:ident))?,
        $metric:literal $(as $exporter:literal)?, $help:literal;)+) => {
        /// Every counter, in the order of `SHOW STATS`, the native ones last.
        pub const COUNTERS: &[Counter] = &[$(Counter {
            name: stringify!($name),
            help: $help,
            unit: Unit::$unit,
            origin: Origin::$origin,
            metric: Metric {
                name: concat!("pgweir_", $metric),
                kind: Kind::Counter,
                labels: POOL,
                help: $help,
            },
            exporter: counters!(@exporter $($exporter)?),
            value: |snapshot| snapshot.$name,
        }),+];

        /// Counts of one task since it last gave them to [`Totals::add`].
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Tally {
            $(#[doc = $help] pub $name: u64,)+
        }

        /// Counts since the start, written by many tasks at once.
        ///
        /// The fields are read one by one, so a snapshot may see half of a tally. That is harmless
        /// for statistics and spares the tasks a lock.
        #[derive(Debug, Default)]
        pub struct Totals {
            $($name: AtomicU64,)+
        }

        impl Totals {
            /// Adds a tally and sets it back to zero.
            ///
            /// Most fields of a tally are zero most of the time; those cost a comparison, not an
            /// atomic addition.
            pub fn add(&self, tally: &mut Tally) {
                $(if tally.$name != 0 {
                    self.$name.fetch_add(std::mem::take(&mut tally.$name), Relaxed);
                })+
            }

            /// The counts as they stand now.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.load(Relaxed),)+ }
            }
        }

        /// The values of all counters at one moment, or their averages over a period.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $(#[doc = $help] pub $name: u64,)+
        }

        impl Snapshot {
            /// What happened from `before` to `self` within `elapsed_us`, averaged as PgBouncer does.
            ///
            /// Counts and bytes are per second, times per transaction, query or assignment, all
            /// rounded down. A counter that went backwards counts as unchanged, a period without
            /// length has averages of zero.
            pub fn averages(&self, before: &Self, elapsed_us: u64) -> Self {
                if elapsed_us == 0 {
                    return Self::default();
                }
                let risen = Self { $($name: self.$name.saturating_sub(before.$name),)+ };
                Self { $($name: counters!(@$average risen.$name, elapsed_us $(, risen.$divisor)?),)+ }
            }
        }

        impl AddAssign for Snapshot {
            fn add_assign(&mut self, other: Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)+
            }
        }
    };
    (@exporter) => { None };
    (@exporter $name:literal) => { Some($name) };
    (@per_second $risen:expr, $elapsed_us:expr) => { per_second($risen, $elapsed_us) };
    (@per $risen:expr, $elapsed_us:expr, $divisor:expr) => { $risen.checked_div($divisor).unwrap_or(0) };
}

counters! {
    server_assignment_count: Count, PgBouncer, per_second, "server_assignments_total" as "server_assignments_total",
        "Times a server connection was given to a client.";
    xact_count: Count, PgBouncer, per_second, "xacts_total" as "sql_transactions_pooled_total",
        "Transactions pooled.";
    query_count: Count, PgBouncer, per_second, "queries_total" as "queries_pooled_total",
        "Queries pooled.";
    bytes_received: Bytes, PgBouncer, per_second, "received_bytes_total" as "received_bytes_total",
        "Bytes received from clients.";
    bytes_sent: Bytes, PgBouncer, per_second, "sent_bytes_total" as "sent_bytes_total",
        "Bytes sent to clients.";
    xact_time_us: Microseconds, PgBouncer, per(xact_count), "xact_time_seconds_total" as "server_in_transaction_seconds_total",
        "Time servers spent in transactions, idle in transaction included.";
    query_time_us: Microseconds, PgBouncer, per(query_count), "query_time_seconds_total" as "queries_duration_seconds_total",
        "Time servers spent executing queries.";
    wait_time_us: Microseconds, PgBouncer, per(server_assignment_count), "wait_time_seconds_total" as "client_wait_seconds_total",
        "Time clients spent waiting for a server.";
    client_parse_count: Count, PgBouncer, per_second, "client_parses_total" as "client_parses_total",
        "Prepared statements created by clients.";
    server_parse_count: Count, PgBouncer, per_second, "server_parses_total" as "server_parses_total",
        "Prepared statements created on servers.";
    bind_count: Count, PgBouncer, per_second, "binds_total" as "binds_total",
        "Prepared statements readied for execution by clients.";
    client_login_count: Count, PgBouncer, per_second, "client_logins_total",
        "Client logins that succeeded.";
    cancel_count: Count, Native, per_second, "cancels_total",
        "Cancel requests passed on to servers.";
    error_count: Count, Native, per_second, "server_error_responses_total",
        "Error responses sent by servers.";
    refusal_count: Count, Native, per_second, "refusals_total",
        "Clients turned away by a limit, or because no server could be had.";
    state_look_count: Count, Native, per_second, "state_looks_total",
        "Times a server was asked what a client has left in its session.";
    state_loss_count: Count, Native, per_second, "state_losses_total",
        "Times a client has lost what it had left in a session.";
    state_warning_count: Count, Native, per_second, "state_warnings_total",
        "Times a client was warned of what it had left in a session.";
    pin_count: Count, Native, per_second, "pins_total",
        "Times a server has stayed with a client for what that had left in its session.";
    notification_count: Count, Native, per_second, "notifications_total",
        "Notifications passed on to clients by the connection that listens for them.";
    server_open_count: Count, Native, per_second, "server_opens_total",
        "Server connections opened.";
    server_close_count: Count, Native, per_second, "server_closes_total",
        "Server connections closed.";
}

impl Add for Snapshot {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sum for Snapshot {
    fn sum<I: Iterator<Item = Self>>(snapshots: I) -> Self {
        snapshots.fold(Self::default(), Add::add)
    }
}

fn per_second(risen: u64, elapsed_us: u64) -> u64 {
    // The product overflows 64 bits after 17 TiB in one period, hence the wider step.
    let rate = u128::from(risen) * 1_000_000 / u128::from(elapsed_us.max(1));
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_tally_is_zero_after_it_was_added() {
        let totals = Totals::default();
        let mut tally = Tally {
            query_count: 2,
            bytes_sent: 100,
            ..Tally::default()
        };
        totals.add(&mut tally);
        assert_eq!(tally, Tally::default());
        tally.query_count = 1;
        totals.add(&mut tally);
        let expected = Snapshot {
            query_count: 3,
            bytes_sent: 100,
            ..Snapshot::default()
        };
        assert_eq!(totals.snapshot(), expected);
    }

    #[test]
    fn counts_and_bytes_are_averaged_per_second_and_rounded_down() {
        let before = Snapshot {
            xact_count: 10,
            bytes_sent: 1_000,
            ..Snapshot::default()
        };
        let after = Snapshot {
            xact_count: 25,
            bytes_sent: 4_000,
            ..Snapshot::default()
        };
        let averages = after.averages(&before, 2_000_000);
        assert_eq!((averages.xact_count, averages.bytes_sent), (7, 1_500));
    }

    #[test]
    fn times_are_averaged_per_event_whatever_the_period() {
        let after = Snapshot {
            server_assignment_count: 4,
            xact_count: 2,
            query_count: 5,
            xact_time_us: 700,
            query_time_us: 501,
            wait_time_us: 42,
            ..Snapshot::default()
        };
        let averages = after.averages(&Snapshot::default(), 60_000_000);
        assert_eq!(averages.xact_time_us, 350);
        assert_eq!(averages.query_time_us, 100);
        assert_eq!(averages.wait_time_us, 10);
    }

    #[test]
    fn time_without_events_averages_to_zero() {
        let after = Snapshot {
            query_time_us: 900,
            ..Snapshot::default()
        };
        assert_eq!(after.averages(&Snapshot::default(), 1), Snapshot::default());
    }

    #[test]
    fn a_period_without_length_averages_to_zero() {
        let after = Snapshot {
            query_count: 9,
            ..Snapshot::default()
        };
        assert_eq!(after.averages(&Snapshot::default(), 0), Snapshot::default());
    }

    #[test]
    fn show_stats_counters_come_first_and_in_its_order() {
        let names: Vec<_> = COUNTERS.iter().map(|counter| counter.name).collect();
        assert_eq!(
            names[..3],
            ["server_assignment_count", "xact_count", "query_count"]
        );
        let native = COUNTERS
            .iter()
            .position(|counter| counter.origin == Origin::Native);
        assert_eq!(native, Some(12));
        assert!(
            COUNTERS[12..]
                .iter()
                .all(|counter| counter.origin == Origin::Native)
        );
    }

    proptest! {
        #[test]
        fn averages_never_panic(
            before in any::<[u64; 4]>(), after in any::<[u64; 4]>(), elapsed_us in any::<u64>(),
        ) {
            let [before, after] = [before, after].map(|[xacts, queries, sent, time]| Snapshot {
                xact_count: xacts,
                query_count: queries,
                bytes_sent: sent,
                query_time_us: time,
                ..Snapshot::default()
            });
            let averages = after.averages(&before, elapsed_us);
            prop_assert!(averages.query_time_us <= after.query_time_us);
        }

        #[test]
        fn a_sum_is_the_sum_of_its_parts(counts in proptest::collection::vec(0..1_000_000u64, 0..20)) {
            let sum: Snapshot = counts
                .iter()
                .map(|&query_count| Snapshot { query_count, ..Snapshot::default() })
                .sum();
            prop_assert_eq!(sum.query_count, counts.iter().sum::<u64>());
        }
    }
}
