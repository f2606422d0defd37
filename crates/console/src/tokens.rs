//! The words of the orders that PgBouncer does not have.
//!
//! ```text
//! word   = letters, digits, "_" "." ":" "/" "%" "-"
//! name   = anything in double quotes        text = anything in single quotes
//! sign   = "=" | "!=" | "<>" | ">" | "<"
//! ```
//! Quotes are doubled inside quotes, and one semicolon may stand at the end.

use std::time::Duration;

use crate::reply::CommandError;

/// Longer times are refused, so that every time can be added to a clock.
const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// One word, its quotes off.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Name(String),
    Text(String),
    Sign(&'static str),
    /// A character that stands for nothing, or a quote without its end.
    Stray(char),
}

/// The words of a statement that have not been read yet.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    /// The last comes first.
    rest: Vec<Token>,
}

impl Tokens {
    pub(crate) fn new(text: &str) -> Self {
        let mut rest = Vec::new();
        let mut text = text.trim();
        text = text.strip_suffix(';').unwrap_or(text);
        while let Some(first) = text.trim_start().chars().next() {
            text = text.trim_start();
            let (token, len) = Token::first_of(text, first);
            rest.push(token);
            text = &text[len..];
        }
        rest.reverse();
        Self { rest }
    }

    /// Reads this word, if it is the next.
    pub(crate) fn keyword(&mut self, keyword: &str) -> bool {
        let is_next = matches!(self.rest.last(), Some(Token::Word(word)) if word.eq_ignore_ascii_case(keyword));
        if is_next {
            self.rest.pop();
        }
        is_next
    }

    /// Reads this sign, if it is the next.
    pub(crate) fn sign(&mut self, sign: &str) -> bool {
        let is_next = matches!(self.rest.last(), Some(Token::Sign(next)) if *next == sign);
        if is_next {
            self.rest.pop();
        }
        is_next
    }

    /// Reads this word, or says that it is missing.
    pub(crate) fn expect(&mut self, keyword: &str) -> Result<(), CommandError> {
        match self.keyword(keyword) {
            true => Ok(()),
            false => Err(self.error(&format!("{keyword} is expected"))),
        }
    }

    /// Reads one of the words by which something is known.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        what: &str,
        choices: &[(&str, T)],
    ) -> Result<T, CommandError> {
        let found = choices.iter().find(|(word, _)| self.keyword(word));
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let words: Vec<_> = choices.iter().map(|(word, _)| *word).collect();
            self.error(&format!("{what} is expected: {}", words.join(", ")))
        })
    }

    /// Reads a value, quoted or not.
    pub(crate) fn value(&mut self, what: &str) -> Result<String, CommandError> {
        match self.rest.pop() {
            Some(Token::Word(text) | Token::Name(text) | Token::Text(text)) => Ok(text),
            other => {
                self.rest.extend(other);
                Err(self.error(&format!("{what} is expected")))
            }
        }
    }

    /// Reads a name, which is not empty.
    pub(crate) fn name(&mut self, what: &str) -> Result<String, CommandError> {
        let before = self.clone();
        let name = self.value(what)?;
        match name.is_empty() {
            true => Err(before.error(&format!("{what} is expected"))),
            false => Ok(name),
        }
    }

    /// Reads a time: `90`, `90s`, `'5min'`.
    pub(crate) fn time(&mut self) -> Result<Duration, CommandError> {
        let what = "a time like '90s', '5min' or '1h'";
        let before = self.clone();
        let text = self.value(what)?;
        duration(&text).ok_or_else(|| before.error(&format!("{what} is expected")))
    }

    /// Says that nothing may follow.
    pub(crate) fn end(&self) -> Result<(), CommandError> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(self.error("nothing more is expected")),
        }
    }

    /// What is wrong, and where.
    pub(crate) fn error(&self, what: &str) -> CommandError {
        let place = match self.rest.last() {
            None => "at the end".to_owned(),
            Some(Token::Word(text) | Token::Name(text) | Token::Text(text)) => {
                let text: String = text.chars().take(40).collect();
                format!("at \"{text}\"")
            }
            Some(Token::Sign(sign)) => format!("at \"{sign}\""),
            Some(Token::Stray('\'' | '"')) => "at a quote without its end".to_owned(),
            Some(Token::Stray(c)) => format!("at \"{c}\""),
        };
        CommandError::Syntax(format!("{place}: {what}"))
    }
}

