//! PgBouncer's `auth_file`: who has which secret.
//!
//! ```text
//! ; comment
//! "user" "secret"
//! "with ""quotes""" "SCRAM-SHA-256$4096:..."
//! "changing" "new secret" also "old secret"
//! ```
//!
//! `also` gives a user a second secret, for as long as a password is being changed: both let clients
//! in. Anything else between user and secret, or behind the secret on its line, is ignored, and
//! PgBouncer ignores that as well; a third text alone was a date in old files and must not become a
//! password. As in PgBouncer, reading stops at the first entry that is broken, and what was read
//! before it counts; the last entry of a name wins.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use thiserror::Error;

use crate::secret::{BadPassword, Password, Secret};

/// The longest user name, PgBouncer's limit. Counted as written, with quotes doubled.
pub const USER_BYTES_MAX: usize = 127;

/// Users and their secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserList {
    /// By bytes: a name need not be UTF-8, although no such user can log in.
    users: HashMap<Vec<u8>, Entry, RandomState>,
}

/// What a user is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    secret: Secret,
    second: Option<Secret>,
}

/// What stands before a second secret.
const ALSO: &[u8] = b"also";

/// Where and why reading has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("auth file line {line}: {kind}; this entry and all that follow are ignored")]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProblemKind {
    /// An entry, or its secret, does not begin with a quote.
    #[error("broken auth file (expected \"user\" \"secret\", both in double quotes)")]
    NoQuote,
    /// The file ends inside quotes.
    #[error("broken auth file (a double quote is not closed)")]
    OpenQuote,
    /// The name of the user is too long.
    #[error("username too long in auth file ({0} bytes, at most {USER_BYTES_MAX})")]
    UserTooLong(usize),
    /// The secret is too long.
    #[error("password too long in auth file ({0} bytes, at most {max})", max = Password::MAX_BYTES)]
    SecretTooLong(usize),
    /// A zero byte, which no password can have.
    #[error("broken auth file (it contains a zero byte)")]
    ZeroByte,
}

impl UserList {
    /// Reads a file's content up to its first problem.
    pub fn parse(text: &[u8]) -> (Self, Option<Problem>) {
        let mut list = Self::default();
        let mut cursor = Cursor { text, line: 1 };
        let problem = loop {
            match cursor.entry() {
                Ok(Some((user, entry))) => {
                    list.users.insert(user, entry);
                }
                Ok(None) => break None,
                Err(kind) => {
                    break Some(Problem {
                        line: cursor.line,
                        kind,
                    });
                }
            }
        };
        (list, problem)
    }

    /// The secret of this user.
    pub fn secret(&self, user: &str) -> Option<&Secret> {
        self.users.get(user.as_bytes()).map(|entry| &entry.secret)
    }

    /// The same, and the secret that counts as well.
    pub fn secrets(&self, user: &str) -> (Option<&Secret>, Option<&Secret>) {
        let entry = self.users.get(user.as_bytes());
        let second = entry.and_then(|entry| entry.second.as_ref());
        (entry.map(|entry| &entry.secret), second)
    }

    /// All users whose names are text, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.users
            .iter()
            .filter_map(|(user, entry)| Some((std::str::from_utf8(user).ok()?, &entry.secret)))
    }

    /// How many users there are.
    pub fn len(&self) -> usize {
        self.users.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

/// What is still unread, and the line on which it begins.
struct Cursor<'a> {
    text: &'a [u8],
    line: usize,
}

impl<'a> Cursor<'a> {
    fn entry(&mut self) -> Result<Option<(Vec<u8>, Entry)>, ProblemKind> {
        self.skip(is_blank);
        while self.text.first() == Some(&b';') {
            self.skip(is_in_line);
            self.skip(is_blank);
        }
        if self.text.is_empty() {
            return Ok(None);
        }
        let user = self.quoted()?;
        if user.len() > USER_BYTES_MAX {
            return Err(ProblemKind::UserTooLong(user.len()));
        }
        // Whatever stands between them. But not over the end of the line: a user without secret must
        // not get the next user's name.
        self.skip(|b| is_in_line(b) && *b != b'"');
        let secret = self.secret()?;
        self.skip(|b| is_blank(b) && *b != b'\n');
        let second = match self.text.strip_prefix(ALSO) {
            Some(rest) if rest.first().is_some_and(|b| is_blank(b) || *b == b'"') => {
                self.advance(ALSO.len());
                self.skip(|b| is_blank(b) && *b != b'\n');
                Some(self.secret()?)
            }
            Some(_) | None => None,
        };
        self.skip(is_in_line);
        Ok(Some((unquote(user), Entry { secret, second })))
    }

    fn secret(&mut self) -> Result<Secret, ProblemKind> {
        let secret = self.quoted()?;
        if secret.len() > Password::MAX_BYTES {
            return Err(ProblemKind::SecretTooLong(secret.len()));
        }
        Secret::parse(&unquote(secret)).map_err(|bad| match bad {
            BadPassword::TooLong(bytes) => ProblemKind::SecretTooLong(bytes),
            BadPassword::ContainsZero => ProblemKind::ZeroByte,
        })
    }

