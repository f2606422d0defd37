//! Moves frames between a client and the server it holds: what to do with the next bytes.
//!
//! Hot path. Headers are read in place, bodies are skipped by length, and what is forwarded as it
//! came is never copied. Nothing is allocated per frame except for named prepared statements.
//!
//! [`Relay::from_client`] and [`Relay::from_server`] each hold the one `match` on tags of their
//! direction. A `Relay` belongs to its server: between leases it is quiet.

mod abandon;
mod apart;
mod client_side;
mod errors;
mod fakes;
mod fit;
mod from_client;
mod from_server;
mod judged;
mod lacking;
mod listening;
mod mention;
mod named;
mod rest;
mod rules;
mod state;
mod unnamed;
mod violation;
mod waits;

use bytes::BytesMut;
use pgweir_wire::{TransactionStatus, frontend};
use serde::{Deserialize, Serialize};

pub use abandon::Abandon;
pub use apart::Settled;
pub use client_side::ClientSide;
pub use fit::Refused;
pub use from_client::FromClient;
use judged::Judgements;
pub use judged::{Case, Judge, Said, StateRules};
pub use listening::Listening;
use rest::Rest;
pub use rules::{Backends, Rules};
pub use state::RelayState;
use unnamed::{Sent, ServersUnnamed};
pub use violation::Violation;
pub use waits::{Translation, Waits};

use crate::outgrown::Comparison;
use crate::parameters::Parameters;
use crate::params::Values;
use crate::pipeline::{Awaited, Pipeline, Reply};
use crate::prepared::ServerStatements;
use crate::residue::probe::Row;
use crate::residue::{Facts, Familiar, Probe, Residue};
use crate::spoken::Spoken;

/// Counts since they were last taken.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Named Parse messages from clients.
    pub client_parses: u64,
    /// Parse messages sent to servers for named statements.
    pub server_parses: u64,
    /// Bind messages of named statements.
    pub binds: u64,
    /// Errors that servers have answered with; see [`Relay::take_error_classes`].
    pub errors: u64,
}

/// The relay of one server connection.
#[derive(Debug)]
pub struct Relay {
    pipeline: Pipeline,
    client_rest: Rest,
    server_rest: Rest,
    stream: ClientStream,
    status: TransactionStatus,
    statements: ServerStatements,
    unnamed: ServersUnnamed,
    values: Values,
    /// What its sessions have when nobody requests another value, where RESET does not lead there.
    defaults: Parameters,
    /// What the server reported at its login.
    login_values: Values,
    asked: Asked,
    refused: Option<Box<Refused>>,
    /// Whether the client has reset parameters that it had requested.
    was_reset: bool,
    /// Whether PostgreSQL is in hot standby mode, as of a change that nobody has taken notice of.
    in_hot_standby: Option<bool>,
    has_said_goodbye: bool,
    /// What the client that has the server has asked.
    spoken: Spoken,
    /// Whether the server was told to answer what an abandoned batch has asked so far.
    is_flushed: bool,
    tally: Tally,
    /// What the session holds beyond its books, and what it may hold.
    residue: Residue,
    /// What has been asked of it before.
    familiar: Familiar,
    /// Who has the server.
    client: u64,
    /// Who has drawn from sequences what the session still knows.
    drawn_by: Option<u64>,
    waits: Waits,
    /// Whether the next message with process ids has the servers' in it.
    is_translated: bool,
    translation_tries: u8,
    /// Whether the text that was noted last may name a process.
    speaks_of_own: bool,
    /// Rows of the reply to a query of the pooler's own.
    own_rows: Vec<Row>,
    /// The answer to the last look.
    facts: Option<Box<Facts>>,
    /// Classes of errors since they were last taken.
    error_classes: Vec<[u8; 2]>,
    /// The message for the client in place of PostgreSQL's, should its query be canceled.
    on_cancel: Option<BytesMut>,
    /// A name that the client has parsed last although it was taken.
    taken_name: Option<Box<[u8]>>,
    /// About the statement that its client needs.
    comparison: Comparison,
    /// Whether the next error stands for that of an outgrown statement.
    raises: bool,
    /// A message for the client in the place of the server's.
    reworded: Option<BytesMut>,
    /// What has been judged, if anything.
    judgements: Option<Box<Judgements>>,
    /// What it does about what its client listens to elsewhere.
    elsewhere: listening::Elsewhere,
}

