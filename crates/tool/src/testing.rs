//! Tables for tests, written as text.

use crate::table::Table;

/// Columns in the first line, then rows; words are divided by blanks, `~` is a blank in a word, `-` is NULL.
pub(crate) fn table(text: &str) -> Table {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let columns = lines.next().unwrap_or_default();
    let cell = |word: &str| (word != "-").then(|| word.replace('~', " "));
    Table {
        columns: columns.split_whitespace().map(str::to_owned).collect(),
        cells: lines
            .map(|line| line.split_whitespace().map(cell).collect())
            .collect(),
        count: 0,
    }
}
