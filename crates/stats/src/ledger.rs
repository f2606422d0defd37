//! Counts by names that others choose: how many names there are has a limit.

use std::collections::BTreeMap;

/// Names that a ledger has at most; what comes later is counted together.
const NAMES_MAX: usize = 1_000;

/// Counts by names.
#[derive(Clone, Debug)]
pub struct Ledger<K> {
    counts: BTreeMap<K, u64>,
}

impl<K> Default for Ledger<K> {
    fn default() -> Self {
        let counts = BTreeMap::new();
        Self { counts }
    }
}

impl<K: Ord> Ledger<K> {
    /// Counts one; where there is no room for another name, under `other`.
    pub fn count(&mut self, name: K, other: impl FnOnce() -> K) {
        self.count_within(NAMES_MAX, name, other);
    }

    /// The same with room for fewer names.
    pub fn count_within(&mut self, most: usize, name: K, other: impl FnOnce() -> K) {
        self.add_within(most, name, 1, other);
    }

    /// Adds more than one.
    pub fn add_within(&mut self, most: usize, name: K, amount: u64, other: impl FnOnce() -> K) {
        let has_room = self.counts.len() < most || self.counts.contains_key(&name);
        let name = if has_room { name } else { other() };
        *self.counts.entry(name).or_default() += amount;
    }

    /// All counts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&K, u64)> {
        self.counts.iter().map(|(name, &count)| (name, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_limit_are_counted_together() {
        let mut ledger = Ledger::default();
        for name in 1..=2 * NAMES_MAX {
            ledger.count(name, || 0);
            ledger.count(1, || 0);
        }
        let counts: Vec<_> = ledger.iter().collect();
        assert_eq!(counts.len(), NAMES_MAX + 1);
        assert_eq!(counts[0], (&0, NAMES_MAX as u64));
        assert_eq!(counts[1], (&1, 2 * NAMES_MAX as u64 + 1));
    }
}
