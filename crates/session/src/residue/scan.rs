//! What the text of a query says of what it leaves in its session.
//!
//! Hot path: one pass over the text, no allocation unless a parameter is set by its name. It is no
//! parser. Where a text can mean two things, it is taken to leave more.

use super::Kinds;
use super::tokens::{Token, Tokens};

/// A parameter that a text sets or resets.
#[derive(Clone, Debug, Eq, PartialEq)]
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
    /// Functions that it calls and that are not known as PostgreSQL's, by [`name_print`].
    pub calls: Vec<u64>,
}

impl Scan {
    /// Whether there is nothing to note but its print.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.suspects.is_empty()
            && self.named.is_empty()
            && self.calls.is_empty()
            && !(self.unreadable | self.sets | self.ends | self.draws | self.reads_drawn)
    }
}

/// Scans the text of a Query, or of a Parse behind the statement's name.
pub fn scan(text: &[u8]) -> Scan {
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
        self.named.extend(body.named);
        self.calls.extend(body.calls);
        self.sets |= body.sets;
        self.ends |= body.ends;
        self.reads_drawn |= body.reads_drawn;
    }
}

fn is_literal(token: &Token<'_>) -> bool {
    matches!(token, Token::Literal(_))
}

/// A function's name as a number, whatever its case.
pub fn name_print(name: &[u8]) -> u64 {
    mix(0, &name.to_ascii_lowercase())
}

