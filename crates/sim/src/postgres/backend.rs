//! One PostgreSQL backend as a state machine over bytes, faithful to the protocol where a pooler
//! can tell the difference.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;
use pgweir_session::Tracked;
use pgweir_wire::TransactionStatus as Block;
use pgweir_wire::tag::{backend as reply, frontend as tag};

use crate::frames::{cut, frame, string, text_frame};
use crate::sql::{Op, Settings, Token, split_token, statements};

/// Output beyond which a backend waits until some of it is taken.
const OUTPUT_MAX: usize = 4_000;

/// What a query without a token takes.
const NAP_US: u64 = 700;

/// The state of a session.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) input: BytesMut,
    pub(crate) output: Vec<u8>,
    /// It has said or heard its last word.
    pub(crate) ended: bool,
    /// What a client must never be able to do to it.
    pub(crate) wrong: Option<String>,
    /// What it has begun to run.
    pub(crate) ran: Vec<Token>,
    statements: BTreeMap<String, String>,
    portals: BTreeMap<String, Portal>,
    block: Block,
    settings: Settings,
    reported: Settings,
    /// Whether ParameterStatus waits for ReadyForQuery, as since PostgreSQL 14.
    reports_late: bool,
    mode: Mode,
    work: Option<Work>,
    sleeps_until: Option<u64>,
    canceled: bool,
}

#[derive(Debug)]
enum Mode {
    Normal,
    SkipToSync,
    CopyIn {
        token: Option<Token>,
        rows: u32,
        rest: Option<VecDeque<Statement>>,
    },
}

type Statement = (String, Option<Token>);

#[derive(Clone, Debug)]
struct Portal {
    statement: Statement,
    given: u32,
}

#[derive(Debug)]
enum Work {
    Query(VecDeque<Statement>),
    Portal { name: String, max: u32 },
}

/// How a statement is run.
#[derive(Clone, Copy)]
enum How {
    Simple,
    Portal { given: u32, max: u32 },
}

enum Outcome {
    Done,
    Suspended(u32),
    Copy,
    Sleep(u64),
    Failed,
}

impl Backend {
    pub(crate) fn new(reports_late: bool) -> Self {
        Self {
            input: BytesMut::new(),
            output: Vec::new(),
            ended: false,
            wrong: None,
            ran: Vec::new(),
            statements: BTreeMap::new(),
            portals: BTreeMap::new(),
            block: Block::Idle,
            settings: Settings::default(),
            reported: Settings::default(),
            reports_late,
            mode: Mode::Normal,
            work: None,
            sleeps_until: None,
            canceled: false,
        }
    }

    /// Whether nothing would change if the peer closed now.
    pub(crate) fn is_reading(&self) -> bool {
        self.work.is_none()
    }

    /// A CancelRequest for what is running. Between two commands it does nothing.
    pub(crate) fn cancel(&mut self) {
        self.canceled = self.work.is_some() || matches!(self.mode, Mode::CopyIn { .. });
        if self.canceled {
            self.sleeps_until = None;
        }
    }

    /// Works as far as it can. If it sleeps: until when.
    pub(crate) fn advance(&mut self, now_us: u64) -> Option<u64> {
        while !self.ended && self.output.len() < OUTPUT_MAX {
            if let Some(work) = self.work.take() {
                let until = match work {
                    Work::Query(todo) => self.query(todo, now_us),
                    Work::Portal { name, max } => self.execute(name, max, now_us),
                };
                if until.is_some() {
                    return until;
                }
                continue;
            }
            match cut(&mut self.input) {
                Ok(Some((tag, body))) => self.message(tag, &body),
                Ok(None) => return None,
                Err(problem) => self.die(&problem),
            }
        }
        None
    }

    fn message(&mut self, tag: u8, body: &[u8]) {
        if let Mode::CopyIn { .. } = self.mode {
            return self.copy_message(tag, body);
        }
        self.canceled = false;
        if matches!(self.mode, Mode::SkipToSync) && !matches!(tag, tag::SYNC | tag::TERMINATE) {
            return;
        }
        match tag {
            tag::QUERY => {
                self.statements.remove("");
                self.portals.remove("");
                self.work = Some(Work::Query(statements(&string(body).0).into()));
            }
            tag::PARSE => self.parse(body),
            tag::BIND => self.bind(body),
            tag::DESCRIBE => self.describe(body),
            tag::CLOSE => {
                let (name, _) = string(&body[1..]);
                match body[0] {
                    b'S' => drop(self.statements.remove(&name)),
                    _ => drop(self.portals.remove(&name)),
                }
                frame(&mut self.output, reply::CLOSE_COMPLETE, b"");
            }
            tag::EXECUTE => {
                let (name, rest) = string(body);
                let max = rest.try_into().map_or(0, u32::from_be_bytes);
                self.work = Some(Work::Portal { name, max });
            }
            tag::SYNC => self.ready(),
            tag::FLUSH | tag::COPY_DATA | tag::COPY_DONE | tag::COPY_FAIL => {}
            tag::TERMINATE => self.ended = true,
            other => self.die(&format!("invalid frontend message type {other}")),
        }
    }

