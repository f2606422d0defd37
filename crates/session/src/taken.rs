//! A client whose transaction was ended without it: what it may go on with.
//!
//! PostgreSQL refuses everything in a failed transaction until the client ends it, and so it must
//! be here: a statement that came later would run outside of the transaction that its author
//! thinks it is in. Only the beginning of the next message is looked at. What ends a transaction can
//! be given to any server: one that is in none answers it with a warning.

use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{FrameError, HEADER_LEN, Header};

use crate::batch::{Wish, wish};
use crate::relay::ClientSide;

/// Bytes of a message in which its statement, or the name of its statement, must begin.
const LOOK_LEN: usize = 512;

/// How a statement is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    /// As a Query.
    Simple,
    /// By Parse or Bind.
    Extended,
}

/// What the next message of such a client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// Nothing, or not enough of it is there to say.
    Nothing {
        /// So many bytes at the start need no answer: what is left over from a COPY that was
        /// refused, or a Flush of nothing.
        unneeded: usize,
        /// What is kept in place of a CopyData of which there is more to come, and that is unneeded as far as it is there.
        rest: Option<[u8; HEADER_LEN]>,
    },
    /// It leaves.
    Terminate,
    /// ROLLBACK or ABORT: the client agrees.
    Rollback,
    /// COMMIT, END or PREPARE TRANSACTION: the client believes that all is well.
    Commit(Form),
    /// The end of a batch of nothing.
    Sync,
    /// Anything else.
    Other,
}

/// Looks at the first message in `bytes`.
///
/// # Errors
/// A length that no message has.
pub fn next(bytes: &[u8], side: &ClientSide) -> Result<Next, FrameError> {
    match wish(bytes)? {
        (Wish::Nothing, unneeded) => {
            let rest = None;
            return Ok(Next::Nothing { unneeded, rest });
        }
        (Wish::Rest(header), unneeded) => {
            let rest = Some(header);
            return Ok(Next::Nothing { unneeded, rest });
        }
        (Wish::Terminate, _) => return Ok(Next::Terminate),
        (Wish::Server, _) => {}
    }
    let not_enough = Next::Nothing {
        unneeded: 0,
        rest: None,
    };
    let Some(header) = Header::peek(bytes, u32::MAX)? else {
        return Ok(not_enough);
    };
    let body = &bytes[HEADER_LEN.min(bytes.len())..];
    let there = &body[..body.len().min(header.body_len)];
    if there.len() < header.body_len.min(LOOK_LEN) {
        return Ok(not_enough);
    }
    Ok(match header.tag {
        tag::SYNC => Next::Sync,
        tag::QUERY => of_statement(there, Form::Simple),
        tag::PARSE => behind_name(there).map_or(Next::Other, extended),
        tag::BIND => {
            let statement = behind_name(there).and_then(name);
            let statement = statement.and_then(|name| side.statements.get(name));
            statement.map_or(Next::Other, |statement| extended(&statement.definition))
        }
        _ => Next::Other,
    })
}

fn extended(text: &[u8]) -> Next {
    of_statement(text, Form::Extended)
}

fn of_statement(text: &[u8], form: Form) -> Next {
    match ending(text) {
        Some(Ending::Rollback) => Next::Rollback,
        Some(Ending::Commit) => Next::Commit(form),
        None => Next::Other,
    }
}

/// Whether a statement ends its transaction with a commit, or with the promise of one.
pub(crate) fn ends_transaction(text: &[u8]) -> bool {
    ending(text) == Some(Ending::Commit)
}

/// How a statement ends its transaction.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ending {
    Rollback,
    Commit,
}

/// The string at the beginning, without its zero byte.
fn name(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some(&bytes[..end])
}

fn behind_name(bytes: &[u8]) -> Option<&[u8]> {
    Some(&bytes[name(bytes)?.len() + 1..])
}

