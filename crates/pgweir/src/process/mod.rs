//! The process: its arguments, its log, its threads, and the signals and orders that end it.

pub(crate) mod args;
pub(crate) mod check;
pub(crate) mod convert;
#[cfg(any(feature = "otel", feature = "rds"))]
pub(crate) mod fetch;
pub(crate) mod from_env;
pub(crate) mod log;
pub(crate) mod notify;
pub(crate) mod shortage;
pub(crate) mod shutdown;
pub(crate) mod signals;
pub(crate) mod system;
pub(crate) mod workers;
