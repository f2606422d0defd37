//! What a client has asked of the server that it holds: the first and the last statement, for whoever
//! wants to know why it holds the server for so long.

use std::fmt::Write as _;

use crate::handover::Bytes;
use crate::{print, taken};

/// Bytes of a statement that are kept.
const KEPT: usize = 240;

/// Bytes of the end of a longer one that are kept, to tell it from others that begin like it.
const KEPT_END: usize = 64;

/// First words of statements that commit nothing, or nothing that is worth a doubt.
const READS_ONLY: [&[u8]; 14] = [
    b"begin", b"close", b"declare", b"discard", b"explain", b"fetch", b"listen", b"reset",
    b"select", b"set", b"show", b"start", b"table", b"values",
];

/// The first and the last statement of a lease. It stands with the server, and an idle client owns
/// none of it.
#[derive(Debug, Default)]
pub struct Spoken {
    first: Vec<u8>,
    last: Vec<u8>,
    /// The end of the newest one, if it is too long to be kept.
    end: Vec<u8>,
}

impl Spoken {
    /// The server serves another client.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.first.clear();
        self.last.clear();
    }

    /// A statement was asked for.
    #[inline]
    pub(crate) fn note(&mut self, text: &[u8]) {
        let kept = match self.first.is_empty() {
            true => &mut self.first,
            false => &mut self.last,
        };
        kept.clear();
        kept.extend_from_slice(&text[..text.len().min(KEPT)]);
        self.end.clear();
        if text.len() > KEPT {
            self.end.extend_from_slice(&text[text.len() - KEPT_END..]);
        }
    }

    /// The last statement without its literals, as a number; `None` if nothing can be expected of how long
    /// such a statement takes.
    pub fn print(&self) -> Option<u64> {
        print::print(self.last(), &self.end)
    }

    /// The first statement, as far as it was kept.
    pub fn first(&self) -> &[u8] {
        text_of(&self.first)
    }

    /// The last one.
    pub fn last(&self) -> &[u8] {
        match self.last.is_empty() {
            true => self.first(),
            false => text_of(&self.last),
        }
    }
}

impl Spoken {
    /// Whether the last statement may commit something: the end of a transaction, or, outside of
    /// one, anything that is not known to read only.
    pub(crate) fn may_commit(&self, outside: bool) -> bool {
        let text = self.last().trim_ascii_start();
        let word = text.split(|byte| !byte.is_ascii_alphabetic()).next();
        let word = word.unwrap_or_default().to_ascii_lowercase();
        match &*word {
            b"commit" | b"end" => true,
            b"prepare" => taken::ends_transaction(text),
            _ => outside && !word.is_empty() && !READS_ONLY.contains(&&*word),
        }
    }

    /// What they are, for another process.
    pub(crate) fn state(&self) -> (Bytes, Bytes) {
        (Bytes(self.first.clone()), Bytes(self.last.clone()))
    }

    pub(crate) fn restore((first, last): (Bytes, Bytes)) -> Self {
        Self {
            first: first.0,
            last: last.0,
            end: Vec::new(),
        }
    }
}

/// The text of a Query or Parse ends at a zero byte, behind which types may stand.
pub(crate) fn text_of(kept: &[u8]) -> &[u8] {
    let end = kept.iter().position(|byte| *byte == 0);
    &kept[..end.unwrap_or(kept.len())]
}

/// A statement without what its author asked about: every literal is a question mark, white space
/// is one blank. What looks like a literal but may be none is taken for one.
pub fn normalized(sql: &[u8]) -> String {
    let sql = String::from_utf8_lossy(sql);
    let mut out = String::with_capacity(sql.len());
    let mut rest = &*sql;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\'' => {
                // The E of E'..' says only how to read what is not shown.
                out.push('?');
                literal_len(rest)
            }
            '"' => {
                let len = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
                out.push_str(&rest[..len]);
                len
            }
            '$' => match dollar_quoted_len(rest) {
                Some(len) => {
                    out.push('?');
                    len
                }
                None => {
                    out.push('$');
                    let digits = rest[1..].find(|c: char| !c.is_ascii_digit());
                    let len = digits.map_or(rest.len(), |end| end + 1);
                    out.push_str(&rest[1..len]);
                    len
                }
            },
            c if c.is_whitespace() => {
                if !out.ends_with(' ') && !out.is_empty() {
                    out.push(' ');
                }
                rest.find(|c: char| !c.is_whitespace())
                    .unwrap_or(rest.len())
            }
            c if c.is_ascii_digit() => {
                out.push('?');
                let more = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
                rest.find(|c| !more(c)).unwrap_or(rest.len())
            }
            c if c.is_alphabetic() || c == '_' => {
                let word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
                let len = rest.find(|c| !word(c)).unwrap_or(rest.len());
                let prefixes_literal = len == 1 && rest[1..].starts_with('\'');
                if !prefixes_literal {
                    out.push_str(&rest[..len]);
                }
                len
            }
            c => {
                // Writing into a String cannot fail.
                let _ = out.write_char(c);
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out.truncate(out.trim_end().len());
    out
}

/// The length of a literal in single quotes, with doubled quotes and backslashes taken for escapes.
fn literal_len(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            '\'' => match chars.peek() {
                Some((_, '\'')) => {
                    chars.next();
                }
                _ => return at + 1,
            },
            _ => {}
        }
    }
    text.len()
}

