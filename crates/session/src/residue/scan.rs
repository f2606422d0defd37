//! What the text of a query says of what it leaves in its session.
//!
//! Hot path: one pass over the text, no allocation unless a parameter is set by its name. It is no
//! parser. Where a text can mean two things, it is taken to leave more.

use serde::{Deserialize, Serialize};

use super::tokens::{Token, Tokens};
use super::words::{call_bit, contains, is, is_constant, is_known_call, mix, starts};
use super::{Kinds, ordinary};

/// A parameter that a text sets or resets.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Named {
    /// In lower case.
    pub name: Box<str>,
    /// Whether it goes back to what it was before the session.
    pub is_reset: bool,
}

/// What a text may leave.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Scan {
    /// The statement without its literals, as a number; 0 where nothing in it can leave anything but
    /// what stands here.
    pub print: u64,
    /// What it may leave by what it says.
    pub suspects: Kinds,
    /// What it may take back by what it says, all of it or a part.
    pub reset: Kinds,
    /// Parameters that it sets.
    pub named: Vec<Named>,
    /// Nobody knows what it means.
    pub unreadable: bool,
    /// It says SET or RESET, if only for a transaction.
    pub sets: bool,
    /// It may end what binds a server to its client.
    pub ends: bool,
    /// It may draw from a sequence.
    pub draws: bool,
    /// It asks for the last number drawn.
    pub reads_drawn: bool,
    /// It may change what other statements return: a definition is altered, dropped or replaced.
    pub alters: bool,
    /// It may name what is not the same behind a pooler: a process that is to be sent a signal, the
    /// list of prepared statements, a database that nobody may be connected to.
    pub speaks_of_own: bool,
    /// It may end what its client listens to, or asks what that is.
    pub about_channels: bool,
    /// Functions that it calls and that are not known as PostgreSQL's, a bit for each name.
    pub calls: u128,
}

impl Scan {
    /// Whether there is nothing to note but its print.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.suspects.is_empty()
            && self.reset.is_empty()
            && self.named.is_empty()
            && self.calls == 0
            && !(self.unreadable | self.sets | self.ends | self.draws)
            && !(self.reads_drawn | self.alters | self.speaks_of_own | self.about_channels)
    }
}

/// Scans the text of a Query, or of a Parse behind the statement's name.
pub fn scan(text: &[u8]) -> Scan {
    ordinary::scan(text).unwrap_or_else(|| scan_slowly(text))
}

pub(super) fn scan_slowly(text: &[u8]) -> Scan {
    let mut scanner = Scanner {
        tokens: Tokens::new(text),
        scan: Scan::default(),
        hash: 0,
        verb: Verb::Plain,
    };
    scanner.run();
    scanner.scan
}

impl Scan {
    /// What the body of a DO says. Its statements stand within others, so they are not told apart.
    fn take_in(&mut self, body: Self) {
        self.suspects.add(body.suspects);
        self.reset.add(body.reset);
        self.named.extend(body.named);
        self.calls |= body.calls;
        self.sets |= body.sets;
        self.ends |= body.ends;
        self.reads_drawn |= body.reads_drawn;
        self.about_channels |= body.about_channels;
    }
}

/// Names behind which a client may mean itself or another client.
const OWN: [&[u8]; 4] = [
    b"pg_terminate_backend",
    b"pg_cancel_backend",
    b"pg_stat_activity",
    STATEMENTS_VIEW,
];

/// The list of prepared statements.
pub(crate) const STATEMENTS_VIEW: &[u8] = b"pg_prepared_statements";

/// What is created without a change of what other statements return: there was nothing of that name,
/// or statements do not see it. Anything else may have been there before, in a transaction that was
/// rolled back.
const UNSEEN: [&[u8]; 9] = [
    b"concurrently",
    b"database",
    b"global",
    b"index",
    b"local",
    b"role",
    b"temp",
    b"temporary",
    b"unique",
];

fn is_literal(token: &Token<'_>) -> bool {
    matches!(token, Token::Literal(_))
}

/// Scans what stands in another language than SQL, with SQL in it: there a statement does not begin
/// with its verb.
fn scan_body(text: &[u8]) -> Scan {
    let mut scanner = Scanner {
        tokens: Tokens::new(text),
        scan: Scan::default(),
        hash: 0,
        verb: Verb::Body,
    };
    while scanner.tokens.peek().is_some() {
        scanner.rest(b"", true);
    }
    scanner.scan
}

