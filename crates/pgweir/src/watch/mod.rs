//! What is looked at from time to time, counted, and told: the janitor, leaks, health, metrics.

pub(crate) mod backends;
pub(crate) mod census;
pub(crate) mod consumers;
pub(crate) mod events;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod janitor;
pub(crate) mod journal;
pub(crate) mod leaks;
pub(crate) mod logins;
#[cfg_attr(not(feature = "otel"), path = "otel_not_built.rs")]
pub(crate) mod otel;
pub(crate) mod samples;
pub(crate) mod series;
pub(crate) mod slow;
pub(crate) mod strict;
pub(crate) mod totals;
pub(crate) mod waits;
