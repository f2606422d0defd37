//! What operators order and ask on the console: its session, its tables, and the orders that PgBouncer does not have.

pub(crate) mod admin;
pub(crate) mod diagnose;
pub(crate) mod drain;
pub(crate) mod maintenance;
pub(crate) mod rotate;
pub(crate) mod show;
pub(crate) mod why;