    fn copy_message(&mut self, tag: u8, body: &[u8]) {
        let mode = std::mem::replace(&mut self.mode, Mode::Normal);
        let Mode::CopyIn { token, rows, rest } = mode else {
            return;
        };
        match tag {
            _ if std::mem::take(&mut self.canceled) => {
                // The message that woke it up has been read already.
                self.error("57014", token, "canceling statement due to user request");
                self.after_copy(rest, Outcome::Failed);
                if tag == tag::TERMINATE {
                    self.ended = true;
                }
            }
            tag::COPY_DATA => {
                let text = String::from_utf8_lossy(body).into_owned();
                let owner = split_token(&text).1;
                if owner != token {
                    self.wrong = Some(format!("COPY of {token:?} was given '{text}'"));
                }
                if text.starts_with("bad") {
                    self.error("22P02", token, "invalid input syntax");
                    return self.after_copy(rest, Outcome::Failed);
                }
                let rows = rows + 1;
                self.mode = Mode::CopyIn { token, rows, rest };
            }
            tag::COPY_DONE => {
                text_frame(
                    &mut self.output,
                    reply::COMMAND_COMPLETE,
                    &format!("COPY {rows}"),
                );
                self.after_copy(rest, Outcome::Done);
            }
            tag::COPY_FAIL => {
                self.error("57014", token, "COPY from stdin failed");
                self.after_copy(rest, Outcome::Failed);
            }
            tag::FLUSH | tag::SYNC => self.mode = Mode::CopyIn { token, rows, rest },
            other => self.die(&format!("unexpected message type {other} during COPY")),
        }
    }

    /// Goes on behind a COPY: `rest` of a simple query, or the extended query's next message.
    fn after_copy(&mut self, rest: Option<VecDeque<Statement>>, outcome: Outcome) {
        match (rest, outcome) {
            (Some(_), Outcome::Failed) => self.ready(),
            (Some(rest), _) => self.work = Some(Work::Query(rest)),
            (None, Outcome::Failed) => self.mode = Mode::SkipToSync,
            (None, _) => {}
        }
    }

    fn query(&mut self, mut todo: VecDeque<Statement>, now_us: u64) -> Option<u64> {
        let Some(statement) = todo.pop_front() else {
            self.ready();
            return None;
        };
        match self.run(&statement, How::Simple, now_us) {
            Outcome::Done | Outcome::Suspended(_) => self.work = Some(Work::Query(todo)),
            Outcome::Sleep(until) => {
                todo.push_front(statement);
                self.work = Some(Work::Query(todo));
                return Some(until);
            }
            Outcome::Copy => {
                self.mode = Mode::CopyIn {
                    token: statement.1,
                    rows: 0,
                    rest: Some(todo),
                }
            }
            Outcome::Failed => self.ready(),
        }
        None
    }

    fn execute(&mut self, name: String, max: u32, now_us: u64) -> Option<u64> {
        let Some(portal) = self.portals.get(&name).cloned() else {
            self.error("34000", None, &format!("portal {name} does not exist"));
            self.mode = Mode::SkipToSync;
            return None;
        };
        let given = portal.given;
        match self.run(&portal.statement, How::Portal { given, max }, now_us) {
            Outcome::Done => {}
            Outcome::Suspended(given) => {
                self.portals.insert(name, Portal { given, ..portal });
            }
            Outcome::Sleep(until) => {
                self.work = Some(Work::Portal { name, max });
                return Some(until);
            }
            Outcome::Copy => {
                self.mode = Mode::CopyIn {
                    token: portal.statement.1,
                    rows: 0,
                    rest: None,
                }
            }
            Outcome::Failed => self.mode = Mode::SkipToSync,
        }
        None
    }

