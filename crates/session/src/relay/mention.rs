//! The names of prepared statements where they stand in texts: in a client's DEALLOCATE, and in what a
//! server says of an error.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use pgweir_wire::tag::backend as tag;
use pgweir_wire::{ErrorFields, HEADER_LEN, SqlState, put_frame};

use super::{ClientSide, Relay};
use crate::changes::Change;
use crate::pipeline::{Awaited, Reply};
use crate::prepared::{SERVER_NAME, StatementId};

/// A name in a text.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Mention {
    /// What it is, without quotes.
    pub(super) name: Box<[u8]>,
    /// Where it stands, with its quotes.
    pub(super) range: Range<usize>,
}

/// What the statement without a name does to the books of prepared statements when it is executed.
#[derive(Debug, Default)]
pub(super) enum Effect {
    #[default]
    None,
    /// It takes a name away that the protocol has given, and the statement from the server.
    Deallocates(Box<[u8]>, StatementId),
    /// The server may forget all that it was taught.
    Forgets,
}

/// Whether a text, by its first word, may make the server forget what it was taught.
pub(super) fn may_forget(text: &[u8]) -> bool {
    let at = space(text, 0);
    word(text, at, b"DISCARD").is_some() || word(text, at, b"DEALLOCATE").is_some()
}

/// Whether a text may be a DEALLOCATE, a DISCARD or an EXECUTE, by its first letter.
#[inline]
pub(super) fn may_be(text: &[u8]) -> bool {
    matches!(
        text.trim_ascii_start().first(),
        Some(b'D' | b'd' | b'E' | b'e')
    )
}

/// The name in `DEALLOCATE [PREPARE] name`, if that is all of the text.
pub(super) fn deallocated(text: &[u8]) -> Option<Mention> {
    let mut at = word(text, space(text, 0), b"DEALLOCATE")?;
    if let Some(end) = word(text, space(text, at), b"PREPARE")
        && is_space(text.get(end))
    {
        at = end;
    }
    let start = space(text, at);
    if start == at {
        return None;
    }
    let mention = name(text, start)?;
    let rest = &text[mention.range.end..];
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b';' | 0);
    let is_all = &text[mention.range.clone()];
    (rest.iter().all(is_end) && !is_all.eq_ignore_ascii_case(b"ALL")).then_some(mention)
}

/// The name in `EXECUTE name`.
pub(super) fn executed(text: &[u8]) -> Option<Mention> {
    let at = word(text, space(text, 0), b"EXECUTE")?;
    let start = space(text, at);
    if start == at {
        return None;
    }
    let mention = name(text, start)?;
    let next = text.get(space(text, mention.range.end));
    matches!(next, None | Some(b'(' | b';' | 0)).then_some(mention)
}

fn is_space(byte: Option<&u8>) -> bool {
    byte.is_some_and(u8::is_ascii_whitespace)
}

/// The position behind white space.
fn space(text: &[u8], mut at: usize) -> usize {
    while is_space(text.get(at)) {
        at += 1;
    }
    at
}

/// The position behind a word, if it stands there.
fn word(text: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    let end = at + word.len();
    let stands = text.get(at..end)?.eq_ignore_ascii_case(word);
    stands.then_some(end)
}

fn name(text: &[u8], start: usize) -> Option<Mention> {
    let (mut name, mut at) = (Vec::new(), start);
    if text.get(at) == Some(&b'"') {
        loop {
            at += 1;
            match (text.get(at)?, text.get(at + 1)) {
                (b'"', Some(b'"')) => at += 1,
                (b'"', _) => break,
                _ => {}
            }
            name.push(text[at]);
        }
        at += 1;
    } else {
        // PostgreSQL's own rule for other letters depends on the encoding.
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
        while let Some(byte) = text.get(at).filter(|byte| is_part(byte)) {
            name.push(byte.to_ascii_lowercase());
            at += 1;
        }
        if name
            .first()
            .is_none_or(|byte| byte.is_ascii_digit() || *byte == b'$')
        {
            return None;
        }
    }
    Some(Mention {
        name: name.into(),
        range: start..at,
    })
}

