//! What a client may hear: exactly one ReadyForQuery per Query and Sync, at most one error per
//! batch, everything in order, and nothing that is another client's.

use pgweir_session::Tracked;
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{ErrorFields, TransactionStatus as Block};

use super::program::Step;
use super::{Awaited, Client, Progress};
use crate::frames::{frame, string};
use crate::laws::Broken;
use crate::sql::{Op, Token};

impl Client {
    pub(super) fn reply(&mut self, tag: u8, body: &[u8]) -> Result<(), Broken> {
        let wrong = |client: &Self, what: &str| Err(client.wrong(tag, what));
        match tag {
            tag::NOTICE_RESPONSE => self.own(tag, body),
            tag::PARAMETER_STATUS => self.parameter(tag, body),
            tag::ERROR_RESPONSE => self.error(body),
            tag::READY_FOR_QUERY => self.ready(tag, body),
            tag::PARSE_COMPLETE => match self.awaited.front().cloned() {
                Some(Awaited::Parse { name, op }) => {
                    if !name.is_empty() {
                        self.statements.insert(name, op);
                    }
                    self.answered();
                    Ok(())
                }
                _ => wrong(self, "not asked to parse"),
            },
            tag::BIND_COMPLETE => match self.awaited.front() {
                Some(Awaited::Bind(_)) => {
                    self.answered();
                    Ok(())
                }
                _ => wrong(self, "not asked to bind"),
            },
            tag::CLOSE_COMPLETE => match self.awaited.front().cloned() {
                Some(Awaited::Close(name)) => {
                    if let Some(name) = name {
                        self.statements.remove(&name);
                    }
                    self.answered();
                    Ok(())
                }
                _ => wrong(self, "not asked to close"),
            },
            tag::PARAMETER_DESCRIPTION => match self.awaited.front() {
                Some(Awaited::DescribeStatement(_)) if !self.progress.described => {
                    self.progress.described = true;
                    Ok(())
                }
                _ => wrong(self, "not asked to describe"),
            },
            tag::ROW_DESCRIPTION | tag::NO_DATA => self.description(tag),
            tag::DATA_ROW => self.row(tag, body),
            tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE | tag::PORTAL_SUSPENDED => {
                self.complete(tag, body)
            }
            tag::COPY_IN_RESPONSE => match self.current() {
                Some((Op::CopyIn | Op::CopyInRefused, token)) if !self.progress.copying => {
                    self.progress.copying = true;
                    self.give_copy_data(token);
                    Ok(())
                }
                _ => wrong(self, "not asked to copy in"),
            },
            tag::COPY_OUT_RESPONSE | tag::COPY_DATA | tag::COPY_DONE => match self.current() {
                Some((Op::CopyOut(_), token)) => {
                    if tag == tag::COPY_DATA && body != token.to_string().as_bytes() {
                        return wrong(self, "data of another COPY");
                    }
                    self.progress.rows += u32::from(tag == tag::COPY_DATA);
                    Ok(())
                }
                _ => wrong(self, "not asked to copy out"),
            },
            _ => wrong(self, "unknown message"),
        }
    }

    /// The statement that is being executed.
    fn current(&self) -> Option<(Op, Token)> {
        match self.awaited.front()? {
            Awaited::Query(_) if self.progress.failed => None,
            Awaited::Query(ops) => ops.front().cloned(),
            Awaited::Execute { op, token, .. } => Some((op.clone(), *token)),
            Awaited::Parse { .. }
            | Awaited::Bind(_)
            | Awaited::DescribeStatement(_)
            | Awaited::DescribePortal(_)
            | Awaited::Close(_)
            | Awaited::Sync => None,
        }
    }

    fn answered(&mut self) {
        self.awaited.pop_front();
        self.progress = Progress::default();
        self.doubtful = 0;
    }

    /// A notice belongs to the statement that runs.
    fn own(&self, tag: u8, body: &[u8]) -> Result<(), Broken> {
        let message = String::from_utf8_lossy(ErrorFields::parse(body).message).into_owned();
        let heard = message.split(' ').next().and_then(Token::parse);
        match (heard, self.current()) {
            (Some(heard), Some((_, token))) if heard == token => Ok(()),
            _ => Err(self.wrong(tag, &message)),
        }
    }

    fn parameter(&self, tag: u8, body: &[u8]) -> Result<(), Broken> {
        // Values are checked where a statement shows which ones are in force.
        let (name, _) = string(body);
        match Tracked::ALWAYS.contains(&name.as_str()) {
            true => Ok(()),
            false => Err(self.wrong(tag, &name)),
        }
    }

