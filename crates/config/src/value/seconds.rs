//! Times: seconds with an optional fraction, held as whole microseconds.

use std::time::Duration;

use super::{Invalid, Kind, Value};

/// A span of time. Where the key says so, zero means that the limit is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Seconds {
    micros: u64,
}

impl Seconds {
    /// No time, or no limit.
    pub const ZERO: Self = Self { micros: 0 };

    /// Three centuries. Longer times are cut to it, so that every time can be added to a clock.
    pub const MAX: Self = Self {
        micros: 10_000_000_000 * MICROS,
    };

    /// A whole number of seconds.
    pub const fn new(seconds: u32) -> Self {
        Self {
            micros: seconds as u64 * MICROS,
        }
    }

    /// A number of microseconds.
    pub fn from_micros(micros: u64) -> Self {
        Self {
            micros: micros.min(Self::MAX.micros),
        }
    }

    /// The number of microseconds.
    pub const fn as_micros(self) -> u64 {
        self.micros
    }

    /// Whether a limit of this length is switched off.
    pub const fn is_off(self) -> bool {
        self.micros == 0
    }

    /// The span, zero included.
    pub const fn duration(self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// The span as a limit; `None` when it is off.
    pub fn limit(self) -> Option<Duration> {
        (!self.is_off()).then(|| self.duration())
    }
}

const MICROS: u64 = 1_000_000;

impl Value for Seconds {
    const KIND: Kind = Kind::Seconds;

    fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim_ascii_start();
        if let Some(plain) = plain_decimal(text) {
            return Ok(plain);
        }
        let seconds: f64 = text.parse().map_err(|_| Invalid::Malformed(Self::KIND))?;
        if seconds.is_nan() || seconds < 0.0 {
            return Err(Invalid::Malformed(Self::KIND));
        }
        // The cast saturates, and from_micros cuts what is too long.
        Ok(Self::from_micros((seconds * MICROS as f64).round() as u64))
    }

    /// As C's `%g` with six digits, like PgBouncer, unless that would lose digits.
    fn show(&self) -> Option<String> {
        let short = six_digits(self.micros as f64 / MICROS as f64);
        if Self::parse(&short) == Ok(*self) {
            return Some(short);
        }
        let (whole, fraction) = (self.micros / MICROS, self.micros % MICROS);
        let exact = format!("{whole}.{fraction:06}");
        Some(exact.trim_end_matches('0').trim_end_matches('.').to_owned())
    }
}

/// Digits with at most six after the point, read without rounding.
fn plain_decimal(text: &str) -> Option<Seconds> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole = whole.parse::<u64>().unwrap_or(u64::MAX);
    let fraction = format!("{fraction:0<6}").parse::<u64>().ok()?;
    Some(Seconds::from_micros(
        whole.saturating_mul(MICROS).saturating_add(fraction),
    ))
}

/// A number that is not negative, as C's `%g` prints it.
fn six_digits(number: f64) -> String {
    if number == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{number:.5e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        return without_zeros(&format!("{number:.decimals$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", without_zeros(mantissa), exponent.abs())
}

/// A decimal fraction without the zeros at its end.
fn without_zeros(number: &str) -> &str {
    if !number.contains('.') {
        return number;
    }
    number.trim_end_matches('0').trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::assert_round_trip;
    use super::*;

    fn shown(text: &str) -> String {
        Seconds::parse(text)
            .expect(text)
            .show()
            .expect("never NULL")
    }

    #[test]
    fn fractions_are_kept() {
        assert_eq!(Seconds::parse("0.5").map(Seconds::as_micros), Ok(500_000));
        assert_eq!(Seconds::parse(".25").map(Seconds::as_micros), Ok(250_000));
        assert_eq!(
            Seconds::parse("1e3").map(Seconds::as_micros),
            Ok(1_000_000_000)
        );
    }

    #[test]
    fn prints_as_percent_g() {
        for (text, expected) in [
            ("0", "0"),
            ("3600", "3600"),
            ("1.50", "1.5"),
            ("1000000", "1e+06"),
            ("2592000", "2.592e+06"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("999999", "999999"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn prints_every_digit_where_percent_g_would_lose_some() {
        assert_eq!(shown("1234567"), "1234567");
        assert_eq!(shown("1000.001"), "1000.001");
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in ["", "-1", "5s", "-inf", "nan", "1 2", "-0.1"] {
            assert_eq!(
                Seconds::parse(text),
                Err(Invalid::Malformed(Kind::Seconds)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn cuts_times_that_no_clock_can_hold() {
        assert_eq!(Seconds::parse("1e300"), Ok(Seconds::MAX));
        assert_eq!(Seconds::parse("inf"), Ok(Seconds::MAX));
        assert_eq!(Seconds::parse("99999999999999999999999"), Ok(Seconds::MAX));
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(Seconds::ZERO.limit(), None);
        assert_eq!(Seconds::new(2).limit(), Some(Duration::from_secs(2)));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(micros: u64, small in 0u64..10_000_000_000) {
            assert_round_trip(&Seconds::from_micros(micros));
            assert_round_trip(&Seconds::from_micros(small));
        }
    }
}
