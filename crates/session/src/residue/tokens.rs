//! SQL cut into what matters for [`scan`](super::scan): words, names, literals, symbols.

/// A piece of SQL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Token<'a> {
    /// A key word or a name.
    Word(&'a [u8]),
    /// A name in quotes, without them.
    Quoted(&'a [u8]),
    /// A literal in quotes of any kind, without them.
    Literal(&'a [u8]),
    /// A number or a parameter (`$1`).
    Number,
    /// Anything else, byte by byte.
    Symbol(u8),
}

/// Cuts a text up to its end or its first zero byte.
#[derive(Clone, Debug)]
pub(crate) struct Tokens<'a> {
    rest: &'a [u8],
    /// Something can be read in two ways, or in one that is not known here.
    pub(crate) unreadable: bool,
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(text: &'a [u8]) -> Self {
        Self {
            rest: text,
            unreadable: false,
        }
    }

    /// What has not been cut yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// The first token is already there; the next one is looked at without being taken.
    pub(crate) fn peek(&self) -> Option<Token<'a>> {
        self.clone().next()
    }

    /// A literal that begins here and ends at the next single quote; doubled quotes are a literal
    /// behind a literal, which is the same for whoever only wants to know where it ends.
    fn plain_literal(&mut self) -> Token<'a> {
        let inner = &self.rest[1..];
        let Some(len) = inner.iter().position(|&byte| byte == b'\'') else {
            self.unreadable = true;
            self.rest = &[];
            return Token::Literal(inner);
        };
        // With standard_conforming_strings = off this quote would not end the literal.
        self.unreadable |= len > 0 && inner[len - 1] == b'\\';
        self.take(len + 2);
        Token::Literal(&inner[..len])
    }

    /// `E'...'`, from its quote on.
    fn escaped_literal(&mut self) -> Token<'a> {
        let inner = &self.rest[1..];
        let mut at = 0;
        while at < inner.len() {
            match inner[at] {
                b'\\' => at += 2,
                b'\'' => {
                    self.take(at + 2);
                    return Token::Literal(&inner[..at]);
                }
                _ => at += 1,
            }
        }
        self.unreadable = true;
        self.rest = &[];
        Token::Literal(inner)
    }

    fn quoted(&mut self) -> Token<'a> {
        let inner = &self.rest[1..];
        let Some(len) = inner.iter().position(|&byte| byte == b'"') else {
            self.unreadable = true;
            self.rest = &[];
            return Token::Quoted(inner);
        };
        self.take(len + 2);
        // A quote within a name: no name that is looked for has one, but what is cut here is not it.
        self.unreadable |= self.rest.first() == Some(&b'"');
        Token::Quoted(&inner[..len])
    }

    /// `$1`, `$$...$$` or `$tag$...$tag$`.
    fn dollar(&mut self) -> Token<'a> {
        let name = self.rest[1..].iter().position(|&byte| !is_word(byte));
        let Some(len) = name else {
            self.rest = &[];
            return Token::Number;
        };
        let opening = &self.rest[..len + 2];
        let is_tag = self.rest[len + 1] == b'$' && !self.rest[1].is_ascii_digit();
        if !is_tag {
            self.take(len + 1);
            return Token::Number;
        }
        let inner = &self.rest[opening.len()..];
        let end = inner
            .windows(opening.len())
            .position(|window| window == opening);
        match end {
            Some(end) => {
                self.take(end + 2 * opening.len());
                Token::Literal(&inner[..end])
            }
            None => {
                self.unreadable = true;
                self.rest = &[];
                Token::Literal(inner)
            }
        }
    }

    fn line_comment(&mut self) {
        let end = self
            .rest
            .iter()
            .position(|&byte| matches!(byte, b'\n' | b'\r'));
        self.take(end.unwrap_or(self.rest.len()));
    }

    /// Comments of this kind nest.
    fn block_comment(&mut self) {
        let (mut depth, mut at) = (0_u32, 0);
        while at < self.rest.len() {
            match &self.rest[at..] {
                [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
                [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
                _ => at += 1,
            }
            if depth == 0 {
                break;
            }
        }
        self.take(at);
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    #[inline]
    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            let first = *self.rest.first()?;
            match first {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => {
                    self.rest = &self.rest[1..];
                }
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => {
                    let len = self
                        .rest
                        .iter()
                        .position(|&byte| !is_word(byte) && byte != b'$');
                    let word = self.take(len.unwrap_or(self.rest.len()));
                    return Some(match (word, self.rest) {
                        ([b'E' | b'e'], [b'\'', ..]) => self.escaped_literal(),
                        ([b'U' | b'u'], [b'&', b'"', ..]) => {
                            self.unreadable = true;
                            Token::Word(word)
                        }
                        ([_], [b'\'', ..]) => self.plain_literal(),
                        _ => Token::Word(word),
                    });
                }
                b'0'..=b'9' => {
                    let more = |byte: u8| is_word(byte) || byte == b'.';
                    let len = self.rest.iter().position(|&byte| !more(byte));
                    self.take(len.unwrap_or(self.rest.len()));
                    return Some(Token::Number);
                }
                b'\'' => return Some(self.plain_literal()),
                b'"' => return Some(self.quoted()),
                b'$' => return Some(self.dollar()),
                0 => return None,
                b'-' if self.rest.get(1) == Some(&b'-') => self.line_comment(),
                b'/' if self.rest.get(1) == Some(&b'*') => self.block_comment(),
                symbol => {
                    self.rest = &self.rest[1..];
                    return Some(Token::Symbol(symbol));
                }
            }
        }
    }
}

#[inline]
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sql: &str) -> Vec<String> {
        let tokens = Tokens::new(sql.as_bytes());
        let shown = tokens.map(|token| match token {
            Token::Word(word) => String::from_utf8_lossy(word).into_owned(),
            Token::Quoted(name) => format!("\"{}\"", String::from_utf8_lossy(name)),
            Token::Literal(text) => format!("'{}'", String::from_utf8_lossy(text)),
            Token::Number => "#".to_owned(),
            Token::Symbol(byte) => char::from(byte).to_string(),
        });
        shown.collect()
    }

    #[test]
    fn what_is_no_command_is_not_taken_for_one() {
        for (sql, expected) in [
            ("a -- set x\n b", "a b"),
            ("a /* set /* x */ y */ b", "a b"),
            ("'set' 'it''s' b", "'set' 'it' 's' b"),
            (r"E'it\'s' e'\\' b", r"'it\'s' '\\' b"),
            ("$$set x$$ $a$ $$ $a$ $1 b", "'set x' ' $$ ' # b"),
            ("\"Set\" x1.5 1.5e3 a$b", "\"Set\" x1 . # # a$b"),
            ("N'n' B'1' x = 1", "'n' '1' x = #"),
            ("a\0b", "a"),
        ] {
            assert_eq!(words(sql).join(" "), expected, "{sql}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_told() {
        let unreadable = |sql: &str| {
            let mut tokens = Tokens::new(sql.as_bytes());
            tokens.by_ref().for_each(drop);
            tokens.unreadable
        };
        for sql in [
            r"'a\'",
            "'a",
            "$$a",
            "\"a",
            "U&\"a\"",
            "\"a\"\"b\"",
            r"E'\'",
        ] {
            assert!(unreadable(sql), "{sql}");
        }
        for sql in [r"'\d+'", "'a'", "$$a$$", "a -- b", "/* a", "u&'a'"] {
            assert!(!unreadable(sql), "{sql}");
        }
    }
}