    fn description(&mut self, tag: u8) -> Result<(), Broken> {
        let gives_rows = match self.awaited.front() {
            Some(Awaited::DescribeStatement(op)) if self.progress.described => op.rows().is_some(),
            Some(Awaited::DescribePortal(op)) => op.rows().is_some(),
            Some(Awaited::Query(_)) if tag == tag::ROW_DESCRIPTION => {
                return match self.current() {
                    Some((op, _)) if op.rows().is_some() && !self.progress.described => {
                        self.progress.described = true;
                        Ok(())
                    }
                    _ => Err(self.wrong(tag, "no rows were asked for")),
                };
            }
            _ => return Err(self.wrong(tag, "not asked to describe")),
        };
        if gives_rows != (tag == tag::ROW_DESCRIPTION) {
            return Err(self.wrong(tag, "another statement is described"));
        }
        self.answered();
        Ok(())
    }

    fn row(&mut self, tag: u8, body: &[u8]) -> Result<(), Broken> {
        let text = String::from_utf8_lossy(body.get(6..).unwrap_or_default()).into_owned();
        let Some((op, token)) = self.current() else {
            return Err(self.wrong(tag, &format!("nobody asked for the row '{text}'")));
        };
        let expected = format!("{token}|{op}|");
        let Some(settings) = text.strip_prefix(&expected) else {
            return Err(self.wrong(tag, &format!("the row '{text}' is not '{expected}'")));
        };
        if settings != self.settings.to_string() {
            return Err(Broken::ForeignSettings {
                client: self.id,
                token,
                mine: self.settings.to_string(),
                there: settings.to_owned(),
            });
        }
        self.progress.rows += 1;
        Ok(())
    }

    fn complete(&mut self, tag: u8, body: &[u8]) -> Result<(), Broken> {
        let heard = string(body).0;
        let Some((op, _)) = self.current() else {
            return Err(self.wrong(tag, &format!("nothing that could complete: {heard}")));
        };
        let rows = self.progress.rows;
        let expected = match (&op, self.awaited.front()) {
            (Op::Empty, _) => "",
            (_, Some(Awaited::Execute { given, max, .. })) if op.rows().is_some() => {
                let left = op.rows().unwrap_or(0).saturating_sub(*given);
                let due = if *max == 0 { left } else { left.min(*max) };
                if due != rows {
                    return Err(self.wrong(tag, &format!("{rows} rows instead of {due}")));
                }
                match *max == due && due > 0 {
                    true => "",
                    false => &format!("SELECT {due}"),
                }
            }
            (Op::Commit, _) if self.block == Block::Failed => "ROLLBACK",
            (Op::CopyIn, _) => &heard.clone(),
            _ => &op.tag().unwrap_or_else(|| "an error".to_owned()),
        };
        if heard != expected {
            return Err(self.wrong(tag, &format!("'{heard}' instead of '{expected}'")));
        }
        self.settings.begin();
        match op {
            Op::Begin => self.block = Block::InTransaction,
            Op::Commit | Op::Rollback => {
                if heard == "COMMIT" {
                    self.settings.commit();
                } else {
                    self.settings.roll_back();
                }
                self.block = Block::Idle;
            }
            Op::Set(index, value) => self.settings.set(index, &value),
            Op::DiscardAll => {
                self.settings.reset();
                self.statements.clear();
            }
            Op::DeallocateAll => self.statements.clear(),
            Op::Select(..)
            | Op::Sleep(_)
            | Op::Fail
            | Op::Syntax
            | Op::CopyIn
            | Op::CopyInRefused
            | Op::CopyOut(_)
            | Op::Empty => {}
        }
        self.done_with_op();
        Ok(())
    }

    fn done_with_op(&mut self) {
        match self.awaited.front_mut() {
            Some(Awaited::Query(ops)) => {
                ops.pop_front();
                self.progress = Progress::default();
                self.doubtful = 0;
            }
            _ => self.answered(),
        }
    }

