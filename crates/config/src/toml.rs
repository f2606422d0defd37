//! The native format: TOML with one table for the main section and one for every entry.
//!
//! ```toml
//! [pgweir]
//! listen_port = 6432
//! query_timeout = "500ms"
//!
//! [databases.app]
//! host = ["db1", "db2"]
//!
//! [users.report]
//! pool_size = 2
//!
//! [peers.2]
//! host = "pooler2"
//! ```
//!
//! This module turns TOML's values into the texts that the keys read everywhere. All errors are
//! reported, in the order of the file.

mod convert;
mod write;

use std::ops::Range;

use convert::{as_toml, text_of};
pub(crate) use write::write;

use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};

use crate::CONSOLE_DATABASE;
use crate::declare::{Place, Scope};
use crate::draft::{Draft, Numbers};
use crate::keys::{DatabaseOverrides, PeerOverrides, Settings, UserOverrides};
use crate::problem::{Fault, Report, Spot, Stopped};
use crate::suggest;
use crate::value::Kind;

const MAIN_TABLE: &str = "pgweir";
const TABLES: [&str; 4] = [MAIN_TABLE, "databases", "users", "peers"];

/// Reads a whole configuration.
pub(crate) fn read(
    draft: &mut Draft<'_>,
    report: &mut Report,
    file: &str,
    text: &str,
) -> Result<(), Stopped> {
    let first = report.problems.len();
    let mut reader = Reader {
        draft,
        report,
        file,
        text,
    };
    let outcome = reader.document();
    report.problems[first..].sort_by_key(|problem| problem.line);
    outcome
}

struct Reader<'a, 'b> {
    draft: &'a mut Draft<'b>,
    report: &'a mut Report,
    file: &'a str,
    text: &'a str,
}

impl Reader<'_, '_> {
    fn document(&mut self) -> Result<(), Stopped> {
        if let Some(at) = self.text.find(char::REPLACEMENT_CHARACTER) {
            let spot = self.spot(at..at);
            return Err(self.report.fatal(&spot, Fault::new("TOML has to be UTF-8")));
        }
        let (document, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let spot = self.spot(error.span().unwrap_or_default());
            let text = error.message().trim_end().replace('\n', ", ");
            self.report.error(&spot, Fault::new(text))?;
        }
        if !errors.is_empty() {
            // What follows a syntax error would be errors of our making.
            return Err(Stopped);
        }
        for (name, value) in document.get_ref() {
            let spot = self.spot(name.span());
            let name = name.get_ref().as_ref();
            if !TABLES.contains(&name) {
                let nearest = suggest::nearest(name, TABLES.into_iter());
                let hint = match nearest {
                    Some(table) => format!("did you mean \"{table}\"?"),
                    None => format!("keys of the main section stand in [{MAIN_TABLE}]"),
                };
                let text = format!("unknown table or key: {name}");
                self.report.error(&spot, Fault::new(text).hint(hint))?;
                continue;
            }
            let Some(table) = self.table(&spot, name, value)? else {
                continue;
            };
            match name {
                MAIN_TABLE => self.main(table)?,
                "databases" => self.entries(table, Self::database)?,
                "users" => self.entries(table, Self::user)?,
                _ => self.entries(table, Self::peer)?,
            }
        }
        Ok(())
    }

