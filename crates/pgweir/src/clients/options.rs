//! The `options` parameter of a startup packet, as PostgreSQL reads it.

/// It holds something else than settings.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct NotASetting;

/// The settings in `-c name=value`, `-cname=value` and `--name=value`. Words are divided by white
/// space; a backslash takes the next character as it is. A hyphen in a name is an underscore.
pub(crate) fn parse(options: &str) -> Result<Vec<(String, String)>, NotASetting> {
    let mut settings = Vec::new();
    let mut rest = options.trim_start();
    while !rest.is_empty() {
        rest = match (rest.strip_prefix("-c"), rest.strip_prefix("--")) {
            (Some(after), _) => after.trim_start(),
            (None, Some(after)) => after,
            (None, None) => return Err(NotASetting),
        };
        let (word, after) = word(rest);
        let (name, value) = word.split_once('=').ok_or(NotASetting)?;
        settings.push((name.replace('-', "_"), value.to_owned()));
        rest = after.trim_start();
    }
    Ok(settings)
}

/// The first word, unescaped, and what follows it.
fn word(text: &str) -> (String, &str) {
    let mut word = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => word.extend(characters.next().map(|(_, escaped)| escaped)),
            c if c.is_ascii_whitespace() => return (word, &text[at..]),
            c => word.push(c),
        }
    }
    (word, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(options: &str) -> Vec<(String, String)> {
        parse(options).expect("settings")
    }

    #[test]
    fn three_forms_are_settings() {
        for options in ["-c a=1", "-ca=1", "--a=1", "  -c   a=1  "] {
            assert_eq!(
                pairs(options),
                [("a".to_owned(), "1".to_owned())],
                "{options}"
            );
        }
    }

    #[test]
    fn a_name_may_have_hyphens() {
        let expected = [("statement_timeout".to_owned(), "5s".to_owned())];
        assert_eq!(pairs("--statement-timeout=5s"), expected);
    }

    #[test]
    fn a_backslash_keeps_a_blank() {
        let expected = [
            ("a".to_owned(), "x y\\".to_owned()),
            ("b".to_owned(), "2".to_owned()),
        ];
        assert_eq!(pairs(r"-c a=x\ y\\ --b=2"), expected);
    }

    #[test]
    fn anything_else_is_refused() {
        for options in ["-d 5", "a=1", "-c a", "--", "-c a=1 b"] {
            assert_eq!(parse(options), Err(NotASetting), "{options}");
        }
    }
}
