//! SHOW CLIENTS, SERVERS, SOCKETS, ACTIVE_SOCKETS and FDS: one row per connection.
//!
//! Clients and servers share one row type. Ids come from one sequence for both, so that `ptr` and
//! `link`, which PgBouncer fills with addresses and we with ids, match a client with its server.

use std::sync::Arc;
use std::time::Duration;

use crate::table::{Cell, CellWriter, UnixTime, int4, table};

/// One client or server connection.
#[derive(Clone, Debug)]
pub struct SocketRow {
    /// Where it stands; tells clients from servers, too.
    pub state: SocketState,
    /// `None` before it is known.
    pub user: Option<Arc<str>>,
    /// `None` before it is known, and for peers.
    pub database: Option<Arc<str>>,
    /// The kind of replication connection.
    pub replication: Replication,
    /// The other end: an IP address or `unix`.
    pub addr: String,
    /// The other end's port.
    pub port: u16,
    /// Our end.
    pub local_addr: String,
    /// Our end's port.
    pub local_port: u16,
    /// When the connection was made.
    pub connect_time: UnixTime,
    /// When its last request began.
    pub request_time: UnixTime,
    /// How long the current query has taken; for a waiting client, how long it has waited.
    pub wait: Duration,
    /// Whether the server is to be closed as soon as it is released.
    pub close_needed: bool,
    /// The id of the connection.
    pub id: u64,
    /// The id of the server of a client, or of the client of a server.
    pub link: Option<u64>,
    /// The process at the other end; 0 if not known.
    pub remote_pid: u32,
    /// Version and cipher, empty without TLS.
    pub tls: String,
    /// What the client calls itself.
    pub application_name: Arc<str>,
    /// How many prepared statements it holds.
    pub prepared_statements: usize,
    /// Its buffers, for SHOW SOCKETS.
    pub buffers: SocketBuffers,
}

/// Positions in the buffers of a connection, in bytes. All zero without a buffer.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    missing_docs,
    reason = "the fields are the columns, which PgBouncer's manual describes"
)]
pub struct SocketBuffers {
    pub recv_pos: usize,
    pub pkt_pos: usize,
    pub pkt_remain: usize,
    pub send_pos: usize,
    pub send_remain: usize,
    pub pkt_avail: usize,
    pub send_avail: usize,
}

/// Where a connection stands, in PgBouncer's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketState {
    /// A client that has a server or needs none.
    ClientActive,
    /// A client that waits for a server.
    ClientWaiting,
    /// A cancel request that was passed on.
    ClientActiveCancel,
    /// A cancel request that waits.
    ClientWaitingCancel,
    /// A client that logs in.
    ClientLogin,
    /// A server that a client has.
    ServerActive,
    /// A server at rest.
    ServerIdle,
    /// A server at rest for so long that it has to be checked.
    ServerUsed,
    /// A server that is being checked or reset.
    ServerTested,
    /// A server that logs in.
    ServerLogin,
    /// A connection that carries a cancel request.
    ServerActiveCancel,
    /// A server that would be idle but for a cancel request on its way.
    ServerBeingCanceled,
}

impl SocketState {
    /// Whether this is a client's state.
    pub const fn is_client(self) -> bool {
        match self {
            Self::ClientActive
            | Self::ClientWaiting
            | Self::ClientActiveCancel
            | Self::ClientWaitingCancel
            | Self::ClientLogin => true,
            Self::ServerActive
            | Self::ServerIdle
            | Self::ServerUsed
            | Self::ServerTested
            | Self::ServerLogin
            | Self::ServerActiveCancel
            | Self::ServerBeingCanceled => false,
        }
    }

    /// Whether SHOW SOCKETS lists it; PgBouncer leaves cancel requests out there.
    pub const fn is_in_sockets(self) -> bool {
        match self {
            Self::ClientActive
            | Self::ClientWaiting
            | Self::ClientLogin
            | Self::ServerActive
            | Self::ServerIdle
            | Self::ServerUsed
            | Self::ServerTested
            | Self::ServerLogin => true,
            Self::ClientActiveCancel
            | Self::ClientWaitingCancel
            | Self::ServerActiveCancel
            | Self::ServerBeingCanceled => false,
        }
    }

