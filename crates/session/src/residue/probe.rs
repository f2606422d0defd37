//! The question to a server what its session holds, and the answer.
//!
//! One query, at times with a second one behind it, whose rows are (kind, name, value). It runs between two
//! transactions, under whatever the client has set, so everything in it, operators too, is named with its schema.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use super::{Kinds, Memory, Named};
use crate::channels::Channels;
use crate::params::literal;

/// What is to be looked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    kinds: Kinds,
    /// Whether that is everything that is not allowed.
    is_complete: bool,
    /// Parameters that are asked for by their names.
    names: Vec<Box<str>>,
    /// The database's functions are to be looked through as well.
    catalog: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Facts {
    /// What binds the session to its client.
    pub bound: Kinds,
    /// Whether everything was looked for.
    pub is_complete: bool,
    /// Whether all parameters were looked for, not only those with a name.
    pub has_all_settings: bool,
    /// Whether the rights of the session were looked for.
    pub has_rights: bool,
    /// Parameters with another value than the session began with, and `role` and
    /// `session_authorization` where they differ.
    pub settings: Vec<(Box<str>, Box<str>)>,
    /// Those that were asked for by their names and are not set.
    pub unset: Vec<Box<str>>,
    /// What it listens to, if that was looked for and every name can be told in UTF-8.
    pub channels: Option<Channels>,
    /// Something was said that cannot be kept: all has to be taken back.
    pub is_strange: bool,
    pub(crate) catalog: Option<Catalog>,
}

/// What the functions of a database can do.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Catalog {
    /// Parameters with a dot that they set by their names.
    pub(crate) names: Vec<Box<str>>,
    /// Those that may leave something, and what.
    pub(crate) functions: Vec<(Box<str>, Kinds)>,
    /// Whether one asks for the last number drawn from a sequence.
    pub(crate) reads_drawn: bool,
}

impl Probe {
    /// For everything that can be found.
    pub(crate) fn everything(memory: &Memory, named: &[Named], now: Instant) -> Self {
        Self {
            catalog: memory.needs_catalog(now),
            is_complete: true,
            ..Self::of(Kinds::ALL, memory, named)
        }
    }

    /// For these kinds, and for parameters that a text has named.
    pub(crate) fn of(kinds: Kinds, memory: &Memory, named: &[Named]) -> Self {
        let kinds = kinds.without(memory.allowed);
        // PostgreSQL lists those without a dot.
        let lists = kinds.has(Kinds::SETTINGS);
        let named = named.iter().map(|named| &named.name);
        let mut names: Vec<Box<str>> = named
            .filter(|name| !lists || name.contains('.'))
            .cloned()
            .collect();
        if lists {
            names.extend(memory.names().iter().cloned());
        }
        Self {
            kinds,
            is_complete: false,
            names,
            catalog: false,
        }
    }

