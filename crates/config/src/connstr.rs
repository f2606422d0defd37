//! Connect strings: `key=value key = 'quoted ''value'''`, divided by spaces.

/// The text is not a sequence of `key=value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnstrError;

/// The pairs of a connect string, in order. After an error there is nothing more.
pub(crate) fn pairs(text: &str) -> Pairs<'_> {
    Pairs { rest: text }
}

pub(crate) struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Result<(&'a str, String), ConnstrError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest = skip_spaces(self.rest);
        if self.rest.is_empty() {
            return None;
        }
        let pair = self.pair();
        if pair.is_none() {
            self.rest = "";
        }
        Some(pair.ok_or(ConnstrError))
    }
}

impl<'a> Pairs<'a> {
    fn pair(&mut self) -> Option<(&'a str, String)> {
        let end = self.rest.find(['=', ' '])?;
        let (key, rest) = self.rest.split_at(end);
        let rest = skip_spaces(skip_spaces(rest).strip_prefix('=')?);
        let (value, rest) = match rest.strip_prefix('\'') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (value, rest) = rest.split_at(rest.find(' ').unwrap_or(rest.len()));
                (value.to_owned(), rest)
            }
        };
        if key.is_empty() || value.is_empty() {
            return None;
        }
        self.rest = rest;
        Some((key, value))
    }
}

/// The value up to the closing quote, and what follows. The character right after the quote is
/// dropped whatever it is, as PgBouncer does.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('\'')?;
        value.push_str(before);
        match after.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => {
                let mut chars = after.chars();
                chars.next();
                return Some((value, chars.as_str()));
            }
        }
    }
}

/// Only spaces divide, not tabs.
fn skip_spaces(text: &str) -> &str {
    text.trim_start_matches(' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &str) -> Result<Vec<(String, String)>, ConnstrError> {
        pairs(text)
            .map(|pair| pair.map(|(key, value)| (key.to_owned(), value)))
            .collect()
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn spaces_may_stand_around_the_equals_sign() {
        assert_eq!(
            all(" host=db1  port = 5433 "),
            Ok(owned(&[("host", "db1"), ("port", "5433")]))
        );
    }

    #[test]
    fn quotes_hold_spaces_and_doubled_quotes() {
        assert_eq!(
            all("dbname='we''ird name' password='a#b;c=d'"),
            Ok(owned(&[("dbname", "we'ird name"), ("password", "a#b;c=d")]))
        );
    }

    #[test]
    fn an_empty_string_has_no_pairs() {
        assert_eq!(all(""), Ok(Vec::new()));
    }

    #[test]
    fn empty_values_and_loose_words_are_errors() {
        for text in [
            "host=",
            "host= port=1 x",
            "host",
            "=x",
            "host=''",
            "host='open",
            "a=1 \\",
        ] {
            assert_eq!(all(text), Err(ConnstrError), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn quoted_values_read_back(value in "[^\0]+") {
            let text = format!("k='{}' next=1", value.replace('\'', "''"));
            prop_assert_eq!(all(&text), Ok(owned(&[("k", &value), ("next", "1")])));
        }

        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = all(&text);
        }
    }
}
