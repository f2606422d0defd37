//! Moves frames between a client and the server it holds: what to do with the next bytes.
//!
//! Hot path. Headers are read in place, bodies are skipped by length, and what is forwarded as it
//! came is never copied. Nothing is allocated per frame except for named prepared statements.
//!
//! [`Relay::from_client`] and [`Relay::from_server`] each hold the one `match` on tags of their
//! direction. A `Relay` belongs to its server: between leases it is quiet.

mod apart;
mod from_client;
mod from_server;
mod judged;
mod lacking;
mod listening;
mod mention;
mod named;
mod requests;
mod state;
mod waits;

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use pgweir_wire::{
    ErrorFields, FrameError, HEADER_LEN, Header, SqlState, TransactionStatus, backend, frontend,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use apart::Settled;
pub use from_client::FromClient;
use judged::Judgements;
pub use judged::{Case, Judge, Said, StateRules};
pub use listening::Listening;
pub use state::RelayState;

use crate::changes::Change;
use crate::channels::Channels;
use crate::gather::Gather;
use crate::parameters::Parameters;
use crate::params::{Tracked, Values};
use crate::pipeline::{Awaited, Pipeline, Reply};
use crate::prepared::{
    ClientStatements, ServerStatements, Statement, StatementId, StatementTable, Unnamed,
};
use crate::residue::probe::Row;
use crate::residue::{Facts, Familiar, Probe, Residue};
use crate::spoken::Spoken;

/// What a client keeps between leases.
#[derive(Debug, Default)]
pub struct ClientSide {
    /// Its names for prepared statements.
    pub statements: ClientStatements,
    /// Its statement without a name.
    pub unnamed: Unnamed,
    /// Its tracked parameters, and those that it requested.
    pub values: Values,
    /// What it requested in its startup message, if it requests something else by now.
    pub startup: Option<Box<Parameters>>,
    /// What it listens to, and its server does not: that is heard elsewhere and told by others.
    pub channels: Option<Box<Channels>>,
    /// Whether it has something that no text has named, so that a statement which leaves the same
    /// again would seem to leave nothing.
    pub masks: bool,
}

/// What holds for a lease: read from the configuration when it begins.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// `max_prepared_statements` per server; `None` where names are forwarded as they are.
    pub max_prepared: Option<usize>,
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
    /// Whether the unnamed statement, if the server has one, is the client's last, parsed in this lease.
    has_unnamed: bool,
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
    /// The name that a DEALLOCATE takes away when it is executed, and the statement.
    deallocating: Option<Box<(Box<[u8]>, StatementId)>>,
    /// The statement of which it is being found out, or has been, whether it is outgrown.
    compared: Option<Arc<Statement>>,
    is_outgrown: bool,
    /// Whether the next error stands for that.
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
            has_unnamed: false,
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
            deallocating: None,
            compared: None,
            is_outgrown: false,
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
        relay.has_unnamed = true;
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

    /// Says what its sessions have when nobody requests another value, as far as RESET does not lead
    /// there.
    pub fn set_defaults(&mut self, defaults: Parameters) {
        self.defaults = defaults;
    }

    /// Why the server could not be brought to the client's parameters; it is as it was before.
    pub fn take_refused(&mut self) -> Option<Box<Refused>> {
        self.refused.take()
    }

    /// Whether the client, which goes on with this server, has reset what it had requested. To
    /// PostgreSQL a reset leads back to what the startup message said, so the server has to be
    /// [fitted](Self::fit) again.
    #[inline]
    pub fn was_reset(&self) -> bool {
        self.was_reset
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

    /// Whether the server's parameters are the client's already.
    #[inline]
    pub fn fits(&mut self, client: &mut ClientSide) -> bool {
        self.was_reset = false;
        let same = client.values.same(&self.values);
        if same {
            client.values.unite(&mut self.values);
        }
        same
    }

    /// Brings the server's parameters to the client's. `true` if a query was appended to `out`; then
    /// the client waits until [`Self::is_asking`] is over, and [`Self::take_refused`] says whether the
    /// server would not have them.
    pub fn fit(&mut self, client: &mut ClientSide, tracked: &Tracked, out: &mut BytesMut) -> bool {
        if self.fits(client) {
            return false;
        }
        // A client that came from another pooler may have values that nobody has told us.
        client.values.fill(&self.login_values);
        let wanted = &client.values;
        match wanted.fitting(&self.values, tracked, &self.defaults) {
            Some(fitting) => {
                self.ask(&fitting.sql, out);
                self.asked = Asked::Fit {
                    undoing: fitting.undoing,
                    names: fitting.names,
                    wanted: wanted.clone(),
                };
                true
            }
            None => {
                client.values = self.values.clone();
                false
            }
        }
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
        self.has_unnamed = false;
        self.pipeline.push(Awaited::Query, Reply::Skip);
        frontend::query(out, sql);
    }

    /// The client is gone. Appends what brings the server nearer to being quiet, so that it can be
    /// rolled back and reused; the replies must be read through [`Self::from_server`] and thrown
    /// away. To be called again after each reply, until [`Self::is_quiet`].
    /// To be called again whenever something has been read: a COPY that the client had asked for
    /// may have begun, and waits for data that nobody will send.
    pub fn abandon(&mut self, out: &mut BytesMut) -> Abandon {
        if !self.client_rest.is_done() || self.pipeline.owes_unknown() {
            return Abandon::Close;
        }
        let failed = match self.stream {
            ClientStream::CopyIn => {
                frontend::copy_fail(out, "client disconnected");
                true
            }
            ClientStream::SkipToSync => true,
            ClientStream::Normal => false,
        };
        if !self.pipeline.is_open() {
            self.stream = ClientStream::Normal;
        } else if failed || self.pipeline.is_empty() {
            // A Sync alone would commit what the client has not committed.
            if !failed {
                frontend::query(out, "ROLLBACK");
                self.pipeline.push(Awaited::Query, Reply::Skip);
            }
            frontend::sync(out);
            self.pipeline.push(Awaited::Sync, Reply::Skip);
            self.stream = ClientStream::Normal;
            self.is_flushed = false;
        } else if !self.is_flushed {
            // What is still unanswered may turn out to be a COPY, in which a query ends the
            // connection.
            frontend::flush(out);
            self.is_flushed = true;
        }
        Abandon::Drain
    }

    /// Appends the replies whose turn it is and that the server was not asked for.
    #[cold]
    fn give_fakes(&mut self, client: &mut ClientSide, out: &mut BytesMut) {
        while let Some(fake) = self.pipeline.pop_fake() {
            match fake.awaited {
                Awaited::Query => {
                    backend::command_complete(out, "DEALLOCATE");
                    backend::ready_for_query(out, self.status);
                }
                other => out.extend_from_slice(fake_reply(other)),
            }
            if let Some(change) = fake.change {
                self.change(change, client);
            }
        }
    }

    /// ReadyForQuery has come while nobody knew what was owed.
    fn end_unknown(&mut self, client: &mut ClientSide, out: &mut BytesMut) {
        for answered in self.pipeline.end_unknown() {
            if answered.reply == Reply::Fake {
                out.extend_from_slice(fake_reply(answered.awaited));
            }
            if let Some(change) = answered.change {
                self.change(change, client);
            }
        }
    }

    /// Enters a change into the books.
    #[cold]
    fn change(&mut self, change: Change, client: &mut ClientSide) {
        match change {
            Change::Named {
                name,
                statement,
                sent,
            } => {
                if sent {
                    self.statements.insert(Arc::clone(&statement));
                }
                client.statements.insert(name, statement);
            }
            Change::Closed(name) => {
                client.statements.remove(&name);
            }
            // What was said has been looked at.
            Change::Described(_) | Change::Compared(_) => {}
            Change::Taught(statement) => self.statements.insert(statement),
            Change::Evicted(id) => self.statements.remove(id),
        }
    }

    #[inline]
    fn owes_fake(&self) -> bool {
        matches!(self.pipeline.front(), Some((_, Reply::Fake)))
    }
}

fn fake_reply(awaited: Awaited) -> &'static [u8] {
    match awaited {
        Awaited::Parse => &backend::PARSE_COMPLETE,
        Awaited::Close => &backend::CLOSE_COMPLETE,
        other => unreachable!("{other:?} is never answered by the pooler"),
    }
}

