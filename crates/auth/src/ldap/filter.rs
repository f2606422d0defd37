//! Search filters in text form (RFC 4515), with `$username` where the user's name goes.
//!
//! The text is read once, when the configuration is. A user's name then only ever stands inside a
//! value, so it cannot change what the filter asks.

use thiserror::Error;

use super::ber::{OCTET_STRING, Writer};

const PLACEHOLDER: &[u8] = b"$username";

/// How deep filters may be nested.
const DEPTH_MAX: usize = 16;

/// A filter that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadFilter {
    /// A parenthesis that is missing or does not belong.
    #[error("expected {expected} at {rest:?}")]
    Expected {
        /// What belongs there.
        expected: &'static str,
        /// What follows.
        rest: String,
    },
    /// A backslash without two hexadecimal digits.
    #[error("a backslash is not followed by two hexadecimal digits in {0:?}")]
    Escape(String),
    /// Too many parentheses.
    #[error("it is nested more than {DEPTH_MAX} levels deep")]
    Depth,
}

/// What an entry is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// All of them, any of them.
    Several(u8, Vec<Self>),
    Not(Box<Self>),
    /// `=`, `>=`, `<=`, `~=`.
    Compare {
        tag: u8,
        attribute: String,
        value: Vec<u8>,
    },
    /// With stars: each part says whether it is the first, a middle or the last one.
    Substrings {
        attribute: String,
        parts: Vec<(u8, Vec<u8>)>,
    },
    Present(String),
    /// `attribute:dn:rule:=value`.
    Extensible {
        attribute: String,
        dn: bool,
        rule: String,
        value: Vec<u8>,
    },
}

mod tag {
    pub(super) const AND: u8 = 0xa0;
    pub(super) const OR: u8 = 0xa1;
    pub(super) const NOT: u8 = 0xa2;
    pub(super) const EQUAL: u8 = 0xa3;
    pub(super) const SUBSTRINGS: u8 = 0xa4;
    pub(super) const AT_LEAST: u8 = 0xa5;
    pub(super) const AT_MOST: u8 = 0xa6;
    pub(super) const PRESENT: u8 = 0x87;
    pub(super) const LIKE: u8 = 0xa8;
    pub(super) const EXTENSIBLE: u8 = 0xa9;
    pub(super) const SEQUENCE: u8 = 0x30;
    /// Parts of SUBSTRINGS.
    pub(super) const INITIAL: u8 = 0x80;
    pub(super) const ANY: u8 = 0x81;
    pub(super) const FINAL: u8 = 0x82;
    /// Parts of EXTENSIBLE.
    pub(super) const RULE: u8 = 0x81;
    pub(super) const TYPE: u8 = 0x82;
    pub(super) const VALUE: u8 = 0x83;
    pub(super) const DN: u8 = 0x84;
}

impl Filter {
    /// Reads a filter. As libldap does, it takes a bare `uid=anna` for `(uid=anna)`.
    pub(crate) fn parse(text: &str) -> Result<Self, BadFilter> {
        let mut rest = text.trim();
        if !rest.starts_with('(') {
            return parse_item(rest);
        }
        let filter = parse_filter(&mut rest, DEPTH_MAX)?;
        match rest {
            "" => Ok(filter),
            rest => Err(expected("the end", rest)),
        }
    }

    /// `attribute=$username`.
    pub(crate) fn equality(attribute: &str) -> Self {
        Self::Compare {
            tag: tag::EQUAL,
            attribute: attribute.to_owned(),
            value: PLACEHOLDER.to_vec(),
        }
    }

    /// Writes the filter for one user.
    pub(crate) fn write(&self, user: &str, writer: &mut Writer) {
        match self {
            Self::Several(tag, filters) => writer.element(*tag, |writer| {
                filters.iter().for_each(|filter| filter.write(user, writer));
            }),
            Self::Not(filter) => writer.element(tag::NOT, |writer| filter.write(user, writer)),
            Self::Compare {
                tag,
                attribute,
                value,
            } => writer.element(*tag, |writer| {
                writer.bytes(OCTET_STRING, attribute.as_bytes());
                writer.bytes(OCTET_STRING, &filled(value, user));
            }),
            Self::Substrings { attribute, parts } => writer.element(tag::SUBSTRINGS, |writer| {
                writer.bytes(OCTET_STRING, attribute.as_bytes());
                writer.element(tag::SEQUENCE, |writer| {
                    for (tag, part) in parts {
                        writer.bytes(*tag, &filled(part, user));
                    }
                });
            }),
            Self::Present(attribute) => writer.bytes(tag::PRESENT, attribute.as_bytes()),
            Self::Extensible {
                attribute,
                dn,
                rule,
                value,
            } => writer.element(tag::EXTENSIBLE, |writer| {
                if !rule.is_empty() {
                    writer.bytes(tag::RULE, rule.as_bytes());
                }
                if !attribute.is_empty() {
                    writer.bytes(tag::TYPE, attribute.as_bytes());
                }
                writer.bytes(tag::VALUE, &filled(value, user));
                if *dn {
                    writer.boolean(tag::DN, true);
                }
            }),
        }
    }
}

