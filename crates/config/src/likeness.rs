//! What keys mean here beside PgBouncer's keys of the same names.

use std::fmt;

use crate::config::{LoadError, read_complete_ini};
use crate::declare::{Place, Scope};
use crate::draft::Seen;
use crate::ini::Read;
use crate::keys::Settings;

/// What a key means beside PgBouncer's key of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// The same.
    Same,
    /// The same, and more; says what.
    Better(&'static str),
    /// Not the same; says how.
    Differs(&'static str),
    /// Nothing; says why.
    Idle(&'static str),
}

/// A key that a file sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetKey {
    /// The file, as it was named.
    pub file: String,
    /// The line of the key, or of the entry in which it stands.
    pub line: Option<usize>,
    /// The entry in which it stands; `None` is the main section.
    pub entry: Option<(Place, String)>,
    /// Its name.
    pub key: &'static str,
    /// What it means beside PgBouncer's.
    pub likeness: Likeness,
}

/// `pool_mode` in the main section, `databases.app.pool_mode` in an entry.
impl fmt::Display for SetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((place, name)) = &self.entry {
            write!(f, "{}.{name}.", place.section())?;
        }
        f.write_str(self.key)
    }
}

/// The keys that an ini file sets, and what they mean beside PgBouncer's: the main section in the
/// order of SHOW CONFIG, then the entries.
pub fn set_keys(conffile: &str, read: &mut Read<'_>) -> Result<Vec<SetKey>, LoadError> {
    let (config, seen, _) = read_complete_ini(conffile, read)?;
    let mut keys = Vec::new();
    for key in Settings::KEYS {
        if let Some(spot) = seen.spots.get(&(Place::Global, key.name.to_owned())) {
            keys.push(SetKey {
                file: spot.file.clone(),
                line: spot.line,
                entry: None,
                key: key.name,
                likeness: key.likeness(),
            });
        }
    }
    for database in config.databases.values().chain(&config.autodb) {
        entry(&mut keys, &seen, &database.name, &database.keys);
    }
    for user in config.users.values() {
        entry(&mut keys, &seen, &user.name, &user.keys);
    }
    for peer in config.peers.values() {
        entry(&mut keys, &seen, &peer.id.to_string(), &peer.keys);
    }
    Ok(keys)
}

fn entry<S: Scope>(keys: &mut Vec<SetKey>, seen: &Seen, name: &str, entry: &S) {
    let Some(spot) = seen.spots.get(&(S::PLACE, name.to_owned())) else {
        return;
    };
    let set = S::KEYS.iter().filter(|key| (key.write)(entry).is_some());
    keys.extend(set.map(|key| SetKey {
        file: spot.file.clone(),
        line: spot.line,
        entry: Some((S::PLACE, name.to_owned())),
        key: key.name,
        likeness: key.likeness(),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_is_set_is_told_with_its_line() {
        let text = "[databases]\napp = host=db1 pool_size=3\n[peers]\n2 = host=db1\n[pgbouncer]\n\
                    pkt_buf = 2048\nlisten_port = 5000\nclient_tls_protocols = all\n";
        let keys = set_keys("a.ini", &mut |_| Ok(text.to_owned())).expect("loads");
        let told: Vec<_> = keys
            .iter()
            .map(|set| (set.to_string(), set.line, set.likeness))
            .collect();
        let same = |name: &str, line| (name.to_owned(), Some(line), Likeness::Same);
        assert!(
            matches!(&told[0], (name, Some(8), Likeness::Differs(_)) if name == "client_tls_protocols")
        );
        assert_eq!(told[1], same("listen_port", 7));
        assert!(matches!(&told[2], (name, Some(6), Likeness::Idle(_)) if name == "pkt_buf"));
        assert_eq!(told[3], same("databases.app.host", 2));
        let (name, line, likeness) = &told[4];
        assert_eq!((name.as_str(), *line), ("databases.app.pool_size", Some(2)));
        assert!(matches!(likeness, Likeness::Better(_)));
        assert_eq!(told[5], same("peers.2.host", 4));
        assert_eq!(told.len(), 6);
    }

    #[test]
    fn what_is_said_of_a_key_is_the_end_of_a_sentence() {
        for key in Settings::KEYS {
            let (Likeness::Better(text) | Likeness::Differs(text) | Likeness::Idle(text)) =
                key.likeness()
            else {
                continue;
            };
            let begins_small =
                text.starts_with(|c: char| c.is_lowercase()) || text.starts_with("TLS");
            assert!(begins_small && !text.ends_with('.'), "{}: {text}", key.name);
        }
    }
}
