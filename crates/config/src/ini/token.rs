//! What a file consists of: sections, pairs, includes, and lines that are none of these.

/// What a file consists of.
#[derive(Debug, PartialEq)]
pub(super) enum Token<'a> {
    Section {
        name: &'a str,
        line: usize,
    },
    Pair {
        name: &'a str,
        value: &'a str,
        line: usize,
    },
    Include {
        target: &'a str,
        line: usize,
    },
    Broken {
        line: usize,
        why: Broken,
    },
}

/// Why a line is none of those.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Broken {
    OpenSection,
    OpenQuote,
    NoName,
    NoEquals,
    ZeroByte,
}

impl Broken {
    pub(super) fn hint(self) -> String {
        match self {
            Self::OpenSection => "the section's name has no \"]\"",
            Self::OpenQuote => "the name's quote is not closed",
            Self::NoName => {
                "expected a name of letters, digits and _.-* or one in single quotes before \"=\""
            }
            Self::NoEquals => "expected \"=\" after the name",
            Self::ZeroByte => "the line contains a zero byte",
        }
        .to_owned()
    }
}

/// The tokens of a text, in order, and on after broken lines.
pub(super) struct Tokens<'a> {
    rest: &'a str,
    line: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            line: 1,
        }
    }

    /// Drops what precedes the next token: white space, empty lines and comments.
    fn skip_to_token(&mut self) {
        loop {
            let token = self.rest.trim_start_matches(is_space);
            let skipped = &self.rest[..self.rest.len() - token.len()];
            self.line += skipped.bytes().filter(|byte| *byte == b'\n').count();
            self.rest = token;
            if !token.starts_with(['#', ';']) {
                return;
            }
            self.take_line();
        }
    }

    /// Takes the rest of the line, without the blanks at its end.
    fn take_line(&mut self) -> &'a str {
        let (line, rest) = self
            .rest
            .split_at(self.rest.find('\n').unwrap_or(self.rest.len()));
        self.rest = rest;
        line.trim_end_matches(is_space)
    }

    /// A section may be followed by another token on its line, everything else may not.
    fn token(&mut self) -> Result<Token<'a>, Broken> {
        let line = self.line;
        if let Some(after) = self
            .rest
            .strip_prefix("%include")
            .filter(|s| s.starts_with(is_blank))
        {
            self.rest = after;
            return Ok(Token::Include {
                target: self.take_line().trim_start_matches(is_blank),
                line,
            });
        }
        if let Some(after) = self.rest.strip_prefix('[') {
            let end = after.find([']', '\n']).ok_or(Broken::OpenSection)?;
            let (name, after) = after.split_at(end);
            self.rest = after.strip_prefix(']').ok_or(Broken::OpenSection)?;
            return Ok(Token::Section { name, line });
        }
        let text = self.take_line();
        if text.contains('\0') {
            return Err(Broken::ZeroByte);
        }
        let (name, after) = split_name(text)?;
        let value = after
            .trim_start_matches(is_blank)
            .strip_prefix('=')
            .ok_or(Broken::NoEquals)?;
        Ok(Token::Pair {
            name,
            value: value.trim_start_matches(is_blank),
            line,
        })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_to_token();
        if self.rest.is_empty() {
            return None;
        }
        let line = self.line;
        Some(self.token().unwrap_or_else(|why| {
            self.take_line();
            Token::Broken { line, why }
        }))
    }
}

fn split_name(text: &str) -> Result<(&str, &str), Broken> {
    let (name, after) = match text.strip_prefix('\'') {
        Some(quoted) => quoted.split_once('\'').ok_or(Broken::OpenQuote)?,
        None => {
            let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-*".contains(c);
            text.split_at(text.find(|c| !is_name(c)).unwrap_or(text.len()))
        }
    };
    if name.is_empty() {
        return Err(Broken::NoName);
    }
    Ok((name, after))
}

/// C's `isspace`.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

/// C's `isblank`.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        Tokens::new(text).collect()
    }

    fn pair<'a>(name: &'a str, value: &'a str, line: usize) -> Token<'a> {
        Token::Pair { name, value, line }
    }

    #[test]
    fn comments_stand_only_at_the_start_of_a_line() {
        let text = "; one\n  # two\nlisten_addr = 127.0.0.1 ; not a comment\n";
        assert_eq!(
            tokens(text),
            [pair("listen_addr", "127.0.0.1 ; not a comment", 3)]
        );
    }

    #[test]
    fn everything_may_be_indented_and_end_in_blanks() {
        let text = "\n  [databases]\r\n\tp0 =  port=1 \t\r\n";
        let section = Token::Section {
            name: "databases",
            line: 2,
        };
        assert_eq!(tokens(text), [section, pair("p0", "port=1", 3)]);
    }

    #[test]
    fn names_may_be_quoted_singly_but_not_doubly() {
        assert_eq!(tokens("'quo ted' = x"), [pair("quo ted", "x", 1)]);
        let broken = Token::Broken {
            line: 1,
            why: Broken::NoName,
        };
        assert_eq!(tokens("\"quo ted\" = x"), [broken]);
    }

    #[test]
    fn values_keep_their_quotes_and_backslashes() {
        assert_eq!(
            tokens("c = \"HIGH:!aNULL\""),
            [pair("c", "\"HIGH:!aNULL\"", 1)]
        );
        assert_eq!(
            tokens("bar = host=a \\\nx=1"),
            [pair("bar", "host=a \\", 1), pair("x", "1", 2)]
        );
    }

    #[test]
    fn values_may_be_empty() {
        assert_eq!(
            tokens("test2 =\ntest3 = \n"),
            [pair("test2", "", 1), pair("test3", "", 2)]
        );
    }

    #[test]
    fn includes_need_a_blank() {
        let include = Token::Include {
            target: "other file.ini",
            line: 1,
        };
        assert_eq!(tokens("%include  other file.ini  \n"), [include]);
        let broken = Token::Broken {
            line: 1,
            why: Broken::NoName,
        };
        assert_eq!(tokens("%includeother.ini"), [broken]);
    }

    #[test]
    fn a_section_may_share_its_line() {
        let section = Token::Section {
            name: "users",
            line: 1,
        };
        assert_eq!(
            tokens("[users] a = pool_size=1"),
            [section, pair("a", "pool_size=1", 1)]
        );
    }

    #[test]
    fn broken_lines_are_told_apart_and_reading_goes_on() {
        let text = "[open\n'open = 1\nname\n= 1\na\0 = 1\nb = 1";
        let why = [
            Broken::OpenSection,
            Broken::OpenQuote,
            Broken::NoEquals,
            Broken::NoName,
            Broken::ZeroByte,
        ];
        let broken = why.into_iter().enumerate();
        let mut expected: Vec<Token<'_>> = broken
            .map(|(index, why)| Token::Broken {
                line: index + 1,
                why,
            })
            .collect();
        expected.push(pair("b", "1", 6));
        assert_eq!(tokens(text), expected);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]'=;#%a \n\r\0é]*") {
            tokens(&text);
        }

        #[test]
        fn lines_are_counted(blank in 0usize..9, name in "[a-z_.*-]{1,9}", value in "[!-~]{1,9}") {
            let text = format!("{}{name} = {value}\n", "\n".repeat(blank));
            prop_assert_eq!(tokens(&text), [pair(&name, &value, blank + 1)]);
        }
    }
}
