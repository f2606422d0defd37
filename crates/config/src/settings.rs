//! What can be done with the main section as a whole: SHOW CONFIG, SET, going back to defaults.

use crate::declare::{Effect, Key, Scope};
use crate::dialect::Dialect;
use crate::keys::Settings;
use crate::suggest::suggestion_for_key;
use crate::value::Invalid;

/// One row of SHOW CONFIG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowRow {
    /// The key's name.
    pub key: &'static str,
    /// Its value, `None` for NULL.
    pub value: Option<String>,
    /// Its default, `None` for NULL.
    pub default: Option<&'static str>,
    /// Whether SET and RELOAD change it.
    pub changeable: bool,
}

/// What SET did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOutcome {
    /// The key has the value now.
    Applied,
    /// The key changes only at a restart, so the value was accepted and ignored.
    IgnoredUntilRestart,
}

/// Why SET did nothing. The text is what PgBouncer logs where it logs anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// There is no such key.
    #[error("unknown parameter: pgbouncer/{key}")]
    UnknownKey {
        /// The name that is not a key.
        key: String,
        /// What may help.
        suggestion: Option<String>,
    },
    /// The value is none of this key's.
    #[error("invalid value \"{value}\" for parameter {key}: {reason}")]
    InvalidValue {
        /// The key's name.
        key: &'static str,
        /// The value that was refused.
        value: String,
        /// What is wrong with it.
        reason: Invalid,
    },
    /// The console's own database cannot hold secrets.
    #[error("cannot use the reserved \"{database}\" database as an auth_dbname")]
    ReservedDatabase {
        /// The name that is reserved.
        database: String,
    },
}

/// A key whose value differs between two configurations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyChange {
    /// The key's name.
    pub key: &'static str,
    /// The value before, `None` for NULL.
    pub from: Option<String>,
    /// The value after, `None` for NULL.
    pub to: Option<String>,
    /// When the new value counts.
    pub effect: Effect,
}

impl Settings {
    /// The values that a file of this dialect starts from.
    pub fn defaults(dialect: Dialect) -> Self {
        let mut settings = Self::default();
        if dialect == Dialect::Toml {
            for key in Self::KEYS {
                set_default(&mut settings, key, key.native);
            }
        }
        settings
    }

    /// PgBouncer's rows of SHOW CONFIG, in its order.
    pub fn show(&self) -> impl Iterator<Item = ShowRow> + '_ {
        Self::KEYS
            .iter()
            .filter(|key| key.native.is_none())
            .map(|key| self.row(key))
    }

    /// Sets one key while running, as the console's SET does.
    pub fn set(&mut self, name: &str, value: &str) -> Result<SetOutcome, SetError> {
        let Some(key) = Self::key(name) else {
            let suggestion = suggestion_for_key::<Self>(name);
            return Err(SetError::UnknownKey {
                key: name.to_owned(),
                suggestion,
            });
        };
        if !key.is_changeable() {
            return Ok(SetOutcome::IgnoredUntilRestart);
        }
        (key.set)(self, value).map_err(|reason| match reason {
            Invalid::ReservedDatabase(database) => SetError::ReservedDatabase { database },
            Invalid::Malformed(_)
            | Invalid::OutOfRange { .. }
            | Invalid::NotBuilt { .. }
            | Invalid::Policy { .. }
            | Invalid::ZeroByte => SetError::InvalidValue {
                key: key.name,
                value: value.to_owned(),
                reason,
            },
        })?;
        Ok(SetOutcome::Applied)
    }

    /// The keys whose values differ, in the order of the table.
    pub fn changes(&self, new: &Self) -> Vec<KeyChange> {
        let changed = Self::KEYS.iter().filter(|key| !(key.same)(self, new));
        let change = |key: &Key<Self>| KeyChange {
            key: key.name,
            from: (key.show)(self),
            to: (key.show)(new),
            effect: key.effect,
        };
        changed.map(change).collect()
    }

    /// Gives every key that has a default its default, as the header of the main section does.
    /// Without `restart_keys` only the keys that can change while running.
    pub(crate) fn reset(&mut self, restart_keys: bool) {
        for key in Self::KEYS
            .iter()
            .filter(|key| restart_keys || key.is_changeable())
        {
            set_default(self, key, key.default);
        }
    }

    fn row(&self, key: &Key<Self>) -> ShowRow {
        ShowRow {
            key: key.name,
            value: (key.show)(self),
            default: key.default,
            changeable: key.is_changeable(),
        }
    }
}

