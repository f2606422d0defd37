//! Reading an HBA file.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use super::{Addresses, Hba, Method, Names, Origin, Rule, Tls};
use crate::ident::{IdentMap, IdentMaps};
use crate::ldap::{BadOptions, LdapOptions};
use crate::tokens::{OpenQuote, Token, Tokens};

/// How deep `@file` may refer to files that refer to files; one that refers to itself has no end.
const FILE_DEPTH_MAX: usize = 10;

/// A line that is wrong, and how.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("hba line {line}: {kind}; {}", kind.consequence())]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProblemKind {
    /// A quote is not closed.
    #[error("a double quote is not closed")]
    OpenQuote,
    /// The first word is none of the four types.
    #[error("unknown type {0} (expected local, host, hostssl or hostnossl)")]
    Type(String),
    /// A list of databases or users has no (further) name.
    #[error("expected the name of a {column}, found {found}")]
    Name {
        /// `database` or `user`.
        column: &'static str,
        /// What stands there instead.
        found: String,
    },
    /// `samerole`, `samegroup` or `+group`: we do not know who belongs to what.
    #[error("{0} is not supported (there are no groups here: list the names, or use @file)")]
    Group(String),
    /// A file of names could not be read.
    #[error("could not read @{}: {reason}", path.display())]
    File {
        /// The file, relative to where the HBA file stands.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// Files of names refer to each other without end.
    #[error("@{} is nested more than {FILE_DEPTH_MAX} files deep", .0.display())]
    FileDepth(PathBuf),
    /// There is no address, or one that cannot be read.
    #[error(
        "failed to parse address {0} (expected all, 10.0.0.0/8, ::1/128 or 10.0.0.0 255.0.0.0)"
    )]
    Address(String),
    /// The mask cannot be read.
    #[error("invalid mask {0}")]
    Mask(String),
    /// The address has ones where the mask has zeros, so no connection would ever match.
    #[error("address does not match mask: {address} / {mask} (did you mean {meant}?)")]
    AddressOutsideMask {
        /// As written.
        address: IpAddr,
        /// As written.
        mask: IpAddr,
        /// The address that the mask leaves.
        meant: IpAddr,
    },
    /// A method that we do not have.
    #[error(
        "unsupported method {0} (supported are trust, reject, md5, password, scram-sha-256, peer, \
         cert, ldap and pam)"
    )]
    Method(String),
    /// Something other than `map=`.
    #[error("option {0} is not in map=value format")]
    Option(String),
    /// The named map is not in the ident file.
    #[error("ident map {0:?} is not found in ident config file")]
    UnknownMap(String),
    /// Something follows.
    #[error("unsupported parameters: {0}")]
    Trailing(String),
    /// Options of LDAP that make no sense.
    #[error(transparent)]
    Ldap(#[from] BadOptions),
}

impl ProblemKind {
    fn consequence(&self) -> &'static str {
        match self {
            Self::Ldap(_) => "no login by this line can succeed",
            _ => "the line is ignored",
        }
    }
}

impl From<OpenQuote> for ProblemKind {
    fn from(OpenQuote: OpenQuote) -> Self {
        Self::OpenQuote
    }
}

/// Reads the file of an `@file`.
type ReadFile<'a> = dyn FnMut(&Path) -> io::Result<String> + 'a;

impl Hba {
    /// Reads the content of the file at `path`.
    ///
    /// `@file` is relative to the directory of the file it stands in and is read by `read`.
    /// Maps must be in `maps`.
    pub fn parse(
        text: &str,
        path: &Path,
        maps: &IdentMaps,
        read: &mut ReadFile<'_>,
    ) -> (Self, Vec<Problem>) {
        let mut hba = Self::default();
        let mut problems = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            match parse_line(text, line, path, maps, read) {
                Ok(None) => {}
                Ok(Some(rule)) => {
                    if let Method::Ldap(Err(bad)) = &rule.method {
                        let kind = bad.clone().into();
                        problems.push(Problem { line, kind });
                    }
                    hba.rules.push(rule);
                }
                Err(kind) => problems.push(Problem { line, kind }),
            }
        }
        (hba, problems)
    }
}