/// The statement that a FunctionCall is, by the function's OID: 0 for those on large objects, for
/// which libpq uses it.
pub fn function_print(oid: u32) -> u64 {
    match oid {
        715 | 764 | 765 | 767 | 952..=958 | 964 | 1004 | 3170..=3172 => 0,
        other => mix(1, &other.to_be_bytes()),
    }
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

struct Scanner<'a> {
    tokens: Tokens<'a>,
    scan: Scan,
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
                self.skip();
            }
            b"discard" => {
                self.scan.ends = true;
                self.scan.sets = true;
                self.leaves(Kinds::SETTINGS.and(Kinds::ROLE));
            }
            b"prepare" => match self.tokens.peek() {
                Some(Token::Word(next)) if is(next, b"transaction") => self.skip(),
                _ => {
                    self.scan.suspects.add(Kinds::PREPARED);
                    self.rest(word, true);
                }
            },
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
                self.rest(word, true);
            }
            b"drop" => {
                self.scan.ends = true;
                self.rest(word, true);
            }
            b"insert" | b"update" | b"delete" | b"merge" | b"copy" | b"call" => {
                self.scan.draws = true;
                self.rest(word, true);
            }
            _ => self.rest(word, true),
        }
    }

    fn leaves(&mut self, kinds: Kinds) {
        self.scan.suspects.add(kinds);
        self.skip();
    }

    /// Passes over the rest of a statement.
    fn skip(&mut self) {
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
                        self.scan.calls.push(name_print(last));
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
            4 if self.verb == Verb::Declare && is(word, b"hold") => {
                self.scan.suspects.add(Kinds::CURSORS);
            }
            4 | 9 if is(word, b"temp") || is(word, b"temporary") => {
                // SELECT .. INTO TEMP; everywhere else it is a name.
                if matches!(self.verb, Verb::Create | Verb::Body) || is(last, b"into") {
                    self.scan.suspects.add(Kinds::TEMPORARY);
                }
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
        if !starts(word, b"pg_advisory_") && !starts(word, b"pg_try_advisory_") {
            return;
        }
        if contains(word, b"unlock") {
            self.scan.ends = true;
        } else if !contains(word, b"_xact_") {
            self.scan.suspects.add(Kinds::LOCKS);
        }
    }

    /// `set_config('name', value, is_local)`
    fn set_config(&mut self) {
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
    fn set(&mut self) {
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
                    return self.leaves(Kinds::ROLE);
                }
                Some(Token::Word(next)) if is(next, b"characteristics") => {
                    return self.leaves(Kinds::SETTINGS);
                }
                Some(Token::Word(next)) => word = next,
                _ => {}
            }
        }
        match word {
            word if is(word, b"role") => self.leaves(Kinds::ROLE),
            word if is(word, b"time") => self.known("timezone"),
            word if is(word, b"names") => self.known("client_encoding"),
            word if is(word, b"schema") => self.known("search_path"),
            word if is(word, b"xml") => self.known("xmloption"),
            // A seed is not kept, and cannot be taken back.
            word if is(word, b"seed") => self.skip(),
            _ => self.name(false),
        }
    }

    fn reset(&mut self) {
        self.scan.sets = true;
        match self.tokens.peek() {
            Some(Token::Word(word)) if is(word, b"session") || is(word, b"role") => {
                self.leaves(Kinds::ROLE);
            }
            Some(Token::Word(word)) if is(word, b"transaction") => self.skip(),
            // Who resets everything begins anew.
            Some(Token::Word(word)) if is(word, b"all") || is(word, b"time") => {
                self.leaves(Kinds::SETTINGS);
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
        let mut name = Vec::new();
        loop {
            match self.tokens.next() {
                Some(Token::Word(part) | Token::Quoted(part)) => name.extend_from_slice(part),
                _ => {
                    name.clear();
                    break;
                }
            }
            if self.tokens.peek() != Some(Token::Symbol(b'.')) {
                break;
            }
            self.tokens.next();
            name.push(b'.');
        }
        self.sets(setting(&name), is_reset);
        self.skip();
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

    #[inline]
    fn mix(&mut self, word: &[u8]) {
        self.hash = mix(self.hash, word);
    }
}

/// The name of a parameter in lower case, if it is one that can be asked for.
fn setting(name: &[u8]) -> Option<Box<str>> {
    let is_simple = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    let simple = !name.is_empty() && name.iter().all(is_simple);
    let name = std::str::from_utf8(name).ok().filter(|_| simple)?;
    Some(name.to_ascii_lowercase().into())
}

/// Takes a word into a hash. It is never 0 behind one.
#[inline]
fn mix(hash: u64, word: &[u8]) -> u64 {
    // The fraction of the golden ratio, odd: its multiples are spread over all bits.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut hash = hash ^ (word.len() as u64).wrapping_add(1);
    for chunk in word.chunks(8) {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        let product = u128::from(hash ^ u64::from_le_bytes(bytes)) * u128::from(FACTOR);
        hash = (product as u64) ^ ((product >> 64) as u64);
    }
    hash | 1
}

/// Words that are literals: how many there are says nothing.
#[inline]
fn is_constant(word: &[u8]) -> bool {
    match word.len() {
        4 => is(word, b"null") || is(word, b"true"),
        5 => is(word, b"false"),
        7 => is(word, b"default"),
        _ => false,
    }
}

/// Words before a parenthesis that are no function, or one of PostgreSQL's that draws nothing. A
/// function of another schema with the same name is taken for PostgreSQL's.
fn is_known_call(word: &[u8]) -> bool {
    const KNOWN: &[&str] = &[
        "abs",
        "all",
        "and",
        "any",
        "array",
        "array_agg",
        "array_length",
        "as",
        "avg",
        "between",
        "bool_and",
        "bool_or",
        "by",
        "case",
        "cast",
        "ceil",
        "char",
        "coalesce",
        "concat",
        "count",
        "current_database",
        "current_schema",
        "current_setting",
        "date_part",
        "date_trunc",
        "decimal",
        "dense_rank",
        "distinct",
        "else",
        "escape",
        "every",
        "except",
        "exists",
        "exp",
        "extract",
        "fetch",
        "filter",
        "floor",
        "format",
        "from",
        "generate_series",
        "greatest",
        "having",
        "ilike",
        "in",
        "index",
        "intersect",
        "interval",
        "into",
        "json_agg",
        "json_build_object",
        "jsonb_agg",
        "jsonb_array_elements",
        "jsonb_build_object",
        "lag",
        "lateral",
        "lead",
        "least",
        "left",
        "length",
        "like",
        "limit",
        "lower",
        "max",
        "md5",
        "min",
        "not",
        "now",
        "nullif",
        "numeric",
        "offset",
        "on",
        "or",
        "over",
        "partition",
        "pg_backend_pid",
        "pg_sleep",
        "position",
        "power",
        "random",
        "rank",
        "replace",
        "right",
        "round",
        "row",
        "row_number",
        "select",
        "set_config",
        "similar",
        "sqrt",
        "string_agg",
        "substring",
        "sum",
        "then",
        "timestamp",
        "timestamptz",
        "to_char",
        "to_timestamp",
        "trim",
        "union",
        "unnest",
        "upper",
        "using",
        "values",
        "varchar",
        "version",
        "when",
        "where",
        "with",
    ];
    let mut lower = [0; 20];
    let Some(lower) = lower.get_mut(..word.len()) else {
        return false;
    };
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    KNOWN
        .binary_search_by(|known| known.as_bytes().cmp(lower))
        .is_ok()
}

#[inline]
fn is(word: &[u8], other: &[u8]) -> bool {
    word.eq_ignore_ascii_case(other)
}

#[inline]
fn starts(word: &[u8], other: &[u8]) -> bool {
    word.get(..other.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(other))
}

fn contains(word: &[u8], other: &[u8]) -> bool {
    word.windows(other.len())
        .any(|window| window.eq_ignore_ascii_case(other))
}
