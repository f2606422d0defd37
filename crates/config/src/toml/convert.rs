//! TOML's values as the texts that keys read.

use ::toml::de::DeValue;

use crate::value::{Kind, Seconds, Value};

/// The value as the text that keys of this kind read; `None` if it has the wrong type.
pub(super) fn text_of(kind: Kind, value: &DeValue<'_>) -> Option<String> {
    let numeric = matches!(
        kind,
        Kind::Integer | Kind::Seconds | Kind::FileMode | Kind::HostLimit
    );
    match value {
        DeValue::String(text) => match kind {
            Kind::Seconds => seconds_of(text),
            Kind::Boolean | Kind::Integer => None,
            Kind::Text
            | Kind::List
            | Kind::FileMode
            | Kind::Choice(_)
            | Kind::Protocols
            | Kind::Hosts
            | Kind::Endpoints
            | Kind::HostLimit
            | Kind::AppActions
            | Kind::StatePolicies
            | Kind::StrictAllow
            | Kind::Secret
            | Kind::PasswordSource => Some(text.to_string()),
        },
        DeValue::Integer(integer) if numeric => {
            i64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .map(|n| n.to_string())
        }
        DeValue::Float(float) if kind == Kind::Seconds => Some(float.as_str().to_owned()),
        DeValue::Boolean(yes) if kind == Kind::Boolean => yes.show(),
        DeValue::Array(array)
            if matches!(
                kind,
                Kind::List
                    | Kind::Hosts
                    | Kind::Protocols
                    | Kind::Endpoints
                    | Kind::AppActions
                    | Kind::StatePolicies
                    | Kind::StrictAllow
            ) =>
        {
            let words: Option<Vec<&str>> =
                array.iter().map(|word| word.get_ref().as_str()).collect();
            words.map(|words| words.join(","))
        }
        DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    }
}

/// What TOML has to say for a value of this kind.
pub(super) fn as_toml(kind: Kind) -> String {
    match kind {
        Kind::Boolean => "true or false".to_owned(),
        Kind::Seconds => "a number of seconds or a text like \"500ms\", \"5s\", \"10m\"".to_owned(),
        Kind::List
        | Kind::Hosts
        | Kind::Endpoints
        | Kind::AppActions
        | Kind::StatePolicies
        | Kind::StrictAllow => "a text or an array of texts".to_owned(),
        Kind::Text | Kind::Secret => "a text in quotes".to_owned(),
        Kind::HostLimit => "a whole number, or \"auto\", or a text like \"80%\"".to_owned(),
        Kind::Integer
        | Kind::FileMode
        | Kind::Choice(_)
        | Kind::Protocols
        | Kind::PasswordSource => kind.to_string(),
    }
}

/// `500ms`, `5s`, `10m`, `1h` or a plain number, in seconds.
fn seconds_of(text: &str) -> Option<String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let micros = Seconds::parse(number).ok()?.as_micros();
    let micros = match unit.trim() {
        "us" => micros / 1_000_000,
        "ms" => micros / 1_000,
        "" | "s" => micros,
        "m" | "min" => micros.saturating_mul(60),
        "h" => micros.saturating_mul(60 * 60),
        "d" => micros.saturating_mul(24 * 60 * 60),
        _ => return None,
    };
    Seconds::from_micros(micros).show()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, seconds) in [
            ("500ms", "0.5"),
            ("1.5h", "5400"),
            ("7", "7"),
            ("10 m", "600"),
        ] {
            assert_eq!(seconds_of(text).as_deref(), Some(seconds), "{text}");
        }
        assert_eq!(seconds_of("5 fortnights"), None);
        assert_eq!(seconds_of("-5s"), None);
    }
}
