//! Session parameters that stay with their client.
//!
//! PostgreSQL reports some parameters to the client whenever they change (ParameterStatus). For a
//! *tracked* parameter the pooler remembers each client's value and sets it on whatever server the
//! client gets. Values are shared, so that thousands of like clients hold one copy and comparing
//! them is mostly comparing a pointer.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::Arc;

/// The names of the parameters that are tracked, in the order in which PgBouncer reports them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tracked {
    names: Vec<Box<str>>,
}

impl Tracked {
    /// Those that every PgBouncer tracks.
    pub const ALWAYS: [&'static str; 5] = [
        "DateStyle",
        "client_encoding",
        "TimeZone",
        "standard_conforming_strings",
        "application_name",
    ];

    /// [`Self::ALWAYS`] and `extra` (PgBouncer's `track_extra_parameters`).
    pub fn new<'a>(extra: impl IntoIterator<Item = &'a str>) -> Self {
        let mut tracked = Self {
            names: Self::ALWAYS.into_iter().map(Box::from).collect(),
        };
        for name in extra {
            if tracked.index(name).is_none() {
                tracked.names.push(name.into());
            }
        }
        tracked
    }

    /// Where a parameter stands in [`Values`]. Names are compared without case, as PostgreSQL does.
    pub fn index(&self, name: &str) -> Option<usize> {
        self.names
            .iter()
            .position(|tracked| tracked.eq_ignore_ascii_case(name))
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }
}

/// One value per tracked parameter; `None` where none is known.
#[derive(Clone, Debug, Default)]
pub struct Values {
    shared: Arc<Vec<Option<Arc<str>>>>,
}

impl Values {
    /// The value at a [`Tracked::index`].
    pub fn get(&self, index: usize) -> Option<&Arc<str>> {
        self.shared.get(index).and_then(Option::as_ref)
    }

    /// Remembers a value.
    pub fn set(&mut self, index: usize, value: &str) {
        if self.get(index).is_some_and(|known| &**known == value) {
            return;
        }
        let values = Arc::make_mut(&mut self.shared);
        if values.len() <= index {
            values.resize(index + 1, None);
        }
        values[index] = Some(value.into());
    }

    /// Takes over the values of `other` where none is known.
    pub fn fill(&mut self, other: &Self) {
        if self.shared.is_empty() {
            self.shared = Arc::clone(&other.shared);
            return;
        }
        for (index, value) in other.shared.iter().enumerate() {
            if let (None, Some(value)) = (self.get(index), value) {
                self.set(index, value);
            }
        }
    }

    /// Whether both hold the same values (cheap when they are shared).
    #[inline]
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared) || self.equal(other)
    }

    #[cold]
    fn equal(&self, other: &Self) -> bool {
        self.shared == other.shared
    }

    /// Lets two that hold the same values share one copy: always the one that lies lower in memory, so
    /// that all clients and servers with the same values come to share a single one.
    #[inline]
    pub fn unite(&mut self, other: &mut Self) {
        debug_assert!(self.same(other));
        match Arc::as_ptr(&self.shared).cmp(&Arc::as_ptr(&other.shared)) {
            Ordering::Less => other.shared = Arc::clone(&self.shared),
            Ordering::Equal => {}
            Ordering::Greater => self.shared = Arc::clone(&other.shared),
        }
    }

    /// The SET commands that bring a server from `server` to these values; `None` if it is there.
    /// Values are compared without case, as PgBouncer does: parameters that differ in case only
    /// mean the same.
    pub fn settings_for(&self, server: &Self, tracked: &Tracked) -> Option<String> {
        let mut sql = String::new();
        for (index, name) in tracked.names().enumerate() {
            let Some(wanted) = self.get(index) else {
                continue;
            };
            let there = server.get(index);
            if there.is_some_and(|there| there.eq_ignore_ascii_case(wanted)) {
                continue;
            }
            // Writing into a String cannot fail.
            let _ = write!(sql, "SET {name}={};", literal(wanted));
        }
        (!sql.is_empty()).then_some(sql)
    }
}

/// A string literal that reads the same whatever standard_conforming_strings is.
pub fn literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 3);
    if text.contains('\\') {
        quoted.push('E');
    }
    quoted.push('\'');
    for character in text.chars() {
        if matches!(character, '\'' | '\\') {
            quoted.push(character);
        }
        quoted.push(character);
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tracked: &Tracked, pairs: &[(&str, &str)]) -> Values {
        let mut values = Values::default();
        for (name, value) in pairs {
            values.set(tracked.index(name).unwrap(), value);
        }
        values
    }

    #[test]
    fn only_what_differs_is_set() {
        let tracked = Tracked::new(["IntervalStyle"]);
        let server = values(
            &tracked,
            &[
                ("TimeZone", "UTC"),
                ("DateStyle", "ISO, MDY"),
                ("client_encoding", "UTF8"),
            ],
        );
        let client = values(
            &tracked,
            &[("timezone", "Europe/Paris"), ("client_encoding", "utf8")],
        );
        assert_eq!(
            client.settings_for(&server, &tracked).as_deref(),
            Some("SET TimeZone='Europe/Paris';")
        );
        assert_eq!(server.settings_for(&server, &tracked), None);
    }

    #[test]
    fn a_name_is_tracked_once() {
        let tracked = Tracked::new(["datestyle", "search_path", "SEARCH_PATH"]);
        assert_eq!(tracked.names().count(), 6);
    }

    #[test]
    fn a_literal_cannot_be_left() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
    }

    #[test]
    fn filling_keeps_what_is_known() {
        let tracked = Tracked::new([]);
        let mut client = values(&tracked, &[("TimeZone", "UTC")]);
        client.fill(&values(
            &tracked,
            &[("TimeZone", "GMT"), ("application_name", "x")],
        ));
        assert!(client.same(&values(
            &tracked,
            &[("TimeZone", "UTC"), ("application_name", "x")]
        )));
    }

    #[test]
    fn like_values_come_to_share_one_copy() {
        let tracked = Tracked::new([]);
        let mut all: Vec<Values> = (0..3)
            .map(|_| values(&tracked, &[("TimeZone", "UTC")]))
            .collect();
        // Whatever the order of meetings, two rounds are enough for three.
        for (left, right) in [(0, 1), (1, 2), (0, 1), (1, 2)] {
            let (head, tail) = all.split_at_mut(right);
            head[left].unite(&mut tail[0]);
        }
        let one = Arc::as_ptr(&all[0].shared);
        assert!(all.iter().all(|values| Arc::as_ptr(&values.shared) == one));
    }
}
