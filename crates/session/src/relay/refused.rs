//! Statements that an operator does not want, because of what they leave in a session
//! (`refused_state`).
//!
//! The server is sent a text that it cannot parse, and its error is replaced. So a refusal is what an
//! error of PostgreSQL's is: in its place among the replies, once, with what follows it skipped up to
//! the next Sync, and the transaction failed.

use bytes::{BufMut as _, BytesMut};
use pgweir_wire::SqlState;
use pgweir_wire::tag::backend as tag;

use super::Rules;
use crate::residue::{Kinds, Scan};

/// The only word of the text; behind it stands which kinds are refused.
const WORD: &str = "pgweir_refuses_";

/// Whether a text may go to the server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    /// It may go to the server.
    Fine,
    /// It must not run before what the relay waits for is over.
    Wait,
    /// It must not run.
    Refused(Kinds),
}

/// Which kinds of a statement are refused.
#[inline]
pub(super) fn refused(scan: &Scan, rules: &Rules<'_>) -> Kinds {
    match rules.refused.is_empty() {
        true => Kinds::NONE,
        false => rules.refused.both(scan.announced()),
    }
}

/// What the server gets in place of a statement.
pub(super) fn text(kinds: Kinds) -> String {
    format!("{WORD}{}", kinds.bits())
}

/// The refusal, if this is what a server says to such a text.
pub(super) fn refusal(sqlstate: Option<SqlState>, message: &[u8]) -> Option<BytesMut> {
    if sqlstate != Some(SqlState::SYNTAX_ERROR) {
        return None;
    }
    let message = std::str::from_utf8(message).ok()?;
    let (_, bits) = message.split_once(WORD)?;
    let digits = bits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(bits.len());
    let kinds = Kinds::from_bits(bits[..digits].parse().ok()?);
    let body = format!(
        "SERROR\0VERROR\0C0A000\0M{kinds}: refused in this pooling mode\0\
         DThe statement would leave it in the session of a server that others use, too.\0\
         HAn operator has refused this kind (refused_state); use a database in session pooling for it.\0\0"
    );
    let mut out = BytesMut::with_capacity(5 + body.len());
    out.put_u8(tag::ERROR_RESPONSE);
    out.put_u32(u32::try_from(4 + body.len()).ok()?);
    out.put_slice(body.as_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_says_is_recognised() {
        let kinds = Kinds::LISTEN.and(Kinds::LOCKS);
        let said = format!("syntax error at or near \"{}\"", text(kinds));
        let refusal = refusal(Some(SqlState::SYNTAX_ERROR), said.as_bytes());
        let refusal = refusal.expect("it is one");
        let refusal = String::from_utf8_lossy(&refusal);
        assert!(
            refusal.contains("C0A000\0Madvisory lock, listen: refused"),
            "{refusal}"
        );
    }

    #[test]
    fn other_errors_are_not() {
        let said = b"syntax error at or near \"pgweir_refuses\"";
        assert_eq!(refusal(Some(SqlState::SYNTAX_ERROR), said), None);
        let said = text(Kinds::ALL);
        assert_eq!(
            refusal(Some(SqlState::FEATURE_NOT_SUPPORTED), said.as_bytes()),
            None
        );
    }
}
