//! Which statements mean the same whenever they are parsed, and whoever parses them.
//!
//! PostgreSQL makes values of the literals in a text when it parses it: `'today'` becomes this day, `'1/2/2026'` one of two by
//! the session's DateStyle, `'2026-01-02 12:00'` a moment by its TimeZone. What was parsed once for everybody would
//! keep the first one's.

use crate::residue::tokens::{Token, Tokens};

/// Words that stand for a moment, or a time of day, in literals of PostgreSQL's types for them.
const MOMENTS: [&[u8]; 5] = [b"now", b"today", b"tomorrow", b"yesterday", b"allballs"];

/// Whether that holds for the body of Parse behind the name, as far as one can see.
pub(crate) fn is_timeless(definition: &[u8]) -> bool {
    let mut tokens = Tokens::new(definition);
    let mut follows_literal = false;
    for token in tokens.by_ref() {
        let is_literal = match token {
            // One behind the other may be one, as PostgreSQL reads it.
            Token::Literal(_) if follows_literal => return false,
            Token::Literal(literal) if !is_plain(literal) => return false,
            Token::Literal(_) => true,
            Token::Word(_) | Token::Quoted(_) | Token::Number | Token::Symbol(_) => false,
        };
        follows_literal = is_literal;
    }
    !tokens.unreadable
}

/// A literal that is no date, time or amount, in whatever type: those have digits, or are words.
fn is_plain(literal: &[u8]) -> bool {
    let is_moment = |moment: &&[u8]| {
        let mut places = literal.windows(moment.len());
        places.any(|place| place.eq_ignore_ascii_case(moment))
    };
    let may_be_digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'\\';
    !literal.iter().any(may_be_digit) && !MOMENTS.iter().any(is_moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_only_parameters_numbers_and_words_is_timeless() {
        for text in [
            "select $1::timestamptz",
            "select * from t where a = $1 and b = 'active' limit 10\0\0\x01\0\0\0\x17",
            "update t set a = now(), b = current_date where c in ('x', 'y')",
            "select \"today\" from \"a'b\" where \"c'd\" = $2 -- it's 3 o'clock",
            "select e'plain' || $$plain$$",
        ] {
            assert!(is_timeless(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_may_have_a_date_a_time_or_an_amount_is_not() {
        for text in [
            "select 'today'::date",
            "select date 'Tomorrow '",
            "select * from t where at < 'NOW' and b = $1",
            "select '1/2/2026'::date",
            "select $1 < '2026-01-02 12:00'::timestamptz",
            "select interval 'P1D'",
            "select e'\\x6eow'::timestamptz, $1",
            "select u&'\\006eow'::timestamptz",
            "select $$now$$::timestamptz",
            "select $a$2026-01-01$a$::date",
            "select \"a'b\", 'now'::date, \"c'd\"",
            "select 'to'\n'day'::date",
            "select 'unfinished",
        ] {
            assert!(!is_timeless(text.as_bytes()), "{text}");
        }
    }
}
