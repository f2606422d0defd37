//! Keys that are changed for a while.
//!
//! What is in force is the base (the files and PgBouncer's SET) with the changes made on top of it.
//! When one ends, the rest is composed anew, so nothing has to be remembered of what it hid.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgweir_config::{Change, ChangeError, Config, Entry, may_hold_secret};
use pgweir_console::Notice;

use crate::settings::{preflight, reload};
use crate::shared::{Shared, lock};

/// The changes in force, in the order in which they were ordered.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    /// The configuration without them; `None` as long as there are none.
    base: Option<Arc<Config>>,
    active: Vec<Override>,
}

/// One change.
#[derive(Clone, Debug)]
pub(crate) struct Override {
    pub(crate) change: Change,
    /// Who ordered it.
    pub(crate) by: String,
    pub(crate) since: Instant,
    /// When it ends.
    pub(crate) until: Instant,
}

impl Overrides {
    /// The configuration without them, given the one in force.
    pub(crate) fn base(&self, in_force: &Arc<Config>) -> Arc<Config> {
        Arc::clone(self.base.as_ref().unwrap_or(in_force))
    }

    /// Those in force.
    pub(crate) fn active(&self) -> &[Override] {
        &self.active
    }

    /// Takes a new base, and says what is in force then. A change ends where the new base says
    /// something new about its key.
    pub(crate) fn rebase(&mut self, old: &Config, new: Config) -> Config {
        let mut composed = new.clone();
        self.active.retain(|active| {
            let Change { entry, key, .. } = &active.change;
            let stays = old.agrees(&new, entry, key) && composed.change(&active.change).is_ok();
            if !stays {
                tracing::info!("{key}{entry} was changed: what was set for a while is over");
            }
            stays
        });
        self.base = (!self.active.is_empty()).then(|| Arc::new(new));
        composed
    }

    /// PgBouncer's SET of a key of the main section counts, whatever was set for a while.
    pub(crate) fn yield_to_set(&mut self, key: &str) {
        self.active
            .retain(|active| active.change.entry != Entry::Main || active.change.key != key);
    }

    /// Adds a change, which takes the place of another one of the same key.
    fn add(&mut self, in_force: &Arc<Config>, new: Override) -> Result<Config, ChangeError> {
        let base = self.base(in_force);
        let mut active = self.active.clone();
        active.retain(|old| {
            (&old.change.entry, &old.change.key) != (&new.change.entry, &new.change.key)
        });
        active.push(new);
        let composed = compose(&base, &active)?;
        *self = Self {
            base: Some(base),
            active,
        };
        Ok(composed)
    }

    /// Takes out what is over; what is in force then, if anything was.
    fn expire(&mut self, in_force: &Arc<Config>, now: Instant) -> Option<(Vec<Override>, Config)> {
        let over: Vec<_> = self.active.extract_if(.., |a| a.until <= now).collect();
        if over.is_empty() {
            return None;
        }
        let base = self.base(in_force);
        // They could be made on this base before, and they do not depend on each other.
        let composed = compose(&base, &self.active).unwrap_or_else(|_| (*base).clone());
        if self.active.is_empty() {
            self.base = None;
        }
        Some((over, composed))
    }
}

fn compose(base: &Config, active: &[Override]) -> Result<Config, ChangeError> {
    let mut composed = base.clone();
    for active in active {
        composed.change(&active.change)?;
    }
    Ok(composed)
}

/// Changes a key until its time is over.
///
/// # Errors
/// It is no key, or no value.
pub(crate) fn set(
    shared: &Arc<Shared>,
    change: Change,
    ttl: Duration,
    by: String,
) -> Result<Option<Notice>, ChangeError> {
    let mut overrides = lock(&shared.overrides);
    let old = shared.config();
    let now = Instant::now();
    let (entry, key) = (change.entry.clone(), change.key.clone());
    let new = Override {
        change,
        by: by.clone(),
        since: now,
        until: now + ttl,
    };
    let composed = overrides.add(&old, new)?;
    tracing::info!(
        "SET {key} = {}{entry} for {} s by {by}, it was {}",
        or_null(printed(&composed, &entry, &key)),
        ttl.as_secs(),
        or_null(printed(&old, &entry, &key))
    );
    reload::apply(shared, &old, composed);
    Ok(follow(shared, &entry, &key))
}

/// Takes back what is over.
pub(crate) fn expire(shared: &Arc<Shared>, now: Instant) {
    let mut overrides = lock(&shared.overrides);
    let old = shared.config();
    let Some((over, composed)) = overrides.expire(&old, now) else {
        return;
    };
    for Override { change, by, .. } in &over {
        let Change { entry, key, .. } = change;
        tracing::info!(
            "{key}{entry} is {} again: what {by} set for a while is over",
            or_null(printed(&composed, entry, key))
        );
    }
    reload::apply(shared, &old, composed);
    for Override { change, .. } in &over {
        // If TLS cannot follow, the log says so.
        let _ = follow(shared, &change.entry, &change.key);
    }
}

/// A value for the log and the console, `None` for NULL. One that may hold a secret is not told.
pub(crate) fn printed(config: &Config, entry: &Entry, key: &str) -> Option<String> {
    let value = config.value_of(entry, key)?;
    // That there is none is no secret.
    match may_hold_secret(key) && !value.is_empty() {
        true => Some("****".to_owned()),
        false => Some(value),
    }
}

fn or_null(value: Option<String>) -> String {
    value.unwrap_or_else(|| "NULL".to_owned())
}

fn follow(shared: &Arc<Shared>, entry: &Entry, key: &str) -> Option<Notice> {
    preflight::look(shared);
    match entry {
        Entry::Main => reload::follow_key(shared, key),
        Entry::Database(_) | Entry::User(_) => None,
    }
}