    fn error(&mut self, body: &[u8]) -> Result<(), Broken> {
        let tag = tag::ERROR_RESPONSE;
        let fields = ErrorFields::parse(body);
        let code = String::from_utf8_lossy(fields.code).into_owned();
        let message = String::from_utf8_lossy(fields.message).into_owned();
        if code == "57P01" {
            return Ok(());
        }
        let op = self.current().map(|(op, _)| op);
        let mine = match self.awaited.front() {
            Some(Awaited::Bind(token)) => Some(*token),
            _ => self.current().map(|(_, token)| token),
        };
        let heard = message.split(' ').next().and_then(Token::parse);
        if heard.is_some() && heard != mine {
            return Err(self.wrong(tag, &format!("another statement's error: {message}")));
        }
        let parsed = match self.awaited.front() {
            Some(Awaited::Parse { op, .. }) => Some(op),
            _ => None,
        };
        let canceled = message.contains("canceling");
        let allowed = match (code.as_str(), &op) {
            ("57014", _) if canceled => {
                self.cancels_felt += 1;
                self.cancels_felt <= self.cancels_sent
            }
            // Who is in a transaction has a server.
            ("53300", _) => self.crowded && self.block == Block::Idle && self.is_unanswered(),
            ("25P02", _) => self.block == Block::Failed,
            ("P0001", Some(Op::Fail)) => true,
            ("42601", Some(Op::Syntax)) => true,
            ("42601", None) => parsed == Some(&Op::Syntax),
            ("42809", Some(Op::CopyInRefused)) => true,
            ("22P02" | "57014", Some(Op::CopyIn)) => true,
            _ => false,
        };
        if !allowed || self.progress.failed {
            return Err(self.wrong(tag, &format!("{code} {message}")));
        }
        if code == "53300" {
            self.note_refused();
        }
        self.settings.roll_back();
        if self.block == Block::InTransaction {
            self.block = Block::Failed;
        }
        if let Some(Awaited::Query(_)) = self.awaited.front() {
            self.progress.failed = true;
            return Ok(());
        }
        self.progress = Progress::default();
        if self.awaited.is_empty() && self.doubtful > 0 {
            // The answer to a Sync that was taken for answered already.
            return Ok(());
        }
        while let Some(awaited) = self.awaited.front() {
            if matches!(awaited, Awaited::Sync) {
                return Ok(());
            }
            self.awaited.pop_front();
        }
        self.skipping = true;
        Ok(())
    }

    /// Whether nothing of the message that is answered next has been answered yet.
    fn is_unanswered(&self) -> bool {
        let Progress {
            described,
            rows,
            copying,
            failed,
        } = self.progress;
        !described && rows == 0 && !copying && !failed
    }

    /// Everything of the first batch is refused.
    fn note_refused(&mut self) {
        for awaited in &self.awaited {
            match awaited {
                Awaited::Query(ops) => {
                    self.refused.extend(ops.iter().map(|(_, token)| *token));
                    return;
                }
                Awaited::Execute { token, .. } | Awaited::Bind(token) => self.refused.push(*token),
                Awaited::Sync => return,
                Awaited::Parse { .. }
                | Awaited::DescribeStatement(_)
                | Awaited::DescribePortal(_)
                | Awaited::Close(_) => {}
            }
        }
    }

    fn ready(&mut self, tag: u8, body: &[u8]) -> Result<(), Broken> {
        match self.awaited.front() {
            Some(Awaited::Sync) => {
                // It may be the answer to an earlier one.
                let doubtful = self.doubtful;
                self.answered();
                self.doubtful = doubtful;
            }
            Some(Awaited::Query(ops)) if ops.is_empty() || self.progress.failed => self.answered(),
            _ if self.doubtful > 0 => self.doubtful -= 1,
            _ => return Err(self.wrong(tag, "not asked to be ready")),
        }
        if self.block == Block::Idle {
            self.settings.commit();
        }
        match body == [self.block.byte()] {
            true => Ok(()),
            false => Err(self.wrong(tag, &format!("{body:?} in block {:?}", self.block))),
        }
    }

    /// The server asks for data: that comes before anything else.
    fn give_copy_data(&mut self, token: Token) {
        let simple = matches!(self.awaited.front(), Some(Awaited::Query(_)));
        let mut steps = Vec::new();
        let mut data = Vec::new();
        let bad = self.rng.one_in(4);
        for row in 0..self.rng.between(0, 5) {
            let word = if bad && row == 1 { "bad" } else { "row" };
            frame(&mut data, b'd', format!("{word} {token}").as_bytes());
            if self.rng.one_in(3) {
                steps.push(Step::Send(std::mem::take(&mut data), Vec::new()));
                steps.push(Step::Pause(self.rng.between(0, 3_000)));
            }
        }
        match self.rng.one_in(6) {
            true => frame(&mut data, b'f', b"changed my mind\0"),
            false => frame(&mut data, b'c', b""),
        }
        let mut awaited = Vec::new();
        if !simple {
            // A Sync that came with Execute is read as part of the COPY and not answered, unless
            // the COPY fails before it is read.
            let before = self.awaited.len();
            let mut first = true;
            self.awaited
                .retain(|awaited| std::mem::take(&mut first) || !matches!(awaited, Awaited::Sync));
            self.doubtful = (before - self.awaited.len()) as u32;
            frame(&mut data, b'S', b"");
            awaited.push(Awaited::Sync);
        }
        steps.push(Step::Send(data, awaited));
        for step in steps.into_iter().rev() {
            self.program.push_front(step);
        }
    }
}
