//! Documentation written from the table of keys: the sample file and the reference.

use crate::declare::{Key, Place, Scope};
use crate::keys::{DatabaseOverrides, PeerOverrides, Settings, UserOverrides};
use crate::likeness::Likeness;
use crate::toml::header;
use crate::value::{Kind, StatePolicies, StrictAllow};

/// An ini file that names every key in a comment, with its default.
pub fn sample_ini() -> String {
    let mut sample = String::from(
        ";; Every key with its default. Comments need lines of their own.\n\n\
         ;; Databases that clients can use: NAME = key=value ...\n\
         ;; The entry \"*\" stands for every other name.\n[databases]\n\n",
    );
    entry_keys::<DatabaseOverrides>(&mut sample);
    sample.push_str(";appdb = host=localhost port=5432 pool_size=20\n;* = host=localhost\n");
    sample.push_str("\n;; What is special about a user: NAME = key=value ...\n[users]\n\n");
    entry_keys::<UserOverrides>(&mut sample);
    sample.push_str(";report = pool_size=2 query_timeout=600\n");
    sample.push_str("\n;; Poolers that forward cancel requests: NUMBER = key=value ...\n");
    sample.push_str("[peers]\n\n");
    entry_keys::<PeerOverrides>(&mut sample);
    sample.push_str(";2 = host=pooler2 port=6432\n");
    sample.push_str("\n;; Everything else.\n[pgbouncer]\n");
    for key in Settings::KEYS {
        let row = format!(";{} = {}", key.name, key.default.unwrap_or_default());
        let (doc, notes, row) = (key.doc(), notes(key), row.trim_end());
        sample.push_str(&format!("\n;; {doc}\n;; {notes}\n{row}\n"));
    }
    sample
}

/// The reference of all keys, in Markdown.
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# Configuration keys\n\n\
         A file is written in PgBouncer's ini dialect or in TOML; which one is told from its \
         content. Times are seconds and may have a fraction; in TOML they may also be texts with a \
         unit, such as `\"500ms\"`, `\"5s\"` or `\"10m\"`. Booleans are `1` and `0` in ini, `true` \
         and `false` in TOML. A change counts *at once*, for *new leases* (connections, logins and \
         leases that begin later) or after a *restart*.\n",
    );
    section::<Settings>(&mut page, "The main section");
    section::<DatabaseOverrides>(&mut page, "Databases");
    section::<UserOverrides>(&mut page, "Users");
    section::<PeerOverrides>(&mut page, "Peers");
    page
}

fn section<S: Scope>(page: &mut String, title: &str) {
    let (ini, toml) = (S::PLACE.section(), header(S::PLACE));
    let inherited = inherited(S::PLACE);
    page.push_str(&format!(
        "\n## {title}\n\n`[{ini}]` in ini, `{toml}` in TOML.{inherited}\n\n\
         | key | value | default | counts | meaning |\n|---|---|---|---|---|\n"
    ));
    for key in S::KEYS {
        let (name, kind, effect) = (key.name, kind_name(key.kind), key.effect);
        let default = match (key.default, key.native) {
            (Some(ini), Some(toml)) if ini != toml => format!("`{ini}`, in TOML `{toml}`"),
            (Some(""), _) => "empty".to_owned(),
            (Some(default), _) => format!("`{default}`"),
            (None, _) => String::new(),
        };
        let ours = match key.native {
            Some(_) => " Not in PgBouncer.",
            None => "",
        };
        let beside = match key.likeness() {
            Likeness::Same => String::new(),
            Likeness::Better(what) => format!(" More than in PgBouncer: {what}."),
            Likeness::Differs(how) => format!(" Not as in PgBouncer: {how}."),
            Likeness::Idle(why) => format!(" No effect: {why}."),
        };
        let (doc, elsewhere) = (escaped(key.doc()), elsewhere(key));
        let meaning = format!("{doc}{elsewhere}{ours}{beside}");
        page.push_str(&format!(
            "| `{name}` | {kind} | {default} | {effect} | {meaning} |\n"
        ));
    }
}

/// Which values of an entry leave the word to the main section.
fn inherited(place: Place) -> &'static str {
    match place {
        Place::Global => "",
        Place::Database => {
            " What an entry does not name comes from the main section; so do sizes below 0, limits \
             of 0 and a `server_lifetime` of 0."
        }
        Place::User => {
            " A user's entry goes before the database's, and that before the main section. Sizes \
             below 0, limits of 0 and times of 0, except `query_wait_timeout`, count as not named."
        }
        Place::Peer => " A `pool_size` below 0 counts as not named.",
    }
}

fn entry_keys<S: Scope>(sample: &mut String) {
    for key in S::KEYS {
        sample.push_str(&format!(";;   {}: {}\n", key.name, key.doc()));
    }
}

