//! Session parameters that stay with their client.
//!
//! PostgreSQL reports some parameters to the client whenever they change (ParameterStatus). For a
//! *tracked* parameter the pooler remembers each client's value and sets it on whatever server the
//! client gets. What a client *requested* in its startup message beyond them is set there as well,
//! and taken back when the server serves somebody who did not request it. Values are shared, so that
//! thousands of like clients hold one copy and comparing them is mostly comparing a pointer.

mod fitting;
mod latest;

use std::cmp::Ordering;
use std::sync::Arc;

pub use fitting::Fitting;
pub use latest::Latest;

use crate::handover::ParametersState;
use crate::parameters::Parameters;

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

    /// How many there mostly are.
    const MOSTLY: usize = 8;

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

/// One value per tracked parameter, `None` where none is known; and what was requested.
#[derive(Clone, Debug, Default)]
pub struct Values {
    shared: Arc<Shared>,
}

#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Shared {
    tracked: Vec<Option<Arc<str>>>,
    requested: Parameters,
}

impl Values {
    /// The value at a [`Tracked::index`].
    pub fn get(&self, index: usize) -> Option<&Arc<str>> {
        self.shared.tracked.get(index).and_then(Option::as_ref)
    }

    /// Of a server: whether it says itself when this parameter changes.
    pub(crate) fn report(&self, name: &str, tracked: &Tracked) -> bool {
        let index = tracked.index(name);
        index.is_some_and(|index| self.get(index).is_some())
    }

    /// Remembers a value.
    pub fn set(&mut self, index: usize, value: &str) {
        if self.get(index).is_some_and(|known| &**known == value) {
            return;
        }
        let values = &mut Arc::make_mut(&mut self.shared).tracked;
        if values.len() <= index {
            // With room for what `fill` adds.
            values.reserve(Tracked::MOSTLY);
            values.resize(index + 1, None);
        }
        values[index] = Some(value.into());
    }

    /// A client's requests; of a server, what is in force there because of them.
    #[inline]
    pub fn requested(&self) -> &Parameters {
        &self.shared.requested
    }

    /// Adds a request, for a name that [may be requested](crate::parameters::may_be_requested).
    pub fn request(&mut self, name: &str, value: &str) {
        let requested = &mut Arc::make_mut(&mut self.shared).requested;
        requested.set(name, value);
    }

    /// Other requests are in force from here on.
    pub(crate) fn set_requested(&mut self, requested: Parameters) {
        if *self.requested() != requested {
            Arc::make_mut(&mut self.shared).requested = requested;
        }
    }

    /// Takes over the requests that another process has told.
    pub(crate) fn restore_requested(&mut self, state: &ParametersState) {
        if !state.is_empty() {
            Arc::make_mut(&mut self.shared).requested = Parameters::restore(state);
        }
    }

    /// Tracked values that servers do not report (`reported` is what they do) become requests: a
    /// change of them is never heard of.
    pub fn request_unreported(&mut self, reported: &Self, tracked: &Tracked) {
        for (index, name) in tracked.names().enumerate() {
            if reported.get(index).is_none()
                && let Some(value) = self.get(index).map(Arc::clone)
            {
                self.request(name, &value);
                Arc::make_mut(&mut self.shared).tracked[index] = None;
            }
        }
    }

    /// What was requested has another value from here on.
    pub(crate) fn replace_requested(&mut self, name: &str, value: &str) {
        if self.requested().contains(name) && self.requested().get(name) != Some(value) {
            self.request(name, value);
        }
    }

    /// Nobody knows any more which values are in force for what was requested.
    pub(crate) fn doubt_requested(&mut self) {
        if !self.requested().is_empty() {
            Arc::make_mut(&mut self.shared).requested.doubt();
        }
    }

    /// The requests of `other` are in force.
    pub(crate) fn adopt_requested(&mut self, other: &Self) {
        if self.requested() != other.requested() {
            Arc::make_mut(&mut self.shared).requested = other.requested().clone();
        }
    }

    /// Takes over the tracked values of `other` where none is known.
    pub fn fill(&mut self, other: &Self) {
        if self.shared.tracked.is_empty() && self.requested() == other.requested() {
            self.shared = Arc::clone(&other.shared);
            return;
        }
        let others = &other.shared.tracked;
        let tracked = &mut Arc::make_mut(&mut self.shared).tracked;
        tracked.resize(tracked.len().max(others.len()), None);
        for (value, other) in tracked.iter_mut().zip(others) {
            if value.is_none() {
                value.clone_from(other);
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
}

/// With whose rights a session works. They are no [requests](crate::parameters::may_be_requested) of
/// a startup message; a client may have set them.
pub(crate) const RIGHTS: [&str; 2] = ["session_authorization", "role"];

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

    pub(super) fn values(tracked: &Tracked, pairs: &[(&str, &str)]) -> Values {
        let mut values = Values::default();
        for (name, value) in pairs {
            values.set(tracked.index(name).unwrap(), value);
        }
        values
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
    fn filling_keeps_requests() {
        let tracked = Tracked::new([]);
        let mut client = Values::default();
        client.request("jit", "off");
        client.fill(&values(&tracked, &[("TimeZone", "UTC")]));
        assert_eq!(client.requested().get("jit"), Some("off"));
        assert_eq!(client.get(2).map(|value| &**value), Some("UTC"));
    }

    #[test]
    fn what_servers_do_not_report_is_a_request() {
        let tracked = Tracked::new(["search_path"]);
        let mut client = values(&tracked, &[("TimeZone", "UTC"), ("search_path", "a")]);
        client.request_unreported(&values(&tracked, &[("TimeZone", "GMT")]), &tracked);
        assert_eq!(client.requested().get("search_path"), Some("a"));
        assert_eq!(client.get(tracked.index("search_path").unwrap()), None);
        assert_eq!(client.get(2).map(|value| &**value), Some("UTC"));
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
