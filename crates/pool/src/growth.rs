//! Populations of clients that only grow and never work: connections that an application opens and loses.
//!
//! A pool of an application that opens its connections at once, or uses an old one before it opens a new
//! one, does not look so. What tells a leak is that the connections which nobody uses become more again and
//! again, and never fewer.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Windows in which the unused ones have become more, before a population is conspicuous.
pub const STEPS: u32 = 5;

/// By how many they have become more.
const RISE_MIN: u32 = 10;

/// Windows without any more of them, after which the growth is over.
const STALE_AFTER: u32 = 30;

/// Populations that are followed, or a few more.
const POPULATIONS_MAX: usize = 4096;

/// One population, at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Population {
    /// Clients that have logged in.
    pub clients: u32,
    /// Of these, those that hold no server and have asked for nothing for a window or longer.
    pub unused: u32,
}

/// A population that only grows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Growing {
    /// Since when.
    pub since: Instant,
    /// How many were unused then.
    pub before: u32,
    /// As it is now.
    pub now: Population,
}

#[derive(Clone, Copy, Debug)]
struct Trend {
    /// Since when the unused have not become fewer, and how many they were.
    since: Instant,
    before: u32,
    /// When the present window began, and how many were unused.
    window: (Instant, u32),
    /// Windows at whose end there were more than at their beginning, and the end of the last one.
    steps: u32,
    stepped_at: Instant,
    unused: u32,
}

impl Trend {
    fn new(now: Instant, unused: u32) -> Self {
        Self {
            since: now,
            before: unused,
            window: (now, unused),
            steps: 0,
            stepped_at: now,
            unused,
        }
    }

    fn look(&mut self, now: Instant, window: Duration, unused: u32) {
        let passed = |since: Instant| now.saturating_duration_since(since);
        if unused < self.unused || passed(self.stepped_at) > window * STALE_AFTER {
            *self = Self::new(now, unused);
            return;
        }
        self.unused = unused;
        let (began, then) = self.window;
        if passed(began) < window {
            return;
        }
        self.window = (now, unused);
        if unused > then {
            if self.steps == 0 {
                (self.since, self.before) = (began, then);
            }
            self.steps += 1;
            self.stepped_at = now;
        }
    }

    fn growing(&self, now: Population) -> Option<Growing> {
        let is_conspicuous = self.steps >= STEPS
            && now.unused >= self.before + RISE_MIN
            && now.unused * 2 >= now.clients;
        is_conspicuous.then_some(Growing {
            since: self.since,
            before: self.before,
            now,
        })
    }
}

/// What is known of all of them.
#[derive(Debug)]
pub struct Growth<P> {
    trends: HashMap<P, Trend>,
}

impl<P> Default for Growth<P> {
    fn default() -> Self {
        Self {
            trends: HashMap::new(),
        }
    }
}

impl<P: Clone + Eq + Hash> Growth<P> {
    /// Everybody has been counted. Returns the populations that only grow.
    pub fn look(
        &mut self,
        now: Instant,
        window: Duration,
        populations: &HashMap<P, Population>,
    ) -> Vec<(P, Growing)> {
        self.trends.retain(|who, _| populations.contains_key(who));
        let mut growing = Vec::new();
        let has_room = self.trends.len() < POPULATIONS_MAX;
        for (who, population) in populations {
            match self.trends.get_mut(who) {
                Some(trend) => {
                    trend.look(now, window, population.unused);
                    let found = trend.growing(*population);
                    growing.extend(found.map(|found| (who.clone(), found)));
                }
                None if has_room => {
                    let trend = Trend::new(now, population.unused);
                    self.trends.insert(who.clone(), trend);
                }
                None => {}
            }
        }
        growing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    /// Looks ten times in each window, and how often something was conspicuous.
    fn conspicuous(unused_at: impl Fn(u32) -> u32, clients: u32, windows: u32) -> usize {
        let (mut growth, start) = (Growth::default(), Instant::now());
        let looks = (0..windows * 10).map(|look| {
            let unused = unused_at(look);
            let population = Population {
                clients: clients + unused,
                unused,
            };
            let now = start + WINDOW / 10 * look;
            growth
                .look(now, WINDOW, &[("web", population)].into())
                .len()
        });
        looks.sum()
    }

    #[test]
    fn connections_that_are_opened_and_lost_are_seen() {
        assert!(conspicuous(|look| look / 4, 3, 12) > 0);
        assert!(conspicuous(|look| look / 30, 0, 60) > 0, "slowly, too");
    }

    #[test]
    fn a_pool_is_not() {
        assert_eq!(conspicuous(|_| 80, 20, 60), 0, "opened at once");
        assert_eq!(
            conspicuous(|look| look.min(40), 0, 60),
            0,
            "within a few minutes"
        );
        let breathes = |look: u32| 10 + look / 10 - u32::from(look.is_multiple_of(70)) * 3;
        assert_eq!(conspicuous(breathes, 10, 60), 0, "old ones are used again");
        assert_eq!(
            conspicuous(|look| look / 10, 200, 60),
            0,
            "most are at work"
        );
    }

    #[test]
    fn what_grew_once_is_forgotten() {
        let grown = |look: u32| (look / 4).min(30);
        let (long, longer) = (conspicuous(grown, 0, 60), conspicuous(grown, 0, 200));
        assert!(long > 0);
        assert_eq!(long, longer, "it has stood still since");
    }
}