impl Relay {
    /// For a server that has just logged in and reported `values`.
    pub fn new(values: Values) -> Self {
        let login_values = values.clone();
        Self {
            pipeline: Pipeline::default(),
            client_rest: Rest::Done,
            server_rest: Rest::Done,
            stream: ClientStream::Normal,
            status: TransactionStatus::Idle,
            statements: ServerStatements::default(),
            unnamed: ServersUnnamed::default(),
            values,
            defaults: Parameters::default(),
            login_values,
            asked: Asked::Other,
            refused: None,
            was_reset: false,
            in_hot_standby: None,
            has_said_goodbye: false,
            spoken: Spoken::default(),
            is_flushed: false,
            tally: Tally::default(),
            residue: Residue::default(),
            familiar: Familiar::default(),
            client: 0,
            drawn_by: None,
            waits: Waits::Nothing,
            is_translated: false,
            translation_tries: 0,
            speaks_of_own: false,
            own_rows: Vec::new(),
            facts: None,
            error_classes: Vec::new(),
            on_cancel: None,
            taken_name: None,
            comparison: Comparison::None,
            raises: false,
            reworded: None,
            judgements: None,
            elsewhere: listening::Elsewhere::default(),
        }
    }

    /// For a server in the middle of its work for a client, of which nothing else is known. Until its
    /// next ReadyForQuery it is passed on whatever it says.
    pub fn unknown(values: Values) -> Self {
        let mut relay = Self::new(values);
        relay.status = TransactionStatus::InTransaction;
        relay.unnamed.sent = Sent::Surely;
        relay.pipeline.push(Awaited::Unknown, Reply::Forward);
        relay
    }

