//! What changed between two configurations, as far as somebody has to act on it.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Database};
use crate::settings::KeyChange;

/// The difference between a running configuration and a newer one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Diff {
    /// Keys of the main section whose values differ.
    pub keys: Vec<KeyChange>,
    /// Databases whose entries came, went or changed.
    pub databases: BTreeMap<String, DatabaseChange>,
    /// The template came, went or changed, and with it every database that has no entry in either.
    pub autodb: Option<DatabaseChange>,
    /// Users whose entries came, went or changed.
    pub users: BTreeSet<String>,
    /// Peers whose entries came, went or changed.
    pub peers: BTreeSet<u32>,
    /// TLS towards clients has to be set up again.
    pub client_tls_changed: bool,
    /// TLS towards servers has to be set up again, and all servers are outdated.
    pub server_tls_changed: bool,
}

/// What happened to a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseChange {
    /// It is new.
    Added,
    /// It is gone: its clients and servers have to go.
    Removed,
    /// Limits or modes changed, but its servers can stay.
    Retuned,
    /// It means other servers now: the ones it has are outdated.
    ServersOutdated,
}

/// Compares what runs with what shall run.
pub fn diff(old: &Config, new: &Config) -> Diff {
    let keys = old.global.changes(&new.global);
    let any = |prefix: &str| keys.iter().any(|change| change.key.starts_with(prefix));
    let (client_tls_changed, server_tls_changed) = (any("client_tls"), any("server_tls"));
    Diff {
        client_tls_changed,
        server_tls_changed,
        keys,
        databases: databases(old, new),
        autodb: (old.autodb != new.autodb)
            .then(|| change(old.autodb.as_ref(), new.autodb.as_ref())),
        users: differing(&old.users, &new.users).cloned().collect(),
        peers: differing(&old.peers, &new.peers).copied().collect(),
    }
}

/// Where one side has no entry, the database is what the template makes of it: it has servers as such.
fn databases(old: &Config, new: &Config) -> BTreeMap<String, DatabaseChange> {
    let change = |name: &str| change(old.database(name).as_deref(), new.database(name).as_deref());
    differing(&old.databases, &new.databases)
        .map(|name| (name.clone(), change(name)))
        .collect()
}

fn change(old: Option<&Database>, new: Option<&Database>) -> DatabaseChange {
    match (old, new) {
        (Some(old), Some(new)) if server_identity(old) != server_identity(new) => {
            DatabaseChange::ServersOutdated
        }
        (Some(_), Some(_)) => DatabaseChange::Retuned,
        (Some(_), None) => DatabaseChange::Removed,
        (None, _) => DatabaseChange::Added,
    }
}

/// Everything that decides which servers a database means and how they are set up.
fn server_identity(database: &Database) -> impl PartialEq + '_ {
    let keys = &database.keys;
    (
        (database.dbname(), &keys.host, database.port(), &keys.user),
        (&keys.connect_query, &keys.auth_dbname, &keys.auth_query),
        (
            database.load_balance_hosts(),
            database.target_session_attrs(),
        ),
    )
}

/// The names whose entries are not the same in both.
fn differing<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let names: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
    names
        .into_iter()
        .filter(|name| old.get(name) != new.get(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Phase;
    use crate::declare::Effect;

    fn between(old: &str, new: &str) -> Diff {
        let load = |text: &str| {
            let mut config = Config::new("a.ini");
            config
                .load(Phase::Start, &mut |_| Ok(text.to_owned()))
                .expect("loads");
            config
        };
        diff(&load(old), &load(new))
    }

    #[test]
    fn the_same_file_twice_is_no_difference() {
        let text = "[databases]\na = host=x\n* = host=y\n[users]\nu = pool_size=1\n[pgbouncer]\n";
        assert_eq!(between(text, text), Diff::default());
    }

    #[test]
    fn databases_come_go_and_change() {
        let diff = between(
            "[databases]\ngone =\nmoved = host=x\ntuned = pool_size=1\nsame =\n[pgbouncer]\n",
            "[databases]\nnew =\nmoved = host=y\ntuned = pool_size=2\nsame =\n[pgbouncer]\n",
        );
        let expected = [
            ("gone", DatabaseChange::Removed),
            ("moved", DatabaseChange::ServersOutdated),
            ("new", DatabaseChange::Added),
            ("tuned", DatabaseChange::Retuned),
        ];
        let expected = expected.map(|(name, change)| (name.to_owned(), change));
        assert_eq!(diff.databases, BTreeMap::from(expected));
    }

    #[test]
    fn each_key_that_decides_about_servers_outdates_them() {
        let new_entries = [
            "dbname=b",
            "host=x",
            "port=1",
            "user=u",
            "connect_query='select 1'",
            "auth_dbname=b",
            "auth_query=q",
            "load_balance_hosts=disable",
            "target_session_attrs=primary",
        ];
        for entry in new_entries {
            let new = format!("[databases]\na = {entry}\n[pgbouncer]\n");
            let diff = between("[databases]\na =\n[pgbouncer]\n", &new);
            assert_eq!(
                diff.databases["a"],
                DatabaseChange::ServersOutdated,
                "{entry}"
            );
        }
    }

    #[test]
    fn an_entry_beside_the_template_outdates_servers_if_it_means_others() {
        for (own, change) in [
            ("host=other", DatabaseChange::ServersOutdated),
            ("host=x dbname=other", DatabaseChange::ServersOutdated),
            ("host=x dbname=a pool_size=1", DatabaseChange::Retuned),
        ] {
            let star = "[databases]\n* = host=x\n[pgbouncer]\n";
            let both = format!("[databases]\n* = host=x\na = {own}\n[pgbouncer]\n");
            for diff in [between(star, &both), between(&both, star)] {
                assert_eq!((diff.databases["a"], diff.autodb), (change, None), "{own}");
            }
        }
    }

    #[test]
    fn the_template_outdates_servers_only_if_it_means_others() {
        let star = |entry: &str| format!("[databases]\n{entry}\n[pgbouncer]\n");
        for (old, new, change) in [
            (
                "* = host=x",
                "* = host=x pool_size=1",
                DatabaseChange::Retuned,
            ),
            ("* = host=x", "* = host=y", DatabaseChange::ServersOutdated),
            ("* = host=x", "", DatabaseChange::Removed),
            ("", "* = host=x", DatabaseChange::Added),
        ] {
            let diff = between(&star(old), &star(new));
            assert_eq!(diff.autodb, Some(change), "{old} {new}");
        }
    }

    #[test]
    fn naming_a_default_changes_no_servers() {
        let diff = between(
            "[databases]\na =\n[pgbouncer]\n",
            "[databases]\na = dbname=a port=5432 load_balance_hosts=round-robin\n[pgbouncer]\n",
        );
        assert_eq!(diff.databases["a"], DatabaseChange::Retuned);
    }

    #[test]
    fn tls_users_peers_and_the_template_are_told() {
        let diff = between(
            "[databases]\n* = host=x\n[peers]\n1 = host=a\n[pgbouncer]\n",
            "[databases]\n* = host=y\n[peers]\n1 = host=b\n[users]\nu = pool_size=1\n\
             [pgbouncer]\nserver_tls_sslmode = require\nlisten_port = 1\n",
        );
        assert_eq!(diff.autodb, Some(DatabaseChange::ServersOutdated));
        assert!(diff.server_tls_changed && !diff.client_tls_changed);
        assert!(diff.users.contains("u") && diff.peers.contains(&1));
        assert_eq!(
            (diff.keys[0].key, diff.keys[0].effect),
            ("listen_port", Effect::Restart)
        );
    }
}
