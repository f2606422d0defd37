//! Texts that came before: one that differs from them in nothing but its numbers has the same
//! [scan](super::scan()).
//!
//! Hot path: what an application sends is mostly one of a few texts, with other numbers in it.

use super::{Scan, ordinary, scan};

/// Texts that are remembered; the oldest makes room.
const TEXTS_MAX: usize = 16;

/// Length of a text that is remembered, in bytes.
const LEN_MAX: usize = 1024;

/// The last texts in which nothing stood out. They stand with the server, so that they are few.
#[derive(Debug, Default)]
pub struct Familiar {
    texts: Vec<Text>,
    /// The text that came last.
    last: usize,
    oldest: usize,
}

#[derive(Debug, Default)]
struct Text {
    text: Vec<u8>,
    print: u64,
    draws: bool,
    calls: u128,
    /// What followed it last time: a transaction repeats its statements in their order.
    followed_by: usize,
}

impl Familiar {
    /// Scans a text, or remembers what one like it was found to be.
    #[inline]
    pub fn scan(&mut self, text: &[u8]) -> Scan {
        self.recall(text).unwrap_or_else(|| self.learn(text))
    }

    #[inline]
    fn recall(&mut self, text: &[u8]) -> Option<Scan> {
        let like = |known: &Text| differ_in_numbers_only(&known.text, text);
        let expected = self.texts.get(self.last)?.followed_by;
        let index = match like(&self.texts[expected]) {
            true => expected,
            false => self.texts.iter().position(like)?,
        };
        self.follow(index);
        let known = &self.texts[index];
        Some(Scan {
            print: known.print,
            draws: known.draws,
            calls: known.calls,
            ..Scan::default()
        })
    }

    #[inline]
    fn follow(&mut self, index: usize) {
        self.texts[self.last].followed_by = index;
        self.last = index;
    }

    fn learn(&mut self, text: &[u8]) -> Scan {
        let Some(scan) = ordinary::scan(text) else {
            return scan::scan_slowly(text);
        };
        if text.len() > LEN_MAX {
            return scan;
        }
        if self.texts.len() < TEXTS_MAX {
            self.oldest = self.texts.len();
            self.texts.push(Text::default());
        }
        let place = &mut self.texts[self.oldest];
        place.text.clear();
        place.text.extend_from_slice(text);
        (place.print, place.draws, place.calls) = (scan.print, scan.draws, scan.calls);
        self.follow(self.oldest);
        self.oldest = (self.oldest + 1) % TEXTS_MAX;
        scan
    }
}