impl Relay {
    /// The statement that is executed changes the books of prepared statements.
    #[cold]
    pub(super) fn push_effect(&mut self) {
        // Its portal is executed once.
        self.unnamed.is_effect_bound = false;
        match &self.unnamed.effect {
            Effect::None => self.pipeline.push(Awaited::Execute, Reply::Forward),
            Effect::Forgets => self.pipeline.push_forgetting(Awaited::Execute),
            Effect::Deallocates(name, id) => {
                let (name, id) = (name.clone(), *id);
                let change = Change::Deallocated { name, id };
                self.pipeline
                    .push_change(Awaited::Execute, Reply::Forward, change);
            }
        }
    }

    /// Takes the server's word on whether it has a statement where the books are wrong: a function may have
    /// executed DEALLOCATE.
    pub(super) fn correct_books(&mut self, fields: &ErrorFields<'_>, body: &[u8]) {
        let Some((id, _)) = server_name(body) else {
            return;
        };
        match fields.sqlstate() {
            // A client can raise the same error, but not in this function's name.
            Some(SqlState::INVALID_SQL_STATEMENT_NAME)
                if fields.routine == b"FetchPreparedStatement" =>
            {
                self.statements.remove(id);
            }
            Some(SqlState::DUPLICATE_PREPARED_STATEMENT) => {
                let sent = self.pipeline.front_sends();
                if let Some(sent) = sent.filter(|sent| sent.id == id) {
                    self.statements.insert(Arc::clone(sent));
                }
            }
            _ => {}
        }
    }

    /// An ErrorResponse with the client's name of a statement in the place of the server's; `None` if
    /// there is no such name in it.
    pub(super) fn reworded(&mut self, body: &[u8], client: &ClientSide) -> Option<BytesMut> {
        let taken = self.taken_name.take();
        let (id, Range { start, end }) = server_name(body)?;
        let means = |name: &[u8]| {
            let known = client.statements.get(name);
            known.is_some_and(|statement| statement.id == id)
        };
        let mut names = client.statements.iter().map(|(name, _)| name);
        let name = match taken.as_deref().filter(|name| means(name)) {
            Some(name) => name,
            None => names.find(|name| means(name))?,
        };
        let mut out = BytesMut::with_capacity(HEADER_LEN + body.len() + name.len());
        let parts = [&body[..start], name, &body[end..]];
        put_frame(&mut out, tag::ERROR_RESPONSE, &parts).ok()?;
        Some(out)
    }
}

/// The statement that a text mentions by the server's name for it, and where.
fn server_name(body: &[u8]) -> Option<(StatementId, Range<usize>)> {
    let len = SERVER_NAME.len();
    let start = body
        .windows(len)
        .position(|window| window == SERVER_NAME.as_bytes())?;
    let digits = body[start + len..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    let range = start..start + len + digits.count();
    let number = std::str::from_utf8(&body[start + len..range.end]).ok()?;
    Some((StatementId(number.parse().ok()?), range))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_in(text: &str) -> Option<String> {
        let mention = deallocated(text.as_bytes())?;
        Some(String::from_utf8_lossy(&mention.name).into_owned())
    }

    #[test]
    fn finds_the_name_that_is_taken_away() {
        let found = |name: &str| Some(name.to_owned());
        assert_eq!(name_in("DEALLOCATE a_1"), found("a_1"));
        assert_eq!(name_in(" deallocate prepare Abc ;\0"), found("abc"));
        assert_eq!(name_in("DEALLOCATE \"A \"\"b\"\"\""), found("A \"b\""));
        assert_eq!(name_in("DEALLOCATE prepare"), found("prepare"));
    }

    #[test]
    fn finds_the_name_that_is_executed() {
        let name_in = |text: &str| executed(text.as_bytes()).map(|mention| mention.name);
        assert_eq!(name_in("EXECUTE a"), Some((*b"a").into()));
        assert_eq!(name_in(" execute \"B\" (1, 2);\0"), Some((*b"B").into()));
        assert_eq!(name_in("EXECUTE a b"), None);
        assert_eq!(name_in("EXPLAIN EXECUTE a"), None);
    }

    #[test]
    fn leaves_everything_else_alone() {
        for text in [
            "DEALLOCATE ALL",
            "DEALLOCATE a; SELECT 1",
            "DEALLOCATE /* */ a",
            "DEALLOCATE \"a",
            "DEALLOCATEa",
            "DEALLOCATE",
            "DISCARD ALL",
        ] {
            assert_eq!(name_in(text), None, "{text}");
        }
    }
}
