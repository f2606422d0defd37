//! Statements that took long, counted by their text: as many as fit, those that cost most.

use std::collections::HashMap;
use std::sync::Arc;

/// Texts that are kept.
const KEPT_MAX: usize = 200;

/// Which statement, where.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlowName {
    /// The database, as clients name it.
    pub database: Arc<str>,
    /// The user of its server.
    pub user: Arc<str>,
    /// The statement without its literals.
    pub statement: String,
}

/// How a statement did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// How often it took long.
    pub count: u64,
    /// The sum of its times, in microseconds.
    pub total_us: u64,
    /// The longest of them.
    pub max_us: u64,
    /// Who asked for it the last time.
    pub application: Arc<str>,
}

/// All that are kept.
#[derive(Clone, Debug, Default)]
pub struct SlowStatements {
    known: HashMap<SlowName, Slow>,
}

impl SlowStatements {
    /// Counts one that took so long. Where there is no room for another text, the one that has cost
    /// least is forgotten.
    pub fn note(&mut self, name: SlowName, took_us: u64, application: &Arc<str>) {
        if let Some(slow) = self.known.get_mut(&name) {
            slow.count += 1;
            slow.total_us = slow.total_us.saturating_add(took_us);
            slow.max_us = slow.max_us.max(took_us);
            slow.application = Arc::clone(application);
            return;
        }
        if self.known.len() >= KEPT_MAX {
            let cheapest = self.known.iter().min_by_key(|(_, slow)| slow.total_us);
            let cheapest = cheapest.map(|(name, slow)| (name.clone(), slow.total_us));
            match cheapest {
                Some((name, total)) if total <= took_us => self.known.remove(&name),
                Some(_) | None => return,
            };
        }
        let slow = Slow {
            count: 1,
            total_us: took_us,
            max_us: took_us,
            application: Arc::clone(application),
        };
        self.known.insert(name, slow);
    }

    /// Those that are kept, what cost most first.
    pub fn all(&self) -> Vec<(SlowName, Slow)> {
        let mut all: Vec<_> = self.known.clone().into_iter().collect();
        all.sort_by(|(a, x), (b, y)| y.total_us.cmp(&x.total_us).then_with(|| a.cmp(b)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(statement: &str) -> SlowName {
        SlowName {
            database: "shop".into(),
            user: "bob".into(),
            statement: statement.to_owned(),
        }
    }

    #[test]
    fn the_same_text_is_counted_together() {
        let mut slow = SlowStatements::default();
        slow.note(name("a"), 10, &"web".into());
        slow.note(name("b"), 15, &"web".into());
        slow.note(name("a"), 20, &"cron".into());
        let all = slow.all();
        assert_eq!(all.len(), 2);
        let expected = Slow {
            count: 2,
            total_us: 30,
            max_us: 20,
            application: "cron".into(),
        };
        assert_eq!(all[0], (name("a"), expected));
    }

    #[test]
    fn what_costs_least_makes_room() {
        let mut slow = SlowStatements::default();
        for cost in 0..1_000 {
            slow.note(name(&format!("s{cost}")), cost, &"web".into());
        }
        slow.note(name("cheap"), 1, &"web".into());
        let all = slow.all();
        assert_eq!(all.len(), KEPT_MAX);
        assert_eq!(all[0].1.total_us, 999);
        assert_eq!(all[KEPT_MAX - 1].1.total_us, 800);
    }
}