    fn run(&mut self, statement: &Statement, how: How, now_us: u64) -> Outcome {
        let (text, token) = statement;
        self.ran.extend(*token);
        let Some(op) = Op::parse(text) else {
            return self.fail("42601", *token, "syntax error");
        };
        if std::mem::take(&mut self.canceled) {
            return self.fail("57014", *token, "canceling statement due to user request");
        }
        let harmless = match how {
            How::Simple => matches!(op, Op::Commit | Op::Rollback | Op::Empty),
            How::Portal { .. } => matches!(op, Op::Commit | Op::Rollback),
        };
        if self.block == Block::Failed && !harmless {
            return self.fail("25P02", *token, "current transaction is aborted");
        }
        // The pooler's own queries take a little time, so that something can happen meanwhile.
        if token.is_none()
            && let Some(until) = self.sleep(now_us, NAP_US)
        {
            return Outcome::Sleep(until);
        }
        self.settings.begin();
        match &op {
            Op::Select(rows, kind) => {
                if kind % 5 == 4 {
                    self.notice(*token);
                }
                return self.rows(statement, *rows, how);
            }
            Op::Sleep(us) => {
                return match self.sleep(now_us, *us) {
                    Some(until) => Outcome::Sleep(until),
                    None => self.rows(statement, 1, how),
                };
            }
            Op::Begin => self.block = Block::InTransaction,
            Op::Commit | Op::Rollback => return self.end_block(op == Op::Commit),
            Op::Fail => return self.fail("P0001", *token, "failed as asked"),
            Op::Syntax => return self.fail("42601", *token, "syntax error"),
            Op::Set(index, value) => {
                self.settings.set(*index, value);
                if !self.reports_late {
                    self.report();
                }
            }
            Op::CopyIn | Op::CopyInRefused => {
                frame(&mut self.output, reply::COPY_IN_RESPONSE, b"\0\0\0");
                return match op {
                    Op::CopyIn => Outcome::Copy,
                    _ => self.fail("42809", *token, "cannot copy to view"),
                };
            }
            Op::CopyOut(rows) => self.copy_out(*token, *rows),
            Op::DiscardAll if self.block != Block::Idle => {
                return self.fail("25001", *token, "DISCARD ALL in a transaction block");
            }
            Op::DiscardAll => {
                self.statements.clear();
                self.settings.reset();
                if !self.reports_late {
                    self.report();
                }
            }
            Op::DeallocateAll => self.statements.clear(),
            Op::Empty => {
                frame(&mut self.output, reply::EMPTY_QUERY_RESPONSE, b"");
                return Outcome::Done;
            }
        }
        self.complete(&op);
        Outcome::Done
    }

    /// Sleeps for some microseconds, beginning with the first call; until when, or `None` at the
    /// end.
    fn sleep(&mut self, now_us: u64, us: u64) -> Option<u64> {
        let until = *self.sleeps_until.get_or_insert(now_us + us);
        if until <= now_us {
            self.sleeps_until = None;
            return None;
        }
        Some(until)
    }

    fn end_block(&mut self, commit: bool) -> Outcome {
        let good = commit && self.block != Block::Failed;
        if good {
            self.settings.commit();
        } else {
            self.settings.roll_back();
        }
        self.block = Block::Idle;
        self.portals.clear();
        self.complete(if good { &Op::Commit } else { &Op::Rollback });
        Outcome::Done
    }

    fn complete(&mut self, op: &Op) {
        let tag = op.tag().unwrap_or_default();
        text_frame(&mut self.output, reply::COMMAND_COMPLETE, &tag);
    }

    fn rows(&mut self, (text, token): &Statement, rows: u32, how: How) -> Outcome {
        let (from, max) = match how {
            How::Simple => {
                frame(
                    &mut self.output,
                    reply::ROW_DESCRIPTION,
                    b"\0\x01c\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\0\0\0\0\0\0",
                );
                (0, u32::MAX)
            }
            How::Portal { given, max: 0 } => (given, u32::MAX),
            How::Portal { given, max } => (given, max),
        };
        let token = token.map_or_else(String::new, |token| token.to_string());
        let row = format!("{token}|{text}|{}", self.settings);
        let until = rows.min(from.saturating_add(max));
        for _ in from..until {
            let mut body = vec![0, 1];
            body.extend(u32::try_from(row.len()).unwrap_or_default().to_be_bytes());
            body.extend(row.as_bytes());
            frame(&mut self.output, reply::DATA_ROW, &body);
        }
        if max != u32::MAX && until - from == max {
            frame(&mut self.output, reply::PORTAL_SUSPENDED, b"");
            return Outcome::Suspended(until);
        }
        let tag = format!("SELECT {}", until - from);
        text_frame(&mut self.output, reply::COMMAND_COMPLETE, &tag);
        Outcome::Done
    }

    fn copy_out(&mut self, token: Option<Token>, rows: u32) {
        frame(&mut self.output, reply::COPY_OUT_RESPONSE, b"\0\0\0");
        let token = token.map_or_else(String::new, |token| token.to_string());
        for _ in 0..rows {
            frame(&mut self.output, reply::COPY_DATA, token.as_bytes());
        }
        frame(&mut self.output, reply::COPY_DONE, b"");
    }