fn parse_line(
    text: &str,
    line: usize,
    path: &Path,
    maps: &IdentMaps,
    read: &mut ReadFile<'_>,
) -> Result<Option<Rule>, ProblemKind> {
    let mut tokens = Tokens::new(text)?;
    // An address follows the names, so only the type is known yet.
    let host = match tokens.take()? {
        None => return Ok(None),
        Some(Token::Word("local")) => None,
        Some(Token::Word("host")) => Some(Tls::Any),
        Some(Token::Word("hostssl")) => Some(Tls::Only),
        Some(Token::Word("hostnossl")) => Some(Tls::Never),
        other => return Err(ProblemKind::Type(shown(other))),
    };
    let databases = parse_names(&mut tokens, "database", path, read)?;
    let users = parse_names(&mut tokens, "user", path, read)?;
    let origin = match host {
        None => Origin::Local,
        Some(tls) => Origin::Host(tls, parse_addresses(&mut tokens)?),
    };
    let method = parse_method(&mut tokens, maps)?;
    Ok(Some(Rule {
        line,
        origin,
        databases,
        users,
        method,
    }))
}

fn parse_names(
    tokens: &mut Tokens<'_>,
    column: &'static str,
    path: &Path,
    read: &mut ReadFile<'_>,
) -> Result<Names, ProblemKind> {
    let mut names = Names::default();
    loop {
        match tokens.take()? {
            Some(token @ (Token::Word(_) | Token::Quoted(_))) => {
                names.add(token, path, read, FILE_DEPTH_MAX)?;
            }
            other @ (Some(Token::Comma) | None) => {
                return Err(ProblemKind::Name {
                    column,
                    found: shown(other),
                });
            }
        }
        if tokens.peek() != Some(&Token::Comma) {
            return Ok(names);
        }
        tokens.take()?;
    }
}

impl Names {
    /// As in PgBouncer, the words mean the same for databases and for users.
    fn add(
        &mut self,
        token: Token<'_>,
        path: &Path,
        read: &mut ReadFile<'_>,
        depth: usize,
    ) -> Result<(), ProblemKind> {
        match token {
            Token::Word("all") => self.all = true,
            Token::Word("sameuser") => self.same = true,
            Token::Word("replication") => self.replication = true,
            Token::Word(word @ ("samerole" | "samegroup")) => {
                return Err(ProblemKind::Group(word.to_owned()));
            }
            Token::Word(word) => match (word.strip_prefix('@'), word.starts_with('+')) {
                (Some(file), _) => self.add_file(&sibling(path, file), read, depth)?,
                (None, true) => return Err(ProblemKind::Group(word.to_owned())),
                (None, false) => {
                    self.names.insert(word.to_owned());
                }
            },
            Token::Quoted(name) => {
                self.names.insert(name);
            }
            Token::Comma => {}
        }
        Ok(())
    }

    /// In a file, names are separated by commas, blanks or lines.
    fn add_file(
        &mut self,
        path: &Path,
        read: &mut ReadFile<'_>,
        depth: usize,
    ) -> Result<(), ProblemKind> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(ProblemKind::FileDepth(path.to_owned()));
        };
        let text = read(path).map_err(|error| ProblemKind::File {
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
        for line in text.lines() {
            let mut tokens = Tokens::new(line)?;
            while let Some(token) = tokens.take()? {
                self.add(token, path, read, depth)?;
            }
        }
        Ok(())
    }
}

/// A file named in another, relative to the directory of that one.
fn sibling(path: &Path, file: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).join(file)
}

