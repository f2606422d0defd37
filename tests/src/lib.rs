//! What black-box tests say most often, so that they read as stories: a PostgreSQL, a pooler in front of it, and
//! programs that use both.

#![forbid(unsafe_code)]

pub use pgweir_harness::*;

/// A PostgreSQL with the database `app`, or nothing after saying why the test is skipped.
#[track_caller]
pub fn postgres_with_app() -> Option<Cluster> {
    let postgres = Cluster::start_or_skip(ClusterOptions::default())?;
    postgres.psql("postgres", "create database app");
    Some(postgres)
}

/// The pooler in transaction mode in front of a cluster, with so many servers for each database and user.
///
/// # Panics
/// If it does not start.
#[track_caller]
pub fn transaction_pooler(postgres: &Cluster, servers: u32) -> Pooler {
    start(
        Ini::in_front_of(postgres)
            .set("pool_mode", "transaction")
            .set("default_pool_size", servers),
    )
}

/// The pooler with this configuration.
///
/// # Panics
/// If it does not start.
#[track_caller]
pub fn start(ini: Ini) -> Pooler {
    match Pooler::start(ini) {
        Ok(pooler) => pooler,
        Err(error) => panic!("{error}"),
    }
}

/// A certificate for this machine that nobody has signed but itself.
///
/// # Panics
/// If it cannot be made.
pub fn self_signed_tls() -> Tls {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("both are valid names");
    Tls {
        cert: made.cert.pem(),
        key: made.signing_key.serialize_pem(),
        ca: None,
    }
}
