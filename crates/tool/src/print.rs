//! How answers are written: aligned text, or JSON.

use std::io::Write as _;

use serde_json::{Map, Value};

use crate::table::{Row, Table};

/// Columns that hold text, also where it looks like a number.
const TEXT: [&str; 12] = [
    "application_name",
    "cause",
    "database",
    "detail",
    "first_statement",
    "last_statement",
    "message",
    "reverts_to",
    "subject",
    "text",
    "user",
    "value",
];

/// Writes to standard output. Nobody has to read it.
pub(crate) fn out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    let _ = out.flush();
}

/// Writes a document to standard output.
pub(crate) fn json(value: &Value) {
    out(&format!("{value:#}\n"));
}

/// A table as a list of objects.
pub(crate) fn as_json(table: &Table) -> Value {
    table.rows().map(row_as_json).collect()
}

pub(crate) fn row_as_json(row: Row<'_>) -> Value {
    let fields = row.fields();
    let object: Map<String, Value> = fields
        .map(|(column, value)| (column.to_owned(), cell_as_json(column, value)))
        .collect();
    object.into()
}

fn cell_as_json(column: &str, value: Option<&str>) -> Value {
    let Some(value) = value else {
        return Value::Null;
    };
    let number = || value.parse::<i64>().ok();
    match (TEXT.contains(&column), value) {
        (false, "yes") => true.into(),
        (false, "no") => false.into(),
        (false, _) => number().map_or_else(|| value.into(), Value::from),
        (true, _) => value.into(),
    }
}

/// Lines whose columns begin at the same place; the first line is the heading.
pub(crate) fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(&widths);
        let cells: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Some columns of a table, aligned.
pub(crate) fn columns(table: &Table, wanted: &[&str]) -> String {
    let heading = wanted.iter().map(|&name| name.to_owned()).collect();
    let mut lines = vec![heading];
    for row in table.rows() {
        lines.push(
            wanted
                .iter()
                .map(|name| row.text(name).to_owned())
                .collect(),
        );
    }
    aligned(&lines)
}

/// `1 client`, `2 clients`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        count => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::table;

    #[test]
    fn columns_begin_at_the_same_place() {
        let table = table("name used\nopen~files 7\nx 12");
        assert_eq!(
            columns(&table, &["name", "used"]),
            "name        used\nopen files  7\nx           12\n"
        );
    }

    #[test]
    fn numbers_are_numbers_unless_they_are_names() {
        let table = table("database used limit binding\n7 3 - yes");
        let value = as_json(&table);
        assert_eq!(
            value.to_string(),
            r#"[{"binding":true,"database":"7","limit":null,"used":3}]"#
        );
    }

    #[test]
    fn things_are_counted() {
        assert_eq!(counted(1, "client"), "1 client");
        assert_eq!(counted(0, "client"), "0 clients");
    }
}
