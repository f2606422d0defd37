//! A configuration as TOML, for whoever leaves PgBouncer's dialect.

use std::fmt::Write as _;

use super::header;
use crate::Dialect;
use crate::config::Config;
use crate::declare::{Place, Scope};
use crate::draft::Seen;
use crate::keys::Settings;
use crate::likeness::Likeness;
use crate::value::{Hosts, Kind, List, Seconds, Value as _};

/// The text of a TOML file that means the same. `seen` says what the file sets.
pub(crate) fn write(config: &Config, seen: &Seen, file: &str) -> String {
    let mut page = header_comment(file);
    main(&mut page, &config.global, seen, file);
    for database in config.databases.values().chain(&config.autodb) {
        entry(&mut page, &database.name, &database.keys);
    }
    for user in config.users.values() {
        entry(&mut page, &user.name, &user.keys);
    }
    for peer in config.peers.values() {
        entry(&mut page, &peer.id.to_string(), &peer.keys);
    }
    page
}

fn header_comment(file: &str) -> String {
    format!(
        "# Written by `pgweir convert {file}`, and means the same. Where pgweir's own defaults are not\n\
         # PgBouncer's, PgBouncer's are written out. Only this comes with the format: clients may speak\n\
         # version 3.2 of the protocol, and a mistake in the file makes a RELOAD change nothing. Comments\n\
         # and the order of lines are lost; secrets are not.\n\n\
         # [{}] in {file}.\n{}\n",
        Place::Global.section(),
        header(Place::Global),
    )
}

/// The keys that the file sets, and those that would be something else without a word.
fn main(page: &mut String, global: &Settings, seen: &Seen, file: &str) {
    let native = Settings {
        conffile: global.conffile.clone(),
        ..Settings::defaults(Dialect::Toml)
    };
    for key in Settings::KEYS {
        let spot = seen.spots.get(&(Place::Global, key.name.to_owned()));
        let value = (key.write)(global).map(|text| value_of(key.kind, &text));
        let Some(value) = value.filter(|_| spot.is_some() || !(key.same)(global, &native)) else {
            continue;
        };
        let _ = writeln!(page, "\n# {}", key.doc());
        remark(page, key.likeness());
        match spot {
            Some(spot) if spot.file != file => {
                let _ = writeln!(page, "# From {}.", spot.file);
            }
            Some(_) => {}
            None => {
                let own = (key.write)(&native).map(|text| value_of(key.kind, &text));
                let own = own.unwrap_or_default();
                let _ = writeln!(page, "# PgBouncer's way; pgweir's own is {own}.");
            }
        }
        let _ = writeln!(page, "{} = {value}", key.name);
    }
}

/// The table of an entry.
fn entry<S: Scope>(page: &mut String, name: &str, keys: &S) {
    let _ = writeln!(page, "\n[{}.{}]", S::PLACE.section(), key_of(name));
    for key in S::KEYS {
        let Some(text) = (key.write)(keys) else {
            continue;
        };
        remark(page, key.likeness());
        for (alias, _) in S::ALIASES.iter().filter(|(_, of)| *of == key.name) {
            let _ = writeln!(page, "# Also called {alias}.");
        }
        let _ = writeln!(page, "{} = {}", key.name, value_of(key.kind, &text));
    }
}

/// What whoever knows PgBouncer's key has to know.
fn remark(page: &mut String, likeness: Likeness) {
    let _ = match likeness {
        Likeness::Same | Likeness::Better(_) => Ok(()),
        Likeness::Differs(how) => writeln!(page, "# Not as in PgBouncer: {how}."),
        Likeness::Idle(why) => writeln!(page, "# Without effect: {why}."),
    };
}

/// A value in TOML's types.
fn value_of(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Boolean => (text != "0").to_string(),
        Kind::Integer => text.to_owned(),
        Kind::HostLimit if text.parse::<u32>().is_ok() => text.to_owned(),
        Kind::FileMode => match text.parse::<u32>() {
            Ok(mode) => format!("0o{mode:03o}"),
            Err(_) => quoted(text),
        },
        Kind::Seconds => Seconds::parse(text).map_or_else(|_| quoted(text), seconds),
        Kind::List => match List::parse(text) {
            Ok(list) => array(list.iter()),
            Err(_) => quoted(text),
        },
        Kind::Endpoints if text.contains([',', ' ', '\t']) => {
            let words = text.split([',', ' ', '\t']);
            array(words.filter(|word| !word.is_empty()))
        }
        Kind::Hosts => match Hosts::parse(text) {
            Ok(hosts) if hosts.list().len() > 1 => {
                array(hosts.list().iter().map(|host| host.as_str()))
            }
            Ok(_) | Err(_) => quoted(text),
        },
        Kind::Endpoints
        | Kind::HostLimit
        | Kind::AppActions
        | Kind::StatePolicies
        | Kind::StrictAllow
        | Kind::Text
        | Kind::Secret
        | Kind::PasswordSource
        | Kind::Choice(_)
        | Kind::Protocols => quoted(text),
    }
}

