//! The fast half of [`scan`](super::scan): texts in which nothing stands out, which is most of them.
//!
//! Hot path: a few instructions per byte. Whatever is not as simple as expected is left to the slow
//! half, which gives the same print.

use super::Scan;
use super::words::{call_bit, fold, is, is_known_call, word_hash, word_hash_in};

/// What a byte is.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Class {
    Space,
    Letter,
    Digit,
    Quote,
    Dollar,
    Semicolon,
    Open,
    /// What only divides.
    Divider,
    Operator,
    /// Read by the slow half.
    Odd,
}

const CLASSES: &[Class; 256] = &{
    let mut classes = [Class::Operator; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Space,
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b'\'' => Class::Quote,
            b'$' => Class::Dollar,
            b';' => Class::Semicolon,
            b'(' => Class::Open,
            b',' | b')' | b'.' | b'*' | b'-' | b'+' => Class::Divider,
            b'"' | b'/' | 0 => Class::Odd,
            _ => Class::Operator,
        };
        byte += 1;
    }
    classes
};

/// Words that say more than their place in the print.
const STAND_OUT: &[u64; 12] = &[
    word_hash(b"currval"),
    word_hash(b"delete"),
    word_hash(b"execute"),
    word_hash(b"insert"),
    word_hash(b"lastval"),
    word_hash(b"merge"),
    word_hash(b"nextval"),
    word_hash(b"set_config"),
    word_hash(b"setval"),
    word_hash(b"temp"),
    word_hash(b"temporary"),
    word_hash(b"update"),
];

const CONSTANTS: &[u64; 4] = &[
    word_hash(b"null"),
    word_hash(b"true"),
    word_hash(b"false"),
    word_hash(b"default"),
];

/// A bit for each of these words and, by chance, of every twentieth other.
const FILTER: &[u64; 4] = &{
    let mut filter = [0; 4];
    let mut at = 0;
    while at < STAND_OUT.len() {
        filter[(STAND_OUT[at] >> 62) as usize] |= 1 << ((STAND_OUT[at] >> 56) & 63);
        at += 1;
    }
    at = 0;
    while at < CONSTANTS.len() {
        filter[(CONSTANTS[at] >> 62) as usize] |= 1 << ((CONSTANTS[at] >> 56) & 63);
        at += 1;
    }
    filter
};

#[inline]
fn may_matter(hash: u64) -> bool {
    FILTER[(hash >> 62) as usize] & (1 << ((hash >> 56) & 63)) != 0
}

/// Scans a text; `None` if the slow half has to.
pub(super) fn scan(text: &[u8]) -> Option<Scan> {
    let mut scan = Scan::default();
    let (mut at, mut print, mut before) = (0, 0, 0);
    // Whether a verb is expected, whether the statement is passed over, whether it counts.
    let (mut begins, mut passes, mut counts) = (true, false, false);
    let mut last: &[u8] = b"";
    while let Some(&byte) = text.get(at) {
        match CLASSES[usize::from(byte)] {
            Class::Space => at += 1,
            Class::Letter => {
                let start = at;
                let is_over = |&byte: &u8| {
                    !matches!(CLASSES[usize::from(byte)], Class::Letter | Class::Digit)
                };
                let len = text[start..].iter().position(is_over);
                at = len.map_or(text.len(), |len| start + len);
                let hash = word_hash_in(text, start, at);
                let word = &text[start..at];
                if matches!(text.get(at), Some(b'\'' | b'$' | b'&')) {
                    return None;
                }
                if begins {
                    begins = false;
                    (before, counts) = (print, false);
                    match verb(word)? {
                        Verb::Reads => {}
                        Verb::Writes => (counts, scan.draws) = (true, true),
                        Verb::Ends => passes = true,
                    }
                    if !passes {
                        print = fold(print, hash);
                    }
                    continue;
                }
                counts |= !last.is_empty();
                last = b"";
                if passes {
                    continue;
                }
                if may_matter(hash) {
                    if CONSTANTS.contains(&hash) {
                        continue;
                    }
                    if STAND_OUT.contains(&hash) {
                        return None;
                    }
                }
                if word[0] | 0x20 == b'p' && word.get(..3).is_some_and(|pg| is(pg, b"pg_")) {
                    return None;
                }
                print = fold(print, hash);
                last = word;
                continue;
            }
            // Not so many statements begin like that.
            Class::Digit
            | Class::Quote
            | Class::Dollar
            | Class::Open
            | Class::Divider
            | Class::Operator
                if begins =>
            {
                return None;
            }
            Class::Digit => {
                while let Some(&byte) = text.get(at)
                    && (byte == b'.'
                        || matches!(CLASSES[usize::from(byte)], Class::Letter | Class::Digit))
                {
                    at += 1;
                }
                counts |= !last.is_empty();
                last = b"";
            }
            Class::Quote => {
                let inner = &text[at + 1..];
                let len = inner.iter().position(|&byte| byte == b'\'')?;
                if len > 0 && inner[len - 1] == b'\\' {
                    return None;
                }
                at += len + 2;
                counts |= !last.is_empty();
                last = b"";
            }
            Class::Dollar => {
                at += 1;
                if !text.get(at).is_some_and(u8::is_ascii_digit) {
                    return None;
                }
                while let Some(&byte) = text.get(at)
                    && matches!(CLASSES[usize::from(byte)], Class::Letter | Class::Digit)
                {
                    at += 1;
                }
                if text.get(at) == Some(&b'$') {
                    return None;
                }
                counts |= !last.is_empty();
                last = b"";
            }
            Class::Semicolon => {
                at += 1;
                if !begins && !counts && last.is_empty() {
                    print = before;
                }
                (begins, passes, last) = (true, false, b"");
            }
            Class::Open => {
                at += 1;
                if !last.is_empty() && !is_known_call(last) {
                    counts = true;
                    scan.draws = true;
                    scan.calls |= call_bit(last);
                }
                last = b"";
            }
            Class::Divider => {
                if byte == b'-' && text.get(at + 1) == Some(&b'-') {
                    return None;
                }
                at += 1;
                counts |= !last.is_empty();
                last = b"";
            }
            Class::Operator => {
                at += 1;
                if !passes {
                    counts = true;
                    print = fold(print, word_hash(&[byte]));
                }
                last = b"";
            }
            Class::Odd if byte == 0 => break,
            Class::Odd => return None,
        }
    }
    if !begins && !counts && last.is_empty() {
        print = before;
    }
    scan.print = print;
    Some(scan)
}

