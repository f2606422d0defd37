//! A statement as a number, for whoever remembers how long statements take: the same words with other
//! literals are the same statement.
//!
//! It is made of what [`Spoken`](crate::Spoken) has kept, so of a long text it knows the two ends.

/// First words of statements that take about as long each time. Others (VACUUM, COPY, CALL, COMMIT) take as long
/// as there is to do, or as somebody else wants.
const STEADY: [&[u8]; 7] = [
    b"delete", b"insert", b"merge", b"select", b"update", b"values", b"with",
];

/// The print of a statement of which the beginning was kept and, if it is longer, the end; `None` if nothing can
/// be expected of it.
pub(crate) fn print(beginning: &[u8], end: &[u8]) -> Option<u64> {
    let mut words = Words { rest: beginning };
    let first = words.next()?;
    if !STEADY.iter().any(|verb| verb.eq_ignore_ascii_case(first)) {
        return None;
    }
    let mut hash = fold(0, first);
    for word in words {
        hash = fold(hash, word);
    }
    // The first word of the end may be cut, and where it is cut depends on literals.
    for word in (Words { rest: end }).skip(1) {
        hash = fold(hash, word);
    }
    Some(hash)
}

/// FNV-1a over the word in lower case, and a byte that no word has.
fn fold(hash: u64, word: &[u8]) -> u64 {
    let bytes = word
        .iter()
        .map(u8::to_ascii_lowercase)
        .chain(std::iter::once(0));
    bytes.fold(hash ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Names, keywords and operators: no literals, parameters, comments, commas or parentheses, so that a list of two
/// is as good as one of three.
struct Words<'a> {
    rest: &'a [u8],
}

impl<'a> Words<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// How many bytes at the beginning are such.
    fn len_while(&self, is: impl Fn(u8) -> bool) -> usize {
        let end = self.rest.iter().position(|byte| !is(*byte));
        end.unwrap_or(self.rest.len())
    }

    /// The length up to the end of the next `end`, or of everything.
    fn through(&self, from: usize, end: &[u8]) -> usize {
        let rest = self.rest.get(from..).unwrap_or_default();
        let at = rest.windows(end.len()).position(|window| window == end);
        at.map_or(self.rest.len(), |at| from + at + end.len())
    }

    /// The length of a literal in single quotes; both doubled quotes and backslashes are taken for escapes.
    fn quoted_len(&self) -> usize {
        let mut at = 1;
        while let Some(byte) = self.rest.get(at) {
            match (byte, self.rest.get(at + 1)) {
                (b'\\', _) | (b'\'', Some(b'\'')) => at += 2,
                (b'\'', _) => return at + 1,
                _ => at += 1,
            }
        }
        self.rest.len()
    }

    /// The length of `$1`, of `$tag$ .. $tag$`, or of a lonely dollar.
    fn dollar_len(&self) -> usize {
        let tag = self.rest[1..].iter().position(|byte| *byte == b'$');
        let is_word = |bytes: &[u8]| bytes.iter().all(|byte| is_word(*byte));
        match tag {
            Some(len) if is_word(&self.rest[1..=len]) => {
                self.through(len + 2, &self.rest[..len + 2])
            }
            _ => {
                1 + self.rest[1..]
                    .iter()
                    .take_while(|b| b.is_ascii_digit())
                    .count()
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let (first, second) = (*self.rest.first()?, self.rest.get(1));
            let passed = match (first, second) {
                // What a Parse has behind its text.
                (0, _) => return None,
                (b'\'', _) => self.quoted_len(),
                (b'-', Some(b'-')) => self.through(2, b"\n"),
                (b'/', Some(b'*')) => self.through(2, b"*/"),
                (b'$', _) => self.dollar_len(),
                // The E of E'..' says only how to read what is passed over.
                (_, Some(b'\'')) if first.is_ascii_alphabetic() => 1,
                (b',' | b'(' | b')' | b';', _) => 1,
                (byte, _) if byte.is_ascii_whitespace() => 1,
                (byte, _) if byte.is_ascii_digit() => self.len_while(|b| is_word(b) || b == b'.'),
                (b'"', _) => {
                    let len = self.through(1, b"\"");
                    return Some(self.take(len));
                }
                (byte, _) if is_word(byte) => {
                    let len = self.len_while(|b| is_word(b) || b == b'$');
                    return Some(self.take(len));
                }
                _ => return Some(self.take(1)),
            };
            self.take(passed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(sql: &str) -> Option<u64> {
        print(sql.as_bytes(), b"")
    }

    #[test]
    fn other_literals_are_the_same_statement() {
        let one = of("select * from t where a in (1, 2) and b = 'x'");
        assert!(one.is_some());
        for same in [
            "SELECT  * FROM t\nWHERE a IN (7) AND b = 'it''s'",
            "select * from t where a in (3,4,5) and b = E'\\'' -- later",
            "/* traceparent='00-1-2' */ select * from t where a in ($1) and b = $x$y$x$;",
        ] {
            assert_eq!(of(same), one, "{same}");
        }
        for other in [
            "select * from t where a in (1, 2) and c = 'x'",
            "select * from t where a in (1, 2) and b > 'x'",
            "select * from u where a in (1, 2) and b = 'x'",
        ] {
            assert_ne!(of(other), one, "{other}");
        }
    }

    #[test]
    fn what_takes_as_long_as_there_is_to_do_has_none() {
        for sql in [
            "",
            "vacuum t",
            "COPY t from stdin",
            "commit",
            "call p()",
            "create index on t (a)",
        ] {
            assert_eq!(of(sql), None, "{sql}");
        }
    }

    #[test]
    fn the_end_of_a_long_statement_counts_and_what_stands_behind_it_does_not() {
        let print = |end: &[u8]| print(b"select a, b, c", end);
        assert_ne!(print(b"rom t where a = 1"), print(b"rom t where b = 1"));
        assert_eq!(
            print(b"rom t where a = 1\0\0\x01\0x"),
            print(b"om t where a = 27")
        );
    }

    proptest! {
        #[test]
        fn every_text_can_be_read(beginning in prop::collection::vec(any::<u8>(), 0..200),
                                  end in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = print(&beginning, &end);
            let _ = print(&[b"select ", &*beginning].concat(), &end);
        }
    }
}