fn array<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.map(quoted).collect();
    format!("[{}]", words.join(", "))
}

fn seconds(time: Seconds) -> String {
    let (whole, micros) = (time.as_micros() / 1_000_000, time.as_micros() % 1_000_000);
    match micros {
        0 => whole.to_string(),
        _ => format!("{whole}.{micros:06}")
            .trim_end_matches('0')
            .to_owned(),
    }
}

fn quoted(text: &str) -> String {
    ::toml::Value::String(text.to_owned()).to_string()
}

/// A name as a key: in quotes unless it needs none.
fn key_of(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    match !name.is_empty() && name.bytes().all(bare) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::config::{Config, Phase, convert};
    use crate::declare::Scope;
    use crate::docs::sample_ini;
    use crate::keys::{DatabaseOverrides, Settings, UserOverrides};
    use crate::value::Kind;
    use crate::{Dialect, Severity, check};

    fn load(text: &str) -> Config {
        let mut config = Config::new("p");
        config
            .load(Phase::Start, &mut |_| Ok(text.to_owned()))
            .unwrap_or_else(|error| panic!("{error}\n{text}"));
        config
    }

    fn converted(ini: &str) -> String {
        let converted = convert("p", &mut |_| Ok(ini.to_owned()));
        converted
            .unwrap_or_else(|error| panic!("{error}\n{ini}"))
            .toml
    }

    /// The law: both files mean the same, and what is wrong with one is wrong with the other.
    fn assert_means_the_same(ini: &str) {
        let toml = converted(ini);
        let from_toml = load(&toml);
        assert_eq!(from_toml.dialect, Dialect::Toml, "{toml}");
        let from_toml = Config {
            dialect: Dialect::Ini,
            ..from_toml
        };
        assert_eq!(from_toml, load(ini), "{toml}");
        let errors = |text: &str| {
            let problems = check("p", &mut |_| Ok(text.to_owned()));
            let errors = problems
                .into_iter()
                .filter(|problem| problem.severity == Severity::Error);
            errors.map(|problem| problem.text).collect::<Vec<_>>()
        };
        assert_eq!(errors(&toml), errors(ini), "{toml}");
    }

    #[test]
    fn defaults_that_differ_are_written_out() {
        let ini = "[pgbouncer]\nlisten_port = 5000\n";
        let toml = converted(ini);
        for part in [
            "\nlisten_port = 5000\n",
            "# PgBouncer's way; pgweir's own is \"postgres\".\nerror_codes = \"pgbouncer\"\n",
            "\nstartup_parameters = \"refuse\"\n",
        ] {
            assert!(toml.contains(part), "{part}\n{toml}");
        }
        assert!(!toml.contains("\nworkers"), "{toml}");
        assert_means_the_same(ini);
    }

    #[test]
    fn values_have_types_and_names_have_quotes() {
        let ini = r##"
[databases]
app = host=db1,/run/pg port=5433 password='it''s "#;' reserve_pool=3 connect_query='set x = E''\n'''
* = host=db2 dbname='a b'
'quo"ted.name' = pool_mode=session
[users]
report = query_timeout=5 pool_size=0
[peers]
2 = host=/tmp port=7000
[pgbouncer]
listen_addr = 127.0.0.1, ::1
unix_socket_mode = 0750
log_stats = 2
server_lifetime = 1e6
query_timeout = 0.5
client_idle_timeout = 99999999999
pkt_buf = 0x2000
auth_query = SELECT 'a', "b" \ $1
logfile =
"##;
        let toml = converted(ini);
        for line in [
            r#"host = ["db1", "/run/pg"]"#,
            r#"listen_addr = ["127.0.0.1", "::1"]"#,
            "unix_socket_mode = 0o750",
            "log_stats = true",
            "server_lifetime = 1000000",
            "query_timeout = 0.5",
            "pkt_buf = 8192",
            r#"[databases."*"]"#,
            "[users.report]",
            "[peers.2]",
            "# Without effect: all connections of a thread share one large buffer.",
            "# Also called reserve_pool.",
        ] {
            assert!(toml.lines().any(|there| there == line), "{line}\n{toml}");
        }
        assert_means_the_same(ini);
    }

    #[test]
    fn included_files_come_along() {
        let mut read = |path: &std::path::Path| {
            let text = match path.to_str() {
                Some("p") => "%include databases.ini\n[pgbouncer]\n%include more.ini\n",
                Some("databases.ini") => "[databases]\na = host=db1\n",
                _ => "max_client_conn = 7\n",
            };
            Ok(text.to_owned())
        };
        let toml = convert("p", &mut read).expect("loads").toml;
        for part in [
            "[databases.a]\nhost = \"db1\"\n",
            "# From more.ini.\nmax_client_conn = 7\n",
        ] {
            assert!(toml.contains(part), "{part}\n{toml}");
        }
    }

    #[test]
    fn the_sample_with_every_default_means_the_same() {
        let mut ini = String::new();
        for line in sample_ini().lines() {
            let named = line
                .strip_prefix(';')
                .and_then(|rest| rest.split_once(" ="));
            let key = named.and_then(|(name, _)| Settings::key(name));
            let in_force = key.is_some_and(|key| key.default.is_some());
            ini.push_str(if in_force { &line[1..] } else { line });
            ini.push('\n');
        }
        assert_means_the_same(&ini);
    }

    #[test]
    fn a_file_with_errors_or_in_toml_is_not_converted() {
        for text in [
            "[pgbouncer]\npol_mode = x\n",
            "[pgweir]\n",
            "[databases]\na =\n",
        ] {
            let converted = convert("p", &mut |_| Ok(text.to_owned()));
            assert!(converted.is_err(), "{text}");
        }
    }

    /// A text that a key of this kind reads.
    /// The words that can be used without building in more.
    fn in_this_build(words: &'static [&'static str]) -> Vec<&'static str> {
        let words = words.iter().copied();
        words
            .filter(|word| cfg!(feature = "pam") || *word != "pam")
            .collect()
    }

    fn text_for(kind: Kind) -> BoxedStrategy<String> {
        match kind {
            Kind::Boolean => "[0-9]".boxed(),
            Kind::Integer => "[1-9][0-9]{0,3}".boxed(),
            Kind::Seconds => "[0-9]{1,6}(\\.[0-9]{1,8})?|[1-9]e[1-9]".boxed(),
            Kind::FileMode => "0[0-7]{3}".boxed(),
            Kind::Endpoints => {
                "(/[a-z]{1,4}|[a-z]{1,3}:[1-9]{1,3})(,\\[::1\\]:[1-9]{1,2}){0,2}".boxed()
            }
            Kind::StatePolicies => "listen:pin|locks:WARN, ?|ROLE: ?reset, ?listen:allow".boxed(),
            Kind::StrictAllow => "listen|locks:a b, ?|\\*:x, ?HOLD".boxed(),
            Kind::AppActions => "([a-z :]{1,4}:(log|cancel), ?){0,2}".boxed(),
            Kind::HostLimit => "auto|[1-9]0?%|[1-9]{1,3}".boxed(),
            Kind::Choice(words) => proptest::sample::select(in_this_build(words))
                .prop_map(str::to_ascii_uppercase)
                .boxed(),
            Kind::Protocols => "secure|all|tlsv1\\.2, !tlsv1\\.1".boxed(),
            Kind::Hosts => "[a-z@/]{1,4}(, ?[a-z]{1,3}){0,2}".boxed(),
            Kind::List => "[a-z_]{1,4}([ ,]{1,2}[a-z]{1,3}){0,2}".boxed(),
            Kind::PasswordSource => "(file|env|exec):[a-z'\"#;$%é]{1,6}".boxed(),
            Kind::Text | Kind::Secret => "[a-z'\"\\\\#;=$%é]{1,6}".boxed(),
        }
    }

    /// Some keys of a scope, with texts.
    fn some_of<S: Scope>() -> impl Strategy<Value = Vec<(&'static str, String)>> {
        let keys: Vec<_> = S::KEYS
            .iter()
            .map(|key| {
                let text = text_for(key.kind).prop_map(move |text| (key.name, text));
                proptest::option::weighted(0.2, text)
            })
            .collect();
        keys.prop_map(|all| all.into_iter().flatten().collect())
    }

    fn line(name: &str, keys: &[(&str, String)]) -> String {
        let quoted = |text: &str| text.replace('\'', "''");
        let pairs = keys
            .iter()
            .map(|(key, text)| format!(" {key}='{}'", quoted(text)));
        format!("{name} ={}\n", pairs.collect::<String>())
    }

    proptest! {
        #[test]
        fn any_file_means_the_same_in_toml(
            main in some_of::<Settings>(),
            database in some_of::<DatabaseOverrides>(),
            template in some_of::<DatabaseOverrides>(),
            user in some_of::<UserOverrides>(),
        ) {
            let mut ini = format!(
                "[databases]\n{}{}[users]\n{}[peers]\n3 = host=a\n[pgbouncer]\n",
                line("app", &database),
                line("*", &template),
                line("'a.b c'", &user),
            );
            for (key, text) in main.iter().filter(|(key, _)| *key != "conffile") {
                ini.push_str(&format!("{key} = {text}\n"));
            }
            assert_means_the_same(&ini);
        }
    }
}
