//! All workloads: one row each.

use super::workload::{Auth, Each, Group, Load, Other, Pgbench, Relay, Way, Workload};

const SIMPLE: &[&str] = &["-S", "-M", "simple"];
const EXTENDED: &[&str] = &["-S", "-M", "extended"];
const PREPARED: &[&str] = &["-S", "-M", "prepared"];
const CONNECT: &[&str] = &["-C"];

const SIMPLE_WHAT: &str = "one-row SELECT, simple protocol";
const EXTENDED_WHAT: &str = "the same, extended protocol";
const PREPARED_WHAT: &str = "the same, named prepared statement";

/// Only the connection is wanted; pgbench opens none without a command.
const NOTHING: &str = "\\set nothing 0\n";

/// Ten statements and one Sync.
const PIPELINE: &str = "\\startpipeline\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\set a random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :a;\n\
    \\endpipeline\n";

const COPY_OUT: &str = "COPY (SELECT repeat('x', 94) FROM generate_series(1, 1000000)) TO STDOUT";

const BIG_ROWS: &str = "SELECT repeat('x', 8000) FROM generate_series(1, 12500)";

const TLS_CLIENT: Way = Way {
    tls_client: true,
    ..Way::PLAIN
};

const TLS_SERVER: Way = Way {
    tls_server: true,
    ..Way::PLAIN
};

const TLS_BOTH: Way = Way {
    tls_client: true,
    ..TLS_SERVER
};

const UNIX: Way = Way {
    unix: true,
    ..Way::PLAIN
};

const fn proven(auth: Auth) -> Way {
    Way { auth, ..Way::PLAIN }
}

const fn proven_over_tls(auth: Auth) -> Way {
    Way { auth, ..TLS_CLIENT }
}

const fn workload(name: &'static str, what: &'static str, group: Group, load: Load) -> Workload {
    Workload {
        name,
        what,
        group,
        load,
        relay: Relay::Transaction,
        way: Way::PLAIN,
        is_main: true,
    }
}

const fn pgbench(clients: u32, args: &'static [&'static str]) -> Pgbench {
    Pgbench {
        clients,
        args,
        script: None,
        each: Each::Transaction,
    }
}

const fn simple(name: &'static str, clients: u32) -> Workload {
    let load = Load::Pgbench(pgbench(clients, SIMPLE));
    workload(name, SIMPLE_WHAT, Group::Simple, load)
}

const fn extended(name: &'static str, clients: u32) -> Workload {
    let load = Load::Pgbench(pgbench(clients, EXTENDED));
    workload(name, EXTENDED_WHAT, Group::Extended, load)
}

const fn prepared(name: &'static str, clients: u32) -> Workload {
    let load = Load::Pgbench(pgbench(clients, PREPARED));
    let relay = if clients <= super::workload::SERVERS {
        Relay::Session
    } else {
        Relay::No
    };
    workload(name, PREPARED_WHAT, Group::Prepared, load).by_relay(relay)
}

const fn login(name: &'static str, what: &'static str, way: Way) -> Workload {
    let load = Load::Pgbench(Pgbench {
        script: Some(NOTHING),
        each: Each::Login,
        ..pgbench(16, CONNECT)
    });
    workload(name, what, Group::Logins, load).over(way)
}

const fn over_tls(name: &'static str, what: &'static str, way: Way) -> Workload {
    let load = Load::Pgbench(pgbench(16, SIMPLE));
    workload(name, what, Group::Tls, load).over(way)
}

const fn idle(name: &'static str, what: &'static str, clients: u32, query_first: bool) -> Workload {
    let load = Load::Idle {
        clients,
        query_first,
        active: if clients > 5000 { 16 } else { 0 },
    };
    workload(name, what, Group::Idle, load)
}

const fn beside(name: &'static str, what: &'static str, other: Other, way: Way) -> Workload {
    let pgbench = pgbench(16, SIMPLE);
    let load = Load::Beside { pgbench, other };
    workload(name, what, Group::Beside, load)
        .by_relay(Relay::No)
        .over(way)
}

impl Workload {
    /// Runs only with `--all` or `--only`.
    const fn when_asked(mut self) -> Self {
        self.is_main = false;
        self
    }

    const fn by_relay(mut self, relay: Relay) -> Self {
        self.relay = relay;
        self
    }

    const fn over(mut self, way: Way) -> Self {
        self.way = way;
        self
    }
}