/// What a statement begins with, as far as other words in it depend on that.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Verb {
    /// Nobody knows.
    Body,
    Create,
    Declare,
    Plain,
}

pub(super) struct Scanner<'a> {
    pub(super) tokens: Tokens<'a>,
    pub(super) scan: Scan,
    hash: u64,
    verb: Verb,
}

impl<'a> Scanner<'a> {
    fn run(&mut self) {
        while let Some(token) = self.tokens.next() {
            match token {
                Token::Word(word) => self.statement(word),
                Token::Symbol(b';') => {}
                // A query in parentheses.
                _ => self.rest(b"", false),
            }
        }
        self.scan.unreadable |= self.tokens.unreadable;
        self.scan.print = self.hash;
    }

    /// A statement that begins with this word, up to its semicolon.
    fn statement(&mut self, word: &'a [u8]) {
        self.verb = Verb::Plain;
        let mut lower = [0; 10];
        let Some(lower) = lower.get_mut(..word.len()) else {
            return self.rest(word, true);
        };
        lower.copy_from_slice(word);
        lower.make_ascii_lowercase();
        match &*lower {
            b"select" | b"with" | b"values" | b"table" | b"explain" => self.rest(word, false),
            b"begin" | b"start" | b"commit" | b"end" | b"rollback" | b"abort" | b"savepoint"
            | b"release" | b"show" | b"fetch" | b"move" | b"lock" | b"notify" | b"checkpoint"
            | b"load" => self.skip(),
            b"set" => self.set(),
            b"reset" => self.reset(),
            b"listen" => self.leaves(Kinds::LISTEN),
            b"unlisten" | b"close" | b"deallocate" => {
                self.scan.ends = true;
                self.scan.about_channels |= is(word, b"unlisten");
                self.skip();
            }
            b"discard" => {
                self.scan.ends = true;
                self.scan.about_channels = true;
                self.scan.sets = true;
                self.resets(Kinds::SETTINGS.union(Kinds::ROLE));
            }
            b"prepare" if self.next_is(b"transaction") => self.skip(),
            b"prepare" => {
                self.scan.suspects.add(Kinds::PREPARED);
                self.rest(word, true);
            }
            // What stands behind the name is another client's affair tomorrow.
            b"execute" => {
                self.scan.unreadable = true;
                self.scan.draws = true;
                self.skip();
            }
            b"do" => {
                self.scan.draws = true;
                // A body in quotes is what it does.
                self.mix(self.tokens.rest());
                if let Some(Token::Literal(body)) = self.tokens.clone().find(is_literal) {
                    self.scan.take_in(scan_body(body));
                }
                self.rest(word, true);
            }
            b"declare" => {
                self.verb = Verb::Declare;
                self.rest(word, false);
            }
            b"create" => {
                self.verb = Verb::Create;
                self.scan.speaks_of_own |= self.next_is(b"database");
                self.scan.alters |= !UNSEEN.iter().any(|word| self.next_is(word));
                self.rest(word, true);
            }
            b"alter" => {
                self.scan.alters = true;
                self.scan.speaks_of_own |= self.next_is(b"database");
                self.rest(word, true);
            }
            b"drop" => {
                self.scan.ends = true;
                self.scan.speaks_of_own |= self.next_is(b"database");
                self.scan.alters = true;
                self.rest(word, true);
            }
            b"insert" | b"update" | b"delete" | b"merge" | b"copy" | b"call" => {
                self.scan.draws = true;
                self.rest(word, true);
            }
            _ => self.rest(word, true),
        }
    }

    pub(super) fn next_is(&self, word: &[u8]) -> bool {
        matches!(self.tokens.peek(), Some(Token::Word(next)) if is(next, word))
    }

    pub(super) fn leaves(&mut self, kinds: Kinds) {
        self.scan.suspects.add(kinds);
        self.skip();
    }

    pub(super) fn resets(&mut self, kinds: Kinds) {
        self.scan.reset.add(kinds);
        self.skip();
    }

    /// Passes over the rest of a statement.
    pub(super) fn skip(&mut self) {
        for token in self.tokens.by_ref() {
            if token == Token::Symbol(b';') {
                return;
            }
        }
    }

