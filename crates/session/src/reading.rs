//! How the literals of a statement are read.
//!
//! PostgreSQL makes values of the literals in a text when it parses it: `'today'` becomes this day, `'1/2/2026'` one of two by
//! the session's DateStyle, `'2026-01-02 12:00'` a moment by its TimeZone. What is parsed once for several clients
//! must be read in the same way for all of them.

use std::hash::{BuildHasher as _, Hash as _, Hasher as _};

use foldhash::fast::FixedState;

use crate::params::{Tracked, Values};
use crate::residue::tokens::{Token, Tokens};
use crate::spoken::text_of;

/// How a statement reads its literals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reading {
    /// Always in the same way.
    Fixed,
    /// As the parameters of its session say, of which this is a print.
    Under(u64),
    /// As of the moment when it is parsed.
    Once,
}

/// Words that stand for a moment, or a time of day, in literals of PostgreSQL's types for them.
const MOMENTS: [&[u8]; 5] = [b"now", b"today", b"tomorrow", b"yesterday", b"allballs"];

impl Reading {
    /// Of the body of Parse behind the name, in a session with these parameters, as far as one can see.
    pub(crate) fn of(definition: &[u8], values: &Values, tracked: &Tracked) -> Self {
        match Self::unless_told(definition) {
            Some(reading) => reading,
            None => Self::Under(print(values, tracked)),
        }
    }

    /// `None`: it depends on the session.
    pub(crate) fn unless_told(definition: &[u8]) -> Option<Self> {
        let text = text_of(definition);
        let is_ascii = text.is_ascii();
        if is_ascii && !may_have_literals(text) {
            return Some(Self::Fixed);
        }
        match told_by(text) {
            Told::Nothing if is_ascii => Some(Self::Fixed),
            // The other bytes are letters of some encoding.
            Told::Nothing | Told::Session => None,
            Told::Moment => Some(Self::Once),
        }
    }

    /// Whether it is read in this way by whoever parses it in a session with these parameters.
    pub(crate) fn holds_under(self, values: &Values, tracked: &Tracked) -> bool {
        match self {
            Self::Fixed | Self::Once => true,
            Self::Under(known) => known == print(values, tracked),
        }
    }
}

/// The parameters that say how a text is read: what a session reports, but for its name.
fn print(values: &Values, tracked: &Tracked) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    for (index, name) in tracked.names().enumerate() {
        if name != "application_name" {
            values.get(index).hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// What a text, or a literal in it, takes its meaning from.
#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Told {
    Nothing,
    Session,
    Moment,
}

/// A quick look: most texts of drivers have parameters only.
fn may_have_literals(text: &[u8]) -> bool {
    let mut rest = text.iter().peekable();
    while let Some(byte) = rest.next() {
        let begins = match byte {
            b'\'' => true,
            b'$' => !rest.peek().is_some_and(|next| next.is_ascii_digit()),
            _ => false,
        };
        if begins {
            return true;
        }
    }
    false
}

fn told_by(text: &[u8]) -> Told {
    let mut tokens = Tokens::new(text);
    let (mut told, mut literal) = (Told::Nothing, Vec::new());
    for token in tokens.by_ref() {
        match token {
            // One behind the other may be one, as PostgreSQL reads it.
            Token::Literal(part) => literal.extend_from_slice(part),
            Token::Word(_) | Token::Quoted(_) | Token::Number | Token::Symbol(_) => {
                told = told.max(told_by_literal(&literal));
                literal.clear();
            }
        }
    }
    match tokens.unreadable {
        true => Told::Moment,
        false => told.max(told_by_literal(&literal)),
    }
}

/// Dates, times and amounts have digits, or are such words.
fn told_by_literal(literal: &[u8]) -> Told {
    let mut words = literal.split(|byte| !byte.is_ascii_alphabetic());
    let is_moment = |word: &[u8]| {
        let mut moments = MOMENTS.iter();
        moments.any(|moment| word.eq_ignore_ascii_case(moment))
    };
    let may_be_read = |byte: &u8| byte.is_ascii_digit() || *byte == b'\\';
    match literal.iter().any(may_be_read) {
        _ if words.any(is_moment) => Told::Moment,
        true => Told::Session,
        false => Told::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Option<Reading> {
        Reading::unless_told(text.as_bytes())
    }

    #[test]
    fn parameters_numbers_and_words_mean_the_same_to_everybody() {
        for text in [
            "select $1::timestamptz",
            "select * from t where a = $1 and b = 'active' limit 10\0\0\x01\0\0\0\x17",
            "update t set a = now(), b = current_date where c in ('x', 'unknown')",
            "select \"today\" from \"a'b\" where \"c'd\" = $2 -- it's 3 o'clock",
            "select e'plain' || $$plain$$ || 'it''s'",
        ] {
            assert_eq!(told(text), Some(Reading::Fixed), "{text}");
        }
    }

    #[test]
    fn what_may_be_a_date_a_time_or_an_amount_is_the_sessions() {
        for text in [
            "select '1/2/2026'::date",
            "select $1 < '2026-01-02 12:00'::timestamptz",
            "select interval 'P1D'",
            "select $a$2026-01-01$a$::date",
            "select 'a\\b'",
            "select 'é'",
        ] {
            assert_eq!(told(text), None, "{text}");
        }
    }

    #[test]
    fn what_may_be_a_moment_is_only_once() {
        for text in [
            "select 'today'::date",
            "select date 'Tomorrow '",
            "select * from t where at < 'NOW' and b = '2026-01-01'",
            "select $$now$$::timestamptz",
            "select 'today 12:00'::timestamp",
            "select \"a'b\", 'now'::date, \"c'd\"",
            "select 'to'\n'day'::date",
            "select 'unfinished",
        ] {
            assert_eq!(told(text), Some(Reading::Once), "{text}");
        }
    }

    #[test]
    fn parameters_that_are_read_by_differ_but_for_the_applications_name() {
        let tracked = Tracked::new([]);
        let mut values = Values::default();
        let reading = |values: &Values| Reading::of(b"select '1/2/2026'::date\0", values, &tracked);
        let none = reading(&values);
        values.set(tracked.index("application_name").unwrap(), "a");
        assert_eq!(reading(&values), none);
        values.set(tracked.index("DateStyle").unwrap(), "ISO, DMY");
        assert_ne!(reading(&values), none);
        assert!(!none.holds_under(&values, &tracked));
    }
}
