//! Ident maps: which operating system user, or certificate, may be which database user.
//!
//! ```text
//! # map   system-user   database-user | all
//! staff   anna          anna_admin
//! staff   backup        all
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use crate::tokens::{OpenQuote, Token, Tokens};

/// All maps of an ident file, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentMaps(HashMap<String, Arc<IdentMap>>);

/// One map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentMap {
    /// The name that `map=` refers to.
    pub name: String,
    mappings: Vec<Mapping>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    system_user: String,
    may_be: MayBe,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum MayBe {
    Anyone,
    User(String),
}

/// A line that was skipped, and why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("ident line {line}: {kind}; the line is ignored")]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProblemKind {
    /// A quote is not closed.
    #[error("a double quote is not closed")]
    OpenQuote,
    /// The name of the map is missing or in quotes.
    #[error("no map name (expected: map-name system-user database-user)")]
    NoMapName,
    /// There is no operating system user.
    #[error("no system user (expected: map-name system-user database-user)")]
    NoSystemUser,
    /// There is no database user.
    #[error("no database user (expected: map-name system-user database-user|all)")]
    NoDatabaseUser,
    /// Something follows.
    #[error("unsupported parameters after the database user")]
    Trailing,
}

impl From<OpenQuote> for ProblemKind {
    fn from(OpenQuote: OpenQuote) -> Self {
        Self::OpenQuote
    }
}

impl IdentMaps {
    /// Reads a file's content. Bad lines are skipped and reported.
    pub fn parse(text: &str) -> (Self, Vec<Problem>) {
        let mut maps: HashMap<String, Vec<Mapping>> = HashMap::new();
        let mut problems = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            match parse_line(text) {
                Ok(Some((name, mapping))) => maps.entry(name).or_default().push(mapping),
                Ok(None) => {}
                Err(kind) => problems.push(Problem { line, kind }),
            }
        }
        let map =
            |(name, mappings): (String, _)| (name.clone(), Arc::new(IdentMap { name, mappings }));
        (Self(maps.into_iter().map(map).collect()), problems)
    }

    /// The map of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<IdentMap>> {
        self.0.get(name)
    }
}

impl IdentMap {
    /// Whether the peer may be this database user. The peer of a Unix socket is one operating
    /// system user, a certificate can name several, so the caller says what the peer is.
    pub fn admits(&self, peer_is: impl Fn(&str) -> bool, database_user: &str) -> bool {
        self.mappings.iter().any(|mapping| {
            let user_fits = match &mapping.may_be {
                MayBe::Anyone => true,
                MayBe::User(user) => user == database_user,
            };
            user_fits && peer_is(&mapping.system_user)
        })
    }
}

fn parse_line(line: &str) -> Result<Option<(String, Mapping)>, ProblemKind> {
    let mut tokens = Tokens::new(line)?;
    let name = match tokens.take()? {
        None => return Ok(None),
        Some(Token::Word(name)) => name.to_owned(),
        Some(Token::Quoted(_) | Token::Comma) => return Err(ProblemKind::NoMapName),
    };
    let system_user = match tokens.take()? {
        Some(Token::Word(user)) => user.to_owned(),
        Some(Token::Quoted(user)) => user,
        Some(Token::Comma) | None => return Err(ProblemKind::NoSystemUser),
    };
    let may_be = match tokens.take()? {
        Some(Token::Word("all")) => MayBe::Anyone,
        Some(Token::Word(user)) => MayBe::User(user.to_owned()),
        Some(Token::Quoted(user)) => MayBe::User(user),
        Some(Token::Comma) | None => return Err(ProblemKind::NoDatabaseUser),
    };
    if tokens.peek().is_some() {
        return Err(ProblemKind::Trailing);
    }
    Ok(Some((
        name,
        Mapping {
            system_user,
            may_be,
        },
    )))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn admits(text: &str, map: &str, system_user: &str, database_user: &str) -> bool {
        let (maps, problems) = IdentMaps::parse(text);
        assert_eq!(problems, []);
        maps.get(map)
            .is_some_and(|map| map.admits(|name| name == system_user, database_user))
    }

    #[test]
    fn a_map_lets_system_users_be_database_users() {
        let text = "# comment\n\nstaff anna anna_admin # and why\nother anna bob\n\
            staff \"back up\" all\nstaff anna \"all\"\n";
        assert!(admits(text, "staff", "anna", "anna_admin"));
        assert!(admits(text, "staff", "back up", "whoever"));
        assert!(admits(text, "staff", "anna", "all"));
        assert!(!admits(text, "staff", "anna", "bob"));
        assert!(admits(text, "other", "anna", "bob"));
        assert!(!admits(text, "nomap", "anna", "bob"));
    }

    #[test]
    fn bad_lines_are_skipped_and_named() {
        let text = "a\n\"a\" b c\na b\na b c d\na \"b c\na b c\n";
        let (maps, problems) = IdentMaps::parse(text);
        let kinds: Vec<_> = problems.iter().map(|p| (p.line, p.kind)).collect();
        assert_eq!(
            kinds,
            [
                (1, ProblemKind::NoSystemUser),
                (2, ProblemKind::NoMapName),
                (3, ProblemKind::NoDatabaseUser),
                (4, ProblemKind::Trailing),
                (5, ProblemKind::OpenQuote),
            ]
        );
        assert!(
            maps.get("a")
                .is_some_and(|map| map.admits(|name| name == "b", "c"))
        );
    }

    proptest! {
        #[test]
        fn no_file_panics(text in "[a\" ,#\n]{0,40}") {
            let _ = IdentMaps::parse(&text);
        }
    }
}
