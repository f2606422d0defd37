//! Lists of words.

use super::{Invalid, Kind, Value};

/// Words divided by commas or white space, kept as they were written. Lists of the same words are
/// the same.
#[derive(Debug, Clone, Eq, Default)]
pub struct List(String);

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl List {
    /// The words, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0
            .split(|c: char| c == ',' || c.is_ascii_whitespace())
            .filter(|word| !word.is_empty())
    }

    /// Whether `word` stands in the list.
    pub fn contains(&self, word: &str) -> bool {
        self.iter().any(|listed| listed == word)
    }

    /// Whether `name` stands in the list: a word, or all that stands between two commas, because names may have blanks.
    pub fn names(&self, name: &str) -> bool {
        let mut between_commas = self.0.split(',').map(str::trim);
        !name.is_empty() && (self.contains(name) || between_commas.any(|listed| listed == name))
    }

    /// Whether no word stands in the list.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The text as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Value for List {
    const KIND: Kind = Kind::List;

    fn parse(text: &str) -> Result<Self, Invalid> {
        String::parse(text).map(Self)
    }

    fn show(&self) -> Option<String> {
        Some(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_keep_their_text_and_divide_at_commas_and_blanks() {
        let list = List::parse("a b, PostgreSQL JDBC Driver,c").expect("a list");
        for name in ["a", "b", "PostgreSQL JDBC Driver", "c"] {
            assert!(list.names(name), "{name}");
        }
        assert!(!list.names("") && !list.names("d"));
        let list = List::parse(" search_path, intervalstyle").expect("a list");
        assert_eq!(
            list.iter().collect::<Vec<_>>(),
            ["search_path", "intervalstyle"]
        );
        assert_eq!(list.show().as_deref(), Some(" search_path, intervalstyle"));
        assert_eq!(List::parse("search_path intervalstyle"), Ok(list.clone()));
        assert!(!list.contains("search"));
    }
}
