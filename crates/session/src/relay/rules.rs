//! What a relay is told for a lease: the rules of the configuration, and who is who.

use std::fmt;

use super::StateRules;
use crate::params::Tracked;
use crate::prepared::StatementTable;

/// What holds for a lease: read from the configuration when it begins.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// `max_prepared_statements` per server; `None` where names are forwarded as they are.
    pub max_prepared: Option<usize>,
    /// Whether statements without a name that come again are prepared under a name of the pooler's own
    /// (`prepare_unnamed`), where names are mapped.
    pub prepares_unnamed: bool,
    /// `max_packet_size`
    pub max_message: u32,
    /// `disable_pqexec`: a client must not send simple queries.
    pub refuses_queries: bool,
    /// Whether a client is to be answered as by a PostgreSQL of its own (`error_codes = postgres`): a
    /// name that is taken, or stands for nothing, costs a statement, and what it says of itself is
    /// translated. Otherwise as by a PgBouncer.
    pub answers_as_postgres: bool,
    /// Whether what a client leaves in a session is kept from the others (`session_state`).
    pub private: bool,
    /// What is more to be done about it.
    pub state: StateRules<'a>,
    /// Which parameters stay with their client.
    pub tracked: &'a Tracked,
    /// All statements that are known.
    pub statements: &'a StatementTable,
    /// Whose process ids stand for which, where clients are to see their own.
    pub backends: Option<&'a dyn Backends>,
}

impl<'a> Rules<'a> {
    /// Nothing but relaying: messages of any length pass, names are forwarded as they are, and what is left in the
    /// session is nobody's concern.
    pub fn plain(tracked: &'a Tracked, statements: &'a StatementTable) -> Self {
        Self {
            max_prepared: None,
            prepares_unnamed: false,
            max_message: i32::MAX as u32,
            refuses_queries: false,
            answers_as_postgres: false,
            private: false,
            state: StateRules::default(),
            tracked,
            statements,
            backends: None,
        }
    }
}

/// The process ids that clients know, and those of the servers.
pub trait Backends: Sync {
    /// What clients know as the id of whoever had a server last; `None` if it is no server of ours.
    fn shown(&self, process_id: i32) -> Option<i32>;
}

impl fmt::Debug for dyn Backends + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Backends")
    }
}