    /// Asks for more parameters by their names: those that are known to be set.
    pub(crate) fn ask_for<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        if self.kinds.has(Kinds::SETTINGS) {
            let dotted = names.filter(|name| name.contains('.'));
            self.names.extend(dotted.map(Box::from));
        }
    }

    /// The query, for a server that was logged in to as `login`.
    pub fn sql(&self, login: &str) -> String {
        let mut sql = String::new();
        let mut part = |text: &str| {
            if !sql.is_empty() {
                sql.push_str(" UNION ALL ");
            }
            sql.push_str(text);
        };
        for (kind, text) in PARTS {
            if self.kinds.has(kind) {
                part(text);
            }
        }
        if self.kinds.has(Kinds::ROLE) {
            let login = literal(login);
            part(&format!(
                "SELECT 's', 'session_authorization', session_user::pg_catalog.text \
                 WHERE session_user OPERATOR(pg_catalog.<>) {login}"
            ));
            part(&role(&login));
        }
        let mut names = self.names.clone();
        names.sort();
        names.dedup();
        if !names.is_empty() {
            let mut list = String::new();
            for name in &names {
                let comma = if list.is_empty() { "" } else { "," };
                // Writing into a String cannot fail.
                let _ = write!(list, "{comma}{}", literal(name));
            }
            part(&format!(
                "SELECT 'n', n, pg_catalog.current_setting(n, true) \
                 FROM pg_catalog.unnest(ARRAY[{list}]) n"
            ));
        }
        if self.catalog {
            // It may take longer than the client lets its own statements take. By now its parameters have been told.
            let then = if sql.is_empty() { "" } else { "; " };
            let _ = write!(sql, "{then}SET LOCAL statement_timeout = 0; {CATALOG}");
        }
        sql
    }

    /// Reads the rows.
    pub(crate) fn read(&self, rows: &[Row]) -> Facts {
        let mut facts = Facts {
            is_complete: self.is_complete,
            has_all_settings: self.kinds.has(Kinds::SETTINGS),
            has_rights: self.kinds.has(Kinds::ROLE),
            channels: self.kinds.has(Kinds::LISTEN).then(Channels::new),
            ..Facts::default()
        };
        let mut catalog = Catalog::default();
        for row in rows {
            let [Some(kind), Some(name), value] = row.as_slice() else {
                facts.is_strange = true;
                continue;
            };
            let value = value.as_deref();
            match (&**kind, value) {
                ("s", Some(value)) => facts.set(name, value),
                ("n", value) => facts.named(name, value),
                ("c", value) => {
                    catalog.names.push(name.clone());
                    facts.named(name, value);
                }
                ("d", _) => catalog.reads_drawn = true,
                ("l", _) => facts.channel(name),
                ("f", Some(letters)) => {
                    let mut kinds = Kinds::NONE;
                    for (letter, kind) in LETTERS {
                        if letters.contains(letter) {
                            kinds.add(kind);
                        }
                    }
                    catalog.functions.push((name.clone(), kinds));
                }
                ("b", _) => match BOUND.iter().find(|(word, _)| *word == &**name) {
                    Some((_, kind)) => facts.bound.add(*kind),
                    None => facts.is_strange = true,
                },
                _ => facts.is_strange = true,
            }
        }
        facts.catalog = self.catalog.then_some(catalog);
        facts
    }
}

impl Facts {
    fn set(&mut self, name: &str, value: &str) {
        if !self.settings.iter().any(|(known, _)| &**known == name) {
            self.settings
                .push((name.to_ascii_lowercase().into(), value.into()));
        }
    }

    /// A channel, by the bytes of its name in hexadecimal.
    fn channel(&mut self, hex: &str) {
        self.bound.add(Kinds::LISTEN);
        match (named(hex), &mut self.channels) {
            (Some(name), Some(channels)) => {
                channels.insert(name);
            }
            (_, channels) => *channels = None,
        }
    }

    /// A parameter of which only the value is known. One with a dot that was taken back is empty.
    fn named(&mut self, name: &str, value: Option<&str>) {
        match value {
            Some(value) if !(value.is_empty() && name.contains('.')) => self.set(name, value),
            _ => self.unset.push(name.into()),
        }
    }
}

/// The text of which the bytes stand in hexadecimal.
fn named(hex: &str) -> Option<Arc<str>> {
    let byte = |at: usize| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    String::from_utf8(bytes?).ok().map(Arc::from)
}

/// A row; cells that are no UTF-8 make it a strange one.
pub(crate) type Row = Vec<Option<Box<str>>>;

/// What the rows of the kinds that bind a session are called.
const BOUND: [(&str, Kinds); 4] = [
    ("locks", Kinds::LOCKS),
    ("temporary", Kinds::TEMPORARY),
    ("prepared", Kinds::PREPARED),
    ("cursors", Kinds::CURSORS),
];

/// What functions may leave is told in these letters.
const LETTERS: [(char, Kinds); 3] = [
    ('l', Kinds::LOCKS),
    ('t', Kinds::TEMPORARY),
    ('n', Kinds::LISTEN),
];

