//! How many servers one PostgreSQL may have from us.

use super::number::whole_number;
use super::{Invalid, Kind, Value};

/// The part that `auto` takes. The rest is for those who come without us: an operator, a backup.
const AUTO_PERCENT: u8 = 90;

/// A limit on the servers of one PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostLimit {
    /// As many as the pools want.
    Off,
    /// So many.
    Count(u32),
    /// So many percent of the connections that PostgreSQL has for ordinary users, which is asked of it.
    Percent(u8),
    /// The usual percentage.
    Auto,
}

impl HostLimit {
    /// The limit, given how many connections PostgreSQL has for ordinary users, if that is known.
    pub fn servers(self, ordinary: Option<u32>) -> Option<u32> {
        let part = |percent: u8| {
            let part = u64::from(ordinary?) * u64::from(percent) / 100;
            u32::try_from(part).ok().map(|part| part.max(1))
        };
        match self {
            Self::Off => None,
            Self::Count(count) => Some(count),
            Self::Percent(percent) => part(percent),
            Self::Auto => part(AUTO_PERCENT),
        }
    }

    /// Whether the limit depends on PostgreSQL's own.
    pub fn is_relative(self) -> bool {
        matches!(self, Self::Percent(_) | Self::Auto)
    }
}

impl Value for HostLimit {
    const KIND: Kind = Kind::HostLimit;

    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        if let Some(number) = text.strip_suffix('%') {
            let number = whole_number(number.trim_end()).ok_or(Invalid::Malformed(Self::KIND))?;
            let percent = u8::try_from(number).ok().filter(|p| (1..=100).contains(p));
            let wrong = Invalid::OutOfRange { min: 1, max: 100 };
            return percent.map(Self::Percent).ok_or(wrong);
        }
        match i32::parse(text).map_err(|invalid| match invalid {
            Invalid::Malformed(_) => Invalid::Malformed(Self::KIND),
            other => other,
        })? {
            ..=0 => Ok(Self::Off),
            count => Ok(Self::Count(count.unsigned_abs())),
        }
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            Self::Off => "0".to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Percent(percent) => format!("{percent}%"),
            Self::Auto => "auto".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_percentages_and_auto_are_read_and_shown() {
        for (text, limit) in [
            ("0", HostLimit::Off),
            ("17", HostLimit::Count(17)),
            ("80%", HostLimit::Percent(80)),
            ("auto", HostLimit::Auto),
        ] {
            assert_eq!(HostLimit::parse(text), Ok(limit));
            assert_eq!(limit.show().as_deref(), Some(text));
        }
        for text in ["much", "101%", "0%", "-3%", "%"] {
            assert!(HostLimit::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_part_of_what_is_not_known_is_no_limit_yet() {
        assert_eq!(HostLimit::Auto.servers(None), None);
        assert_eq!(HostLimit::Auto.servers(Some(97)), Some(87));
        assert_eq!(HostLimit::Percent(1).servers(Some(10)), Some(1));
        assert_eq!(HostLimit::Count(5).servers(None), Some(5));
    }
}
