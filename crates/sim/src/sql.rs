//! The small language that fake clients and the fake PostgreSQL speak, and what SET changes.
//!
//! A statement ends with a [`Token`] that says whose it is. In an extended query the token is the
//! parameter of Bind, so that equal statements are equal for all clients.

use std::fmt;

use pgweir_session::Tracked;
use pgweir_session::params::literal;

/// Whose statement it is, and which one of his.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Token {
    /// The client.
    pub client: usize,
    /// Counts the client's statements.
    pub seq: u32,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "@{}.{}", self.client, self.seq)
    }
}

impl Token {
    /// Reads `@client.seq`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (client, seq) = text.strip_prefix('@')?.split_once('.')?;
        Some(Self {
            client: client.parse().ok()?,
            seq: seq.parse().ok()?,
        })
    }
}

/// A statement.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    /// So many rows; the second number only makes statements differ.
    Select(u32, u32),
    /// One row after so many microseconds.
    Sleep(u64),
    /// BEGIN
    Begin,
    /// COMMIT
    Commit,
    /// ROLLBACK
    Rollback,
    /// An error when it is executed.
    Fail,
    /// An error when it is parsed.
    Syntax,
    /// SET of the parameter at an index of [`Tracked::ALWAYS`].
    Set(usize, String),
    /// COPY FROM STDIN
    CopyIn,
    /// COPY FROM STDIN that fails before it has read anything.
    CopyInRefused,
    /// COPY TO STDOUT with so many rows.
    CopyOut(u32),
    /// DISCARD ALL
    DiscardAll,
    /// DEALLOCATE ALL
    DeallocateAll,
    /// Nothing.
    Empty,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Select(rows, kind) => write!(f, "SELECT {rows} {kind}"),
            Self::Sleep(us) => write!(f, "SLEEP {us}"),
            Self::Begin => f.write_str("BEGIN"),
            Self::Commit => f.write_str("COMMIT"),
            Self::Rollback => f.write_str("ROLLBACK"),
            Self::Fail => f.write_str("FAIL"),
            Self::Syntax => f.write_str("SYNTAX"),
            Self::Set(index, value) => {
                write!(f, "SET {}={}", Tracked::ALWAYS[*index], literal(value))
            }
            Self::CopyIn => f.write_str("COPYIN"),
            Self::CopyInRefused => f.write_str("COPYINREFUSED"),
            Self::CopyOut(rows) => write!(f, "COPYOUT {rows}"),
            Self::DiscardAll => f.write_str("DISCARD ALL"),
            Self::DeallocateAll => f.write_str("DEALLOCATE ALL"),
            Self::Empty => Ok(()),
        }
    }
}

impl Op {
    /// Reads a statement without its token; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        Some(match (verb, rest) {
            ("SELECT", _) => {
                let (rows, kind) = rest.split_once(' ')?;
                Self::Select(rows.parse().ok()?, kind.parse().ok()?)
            }
            ("SLEEP", _) => Self::Sleep(rest.parse().ok()?),
            ("BEGIN", _) => Self::Begin,
            ("COMMIT", _) => Self::Commit,
            ("ROLLBACK", _) => Self::Rollback,
            ("FAIL", _) => Self::Fail,
            ("SYNTAX", _) => Self::Syntax,
            ("SET", _) => {
                let (name, value) = rest.split_once('=')?;
                let mut names = Tracked::ALWAYS.iter();
                let index = names.position(|known| *known == name)?;
                Self::Set(index, unquote(value)?)
            }
            ("COPYIN", _) => Self::CopyIn,
            ("COPYINREFUSED", _) => Self::CopyInRefused,
            ("COPYOUT", _) => Self::CopyOut(rest.parse().ok()?),
            ("DISCARD", "ALL") => Self::DiscardAll,
            ("DEALLOCATE", "ALL") => Self::DeallocateAll,
            ("", "") => Self::Empty,
            _ => return None,
        })
    }

    /// The command tag of its CommandComplete; `None` where there is none.
    pub(crate) fn tag(&self) -> Option<String> {
        Some(match self {
            Self::Select(rows, _) => format!("SELECT {rows}"),
            Self::Sleep(_) => "SELECT 1".to_owned(),
            Self::Begin => "BEGIN".to_owned(),
            Self::Commit => "COMMIT".to_owned(),
            Self::Rollback => "ROLLBACK".to_owned(),
            Self::Set(..) => "SET".to_owned(),
            Self::CopyIn | Self::CopyInRefused => "COPY".to_owned(),
            Self::CopyOut(rows) => format!("COPY {rows}"),
            Self::DiscardAll => "DISCARD ALL".to_owned(),
            Self::DeallocateAll => "DEALLOCATE ALL".to_owned(),
            Self::Fail | Self::Syntax | Self::Empty => return None,
        })
    }

    /// How many rows it gives, if it gives rows.
    pub(crate) fn rows(&self) -> Option<u32> {
        match self {
            Self::Select(rows, _) => Some(*rows),
            Self::Sleep(_) => Some(1),
            Self::Begin
            | Self::Commit
            | Self::Rollback
            | Self::Fail
            | Self::Syntax
            | Self::Set(..)
            | Self::CopyIn
            | Self::CopyInRefused
            | Self::CopyOut(_)
            | Self::DiscardAll
            | Self::DeallocateAll
            | Self::Empty => None,
        }
    }
}

