//! The lists of what is ours, within the page that a hand has written about the differences to PgBouncer.

use std::fmt::Write as _;

use pgweir_config::{Scope as _, Settings};
use pgweir_console::{ORDERS, outlines};

const PAGE: &str = include_str!("../../../docs/differences.md");

pub(super) fn page() -> String {
    let page = between(PAGE, "keys", &keys());
    between(&page, "console", &console())
}

/// The page with other text between the two marks of a name; as it is, if they are not there.
fn between(page: &str, name: &str, text: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name}: written by `cargo xtask docs` -->\n"),
        format!("<!-- end of {name} -->\n"),
    );
    let parts = page.split_once(&begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(&end)?;
        Some((before, after))
    });
    match parts {
        Some((before, after)) => format!("{before}{begin}\n{text}\n{end}{after}"),
        None => format!("The marks of {name} are gone.\n{page}"),
    }
}

fn keys() -> String {
    let mut list = String::from("| key | in an ini file | in a TOML file |\n|---|---|---|\n");
    let shown = |default: &str| match default {
        "" => "empty".to_owned(),
        default => format!("`{default}`"),
    };
    for key in Settings::KEYS {
        if let (Some(ini), Some(native)) = (key.default, key.native) {
            let name = key.name;
            let _ = writeln!(list, "| `{name}` | {} | {} |", shown(ini), shown(native));
        }
    }
    list
}

fn console() -> String {
    let mut list = String::new();
    for order in ORDERS {
        let _ = writeln!(list, "- `{}`", order.form);
    }
    let tables = outlines().into_iter().map(|outline| outline.show);
    for table in tables.filter(|table| table.is_native()) {
        let _ = writeln!(list, "- `SHOW {}`", table.word().to_uppercase());
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_marks() {
        assert!(page().starts_with("# What differs from PgBouncer\n"));
    }
}
