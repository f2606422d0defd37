//! What is kept by names that clients choose: so many names have something of their own, and the rest shares one.
//!
//! Who is first has a name, and keeps it while it is seen: choosing the largest at each look would make counts fall. A
//! name that was not seen for an hour makes room for a new one, so that names that come and go do not take
//! all the room for ever, and there are only so many new ones in a day.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the rest is called.
pub const OTHER: &str = "other";

/// Names that have something of their own.
const NAMES_MAX: usize = 100;

/// After so long without being seen a name makes room for another.
const GONE_AFTER: Duration = Duration::from_secs(3600);

/// Something for each name.
#[derive(Debug)]
pub struct Roster<T> {
    known: BTreeMap<Arc<str>, Seat<T>>,
    other: Arc<T>,
    /// Until then nobody makes room.
    full_until: Option<Instant>,
}

#[derive(Debug)]
struct Seat<T> {
    of: Arc<T>,
    seen: Instant,
}

impl<T: Default> Default for Roster<T> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            other: Arc::default(),
            full_until: None,
        }
    }
}

impl<T: Default> Roster<T> {
    /// What the rest shares.
    pub fn other(&self) -> Arc<T> {
        Arc::clone(&self.other)
    }

    /// What belongs to the name, which is seen at `now`.
    pub fn of(&mut self, name: &Arc<str>, now: Instant) -> Arc<T> {
        if let Some(seat) = self.known.get_mut(name) {
            seat.seen = now;
            return Arc::clone(&seat.of);
        }
        if &**name == OTHER || !self.has_room(now) {
            return Arc::clone(&self.other);
        }
        let of = Arc::default();
        let seat = Seat {
            of: Arc::clone(&of),
            seen: now,
        };
        self.known.insert(Arc::clone(name), seat);
        of
    }

    /// Whether there is room for another name, perhaps that of one which is gone.
    fn has_room(&mut self, now: Instant) -> bool {
        if self.known.len() < NAMES_MAX {
            return true;
        }
        if self.full_until.is_some_and(|until| now < until) {
            return false;
        }
        let oldest = self.known.iter().min_by_key(|(_, seat)| seat.seen);
        let oldest = oldest.map(|(name, seat)| (Arc::clone(name), seat.seen + GONE_AFTER));
        match oldest {
            Some((name, gone_at)) if gone_at <= now => {
                self.known.remove(&name);
                true
            }
            Some((_, gone_at)) => {
                self.full_until = Some(gone_at);
                false
            }
            None => true,
        }
    }

    /// All names in their order, and the rest.
    pub fn all(&self) -> Vec<(Arc<str>, Arc<T>)> {
        let known = self.known.iter();
        let known = known.map(|(name, seat)| (Arc::clone(name), Arc::clone(&seat.of)));
        let other = (OTHER.into(), Arc::clone(&self.other));
        known.chain([other]).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    fn count(roster: &mut Roster<AtomicU64>, name: &str, now: Instant) {
        roster.of(&name.into(), now).fetch_add(1, Relaxed);
    }

    fn counted(roster: &Roster<AtomicU64>, name: &str) -> Option<u64> {
        let all = roster.all().into_iter();
        let mut named = all.filter(|(known, _)| &**known == name);
        let found = named.next().map(|(_, count)| count.load(Relaxed));
        assert!(named.next().is_none(), "{name} comes once");
        found
    }

    #[test]
    fn whoever_comes_too_late_is_counted_with_the_others() {
        let (mut roster, now) = (Roster::default(), Instant::now());
        for number in 0..3 * NAMES_MAX {
            count(&mut roster, &format!("app{number}"), now);
            count(&mut roster, "app1", now);
            count(&mut roster, OTHER, now);
        }
        assert_eq!(roster.all().len(), NAMES_MAX + 1);
        assert_eq!(counted(&roster, "app1"), Some(3 * NAMES_MAX as u64 + 1));
        assert_eq!(counted(&roster, "app100"), None);
        assert_eq!(counted(&roster, OTHER), Some(5 * NAMES_MAX as u64));
    }

    #[test]
    fn who_is_not_seen_for_an_hour_makes_room_for_one() {
        let (mut roster, start) = (Roster::default(), Instant::now());
        for number in 0..NAMES_MAX {
            count(&mut roster, &format!("app{number}"), start);
        }
        count(&mut roster, "late", start);
        let later = start + GONE_AFTER / 2;
        for number in (0..NAMES_MAX).filter(|number| *number != 7) {
            count(&mut roster, &format!("app{number}"), later);
        }
        count(&mut roster, "late", later);
        assert_eq!(counted(&roster, "late"), None);
        let hour = start + GONE_AFTER;
        count(&mut roster, "late", hour);
        count(&mut roster, "later", hour);
        assert_eq!(counted(&roster, "app7"), None);
        assert_eq!(counted(&roster, "late"), Some(1));
        let is_other = |roster: &mut Roster<_>, name: &str| {
            Arc::ptr_eq(&roster.of(&name.into(), hour), &roster.other())
        };
        assert!(!is_other(&mut roster, "late"));
        assert!(is_other(&mut roster, "even later"));
        assert_eq!(counted(&roster, "later"), None);
        assert_eq!(counted(&roster, OTHER), Some(3));
        assert_eq!(roster.all().len(), NAMES_MAX + 1);
    }
}
