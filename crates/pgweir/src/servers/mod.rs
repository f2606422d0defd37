//! A connection to PostgreSQL from its opening to the end of its slot: pools, resets, pins, and what the pooler asks for itself.

pub(crate) mod ask;
pub(crate) mod close;
pub(crate) mod control;
pub(crate) mod ears;
pub(crate) mod names;
pub(crate) mod open;
pub(crate) mod pins;
pub(crate) mod pools;
pub(crate) mod quarantine;
#[cfg_attr(not(feature = "rds"), path = "rds_not_built.rs")]
pub(crate) mod rds;
pub(crate) mod reset;
pub(crate) mod server;
pub(crate) mod survey;
pub(crate) mod vacate;
