//! LDAP's URLs (RFC 4516): `ldap[s]://host:port/base?attribute?scope?filter`.

use thiserror::Error;

use super::Scope;

/// A URL that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadUrl {
    /// Neither `ldap://` nor `ldaps://`.
    #[error("it begins neither with ldap:// nor with ldaps://")]
    Scheme,
    /// The port is no number from 1 to 65535.
    #[error("{0:?} is no port")]
    Port(String),
    /// The scope is none.
    #[error("{0:?} is no scope (expected base, one, sub or children)")]
    Scope(String),
    /// A `%` without two hexadecimal digits, or one that makes no UTF-8.
    #[error("the % in {0:?} does not escape a character")]
    Escape(String),
    /// An extension that must be understood, and is not.
    #[error("extension {0:?} is not supported")]
    Extension(String),
}

/// What a URL says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    /// Empty if the URL names none.
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
    pub(crate) base: Option<String>,
    /// The first one: only that counts.
    pub(crate) attribute: Option<String>,
    pub(crate) scope: Scope,
    pub(crate) filter: Option<String>,
}

impl Url {
    pub(crate) fn parse(text: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = text.split_once("://").ok_or(BadUrl::Scheme)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "ldap" => false,
            "ldaps" => true,
            _ => return Err(BadUrl::Scheme),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let (host, port) = parse_authority(authority)?;
        let mut parts = rest.strip_prefix('/').unwrap_or(rest).split('?');
        let mut part = || match parts.next() {
            None | Some("") => Ok(None),
            Some(text) => decode(text).map(Some),
        };
        let base = part()?;
        let attribute = part()?.map(|list| first_of(&list));
        let scope = part()?.map_or(Ok(Scope::Base), |word| parse_scope(&word))?;
        let filter = part()?;
        let extensions = part()?.unwrap_or_default();
        if let Some(critical) = extensions.split(',').find(|name| name.starts_with('!')) {
            return Err(BadUrl::Extension(critical.to_owned()));
        }
        Ok(Self {
            tls,
            host,
            port,
            base,
            attribute,
            scope,
            filter,
        })
    }
}

fn first_of(list: &str) -> String {
    list.split(',').next().unwrap_or_default().to_owned()
}

/// `host`, `host:port`, `[address]:port`.
fn parse_authority(text: &str) -> Result<(String, Option<u16>), BadUrl> {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, after)) => (host, after.strip_prefix(':')),
        None => match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = port.filter(|port| !port.is_empty()).map(|port| {
        let number = port.parse::<u16>().ok().filter(|&number| number > 0);
        number.ok_or_else(|| BadUrl::Port(port.to_owned()))
    });
    Ok((decode(host)?, port.transpose()?))
}

fn parse_scope(word: &str) -> Result<Scope, BadUrl> {
    match word.to_ascii_lowercase().as_str() {
        "base" => Ok(Scope::Base),
        "one" | "onelevel" => Ok(Scope::One),
        "sub" | "subtree" => Ok(Scope::Sub),
        "children" | "subord" | "subordinate" => Ok(Scope::Children),
        _ => Err(BadUrl::Scope(word.to_owned())),
    }
}

fn decode(text: &str) -> Result<String, BadUrl> {
    let bad = || BadUrl::Escape(text.to_owned());
    let mut out = Vec::with_capacity(text.len());
    let mut pieces = text.split('%');
    out.extend_from_slice(pieces.next().unwrap_or_default().as_bytes());
    for piece in pieces {
        let digits = piece.get(..2).ok_or_else(bad)?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        out.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        out.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(out).map_err(|_| bad())
}
