//! What a client keeps between leases; what it has set in a session, as requests of its own, and how it
//! loses them.

use crate::channels::Channels;
use crate::parameters::Parameters;
use crate::params::{RIGHTS, Values};
use crate::prepared::{ClientStatements, Unnamed};
use crate::residue::Kinds;

/// What a client keeps between leases.
#[derive(Debug, Default)]
pub struct ClientSide {
    /// Its names for prepared statements.
    pub statements: ClientStatements,
    /// Its statement without a name.
    pub unnamed: Unnamed,
    /// Its tracked parameters, and those that it requested.
    pub values: Values,
    /// What it requested in its startup message, if it requests something else by now.
    pub startup: Option<Box<Parameters>>,
    /// What it listens to, and its server does not: that is heard elsewhere and told by others.
    pub channels: Option<Box<Channels>>,
    /// Whether it has something that no text has named, so that a statement which leaves the same
    /// again would seem to leave nothing.
    pub masks: bool,
}

impl ClientSide {
    /// A server does not take over what the client has set in a session: it goes back to what its
    /// startup message requested. `false` if there is nothing to go back to, or rights are among it,
    /// with which nobody may go on unknowingly.
    pub fn go_back(&mut self) -> bool {
        let requested = self.values.requested();
        if RIGHTS.iter().any(|name| requested.contains(name)) {
            return false;
        }
        let Some(startup) = self.startup.take() else {
            return false;
        };
        self.values.set_requested(*startup);
        self.masks = false;
        true
    }

    /// Takes back what it has set of these kinds since its startup message.
    pub fn take_back(&mut self, kinds: Kinds) {
        let Some(startup) = &self.startup else {
            return;
        };
        let mut requested = self.values.requested().clone();
        let names = requested.names().chain(startup.names());
        let names: Vec<Box<str>> = names
            .filter(|name| kinds.has(kind_of(name)))
            .map(Box::from)
            .collect();
        for name in names {
            match startup.get(&name) {
                Some(value) => requested.set(&name, value),
                None => requested.remove(&name),
            }
        }
        self.values.set_requested(requested);
    }

    /// What it has set beyond this: the kinds, and the names.
    pub fn set_beyond<'a>(&'a self, before: &'a Parameters) -> (Kinds, Vec<&'a str>) {
        let requested = self.values.requested().iter();
        let is_new = |(name, value): &(&str, &str)| before.get(name) != Some(*value);
        let names: Vec<&str> = requested.filter(is_new).map(|(name, _)| name).collect();
        let kinds = names.iter().map(|name| kind_of(name));
        (kinds.fold(Kinds::NONE, Kinds::union), names)
    }
}

/// Which kind of state a parameter is.
pub(super) fn kind_of(parameter: &str) -> Kinds {
    match RIGHTS.contains(&parameter) {
        true => Kinds::ROLE,
        false => Kinds::SETTINGS,
    }
}
