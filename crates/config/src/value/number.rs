//! Values that are written as whole numbers, in PgBouncer's way: integers, ports, booleans, file modes.

use std::num::NonZeroU16;

use super::{Invalid, Kind, Value};

impl Value for bool {
    const KIND: Kind = Kind::Boolean;

    fn parse(text: &str) -> Result<Self, Invalid> {
        whole_number(text)
            .map(|number| number != 0)
            .ok_or(Invalid::Malformed(Self::KIND))
    }

    fn show(&self) -> Option<String> {
        Some(u8::from(*self).to_string())
    }
}

/// Integers differ in nothing but their range.
macro_rules! integers {
    ($($ty:ty)*) => { $(
        impl Value for $ty {
            const KIND: Kind = Kind::Integer;

            fn parse(text: &str) -> Result<Self, Invalid> {
                let number = whole_number(text).ok_or(Invalid::Malformed(Self::KIND))?;
                let (min, max) = (i64::from(<$ty>::MIN), i64::from(<$ty>::MAX));
                Self::try_from(number).map_err(|_| Invalid::OutOfRange { min, max })
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )* };
}

integers! { i32 u16 u32 }

/// A port that can be connected to.
impl Value for NonZeroU16 {
    const KIND: Kind = Kind::Integer;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let number = whole_number(text).ok_or(Invalid::Malformed(Self::KIND))?;
        let port = u16::try_from(number).ok().and_then(Self::new);
        port.ok_or(Invalid::OutOfRange {
            min: 1,
            max: u16::MAX.into(),
        })
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// A whole number as C's `strtol` reads it with base 0, saturating where it would.
pub(super) fn whole_number(text: &str) -> Option<i64> {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let hex = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"));
    let (radix, digits) = match (hex, digits.strip_prefix('0')) {
        (Some(rest), _) => (16, rest),
        (None, Some(rest)) if !rest.is_empty() => (8, rest),
        (None, _) => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    let magnitude = i64::from_str_radix(digits, radix).unwrap_or(i64::MAX);
    Some(if negative { -magnitude } else { magnitude })
}

/// Permission bits of the listening Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Value for FileMode {
    const KIND: Kind = Kind::FileMode;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let number = whole_number(text).ok_or(Invalid::Malformed(Self::KIND))?;
        match u32::try_from(number) {
            Ok(mode) if mode <= 0o7777 => Ok(Self(mode)),
            Ok(_) | Err(_) => Err(Invalid::OutOfRange {
                min: 0,
                max: 0o7777,
            }),
        }
    }

    /// In decimal, as PgBouncer prints it.
    fn show(&self) -> Option<String> {
        Some(self.0.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_read_octal_and_hexadecimal() {
        assert_eq!(i32::parse("0777"), Ok(511));
        assert_eq!(i32::parse("0x1f"), Ok(31));
        assert_eq!(i32::parse("-5"), Ok(-5));
        assert_eq!(i32::parse("0"), Ok(0));
        assert_eq!(i32::parse("+7"), Ok(7));
    }

    #[test]
    fn integers_refuse_trailing_text() {
        for text in ["", "5x", "08", "5 ", "0x", "-", "--1", "1.5", "+-1"] {
            assert_eq!(
                i32::parse(text),
                Err(Invalid::Malformed(Kind::Integer)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn integers_out_of_range_name_the_range() {
        let range = Invalid::OutOfRange {
            min: -2147483648,
            max: 2147483647,
        };
        assert_eq!(i32::parse("99999999999999999999"), Err(range.clone()));
        assert_eq!(i32::parse("2147483648"), Err(range));
        assert_eq!(
            NonZeroU16::parse("0"),
            Err(Invalid::OutOfRange { min: 1, max: 65535 })
        );
    }

    #[test]
    fn any_integer_but_zero_is_true() {
        assert_eq!(bool::parse("2"), Ok(true));
        assert_eq!(bool::parse("0"), Ok(false));
        assert_eq!(bool::parse("true"), Err(Invalid::Malformed(Kind::Boolean)));
    }

    #[test]
    fn file_modes_are_read_in_octal_and_shown_in_decimal() {
        let mode = FileMode::parse("0777").expect("a mode");
        assert_eq!(mode, FileMode(0o777));
        assert_eq!(mode.show().as_deref(), Some("511"));
    }
}
