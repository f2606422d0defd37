//! Configuration: every key once, read from PgBouncer's ini dialect or from TOML.
//!
//! [`Config::load`] is for start and RELOAD and behaves as PgBouncer does: it stops at the first
//! error, and what stood before it counts. [`check`] goes on and gives every [`Problem`] with file,
//! line and what may help. A new key is one row of the table in `keys.rs`.
//!
//! The crate is pure: it opens no file, asks no clock and reads no environment. Whoever loads a
//! configuration hands in a function that reads files.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod change;
mod config;
mod connstr;
mod declare;
mod demand;
mod dialect;
mod diff;
mod docs;
mod draft;
mod fleet;
mod from_env;
mod ini;
mod keys;
mod layers;
mod likeness;
mod lints;
mod problem;
mod secrecy;
mod settings;
mod suggest;
mod toml;
mod value;

pub use change::{Change, ChangeError, Entry};
pub use config::{
    Config, Converted, Database, LoadError, Loaded, Peer, Phase, User, check, convert,
};
pub use declare::{Effect, Key, Place, Scope};
pub use demand::{DatabaseDemand, HostDemand};
pub use dialect::{Dialect, sniff};
pub use diff::{DatabaseChange, Diff, diff};
pub use docs::{reference_markdown, sample_ini};
pub use from_env::{FromEnv, FromEnvError, from_env};
pub use keys::{DatabaseOverrides, PeerOverrides, Settings, UserOverrides};
pub use layers::PoolSettings;
pub use likeness::{Likeness, SetKey, set_keys};
pub use lints::{TlsFault, client_tls_faults};
pub use problem::{Problem, Severity};
pub use secrecy::may_hold_secret;
pub use settings::{KeyChange, SetError, SetOutcome, ShowRow};
pub use suggest::nearest;
pub use value::{
    AppActions, AuthDatabase, AuthType, Endpoint, Endpoints, ErrorCodes, FileMode, Host, HostLimit,
    Hosts, Invalid, Kind, LeakAction, LeakQuery, List, ListenMode, LoadBalanceHosts,
    PasswordSource, PoolMode, Preflight, ReadyPolicy, Seconds, Secret, SessionState, SslMode,
    StartupParameters, StatePolicies, StatePolicy, StrictAllow, TargetSessionAttrs, TlsProtocols,
    TlsVersion, Value,
};

/// The database whose clients talk to the console. No entry can have this name.
pub const CONSOLE_DATABASE: &str = "pgbouncer";

/// The entry that stands for every database without an entry of its own.
pub const TEMPLATE_DATABASE: &str = "*";
