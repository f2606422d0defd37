//! RELOAD, and what a changed setting means for what is running.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use pgweir_config::{
    Config, DatabaseChange, KeyChange, Phase, SetOutcome, Severity, diff, may_hold_secret,
};
use pgweir_console::Notice;

use crate::clients::accept;
use crate::clients::farewell::Farewell;
use crate::process::log::Log;
use crate::servers::pools;
use crate::settings::file_mark::FileMark;
use crate::settings::tls::{self, Tls};
use crate::settings::{auth_files, preflight};
use crate::shared::{Shared, lock};
use crate::watch::janitor;

/// Loads the configuration for the first time.
///
/// # Errors
/// It cannot be loaded; the log says why.
pub(crate) fn first(file: &str, log: &Log) -> Result<Config, ()> {
    let mut config = Config::new(file);
    let outcome = config.load(Phase::Start, &mut read);
    match outcome {
        Ok(loaded) => {
            loaded.warnings.iter().for_each(log_problem);
            Ok(config)
        }
        Err(error) => {
            // What stands before an error counts.
            log.open_for_a_refusal(&config.global);
            error.problems.iter().for_each(log_problem);
            tracing::error!(fatal = true, "cannot load config file");
            Err(())
        }
    }
}

/// Reads a file with settings or rules. A byte that is no UTF-8, perhaps in a comment, must not keep
/// everything else from counting.
pub(crate) fn read(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::read(path)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn log_problem(problem: &pgweir_config::Problem) {
    let suggestion = problem
        .suggestion
        .as_ref()
        .map_or(String::new(), |text| format!(" ({text})"));
    match problem.severity {
        Severity::Warning => tracing::warn!("{}{suggestion}", problem.text),
        Severity::Error => tracing::error!("{}{suggestion}", problem.text),
    }
    for line in &problem.trail {
        tracing::error!("{line}");
    }
}

/// Reads the configuration files again and puts them in force. As with PgBouncer, what stands
/// before an error counts.
///
/// # Errors
/// Something is wrong with the files; the log says what.
pub(crate) fn reload(shared: &Arc<Shared>) -> Result<(), ()> {
    let mut overrides = lock(&shared.overrides);
    let old = shared.config();
    let base = overrides.base(&old);
    let mut new = (*base).clone();
    let loaded = new.load(Phase::Reload, &mut read);
    let problems = match &loaded {
        Ok(loaded) => {
            for change in &loaded.restart_needed {
                tracing::warn!("{} changes only at a restart", change.key);
            }
            &loaded.warnings
        }
        Err(error) => &error.problems,
    };
    problems.iter().for_each(log_problem);
    let new = overrides.rebase(&base, new);
    if loaded.is_err() {
        tracing::warn!("config file loading failed");
    }
    log_changes(&old, &new);
    apply(shared, &old, new);
    let tls = apply_tls(shared);
    if tls.is_err() {
        tracing::error!("TLS configuration could not be reloaded, keeping old configuration");
    }
    auth_files::read_again(shared);
    try_again(shared);
    reopen_log(shared);
    preflight::look(shared);
    loaded.map(|_| ()).map_err(|_| ()).and(tls)
}

/// Says what a RELOAD has changed. Values that are secret are not told apart in words.
fn log_changes(old: &Config, new: &Config) {
    let difference = diff(old, new);
    let value = |value: &Option<String>| match value {
        Some(value) => format!("{value:?}"),
        None => "NULL".to_owned(),
    };
    for KeyChange { key, from, to, .. } in &difference.keys {
        match may_hold_secret(key) {
            true => tracing::info!("RELOAD: {key} has another value"),
            false => tracing::info!("RELOAD: {key} is {}, it was {}", value(to), value(from)),
        }
    }
    let what = |change: &DatabaseChange| match change {
        DatabaseChange::Added => "is new",
        DatabaseChange::Removed => "is gone",
        DatabaseChange::Retuned => "has other limits or modes",
        DatabaseChange::ServersOutdated => "means other servers: those that are open are replaced",
    };
    for (name, change) in &difference.databases {
        // Without an entry it was one of *, or is now.
        let what = match change {
            DatabaseChange::Retuned if !old.databases.contains_key(name) => "is new",
            DatabaseChange::Retuned if !new.databases.contains_key(name) => "is one of * now",
            change => what(change),
        };
        tracing::info!("RELOAD: database {name} {what}");
    }
    if let Some(change) = &difference.autodb {
        tracing::info!("RELOAD: the entry * {}", what(change));
    }
    for user in &difference.users {
        tracing::info!("RELOAD: the entry of user {user} has changed");
    }
    for peer in &difference.peers {
        tracing::info!("RELOAD: the entry of peer {peer} has changed");
    }
}

/// Reopens the log file, which may have been rotated.
pub(crate) fn reopen_log(shared: &Shared) {
    if let Err(error) = shared.log.open(&shared.config().global) {
        tracing::error!("{error}");
    }
}

/// SET on the console.
///
/// # Errors
/// No such key, or no such value.
pub(crate) fn set(shared: &Arc<Shared>, key: &str, value: &str) -> Result<Option<Notice>, ()> {
    let mut overrides = lock(&shared.overrides);
    let old = shared.config();
    let base = overrides.base(&old);
    let mut new = (*base).clone();
    match new.global.set(key, value) {
        Ok(SetOutcome::Applied) => {}
        Ok(SetOutcome::IgnoredUntilRestart) => return Ok(None),
        Err(error) => {
            tracing::error!("{error}");
            return Err(());
        }
    }
    overrides.yield_to_set(key);
    let new = overrides.rebase(&base, new);
    apply(shared, &old, new);
    Ok(follow_key(shared, key))
}

/// Does what a new value of a key asks for beyond being in force.
pub(crate) fn follow_key(shared: &Arc<Shared>, key: &str) -> Option<Notice> {
    if matches!(
        key,
        "auth_file" | "auth_hba_file" | "auth_ident_file" | "auth_ldap_options"
    ) {
        auth_files::read_again(shared);
    }
    if key == "logfile" || key.starts_with("syslog") {
        reopen_log(shared);
    }
    let applied = match key.contains("_tls_") || key.contains("_tls13_") {
        true => apply_tls(shared),
        false => Ok(()),
    };
    applied.err().map(|()| Notice::TlsNotApplied)
}

/// Puts a configuration in force and acts on the difference, but for TLS.
pub(crate) fn apply(shared: &Arc<Shared>, old: &Arc<Config>, new: Config) {
    let difference = diff(old, &new);
    if new.global.tcp_defer_accept != old.global.tcp_defer_accept {
        for listener in &*lock(&shared.listeners) {
            accept::tune(listener, &new.global);
        }
    }
    shared.set_config(new);
    for (name, change) in &difference.databases {
        match change {
            DatabaseChange::Added | DatabaseChange::Retuned => {}
            DatabaseChange::ServersOutdated => reconnect(shared, |database| database == name),
            DatabaseChange::Removed => remove(shared, name),
        }
    }
    match difference.autodb {
        None | Some(DatabaseChange::Added | DatabaseChange::Retuned) => {}
        Some(DatabaseChange::ServersOutdated | DatabaseChange::Removed) => {
            let config = shared.config();
            reconnect(shared, |database| {
                !config.databases.contains_key(database)
                    && !difference.databases.contains_key(database)
            });
        }
    }
}

/// Reads certificates and keys again, whose files may have changed. Fails if they cannot be used;
/// then what was in force stays so.
fn apply_tls(shared: &Arc<Shared>) -> Result<(), ()> {
    let tls = Tls::load(&shared.config().global).map_err(|error| {
        tracing::error!("TLS setup failed: {error}");
    })?;
    let servers_outdated = !tls.same_towards_servers(&shared.tls());
    shared.set_tls(tls);
    if servers_outdated {
        reconnect(shared, |_| true);
    }
    Ok(())
}

/// Certificates and keys that have been renewed are used for what connects from now on; what is open stays so. `tried` is
/// what was found the last time: files that do not fit each other are perhaps half renewed, and are told of once.
pub(crate) fn follow_certificates(shared: &Shared, tried: &mut Vec<Option<FileMark>>) {
    let found = tls::marks(&shared.config().global);
    let may_change = found.iter().flatten().any(FileMark::is_fresh);
    if may_change || found == shared.tls().seen || found == *tried {
        return;
    }
    // Nobody sets other files or modes meanwhile.
    let _held = lock(&shared.overrides);
    let config = shared.config();
    match Tls::load(&config.global) {
        Ok(tls) => {
            tracing::info!("TLS: certificates or keys have changed; new connections use them");
            shared.set_tls(tls);
            try_again(shared);
        }
        Err(error) => tracing::warn!(
            "TLS: certificates or keys have changed and cannot be used, so those before stay in force: {error}"
        ),
    }
    *tried = found;
}

/// What kept servers from being opened may be over.
fn try_again(shared: &Shared) {
    for home in shared.homes().into_values() {
        shared.pools().try_again(home.id);
    }
}

/// Marks servers to be replaced.
pub(crate) fn reconnect(shared: &Arc<Shared>, which: impl Fn(&str) -> bool) {
    let actions = shared.pools().reconnect(&which, Instant::now());
    pools::perform(shared, actions);
}

/// A database is no longer configured: its clients and servers go.
fn remove(shared: &Arc<Shared>, name: &str) {
    janitor::log_dropping(name);
    for client in &shared.clients {
        if client
            .route()
            .is_some_and(|route| &*route.home.name.database == name)
        {
            client.end(Farewell::DatabaseRemoved);
        }
    }
    for home in shared
        .homes()
        .into_values()
        .filter(|home| &*home.name.database == name)
    {
        let actions = shared.pools().retire(home.id, Instant::now());
        pools::perform(shared, actions);
    }
}