    /// Takes the rest of a statement into its print. One that has nothing but literals and PostgreSQL's
    /// own functions behind its verb leaves nothing, unless the verb itself does.
    fn rest(&mut self, verb: &[u8], verb_counts: bool) {
        let before = self.hash;
        let mut counted = verb_counts;
        self.mix(verb);
        let mut last: &[u8] = b"";
        while let Some(token) = self.tokens.next() {
            let is_call = token == Token::Symbol(b'(') && !last.is_empty() && is_known_call(last);
            counted |= !last.is_empty() && !is_call;
            match token {
                Token::Word(word) => {
                    if is_constant(word) {
                        last = b"";
                        continue;
                    }
                    self.mix(word);
                    self.word(word, last);
                    last = word;
                }
                Token::Quoted(word) => {
                    counted = true;
                    self.mix(word);
                    self.word(word, b"");
                    last = word;
                }
                Token::Symbol(b';') => break,
                Token::Symbol(b'(') if !last.is_empty() => {
                    if !is_call {
                        self.scan.draws = true;
                        self.scan.calls |= call_bit(last);
                    }
                    last = b"";
                }
                Token::Symbol(b',' | b'(' | b')' | b'.' | b'*' | b'-' | b'+') => last = b"",
                Token::Symbol(operator) => {
                    counted = true;
                    self.mix(&[operator]);
                    last = b"";
                }
                Token::Literal(_) | Token::Number => last = b"",
            }
        }
        if !counted && last.is_empty() {
            self.hash = before;
        }
    }

    /// A word within a statement, and the one right before it.
    #[inline]
    fn word(&mut self, word: &'a [u8], last: &[u8]) {
        match word.len() {
            3 if self.verb == Verb::Body && is(word, b"set") => self.set_in_body(),
            4 if self.verb == Verb::Declare && is(word, b"hold") => {
                self.scan.suspects.add(Kinds::CURSORS);
            }
            // SELECT .. INTO TEMP; everywhere else it is a name.
            4 | 9
                if (is(word, b"temp") || is(word, b"temporary"))
                    && (matches!(self.verb, Verb::Create | Verb::Body) || is(last, b"into")) =>
            {
                self.scan.suspects.add(Kinds::TEMPORARY);
            }
            5.. => self.long_word(word),
            _ => {}
        }
    }

    #[inline]
    fn long_word(&mut self, word: &'a [u8]) {
        match word[0] {
            b'p' | b'P' if starts(word, b"pg_") => self.system_word(word),
            b's' | b'S' if is(word, b"set_config") => self.set_config(),
            b's' | b'S' if is(word, b"setval") => self.scan.draws = true,
            b'n' | b'N' if is(word, b"nextval") => self.scan.draws = true,
            b'c' | b'C' if is(word, b"currval") => self.scan.reads_drawn = true,
            b'l' | b'L' if is(word, b"lastval") => self.scan.reads_drawn = true,
            b'l' | b'L' if self.verb == Verb::Body && is(word, b"listen") => {
                self.scan.suspects.add(Kinds::LISTEN);
            }
            b'u' | b'U' if self.verb == Verb::Body && is(word, b"unlisten") => {
                self.scan.about_channels = true;
            }
            b'i' | b'I' if is(word, b"insert") => self.scan.draws = true,
            b'u' | b'U' if is(word, b"update") => self.scan.draws = true,
            b'd' | b'D' if is(word, b"delete") => self.scan.draws = true,
            b'm' | b'M' if is(word, b"merge") => self.scan.draws = true,
            b'e' | b'E' if is(word, b"execute") => self.scan.draws = true,
            _ => {}
        }
    }

    fn system_word(&mut self, word: &[u8]) {
        if starts(word, b"pg_temp") {
            self.scan.suspects.add(Kinds::TEMPORARY);
        }
        self.scan.about_channels |= is(word, b"pg_listening_channels");
        self.scan.speaks_of_own |= OWN.iter().any(|own| is(word, own));
        if !starts(word, b"pg_advisory_") && !starts(word, b"pg_try_advisory_") {
            return;
        }
        if contains(word, b"unlock") {
            self.scan.ends = true;
        } else if !contains(word, b"_xact_") {
            self.scan.suspects.add(Kinds::LOCKS);
        }
    }

    #[inline]
    fn mix(&mut self, word: &[u8]) {
        self.hash = mix(self.hash, word);
    }
}
