//! What psql answered, as rows and columns.

use std::fmt;

/// psql's unaligned format with these never meets them in a value.
pub(crate) const FIELD: char = '\u{1f}';
pub(crate) const RECORD: char = '\u{1e}';

/// The answer to one query, all values as text; NULL is the empty text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The values, one list a row.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The rows, whose values can be asked for by column name.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row {
            columns: &self.columns,
            values,
        })
    }

    /// The first row where a column has this value.
    pub fn find(&self, column: &str, value: &str) -> Option<Row<'_>> {
        self.iter().find(|row| row.get(column) == Some(value))
    }

    pub(crate) fn parse(text: &str) -> Self {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let mut records = text
            .split(RECORD)
            .map(|record| record.split(FIELD).map(str::to_owned).collect());
        let columns = records.next().unwrap_or_default();
        Self {
            columns,
            rows: records.collect(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| {
            lines()
                .filter_map(|line| line.get(column))
                .map(|value| value.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| width(column).unwrap_or(0))
            .collect();
        for line in lines() {
            let cells: Vec<String> = line
                .iter()
                .zip(&widths)
                .map(|(value, width)| format!("{value:<width$}"))
                .collect();
            writeln!(f, "{}", cells.join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// One row of a [`Table`].
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    columns: &'a [String],
    values: &'a [String],
}

impl<'a> Row<'a> {
    /// The value of a column, or nothing if there is no such column.
    pub fn get(&self, column: &str) -> Option<&'a str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.values.get(at).map(String::as_str)
    }

    /// The value of a column as a number.
    ///
    /// # Panics
    /// If there is no such column, or no number in it.
    #[track_caller]
    pub fn number(&self, column: &str) -> i64 {
        let value = self.get(column);
        match value.map(str::parse) {
            Some(Ok(number)) => number,
            _ => panic!(
                "column {column} is no number: {value:?} in {:?}",
                self.values
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools() -> Table {
        Table::parse("database\u{1f}cl_active\u{1e}app\u{1f}3\u{1e}other\u{1f}0\n")
    }

    #[test]
    fn finds_values_by_column_name() {
        let pools = pools();
        let app = pools.find("database", "app").expect("the row of app");
        assert_eq!(app.number("cl_active"), 3);
        assert_eq!(app.get("no_such_column"), None);
    }

    #[test]
    fn a_table_without_rows_still_has_columns() {
        let table = Table::parse("a\u{1f}b\n");
        assert_eq!((table.columns.len(), table.rows.len()), (2, 0));
    }

    #[test]
    fn prints_aligned_columns() {
        assert_eq!(
            pools().to_string(),
            "database  cl_active\napp       3\nother     0\n"
        );
    }
}
