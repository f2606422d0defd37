//! Times as people write and read them.

use std::time::Duration;

/// Reads `90`, `90s`, `5m` or `5min`, `1h`, `2d`, `250ms`; a number alone is seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is no time: write 90s, 5min, 1h or 2d");
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let number = u64::from(number);
    match unit.trim() {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" | "min" => Ok(Duration::from_secs(number * 60)),
        "h" => Ok(Duration::from_secs(number * 3_600)),
        "d" => Ok(Duration::from_secs(number * 86_400)),
        _ => Err(wrong()),
    }
}

/// A time in the unit that fits it.
pub(crate) fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0 => match time.as_millis() {
            0 if !time.is_zero() => format!("{:.2} ms", time.as_secs_f64() * 1_000.0),
            millis => format!("{millis} ms"),
        },
        1..=9 => format!("{:.1} s", time.as_secs_f64()),
        10..=99 => format!("{seconds} s"),
        100..=5_999 => format!("{} min", seconds / 60),
        6_000..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The same for milliseconds.
pub(crate) fn millis(millis: u64) -> String {
    words(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in [
            ("90", 90_000),
            ("90s", 90_000),
            ("5m", 300_000),
            ("5min", 300_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
            ("250ms", 250),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-1s", "1.5h", "5 years", "99999999999s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_told_in_a_unit_that_fits() {
        let told = |millis| words(Duration::from_millis(millis));
        assert_eq!(told(0), "0 ms");
        assert_eq!(told(250), "250 ms");
        assert_eq!(told(1_400), "1.4 s");
        assert_eq!(told(61_000), "61 s");
        assert_eq!(told(360_000), "6 min");
        assert_eq!(told(7_200_000), "2 h");
        assert_eq!(told(259_200_000), "3 days");
        assert_eq!(words(Duration::from_micros(130)), "0.13 ms");
    }
}