/// One query per kind.
const PARTS: [(Kinds, &str); 6] = [
    (
        Kinds::SETTINGS,
        "SELECT 's', name, pg_catalog.current_setting(name) FROM pg_catalog.pg_settings \
         WHERE source OPERATOR(pg_catalog.=) 'session'",
    ),
    (
        Kinds::LOCKS,
        "SELECT 'b', 'locks', NULL WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_locks \
         WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
         AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid())",
    ),
    // Everything in a schema depends on it, also what is no relation.
    (
        Kinds::TEMPORARY,
        "SELECT 'b', 'temporary', NULL WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_depend \
         WHERE refclassid OPERATOR(pg_catalog.=) 2615 \
         AND refobjid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema() \
         AND pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0)",
    ),
    (
        Kinds::LISTEN,
        // In the client's encoding, in which notifications have it, too.
        "SELECT 'l', pg_catalog.encode(pg_catalog.convert_to(c, pg_catalog.pg_client_encoding()), \
         'hex'), NULL FROM pg_catalog.pg_listening_channels() c",
    ),
    (
        Kinds::PREPARED,
        "SELECT 'b', 'prepared', NULL WHERE EXISTS (SELECT 1 \
         FROM pg_catalog.pg_prepared_statements \
         WHERE from_sql OR name OPERATOR(pg_catalog.!~) '^PGBOUNCER_[0-9]+$')",
    ),
    (
        Kinds::CURSORS,
        "SELECT 'b', 'cursors', NULL \
         WHERE EXISTS (SELECT 1 FROM pg_catalog.pg_cursors WHERE is_holdable)",
    ),
];

/// The role, where it is not the one that the session began with. Of what ALTER ROLE and ALTER DATABASE have said, the
/// most special holds.
fn role(login: &str) -> String {
    format!(
        "SELECT 's', 'role', pg_catalog.current_setting('role') \
         WHERE pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) COALESCE((\
         SELECT pg_catalog.substr(c, 6) \
         FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c \
         WHERE pg_catalog.left(c, 5) OPERATOR(pg_catalog.=) 'role=' \
         AND s.setrole OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, (SELECT r.oid \
         FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) {login})]) \
         AND s.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[0::pg_catalog.oid, (SELECT d.oid \
         FROM pg_catalog.pg_database d \
         WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())]) \
         ORDER BY s.setrole OPERATOR(pg_catalog.=) 0, s.setdatabase OPERATOR(pg_catalog.=) 0 \
         LIMIT 1), 'none')"
    )
}

/// What the functions of the database can do that is not seen in a session: parameters with a dot
/// that they set by their names, and whether they ask for the last number drawn from a sequence.
const CATALOG: &str = "SELECT 'c', m.name, pg_catalog.current_setting(m.name, true) FROM (\
    SELECT DISTINCT pg_catalog.lower((pg_catalog.regexp_matches(p.prosrc, \
    '(?:set_config[[:space:]]*[(][[:space:]]*''|[[:<:]]set[[:space:]]+(?:session[[:space:]]+)?)\
    ([a-z_][a-z0-9_$]*(?:[.][a-z_][a-z0-9_$]*)+)', 'gi'))[1]) AS name \
    FROM pg_catalog.pg_proc p \
    JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace \
    WHERE s.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}')) m \
    UNION ALL SELECT 'd', 'reads', NULL WHERE EXISTS (\
    SELECT 1 FROM pg_catalog.pg_proc p \
    JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace \
    WHERE s.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}') \
    AND p.prosrc OPERATOR(pg_catalog.~*) '(currval|lastval)[[:space:]]*[(]') \
    UNION ALL SELECT 'f', f.name, pg_catalog.concat(f.l, f.t, f.n) FROM (\
    SELECT p.proname::pg_catalog.text AS name, \
    CASE WHEN p.prosrc OPERATOR(pg_catalog.~*) 'pg_(try_)?advisory_lock' THEN 'l' ELSE '' END AS l, \
    CASE WHEN p.prosrc OPERATOR(pg_catalog.~*) '[[:<:]]temp(orary)?[[:>:]]' THEN 't' ELSE '' END AS t, \
    CASE WHEN p.prosrc OPERATOR(pg_catalog.~*) '[[:<:]]listen[[:>:]]' THEN 'n' ELSE '' END AS n \
    FROM pg_catalog.pg_proc p \
    JOIN pg_catalog.pg_namespace s ON s.oid OPERATOR(pg_catalog.=) p.pronamespace \
    WHERE s.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}')) f \
    WHERE pg_catalog.concat(f.l, f.t, f.n) OPERATOR(pg_catalog.<>) ''";
