//! A whole configuration, and how one comes out of a file.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::declare::{Effect, Scope};
use crate::dialect::{Dialect, sniff};
use crate::draft::{Draft, Seen};
use crate::ini::{self, Read};
use crate::keys::{DatabaseOverrides, PeerOverrides, Settings, UserOverrides};
use crate::lints;
use crate::problem::{Fault, Problem, Report, Severity, Spot, Stopped};
use crate::settings::KeyChange;
use crate::toml;
use crate::value::{Host, Hosts, LoadBalanceHosts, TargetSessionAttrs};

/// Everything that the files say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// The main section.
    pub global: Settings,
    /// The entries of databases by name, without the template.
    pub databases: BTreeMap<String, Database>,
    /// The `*` entry: the template for databases without an entry.
    pub autodb: Option<Database>,
    /// The entries of users by name.
    pub users: BTreeMap<String, User>,
    /// The entries of peers by their number.
    pub peers: BTreeMap<u32, Peer>,
    /// The language of the file.
    pub dialect: Dialect,
}

/// One database that clients can name.
#[derive(Debug, Clone, PartialEq)]
pub struct Database {
    /// The name that clients use.
    pub name: String,
    /// The keys of its entry.
    pub keys: DatabaseOverrides,
}

/// What is special about a user.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// The user's name.
    pub name: String,
    /// The keys of its entry.
    pub keys: UserOverrides,
}

/// Another pooler, which may own the cancel keys that we are sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Its number.
    pub id: u32,
    /// Where it is.
    pub host: Hosts,
    /// The keys of its entry.
    pub keys: PeerOverrides,
}

/// When a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Before anything runs: every key counts.
    Start,
    /// While running: keys that need a restart keep their values.
    Reload,
}

/// What a successful load has to say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Loaded {
    /// Doubtful things; never errors.
    pub warnings: Vec<Problem>,
    /// Keys whose values in the file count only after a restart, as RELOAD found them.
    pub restart_needed: Vec<KeyChange>,
}

/// A file that could not be loaded. From an ini file, what stood before the error counts; from a
/// TOML file, nothing does.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", self.problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct LoadError {
    /// Warnings and at least one error, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Config {
    /// Before any file: the defaults, and the name of the file to load.
    pub fn new(conffile: &str) -> Self {
        let global = Settings {
            conffile: Some(conffile.to_owned()),
            ..Settings::default()
        };
        Self {
            global,
            ..Self::default()
        }
    }

    /// Reads the file that `conffile` names. After an error this is as far as PgBouncer would
    /// have come; see [`LoadError`].
    pub fn load(&mut self, phase: Phase, read: &mut Read<'_>) -> Result<Loaded, LoadError> {
        let mut report = Report::stopping();
        let file = self.global.conffile.clone().unwrap_or_default();
        let text = match ini::read_file(read, &file) {
            Ok(text) => text,
            Err(fault) => {
                report.fatal(&Spot::file(&file), fault);
                return Err(LoadError {
                    problems: report.problems,
                });
            }
        };
        let (mut new, outcome) = match sniff(&text) {
            Dialect::Ini => self.read_ini(&mut report, &file, &text, read),
            Dialect::Toml => self.read_toml(&mut report, &file, &text),
        };
        let restart_needed = match phase {
            Phase::Start => Vec::new(),
            Phase::Reload => new.keep_restart_keys(self),
        };
        *self = new;
        match outcome {
            Ok(()) => Ok(Loaded {
                warnings: report.problems,
                restart_needed,
            }),
            Err(Stopped) => Err(LoadError {
                problems: report.problems,
            }),
        }
    }

    /// Whether there is a [`Self::database`] of this name.
    pub fn has_database(&self, name: &str) -> bool {
        self.autodb.is_some() || self.databases.contains_key(name)
    }

    /// The database that clients call `name`, made from the template if it has no entry.
    pub fn database(&self, name: &str) -> Option<Cow<'_, Database>> {
        if let Some(database) = self.databases.get(name) {
            return Some(Cow::Borrowed(database));
        }
        let template = self.autodb.as_ref()?;
        Some(Cow::Owned(Database {
            name: name.to_owned(),
            keys: template.keys.clone(),
        }))
    }

    fn read_ini(
        &self,
        report: &mut Report,
        file: &str,
        text: &str,
        read: &mut Read<'_>,
    ) -> (Self, Result<(), Stopped>) {
        let mut draft = Draft::resuming(self);
        match ini::read(&mut draft, report, file, text, read) {
            Ok(()) => (draft.into_complete_config().0, Ok(())),
            Err(Stopped) => (draft.into_config(), Err(Stopped)),
        }
    }

    /// All or nothing, and all errors at once: it cannot stop in the middle.
    fn read_toml(
        &self,
        report: &mut Report,
        file: &str,
        text: &str,
    ) -> (Self, Result<(), Stopped>) {
        let mut draft = Draft::fresh(self);
        let mut all = Report::collecting();
        let outcome = toml::read(&mut draft, &mut all, file, text);
        let failed = outcome.is_err() || all.has_errors();
        report.problems.append(&mut all.problems);
        if failed {
            return (self.clone(), Err(Stopped));
        }
        (draft.into_complete_config().0, Ok(()))
    }

    /// Takes back the changes that need a restart, and tells them.
    fn keep_restart_keys(&mut self, running: &Self) -> Vec<KeyChange> {
        let mut changes = running.global.changes(&self.global);
        changes.retain(|change| change.effect == Effect::Restart);
        for change in &changes {
            if let Some(key) = Settings::key(change.key) {
                (key.copy)(&running.global, &mut self.global);
            }
        }
        changes
    }
}

