//! In which order the peers take their turns.
//!
//! What one of them leaves behind (a busy machine, a processor that is throttled after seconds of hashing) falls to
//! who comes next. With an order that is only turned around, that is always the same one. The orders here are those
//! of E. J. Williams' designs: over as many rounds as there are peers each comes at each place, and follows each
//! other one once, or if their number is odd, twice in twice as many.

/// The order of one round.
pub(crate) fn turns<T: Copy>(peers: &[T], round: usize) -> Vec<T> {
    let count = peers.len();
    let mut order: Vec<T> = (0..count)
        .map(|place| match place % 2 {
            0 => place / 2,
            _ => count - place.div_ceil(2),
        })
        .map(|from| peers[(from + round) % count])
        .collect();
    if count % 2 == 1 && round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn everybody_follows_everybody_equally_often() {
        for count in 2..=9_usize {
            let peers: Vec<usize> = (0..count).collect();
            let (rounds, each) = match count % 2 {
                0 => (count, 1),
                _ => (2 * count, 2),
            };
            let mut follows = BTreeMap::<(usize, usize), usize>::new();
            for round in 0..rounds {
                let order = turns(&peers, round);
                for pair in order.windows(2) {
                    *follows.entry((pair[0], pair[1])).or_default() += 1;
                }
            }
            assert_eq!(follows.len(), count * (count - 1), "{count} peers");
            assert!(
                follows.values().all(|&times| times == each),
                "{count} peers: {follows:?}"
            );
        }
    }

    #[test]
    fn three_rounds_are_enough_for_other_neighbours() {
        for count in 4..=9_usize {
            let peers: Vec<usize> = (0..count).collect();
            let before = |round| {
                let order = turns(&peers, round);
                let place = order.iter().position(|&peer| peer == 0);
                place
                    .and_then(|place| place.checked_sub(1))
                    .map(|place| order[place])
            };
            let [a, b, c] = [before(0), before(1), before(2)];
            assert!(
                a != b && b != c && a != c,
                "{count} peers: {a:?} {b:?} {c:?}"
            );
        }
        assert!(turns::<u8>(&[], 3).is_empty());
    }
}
