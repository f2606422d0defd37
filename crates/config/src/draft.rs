//! A configuration in the making: where both readers put what they read, key by key.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{Config, Database, Peer, User};
use crate::declare::{Key, Place, Scope};
use crate::keys::{DatabaseOverrides, PeerOverrides, Settings, UserOverrides};
use crate::problem::{Fault, Report, Spot, Stopped};
use crate::suggest::suggestion_for_key;
use crate::value::{Invalid, Kind, Seconds, Value};
use crate::{Dialect, TEMPLATE_DATABASE};

/// How whole numbers and times in an entry are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// Like C's `atoi`: as far as the digits go, and 0 where there are none.
    AsPgBouncer,
    /// The whole text has to be one.
    Strictly,
}

/// A configuration in the making.
pub(crate) struct Draft<'a> {
    /// What is running; empty at the start.
    running: &'a Config,
    config: Config,
    seen: Seen,
}

/// The entries that the file names, and where each thing was set.
#[derive(Default)]
pub(crate) struct Seen {
    databases: BTreeSet<String>,
    users: BTreeSet<String>,
    peers: BTreeSet<u32>,
    template: bool,
    /// The line that last set a key of the main section, or named an entry.
    pub(crate) spots: BTreeMap<(Place, String), Spot>,
}

impl<'a> Draft<'a> {
    /// Starts from what is running, so that it stays where the file fails to replace it.
    pub(crate) fn resuming(running: &'a Config) -> Self {
        let config = Config {
            dialect: Dialect::Ini,
            ..running.clone()
        };
        Self {
            running,
            config,
            seen: Seen::default(),
        }
    }

    /// Starts from nothing but the defaults and what the command line gave.
    pub(crate) fn fresh(running: &'a Config) -> Self {
        let global = Settings {
            conffile: running.global.conffile.clone(),
            verbose: running.global.verbose,
            ..Settings::defaults(Dialect::Toml)
        };
        let config = Config {
            global,
            dialect: Dialect::Toml,
            ..Config::default()
        };
        Self {
            running,
            config,
            seen: Seen::default(),
        }
    }

    /// The configuration as far as it was read.
    pub(crate) fn into_config(self) -> Config {
        self.config
    }

    /// The configuration without the entries that a completely read file no longer names.
    pub(crate) fn into_complete_config(mut self) -> (Config, Seen) {
        self.config
            .databases
            .retain(|name, _| self.seen.databases.contains(name));
        self.config
            .users
            .retain(|name, _| self.seen.users.contains(name));
        self.config
            .peers
            .retain(|id, _| self.seen.peers.contains(id));
        if !self.seen.template {
            self.config.autodb = None;
        }
        (self.config, self.seen)
    }

    /// The header of the main section: keys with a default go back to it.
    pub(crate) fn begin_main(&mut self) {
        self.config.global.reset(true);
        self.seen
            .spots
            .retain(|(place, _), _| *place != Place::Global);
    }

    /// A key of the main section.
    pub(crate) fn main(
        &mut self,
        report: &mut Report,
        spot: &Spot,
        name: &str,
        text: &str,
    ) -> Result<(), Stopped> {
        let Some(key) = Settings::key(name) else {
            let section = match self.config.dialect {
                Dialect::Ini => "pgbouncer",
                Dialect::Toml => "pgweir",
            };
            let fault = Fault::new(format!("unknown parameter: {section}/{name}"));
            return report.error(spot, fault.hint(suggestion_for_key::<Settings>(name)));
        };
        self.note(report, spot, Place::Global, name);
        match (key.set)(&mut self.config.global, text) {
            Ok(()) => {
                self.say_if_idle(report, spot, key);
                Ok(())
            }
            Err(reserved @ Invalid::ReservedDatabase(_)) => {
                report.error(spot, Fault::new(reserved.to_string()))
            }
            Err(
                why @ (Invalid::Malformed(_)
                | Invalid::OutOfRange { .. }
                | Invalid::NotBuilt { .. }
                | Invalid::Policy { .. }
                | Invalid::ZeroByte),
            ) => report.error(
                spot,
                Fault {
                    text: None,
                    suggestion: Some(why.to_string()),
                },
            ),
        }
    }

    /// Names a key that changes nothing although the file asks for a change; once, not at every
    /// RELOAD.
    fn say_if_idle(&self, report: &mut Report, spot: &Spot, key: &Key<Settings>) {
        let Some(why) = key.idle else { return };
        let wanted = &self.config.global;
        if !(key.same)(wanted, &Settings::default()) && !(key.same)(wanted, &self.running.global) {
            let fault = Fault::new(format!("{} has no effect", key.name));
            report.warning(spot, fault.hint(why.to_owned()));
        }
    }