    /// The text between two quotes, in which quotes are still doubled.
    fn quoted(&mut self) -> Result<&'a [u8], ProblemKind> {
        let inner = self.text.strip_prefix(b"\"").ok_or(ProblemKind::NoQuote)?;
        let mut end = 0;
        loop {
            match inner.get(end..).unwrap_or_default() {
                [b'"', b'"', ..] => end += 2,
                [b'"', ..] => break,
                [_, ..] => end += 1,
                [] => return Err(ProblemKind::OpenQuote),
            }
        }
        // Both quotes count.
        self.advance(end + 2);
        let (quoted, _) = inner.split_at(end);
        Ok(quoted)
    }

    fn skip(&mut self, passes: impl Fn(&u8) -> bool) {
        self.advance(self.text.iter().take_while(|b| passes(b)).count());
    }

    fn advance(&mut self, bytes: usize) {
        let (passed, rest) = self.text.split_at(bytes);
        self.line += passed.iter().filter(|b| **b == b'\n').count();
        self.text = rest;
    }
}

fn is_blank(byte: &u8) -> bool {
    byte.is_ascii_whitespace() || *byte == 0x0b
}

fn is_in_line(byte: &u8) -> bool {
    *byte != b'\n'
}

fn unquote(quoted: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(quoted.len());
    let mut bytes = quoted.iter();
    while let Some(byte) = bytes.next() {
        text.push(*byte);
        if *byte == b'"' {
            bytes.next();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(text: &str) -> Secret {
        Secret::Plain(Password::new(text).unwrap())
    }

    fn problem(text: &[u8]) -> Option<Problem> {
        UserList::parse(text).1
    }

    #[test]
    fn reads_users_comments_and_quotes() {
        let text = b"; \"no\" \"body\"\n\n\"anna\" \"one\" rest \"is\" ignored\n\
            \t\"b\"\"ob\"\t\"t\"\"wo\"\n\"empty\" \"\"";
        let (list, problem) = UserList::parse(text);
        assert_eq!(problem, None);
        assert_eq!(list.len(), 3);
        assert_eq!(list.secret("anna"), Some(&plain("one")));
        assert_eq!(list.secret("b\"ob"), Some(&plain("t\"wo")));
        assert_eq!(list.secret("empty"), Some(&plain("")));
        assert_eq!(list.secret("no"), None);
    }

    #[test]
    fn anything_may_stand_between_user_and_secret() {
        let (list, problem) = UserList::parse(b"\"a\", \"1\"\n\"b\": \"2\"\n\"c\" = \"3\"\n");
        assert_eq!(problem, None);
        for (user, secret) in [("a", "1"), ("b", "2"), ("c", "3")] {
            assert_eq!(list.secret(user), Some(&plain(secret)));
        }
    }

    #[test]
    fn a_second_secret_stands_behind_also() {
        let text = b"\"a\" \"new\" also \"old\" rest\n\"b\" \"md5x\" \"infinity\"\n\"c\" \"1\" alsoran \"2\"\n";
        let (list, problem) = UserList::parse(text);
        assert_eq!(problem, None);
        assert_eq!(list.secret("a"), Some(&plain("new")));
        assert_eq!(list.secrets("a").1, Some(&plain("old")));
        assert_eq!(list.secrets("b").1, None);
        assert_eq!(list.secrets("c").1, None);
        let broken = UserList::parse(b"\"a\" \"new\" also old\n").1;
        let kind = ProblemKind::NoQuote;
        assert_eq!(broken, Some(Problem { line: 1, kind }));
    }

    #[test]
    fn the_last_entry_of_a_name_wins() {
        let (list, _) = UserList::parse(b"\"a\" \"1\"\n\"a\" \"2\"\n");
        assert_eq!(list.secret("a"), Some(&plain("2")));
    }

    #[test]
    fn stops_at_the_first_broken_entry_and_says_where() {
        for (bad, kind) in [
            ("bob \"two\"", ProblemKind::NoQuote),
            ("\"bob\" two", ProblemKind::NoQuote),
            ("\"bob\"\n\"carl\" \"three\"", ProblemKind::NoQuote),
            ("\"bob\"\"two\"", ProblemKind::NoQuote),
            ("\"bob\", 'two'", ProblemKind::NoQuote),
            ("\"bob\" \"two", ProblemKind::OpenQuote),
        ] {
            let text = format!("\"anna\" \"one\"\n;\n{bad}\n");
            let (list, problem) = UserList::parse(text.as_bytes());
            assert_eq!(problem, Some(Problem { line: 3, kind }), "{bad}");
            assert_eq!(list.secret("anna"), Some(&plain("one")));
            assert_eq!(list.len(), 1);
        }
    }

    #[test]
    fn lengths_are_limited() {
        let entry = |user: usize, secret: usize| {
            format!("\"{}\" \"{}\"", "u".repeat(user), "s".repeat(secret)).into_bytes()
        };
        assert_eq!(problem(&entry(127, 65_530)), None);
        let kind = |text: Vec<u8>| problem(&text).map(|p| p.kind);
        assert_eq!(kind(entry(128, 1)), Some(ProblemKind::UserTooLong(128)));
        assert_eq!(
            kind(entry(1, 65_531)),
            Some(ProblemKind::SecretTooLong(65_531))
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            users in prop::collection::hash_map("[^\0]{0,20}", "[^\0]{0,20}", 0..5)
        ) {
            let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let text: String = users
                .iter()
                .map(|(user, secret)| format!("{} {}\n", quote(user), quote(secret)))
                .collect();
            let (list, problem) = UserList::parse(text.as_bytes());
            prop_assert_eq!(problem, None);
            prop_assert_eq!(list.len(), users.len());
            for (user, secret) in &users {
                prop_assert_eq!(list.secret(user), Some(&plain(secret)));
            }
        }

        #[test]
        fn no_file_panics(text in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = UserList::parse(&text);
        }

        #[test]
        fn no_file_of_quotes_panics(text in "[\"a; \n]{0,30}") {
            let _ = UserList::parse(text.as_bytes());
        }
    }
}
