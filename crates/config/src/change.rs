//! One key of a whole configuration, changed while running: in the main section or in an entry.

use std::fmt;

use crate::CONSOLE_DATABASE;
use crate::config::{Config, Database, User};
use crate::declare::{Key, Scope};
use crate::keys::UserOverrides;
use crate::suggest::suggestion_for_key;
use crate::value::{Invalid, Kind};

/// Where a key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// In the main section.
    Main,
    /// In the entry of a database.
    Database(String),
    /// In the entry of a user.
    User(String),
}

impl fmt::Display for Entry {
    /// What follows the assignment in an order of the console.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Main => Ok(()),
            Self::Database(name) => write!(f, " for database {name}"),
            Self::User(name) => write!(f, " for user {name}"),
        }
    }
}

/// A new value for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where it stands.
    pub entry: Entry,
    /// Its name there.
    pub key: String,
    /// The value as it would stand in the file.
    pub value: String,
}

/// Why a key cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such key there.
    #[error("unknown parameter: {key}{entry}{}", hint(suggestion.as_deref()))]
    UnknownKey {
        /// The name that is not a key.
        key: String,
        /// Where it is none.
        entry: Entry,
        /// What may help.
        suggestion: Option<String>,
    },
    /// The key counts at a start only.
    #[error("{0} changes only at a restart")]
    Restart(&'static str),
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
    /// Whoever may use the console must not run commands of the system, nor have files read.
    #[error("{0} can be set in the configuration file only")]
    FileOnly(&'static str),
    /// Clients cannot name this database, or it is the console's.
    #[error("no such database: {0}")]
    NoSuchDatabase(String),
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |text| format!(" ({text})"))
}

impl Config {
    /// Makes a change, checked as a line of the file is. An entry that is not there is made: that of
    /// a database from the template.
    pub fn change(&mut self, change: &Change) -> Result<(), ChangeError> {
        match &change.entry {
            Entry::Main => set(&mut self.global, change),
            Entry::Database(name) => {
                let found = self.database(name).filter(|_| name != CONSOLE_DATABASE);
                let Some(database) = found else {
                    return Err(ChangeError::NoSuchDatabase(name.clone()));
                };
                let mut keys = database.keys.clone();
                set(&mut keys, change)?;
                let name = name.clone();
                self.databases.insert(name.clone(), Database { name, keys });
                Ok(())
            }
            Entry::User(name) => {
                let mut keys = self.user_keys(name);
                set(&mut keys, change)?;
                let name = name.clone();
                self.users.insert(name.clone(), User { name, keys });
                Ok(())
            }
        }
    }

    /// The value of a key, as SHOW CONFIG prints it; `None` for NULL, or where there is none.
    pub fn value_of(&self, entry: &Entry, key: &str) -> Option<String> {
        match entry {
            Entry::Main => show(&self.global, key),
            Entry::Database(name) => show(&self.database(name)?.keys, key),
            Entry::User(name) => show(&self.user_keys(name), key),
        }
    }

    /// Whether a key has the same value in another configuration.
    pub fn agrees(&self, other: &Self, entry: &Entry, key: &str) -> bool {
        match entry {
            Entry::Main => same(&self.global, &other.global, key),
            Entry::Database(name) => match (self.database(name), other.database(name)) {
                (Some(own), Some(others)) => same(&own.keys, &others.keys, key),
                (own, others) => own.is_none() && others.is_none(),
            },
            Entry::User(name) => same(&self.user_keys(name), &other.user_keys(name), key),
        }
    }

    fn user_keys(&self, name: &str) -> UserOverrides {
        let user = self.users.get(name);
        user.map_or_else(UserOverrides::default, |user| user.keys.clone())
    }
}