/// What a statement does to a transaction. It has to stand alone: behind it something else could
/// run that belongs to the transaction.
fn ending(text: &[u8]) -> Option<Ending> {
    let text = name(text).unwrap_or(text).to_ascii_lowercase();
    let end = text.iter().position(|byte| *byte == b';');
    let (statement, rest) = text.split_at(end.unwrap_or(text.len()));
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == b';';
    if !rest.iter().all(is_blank) {
        return None;
    }
    let words: Vec<&[u8]> = statement
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .collect();
    match words[..] {
        [b"rollback" | b"abort"] | [b"rollback" | b"abort", b"work" | b"transaction"] => {
            Some(Ending::Rollback)
        }
        [b"commit" | b"end"] | [b"commit" | b"end", b"work" | b"transaction"] => {
            Some(Ending::Commit)
        }
        [b"prepare", b"transaction", ..] => Some(Ending::Commit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepared::StatementTable;
    use crate::reading::Reading;
    use crate::testing::frame;

    fn query(text: &str) -> Next {
        let query = frame(tag::QUERY, format!("{text}\0").as_bytes());
        next(&query, &ClientSide::default()).expect("well-formed")
    }

    #[test]
    fn what_ends_a_transaction_is_known_in_every_spelling() {
        for text in [
            "ROLLBACK",
            " rollback work ;",
            "Abort\n;;",
            "ABORT TRANSACTION",
        ] {
            assert_eq!(query(text), Next::Rollback, "{text}");
        }
        for text in ["commit", "END;", "commit work", "PREPARE TRANSACTION 'x'"] {
            assert_eq!(query(text), Next::Commit(Form::Simple), "{text}");
        }
    }

    #[test]
    fn what_goes_on_is_something_else() {
        for text in [
            "",
            "insert into t values (1)",
            "rollback to savepoint s",
            "rollback; insert into t values (1)",
            "rollback and chain",
            "endless",
        ] {
            assert_eq!(query(text), Next::Other, "{text}");
        }
    }

    #[test]
    fn extended_queries_are_looked_into() {
        let mut side = ClientSide::default();
        let table = StatementTable::default();
        let statement = table.intern(b"rollback\0\0\0", Reading::Fixed);
        side.statements.insert((*b"s1").into(), statement);
        let parse = frame(tag::PARSE, b"\0commit\0\0\0");
        assert_eq!(next(&parse, &side), Ok(Next::Commit(Form::Extended)));
        let bind = frame(tag::BIND, b"\0s1\0\0\0\0\0\0\0");
        assert_eq!(next(&bind, &side), Ok(Next::Rollback));
        let unknown = frame(tag::BIND, b"\0s2\0\0\0\0\0\0\0");
        assert_eq!(next(&unknown, &side), Ok(Next::Other));
    }

    #[test]
    fn what_a_refused_copy_left_is_passed_over() {
        let side = ClientSide::default();
        let rest = [frame(tag::COPY_DATA, b"1\n"), frame(tag::COPY_DONE, b"")].concat();
        let bytes = [rest.clone(), frame(tag::QUERY, b"rollback\0")].concat();
        let unneeded = rest.len();
        let rest = None;
        assert_eq!(next(&bytes, &side), Ok(Next::Nothing { unneeded, rest }));
        assert_eq!(next(&bytes[unneeded..], &side), Ok(Next::Rollback));
        assert_eq!(next(&frame(tag::SYNC, b""), &side), Ok(Next::Sync));
    }

    #[test]
    fn nothing_is_decided_before_enough_is_there() {
        let rollback = frame(tag::QUERY, b"rollback\0");
        for end in 0..rollback.len() {
            let part = next(&rollback[..end], &ClientSide::default());
            let nothing = Next::Nothing {
                unneeded: 0,
                rest: None,
            };
            assert_eq!(part, Ok(nothing), "{end} bytes");
        }
        assert_eq!(query(&"x".repeat(2 * LOOK_LEN)), Next::Other);
        assert_eq!(
            next(b"X\0\0\0\x04", &ClientSide::default()),
            Ok(Next::Terminate)
        );
    }
}
