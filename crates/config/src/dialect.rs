//! Which of the two languages a configuration file is written in.

/// A language of configuration files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// PgBouncer's.
    #[default]
    Ini,
    /// Our own.
    Toml,
}

/// Tells the language from the content alone; the file's name does not count.
///
/// The first line that only one of the two can have decides:
///
/// 1. `[pgbouncer]`, a comment with `;`, or `%include`: ini;
/// 2. `[pgweir]`, `[databases.NAME]`, `[users.NAME]` or `[peers.N]`: TOML;
/// 3. any line, headers aside, that is not TOML on its own (`foodb = host=db1`): ini.
///
/// If no line decides, a text that has a key and is valid TOML is TOML. Everything else, above all
/// an empty file, is ini.
pub fn sniff(text: &str) -> Dialect {
    // Editors of some systems put a byte order mark before the first line.
    let lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let telling = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut has_key = false;
    for line in telling {
        has_key |= !line.starts_with('[');
        if let Some(dialect) = decided_by(line) {
            return dialect;
        }
    }
    if has_key && is_toml(text) {
        Dialect::Toml
    } else {
        Dialect::Ini
    }
}

fn decided_by(line: &str) -> Option<Dialect> {
    if line.starts_with([';', '%']) {
        return Some(Dialect::Ini);
    }
    let Some(header) = line.strip_prefix('[') else {
        return (!is_toml(line)).then_some(Dialect::Ini);
    };
    let header = header.trim_start();
    if header.starts_with("pgbouncer]") {
        return Some(Dialect::Ini);
    }
    let tables = ["pgweir]", "databases.", "users.", "peers."];
    tables
        .iter()
        .any(|table| header.starts_with(table))
        .then_some(Dialect::Toml)
}

fn is_toml(text: &str) -> bool {
    ::toml::de::DeTable::parse(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pgbouncer_section_means_ini() {
        assert_eq!(
            sniff("# c\n\n [pgbouncer]\nlisten_port = 6432\n"),
            Dialect::Ini
        );
    }

    #[test]
    fn semicolons_and_includes_mean_ini() {
        assert_eq!(sniff(";; comment\n[pgweir]\n"), Dialect::Ini);
        assert_eq!(sniff("%include other.ini\n"), Dialect::Ini);
    }

    #[test]
    fn our_tables_mean_toml() {
        assert_eq!(sniff("[pgweir]\nworkers = 2\n"), Dialect::Toml);
        assert_eq!(sniff("# c\n[databases.app]\nhost = 'db1'\n"), Dialect::Toml);
    }

    #[test]
    fn the_shared_databases_header_leaves_it_to_the_next_line() {
        assert_eq!(sniff("[databases]\nfoodb =\n"), Dialect::Ini);
        assert_eq!(sniff("[databases]\napp = host=db1\n"), Dialect::Ini);
        assert_eq!(
            sniff("[databases]\napp = { host = 'db1' }\n"),
            Dialect::Toml
        );
    }

    #[test]
    fn a_byte_order_mark_hides_nothing() {
        assert_eq!(
            sniff("\u{feff}[pgbouncer]\nlisten_port = 1\n"),
            Dialect::Ini
        );
        assert_eq!(sniff("\u{feff}[pgweir]\nlisten_port = 1\n"), Dialect::Toml);
    }

    #[test]
    fn nothing_at_all_is_ini() {
        assert_eq!(sniff(""), Dialect::Ini);
        assert_eq!(sniff("# only a comment\n"), Dialect::Ini);
        assert_eq!(sniff("[databases]\n[users]\n"), Dialect::Ini);
    }
}
