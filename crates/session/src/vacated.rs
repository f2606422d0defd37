//! Databases to which nobody may be connected while a command runs.

use pgweir_wire::tag::frontend as tag;
use pgweir_wire::{HEADER_LEN, Header};

use crate::residue::tokens::{Token, Tokens};

/// The database that a Query or Parse drops, changes or copies; `None` if it does not begin with such a
/// command.
pub fn vacated(messages: &[u8]) -> Option<String> {
    let header = Header::peek(messages, u32::MAX).ok().flatten()?;
    let body = messages.get(HEADER_LEN..header.frame_len())?;
    let text = match header.tag {
        tag::QUERY => body,
        tag::PARSE => &body[body.iter().position(|&byte| byte == 0)? + 1..],
        _ => return None,
    };
    let mut tokens = Tokens::new(text);
    let verb = word(&mut tokens)?;
    if word(&mut tokens)? != "database" {
        return None;
    }
    let name = name(&mut tokens)?;
    match &*verb {
        "drop" if name == "if" => {
            word(&mut tokens)?;
            self::name(&mut tokens)
        }
        "drop" | "alter" => Some(name),
        "create" => Some(template(&mut tokens).unwrap_or_else(|| "template1".to_owned())),
        _ => None,
    }
}

fn word(tokens: &mut Tokens<'_>) -> Option<String> {
    match tokens.next()? {
        Token::Word(word) => Some(String::from_utf8_lossy(word).to_ascii_lowercase()),
        _ => None,
    }
}

fn name(tokens: &mut Tokens<'_>) -> Option<String> {
    match tokens.next()? {
        Token::Word(word) => Some(String::from_utf8_lossy(word).to_ascii_lowercase()),
        Token::Quoted(name) => Some(String::from_utf8_lossy(name).into_owned()),
        _ => None,
    }
}

fn template(tokens: &mut Tokens<'_>) -> Option<String> {
    let is_template =
        |token: Token<'_>| matches!(token, Token::Word(w) if w.eq_ignore_ascii_case(b"template"));
    tokens.find(|token| is_template(*token))?;
    if tokens.peek() == Some(Token::Symbol(b'=')) {
        tokens.next();
    }
    name(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::frame;

    fn database(sql: &str) -> Option<String> {
        vacated(&frame(tag::QUERY, sql.as_bytes()))
    }

    #[test]
    fn nobody_may_be_connected_to_what_is_dropped_or_copied() {
        for (sql, expected) in [
            ("DROP DATABASE a", "a"),
            ("drop database if exists \"A b\" with (force)", "A b"),
            ("ALTER DATABASE A RENAME TO b;\0", "a"),
            ("create database a", "template1"),
            (
                "create database a owner b template = C encoding 'UTF8'",
                "c",
            ),
        ] {
            assert_eq!(database(sql).as_deref(), Some(expected), "{sql}");
        }
        for sql in ["drop table a", "create index on database (a)", "", "drop"] {
            assert_eq!(database(sql), None, "{sql}");
        }
    }
}
