//! SHOW CONFIG, LISTS, MEM, STATE, DNS_HOSTS, DNS_ZONES and VERSION.

use crate::help::PRODUCT;
use crate::table::{YesNo, int4, table};

/// One configuration key.
#[derive(Clone, Debug)]
pub struct ConfigRow {
    /// Its name.
    pub key: &'static str,
    /// The value in force; `None` shows as NULL.
    pub value: Option<String>,
    /// The value it has when nothing sets it.
    pub default: Option<String>,
    /// Whether SET and RELOAD can change it.
    pub changeable: bool,
}

table!(
    /// SHOW CONFIG.
    pub CONFIG: ConfigRow, "config", |row| {
        "key" Text = row.key;
        "value" Text = row.value;
        "default" Text = row.default;
        "changeable" Text = YesNo(row.changeable);
    }
);

/// One count of SHOW LISTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListRow {
    /// What is counted.
    pub list: &'static str,
    /// How many there are; -1 if that is not known.
    pub items: i64,
}

table!(
    /// SHOW LISTS.
    pub LISTS: ListRow, "lists", |row| {
        "list" Text = row.list;
        "items" Int4 = int4(row.items);
    }
);

macro_rules! list_counts {
    ($($list:ident)+) => {
        /// The counts of SHOW LISTS, a field for each row and in their order.
        #[derive(Clone, Copy, Debug, Default)]
        #[expect(missing_docs, reason = "the fields are the rows, which PgBouncer's manual describes")]
        pub struct ListCounts {
            $(pub $list: i64,)+
        }

        impl ListCounts {
            /// The rows to show.
            pub fn rows(&self) -> impl Iterator<Item = ListRow> {
                [$((stringify!($list), self.$list)),+]
                    .into_iter()
                    .map(|(list, items)| ListRow { list, items })
            }
        }
    };
}

list_counts! {
    databases users peers pools peer_pools
    free_clients used_clients login_clients free_servers used_servers
    dns_names dns_zones dns_queries dns_pending
}

/// One cache of objects of one size.
#[derive(Clone, Copy, Debug)]
pub struct MemRow {
    /// Its name, one of [`MEM_CACHES`].
    pub name: &'static str,
    /// Bytes of one object.
    pub size: usize,
    /// Objects in use.
    pub used: usize,
    /// Objects kept for use.
    pub free: usize,
}

/// The caches that PgBouncer shows, in its order.
pub const MEM_CACHES: [&str; 12] = [
    "user_cache",
    "credentials_cache",
    "db_cache",
    "peer_cache",
    "peer_pool_cache",
    "pool_cache",
    "outstanding_request_cache",
    "server_cache",
    "client_cache",
    "iobuf_cache",
    "var_list_cache",
    "server_prepared_statement_cache",
];

table!(
    /// SHOW MEM.
    pub MEM: MemRow, "mem", |row| {
        "name" Text = row.name;
        "size" Int4 = int4(row.size);
        "used" Int4 = int4(row.used);
        "free" Int4 = int4(row.free);
        "memtotal" Int4 = int4(row.used.saturating_add(row.free).saturating_mul(row.size));
    }
);

/// What the pooler as a whole is told to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PauseState {
    /// To work.
    #[default]
    Active,
    /// To hand out no servers (PAUSE).
    Paused,
    /// To touch no socket (SUSPEND).
    Suspended,
}

/// One row of SHOW STATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateRow {
    key: &'static str,
    value: bool,
}

table!(
    /// SHOW STATE.
    pub STATE: StateRow, "state", |row| {
        "key" Text = row.key;
        "value" Text = YesNo(row.value);
    }
);

impl PauseState {
    /// The rows to show.
    pub fn rows(self) -> [StateRow; 3] {
        [
            ("active", Self::Active),
            ("paused", Self::Paused),
            ("suspended", Self::Suspended),
        ]
        .map(|(key, state)| StateRow {
            key,
            value: self == state,
        })
    }
}

/// One host name that was looked up.
#[derive(Clone, Debug)]
pub struct DnsHostRow {
    /// The name.
    pub hostname: String,
    /// Seconds until it is looked up again; 0 if that is overdue.
    pub ttl: u64,
    /// `address:port`, joined with commas.
    pub addrs: String,
}

table!(
    /// SHOW DNS_HOSTS.
    pub DNS_HOSTS: DnsHostRow, "dns_hosts", |row| {
        "hostname" Text = row.hostname;
        "ttl" Int8 = row.ttl;
        "addrs" Text = row.addrs;
    }
);

/// One DNS zone whose serial is watched.
#[derive(Clone, Debug)]
pub struct DnsZoneRow {
    /// The zone.
    pub zonename: String,
    /// The serial last seen.
    pub serial: u32,
    /// How many of our host names are in it.
    pub count: usize,
}

table!(
    /// SHOW DNS_ZONES.
    pub DNS_ZONES: DnsZoneRow, "dns_zones", |row| {
        "zonename" Text = row.zonename;
        "serial" Int8 = row.serial;
        "count" Int4 = int4(row.count);
    }
);

table!(
    /// SHOW VERSION, whose one row is always the same.
    pub VERSION_TABLE: (), "version", |_row| {
        "version" Text = PRODUCT;
    }
);
