//! Names and texts as the console, and a shell, read them.

use std::time::Duration;

/// A name in double quotes.
pub(crate) fn name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in single quotes.
pub(crate) fn text(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A word of a command line.
pub(crate) fn shell(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A time, in milliseconds.
pub(crate) fn time(time: Duration) -> String {
    format!("'{}ms'", time.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_doubled() {
        assert_eq!(name("a\"b"), "\"a\"\"b\"");
        assert_eq!(text("it's"), "'it''s'");
        assert_eq!(shell("it's"), r"'it'\''s'");
        assert_eq!(time(Duration::from_secs(90)), "'90000ms'");
    }
}