/// What has to be done before the client's next message can be dealt with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Waits {
    /// Nothing.
    #[default]
    Nothing,
    /// The server has to [forget](Relay::forget_drawn) what others have drawn from sequences.
    Forgetting,
    /// The process ids of clients in it have to be replaced by the servers', see
    /// [`renumbered`](crate::renumbered).
    OwnNames,
    /// The server has to [listen](Relay::listen_again) to what its client listens to elsewhere.
    Channels,
    /// It has to be [found out](Relay::compare) whether a statement still returns what it did.
    Comparison,
}

/// What has become of the process ids in a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Translation {
    /// They are servers' now.
    Done,
    /// More of the message has to come first.
    Incomplete,
    /// It is too early.
    Later,
}

/// What to do with a server whose client is gone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Abandon {
    /// Read until it is quiet.
    Drain,
    /// The client left in the middle of a message, or nobody knows of what: nothing but closing helps.
    Close,
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

/// PostgreSQL's answer to a parameter that a client wants.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Refused {
    /// The error's SQLSTATE.
    pub code: Option<SqlState>,
    /// The error's message.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What may help.
    pub hint: Option<String>,
}

impl From<&ErrorFields<'_>> for Refused {
    fn from(fields: &ErrorFields<'_>) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let some = |bytes: &[u8]| (!bytes.is_empty()).then(|| text(bytes));
        Self {
            code: fields.sqlstate(),
            message: text(fields.message),
            detail: some(fields.detail),
            hint: some(fields.hint),
        }
    }
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

