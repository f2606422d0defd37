//! Parameters by name: what a client requested in its startup message beyond the tracked ones.
//!
//! PostgreSQL reports hardly any of them, so a client keeps the values that it began with, and of a
//! server the pooler knows what it has set there itself. Names are kept in lower case, because
//! PostgreSQL compares them without case.

use std::sync::Arc;

use crate::handover::ParametersState;

/// Values by name, in the order of the names.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Parameters {
    entries: Vec<(Arc<str>, Option<Arc<str>>)>,
}

impl Parameters {
    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a parameter; `None` too where it is in doubt.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.position(name).ok()?;
        self.entries[at].1.as_deref()
    }

    /// Names and values, without those in doubt.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .filter_map(|(name, value)| Some((&**name, value.as_deref()?)))
    }

    /// Remembers a value.
    pub fn set(&mut self, name: &str, value: &str) {
        match self.position(name) {
            Ok(at) => self.entries[at].1 = Some(value.into()),
            Err(at) => {
                let entry = (name.to_ascii_lowercase().into(), Some(value.into()));
                self.entries.insert(at, entry);
            }
        }
    }

    /// Whether there is such a parameter, known or in doubt.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    /// Forgets a parameter.
    pub(crate) fn remove(&mut self, name: &str) {
        if let Ok(at) = self.position(name) {
            self.entries.remove(at);
        }
    }

    /// From here on this value may be another.
    pub(crate) fn doubt_one(&mut self, name: &str) {
        self.set(name, "");
        if let Ok(at) = self.position(name) {
            self.entries[at].1 = None;
        }
    }

    /// All names, also of values in doubt.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| &**name)
    }

    /// From here on the values may be others.
    pub(crate) fn doubt(&mut self) {
        for (_, value) in &mut self.entries {
            *value = None;
        }
    }

    /// The names that are here and not in `wanted`.
    pub(crate) fn beyond<'a>(&'a self, wanted: &'a Self) -> impl Iterator<Item = &'a str> {
        self.entries
            .iter()
            .map(|(name, _)| &**name)
            .filter(|name| !wanted.contains(name))
    }

    /// Names and values that are here and not, or otherwise, in `other`.
    pub(crate) fn differing<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.iter()
            .filter(|(name, value)| other.get(name) != Some(value))
    }

    /// What they are, for another process.
    pub(crate) fn state(&self) -> ParametersState {
        let entries = self.entries.iter();
        entries
            .map(|(name, value)| (name.to_string(), value.as_deref().map(str::to_owned)))
            .collect()
    }

    /// The parameters that were this.
    pub(crate) fn restore(state: &ParametersState) -> Self {
        let mut parameters = Self::default();
        for (name, value) in state {
            parameters.set(name, value.as_deref().unwrap_or_default());
            if value.is_none()
                && let Ok(at) = parameters.position(name)
            {
                parameters.entries[at].1 = None;
            }
        }
        parameters
    }

    /// Where a name stands, or would stand.
    fn position(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(known, _)| {
            let wanted = name.bytes().map(|byte| byte.to_ascii_lowercase());
            known.bytes().cmp(wanted)
        })
    }
}

/// Whether a client can have a parameter of this name for itself. Which of them exist, and who may
/// set them, is for PostgreSQL to say.
pub fn may_be_requested(name: &str) -> bool {
    let unsuitable = UNSUITABLE
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name));
    !unsuitable && name.split('.').all(is_identifier)
}

/// Names that a client cannot have for itself.
const UNSUITABLE: [&str; 7] = [
    // They say with whose rights the server works. Nothing reports a change of them, so a mistake
    // would give one client the rights of another.
    "role",
    "session_authorization",
    // A server has no client while it is idle in the pool, and must not end for that.
    "idle_session_timeout",
    // They belong to a transaction, or are spent when they are used, and cannot be reset.
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
    "seed",
];

/// What PostgreSQL takes for a part of a parameter's name.
fn is_identifier(part: &str) -> bool {
    let starts = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii();
    let mut bytes = part.bytes();
    bytes.next().is_some_and(starts)
        && bytes.all(|byte| starts(byte) || byte.is_ascii_digit() || byte == b'$')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::default();
        for (name, value) in pairs {
            parameters.set(name, value);
        }
        parameters
    }

    #[test]
    fn names_are_the_same_in_any_case() {
        let some = parameters(&[("Work_Mem", "1MB"), ("jit", "on"), ("WORK_MEM", "2MB")]);
        assert_eq!(some.get("work_mem"), Some("2MB"));
        assert_eq!(some, parameters(&[("JIT", "on"), ("work_mem", "2MB")]));
        assert_eq!(some.iter().count(), 2);
    }

    #[test]
    fn a_value_in_doubt_differs_from_every_other() {
        let wanted = parameters(&[("jit", "on")]);
        let mut server = wanted.clone();
        assert_eq!(wanted.differing(&server).count(), 0);
        server.doubt();
        assert_eq!(wanted.differing(&server).next(), Some(("jit", "on")));
        assert_eq!(server.beyond(&Parameters::default()).next(), Some("jit"));
    }

    #[test]
    fn names_that_postgresql_would_not_read_are_refused() {
        for name in ["search_path", "my_app.tenant", "_x$1", "a.b.c", "größe"] {
            assert!(may_be_requested(name), "{name}");
        }
        for name in [
            "", "a b", "1a", "a.", ".a", "a;b", "a'b", "a\"b", "a-b", "$a",
        ] {
            assert!(!may_be_requested(name), "{name:?}");
        }
    }

    #[test]
    fn rights_and_what_belongs_to_a_transaction_cannot_be_requested() {
        for name in [
            "Role",
            "session_authorization",
            "seed",
            "transaction_read_only",
        ] {
            assert!(!may_be_requested(name), "{name}");
        }
    }
}