/// Cuts a query text into statements and their tokens.
pub(crate) fn statements(text: &str) -> Vec<(String, Option<Token>)> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (one, more) = rest.split_at(end_of_statement(rest));
        found.push(split_token(one.trim()));
        rest = more.trim_start_matches(';').trim();
    }
    if found.is_empty() {
        found.push((String::new(), None));
    }
    found
}

/// The statement and its token.
pub(crate) fn split_token(text: &str) -> (String, Option<Token>) {
    match text.rsplit_once(' ') {
        Some((head, last)) => match Token::parse(last) {
            Some(token) => (head.to_owned(), Some(token)),
            None => (text.to_owned(), None),
        },
        None => match Token::parse(text) {
            Some(token) => (String::new(), Some(token)),
            None => (text.to_owned(), None),
        },
    }
}

fn end_of_statement(text: &str) -> usize {
    let (mut quoted, mut escaping, mut skip) = (false, false, false);
    let mut before = ' ';
    for (at, character) in text.char_indices() {
        match character {
            _ if skip => skip = false,
            '\\' if quoted && escaping => skip = true,
            '\'' => {
                escaping = if quoted { escaping } else { before == 'E' };
                quoted = !quoted;
            }
            ';' if !quoted => return at,
            _ => {}
        }
        before = character;
    }
    text.len()
}

/// What a string literal says; `None` if it is none.
fn unquote(text: &str) -> Option<String> {
    let (escaping, quoted) = match text.strip_prefix('E') {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let inner = quoted.strip_prefix('\'')?.strip_suffix('\'')?;
    let mut value = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' if characters.next() != Some('\'') => return None,
            '\\' if escaping => value.push(characters.next()?),
            other => value.push(other),
        }
    }
    Some(value)
}

/// The tracked parameters of a session, with what a rollback brings back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Settings {
    now: Vec<String>,
    saved: Option<Vec<String>>,
}

impl Default for Settings {
    fn default() -> Self {
        let boot = ["ISO, MDY", "UTF8", "GMT", "on", ""];
        Self {
            now: boot.map(str::to_owned).to_vec(),
            saved: None,
        }
    }
}

impl Settings {
    /// A parameter's value.
    pub(crate) fn get(&self, index: usize) -> &str {
        &self.now[index]
    }

    /// A transaction begins, unless one is open.
    pub(crate) fn begin(&mut self) {
        self.saved.get_or_insert_with(|| self.now.clone());
    }

    /// SET; the server spells some values in its own way.
    pub(crate) fn set(&mut self, index: usize, value: &str) {
        self.now[index] = match (Tracked::ALWAYS[index], value) {
            ("DateStyle", "ISO") => "ISO, MDY".to_owned(),
            ("DateStyle", "German") => "German, DMY".to_owned(),
            ("client_encoding", _) => value.to_uppercase(),
            _ => value.to_owned(),
        };
    }

    /// The transaction is over.
    pub(crate) fn commit(&mut self) {
        self.saved = None;
    }

    /// The transaction never was.
    pub(crate) fn roll_back(&mut self) {
        if let Some(saved) = self.saved.take() {
            self.now = saved;
        }
    }

    /// RESET ALL
    pub(crate) fn reset(&mut self) {
        self.now = Self::default().now;
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.now.join("|"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_survive_a_round_trip() {
        let ops = [
            Op::Select(3, 4),
            Op::Set(4, r"it's; a\test".to_owned()),
            Op::DiscardAll,
        ];
        let token = Token { client: 3, seq: 14 };
        let text: String = ops.iter().map(|op| format!("{op} {token};")).collect();
        let read: Vec<_> = statements(&text)
            .into_iter()
            .map(|(text, token)| (Op::parse(&text), token))
            .collect();
        let written: Vec<_> = ops.into_iter().map(|op| (Some(op), Some(token))).collect();
        assert_eq!(read, written);
    }

    #[test]
    fn a_rollback_brings_old_values_back() {
        let mut settings = Settings::default();
        settings.begin();
        settings.set(2, "Asia/Tokyo");
        settings.roll_back();
        assert_eq!(settings, Settings::default());
    }
}
