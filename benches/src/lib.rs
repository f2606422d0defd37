//! What `cargo xtask bench` runs beside pgweir and PgBouncer: `muxrelay`, a bare relay that shows what the kernel
//! alone costs, and `load`, the clients that pgbench cannot play.
//!
//! Nothing here belongs into production: there is no authentication, no cancel, no timeout, and a peer that breaks
//! the protocol ends the program.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod client;
mod demand;
mod report;
mod scan;

pub use client::{Client, START, startup_packet};
pub use demand::Demand;
pub use report::{Outcome, Transfer};
pub use scan::Scan;