/// Whether two texts are the same but for the digits of their numbers and their signs. Digits behind a
/// letter belong to a word.
#[inline]
fn differ_in_numbers_only(known: &[u8], text: &[u8]) -> bool {
    let (mut known, mut text) = (known, text);
    loop {
        let same = common_prefix(known, text);
        if same == known.len() && same == text.len() {
            return true;
        }
        let (old, new) = (number(&known[same..]), number(&text[same..]));
        if old + new == 0 {
            return false;
        }
        let begun = known[..same]
            .iter()
            .rev()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let both_have_digits = begun > 0 || (old > 0 && new > 0);
        let before = same.checked_sub(begun + 1).map(|at| known[at]);
        let is_signed = known[same..].starts_with(b"-") || text[same..].starts_with(b"-");
        // Two signs are a comment, and $ with a sign is no parameter.
        let may_be_signed = begun == 0 && !matches!(before, Some(b'-' | b'$'));
        if !both_have_digits || before.is_none_or(is_word) || (is_signed && !may_be_signed) {
            return false;
        }
        (known, text) = (&known[same + old..], &text[same + new..]);
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || matches!(byte, b'_' | 0x80..)
}

/// The length of the number that is next, with its sign.
#[inline]
fn number(bytes: &[u8]) -> usize {
    let sign = usize::from(bytes.starts_with(b"-"));
    let digits = bytes[sign..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit());
    match digits.count() {
        0 => 0,
        digits => sign + digits,
    }
}

/// How many bytes at the beginning are the same.
#[inline]
fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    let (ones, others) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
    for (index, (one, other)) in ones.iter().zip(others).enumerate() {
        let differ = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differ != 0 {
            return 8 * index + (differ.trailing_zeros() / 8) as usize;
        }
    }
    let at = 8 * ones.len().min(others.len());
    let rest = one[at..].iter().zip(&other[at..]);
    at + rest.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_may_differ() {
        for (known, text) in [
            ("select 1", "select 1"),
            ("where a = 471;", "where a = 9;"),
            ("where a = 471;", "where a = 4711;"),
            ("where a = 4711;", "where a = 471;"),
            ("in (1, 22, 3)", "in (11, 2, 33)"),
            ("a = '17' and b = 5", "a = '18' and b = 6"),
            ("$1 = 1.5", "$12 = 1.75"),
            ("a + 17 = 1", "a + -4 = -1"),
            ("a = -17", "a = 4"),
        ] {
            assert!(
                differ_in_numbers_only(known.as_bytes(), text.as_bytes()),
                "{known} | {text}"
            );
        }
    }

    #[test]
    fn nothing_else_may() {
        for (known, text) in [
            ("select a1", "select a2"),
            ("select f1()", "select f12()"),
            ("select ä1()", "select ä2()"),
            ("select _1()", "select _2()"),
            ("select 1", "select - 1"),
            ("select -1", "select --1"),
            ("select $1", "select $-1"),
            ("select a1", "select a-1"),
            ("select 12", "select 1-2"),
            ("select 1", "select "),
            ("select 1", "select 1;"),
            ("select 1, 2", "select 1, a"),
            ("select 1;", "select 1a;"),
            ("1", "2"),
            ("", "2"),
        ] {
            assert!(
                !differ_in_numbers_only(known.as_bytes(), text.as_bytes()),
                "{known} | {text}"
            );
            assert!(
                !differ_in_numbers_only(text.as_bytes(), known.as_bytes()),
                "{text} | {known}"
            );
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut familiar = Familiar::default();
        let text = |number: usize| format!("select {}", "a".repeat(number));
        for number in 0..=TEXTS_MAX {
            familiar.scan(text(number).as_bytes());
        }
        assert!(familiar.recall(text(0).as_bytes()).is_none());
        for number in 1..=TEXTS_MAX {
            assert!(
                familiar.recall(text(number).as_bytes()).is_some(),
                "{number}"
            );
        }
    }

    proptest! {
        /// What is remembered is what a look would have found.
        #[test]
        fn it_is_what_it_was(texts in prop::collection::vec(prop::collection::vec(prop::sample::select(vec![
            "select", "Insert", "begin", "set", "t", "f", "f1", "1f", "null", "temp", "set_config", "'a1'", "'",
            "'\\'", "1", "2.5", "17", "1_0", "0x1", "$1", "$22", "$1$", "$a$", "(", ")", ";", "-", "--1", "\"q1\"",
            ".", " ", " ", "\n", "E'1'", "\0",
        ]), 0..8), 0..3), digits in prop::collection::vec(0..10u8, 0..64)) {
            let mut familiar = Familiar::default();
            for words in texts {
                let text = words.concat().into_bytes();
                familiar.scan(&text);
                // The same with other digits, of which there may be more.
                let mut digits = digits.iter();
                let mut other = Vec::new();
                for &byte in &text {
                    match byte.is_ascii_digit().then(|| digits.next()).flatten() {
                        Some(0) => other.extend([byte, byte]),
                        Some(1) => other.extend([b'-', byte]),
                        Some(digit) => other.push(b'0' + digit),
                        None => other.push(byte),
                    }
                }
                prop_assert_eq!(familiar.scan(&other), scan::scan_slowly(&other), "{}", other.escape_ascii());
            }
        }
    }
}