    /// The word in SHOW CLIENTS and SHOW SERVERS. Clients that log in are not shown there.
    const fn word(self) -> &'static str {
        match self {
            Self::ClientActive | Self::ServerActive => "active",
            Self::ClientWaiting => "waiting",
            Self::ClientActiveCancel => "active_cancel_req",
            Self::ClientWaitingCancel => "waiting_cancel_req",
            Self::ClientLogin => "login",
            Self::ServerIdle => "idle",
            Self::ServerUsed => "used",
            Self::ServerTested => "tested",
            Self::ServerLogin => "new",
            Self::ServerActiveCancel => "active_cancel",
            Self::ServerBeingCanceled => "being_canceled",
        }
    }

    /// The word in SHOW SOCKETS.
    const fn long_word(self) -> &'static str {
        match self {
            Self::ClientActive => "cl_active",
            Self::ClientWaiting => "cl_waiting",
            Self::ClientActiveCancel => "cl_active_cancel_req",
            Self::ClientWaitingCancel => "cl_waiting_cancel_req",
            Self::ClientLogin => "cl_login",
            Self::ServerActive => "sv_active",
            Self::ServerIdle => "sv_idle",
            Self::ServerUsed => "sv_used",
            Self::ServerTested => "sv_tested",
            Self::ServerLogin => "sv_login",
            Self::ServerActiveCancel => "sv_active_cancel",
            Self::ServerBeingCanceled => "sv_being_canceled",
        }
    }
}

/// Whether and how a connection replicates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// An ordinary connection.
    #[default]
    None,
    /// Logical replication, of one database.
    Logical,
    /// Physical replication, of the whole server.
    Physical,
}

impl Cell for Replication {
    fn write(&self, cell: CellWriter<'_>) {
        cell.text(match self {
            Self::None => "none",
            Self::Logical => "logical",
            Self::Physical => "physical",
        });
    }
}

impl SocketRow {
    /// PgBouncer shows an active client without a server as idle.
    fn short_state(&self) -> &'static str {
        match self.link {
            None if self.state.word() == "active" => "idle",
            None | Some(_) => self.state.word(),
        }
    }
}

/// The id that the console shows, which is the one KILL_CLIENT is given: the lower 31 bits, because the
/// column is an int4.
pub const fn shown_id(id: u64) -> u32 {
    (id & 0x7fff_ffff) as u32
}

/// An id in the place of an address.
struct Pointer(Option<u64>);

impl Cell for Pointer {
    fn write(&self, cell: CellWriter<'_>) {
        match self.0 {
            Some(id) => cell.format(format_args!("{id:#014x}")),
            None => cell.text(""),
        }
    }
}

