//! Leak suspects: suspected, confirmed, resolved.
//!
//! The shell looks at everybody a few times per second and says of each since when it does what nobody
//! should do for long: to hold a server in silence, to keep one busy for far longer than is normal, to
//! open connections that nobody uses. This decides what of it is news. `S` is who it is about, and `F` are
//! the facts of a suspect, which the shell collects once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Suspects that have ended and can still be looked at.
const RECENT_MAX: usize = 100;

/// A suspect that goes on for so many times its limit is confirmed.
const CONFIRMED_AFTER: u32 = 2;

/// Somebody as it looks now.
#[derive(Clone, Copy, Debug)]
pub struct Observed<S> {
    /// Who, or what is held.
    pub subject: S,
    /// Since when it has done what it should not; `None` if it does not.
    pub since: Option<Instant>,
    /// How long it may; `None` never suspects it.
    pub limit: Option<Duration>,
}

/// How far a suspicion has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// For longer than its limit.
    Suspected,
    /// For twice as long.
    Confirmed,
    /// It does so no more, or is gone.
    Resolved(End),
}

/// How a suspicion ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// It is there and does something else.
    WentOn,
    /// It is not there any more: the client does not hold the server, the connections are closed.
    GaveBack,
}

/// One suspicion.
#[derive(Clone, Debug)]
pub struct Suspect<S, F> {
    /// Its number, for the log and the console.
    pub id: u64,
    /// Who it is, or what is or was held.
    pub subject: S,
    /// Since when it has done what it is suspected for.
    pub since: Instant,
    /// How far it has come.
    pub stage: Stage,
    /// When it came so far.
    pub at: Instant,
    /// What the shell knows of it.
    pub facts: F,
}

/// All suspicions.
#[derive(Debug)]
pub struct Leaks<S, F> {
    open: HashMap<S, Suspect<S, F>>,
    recent: VecDeque<Suspect<S, F>>,
    last_id: u64,
}

impl<S, F> Default for Leaks<S, F> {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            recent: VecDeque::new(),
            last_id: 0,
        }
    }
}

impl<S: Clone + Eq + Hash, F: Clone> Leaks<S, F> {
    /// Looks at everybody there is now. `facts` is asked once per suspect; as long as it
    /// has none there is no suspicion yet. Returns what is news, in the state it has come to.
    pub fn look(
        &mut self,
        now: Instant,
        observed: &[Observed<S>],
        mut facts: impl FnMut(&Observed<S>) -> Option<F>,
    ) -> Vec<Suspect<S, F>> {
        let mut news = Vec::new();
        for seen in observed {
            match self.open.get_mut(&seen.subject) {
                Some(suspect) => {
                    let stage = next_stage(suspect, seen, now);
                    if stage != suspect.stage {
                        suspect.stage = stage;
                        suspect.at = now;
                        news.push(suspect.clone());
                    }
                }
                None => news.extend(self.suspect(seen, now, &mut facts)),
            }
        }
        let there: HashSet<&S> = observed.iter().map(|seen| &seen.subject).collect();
        let is_gone = |suspect: &&mut Suspect<S, F>| !there.contains(&suspect.subject);
        for suspect in self.open.values_mut().filter(is_gone) {
            suspect.stage = Stage::Resolved(End::GaveBack);
            suspect.at = now;
            news.push(suspect.clone());
        }
        let ended = |suspect: &Suspect<S, F>| matches!(suspect.stage, Stage::Resolved(_));
        self.open.retain(|_, suspect| !ended(suspect));
        self.recent
            .extend(news.iter().filter(|s| ended(s)).cloned());
        while self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
        news
    }

    fn suspect(
        &mut self,
        seen: &Observed<S>,
        now: Instant,
        facts: &mut impl FnMut(&Observed<S>) -> Option<F>,
    ) -> Option<Suspect<S, F>> {
        let since = seen.since?;
        if now.saturating_duration_since(since) < seen.limit? {
            return None;
        }
        let facts = facts(seen)?;
        self.last_id += 1;
        let suspect = Suspect {
            id: self.last_id,
            subject: seen.subject.clone(),
            since,
            stage: Stage::Suspected,
            at: now,
            facts,
        };
        self.open.insert(seen.subject.clone(), suspect.clone());
        Some(suspect)
    }

