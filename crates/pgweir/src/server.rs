//! A connection to PostgreSQL, and what everybody may know of it.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use pgweir_net::tls::TlsInfo;
use pgweir_net::{Address, Buffered, Target};
use pgweir_session::Relay;
use pgweir_wire::CancelKey;

use crate::client::Client;
use crate::shared::{PoolHome, Welcome};

/// A server that is logged in. It moves by value: into a client's task, and back to the pool.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) line: Buffered,
    pub(crate) relay: Relay,
    pub(crate) info: Arc<ServerInfo>,
}

/// The shared record of a server.
#[derive(Debug)]
pub(crate) struct ServerInfo {
    pub(crate) id: u64,
    pub(crate) home: Arc<PoolHome>,
    /// Where it was reached, and where its CancelRequests go.
    pub(crate) target: Target,
    /// The host name that its certificate must show.
    pub(crate) host: Option<Arc<str>>,
    pub(crate) address: Address,
    pub(crate) connected_at: Instant,
    /// Our end, once connected.
    pub(crate) local: OnceLock<Address>,
    /// Once encrypted, if at all.
    pub(crate) tls: OnceLock<TlsInfo>,
    /// Once logged in.
    pub(crate) cancel_key: OnceLock<CancelKey>,
    /// What it said of itself, once logged in.
    pub(crate) welcome: OnceLock<Arc<Welcome>>,
    /// Changes with every lease.
    pub(crate) loan: Mutex<Loan>,
}

/// Who holds a server, and since when.
#[derive(Debug)]
pub(crate) struct Loan {
    pub(crate) client: Option<Arc<Client>>,
    pub(crate) requested_at: Instant,
    pub(crate) prepared: usize,
}

impl ServerInfo {
    /// The backend's process id, as its cancel key says.
    pub(crate) fn process_id(&self) -> i32 {
        self.cancel_key.get().map_or(0, |key| key.process_id)
    }
}

impl fmt::Display for ServerInfo {
    /// The prefix of its log lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.home.name;
        write!(
            f,
            "S-{:#x}: {}/{}@{}",
            self.id, name.database, name.user, self.address
        )
    }
}
