//! What the console answers: rows and columns of text.

/// The answer to one statement.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Table {
    /// Names of the columns.
    pub(crate) columns: Vec<String>,
    /// Values, one list a row.
    pub(crate) cells: Vec<Vec<Option<String>>>,
    /// What the completion counts: clients that an order ended, for example.
    pub(crate) count: u64,
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row<'a> {
    columns: &'a [String],
    cells: &'a [Option<String>],
}

impl Table {
    pub(crate) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.cells.iter().map(|cells| Row {
            columns: &self.columns,
            cells,
        })
    }

    /// The first row where a column has this value.
    pub(crate) fn find(&self, column: &str, value: &str) -> Option<Row<'_>> {
        self.rows().find(|row| row.text(column) == value)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The rows of which a predicate holds.
    pub(crate) fn only(&self, keep: impl Fn(Row<'_>) -> bool) -> Self {
        let row = |cells| Row {
            columns: &self.columns,
            cells,
        };
        let kept = self.cells.iter().filter(|cells| keep(row(cells)));
        Self {
            columns: self.columns.clone(),
            cells: kept.cloned().collect(),
            count: self.count,
        }
    }
}

impl<'a> Row<'a> {
    /// The value of a column; nothing for NULL, and where there is no such column: an older pooler may
    /// not have it.
    pub(crate) fn get(self, column: &str) -> Option<&'a str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.cells.get(at)?.as_deref()
    }

    /// The same, as a text that may be empty.
    pub(crate) fn text(self, column: &str) -> &'a str {
        self.get(column).unwrap_or_default()
    }

    /// The same, as a number.
    pub(crate) fn number(self, column: &str) -> Option<u64> {
        self.get(column)?.trim().parse().ok()
    }

    /// The same, where nothing counts as none.
    pub(crate) fn count(self, column: &str) -> u64 {
        self.number(column).unwrap_or(0)
    }

    /// Columns with their values.
    pub(crate) fn fields(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let columns = self.columns.iter().map(String::as_str);
        columns.zip(self.cells.iter().map(Option::as_deref))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::table;

    #[test]
    fn values_are_asked_for_by_name() {
        let table = table("database used limit\nshop 3 -\nblog 1 4");
        let shop = table.find("database", "shop").expect("the first row");
        assert_eq!(shop.number("used"), Some(3));
        assert_eq!(shop.number("limit"), None);
        assert_eq!(shop.count("no_such_column"), 0);
        let limited = table.only(|row| row.get("limit").is_some());
        assert_eq!(limited.cells.len(), 1);
    }
}
