//! Which series an expression of Prometheus asks for: a small scanner, enough for the expressions that are shipped.

/// A series with its matchers, as an expression names it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Selector {
    /// The series.
    pub name: String,
    /// Label, operator and value of each matcher.
    pub matchers: Vec<(String, String, String)>,
}

/// What an expression asks for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Asked {
    /// Its series.
    pub selectors: Vec<Selector>,
    /// The labels in `by (...)`, `without (...)` and their like.
    pub groupings: Vec<String>,
}

/// Words that are no series where they stand without parentheses.
const WORDS: [&str; 5] = ["and", "or", "unless", "offset", "bool"];

/// Words before a list of labels.
const LISTS: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// Reads an expression.
///
/// # Panics
/// If a string or a bracket does not end.
#[track_caller]
pub fn scan(expression: &str) -> Asked {
    let mut asked = Asked::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '"' => quoted(rest).1,
            '[' => rest.split_once(']').expect(expression).1,
            '{' => panic!("a selector without a name: {expression}"),
            first if first.is_ascii_digit() => rest.trim_start_matches(is_name),
            first if is_name(first) => word(rest, &mut asked),
            first => &rest[first.len_utf8()..],
        };
    }
    asked
}

fn is_name(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | ':')
}

/// A name or a word, with what belongs to it; what follows.
fn word<'a>(text: &'a str, asked: &mut Asked) -> &'a str {
    let end = text.find(|character| !is_name(character));
    let (name, after) = text.split_at(end.unwrap_or(text.len()));
    let next = after.trim_start();
    if LISTS.contains(&name) {
        let Some(inside) = next.strip_prefix('(') else {
            return after;
        };
        let (labels, after) = inside.split_once(')').expect(text);
        let labels = labels.split(',').map(|label| label.trim().to_owned());
        asked
            .groupings
            .extend(labels.filter(|label| !label.is_empty()));
        return after;
    }
    let is_aggregation = ["by", "without"].iter().any(|list| {
        next.strip_prefix(list)
            .is_some_and(|rest| !rest.starts_with(is_name))
    });
    if next.starts_with('(') || is_aggregation || WORDS.contains(&name) {
        return after;
    }
    let (matchers, after) = match next.strip_prefix('{') {
        Some(inside) => matchers(inside),
        None => (Vec::new(), after),
    };
    let name = name.to_owned();
    asked.selectors.push(Selector { name, matchers });
    after
}

/// What stands between braces, and what follows.
fn matchers(text: &str) -> (Vec<(String, String, String)>, &str) {
    let (mut found, mut rest) = (Vec::new(), text);
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return (found, after);
        }
        let end = rest.find(|character| !is_name(character)).expect(text);
        let (label, after) = rest.split_at(end);
        let at = after.find('"').expect(text);
        let (operator, after) = after.split_at(at);
        let (value, after) = quoted(after);
        found.push((label.to_owned(), operator.trim().to_owned(), value));
        rest = after;
    }
}

/// The string that begins here, and what follows. Backslashes stay.
fn quoted(text: &str) -> (String, &str) {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (text[1..at].to_owned(), &text[at + 1..]),
            '\\' => drop(characters.next()),
            _ => {}
        }
    }
    panic!("a string does not end: {text}")
}

#[cfg(test)]
mod tests {
    use super::{Asked, Selector, scan};

    #[test]
    fn series_matchers_and_groupings_are_told_apart() {
        let asked = scan(
            "histogram_quantile(0.95, sum by (job, le) (rate(a_bucket{x=\"1\", y=~\"b|c\"}[5m])))\n > 14.4 * 0.001 \
             and on (z) pgweir:b offset 5m or label_replace(c, \"d\", \"$1\", \"e\", \"(.*)\") unless up == 0",
        );
        let series = |name: &str| Selector {
            name: name.to_owned(),
            matchers: Vec::new(),
        };
        let matcher = |label: &str, operator: &str, value: &str| {
            (label.to_owned(), operator.to_owned(), value.to_owned())
        };
        let with_matchers = Selector {
            matchers: vec![matcher("x", "=", "1"), matcher("y", "=~", "b|c")],
            ..series("a_bucket")
        };
        assert_eq!(
            asked,
            Asked {
                selectors: vec![with_matchers, series("pgweir:b"), series("c"), series("up")],
                groupings: ["job", "le", "z"].map(str::to_owned).to_vec(),
            }
        );
    }
}
