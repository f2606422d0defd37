//! Clients one behind the other.

use std::collections::VecDeque;

use crate::pool::{Ticket, Waiting};

/// Places that were left may stay in the line as long as no more of them are there than this, or
/// than clients.
const LEFT_MAX: usize = 32;

/// Those who wait for one thing, by their tickets. Hot path under load: mostly somebody comes last
/// and somebody goes first. Who leaves from the middle leaves an empty place.
#[derive(Debug)]
pub(crate) struct Line<W> {
    /// Tickets rise. The first place is not empty.
    places: VecDeque<(Ticket, Option<Waiting<W>>)>,
    len: usize,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self {
            places: VecDeque::new(),
            len: 0,
        }
    }
}

impl<W> Line<W> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a client at the end. Its ticket is newer than all others.
    pub(crate) fn push(&mut self, ticket: Ticket, waiting: Waiting<W>) {
        debug_assert!(
            self.places.back().is_none_or(|(last, _)| *last < ticket),
            "tickets are drawn in order"
        );
        self.places.push_back((ticket, Some(waiting)));
        self.len += 1;
    }

    /// Takes a client out, wherever it stands.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Waiting<W>> {
        let is_first = self
            .places
            .front()
            .is_some_and(|(first, _)| *first == ticket);
        let place = match is_first {
            true => 0,
            false => self
                .places
                .binary_search_by_key(&ticket, |(ticket, _)| *ticket)
                .ok()?,
        };
        let waiting = self.places[place].1.take()?;
        self.len -= 1;
        while let Some((_, None)) = self.places.front() {
            self.places.pop_front();
        }
        if self.places.len() - self.len > self.len + LEFT_MAX {
            self.places.retain(|(_, waiting)| waiting.is_some());
        }
        Some(waiting)
    }

    /// The client that has waited longest.
    pub(crate) fn first(&self) -> Option<(Ticket, &Waiting<W>)> {
        self.iter().next()
    }

    /// The client that has waited longest of those for whom `may_go` holds.
    #[inline]
    pub(crate) fn find(
        &self,
        may_go: impl Fn(&Waiting<W>) -> bool,
    ) -> Option<(Ticket, &Waiting<W>)> {
        self.iter().find(|(_, waiting)| may_go(waiting))
    }

    /// All of them, longest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ticket, &Waiting<W>)> {
        let places = self.places.iter();
        places.filter_map(|(ticket, waiting)| Some((*ticket, waiting.as_ref()?)))
    }

    /// The client that came last; nobody if that one has left again.
    pub(crate) fn last_mut(&mut self) -> Option<&mut Waiting<W>> {
        self.places.back_mut()?.1.as_mut()
    }

    /// All of them, longest first.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (Ticket, &mut Waiting<W>)> {
        let places = self.places.iter_mut();
        places.filter_map(|(ticket, waiting)| Some((*ticket, waiting.as_mut()?)))
    }

    /// All of them, longest first.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Waiting<W>> {
        self.iter().map(|(_, waiting)| waiting)
    }

    /// All of them, longest first.
    pub(crate) fn into_values(self) -> impl Iterator<Item = Waiting<W>> {
        self.places.into_iter().filter_map(|(_, waiting)| waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// It is an ordered map, and does not grow with those who have left.
        #[test]
        fn it_is_an_ordered_map(steps in prop::collection::vec((0..4_u8, 0..200_u64), 0..400)) {
            let (mut line, mut model) = (Line::default(), BTreeMap::new());
            let mut last = 0;
            for (step, number) in steps {
                match step {
                    0 | 1 => {
                        last += 1 + number % 2;
                        let waiting = Waiting::new(last, Instant::now(), None);
                        line.push(Ticket(last), waiting);
                        model.insert(last, last);
                    }
                    2 => {
                        let removed = line.remove(Ticket(number)).map(|waiting| waiting.waiter);
                        prop_assert_eq!(removed, model.remove(&number));
                    }
                    _ => {
                        let first = line.first().map(|(ticket, _)| ticket);
                        prop_assert_eq!(first, model.first_key_value().map(|(&first, _)| Ticket(first)));
                        if let Some(ticket) = first {
                            prop_assert_eq!(line.remove(ticket).map(|waiting| Some(waiting.waiter)), Some(model.remove(&ticket.0)));
                        }
                    }
                }
                prop_assert_eq!(line.len(), model.len());
                prop_assert!(line.places.len() <= 2 * line.len() + LEFT_MAX);
                prop_assert!(line.places.front().is_none_or(|(_, first)| first.is_some()));
                let all: Vec<_> = line.values().map(|waiting| waiting.waiter).collect();
                prop_assert_eq!(all, model.values().copied().collect::<Vec<_>>());
            }
        }
    }
}