/// A file in the native format.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// Its text.
    pub toml: String,
    /// Doubtful things in the file that it was made from; never errors.
    pub warnings: Vec<Problem>,
}

/// Writes what an ini file means as TOML.
pub fn convert(conffile: &str, read: &mut Read<'_>) -> Result<Converted, LoadError> {
    let (config, seen, warnings) = read_complete_ini(conffile, read)?;
    Ok(Converted {
        toml: toml::write(&config, &seen, conffile),
        warnings,
    })
}

/// Reads an ini file with all its problems; it has to be without errors.
pub(crate) fn read_complete_ini(
    conffile: &str,
    read: &mut Read<'_>,
) -> Result<(Config, Seen, Vec<Problem>), LoadError> {
    let mut report = Report::collecting();
    let empty = Config::new(conffile);
    let mut draft = Draft::resuming(&empty);
    match ini::read_file(read, conffile) {
        Ok(text) if sniff(&text) == Dialect::Toml => {
            report.fatal(
                &Spot::file(conffile),
                Fault::new("it is a TOML file already"),
            );
        }
        Ok(text) => {
            // What stopped it stands in the report.
            let _ = ini::read(&mut draft, &mut report, conffile, &text, read);
        }
        Err(fault) => {
            report.fatal(&Spot::file(conffile), fault);
        }
    }
    let problems = report.problems;
    if problems
        .iter()
        .any(|problem| problem.severity == Severity::Error)
    {
        return Err(LoadError { problems });
    }
    let (config, seen) = draft.into_complete_config();
    Ok((config, seen, problems))
}

/// Everything that is wrong or doubtful in a file, without loading it.
pub fn check(conffile: &str, read: &mut Read<'_>) -> Vec<Problem> {
    let mut report = Report::collecting();
    let text = match ini::read_file(read, conffile) {
        Ok(text) => text,
        Err(fault) => {
            report.fatal(&Spot::file(conffile), fault);
            return report.problems;
        }
    };
    let empty = Config::new(conffile);
    let (draft, outcome) = match sniff(&text) {
        Dialect::Ini => {
            let mut draft = Draft::resuming(&empty);
            let outcome = ini::read(&mut draft, &mut report, conffile, &text, read);
            (draft, outcome)
        }
        Dialect::Toml => {
            let mut draft = Draft::fresh(&empty);
            let outcome = toml::read(&mut draft, &mut report, conffile, &text);
            (draft, outcome)
        }
    };
    // A key that could not be read would make lints complain about what its author did say.
    if outcome.is_ok() && !report.has_errors() {
        let (config, seen) = draft.into_complete_config();
        lints::look_at(&config, &seen, conffile, &mut report);
    }
    report.problems
}

impl Database {
    /// Its name on the server.
    pub fn dbname(&self) -> &str {
        self.keys.dbname.as_deref().unwrap_or(&self.name)
    }

    /// Its hosts; none means the Unix socket in `unix_socket_dir`.
    pub fn hosts(&self) -> &[Host] {
        self.keys.host.as_ref().map_or(&[], Hosts::list)
    }

    /// The names of the PostgreSQL servers that it is on, never none: host and port as the file writes
    /// them. Two names of one machine are two servers.
    pub fn host_names(&self, unix_socket_dir: &str) -> Vec<String> {
        let port = self.port();
        match self.hosts() {
            [] => vec![format!("{unix_socket_dir}:{port}")],
            hosts => hosts.iter().map(|host| self.host_name(host)).collect(),
        }
    }

    /// The name of one of its hosts.
    pub fn host_name(&self, host: &Host) -> String {
        let port = self.port();
        match host {
            Host::Tcp(name) => format!("{}:{port}", name.to_ascii_lowercase()),
            Host::Unix(dir) => format!("{dir}:{port}"),
        }
    }

    /// The port of its servers.
    pub fn port(&self) -> u16 {
        self.keys.port.map_or(5432, Into::into)
    }

    /// What its entry adds to the servers' startup message, in PgBouncer's order.
    pub fn startup_parameters(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let keys = &self.keys;
        let all = [
            ("client_encoding", &keys.client_encoding),
            ("datestyle", &keys.datestyle),
            ("timezone", &keys.timezone),
            ("application_name", &keys.application_name),
        ];
        all.into_iter()
            .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }

    /// How servers are spread over its hosts.
    pub fn load_balance_hosts(&self) -> LoadBalanceHosts {
        self.keys
            .load_balance_hosts
            .unwrap_or(LoadBalanceHosts::RoundRobin)
    }

    /// What PostgreSQL has to be for its servers.
    pub fn target_session_attrs(&self) -> TargetSessionAttrs {
        self.keys
            .target_session_attrs
            .unwrap_or(TargetSessionAttrs::Any)
    }
}

impl Peer {
    /// Its port.
    pub fn port(&self) -> u16 {
        self.keys.port.map_or(6432, Into::into)
    }
}
