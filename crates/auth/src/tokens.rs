//! The words of a line in an HBA or ident file.
//!
//! Words are separated by blanks or by a comma, which is a word of its own. Quotes make any text
//! one word, `""` inside them is one quote, and `#` outside of them begins a comment. Where a
//! quote follows a word without a blank, a new word begins.

use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A word without quotes; only such can be a keyword.
    Word(&'a str),
    /// A word that stood in quotes.
    Quoted(String),
    Comma,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a quote is not closed")]
pub(crate) struct OpenQuote;

/// The words of one line, with one to look at before it is taken.
pub(crate) struct Tokens<'a> {
    rest: &'a str,
    next: Option<Token<'a>>,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(line: &'a str) -> Result<Self, OpenQuote> {
        let mut tokens = Self {
            rest: line,
            next: None,
        };
        tokens.advance()?;
        Ok(tokens)
    }

    pub(crate) fn peek(&self) -> Option<&Token<'a>> {
        self.next.as_ref()
    }

    pub(crate) fn take(&mut self) -> Result<Option<Token<'a>>, OpenQuote> {
        let token = self.next.take();
        self.advance()?;
        Ok(token)
    }

    /// The text behind the word that would be taken next.
    pub(crate) fn rest(&self) -> &'a str {
        self.rest
    }

    fn advance(&mut self) -> Result<(), OpenQuote> {
        let text = self.rest.trim_start_matches(is_blank);
        let (token, rest) = match text.chars().next() {
            None | Some('#') => (None, ""),
            Some(',') => (Some(Token::Comma), text.get(1..).unwrap_or_default()),
            Some('"') => {
                let (word, rest) = unquote(text.get(1..).unwrap_or_default())?;
                (Some(Token::Quoted(word)), rest)
            }
            Some(_) => {
                let end = text
                    .find(|c| is_blank(c) || matches!(c, ',' | '#' | '"'))
                    .unwrap_or(text.len());
                let (word, rest) = text.split_at(end);
                (Some(Token::Word(word)), rest)
            }
        };
        self.next = token;
        self.rest = rest;
        Ok(())
    }
}

/// Takes a word up to its closing quote, and what follows that.
pub(crate) fn unquote(text: &str) -> Result<(String, &str), OpenQuote> {
    let mut word = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"').ok_or(OpenQuote)?;
        word.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                word.push('"');
                rest = more;
            }
            None => return Ok((word, after)),
        }
    }
}

/// C's `isspace`.
fn is_blank(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(line: &str) -> Result<Vec<Token<'_>>, OpenQuote> {
        let mut tokens = Tokens::new(line)?;
        let mut words = Vec::new();
        while let Some(word) = tokens.take()? {
            words.push(word);
        }
        Ok(words)
    }

    #[test]
    fn words_quotes_commas_and_comments() {
        use Token::{Comma, Quoted, Word};
        assert_eq!(all("  \t # nothing"), Ok(vec![]));
        assert_eq!(
            all("a,b \"c , \"\"d\"\"\" e\"f\"#g"),
            Ok(vec![
                Word("a"),
                Comma,
                Word("b"),
                Quoted("c , \"d\"".into()),
                Word("e"),
                Quoted("f".into())
            ])
        );
        assert_eq!(all("\"\""), Ok(vec![Quoted(String::new())]));
        assert_eq!(all("a \"b"), Err(OpenQuote));
    }

    proptest! {
        #[test]
        fn any_quoted_text_comes_back(text in "\\PC*") {
            let line = format!("\"{}\"", text.replace('"', "\"\""));
            prop_assert_eq!(all(&line), Ok(vec![Token::Quoted(text)]));
        }

        #[test]
        fn no_line_panics(line in "[a\", #é\t]*") {
            let _ = all(&line);
        }
    }
}