impl Token {
    /// The first word of a text that begins with `first`, and how long it is with its quotes.
    fn first_of(text: &str, first: char) -> (Self, usize) {
        if matches!(first, '\'' | '"') {
            return match quoted(text, first) {
                Some((inner, len)) if first == '\'' => (Self::Text(inner), len),
                Some((inner, len)) => (Self::Name(inner), len),
                None => (Self::Stray(first), text.len()),
            };
        }
        for (written, sign) in [
            ("!=", "!="),
            ("<>", "!="),
            ("=", "="),
            (">", ">"),
            ("<", "<"),
        ] {
            if text.starts_with(written) {
                return (Self::Sign(sign), written.len());
            }
        }
        let is_word = |c: char| c.is_alphanumeric() || "_.:/%-".contains(c);
        match text.find(|c| !is_word(c)).unwrap_or(text.len()) {
            0 => (Self::Stray(first), first.len_utf8()),
            len => (Self::Word(text[..len].to_owned()), len),
        }
    }
}

/// What stands between the quotes that a text begins with, and its length with them.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut inner = String::new();
    let mut rest = &text[1..];
    loop {
        let end = rest.find(quote)?;
        inner.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix(quote) {
            Some(after_pair) => {
                inner.push(quote);
                rest = after_pair;
            }
            None => return Some((inner, text.len() - rest.len())),
        }
    }
}

/// A whole number with a unit of PostgreSQL's; without one it counts seconds.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let number: u64 = number.parse().ok()?;
    let duration = match unit.trim_start() {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "min" => Duration::from_secs(number.checked_mul(60)?),
        "h" => Duration::from_secs(number.checked_mul(3_600)?),
        "d" => Duration::from_secs(number.checked_mul(86_400)?),
        _ => return None,
    };
    (duration <= LONGEST).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart() {
        let mut tokens = Tokens::new(" Kill \"a \"\"b\" 'it''s' != 10.0.0.0/8;");
        assert!(!tokens.keyword("kil") && tokens.keyword("KILL"));
        assert_eq!(tokens.value("x").as_deref(), Ok("a \"b"));
        assert_eq!(tokens.value("x").as_deref(), Ok("it's"));
        assert!(!tokens.sign("=") && tokens.sign("!="));
        assert_eq!(tokens.name("x").as_deref(), Ok("10.0.0.0/8"));
        assert_eq!(tokens.end(), Ok(()));
    }

    #[test]
    fn times_have_units() {
        let times = [
            ("90", Some(90_000)),
            ("90s", Some(90_000)),
            ("'5min'", Some(300_000)),
            ("'1 h'", Some(3_600_000)),
            ("2d", Some(172_800_000)),
            ("250ms", Some(250)),
            ("5m", None),
            ("min", None),
            ("-5s", None),
            ("1.5h", None),
            ("99999999999d", None),
            ("40000d", None),
        ];
        for (text, millis) in times {
            let time = Tokens::new(text).time().ok();
            assert_eq!(time, millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn errors_say_where() {
        let error = |text: &str| Tokens::new(text).name("a name").unwrap_err().to_string();
        assert_eq!(error(""), "syntax error at the end: a name is expected");
        assert_eq!(error("''"), "syntax error at \"\": a name is expected");
        assert_eq!(error("= a"), "syntax error at \"=\": a name is expected");
        assert_eq!(error("(a"), "syntax error at \"(\": a name is expected");
        assert_eq!(
            error("'a"),
            "syntax error at a quote without its end: a name is expected"
        );
    }
}
