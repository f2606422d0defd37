//! What is measured: one row per workload.

/// Connections to PostgreSQL that every peer may use.
pub(crate) const SERVERS: u32 = 20;

/// The size of pgbench's tables, in units of 100,000 accounts.
pub(crate) const SCALE: u32 = 10;

/// One thing that is done to every peer.
#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) load: Load,
    pub(crate) relay: Relay,
}

/// Who plays the clients, and how.
#[derive(Debug)]
pub(crate) enum Load {
    /// pgbench with these arguments.
    Pgbench {
        clients: u32,
        args: &'static [&'static str],
    },
    /// One client reads the answer to this query so many times.
    Read { sql: &'static str, times: u32 },
    /// One client sends rows.
    Write {
        sql: &'static str,
        megabytes: u32,
        row: &'static str,
    },
    /// Clients log in and do nothing, some after one query.
    Idle { clients: u32, query_first: bool },
}

/// How the bare relay can do the workload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Relay {
    /// As a multiplexer.
    Transaction,
    /// One server per client: prepared statements do not survive a change of servers.
    Session,
    /// Not at all.
    No,
}

impl Relay {
    pub(crate) fn mode(self) -> Option<&'static str> {
        match self {
            Self::Transaction => Some("transaction"),
            Self::Session => Some("session"),
            Self::No => None,
        }
    }
}

impl Load {
    /// What one unit of the cost is.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Pgbench { .. } => "µs CPU per transaction",
            Self::Read { .. } | Self::Write { .. } => "s CPU per GB",
            Self::Idle { .. } => "KiB per client",
        }
    }

    /// What one unit of the rate is, if there is a rate.
    pub(crate) fn rate(&self) -> Option<&'static str> {
        match self {
            Self::Pgbench { .. } => Some("transactions/s"),
            Self::Read { .. } | Self::Write { .. } => Some("MB/s"),
            Self::Idle { .. } => None,
        }
    }

    /// Whether a pooler has to know prepared statements for it.
    pub(crate) fn needs_prepared(&self) -> bool {
        match self {
            Self::Pgbench { args, .. } => args.contains(&"prepared"),
            Self::Read { .. } | Self::Write { .. } | Self::Idle { .. } => false,
        }
    }
}

const fn select(
    name: &'static str,
    what: &'static str,
    args: &'static [&'static str],
    clients: u32,
    relay: Relay,
) -> Workload {
    let load = Load::Pgbench { clients, args };
    Workload {
        name,
        what,
        load,
        relay,
    }
}

const SIMPLE: &[&str] = &["-S", "-M", "simple"];
const EXTENDED: &[&str] = &["-S", "-M", "extended"];
const PREPARED: &[&str] = &["-S", "-M", "prepared"];

const SIMPLE_WHAT: &str = "one-row SELECT, simple protocol";
const EXTENDED_WHAT: &str = "the same, extended protocol";
const PREPARED_WHAT: &str = "the same, named prepared statement";

/// All workloads, in the order in which they run.
pub(crate) const WORKLOADS: &[Workload] = &[
    select(
        "select_simple_16",
        SIMPLE_WHAT,
        SIMPLE,
        16,
        Relay::Transaction,
    ),
    select(
        "select_simple_64",
        SIMPLE_WHAT,
        SIMPLE,
        64,
        Relay::Transaction,
    ),
    select(
        "select_simple_1000",
        SIMPLE_WHAT,
        SIMPLE,
        1000,
        Relay::Transaction,
    ),
    select(
        "select_extended_16",
        EXTENDED_WHAT,
        EXTENDED,
        16,
        Relay::Transaction,
    ),
    select(
        "select_extended_64",
        EXTENDED_WHAT,
        EXTENDED,
        64,
        Relay::Transaction,
    ),
    select(
        "select_extended_1000",
        EXTENDED_WHAT,
        EXTENDED,
        1000,
        Relay::Transaction,
    ),
    select(
        "select_prepared_16",
        PREPARED_WHAT,
        PREPARED,
        16,
        Relay::Session,
    ),
    select("select_prepared_64", PREPARED_WHAT, PREPARED, 64, Relay::No),
    select(
        "select_prepared_1000",
        PREPARED_WHAT,
        PREPARED,
        1000,
        Relay::No,
    ),
    select(
        "connect_16",
        "a new connection for every SELECT",
        &["-S", "-C"],
        16,
        Relay::Transaction,
    ),
    select(
        "tpcb_16",
        "pgbench's default: seven statements in a transaction",
        &[],
        16,
        Relay::Transaction,
    ),
    Workload {
        name: "rows_small",
        what: "a result of 100 MB in rows of about 100 bytes",
        load: Load::Read {
            sql: "SELECT repeat('x', 89) FROM generate_series(1, 1000000)",
            times: 3,
        },
        relay: Relay::Transaction,
    },
    Workload {
        name: "rows_big",
        what: "a result of 100 MB in rows of 8 KB",
        load: Load::Read {
            sql: "SELECT repeat('x', 8000) FROM generate_series(1, 12500)",
            times: 3,
        },
        relay: Relay::Transaction,
    },
    Workload {
        name: "copy_out",
        what: "COPY TO STDOUT of 100 MB in rows of about 100 bytes",
        load: Load::Read {
            sql: "COPY (SELECT repeat('x', 94) FROM generate_series(1, 1000000)) TO STDOUT",
            times: 3,
        },
        relay: Relay::Transaction,
    },
    Workload {
        name: "copy_in",
        what: "COPY FROM STDIN of 300 MB in messages of 8 KB, thrown away by PostgreSQL",
        load: Load::Write {
            sql: "COPY sink FROM STDIN WHERE false",
            megabytes: 300,
            row: "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
        },
        relay: Relay::Transaction,
    },
    Workload {
        name: "idle_5000",
        what: "memory per client that has logged in and never asked anything",
        load: Load::Idle {
            clients: 5000,
            query_first: false,
        },
        relay: Relay::Transaction,
    },
    Workload {
        name: "idle_5000_used",
        what: "memory per client that is idle after one query",
        load: Load::Idle {
            clients: 5000,
            query_first: true,
        },
        relay: Relay::Transaction,
    },
];

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
}