/// The rest of a frame whose head has been dealt with.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
enum Rest {
    Done,
    Pass(usize),
    Drop(usize),
}

impl Rest {
    #[inline]
    fn is_done(self) -> bool {
        self == Self::Done
    }

    #[inline]
    fn new(pass: bool, len: usize) -> Self {
        match (len, pass) {
            (0, _) => Self::Done,
            (_, true) => Self::Pass(len),
            (_, false) => Self::Drop(len),
        }
    }

    /// How many bytes are missing to the end of a frame, behind some that are unread.
    fn missing(self, unread: &[u8]) -> usize {
        match self {
            Self::Pass(len) | Self::Drop(len) => len.saturating_sub(unread.len()),
            Self::Done if unread.is_empty() => 0,
            Self::Done => match Header::peek(unread, u32::MAX) {
                Ok(Some(header)) => header.frame_len().saturating_sub(unread.len()).max(1),
                Ok(None) => HEADER_LEN - unread.len(),
                // Whoever reads it will say what is wrong with it.
                Err(_) => 1,
            },
        }
    }

    /// Deals with as much of the rest as lies in `input` behind `at`; the new position.
    #[inline]
    fn proceed(&mut self, input: &[u8], at: usize, gather: &mut Gather) -> usize {
        let there = input.len() - at;
        match *self {
            Self::Done => at,
            Self::Pass(len) => {
                let end = at + len.min(there);
                gather.pass(input, at..end);
                *self = Self::new(true, len.saturating_sub(there));
                end
            }
            Self::Drop(len) => {
                *self = Self::new(false, len.saturating_sub(there));
                at + len.min(there)
            }
        }
    }
}

/// Why a connection cannot go on.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Violation {
    /// The client sent a length that no message has, or that is over the limit.
    #[error("client sent {0}")]
    ClientFrame(FrameError),
    /// The client sent a message that does not belong here.
    #[error("client sent an unexpected message, type {0}")]
    ClientMessage(u8),
    /// The client sent a message that ends in the middle of a field.
    #[error("client sent a malformed message, type {0}")]
    ClientMalformed(u8),
    /// The client sent a simple query, which the configuration does not allow.
    #[error("client used \"Query\" packet type")]
    SimpleQuery,
    /// The client gave a name to two statements.
    #[error("prepared statement '{0}' was already prepared")]
    StatementExists(String),
    /// The client used a name that stands for nothing.
    #[error("prepared statement '{0}' did not exist")]
    StatementMissing(String),
    /// The server sent a length that no message has.
    #[error("server sent {0}")]
    ServerFrame(FrameError),
    /// The server answered something that it was not asked.
    #[error("server sent an unexpected message, type {0}")]
    ServerMessage(u8),
    /// The server sent a message that ends in the middle of a field.
    #[error("server sent a malformed message, type {0}")]
    ServerMalformed(u8),
    /// The server refused a query of the pooler's own; carries the server's message.
    #[error("server refused the pooler's own query: {0}")]
    OwnQueryFailed(String),
    /// The server did not take back what other clients had requested; carries its message.
    #[error("server kept the parameters of another client: {0}")]
    UndoFailed(String),
}

impl Violation {
    /// Whether the client is to blame, so that the server is as good as before.
    pub fn is_clients(&self) -> bool {
        match self {
            Self::ClientFrame(_)
            | Self::ClientMessage(_)
            | Self::ClientMalformed(_)
            | Self::SimpleQuery
            | Self::StatementExists(_)
            | Self::StatementMissing(_) => true,
            Self::ServerFrame(_)
            | Self::ServerMessage(_)
            | Self::ServerMalformed(_)
            | Self::OwnQueryFailed(_)
            | Self::UndoFailed(_) => false,
        }
    }
}

#[cfg(test)]
mod fit_tests;
#[cfg(test)]
mod tests;