fn set<S: Scope>(keys: &mut S, change: &Change) -> Result<(), ChangeError> {
    let Some(key) = S::key(&change.key) else {
        return Err(ChangeError::UnknownKey {
            key: change.key.clone(),
            entry: change.entry.clone(),
            suggestion: suggestion_for_key::<S>(&change.key),
        });
    };
    if !key.is_changeable() {
        return Err(ChangeError::Restart(key.name));
    }
    if key.kind == Kind::PasswordSource {
        return Err(ChangeError::FileOnly(key.name));
    }
    (key.set)(keys, &change.value).map_err(|reason| ChangeError::InvalidValue {
        key: key.name,
        value: match key.kind {
            Kind::Secret => "****".to_owned(),
            _ => change.value.clone(),
        },
        reason,
    })
}

fn show<S: Scope>(keys: &S, key: &str) -> Option<String> {
    S::key(key).and_then(|key: &Key<S>| (key.show)(keys))
}

fn same<S: Scope>(own: &S, others: &S, key: &str) -> bool {
    S::key(key).is_none_or(|key| (key.same)(own, others))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Phase;

    fn load(text: &str) -> Config {
        let mut config = Config::new("a.ini");
        config
            .load(Phase::Start, &mut |_| Ok(text.to_owned()))
            .expect("loads");
        config
    }

    fn config() -> Config {
        load("[databases]\nshop = pool_size=20\n* = host=db\n[pgbouncer]\n")
    }

    fn change(entry: Entry, key: &str, value: &str) -> Change {
        let (key, value) = (key.to_owned(), value.to_owned());
        Change { entry, key, value }
    }

    #[test]
    fn a_key_changes_where_it_stands() {
        let table = [
            (Entry::Main, "query_timeout", "5", "0"),
            (Entry::Database("shop".to_owned()), "pool_size", "40", "20"),
            (Entry::User("bob".to_owned()), "pool_mode", "session", ""),
        ];
        for (entry, key, value, before) in table {
            let (old, mut new) = (config(), config());
            let change = change(entry.clone(), key, value);
            assert_eq!(old.value_of(&entry, key).unwrap_or_default(), before);
            assert!(old.agrees(&new, &entry, key));
            assert_eq!(new.change(&change), Ok(()));
            assert_eq!(new.value_of(&entry, key).as_deref(), Some(value));
            assert!(!old.agrees(&new, &entry, key));
        }
    }

    #[test]
    fn the_console_runs_no_commands() {
        let entry = Entry::Database("shop".to_owned());
        let refused = config().change(&change(entry, "password_from", "exec:touch /tmp/x"));
        assert_eq!(refused, Err(ChangeError::FileOnly("password_from")));
    }

    #[test]
    fn a_database_without_an_entry_gets_one_like_the_template() {
        let mut config = config();
        let cart = Entry::Database("cart".to_owned());
        assert_eq!(config.change(&change(cart, "pool_size", "7")), Ok(()));
        let keys = &config.databases["cart"].keys;
        assert_eq!((keys.pool_size, keys.host.is_some()), (Some(7), true));
    }

    #[test]
    fn a_change_is_checked_like_a_line() {
        let shop = || Entry::Database("shop".to_owned());
        let table = [
            (
                change(Entry::Main, "pol_mode", "session"),
                "unknown parameter: pol_mode (did you mean \"pool_mode\"?)",
            ),
            (
                change(shop(), "pool_szie", "1"),
                "unknown parameter: pool_szie for database shop (did you mean \"pool_size\"?)",
            ),
            (
                change(shop(), "pool_size", "many"),
                "invalid value \"many\" for parameter pool_size: expected a whole number",
            ),
            (
                change(Entry::Main, "listen_port", "1"),
                "listen_port changes only at a restart",
            ),
            (
                change(Entry::Database("pgbouncer".to_owned()), "pool_size", "1"),
                "no such database: pgbouncer",
            ),
        ];
        for (change, text) in table {
            let mut config = config();
            let error = config.change(&change).expect_err(text);
            assert_eq!(error.to_string(), text);
            assert_eq!(config, self::config());
        }
    }
}
