//! SET, RESET and `set_config()`: which parameters a text sets.

use super::Kinds;
use super::scan::{Named, Scanner};
use super::tokens::{Token, Tokens};
use super::words::{is, setting};

impl Scanner<'_> {
    /// `set_config('name', value, is_local)`
    pub(super) fn set_config(&mut self) {
        self.scan.sets = true;
        let mut ahead = self.tokens.clone();
        let name = match (ahead.next(), ahead.next(), ahead.next()) {
            (Some(Token::Symbol(b'(')), Some(Token::Literal(name)), Some(Token::Symbol(b','))) => {
                setting(name)
            }
            _ => None,
        };
        let is_local = match (ahead.next(), ahead.next(), ahead.next(), ahead.next()) {
            (
                Some(Token::Literal(_) | Token::Number),
                Some(Token::Symbol(b',')),
                Some(Token::Word(local)),
                Some(Token::Symbol(b')')),
            ) => is(local, b"true"),
            _ => false,
        };
        if !is_local {
            self.sets(name, false);
        }
    }

    /// What stands behind SET.
    pub(super) fn set(&mut self) {
        self.scan.sets = true;
        let Some(Token::Word(mut word)) = self.tokens.peek() else {
            return self.name(false);
        };
        if is(word, b"local") || is(word, b"transaction") || is(word, b"constraints") {
            return self.skip();
        }
        if is(word, b"session") {
            self.tokens.next();
            match self.tokens.peek() {
                Some(Token::Word(next)) if is(next, b"authorization") => {
                    self.tokens.next();
                    return self.rights(b"default");
                }
                Some(Token::Word(next)) if is(next, b"characteristics") => {
                    return self.leaves(Kinds::SETTINGS);
                }
                Some(Token::Word(next)) => word = next,
                _ => {}
            }
        }
        match word {
            word if is(word, b"role") => {
                self.tokens.next();
                self.rights(b"none");
            }
            word if is(word, b"time") => self.known("timezone"),
            word if is(word, b"names") => self.known("client_encoding"),
            word if is(word, b"schema") => self.known("search_path"),
            word if is(word, b"xml") => self.known("xmloption"),
            // A seed is not kept, and cannot be taken back.
            word if is(word, b"seed") => self.skip(),
            _ => self.name(false),
        }
    }

    /// What stands behind SET ROLE or SET SESSION AUTHORIZATION; one word takes it back.
    fn rights(&mut self, own: &[u8]) {
        match self.tokens.peek() {
            Some(Token::Word(word)) if is(word, own) => self.resets(Kinds::ROLE),
            _ => self.leaves(Kinds::ROLE),
        }
    }

    pub(super) fn reset(&mut self) {
        self.scan.sets = true;
        match self.tokens.peek() {
            Some(Token::Word(word)) if is(word, b"session") || is(word, b"role") => {
                self.resets(Kinds::ROLE);
            }
            Some(Token::Word(word)) if is(word, b"transaction") => self.skip(),
            // Who resets everything begins anew.
            Some(Token::Word(word)) if is(word, b"all") || is(word, b"time") => {
                self.resets(Kinds::SETTINGS);
            }
            _ => self.name(true),
        }
    }

    fn known(&mut self, name: &str) {
        self.scan.named.push(Named {
            name: name.into(),
            is_reset: false,
        });
        self.skip();
    }

    /// The name of a parameter, and the rest of the statement.
    fn name(&mut self, is_reset: bool) {
        let name = parameter(&mut self.tokens);
        self.sets(name, is_reset);
        self.skip();
    }

    /// What stands behind SET in a body. That may be an UPDATE's, but only a parameter with a dot has to be known by
    /// its name, and to ask for one that is none does no harm.
    pub(super) fn set_in_body(&mut self) {
        let mut ahead = self.tokens.clone();
        if self.next_is(b"session") {
            ahead.next();
        }
        if let Some(name) = parameter(&mut ahead).filter(|name| name.contains('.')) {
            self.sets(Some(name), false);
        }
    }

    fn sets(&mut self, name: Option<Box<str>>, is_reset: bool) {
        match name {
            Some(name) if matches!(&*name, "role" | "session_authorization") => {
                self.scan.suspects.add(Kinds::ROLE);
            }
            Some(name) => self.scan.named.push(Named { name, is_reset }),
            None => self.scan.unreadable = true,
        }
    }
}

/// The name of a parameter that stands next.
fn parameter(tokens: &mut Tokens<'_>) -> Option<Box<str>> {
    let mut name = Vec::new();
    loop {
        let (Token::Word(part) | Token::Quoted(part)) = tokens.next()? else {
            return None;
        };
        name.extend_from_slice(part);
        if tokens.peek() != Some(Token::Symbol(b'.')) {
            return setting(&name);
        }
        tokens.next();
        name.push(b'.');
    }
}
