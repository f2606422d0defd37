//! What tests, the demo and the benchmarks need around pgweir, and nothing that pgweir itself needs: a real
//! PostgreSQL found or installed, throwaway clusters, the pooler in front of them, psql and pgbench, an LDAP server.
//!
//! Three rules hold everywhere:
//! 1. Nothing is started as root. PostgreSQL and the pooler refuse it, so a root caller's children run as the
//!    user `postgres` or `nobody` (see [`Account`]).
//! 2. Nothing stays behind. A value owns its process and its directory; `Drop` ends both, and a small guard
//!    process does it when the caller dies without running `Drop` (abort, `kill -9`, Ctrl-C).
//! 3. Nothing waits for ever. Every program run here has a deadline, and its output is in the error.
//!
//! Methods named `try_*` return errors. Those without the prefix panic with the same text at the caller's line,
//! because that is what a test wants.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod account;
mod cluster;
mod daemon;
mod endpoint;
mod error;
mod ini;
mod install;
mod measure;
mod pgbench;
mod pooler;
pub mod postgres;
mod process;
mod scratch;
mod skip;
mod slapd;
mod table;

pub use account::Account;
pub use cluster::{Cluster, ClusterOptions, Stop, Tls};
pub use endpoint::Endpoint;
pub use error::Error;
pub use ini::Ini;
pub use install::InstallError;
pub use measure::{connections_to, cpu_time, rss};
pub use pgbench::Pgbench;
pub use pooler::{Pooler, find_pgbouncer};
pub use postgres::{NotFound, Postgres};
pub use process::{free_port, send_signal};
pub use rustix::process::Signal;
pub use skip::{SKIP_LOG, skip};
pub use slapd::Slapd;
pub use table::{Row, Table};