fn parse_addresses(tokens: &mut Tokens<'_>) -> Result<Addresses, ProblemKind> {
    let text = match tokens.take()? {
        Some(Token::Word("all")) => return Ok(Addresses::All),
        Some(Token::Word(text)) => text,
        other => return Err(ProblemKind::Address(shown(other))),
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| ProblemKind::Address(text.to_owned()))?;
    let mask = match length {
        Some(length) => mask_of_length(address, length),
        None => match tokens.take()? {
            Some(Token::Word(mask)) => mask.parse().map_err(|_| ProblemKind::Mask(mask.to_owned())),
            other => Err(ProblemKind::Mask(shown(other))),
        },
    }?;
    match (address, mask) {
        (IpAddr::V4(base), IpAddr::V4(mask)) if base & mask == base => {
            Ok(Addresses::V4 { base, mask })
        }
        (IpAddr::V6(base), IpAddr::V6(mask)) if base & mask == base => {
            Ok(Addresses::V6 { base, mask })
        }
        (IpAddr::V4(base), IpAddr::V4(bits)) => Err(ProblemKind::AddressOutsideMask {
            address,
            mask,
            meant: (base & bits).into(),
        }),
        (IpAddr::V6(base), IpAddr::V6(bits)) => Err(ProblemKind::AddressOutsideMask {
            address,
            mask,
            meant: (base & bits).into(),
        }),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            Err(ProblemKind::Mask(mask.to_string()))
        }
    }
}

fn mask_of_length(address: IpAddr, length: &str) -> Result<IpAddr, ProblemKind> {
    let bad = || ProblemKind::Mask(format!("/{length}"));
    if !length.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(bad());
    }
    let ones: u32 = length.parse().map_err(|_| bad())?;
    // checked_shl refuses a shift by the full width, which here means a mask of zeros.
    match address {
        IpAddr::V4(_) => {
            let zeros = Ipv4Addr::BITS.checked_sub(ones).ok_or_else(bad)?;
            Ok(Ipv4Addr::from_bits(u32::MAX.checked_shl(zeros).unwrap_or(0)).into())
        }
        IpAddr::V6(_) => {
            let zeros = Ipv6Addr::BITS.checked_sub(ones).ok_or_else(bad)?;
            Ok(Ipv6Addr::from_bits(u128::MAX.checked_shl(zeros).unwrap_or(0)).into())
        }
    }
}

fn parse_method(tokens: &mut Tokens<'_>, maps: &IdentMaps) -> Result<Method, ProblemKind> {
    // LDAP's options are not made of our words.
    if tokens.peek() == Some(&Token::Word("ldap")) {
        let options = LdapOptions::parse(tokens.rest());
        return Ok(Method::Ldap(options.map(Arc::new)));
    }
    let word = match tokens.take()? {
        Some(Token::Word(word)) => word,
        other => return Err(ProblemKind::Method(shown(other))),
    };
    // A map must exist wherever it is named, although only two methods use it.
    let map = parse_map(tokens, maps)?;
    match word {
        "trust" => Ok(Method::Trust),
        "reject" => Ok(Method::Reject),
        "md5" => Ok(Method::Md5),
        "password" | "plain" => Ok(Method::Password),
        "scram-sha-256" => Ok(Method::ScramSha256),
        "peer" => Ok(Method::Peer(map)),
        "cert" => Ok(Method::Cert(map)),
        "pam" => Ok(Method::Pam),
        other => Err(ProblemKind::Method(other.to_owned())),
    }
}

fn parse_map(
    tokens: &mut Tokens<'_>,
    maps: &IdentMaps,
) -> Result<Option<Arc<IdentMap>>, ProblemKind> {
    let map = match tokens.take()? {
        None => return Ok(None),
        Some(Token::Word(option)) => {
            let name = option
                .strip_prefix("map=")
                .ok_or_else(|| ProblemKind::Option(option.to_owned()))?;
            maps.get(name)
                .ok_or_else(|| ProblemKind::UnknownMap(name.to_owned()))?
        }
        other => return Err(ProblemKind::Trailing(shown(other))),
    };
    match tokens.take()? {
        None => Ok(Some(Arc::clone(map))),
        other => Err(ProblemKind::Trailing(shown(other))),
    }
}

/// How a message shows the word that is wrong.
fn shown(token: Option<Token<'_>>) -> String {
    match token {
        Some(Token::Word(word)) => word.to_owned(),
        Some(Token::Quoted(word)) => format!("{word:?}"),
        Some(Token::Comma) => "a comma".to_owned(),
        None => "the end of the line".to_owned(),
    }
}