/// Declares a table of sockets: the columns all of them have, then more.
macro_rules! socket_table {
    (
        $(#[$meta:meta])* pub $const:ident, $word:literal,
        |$socket:ident| state: $state:expr, { $($more:tt)* }
    ) => {
        table!($(#[$meta])* pub $const: SocketRow, $word, |$socket| {
            "type" Text = if $socket.state.is_client() { "C" } else { "S" };
            "user" Text = $socket.user.as_deref().unwrap_or("(nouser)");
            "database" Text = $socket.database.as_deref().unwrap_or("(nodb)");
            "replication" Text = $socket.replication;
            "state" Text = $state;
            "addr" Text = $socket.addr;
            "port" Int4 = int4($socket.port);
            "local_addr" Text = $socket.local_addr;
            "local_port" Int4 = int4($socket.local_port);
            "connect_time" Text = $socket.connect_time;
            "request_time" Text = $socket.request_time;
            "wait" Int4 = int4($socket.wait.as_secs());
            "wait_us" Int4 = int4($socket.wait.subsec_micros());
            "close_needed" Int4 = $socket.close_needed;
            "ptr" Text = Pointer(Some($socket.id));
            "link" Text = Pointer($socket.link);
            "remote_pid" Int4 = int4($socket.remote_pid);
            "tls" Text = $socket.tls;
            "application_name" Text = $socket.application_name;
            "prepared_statements" Int4 = int4($socket.prepared_statements);
            "id" Int4 = int4(shown_id($socket.id));
            $($more)*
        });
    };
    ($(#[$meta:meta])* pub $const:ident, $word:literal, with buffers) => {
        socket_table!($(#[$meta])* pub $const, $word, |socket| state: socket.state.long_word(), {
            "recv_pos" Int4 = int4(socket.buffers.recv_pos);
            "pkt_pos" Int4 = int4(socket.buffers.pkt_pos);
            "pkt_remain" Int4 = int4(socket.buffers.pkt_remain);
            "send_pos" Int4 = int4(socket.buffers.send_pos);
            "send_remain" Int4 = int4(socket.buffers.send_remain);
            "pkt_avail" Int4 = int4(socket.buffers.pkt_avail);
            "send_avail" Int4 = int4(socket.buffers.send_avail);
        });
    };
}

socket_table!(
    /// SHOW CLIENTS.
    pub CLIENTS, "clients", |socket| state: socket.short_state(), {}
);
socket_table!(
    /// SHOW SERVERS.
    pub SERVERS, "servers", |socket| state: socket.short_state(), {}
);
socket_table!(
    /// SHOW SOCKETS.
    pub SOCKETS, "sockets", with buffers
);
socket_table!(
    /// SHOW ACTIVE_SOCKETS: the rows whose buffers are not empty.
    pub ACTIVE_SOCKETS, "active_sockets", with buffers
);

/// One file descriptor. It carries secrets: for admins, never for the log, hence without `Debug`.
#[derive(Clone)]
#[expect(
    missing_docs,
    reason = "the fields are the columns, which PgBouncer's manual describes"
)]
pub struct FdRow {
    pub fd: i32,
    pub task: FdTask,
    pub user: Option<Arc<str>>,
    pub database: Option<Arc<str>>,
    pub addr: String,
    pub port: u16,
    /// The cancel key, process id first; 0 for listening sockets.
    pub cancel: i64,
    /// The descriptor of the linked connection; 0 without one.
    pub link: i32,
    pub client_encoding: Option<String>,
    pub std_strings: Option<String>,
    pub datestyle: Option<String>,
    pub timezone: Option<String>,
    /// Only of users that `auth_query` or PAM brought in, whom a successor could not look up.
    pub password: Option<String>,
    pub scram_client_key: Option<[u8; 32]>,
    pub scram_server_key: Option<[u8; 32]>,
}

/// What a file descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FdTask {
    /// A listening socket.
    Pooler,
    /// A client connection.
    Client,
    /// A server connection.
    Server,
}

impl Cell for FdTask {
    fn write(&self, cell: CellWriter<'_>) {
        cell.text(match self {
            Self::Pooler => "pooler",
            Self::Client => "client",
            Self::Server => "server",
        });
    }
}

table!(
    /// SHOW FDS.
    pub FDS: FdRow, "fds", |row| {
        "fd" Int4 = row.fd;
        "task" Text = row.task;
        "user" Text = row.user;
        "database" Text = row.database;
        "addr" Text = row.addr;
        "port" Int4 = int4(row.port);
        "cancel" Int8 = row.cancel;
        "link" Int4 = row.link;
        "client_encoding" Text = row.client_encoding;
        "std_strings" Text = row.std_strings;
        "datestyle" Text = row.datestyle;
        "timezone" Text = row.timezone;
        "password" Text = row.password;
        "scram_client_key" Bytea = row.scram_client_key;
        "scram_server_key" Bytea = row.scram_server_key;
    }
);

table!(
    /// HANDOVER: one text for each thing that is handed over; whoever reads it knows its form.
    pub HANDOVER: String, "handover", |row| {
        "parcel" Text = row;
    }
);