fn set_default(settings: &mut Settings, key: &Key<Settings>, default: Option<&str>) {
    if let Some(text) = default {
        (key.set)(settings, text).expect("the table's defaults are values of their types");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::{ErrorCodes, PoolMode, Seconds, Value};

    #[test]
    fn shows_pgbouncers_rows_in_its_order_and_printing() {
        let settings = Settings::default();
        let rows: Vec<String> = settings.show().map(|row| as_text(&row)).collect();
        let expected: Vec<&str> = include_str!("../tests/show_config_defaults.tsv")
            .lines()
            .collect();
        assert_eq!(rows.len(), 100);
        assert_eq!(rows, expected);
    }

    fn as_text(row: &ShowRow) -> String {
        let value = row.value.as_deref().unwrap_or("NULL");
        let default = row.default.unwrap_or("NULL");
        let changeable = if row.changeable { "yes" } else { "no" };
        format!("{}\t{value}\t{default}\t{changeable}", row.key)
    }

    #[test]
    fn shows_its_own_keys_apart() {
        let settings = Settings::default();
        assert!(settings.show().all(|row| row.key != "error_codes"));
    }

    #[test]
    fn starts_from_other_error_codes_in_toml() {
        assert_eq!(
            Settings::defaults(Dialect::Ini).error_codes,
            ErrorCodes::Pgbouncer
        );
        assert_eq!(
            Settings::defaults(Dialect::Toml).error_codes,
            ErrorCodes::Postgres
        );
    }

    #[test]
    fn set_changes_a_key() {
        let mut settings = Settings::default();
        assert_eq!(
            settings.set("pool_mode", "Transaction"),
            Ok(SetOutcome::Applied)
        );
        assert_eq!(
            settings.set("query_timeout", "0.5"),
            Ok(SetOutcome::Applied)
        );
        assert_eq!(settings.pool_mode, PoolMode::Transaction);
        assert_eq!(settings.query_timeout, Seconds::from_micros(500_000));
    }

    #[test]
    fn set_accepts_and_ignores_keys_that_need_a_restart() {
        let mut settings = Settings::default();
        let outcome = settings.set("listen_port", "nonsense");
        assert_eq!(outcome, Ok(SetOutcome::IgnoredUntilRestart));
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn set_refuses_unknown_keys_with_the_nearest_name() {
        let error = Settings::default()
            .set("pol_mode", "session")
            .expect_err("misspelt");
        assert_eq!(error.to_string(), "unknown parameter: pgbouncer/pol_mode");
        let SetError::UnknownKey { suggestion, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(suggestion.as_deref(), Some("did you mean \"pool_mode\"?"));
    }

    #[test]
    fn set_refuses_wrong_values_and_the_reserved_database() {
        let mut settings = Settings::default();
        assert_eq!(
            settings
                .set("pool_mode", "x")
                .expect_err("no mode")
                .to_string(),
            "invalid value \"x\" for parameter pool_mode: \
             expected one of session, transaction, statement"
        );
        assert_eq!(
            settings
                .set("auth_dbname", "pgbouncer")
                .expect_err("reserved")
                .to_string(),
            "cannot use the reserved \"pgbouncer\" database as an auth_dbname"
        );
    }

    #[test]
    fn reset_leaves_keys_without_default_alone() {
        let mut settings = Settings::default();
        for (key, value) in [
            ("auth_user", "a"),
            ("verbose", "2"),
            ("max_client_conn", "7"),
        ] {
            settings.set(key, value).expect(key);
        }
        settings.listen_port = 1;
        settings.reset(false);
        assert_eq!(settings.auth_user.as_deref(), Some("a"));
        assert_eq!(
            (
                settings.verbose,
                settings.max_client_conn,
                settings.listen_port
            ),
            (2, 100, 1)
        );
        settings.reset(true);
        assert_eq!(settings.listen_port, 6432);
    }

    #[test]
    fn every_default_is_shown_as_a_value_that_reads_back() {
        let settings = Settings::default();
        for key in Settings::KEYS {
            let Some(shown) = (key.show)(&settings) else {
                continue;
            };
            let mut again = Settings::default();
            (key.set)(&mut again, &shown).expect(key.name);
            assert!((key.same)(&settings, &again), "{}", key.name);
        }
    }

    #[test]
    fn every_native_default_is_a_value() {
        for key in Settings::KEYS {
            let Some(text) = key.native else { continue };
            (key.set)(&mut Settings::default(), text).expect(key.name);
        }
    }

    #[test]
    fn changes_name_the_keys_and_both_values() {
        let old = Settings::default();
        let new = Settings {
            listen_port: 5000,
            ..Settings::default()
        };
        let changes = old.changes(&new);
        assert_eq!(changes.len(), 1);
        assert_eq!(changes[0].key, "listen_port");
        assert_eq!(changes[0].from, old.listen_port.show());
        assert_eq!(changes[0].to.as_deref(), Some("5000"));
        assert_eq!(changes[0].effect, Effect::Restart);
    }
}
