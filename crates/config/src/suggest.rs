//! What may help after a name that is not a key: the key it was meant to be, or where it belongs.

use crate::declare::{Place, Scope};
use crate::keys::{DatabaseOverrides, PeerOverrides, Settings, UserOverrides};

/// A hint for `name`, which is no key of the scope `S`.
pub(crate) fn suggestion_for_key<S: Scope>(name: &str) -> Option<String> {
    let own = || S::KEYS.iter().map(|key| key.name);
    if let Some(key) = own().find(|key| key.eq_ignore_ascii_case(name)) {
        return Some(format!("names are case-sensitive: write \"{key}\""));
    }
    if let Some(here) = name_here(name, S::PLACE) {
        return Some(format!(
            "in [{}] this key is called \"{here}\"",
            S::PLACE.section()
        ));
    }
    let places = places_of(name);
    if !places.is_empty() {
        let sections: Vec<String> = places
            .iter()
            .map(|place| format!("[{}]", place.section()))
            .collect();
        return Some(format!("this key belongs into {}", sections.join(" or ")));
    }
    nearest(name, own()).map(|key| format!("did you mean \"{key}\"?"))
}

/// The key's name in `place`, where it has another name elsewhere.
fn name_here(name: &str, place: Place) -> Option<&'static str> {
    let in_place = |elsewhere: &[(Place, &'static str)]| {
        elsewhere
            .iter()
            .find(|(there, _)| *there == place)
            .map(|(_, here)| *here)
    };
    match place {
        Place::Global => {
            let called =
                |key: &&crate::Key<Settings>| key.elsewhere.iter().any(|(_, n)| *n == name);
            Settings::KEYS.iter().find(called).map(|key| key.name)
        }
        Place::Database | Place::User | Place::Peer => {
            Settings::key(name).and_then(|key| in_place(key.elsewhere))
        }
    }
}

fn places_of(name: &str) -> Vec<Place> {
    let known = [
        (Place::Global, Settings::key(name).is_some()),
        (Place::Database, DatabaseOverrides::key(name).is_some()),
        (Place::User, UserOverrides::key(name).is_some()),
        (Place::Peer, PeerOverrides::key(name).is_some()),
    ];
    known
        .into_iter()
        .filter(|(_, known)| *known)
        .map(|(place, _)| place)
        .collect()
}

/// The candidate that differs in the fewest letters, if it differs in a third of them at most.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.len() / 3).max(1);
    // A name that is far too long is not a slip, and comparing it would cost its square.
    if name.len() > 64 {
        return None;
    }
    let distances = candidates.map(|candidate| (distance(name, candidate), candidate));
    let (distance, candidate) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= limit).then_some(candidate)
}

/// Letters to add, drop, replace or swap with their neighbour.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    // table[i][j] is the distance of the first i letters from the first j.
    let mut table = vec![vec![0; right.len() + 1]; left.len() + 1];
    for i in 0..=left.len() {
        for j in 0..=right.len() {
            table[i][j] = match (i, j) {
                (0, n) | (n, 0) => n,
                (i, j) => {
                    let replaced = table[i - 1][j - 1] + usize::from(left[i - 1] != right[j - 1]);
                    let changed = replaced.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                    let swapped = i > 1
                        && j > 1
                        && left[i - 1] == right[j - 2]
                        && left[i - 2] == right[j - 1];
                    if swapped {
                        changed.min(table[i - 2][j - 2] + 1)
                    } else {
                        changed
                    }
                }
            };
        }
    }
    table[left.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_names_find_their_key() {
        let hint = suggestion_for_key::<Settings>("max_clients_conn");
        assert_eq!(hint.as_deref(), Some("did you mean \"max_client_conn\"?"));
    }

    #[test]
    fn swapped_letters_are_one_slip() {
        assert_eq!(nearest("hots", ["port", "host"].into_iter()), Some("host"));
        assert_eq!(
            (
                distance("", "abc"),
                distance("abc", "abc"),
                distance("ab", "ba")
            ),
            (3, 0, 1)
        );
    }

    #[test]
    fn names_in_wrong_case_find_their_key() {
        let hint = suggestion_for_key::<Settings>("Auth_Type");
        assert_eq!(
            hint.as_deref(),
            Some("names are case-sensitive: write \"auth_type\"")
        );
    }

    #[test]
    fn keys_with_another_name_here_are_named() {
        let hint = suggestion_for_key::<Settings>("pool_size");
        assert_eq!(
            hint.as_deref(),
            Some("in [pgbouncer] this key is called \"default_pool_size\"")
        );
        let hint = suggestion_for_key::<DatabaseOverrides>("default_pool_size");
        assert_eq!(
            hint.as_deref(),
            Some("in [databases] this key is called \"pool_size\"")
        );
    }

    #[test]
    fn keys_of_other_scopes_are_sent_there() {
        let hint = suggestion_for_key::<DatabaseOverrides>("query_timeout");
        assert_eq!(
            hint.as_deref(),
            Some("this key belongs into [pgbouncer] or [users]")
        );
        let hint = suggestion_for_key::<Settings>("dbname");
        assert_eq!(hint.as_deref(), Some("this key belongs into [databases]"));
    }

    #[test]
    fn names_like_no_key_get_no_hint() {
        assert_eq!(suggestion_for_key::<UserOverrides>("zzzzzz"), None);
    }
}
