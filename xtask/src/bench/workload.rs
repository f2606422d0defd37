//! What a workload is; which there are is in `workloads`.

/// Connections to PostgreSQL that every peer may use.
pub(crate) const SERVERS: u32 = 20;

/// The size of pgbench's tables, in units of 100,000 accounts.
pub(crate) const SCALE: u32 = 10;

/// One thing that is done to every peer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// The picture it is in.
    pub(crate) group: Group,
    pub(crate) load: Load,
    pub(crate) relay: Relay,
    pub(crate) way: Way,
    /// Whether it runs without being asked for.
    pub(crate) is_main: bool,
}

/// Workloads that are shown in one picture.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Group {
    Simple,
    Extended,
    Prepared,
    Transactions,
    Logins,
    Tls,
    Transfers,
    Idle,
    Beside,
}

impl Group {
    pub(crate) const ALL: [Self; 9] = [
        Self::Simple,
        Self::Extended,
        Self::Prepared,
        Self::Transactions,
        Self::Logins,
        Self::Tls,
        Self::Transfers,
        Self::Idle,
        Self::Beside,
    ];

    /// The name of its file, and what stands above it.
    pub(crate) fn titles(self) -> (&'static str, &'static str) {
        match self {
            Self::Simple => ("simple", "One-row SELECT, simple protocol"),
            Self::Extended => ("extended", "One-row SELECT, extended protocol"),
            Self::Prepared => ("prepared", "One-row SELECT, prepared statement"),
            Self::Transactions => ("transactions", "Transactions, pipelines, Unix sockets"),
            Self::Logins => ("logins", "Logins"),
            Self::Tls => ("tls", "One-row SELECT over TLS"),
            Self::Transfers => ("transfers", "Large results and COPY"),
            Self::Idle => ("idle", "Memory per idle client"),
            Self::Beside => ("beside", "Quick clients beside others: their p99"),
        }
    }
}

/// Who plays the clients, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// pgbench.
    Pgbench(Pgbench),
    /// One client reads the answer to this query so many times.
    Read { sql: &'static str, times: u32 },
    /// One client sends rows.
    Write {
        sql: &'static str,
        megabytes: u32,
        row: &'static str,
    },
    /// Clients log in and do nothing, some after one query; then so many others are active beside them.
    Idle {
        clients: u32,
        query_first: bool,
        active: u32,
    },
    /// The same played by pgbench, which knows TLS.
    IdleTls { clients: u32 },
    /// pgbench alone, and then with somebody beside it.
    Beside { pgbench: Pgbench, other: Other },
    /// pgbench, by turns alone and while somebody reads the metrics and the status page.
    Scraped { pgbench: Pgbench },
}

/// One run of pgbench.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pgbench {
    pub(crate) clients: u32,
    pub(crate) args: &'static [&'static str],
    /// Instead of one of its own scripts.
    pub(crate) script: Option<&'static str>,
    /// What it counts as a transaction.
    pub(crate) each: Each,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Each {
    Transaction,
    /// Ten statements at once.
    Pipeline,
    Login,
}

/// Who is beside the clients that are measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Other {
    /// So many logins per second, asked for by so many at once.
    Logins { clients: u32, per_second: u32 },
    /// One client that asks for much and takes so many bytes per second.
    SlowReader { sql: &'static str, per_second: u32 },
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

/// How clients come to the pooler, and how it comes to PostgreSQL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Way {
    pub(crate) auth: Auth,
    pub(crate) tls_client: bool,
    pub(crate) tls_server: bool,
    /// Unix sockets on both sides.
    pub(crate) unix: bool,
}

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Auth {
    Trust,
    Md5,
    Scram,
    Cert,
}

impl Way {
    /// TCP, nobody proves anything.
    pub(crate) const PLAIN: Self = Self {
        auth: Auth::Trust,
        tls_client: false,
        tls_server: false,
        unix: false,
    };

    pub(crate) fn is_plain(self) -> bool {
        self == Self::PLAIN
    }
}

impl Load {
    /// What one unit of the cost is.
    pub(crate) fn unit(&self) -> &'static str {
        match self {
            Self::Pgbench(pgbench) => match pgbench.each {
                Each::Transaction => "µs CPU per transaction",
                Each::Pipeline => "µs CPU per pipeline",
                Each::Login => "µs CPU per login",
            },
            Self::Read { .. } | Self::Write { .. } => "s CPU per GB",
            Self::Idle { .. } | Self::IdleTls { .. } => "KiB per client",
            Self::Beside { .. } => "ms p99 beside them",
            Self::Scraped { .. } => "times the CPU of unread pages",
        }
    }

    /// What one unit of the rate is, if there is a rate.
    pub(crate) fn rate(&self) -> Option<&'static str> {
        match self {
            Self::Pgbench(Pgbench { each, .. }) => Some(match each {
                Each::Transaction => "transactions/s",
                Each::Pipeline => "pipelines/s",
                Each::Login => "logins/s",
            }),
            Self::Beside { .. } | Self::Scraped { .. } => Some("transactions/s"),
            Self::Read { .. } | Self::Write { .. } => Some("MB/s"),
            Self::Idle { active: 0, .. } | Self::IdleTls { .. } => None,
            Self::Idle { .. } => Some("transactions/s"),
        }
    }

    /// Whether a pooler has to know prepared statements for it.
    pub(crate) fn needs_prepared(&self) -> bool {
        match self {
            Self::Pgbench(pgbench) | Self::Beside { pgbench, .. } | Self::Scraped { pgbench } => {
                pgbench.args.contains(&"prepared")
            }
            Self::Read { .. } | Self::Write { .. } | Self::Idle { .. } | Self::IdleTls { .. } => {
                false
            }
        }
    }

    /// Whether its statements have no names and are parsed anew each time.
    pub(crate) fn parses_unnamed(&self) -> bool {
        matches!(self, Self::Pgbench(pgbench) if pgbench.args.contains(&"extended"))
    }

    /// Connections of clients at the same time.
    pub(crate) fn clients(&self) -> u32 {
        match self {
            Self::Pgbench(pgbench) | Self::Scraped { pgbench } => pgbench.clients,
            Self::Beside { pgbench, other } => {
                pgbench.clients
                    + match other {
                        Other::Logins { clients, .. } => *clients,
                        Other::SlowReader { .. } => 1,
                    }
            }
            Self::Read { .. } | Self::Write { .. } => 1,
            Self::Idle {
                clients, active, ..
            } => clients + active,
            Self::IdleTls { clients } => *clients,
        }
    }
}

impl Workload {
    /// Files that a pooler needs open for it, with some room.
    pub(crate) fn files(&self) -> u64 {
        u64::from(self.load.clients() + SERVERS) + 100
    }

    /// Whether one run of a count (system calls, instructions) says something: with a thousand clients the
    /// logins would count for more than the transactions.
    pub(crate) fn can_be_counted(&self) -> Option<Pgbench> {
        match self.load {
            Load::Pgbench(pgbench) if pgbench.clients <= 64 => Some(pgbench),
            _ => None,
        }
    }
}
