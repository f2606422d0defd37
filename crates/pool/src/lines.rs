//! Clients who wait for one thing, a line for each thread that they come from.

use std::time::{Duration, Instant};

use crate::line::Line;
use crate::pool::{Ticket, Waiting};

/// Clients that came so soon one after the other came at the same time. Programs answer many replies at once, so the clients of
/// a thread come in bunches.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Whoever overtakes has waited all but this part of the time of those who are overtaken.
const PART: u32 = 8;

/// Those who wait for one thing. Tickets rise in all lines together.
#[derive(Debug)]
pub(crate) struct Lines<W> {
    by_thread: Vec<Line<W>>,
    /// The sum of theirs: it is asked whenever a server is given back.
    len: usize,
}

impl<W> Default for Lines<W> {
    fn default() -> Self {
        Self {
            by_thread: Vec::new(),
            len: 0,
        }
    }
}

impl<W> Lines<W> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a client at the end of its thread's line. Its ticket is newer than all others.
    pub(crate) fn push(&mut self, thread: u16, ticket: Ticket, waiting: Waiting<W>) {
        let thread = usize::from(thread);
        if self.by_thread.len() <= thread {
            self.by_thread.resize_with(thread + 1, Line::default);
        }
        self.by_thread[thread].push(ticket, waiting);
        self.len += 1;
    }

    /// The client that came last from a thread; nobody if that one has left again.
    pub(crate) fn last_mut(&mut self, thread: u16) -> Option<&mut Waiting<W>> {
        self.by_thread.get_mut(usize::from(thread))?.last_mut()
    }

    /// Takes a client out, wherever it stands.
    pub(crate) fn remove(&mut self, ticket: Ticket) -> Option<Waiting<W>> {
        let stands_first = |line: &Line<W>| line.first().is_some_and(|(first, _)| first == ticket);
        let lines = &mut self.by_thread;
        let waiting = match lines.iter().position(stands_first) {
            Some(thread) => lines[thread].remove(ticket),
            None => lines.iter_mut().find_map(|line| line.remove(ticket)),
        }?;
        self.len -= 1;
        Some(waiting)
    }

    /// The client that has waited longest.
    pub(crate) fn first(&self) -> Option<(Ticket, &Waiting<W>)> {
        let firsts = self.by_thread.iter().filter_map(Line::first);
        firsts.min_by_key(|(ticket, _)| *ticket)
    }

    /// The first of those who may go, or of those from this thread one that has waited about as long. Clients overtake only those
    /// who have waited hardly longer.
    #[inline]
    pub(crate) fn next(
        &self,
        thread: u16,
        now: Instant,
        may_go: impl Fn(&Waiting<W>) -> bool,
    ) -> Option<Ticket> {
        let thread = usize::from(thread);
        let own = self
            .by_thread
            .get(thread)
            .and_then(|line| line.find(&may_go));
        let others = self
            .by_thread
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != thread);
        let others = others.filter_map(|(_, line)| line.find(&may_go));
        let Some((other, longest)) = others.min_by_key(|(ticket, _)| *ticket) else {
            return own.map(|(ticket, _)| ticket);
        };
        let waited = now.saturating_duration_since(longest.since);
        let until = longest.since + AT_ONCE.max(waited / PART);
        match own {
            Some((own, waiting)) if waiting.since <= until => Some(own),
            _ => Some(other),
        }
    }

    /// All of them, those from one thread after those from the other.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Ticket, &Waiting<W>)> {
        self.by_thread.iter().flat_map(Line::iter)
    }

    /// The same.
    pub(crate) fn values(&self) -> impl Iterator<Item = &Waiting<W>> {
        self.by_thread.iter().flat_map(Line::values)
    }

    /// All of them, longest first.
    pub(crate) fn in_order_mut(&mut self) -> impl Iterator<Item = &mut Waiting<W>> {
        let mut all: Vec<_> = self.by_thread.iter_mut().flat_map(Line::iter_mut).collect();
        all.sort_by_key(|(ticket, _)| *ticket);
        all.into_iter().map(|(_, waiting)| waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Whose turn it is, by number, of clients of which each came so many microseconds after the first, when that has waited
    /// for `waited`.
    /// `n` is of the thread that asks and may go, `f` of another one and may go, `-` may not go.
    fn next(waited: u64, clients: &[(char, u64)]) -> Option<u64> {
        let waited = Duration::from_micros(waited);
        let begin = Instant::now();
        let mut lines = Lines::default();
        for (ticket, (kind, after)) in (0..).zip(clients) {
            let since = begin + Duration::from_micros(*after);
            let waiting = Waiting::new(*kind, since, None);
            let thread = if *kind == 'f' { 3 } else { 1 };
            lines.push(thread, Ticket(ticket), waiting);
        }
        let chosen = lines.next(1, begin + waited, |waiting| waiting.waiter != '-');
        chosen.map(|Ticket(ticket)| ticket)
    }

    #[test]
    fn who_has_waited_about_as_long_may_overtake_those_of_other_threads() {
        assert_eq!(next(0, &[]), None);
        assert_eq!(next(0, &[('-', 0)]), None);
        assert_eq!(next(0, &[('n', 0), ('n', 0)]), Some(0));
        assert_eq!(next(9000, &[('f', 0), ('f', 1), ('n', 5000)]), Some(2));
        assert_eq!(next(4, &[('-', 0), ('f', 1), ('-', 2), ('n', 3)]), Some(3));
        assert_eq!(next(80_000, &[('f', 0), ('n', 10_000)]), Some(1));
        let mut bunch = vec![('f', 0); 1000];
        bunch.push(('n', 0));
        assert_eq!(next(0, &bunch), Some(1000), "however many they are");
    }

    #[test]
    fn who_came_later_does_not_overtake_anybody() {
        assert_eq!(next(9000, &[('f', 0), ('n', 5001)]), Some(0));
        assert_eq!(next(9000, &[('-', 0), ('f', 1), ('n', 5002)]), Some(1));
        assert_eq!(next(80_000, &[('f', 0), ('n', 10_001)]), Some(0));
        assert_eq!(next(0, &[('f', 0), ('-', 0)]), Some(0));
    }

    proptest! {
        /// They are one ordered map, whatever thread clients come from.
        #[test]
        fn they_are_one_ordered_map(steps in prop::collection::vec((0..3_u8, 0..4_u16, 0..100_u64), 0..200)) {
            let (mut lines, mut model) = (Lines::default(), BTreeMap::new());
            let begin = Instant::now();
            for (ticket, (step, thread, number)) in (0..).zip(steps) {
                if step < 2 {
                    lines.push(thread, Ticket(ticket), Waiting::new(ticket, begin, None));
                    model.insert(ticket, ticket);
                } else {
                    let removed = lines.remove(Ticket(number)).map(|waiting| waiting.waiter);
                    prop_assert_eq!(removed, model.remove(&number));
                }
                prop_assert_eq!(lines.len(), model.len());
                prop_assert_eq!(lines.is_empty(), model.is_empty());
                let first = lines.first().map(|(Ticket(first), _)| first);
                prop_assert_eq!(first, model.keys().next().copied());
                let all: Vec<_> = lines.in_order_mut().map(|waiting| waiting.waiter).collect();
                prop_assert_eq!(all, model.values().copied().collect::<Vec<_>>());
                let unordered: Vec<_> = lines.iter().map(|(Ticket(ticket), _)| ticket).collect();
                prop_assert_eq!(unordered.len(), lines.values().count());
                prop_assert!(unordered.iter().all(|ticket| model.contains_key(ticket)));
                let next = lines.next(thread, begin, |_| true);
                prop_assert_eq!(next.is_some(), !model.is_empty());
            }
        }
    }
}