    fn parse(&mut self, body: &[u8]) {
        let (name, rest) = string(body);
        let (text, _) = string(rest);
        let (head, token) = split_token(&text);
        let op = Op::parse(&head);
        if matches!(op, None | Some(Op::Syntax)) {
            return self.refuse("42601", token, "syntax error");
        }
        if self.block == Block::Failed && !matches!(op, Some(Op::Commit | Op::Rollback)) {
            return self.refuse("25P02", token, "current transaction is aborted");
        }
        if !name.is_empty() && self.statements.contains_key(&name) {
            let text = format!("prepared statement {name} already exists");
            return self.refuse("42P05", token, &text);
        }
        self.settings.begin();
        self.statements.insert(name, head);
        frame(&mut self.output, reply::PARSE_COMPLETE, b"");
    }

    fn bind(&mut self, body: &[u8]) {
        let (portal, rest) = string(body);
        let (name, rest) = string(rest);
        // No formats, one parameter: two counts and a length, then the token, then no formats.
        let parameter = rest.get(8..rest.len() - 2).unwrap_or_default();
        let token = Token::parse(&String::from_utf8_lossy(parameter));
        let Some(text) = self.statements.get(&name).cloned() else {
            let text = format!("prepared statement {name} does not exist");
            return self.refuse("26000", token, &text);
        };
        let op = Op::parse(&text);
        if self.block == Block::Failed && !matches!(op, Some(Op::Commit | Op::Rollback)) {
            return self.refuse("25P02", token, "current transaction is aborted");
        }
        self.settings.begin();
        let statement = (text, token);
        self.portals.insert(
            portal,
            Portal {
                statement,
                given: 0,
            },
        );
        frame(&mut self.output, reply::BIND_COMPLETE, b"");
    }

    fn describe(&mut self, body: &[u8]) {
        let (name, _) = string(&body[1..]);
        let text = match body[0] {
            b'S' => self.statements.get(&name).cloned(),
            _ => self
                .portals
                .get(&name)
                .map(|portal| portal.statement.0.clone()),
        };
        let Some(text) = text else {
            return self.refuse("26000", None, &format!("{name} does not exist"));
        };
        if body[0] == b'S' {
            frame(
                &mut self.output,
                reply::PARAMETER_DESCRIPTION,
                b"\0\x01\0\0\0\x19",
            );
        }
        match Op::parse(&text).and_then(|op| op.rows()) {
            Some(_) => frame(&mut self.output, reply::ROW_DESCRIPTION, b"\0\0"),
            None => frame(&mut self.output, reply::NO_DATA, b""),
        }
    }

    fn refuse(&mut self, code: &str, token: Option<Token>, text: &str) {
        self.error(code, token, text);
        self.mode = Mode::SkipToSync;
    }

    fn fail(&mut self, code: &str, token: Option<Token>, text: &str) -> Outcome {
        self.error(code, token, text);
        Outcome::Failed
    }

    fn error(&mut self, code: &str, token: Option<Token>, text: &str) {
        self.sleeps_until = None;
        self.canceled = false;
        self.report_message(reply::ERROR_RESPONSE, "ERROR", code, token, text);
        self.settings.roll_back();
        if self.block == Block::InTransaction {
            self.block = Block::Failed;
        }
        if !self.reports_late {
            self.report();
        }
    }

    fn notice(&mut self, token: Option<Token>) {
        self.report_message(
            reply::NOTICE_RESPONSE,
            "NOTICE",
            "00000",
            token,
            "by the way",
        );
    }

    /// The last words of a backend that must end.
    pub(crate) fn die(&mut self, text: &str) {
        self.report_message(reply::ERROR_RESPONSE, "FATAL", "57P01", None, text);
        self.ended = true;
    }

    fn report_message(
        &mut self,
        tag: u8,
        severity: &str,
        code: &str,
        token: Option<Token>,
        text: &str,
    ) {
        let token = token.map_or_else(String::new, |token| format!("{token} "));
        let body = format!("S{severity}\0C{code}\0M{token}{text}\0\0");
        frame(&mut self.output, tag, body.as_bytes());
    }

    fn ready(&mut self) {
        self.mode = Mode::Normal;
        self.canceled = false;
        if self.block == Block::Idle {
            self.settings.commit();
            self.portals.clear();
        }
        self.report();
        frame(
            &mut self.output,
            reply::READY_FOR_QUERY,
            &[self.block.byte()],
        );
    }

    fn report(&mut self) {
        for (index, name) in Tracked::ALWAYS.iter().enumerate() {
            let value = self.settings.get(index);
            if value != self.reported.get(index) {
                let body = format!("{name}\0{value}\0");
                frame(&mut self.output, reply::PARAMETER_STATUS, body.as_bytes());
            }
        }
        self.reported = self.settings.clone();
    }
}