    /// Suspicions that are open, and those that have ended lately: the newest last.
    pub fn all(&self) -> Vec<&Suspect<S, F>> {
        let mut all: Vec<_> = self.recent.iter().chain(self.open.values()).collect();
        all.sort_by_key(|suspect| suspect.id);
        all
    }

    /// How many there have been.
    pub fn count(&self) -> u64 {
        self.last_id
    }

    /// How many are open.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }
}

fn next_stage<S, F>(suspect: &Suspect<S, F>, seen: &Observed<S>, now: Instant) -> Stage {
    let is_the_same = seen.since == Some(suspect.since);
    let passed = now.saturating_duration_since(suspect.since);
    match seen.limit {
        _ if !is_the_same => Stage::Resolved(End::WentOn),
        Some(limit) if passed >= limit * CONFIRMED_AFTER => Stage::Confirmed,
        Some(_) | None => suspect.stage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn silent(subject: u8, since: Instant) -> Observed<u8> {
        Observed {
            subject,
            since: Some(since),
            limit: Some(LIMIT),
        }
    }

    fn stages(news: &[Suspect<u8, &str>]) -> Vec<(u64, Stage)> {
        news.iter().map(|s| (s.id, s.stage)).collect()
    }

    #[test]
    fn a_silent_holder_is_suspected_once_then_confirmed_then_resolved() {
        let slot = 1;
        let (mut leaks, start) = (Leaks::default(), Instant::now());
        let holder = [silent(slot, start)];
        let mut look = |after, holders: &[Observed<u8>]| {
            let news = leaks.look(start + after, holders, |_| Some("facts"));
            stages(&news)
        };
        assert_eq!(look(LIMIT / 2, &holder), []);
        assert_eq!(look(LIMIT, &holder), [(1, Stage::Suspected)]);
        assert_eq!(look(LIMIT + LIMIT / 2, &holder), []);
        assert_eq!(look(2 * LIMIT, &holder), [(1, Stage::Confirmed)]);
        assert_eq!(look(3 * LIMIT, &holder), []);
        assert_eq!(look(4 * LIMIT, &[]), [(1, Stage::Resolved(End::GaveBack))]);
        assert_eq!(look(5 * LIMIT, &[]), []);
    }

    #[test]
    fn who_goes_on_is_not_suspected_any_more_but_may_be_again() {
        let slot = 1;
        let (mut leaks, start) = (Leaks::default(), Instant::now());
        leaks.look(start + LIMIT, &[silent(slot, start)], |_| Some("facts"));
        let again = start + LIMIT + Duration::from_secs(1);
        let news = leaks.look(again, &[silent(slot, again)], |_| Some("facts"));
        assert_eq!(stages(&news), [(1, Stage::Resolved(End::WentOn))]);
        let news = leaks.look(again + LIMIT, &[silent(slot, again)], |_| Some("facts"));
        assert_eq!(stages(&news), [(2, Stage::Suspected)]);
        assert_eq!((leaks.open_count(), leaks.all().len()), (1, 2));
    }

    #[test]
    fn nobody_is_suspected_who_works_or_is_exempt_or_of_whom_nothing_is_known() {
        let slot = 1;
        let (mut leaks, start) = (Leaks::default(), Instant::now());
        let works = Observed {
            since: None,
            ..silent(slot, start)
        };
        let exempt = Observed {
            limit: None,
            ..silent(slot, start)
        };
        for holder in [works, exempt] {
            assert!(
                leaks
                    .look(start + 9 * LIMIT, &[holder], |_| Some("facts"))
                    .is_empty()
            );
        }
        let unknown = leaks.look(start + 9 * LIMIT, &[silent(slot, start)], |_| None);
        assert!(unknown.is_empty());
    }

    #[test]
    fn what_is_over_is_kept_for_a_while() {
        let slot = 1;
        let (mut leaks, start) = (Leaks::default(), Instant::now());
        for round in 0..2 * RECENT_MAX as u32 {
            let since = start + 3 * round * LIMIT;
            leaks.look(since + LIMIT, &[silent(slot, since)], |_| Some("facts"));
            leaks.look(since + 2 * LIMIT, &[], |_| Some("facts"));
        }
        assert_eq!((leaks.open_count(), leaks.all().len()), (0, RECENT_MAX));
    }
}
