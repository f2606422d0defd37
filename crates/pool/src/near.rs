//! Which servers and clients a thread prefers: its own, within bounds.
//!
//! A server whose socket another thread watches, or a client whose task runs in another one, costs a wake-up across
//! threads. Clients overtake only those who have waited hardly longer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::line::Line;
use crate::pool::{Ticket, Waiting};

/// How many are looked at, from the one that is due.
const LOOKED_AT: usize = 16;

/// Clients that came so soon one after the other came at the same time. Programs answer many replies at once, so the clients of
/// a thread come in bunches: with less than this, one thread often sees only bunches of others where it looks.
const AT_ONCE: Duration = Duration::from_millis(5);

/// Whoever overtakes has waited all but this part of the time of those who are overtaken.
const PART: u32 = 8;

/// Who is near the calling thread; by default everybody.
#[derive(Debug)]
pub struct Near<S, W> {
    /// Whether a server is.
    pub server: fn(&S) -> bool,
    /// Whether a client that waits is.
    pub waiter: fn(&W) -> bool,
}

impl<S, W> Default for Near<S, W> {
    fn default() -> Self {
        Self {
            server: |_| true,
            waiter: |_| true,
        }
    }
}

/// Takes the last, or one of those before it that is near.
#[inline]
pub(crate) fn take_last<T>(idle: &mut VecDeque<T>, is_near: impl Fn(&T) -> bool) -> Option<T> {
    match idle.back() {
        Some(last) if is_near(last) => idle.pop_back(),
        _ => take_near(idle, is_near),
    }
}

#[cold]
fn take_near<T>(idle: &mut VecDeque<T>, is_near: impl Fn(&T) -> bool) -> Option<T> {
    let place = idle.iter().rev().take(LOOKED_AT).position(is_near);
    let place = idle.len().checked_sub(1 + place.unwrap_or(0))?;
    idle.remove(place)
}

/// The first of those who may go, or one that has waited about as long and is near.
#[inline]
pub(crate) fn choose<W>(
    line: &Line<W>,
    now: Instant,
    may_go: impl Fn(&Waiting<W>) -> bool,
    is_near: impl Fn(&W) -> bool,
) -> Option<Ticket> {
    let (first, waiting) = line.iter().find(|(_, waiting)| may_go(waiting))?;
    match is_near(&waiting.waiter) {
        true => Some(first),
        false => Some(choose_near(line, now, may_go, is_near).unwrap_or(first)),
    }
}

#[cold]
fn choose_near<W>(
    line: &Line<W>,
    now: Instant,
    may_go: impl Fn(&Waiting<W>) -> bool,
    is_near: impl Fn(&W) -> bool,
) -> Option<Ticket> {
    let mut due = line.iter().filter(|(_, waiting)| may_go(waiting));
    let (_, first) = due.next()?;
    let waited = now.saturating_duration_since(first.since);
    let until = first.since + AT_ONCE.max(waited / PART);
    let mut next = due
        .take(LOOKED_AT)
        .take_while(|(_, waiting)| waiting.since <= until);
    let near = next.find(|(_, waiting)| is_near(&waiting.waiter));
    near.map(|(ticket, _)| ticket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose turn it is, by number, of clients of which each came so many microseconds after the first, when that has waited
    /// for `waited`.
    /// `n` is near and may go, `f` is far and may go, `-` may not go.
    fn next(waited: u64, clients: &[(char, u64)]) -> Option<u64> {
        let waited = Duration::from_micros(waited);
        let begin = Instant::now();
        let mut line = Line::default();
        for (ticket, (kind, after)) in (0..).zip(clients) {
            let since = begin + Duration::from_micros(*after);
            line.push(Ticket(ticket), Waiting::new(*kind, since, None));
        }
        let chosen = choose(
            &line,
            begin + waited,
            |waiting| waiting.waiter != '-',
            |kind| *kind != 'f',
        );
        chosen.map(|Ticket(ticket)| ticket)
    }

    #[test]
    fn who_has_waited_about_as_long_may_overtake_whoever_is_far() {
        assert_eq!(next(0, &[]), None);
        assert_eq!(next(0, &[('-', 0)]), None);
        assert_eq!(next(0, &[('n', 0), ('n', 0)]), Some(0));
        assert_eq!(next(9000, &[('f', 0), ('f', 1), ('n', 5000)]), Some(2));
        assert_eq!(next(4, &[('-', 0), ('f', 1), ('-', 2), ('n', 3)]), Some(3));
        assert_eq!(next(80_000, &[('f', 0), ('n', 10_000)]), Some(1));
    }

    #[test]
    fn who_came_later_does_not_overtake_anybody() {
        assert_eq!(next(9000, &[('f', 0), ('n', 5001)]), Some(0));
        assert_eq!(next(9000, &[('-', 0), ('f', 1), ('n', 5002)]), Some(1));
        assert_eq!(next(80_000, &[('f', 0), ('n', 10_001)]), Some(0));
        let mut many = vec![('f', 0); 2 * LOOKED_AT];
        many.push(('n', 0));
        assert_eq!(next(0, &many), Some(0), "there is an end to looking");
    }

    #[test]
    fn the_server_used_last_is_taken_or_one_before_it_that_is_near() {
        let take = |idle: &str, near: char| {
            let mut idle: VecDeque<char> = idle.chars().collect();
            let taken = take_last(&mut idle, |server| *server == near);
            (taken, idle.into_iter().collect::<String>())
        };
        assert_eq!(take("", 'a'), (None, String::new()));
        assert_eq!(take("aab", 'b'), (Some('b'), "aa".to_owned()));
        assert_eq!(take("abb", 'a'), (Some('a'), "bb".to_owned()));
        assert_eq!(take("abc", 'd'), (Some('c'), "ab".to_owned()));
        let deep = format!("a{}", "b".repeat(LOOKED_AT));
        assert_eq!(take(&deep, 'a').0, Some('b'));
    }
}
