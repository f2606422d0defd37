//! What a pooler counts, declared once.
//!
//! A counter is one row of the table in [`counters`]; the plain [`Tally`] a task fills, the atomic
//! [`Totals`] it is added to, the [`Snapshot`] a reader takes, PgBouncer's averages, `SHOW STATS`
//! and the metrics page all follow from that row. [`Latencies`] records distributions,
//! [`LatencyHistogram`] reads them. [`metrics`] declares what else is on the metrics page,
//! [`prometheus`] writes its text, and [`protobuf`] its other form.
//!
//! Nothing here knows a socket or a clock: time comes in as an argument.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod application;
mod collected;
pub mod counters;
mod histogram;
mod history;
mod latency;
mod ledger;
mod login;
pub mod metrics;
mod norms;
pub mod prometheus;
pub mod protobuf;
mod roster;
mod slow;
mod times;
pub mod usage;

pub use application::{Application, Books};
pub use collected::{Collected, Exponential, Point, Reading};
pub use counters::{COUNTERS, Counter, Origin, Snapshot, Tally, Totals, Unit};
pub use histogram::LatencyHistogram;
pub use history::{History, LogLine};
pub use latency::{Distribution, Latencies, LatencyView};
pub use ledger::Ledger;
pub use login::{LoginPhase, LoginTimes};
pub use norms::Norms;
pub use roster::{OTHER, Roster};
pub use slow::{Slow, SlowName, SlowStatements};
pub use times::Times;