/// The length of `$tag$ .. $tag$`, if the text begins with one.
fn dollar_quoted_len(text: &str) -> Option<usize> {
    let tag_end = text[1..].find('$')? + 2;
    let tag = &text[..tag_end];
    let inner = &tag[1..tag.len() - 1];
    let is_tag = inner.chars().all(|c| c.is_alphanumeric() || c == '_')
        && !inner.starts_with(|c: char| c.is_ascii_digit());
    is_tag.then(|| {
        let end = text[tag_end..].find(tag);
        end.map_or(text.len(), |end| tag_end + end + tag_end)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_and_the_last_statement_are_kept() {
        let mut spoken = Spoken::default();
        spoken.begin();
        spoken.note(b"begin\0");
        assert_eq!(
            (spoken.first(), spoken.last()),
            (&b"begin"[..], &b"begin"[..])
        );
        spoken.note(b"select 1\0\0\0");
        spoken.note(b"select 2\0\0\0");
        assert_eq!(
            (spoken.first(), spoken.last()),
            (&b"begin"[..], &b"select 2"[..])
        );
        spoken.begin();
        assert_eq!(spoken.first(), b"");
    }

    #[test]
    fn what_may_commit_is_told_from_what_reads() {
        let may_commit = |sql: &str, outside| {
            let mut spoken = Spoken::default();
            spoken.note(format!("{sql}\0").as_bytes());
            spoken.may_commit(outside)
        };
        for sql in [
            "COMMIT",
            " end;",
            "commit and chain",
            "PREPARE TRANSACTION 'x'",
        ] {
            assert!(may_commit(sql, false), "{sql}");
        }
        for sql in [
            "insert into t values (1)",
            "call p()",
            "with a as (delete from t) select 1",
        ] {
            assert!(may_commit(sql, true) && !may_commit(sql, false), "{sql}");
        }
        for sql in ["select 1", "BEGIN", "show all", ""] {
            assert!(!may_commit(sql, true), "{sql}");
        }
    }

    #[test]
    fn a_long_statement_is_cut() {
        let mut spoken = Spoken::default();
        spoken.note(&[b'x'; 10_000]);
        assert_eq!(spoken.first().len(), KEPT);
    }

    #[test]
    fn literals_are_not_shown() {
        for (sql, shown) in [
            (
                "select * from t where a = 'secret' and b = 42",
                "select * from t where a = ? and b = ?",
            ),
            (
                "insert into t values (E'it\\'s', 'it''s', -1.5e3)",
                "insert into t values (?, ?, -?)",
            ),
            (
                "select $1, $$secret$$, $x$se$$cret$x$, t1.c2",
                "select $1, ?, ?, t1.c2",
            ),
            ("  select\n\t1 ", "select ?"),
            (
                "select \"Col 1\" from t2 where x = 0x1F",
                "select \"Col 1\" from t2 where x = ?",
            ),
            ("select 'cut off", "select ?"),
        ] {
            assert_eq!(normalized(sql.as_bytes()), shown);
        }
    }

    proptest! {
        /// Whatever the text is: it can be shown, and nothing that stood in quotes is.
        #[test]
        fn nothing_in_quotes_is_shown(before in "[a-z =(,]{0,10}", secret in "[A-Z]{5,9}", after in ".{0,20}") {
            let shown = normalized(format!("{before}'{secret}'{after}").as_bytes());
            prop_assert!(!shown.contains(&secret) || after.contains(&secret), "{shown}");
        }

        #[test]
        fn every_text_can_be_read(sql in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = normalized(&sql);
        }
    }
}