/// What a statement that is ordinary begins with.
enum Verb {
    Reads,
    Writes,
    /// Of a transaction, or it begins one: all else in it is nothing but its options.
    Ends,
}

fn verb(word: &[u8]) -> Option<Verb> {
    let is = |verb: &[u8]| word.eq_ignore_ascii_case(verb);
    match word.len() {
        3 if is(b"end") => Some(Verb::Ends),
        5 if is(b"begin") => Some(Verb::Ends),
        6 if is(b"select") => Some(Verb::Reads),
        6 if is(b"insert") || is(b"update") || is(b"delete") => Some(Verb::Writes),
        6 if is(b"commit") => Some(Verb::Ends),
        8 if is(b"rollback") => Some(Verb::Ends),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scan::scan_slowly;
    use super::*;

    #[test]
    fn most_texts_are_ordinary() {
        for sql in [
            "SELECT abalance FROM pgbench_accounts WHERE aid = $1;",
            "UPDATE t SET a = a + -5 WHERE b IN (1, 2.5, 'x');",
            "INSERT INTO h (tid, mtime) VALUES (1, CURRENT_TIMESTAMP);",
            "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;\0",
            "BEGIN;",
            "END; select 1",
        ] {
            assert!(scan(sql.as_bytes()).is_some(), "{sql}");
        }
    }

    /// Numbers and parameters reach as far in the one half as in the other.
    #[test]
    fn letters_behind_digits_belong_to_them() {
        for sql in ["select $1select", "select 1select", "select 'a'$1f(1)"] {
            let fast = scan(sql.as_bytes()).expect("ordinary");
            assert_eq!(fast, scan_slowly(sql.as_bytes()), "{sql}");
        }
    }

    proptest! {
        /// The two halves agree wherever both have a say.
        #[test]
        fn it_is_the_same_scan(words in prop::collection::vec(prop::sample::select(vec![
            "select", "Insert", "update", "delete", "begin", "commit", "end", "rollback", "set", "from", "t",
            "count", "f", "null", "where", "temp", "pg_x", "set_config", "'a'", "'\\'", "1", "2.5", "$1", "(",
            ")", ",", ";", "=", "+", "-", "--", "/", "\"q\"", ".", " ", " ", " ", "\n", "E'x'", "$$y$$", "\0",
        ]), 0..24)) {
            let sql = words.concat();
            if let Some(fast) = scan(sql.as_bytes()) {
                prop_assert_eq!(fast, scan_slowly(sql.as_bytes()), "{}", sql);
            }
        }
    }
}