    /// A key of an entry.
    pub(crate) fn field<S: Scope>(
        report: &mut Report,
        spot: &Spot,
        keys: &mut S,
        name: &str,
        text: &str,
        numbers: Numbers,
    ) -> Result<(), Stopped> {
        let Some(key) = S::key(name) else {
            let what = match S::PLACE {
                Place::User => "user",
                Place::Global | Place::Database | Place::Peer => "connection",
            };
            let fault = Fault::new(format!("unrecognized {what} parameter: {name}"));
            return report.error(spot, fault.hint(suggestion_for_key::<S>(name)));
        };
        let number = match (numbers, key.kind) {
            (Numbers::AsPgBouncer, Kind::Integer) => Some(leading_number(text)),
            (Numbers::AsPgBouncer, Kind::Seconds) => Some(leading_time(text)),
            (Numbers::AsPgBouncer | Numbers::Strictly, _) => None,
        };
        if let Err(invalid) = (key.set)(keys, number.as_deref().unwrap_or(text)) {
            let what = if name == "pool_mode" {
                "pool mode"
            } else {
                name
            };
            // Whoever writes a secret in place of where it is must not read it in the log.
            let text = match key.kind {
                Kind::Secret | Kind::PasswordSource => "****",
                _ => text,
            };
            let fault = Fault::new(format!("invalid {what}: {text}"));
            return report.error(spot, fault.hint(invalid.to_string()));
        }
        if let Some(number) = number.filter(|number| number != text) {
            let fault = Fault::new(format!("{name}={text} is read as {number}"));
            let hint = if text.trim_start().starts_with('-') {
                "a negative time never ends; leave the key out"
            } else {
                "only a whole number counts here"
            };
            report.warning(spot, fault.hint(hint.to_owned()));
        }
        Ok(())
    }

    /// Whether there is a template in force.
    pub(crate) fn replaces_template(&self) -> bool {
        self.running.autodb.is_some()
    }

    /// A complete entry of a database, or the template for all others.
    pub(crate) fn database(
        &mut self,
        report: &mut Report,
        spot: &Spot,
        name: &str,
        mut keys: DatabaseOverrides,
    ) {
        self.note(report, spot, Place::Database, name);
        if name == TEMPLATE_DATABASE {
            self.seen.template = true;
            self.config.autodb = Some(Database {
                name: name.to_owned(),
                keys,
            });
            return;
        }
        let running = self.running.databases.get(name);
        if let Some(old) = running.filter(|old| old.keys.user.is_some() && keys.user.is_none()) {
            let fault = Fault::new("losing forced user not supported, keeping old setting");
            report.warning(spot, fault.hint("a restart takes the user away".to_owned()));
            keys.user.clone_from(&old.keys.user);
            keys.password.clone_from(&old.keys.password);
            keys.password_from.clone_from(&old.keys.password_from);
        }
        self.seen.databases.insert(name.to_owned());
        let database = Database {
            name: name.to_owned(),
            keys,
        };
        self.config.databases.insert(name.to_owned(), database);
    }

    /// A complete entry of a user.
    pub(crate) fn user(
        &mut self,
        report: &mut Report,
        spot: &Spot,
        name: &str,
        keys: UserOverrides,
    ) {
        self.note(report, spot, Place::User, name);
        self.seen.users.insert(name.to_owned());
        self.config.users.insert(
            name.to_owned(),
            User {
                name: name.to_owned(),
                keys,
            },
        );
    }

    /// The number that is the name of a peer's entry.
    pub(crate) fn peer_id(
        &self,
        report: &mut Report,
        spot: &Spot,
        name: &str,
    ) -> Result<Option<u32>, Stopped> {
        match name.parse::<u32>() {
            Ok(id @ 1..=65535) => Ok(Some(id)),
            Ok(_) | Err(_) => {
                let text = "ids of peers must be a number larger than 0 and at most 65536";
                report.error(spot, Fault::new(text)).map(|()| None)
            }
        }
    }

    /// A complete entry of a peer.
    pub(crate) fn peer(
        &mut self,
        report: &mut Report,
        spot: &Spot,
        id: u32,
        keys: PeerOverrides,
    ) -> Result<(), Stopped> {
        let Some(host) = keys.host.clone() else {
            let fault = Fault::new(format!("host was not provided for peer {id}"));
            return report.error(spot, fault.hint("write host=ADDRESS".to_owned()));
        };
        self.note(report, spot, Place::Peer, &id.to_string());
        self.seen.peers.insert(id);
        self.config.peers.insert(id, Peer { id, host, keys });
        Ok(())
    }

    /// Remembers where something is set, and says so if it is set twice.
    fn note(&mut self, report: &mut Report, spot: &Spot, place: Place, name: &str) {
        let before = self
            .seen
            .spots
            .insert((place, name.to_owned()), spot.clone());
        let Some(before) = before.filter(|_| report.is_checking()) else {
            return;
        };
        let (file, line) = (before.file, before.line.unwrap_or_default());
        let text = format!("{name} is set again; what {file}:{line} says is lost");
        report.warning(spot, Fault::new(text));
    }
}

/// A time as PgBouncer reads it in an entry: what is negative wraps around and never ends.
fn leading_time(text: &str) -> String {
    let number = leading_number(text);
    if number.starts_with('-') {
        Seconds::MAX.show().unwrap_or(number)
    } else {
        number
    }
}

/// What C's `atoi` reads, as text.
fn leading_number(text: &str) -> String {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    // Without its zeros at the front, or it would be read as octal.
    match digits[..end].trim_start_matches('0') {
        "" => "0".to_owned(),
        number => format!("{sign}{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_read_numbers_like_atoi() {
        for (text, number) in [
            ("5", "5"),
            ("5x", "5"),
            ("abc", "0"),
            ("010", "10"),
            ("-3", "-3"),
            ("1.5", "1"),
        ] {
            assert_eq!(leading_number(text), number, "{text}");
        }
    }

    #[test]
    fn negative_times_in_entries_never_end() {
        assert_eq!(leading_time("-1"), "1e+10");
        assert_eq!(leading_time("60"), "60");
    }
}