    /// The server's transaction status as of its last ReadyForQuery.
    #[inline]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Whether the server owes nothing, both sides stand between two frames, and no extended query
    /// waits for its Sync. Only then does [`Self::status`] say what the server is doing now.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        self.pipeline.is_empty()
            && !self.pipeline.is_open()
            && self.client_rest.is_done()
            && self.server_rest.is_done()
            && self.stream == ClientStream::Normal
    }

    /// Whether the server can serve another client now: quiet, in no transaction, and surely so.
    #[inline]
    pub fn may_release(&self) -> bool {
        self.status == TransactionStatus::Idle && self.is_quiet() && !self.is_in_doubt()
    }

    /// Whether the server may send another ReadyForQuery although it owes none (a COPY that had
    /// been given a Sync has failed). Any query of the pooler's own, even an empty one, ends the
    /// doubt.
    #[inline]
    pub fn is_in_doubt(&self) -> bool {
        self.pipeline.is_in_doubt()
    }

    /// Whether the server still works on a query of the pooler's own; client bytes must wait.
    #[inline]
    pub fn is_asking(&self) -> bool {
        self.pipeline.front() == Some((Awaited::Query, Reply::Skip))
    }

    /// Whether a cancel can do no harm: it makes the server give up the batch it works on and go on
    /// with the next one, as if the first had never been sent. An INSERT would lose its BEGIN.
    pub fn may_cancel(&self) -> bool {
        self.pipeline.batches() <= 1
    }

    /// The pooler is about to cancel what the server works on: the client gets this ErrorResponse for
    /// PostgreSQL's own.
    pub fn expect_cancel(&mut self, message: &[u8]) {
        self.on_cancel = Some(BytesMut::from(message));
    }

    /// The client asks for something else: what may still be canceled is not the pooler's affair.
    #[inline]
    pub fn forget_cancel(&mut self) {
        self.on_cancel = None;
    }

    /// Whether the server has answered with an error since the counts were taken.
    pub fn had_errors(&self) -> bool {
        self.tally.errors > 0
    }

    /// Whether nobody knows what the server is doing.
    pub fn owes_unknown(&self) -> bool {
        self.pipeline.owes_unknown()
    }

    /// Whether the server has said why it ends the connection.
    pub fn has_said_goodbye(&self) -> bool {
        self.has_said_goodbye
    }

    /// Whether the server, should it be lost now, may have committed what the client has asked for
    /// last, without having said so.
    pub fn may_have_committed(&self) -> bool {
        let implicit = self.status == TransactionStatus::Idle;
        !self.is_quiet() && self.spoken.may_commit(implicit)
    }

    /// Whether the client stands between two messages of the server, so that the pooler may say
    /// something of its own.
    pub fn is_between_replies(&self) -> bool {
        self.server_rest.is_done()
    }

    /// Whether the server stands between two messages of its client, so that the pooler may say something to it.
    pub fn is_between_requests(&self) -> bool {
        self.client_rest.is_done()
    }

    /// The client has the server, and has had it in another process.
    pub fn go_on_with(&mut self, client: u64) {
        self.client = client;
    }

    /// How many more bytes of the client's end a frame, if these have been read but not used.
    pub fn missing_from_client(&self, unread: &[u8]) -> usize {
        self.client_rest.missing(unread)
    }

    /// How many more bytes of the server's end a frame, if these have been read but not used.
    pub fn missing_from_server(&self, unread: &[u8]) -> usize {
        self.server_rest.missing(unread)
    }

    /// How many prepared statements the server has been taught.
    pub fn statement_count(&self) -> usize {
        self.statements.len()
    }

    /// The server's parameters as it last reported them, and what was set there for a client.
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// What the client that has the server has asked.
    pub fn spoken(&self) -> &Spoken {
        &self.spoken
    }

    /// Whether PostgreSQL is in hot standby mode, if it has told a change of that since this was asked.
    #[inline]
    pub fn take_hot_standby(&mut self) -> Option<bool> {
        self.in_hot_standby.take()
    }

    /// Takes the counts.
    #[inline]
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Takes the classes, which are the first two characters of a SQLSTATE, of the errors that were
    /// counted: of some of them, if a batch had very many.
    #[cold]
    pub fn take_error_classes(&mut self) -> Vec<[u8; 2]> {
        std::mem::take(&mut self.error_classes)
    }

    /// Appends a query of the pooler's own. The client sees nothing of it; an error in it is a
    /// [`Violation::OwnQueryFailed`].
    pub fn ask(&mut self, sql: &str, out: &mut BytesMut) {
        debug_assert!(
            self.is_quiet(),
            "the pooler asks only between two queries of a client"
        );
        self.asked = Asked::Other;
        self.refused = None;
        self.own_rows.clear();
        self.unnamed.sent = Sent::No;
        self.pipeline.push(Awaited::Query, Reply::Skip);
        frontend::query(out, sql);
    }
}

/// What the pooler's own query is for.
#[derive(Clone, Debug)]
enum Asked {
    /// To bring the server's parameters to these.
    Fit {
        wanted: Values,
        /// Commands to come that only take back what others had requested.
        undoing: usize,
        /// Whose values the server will spell.
        names: Vec<Box<str>>,
    },
    /// To learn what its session holds.
    Look(Box<Probe>),
    /// To send a mark.
    Mark,
    /// Something that is none of the client's business.
    Other,
}

/// What the client's bytes mean now.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum ClientStream {
    /// Messages are requests.
    Normal,
    /// The server failed in an extended query and reads on at the next Sync.
    SkipToSync,
    /// The server reads copy data until CopyDone or CopyFail.
    CopyIn,
}

#[cfg(test)]
mod fit_tests;
#[cfg(test)]
mod tests;