/// A value with the user's name in its place.
fn filled(value: &[u8], user: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + user.len());
    let mut rest = value;
    while let Some(&byte) = rest.first() {
        if let Some(after) = rest.strip_prefix(PLACEHOLDER) {
            out.extend_from_slice(user.as_bytes());
            rest = after;
        } else {
            out.push(byte);
            rest = &rest[1..];
        }
    }
    out
}

/// A filter in parentheses.
fn parse_filter(rest: &mut &str, depth: usize) -> Result<Filter, BadFilter> {
    let depth = depth.checked_sub(1).ok_or(BadFilter::Depth)?;
    take(rest, "(", "an opening parenthesis")?;
    let filter = match rest.chars().next() {
        Some('&') => parse_several(rest, tag::AND, depth)?,
        Some('|') => parse_several(rest, tag::OR, depth)?,
        Some('!') => {
            *rest = &rest[1..];
            Filter::Not(Box::new(parse_filter(rest, depth)?))
        }
        _ => {
            let end = rest.find(['(', ')']).unwrap_or(rest.len());
            let (item, after) = rest.split_at(end);
            *rest = after;
            parse_item(item)?
        }
    };
    take(rest, ")", "a closing parenthesis")?;
    Ok(filter)
}

fn parse_several(rest: &mut &str, tag: u8, depth: usize) -> Result<Filter, BadFilter> {
    *rest = &rest[1..];
    let mut filters = Vec::new();
    while rest.starts_with('(') {
        filters.push(parse_filter(rest, depth)?);
    }
    Ok(Filter::Several(tag, filters))
}

fn take(rest: &mut &str, what: &str, name: &'static str) -> Result<(), BadFilter> {
    *rest = rest
        .strip_prefix(what)
        .ok_or_else(|| expected(name, rest))?;
    Ok(())
}

fn expected(expected: &'static str, rest: &str) -> BadFilter {
    BadFilter::Expected {
        expected,
        rest: rest.to_owned(),
    }
}

/// What stands between two parentheses: `attribute=value` and its relatives.
fn parse_item(item: &str) -> Result<Filter, BadFilter> {
    let Some((left, value)) = item.split_once('=') else {
        return Err(expected("attribute=value", item));
    };
    let (attribute, tag) = match left.as_bytes().last() {
        Some(b'>') => (&left[..left.len() - 1], tag::AT_LEAST),
        Some(b'<') => (&left[..left.len() - 1], tag::AT_MOST),
        Some(b'~') => (&left[..left.len() - 1], tag::LIKE),
        Some(b':') => return parse_extensible(&left[..left.len() - 1], value),
        _ => (left, tag::EQUAL),
    };
    if attribute.is_empty() || !attribute.chars().all(is_of_attribute) {
        return Err(expected("the name of an attribute", item));
    }
    let attribute = attribute.to_owned();
    if value == "*" && tag == tag::EQUAL {
        return Ok(Filter::Present(attribute));
    }
    if value.contains('*') && tag == tag::EQUAL {
        let parts = parse_substrings(value)?;
        return Ok(Filter::Substrings { attribute, parts });
    }
    let value = unescape(value)?;
    Ok(Filter::Compare {
        tag,
        attribute,
        value,
    })
}

/// Letters, digits and hyphens; dots in numeric names, semicolons before options.
fn is_of_attribute(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ';' | '_')
}

fn parse_substrings(value: &str) -> Result<Vec<(u8, Vec<u8>)>, BadFilter> {
    let pieces: Vec<_> = value.split('*').collect();
    let last = pieces.len() - 1;
    let mut parts = Vec::new();
    for (index, piece) in pieces.iter().enumerate().filter(|(_, p)| !p.is_empty()) {
        let tag = match index {
            0 => tag::INITIAL,
            index if index == last => tag::FINAL,
            _ => tag::ANY,
        };
        parts.push((tag, unescape(piece)?));
    }
    match parts.is_empty() {
        true => Err(expected("text between the stars", value)),
        false => Ok(parts),
    }
}

fn parse_extensible(left: &str, value: &str) -> Result<Filter, BadFilter> {
    let mut words = left.split(':');
    let attribute = words.next().unwrap_or_default().to_owned();
    let mut words = words.peekable();
    let dn = words
        .next_if(|word| word.eq_ignore_ascii_case("dn"))
        .is_some();
    let rule = words.next().unwrap_or_default().to_owned();
    let nameless = attribute.is_empty() && rule.is_empty();
    let legal = [&attribute, &rule].map(|word| word.chars().all(is_of_attribute));
    if nameless || words.next().is_some() || legal != [true, true] {
        return Err(expected("attribute:dn:rule:=value", left));
    }
    Ok(Filter::Extensible {
        attribute,
        dn,
        rule,
        value: unescape(value)?,
    })
}

fn unescape(value: &str) -> Result<Vec<u8>, BadFilter> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let digits = rest
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        let digits = digits.filter(|pair| pair.bytes().all(|b| b.is_ascii_hexdigit()));
        let escaped = digits.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        out.push(escaped.ok_or_else(|| BadFilter::Escape(value.to_owned()))?);
        rest = &rest[2..];
    }
    Ok(out)
}
