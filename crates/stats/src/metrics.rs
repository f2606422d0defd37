//! The families of the metrics page, declared once: what answers writes them, and the manual lists them.
//!
//! Ours begin with `pgweir_`; one for every counter comes from [`crate::COUNTERS`]. Those that begin with
//! `pgbouncer_` have the names, labels and units of pgbouncer_exporter 0.12, which dashboards and
//! alerts are written for. Times are seconds.

use crate::COUNTERS;
use crate::prometheus::Kind;

/// A family of the metrics page.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, with the unit.
    pub name: &'static str,
    /// What it measures.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

/// The labels of what belongs to a pool.
pub const POOL: &[&str] = &["database", "user"];

const DATABASE: &[&str] = &["database"];
const APPLICATION: &[&str] = &["application_name"];
const LIMIT: &[&str] = &["limit", "subject", "source"];
const HOST: &[&str] = &["host"];
const ENTRY: &[&str] = &[
    "name",
    "host",
    "port",
    "database",
    "force_user",
    "pool_mode",
];

/// Upper bounds of the buckets of every histogram, in microseconds: 0.1 ms to 5 minutes.
pub const BOUNDS_US: &[u64] = &[
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// Declares families as constants. A row is `CONST: Kind, "name", LABELS, "help";`.
macro_rules! metrics {
    ($(#[doc = $doc:literal])* $list:ident { $($id:ident: $kind:ident, $name:literal, $labels:expr, $help:literal;)+ }) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: $labels,
                help: $help,
            };
        )+

        $(#[doc = $doc])*
        pub const $list: &[Metric] = &[$($id),+];
    };
}

metrics! {
    /// Our own families, but for the counters.
    OWN {
    BUILD_INFO: Gauge, "pgweir_build_info", &["version", "pgbouncer"],
        "Always 1; the labels are the version and the PgBouncer whose console it has.";
    START_TIME: Gauge, "pgweir_start_time_seconds", &[],
        "When the process started, in seconds since 1970.";
    RESTING: Gauge, "pgweir_resting_clients", &[],
        "Clients that have been idle for so long that they have no task. The next thing that they ask makes one.";
    WORKER_CLIENTS: Gauge, "pgweir_worker_clients", &["worker"],
        "Clients that a thread serves, without those that rest. The first has the number 0.";
    STATE: Gauge, "pgweir_state", &["state"],
        "1 for what the pooler is doing: active, paused, suspended or shutting_down; 0 for the others.";
    READY: Gauge, "pgweir_ready", &[],
        "Whether /readyz says so.";
    DATABASE_READY: Gauge, "pgweir_database_ready", DATABASE,
        "Whether nothing keeps clients of a database from being served: no failing login, no order.";
    CLIENTS: Gauge, "pgweir_client_connections", &["database", "user", "state"],
        "Clients of a pool: idle, waiting, active or idle_in_xact; those that log in have no pool yet.";
    SERVERS: Gauge, "pgweir_server_connections", &["database", "user", "state"],
        "Servers of a pool, as PostgreSQL counts them: login, idle, active, idle_in_xact, test, cancel, closing or quarantined.";
    OLDEST_WAITER: Gauge, "pgweir_oldest_waiter_seconds", POOL,
        "How long the client that waits longest for a server has been waiting.";
    SATURATION: Gauge, "pgweir_saturation_ratio", LIMIT,
        "How much of a limit is used, from 0 to 1; more where it was lowered. The rows of SHOW BUDGET.";
    LIMIT_USED: Gauge, "pgweir_limit_used", LIMIT,
        "How much is used of what a limit counts.";
    LIMIT_VALUE: Gauge, "pgweir_limit", LIMIT,
        "The limit.";
    LIMIT_WAITING: Gauge, "pgweir_limit_waiting_clients", LIMIT,
        "Clients that wait because of this limit.";
    PG_CONNECTIONS: Gauge, "pgweir_pg_connections", HOST,
        "Client backends that PostgreSQL had when it was asked, whoever they belong to.";
    PG_MAX_CONNECTIONS: Gauge, "pgweir_pg_max_connections", HOST,
        "PostgreSQL's max_connections.";
    PG_HEADROOM: Gauge, "pgweir_pg_headroom", HOST,
        "Connections that PostgreSQL had to spare for ordinary users when it was asked.";
    PG_BACKENDS: Gauge, "pgweir_pg_backends", &["host", "whose"],
        "PostgreSQL's connections when the books were compared with it: own, ghost, orphan, unclaimed, foreign. SHOW BACKENDS names them.";
    PG_ASKED: Gauge, "pgweir_pg_asked_seconds", HOST,
        "How long ago PostgreSQL was asked.";
    LEAK_SUSPECTS: Gauge, "pgweir_leak_suspects", &["stage", "kind"],
        "Leak suspects: clients that hold a server in silence, statements that are far too slow, populations that are only growing. SHOW LEAKS names them.";
    LEAKS: Counter, "pgweir_leak_suspects_total", &[],
        "Leak suspects so far.";
    STRICT_FINDINGS: Counter, "pgweir_strict_findings_total", &["kind"],
        "How often a strict run has found something, by the kind of it. SHOW FINDINGS has the statements.";
    CLIENT_ERRORS: Counter, "pgweir_client_errors_total", &["database", "sqlstate", "cause"],
        "Errors that the pooler itself told clients, with PostgreSQL's SQLSTATE whatever error_codes is.";
    APPLICATION_ERRORS: Counter, "pgweir_application_errors_total", &["application_name", "cause"],
        "The same by application and cause: the first hundred names, the rest is other.";
    APPLICATION_TIME: Counter, "pgweir_application_seconds_total", &["application_name", "state"],
        "Seconds that clients of an application held a server or waited for one, as seen three times per second.";
    APPLICATION_WAIT: Histogram, "pgweir_application_wait_seconds", APPLICATION,
        "How long clients of an application waited for a server.";
    APPLICATION_QUERY: Histogram, "pgweir_application_query_seconds", APPLICATION,
        "How long queries of an application took, from when they were asked.";
    APPLICATION_XACT: Histogram, "pgweir_application_xact_seconds", APPLICATION,
        "How long transactions of an application took, from when they had a server.";
    APPLICATION_HOLD: Histogram, "pgweir_application_hold_seconds", APPLICATION,
        "How long clients of an application held a server: a transaction, or a session.";
    SERVER_ERRORS: Counter, "pgweir_server_errors_total", &["database", "sqlstate_class"],
        "Errors that PostgreSQL told clients, by the first two characters of the SQLSTATE.";
    SERVER_LOGIN_FAILURES: Counter, "pgweir_server_login_failures_total", &["database", "sqlstate"],
        "Servers that could not be opened; without a SQLSTATE, PostgreSQL was not reached.";
    SERVER_DISCONNECTS: Counter, "pgweir_server_disconnects_total", &["database", "reason"],
        "Servers that were closed, or lost.";
    TLS_EXPIRY: Gauge, "pgweir_tls_certificate_expiry_timestamp_seconds", &["side", "certificate", "subject"],
        "When a certificate expires, in seconds since 1970. The side is client or server; the certificate is ours, an authority or PostgreSQL's; the subject is its file or its host.";
    WAIT: Histogram, "pgweir_client_wait_seconds", POOL,
        "How long clients waited for a server.";
    WAIT_CAUSE: Histogram, "pgweir_client_wait_cause_seconds", &["database", "user", "cause"],
        "Waits for a server by what held the client back for the longest stretch of each; also waits that ended with nothing.";
    QUERY: Histogram, "pgweir_query_seconds", POOL,
        "How long queries took, from when they were asked.";
    XACT: Histogram, "pgweir_xact_seconds", POOL,
        "How long transactions took, from when they had a server.";
    HOLD: Histogram, "pgweir_server_hold_seconds", POOL,
        "How long clients held a server: a transaction, or a session.";
    LOGIN: Histogram, "pgweir_server_login_seconds", &["database", "user", "phase"],
        "How long the phases of logins to PostgreSQL took that worked: dns, tcp, tls, auth; and first_query, the first of a new server.";
    UNNAMED_POOLS: Gauge, "pgweir_unnamed_pools", &[],
        "Pools that are in the label other, because there are too many of them.";
    SCRAPE: Gauge, "pgweir_last_scrape_seconds", &[],
        "How long it took to write this page the last time.";
    PROCESS_CPU: Counter, "process_cpu_seconds_total", &[],
        "Processor time of the process.";
    PROCESS_MEMORY: Gauge, "process_resident_memory_bytes", &[],
        "Memory of the process.";
    PROCESS_FILES: Gauge, "process_open_fds", &[],
        "Open files of the process.";
    PROCESS_FILES_MAX: Gauge, "process_max_fds", &[],
        "How many files the process may open.";
    }
}

metrics! {
    /// Single families of the exporter.
    EXPORTER {
    UP: Gauge, "pgbouncer_up", &[],
        "Always 1: whoever reads this has reached the pooler.";
    VERSION_INFO: Gauge, "pgbouncer_version_info", &["version"],
        "Always 1; the label is what SHOW VERSION says.";
    CONFIG_CLIENTS: Gauge, "pgbouncer_config_max_client_connections", &[],
        "The key max_client_conn.";
    CONFIG_USER: Gauge, "pgbouncer_config_max_user_connections", &[],
        "The key max_user_connections.";
    EXPORTER_CLIENTS: Gauge, "pgbouncer_client_connections",
        &["database", "user", "application_name", "state"],
        "Rows of SHOW CLIENTS.";
    }
}

metrics! {
    /// The exporter's families of SHOW LISTS.
    LISTS {
    LIST_DATABASES: Gauge, "pgbouncer_databases", &[], "Rows of SHOW DATABASES.";
    LIST_USERS: Gauge, "pgbouncer_users", &[], "Rows of SHOW USERS.";
    LIST_POOLS: Gauge, "pgbouncer_pools", &[], "Rows of SHOW POOLS.";
    LIST_FREE_CLIENTS: Gauge, "pgbouncer_free_clients", &[], "Always 0: there is no such cache.";
    LIST_USED_CLIENTS: Gauge, "pgbouncer_used_clients", &[], "Clients that are connected, those that log in among them.";
    LIST_LOGIN_CLIENTS: Gauge, "pgbouncer_login_clients", &[], "Clients that are logging in.";
    LIST_FREE_SERVERS: Gauge, "pgbouncer_free_servers", &[], "Always 0: there is no such cache.";
    LIST_USED_SERVERS: Gauge, "pgbouncer_used_servers", &[], "Servers.";
    LIST_DNS_NAMES: Gauge, "pgbouncer_cached_dns_names", &[], "Host names in the cache.";
    LIST_DNS_ZONES: Gauge, "pgbouncer_cached_dns_zones", &[], "Zones in the cache.";
    LIST_DNS_QUERIES: Gauge, "pgbouncer_in_flight_dns_queries", &[], "Host names that are being asked for.";
    }
}

metrics! {
    /// The exporter's families of SHOW DATABASES.
    DATABASES {
    DATABASE_POOL_SIZE: Gauge, "pgbouncer_databases_pool_size", ENTRY, "Servers that one pool may have.";
    DATABASE_RESERVE: Gauge, "pgbouncer_databases_reserve_pool", ENTRY, "Servers beyond that, for those who have waited.";
    DATABASE_MAX: Gauge, "pgbouncer_databases_max_connections", ENTRY, "Servers that all pools of the database may have.";
    DATABASE_CURRENT: Gauge, "pgbouncer_databases_current_connections", ENTRY, "Servers of the database.";
    DATABASE_PAUSED: Gauge, "pgbouncer_databases_paused", ENTRY, "Whether it was paused by name.";
    DATABASE_DISABLED: Gauge, "pgbouncer_databases_disabled", ENTRY, "Whether new clients are refused.";
    }
}

metrics! {
    /// The exporter's families of SHOW POOLS.
    POOLS {
    POOL_CL_ACTIVE: Gauge, "pgbouncer_pools_client_active_connections", POOL, "Clients that do not wait for a server.";
    POOL_CL_ACTIVE_CANCEL: Gauge, "pgbouncer_pools_client_active_cancel_connections", POOL, "Always 0; see SHOW POOLS.";
    POOL_CL_WAITING: Gauge, "pgbouncer_pools_client_waiting_connections", POOL, "Clients that wait for a server.";
    POOL_CL_WAITING_CANCEL: Gauge, "pgbouncer_pools_client_waiting_cancel_connections", POOL, "Always 0; see SHOW POOLS.";
    POOL_SV_ACTIVE: Gauge, "pgbouncer_pools_server_active_connections", POOL, "Servers that clients have.";
    POOL_SV_ACTIVE_CANCEL: Gauge, "pgbouncer_pools_server_active_cancel_connections", POOL, "Always 0; see SHOW POOLS.";
    POOL_SV_BEING_CANCELED: Gauge, "pgbouncer_pools_server_being_canceled_connections", POOL, "Servers that are kept back until a cancel has been dealt with.";
    POOL_SV_IDLE: Gauge, "pgbouncer_pools_server_idle_connections", POOL, "Servers that can be used at once.";
    POOL_SV_USED: Gauge, "pgbouncer_pools_server_used_connections", POOL, "Idle servers that will be checked before their next use.";
    POOL_SV_TESTED: Gauge, "pgbouncer_pools_server_testing_connections", POOL, "Servers that are being cleaned or checked.";
    POOL_SV_LOGIN: Gauge, "pgbouncer_pools_server_login_connections", POOL, "Servers that are being opened.";
    POOL_MAXWAIT: Gauge, "pgbouncer_pools_client_maxwait_seconds", POOL, "How long the client that waits longest has been waiting.";
    // The community's alert rules have names that no exporter ever gave.
    POOL_CL_WAITING_ALIAS: Gauge, "pgbouncer_pools_cl_waiting", POOL, "The same as pgbouncer_pools_client_waiting_connections, for alerts that have this name.";
    }
}

/// What the exporter's names for the counters of a database begin with.
pub const STATS_PREFIX: &str = "pgbouncer_stats_totals_";

/// What exporters before 0.11 began them with.
pub const LEGACY_STATS_PREFIX: &str = "pgbouncer_stats_";

/// How many of the counters exporters before 0.11 had.
pub const LEGACY_STATS: &[&str] = &[
    "query_count",
    "query_time_us",
    "bytes_received",
    "bytes_sent",
    "wait_time_us",
    "xact_count",
    "xact_time_us",
];

/// The families of ours, in the order of the page.
pub fn own() -> impl Iterator<Item = &'static Metric> {
    OWN.iter()
        .chain(COUNTERS.iter().map(|counter| &counter.metric))
}

/// The exporter's families that are declared here; the counters are beside these.
pub fn exporter() -> impl Iterator<Item = &'static Metric> {
    [EXPORTER, LISTS, DATABASES, POOLS].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_say_their_unit() {
        let mut seen = BTreeSet::new();
        for metric in own().chain(exporter()) {
            assert!(seen.insert(metric.name), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
            let is_total = metric.name.ends_with("_total");
            assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
            let is_time = metric.kind == Kind::Histogram;
            assert!(
                !is_time || metric.name.ends_with("_seconds"),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn legacy_counters_are_counters() {
        for name in LEGACY_STATS {
            let counter = COUNTERS.iter().find(|counter| counter.name == *name);
            assert!(
                counter.is_some_and(|counter| counter.exporter.is_some()),
                "{name}"
            );
        }
    }
}