/// What a sample says about a key beyond its meaning.
fn notes<S>(key: &Key<S>) -> String {
    let mut notes = capitalised(&key.kind.to_string());
    if !key.is_changeable() {
        notes.push_str("; changes at a restart");
    }
    if key.default.is_none() {
        notes.push_str("; no default");
    }
    if key.native.is_some() {
        notes.push_str("; not in PgBouncer");
    }
    notes.push('.');
    notes
}

/// Under which names the key also stands in entries.
fn elsewhere<S>(key: &Key<S>) -> String {
    if key.elsewhere.is_empty() {
        return String::new();
    }
    let places = key
        .elsewhere
        .iter()
        .map(|(place, name)| format!("`{}` `{name}`", header(*place)));
    format!(" Also: {}.", places.collect::<Vec<_>>().join(", "))
}

fn words(words: &[&str]) -> String {
    let quoted = words.iter().map(|word| format!("`{word}`"));
    quoted.collect::<Vec<_>>().join(", ")
}

fn kind_name(kind: Kind) -> String {
    match kind {
        Kind::Choice(words) => words
            .iter()
            .map(|w| format!("`{w}`"))
            .collect::<Vec<_>>()
            .join(" "),
        Kind::Text => "text".to_owned(),
        Kind::List => "list".to_owned(),
        Kind::Integer => "whole number".to_owned(),
        Kind::Boolean => "boolean".to_owned(),
        Kind::Seconds => "seconds".to_owned(),
        Kind::StatePolicies => {
            let policies = StatePolicies::POLICIES.map(|(word, _)| word);
            format!(
                "list of `kind:policy`; kinds {}; policies {}",
                words(&StatePolicies::KINDS),
                words(&policies)
            )
        }
        Kind::StrictAllow => format!(
            "list of `kind` or `kind:application`; kinds {} or `*`",
            words(&StrictAllow::KINDS)
        ),
        Kind::AppActions => "list of `application:action`".to_owned(),
        Kind::FileMode => "file mode".to_owned(),
        Kind::Protocols => "TLS versions".to_owned(),
        Kind::Hosts => "hosts".to_owned(),
        Kind::Endpoints => "addresses with ports, paths".to_owned(),
        Kind::HostLimit => "whole number, percentage or `auto`".to_owned(),
        Kind::Secret => "secret".to_owned(),
        Kind::PasswordSource => "`file:`PATH, `env:`NAME, `exec:`COMMAND or `rds:`".to_owned(),
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + chars.as_str())
        .unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Phase};
    use crate::{check, sniff};

    fn load(text: &str) -> Config {
        let mut config = Config::new("sample.ini");
        let loaded = config
            .load(Phase::Start, &mut |_| Ok(text.to_owned()))
            .expect("loads");
        assert_eq!(loaded.warnings, []);
        config
    }

    #[test]
    fn the_sample_loads_to_the_defaults() {
        assert_eq!(load(&sample_ini()), Config::new("sample.ini"));
    }

    #[test]
    fn the_sample_loads_to_the_defaults_with_every_default_in_force() {
        let mut text = String::new();
        for line in sample_ini().lines() {
            let named = line
                .strip_prefix(';')
                .and_then(|rest| rest.split_once(" ="));
            let key = named.and_then(|(name, _)| Settings::key(name));
            let in_force = key.is_some_and(|key| key.default.is_some());
            text.push_str(if in_force { &line[1..] } else { line });
            text.push('\n');
        }
        assert!(text.contains("\nmax_client_conn = 100\n"));
        assert_eq!(load(&text), Config::new("sample.ini"));
    }

    #[test]
    fn the_sample_names_every_key() {
        let sample = sample_ini();
        for key in Settings::KEYS {
            assert!(
                sample.contains(&format!("\n;{} =", key.name)),
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn the_reference_has_a_row_for_every_key() {
        let page = reference_markdown();
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        let keys = Settings::KEYS.len()
            + DatabaseOverrides::KEYS.len()
            + UserOverrides::KEYS.len()
            + PeerOverrides::KEYS.len();
        assert_eq!(rows, keys);
        assert!(page.contains("| `error_codes` | `pgbouncer` `postgres` | `pgbouncer`, in TOML"));
    }

    #[test]
    fn every_key_has_a_doc_that_ends_as_a_sentence() {
        for key in Settings::KEYS {
            assert!(
                key.doc().ends_with('.') && key.doc().len() < 110,
                "{}",
                key.name
            );
        }
    }

    #[test]
    fn the_example_files_are_sound() {
        let examples = [
            (
                "pgweir.ini",
                include_str!("../../../config/pgweir.ini"),
                crate::Dialect::Ini,
            ),
            (
                "pgweir.toml",
                include_str!("../../../config/pgweir.toml"),
                crate::Dialect::Toml,
            ),
        ];
        for (name, text, dialect) in examples {
            assert_eq!(sniff(text), dialect, "{name}");
            assert_eq!(check(name, &mut |_| Ok(text.to_owned())), [], "{name}");
        }
    }
}
