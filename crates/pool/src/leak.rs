//! Servers that are held in silence: suspected, confirmed, resolved.
//!
//! The shell looks at all leases a few times per second and says of each since when its client has
//! been silent; this decides which of them are news. `F` are the facts of a suspect, which the
//! shell collects once.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::slot::SlotId;

/// Suspects that have ended and can still be looked at.
const RECENT_MAX: usize = 100;

/// A suspect that is still silent after so many times its limit is confirmed.
const CONFIRMED_AFTER: u32 = 2;

/// A lease as it looks now.
#[derive(Clone, Copy, Debug)]
pub struct Holder {
    /// What is held.
    pub slot: SlotId,
    /// Since when the client has been silent; `None` if it is not.
    pub silent_since: Option<Instant>,
    /// `leak_after`; `None` never suspects it.
    pub limit: Option<Duration>,
}

/// How far a suspicion has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// Silent for longer than its limit.
    Suspected,
    /// Silent for twice as long.
    Confirmed,
    /// It went on, or gave the server back, or is gone.
    Resolved(End),
}

/// How a suspicion ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The client has asked for something again.
    WentOn,
    /// The client does not hold the server any more.
    GaveBack,
}

/// One suspicion.
#[derive(Clone, Debug)]
pub struct Suspect<F> {
    /// Its number, for the log and the console.
    pub id: u64,
    /// What is, or was, held.
    pub slot: SlotId,
    /// Since when the client was silent.
    pub silent_since: Instant,
    /// How far it has come.
    pub stage: Stage,
    /// When it came so far.
    pub at: Instant,
    /// What the shell knows of it.
    pub facts: F,
}

/// All suspicions.
#[derive(Debug)]
pub struct Leaks<F> {
    open: HashMap<SlotId, Suspect<F>>,
    recent: VecDeque<Suspect<F>>,
    last_id: u64,
}

impl<F> Default for Leaks<F> {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
            recent: VecDeque::new(),
            last_id: 0,
        }
    }
}

impl<F: Clone> Leaks<F> {
    /// Looks at everybody who holds a server now. `facts` is asked once per suspect; as long as it
    /// has none there is no suspicion yet. Returns what is news, in the state it has come to.
    pub fn look(
        &mut self,
        now: Instant,
        holders: &[Holder],
        mut facts: impl FnMut(&Holder) -> Option<F>,
    ) -> Vec<Suspect<F>> {
        let mut news = Vec::new();
        for holder in holders {
            match self.open.get_mut(&holder.slot) {
                Some(suspect) => {
                    let stage = next_stage(suspect, holder, now);
                    if stage != suspect.stage {
                        suspect.stage = stage;
                        suspect.at = now;
                        news.push(suspect.clone());
                    }
                }
                None => news.extend(self.suspect(holder, now, &mut facts)),
            }
        }
        let held: HashSet<SlotId> = holders.iter().map(|holder| holder.slot).collect();
        for suspect in self.open.values_mut().filter(|s| !held.contains(&s.slot)) {
            suspect.stage = Stage::Resolved(End::GaveBack);
            suspect.at = now;
            news.push(suspect.clone());
        }
        let ended = |suspect: &Suspect<F>| matches!(suspect.stage, Stage::Resolved(_));
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
        holder: &Holder,
        now: Instant,
        facts: &mut impl FnMut(&Holder) -> Option<F>,
    ) -> Option<Suspect<F>> {
        let silent_since = holder.silent_since?;
        if now.saturating_duration_since(silent_since) < holder.limit? {
            return None;
        }
        let facts = facts(holder)?;
        self.last_id += 1;
        let suspect = Suspect {
            id: self.last_id,
            slot: holder.slot,
            silent_since,
            stage: Stage::Suspected,
            at: now,
            facts,
        };
        self.open.insert(holder.slot, suspect.clone());
        Some(suspect)
    }

    /// Suspicions that are open, and those that have ended lately: the newest last.
    pub fn all(&self) -> Vec<&Suspect<F>> {
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

fn next_stage<F>(suspect: &Suspect<F>, holder: &Holder, now: Instant) -> Stage {
    let is_same_silence = holder.silent_since == Some(suspect.silent_since);
    let silent = now.saturating_duration_since(suspect.silent_since);
    match holder.limit {
        _ if !is_same_silence => Stage::Resolved(End::WentOn),
        Some(limit) if silent >= limit * CONFIRMED_AFTER => Stage::Confirmed,
        Some(_) | None => suspect.stage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn slots() -> [SlotId; 2] {
        let mut slots = crate::slot::Slots::<(), ()>::default();
        let pool = crate::pools::PoolId {
            index: 0,
            serial: 0,
        };
        [(); 2].map(|()| slots.insert(pool, [].into(), None, Instant::now()))
    }

    fn silent(slot: SlotId, since: Instant) -> Holder {
        Holder {
            slot,
            silent_since: Some(since),
            limit: Some(LIMIT),
        }
    }

    fn stages(news: &[Suspect<&str>]) -> Vec<(u64, Stage)> {
        news.iter().map(|s| (s.id, s.stage)).collect()
    }

    #[test]
    fn a_silent_holder_is_suspected_once_then_confirmed_then_resolved() {
        let [slot, _] = slots();
        let (mut leaks, start) = (Leaks::default(), Instant::now());
        let holder = [silent(slot, start)];
        let mut look = |after, holders: &[Holder]| {
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
        let [slot, _] = slots();
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
        let [slot, _] = slots();
        let (mut leaks, start) = (Leaks::default(), Instant::now());
        let works = Holder {
            silent_since: None,
            ..silent(slot, start)
        };
        let exempt = Holder {
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
        let [slot, _] = slots();
        let (mut leaks, start) = (Leaks::default(), Instant::now());
        for round in 0..2 * RECENT_MAX as u32 {
            let since = start + 3 * round * LIMIT;
            leaks.look(since + LIMIT, &[silent(slot, since)], |_| Some("facts"));
            leaks.look(since + 2 * LIMIT, &[], |_| Some("facts"));
        }
        assert_eq!((leaks.open_count(), leaks.all().len()), (0, RECENT_MAX));
    }
}