    fn main(&mut self, table: &DeTable<'_>) -> Result<(), Stopped> {
        for (name, value) in table {
            let name = name.get_ref().as_ref();
            let shown = self.source(value);
            let spot = Spot::setting(self.file, self.line_of(&value.span()), name, shown);
            // The draft refuses unknown names, whatever their values.
            let kind = Settings::key(name).map(|key| key.kind);
            let text = kind.map_or(Some(String::new()), |kind| text_of(kind, value.get_ref()));
            match text {
                Some(text) => self.draft.main(self.report, &spot, name, &text)?,
                None => {
                    let suggestion = kind.map(|kind| format!("expected {}", as_toml(kind)));
                    self.report.error(
                        &spot,
                        Fault {
                            text: None,
                            suggestion,
                        },
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Reads every entry of a table of entries with `read`.
    fn entries(
        &mut self,
        table: &DeTable<'_>,
        read: fn(&mut Self, &Spot, &str, &DeTable<'_>) -> Result<(), Stopped>,
    ) -> Result<(), Stopped> {
        for (name, value) in table {
            let spot = self.spot(name.span());
            let name = name.get_ref().as_ref();
            if let Some(entry) = self.table(&spot, name, value)? {
                read(self, &spot, name, entry)?;
            }
        }
        Ok(())
    }

    fn database(&mut self, spot: &Spot, name: &str, table: &DeTable<'_>) -> Result<(), Stopped> {
        if name == CONSOLE_DATABASE {
            let text = format!("database name \"{name}\" is reserved");
            return self.report.error(spot, Fault::new(text));
        }
        let keys: DatabaseOverrides = self.fields(table)?;
        self.draft.database(self.report, spot, name, keys);
        Ok(())
    }

    fn user(&mut self, spot: &Spot, name: &str, table: &DeTable<'_>) -> Result<(), Stopped> {
        let keys: UserOverrides = self.fields(table)?;
        self.draft.user(self.report, spot, name, keys);
        Ok(())
    }

    fn peer(&mut self, spot: &Spot, name: &str, table: &DeTable<'_>) -> Result<(), Stopped> {
        let Some(id) = self.draft.peer_id(self.report, spot, name)? else {
            return Ok(());
        };
        let keys: PeerOverrides = self.fields(table)?;
        self.draft.peer(self.report, spot, id, keys)
    }

    fn fields<S: Scope>(&mut self, table: &DeTable<'_>) -> Result<S, Stopped> {
        let mut keys = S::default();
        for (name, value) in table {
            let spot = self.spot(value.span());
            let name = name.get_ref().as_ref();
            // The draft refuses unknown names, whatever their values.
            let kind = S::key(name).map(|key| key.kind);
            let text = kind.map_or(Some(String::new()), |kind| text_of(kind, value.get_ref()));
            match (kind, text) {
                (Some(_), Some(text)) if text.is_empty() => {
                    let fault = Fault::new(format!("{name} is empty"));
                    self.report
                        .error(&spot, fault.hint("leave the key out".to_owned()))?;
                }
                (_, Some(text)) => {
                    let numbers = Numbers::Strictly;
                    Draft::field(self.report, &spot, &mut keys, name, &text, numbers)?;
                }
                (kind, None) => {
                    let is_secret = matches!(kind, Some(Kind::Secret | Kind::PasswordSource));
                    let shown = if is_secret {
                        "****"
                    } else {
                        self.source(value)
                    };
                    let hint = kind.map(|kind| format!("expected {}", as_toml(kind)));
                    let text = format!("invalid {name}: {shown}");
                    self.report.error(&spot, Fault::new(text).hint(hint))?;
                }
            }
        }
        Ok(keys)
    }

    fn table<'t, 'i>(
        &mut self,
        spot: &Spot,
        name: &str,
        value: &'t Spanned<DeValue<'i>>,
    ) -> Result<Option<&'t DeTable<'i>>, Stopped> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            let found = value.get_ref().type_str();
            let text = format!("{name} has to be a table, not a value of type {found}");
            self.report.error(spot, Fault::new(text))?;
        }
        Ok(table)
    }

    fn spot(&self, span: Range<usize>) -> Spot {
        Spot::line(self.file, self.line_of(&span))
    }

    fn line_of(&self, span: &Range<usize>) -> usize {
        let before = self
            .text
            .as_bytes()
            .get(..span.start)
            .unwrap_or(self.text.as_bytes());
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn source(&self, value: &Spanned<DeValue<'_>>) -> &str {
        match value.get_ref() {
            DeValue::String(text) => self.text.get(value.span()).map_or("", |source| {
                // A plain string is told without its quotes.
                if source.trim_matches(['"', '\'']) == text.as_ref() {
                    source.trim_matches(['"', '\''])
                } else {
                    source
                }
            }),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => self.text.get(value.span()).unwrap_or(""),
        }
    }
}

/// The header of an entry's table, for documentation.
pub(crate) fn header(place: Place) -> &'static str {
    match place {
        Place::Global => "[pgweir]",
        Place::Database => "[databases.NAME]",
        Place::User => "[users.NAME]",
        Place::Peer => "[peers.N]",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use crate::config::{Config, LoadError, Loaded, Phase};
    use crate::value::{ErrorCodes, FileMode, Host, PoolMode, Seconds};
    use crate::{Dialect, check};

    fn load(text: &str) -> (Config, Result<Loaded, LoadError>) {
        let mut config = Config::new("p.toml");
        let outcome = config.load(Phase::Start, &mut |_| Ok(text.to_owned()));
        (config, outcome)
    }

    fn errors(text: &str) -> Vec<String> {
        let problems = check("p.toml", &mut |_| Ok(text.to_owned()));
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn reads_every_table() {
        let (config, outcome) = load(
            r#"
            [pgweir]
            listen_port = 5000
            listen_addr = ["127.0.0.1", "::1"]
            log_connections = false
            query_timeout = "500ms"
            server_lifetime = 1.5
            unix_socket_mode = 0o750
            pool_mode = "transaction"

            [databases.app]
            host = ["db1", "/run/pg"]
            port = 5433
            password = "x y"
            query_wait_timeout = "2m"
            reserve_pool = 3

            [databases."*"]
            host = "db2"

            [users.report]
            pool_size = 2

            [peers.2]
            host = "pooler2"
            "#,
        );
        outcome.expect("loads");
        let global = &config.global;
        assert_eq!(config.dialect, Dialect::Toml);
        assert_eq!((global.listen_port, global.log_connections), (5000, false));
        assert!(global.listen_addr.contains("::1"));
        assert_eq!(
            global.query_timeout.limit(),
            Some(Duration::from_millis(500))
        );
        assert_eq!(global.server_lifetime.as_micros(), 1_500_000);
        assert_eq!(global.unix_socket_mode, FileMode(0o750));
        assert_eq!(global.pool_mode, PoolMode::Transaction);
        assert_eq!(global.error_codes, ErrorCodes::Postgres);
        let app = &config.databases["app"];
        let hosts = [
            Host::Tcp("db1".to_owned()),
            Host::Unix("/run/pg".to_owned()),
        ];
        assert_eq!((app.hosts(), app.port()), (&hosts[..], 5433));
        assert_eq!(app.keys.query_wait_timeout, Some(Seconds::new(120)));
        assert_eq!(app.keys.reserve_pool_size, Some(3));
        assert!(config.autodb.is_some());
        assert_eq!(config.users["report"].keys.pool_size, Some(2));
        assert_eq!(config.peers[&2].port(), 6432);
    }

    #[test]
    fn errors_have_lines_and_hints_and_all_are_told() {
        let text = "[pgweir]\nlisten_port = '5000'\npol_mode = 'x'\nquery_timeout = '5 parsecs'\n\
                    [databases.app]\nport = 0\nqery = 1\n[databases.pgbouncer]\n[peers.0]\nhost='a'\n";
        assert_eq!(
            errors(text),
            [
                "p.toml:2: error: invalid value \"5000\" for parameter listen_port in \
                 configuration (p.toml:2) (expected a whole number)",
                "p.toml:3: error: unknown parameter: pgweir/pol_mode (did you mean \"pool_mode\"?)",
                "p.toml:4: error: invalid value \"5 parsecs\" for parameter query_timeout in \
                 configuration (p.toml:4) (expected a number of seconds or a text like \"500ms\", \
                 \"5s\", \"10m\")",
                "p.toml:6: error: invalid port: 0 (expected a whole number from 1 to 65535)",
                "p.toml:7: error: unrecognized connection parameter: qery",
                "p.toml:8: error: database name \"pgbouncer\" is reserved",
                "p.toml:9: error: ids of peers must be a number larger than 0 and at most 65536",
            ]
        );
    }

    #[test]
    fn syntax_errors_have_a_line() {
        let errors = errors("[pgweir]\nworkers = 2\nlisten_port = = 1\n");
        assert!(errors[0].starts_with("p.toml:3: error: "), "{errors:?}");
    }

    #[test]
    fn unknown_tables_are_refused() {
        let errors = errors("[pgweir]\n[database.app]\n[zzzzzz]\n");
        assert_eq!(
            errors,
            [
                "p.toml:2: error: unknown table or key: database (did you mean \"databases\"?)",
                "p.toml:3: error: unknown table or key: zzzzzz \
                 (keys of the main section stand in [pgweir])",
            ]
        );
    }

    #[test]
    fn a_failed_reload_changes_nothing() {
        let (mut config, _) = load("[pgweir]\nmax_client_conn = 7\n");
        let before = config.clone();
        let text = "[pgweir]\nmax_client_conn = 8\nx = 1\n";
        config
            .load(Phase::Reload, &mut |_| Ok(text.to_owned()))
            .expect_err("unknown key");
        assert_eq!(config, before);
    }

    #[test]
    fn a_key_that_left_the_file_goes_back_to_its_default() {
        let (mut config, _) = load("[pgweir]\nauth_user = 'a'\n");
        config.global.verbose = 1;
        let text = "[pgweir]\nworkers = 3\n";
        let loaded = config
            .load(Phase::Reload, &mut |_| Ok(text.to_owned()))
            .expect("loads");
        assert_eq!(config.global.auth_user, None);
        assert_eq!((config.global.verbose, config.global.workers), (1, 1));
        assert_eq!(loaded.restart_needed[0].key, "workers");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(\\[(pgweir|users\\.a|peers\\.x|databases)\\]\n|[a-z_]{1,9} ?= ?[\\[{'\"0-9a-z.}\\]]*\n|.{0,9})*") {
            errors(&format!("[pgweir]\n{text}"));
        }
    }
}
