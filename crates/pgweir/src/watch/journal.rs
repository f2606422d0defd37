//! What the log has said lately, counted: for whoever looks into an incident without reading the log.
//!
//! Lines that differ only in their numbers are one event, minute by minute. The ring is bounded: the
//! oldest minute goes first.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::shared::lock;

/// Events that are kept.
const EVENTS_MAX: usize = 1_000;

/// Bytes of a text that are kept.
const TEXT_MAX: usize = 400;

/// How often something was said in one minute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Event {
    /// Seconds since 1970.
    pub(crate) first: u64,
    /// The same.
    pub(crate) last: u64,
    pub(crate) count: u64,
    /// The level in the log.
    pub(crate) level: &'static str,
    /// About whom, the last time.
    pub(crate) peer: String,
    /// The text of the last time.
    pub(crate) text: String,
}

/// What was said, by minute, level and the text without its numbers.
#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<BTreeMap<(u64, &'static str, String), Event>>);

impl Journal {
    /// A line of the log.
    pub(crate) fn note(&self, level: &'static str, peer: &str, text: &str, at: SystemTime) {
        if !is_of_interest(level, peer, text) {
            return;
        }
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut events = lock(&self.0);
        match events.entry((at / 60, level, without_numbers(text))) {
            Entry::Occupied(mut known) => {
                let event = known.get_mut();
                event.count += 1;
                event.last = at;
                event.peer.clear();
                event.peer.push_str(cut(peer));
                event.text.clear();
                event.text.push_str(cut(text));
            }
            Entry::Vacant(new) => {
                new.insert(Event {
                    first: at,
                    last: at,
                    count: 1,
                    level,
                    peer: cut(peer).to_owned(),
                    text: cut(text).to_owned(),
                });
                if events.len() > EVENTS_MAX {
                    events.pop_first();
                }
            }
        }
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> Vec<Event> {
        let events = lock(&self.0);
        let mut all: Vec<Event> = events.values().cloned().collect();
        all.sort_by_key(|event| event.first);
        all
    }
}

/// Everyday life is not: logins, clients that leave as they should, statistics.
fn is_of_interest(level: &str, peer: &str, text: &str) -> bool {
    match level {
        "FATAL" | "ERROR" | "WARNING" => true,
        "LOG" if peer.is_empty() => !text.starts_with("stats: "),
        "LOG" => {
            let end = text.strip_prefix("closing because: ");
            let usual = [
                "client close request",
                "server idle timeout",
                "server lifetime over",
            ];
            let is_end = end.is_some_and(|end| !usual.iter().any(|usual| end.starts_with(usual)));
            is_end || text.contains("command issued") || text.starts_with("DRAIN ")
        }
        _ => false,
    }
}

/// Every run of digits becomes one sign.
fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(TEXT_MAX));
    for c in cut(text).chars() {
        match c {
            '0'..='9' if out.ends_with('#') => {}
            '0'..='9' => out.push('#'),
            c => out.push(c),
        }
    }
    out
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn lines_that_differ_in_numbers_are_counted() {
        let journal = Journal::default();
        for (peer, text, second) in [
            ("a", "waited 5 s", 60),
            ("b", "waited 12 s", 70),
            ("c", "lost", 71),
            ("d", "waited 5 s", 130),
        ] {
            journal.note("WARNING", peer, text, at(second));
        }
        let told: Vec<_> = journal
            .all()
            .into_iter()
            .map(|e| (e.first, e.last, e.count, e.peer, e.text))
            .collect();
        let event = |first, last, count, peer: &str, text: &str| {
            (first, last, count, peer.to_owned(), text.to_owned())
        };
        assert_eq!(
            told,
            [
                event(60, 70, 2, "b", "waited 12 s"),
                event(71, 71, 1, "c", "lost"),
                event(130, 130, 1, "d", "waited 5 s"),
            ]
        );
    }

    #[test]
    fn the_oldest_go_first() {
        let journal = Journal::default();
        for minute in 0..2_000 {
            journal.note("ERROR", "", "x", at(minute * 60));
        }
        let all = journal.all();
        assert_eq!((all.len(), all[0].first), (EVENTS_MAX, 1_000 * 60));
    }

    #[test]
    fn everyday_life_is_left_out() {
        let journal = Journal::default();
        for (peer, text) in [
            ("", "stats: 0 xacts/s"),
            ("C-1", "login attempt: db=x"),
            ("C-1", "closing because: client close request (age=1s)"),
            ("S-1", "closing because: server lifetime over (age=1s)"),
        ] {
            journal.note("LOG", peer, text, at(1));
        }
        assert_eq!(journal.all(), []);
        journal.note(
            "LOG",
            "S-1",
            "closing because: server conn crashed? (age=1s)",
            at(1),
        );
        journal.note("LOG", "", "process up", at(1));
        assert_eq!(journal.all().len(), 2);
    }
}