/// All workloads, in the order in which they run.
pub(crate) const WORKLOADS: &[Workload] = &[
    simple("select_simple_1", 1).when_asked(),
    simple("select_simple_16", 16),
    simple("select_simple_64", 64),
    simple("select_simple_1000", 1000),
    simple("select_simple_5000", 5000).when_asked(),
    extended("select_extended_1", 1).when_asked(),
    extended("select_extended_16", 16),
    extended("select_extended_64", 64),
    extended("select_extended_1000", 1000).when_asked(),
    extended("select_extended_5000", 5000).when_asked(),
    prepared("select_prepared_1", 1).when_asked(),
    prepared("select_prepared_16", 16),
    prepared("select_prepared_64", 64),
    prepared("select_prepared_1000", 1000).when_asked(),
    prepared("select_prepared_5000", 5000).when_asked(),
    workload(
        "connect_16",
        "a new connection for every SELECT",
        Group::Logins,
        Load::Pgbench(pgbench(16, &["-S", "-C"])),
    ),
    login("login_trust", "a login that asks nothing", Way::PLAIN),
    login(
        "login_md5",
        "the same with an MD5 password",
        proven(Auth::Md5),
    )
    .when_asked(),
    login(
        "login_scram",
        "the same with SCRAM-SHA-256",
        proven(Auth::Scram),
    ),
    login(
        "login_scram_tls",
        "the same with SCRAM-SHA-256 over TLS (RSA-2048)",
        proven_over_tls(Auth::Scram),
    ),
    login(
        "login_cert",
        "the same with the client's certificate (RSA-2048)",
        proven_over_tls(Auth::Cert),
    )
    .when_asked(),
    workload(
        "tpcb_16",
        "pgbench's default: seven statements in a transaction",
        Group::Transactions,
        Load::Pgbench(pgbench(16, &[])),
    ),
    workload(
        "pipeline_16",
        "ten one-row SELECTs in a pipeline, extended protocol",
        Group::Transactions,
        Load::Pgbench(Pgbench {
            script: Some(PIPELINE),
            each: Each::Pipeline,
            ..pgbench(16, &["-M", "extended"])
        }),
    ),
    workload(
        "unix_16",
        "select_simple_16 over Unix sockets on both sides",
        Group::Transactions,
        Load::Pgbench(pgbench(16, SIMPLE)),
    )
    .over(UNIX)
    .when_asked(),
    over_tls(
        "tls_client_16",
        "select_simple_16, TLS towards clients",
        TLS_CLIENT,
    ),
    over_tls(
        "tls_server_16",
        "select_simple_16, TLS towards PostgreSQL",
        TLS_SERVER,
    )
    .when_asked(),
    over_tls(
        "tls_both_16",
        "select_simple_16, TLS on both sides",
        TLS_BOTH,
    )
    .when_asked(),
    workload(
        "rows_small",
        "a result of 100 MB in rows of about 100 bytes",
        Group::Transfers,
        Load::Read {
            sql: "SELECT repeat('x', 89) FROM generate_series(1, 1000000)",
            times: 3,
        },
    ),
    workload(
        "rows_big",
        "ten results of 100 MB in rows of 8 KB",
        Group::Transfers,
        Load::Read {
            sql: BIG_ROWS,
            times: 10,
        },
    ),
    workload(
        "copy_out",
        "COPY TO STDOUT of 100 MB in rows of about 100 bytes",
        Group::Transfers,
        Load::Read {
            sql: COPY_OUT,
            times: 3,
        },
    ),
    workload(
        "tls_copy_out",
        "copy_out, TLS towards PostgreSQL",
        Group::Transfers,
        Load::Read {
            sql: COPY_OUT,
            times: 3,
        },
    )
    .over(TLS_SERVER)
    .when_asked(),
    workload(
        "copy_in",
        "COPY FROM STDIN of 300 MB in messages of 8 KB, thrown away by PostgreSQL",
        Group::Transfers,
        Load::Write {
            sql: "COPY sink FROM STDIN WHERE false",
            megabytes: 300,
            row: "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
        },
    ),
    idle(
        "idle_5000",
        "memory per client that has logged in and never asked anything",
        5000,
        false,
    )
    .when_asked(),
    idle(
        "idle_5000_used",
        "memory per client that is idle after one query",
        5000,
        true,
    )
    .when_asked(),
    idle(
        "idle_10000",
        "the same with 10,000 clients, and then 16 active ones beside them",
        10_000,
        true,
    ),
    idle("idle_50000", "the same with 50,000 clients", 50_000, true)
        .by_relay(Relay::No)
        .when_asked(),
    workload(
        "idle_tls_2000",
        "memory per client that is idle after one query over TLS",
        Group::Idle,
        Load::IdleTls { clients: 2000 },
    )
    .by_relay(Relay::No)
    .over(TLS_CLIENT),
    beside(
        "login_storm_16",
        "select_simple_16 beside 100 logins per second with SCRAM-SHA-256, 32 at once",
        Other::Logins {
            clients: 32,
            per_second: 100,
        },
        proven(Auth::Scram),
    ),
    beside(
        "slow_reader_16",
        "select_simple_16 beside a client that reads a large result at 256 KB/s",
        Other::SlowReader {
            sql: BIG_ROWS,
            per_second: 256_000,
        },
        Way::PLAIN,
    ),
    workload(
        "scraped_16",
        "select_simple_16 while /metrics is read each second and /status.json every other",
        Group::Beside,
        Load::Scraped {
            pgbench: pgbench(16, SIMPLE),
        },
    )
    .by_relay(Relay::No),
];

/// The workload of this name, if there is one.
pub(crate) fn find(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (at, workload) in WORKLOADS.iter().enumerate() {
            let others = &WORKLOADS[at + 1..];
            assert!(others.iter().all(|other| other.name != workload.name));
        }
    }

    #[test]
    fn the_relay_is_not_asked_for_prepared_statements_on_changing_servers() {
        for workload in WORKLOADS {
            assert!(!workload.load.needs_prepared() || workload.relay != Relay::Transaction);
        }
    }

    #[test]
    fn a_pipeline_has_ten_statements() {
        assert_eq!(PIPELINE.matches("SELECT").count(), 10);
    }
}
