//! The threads that use the pools. A server whose socket another thread watches, or a client whose task runs in another one, costs
//! a wake-up across threads; so each thread prefers its own, within bounds.

use std::collections::VecDeque;

/// How many idle servers are looked at.
const LOOKED_AT: usize = 16;

/// Threads by their numbers; by default there is one.
#[derive(Debug)]
pub struct Threads<S> {
    /// The calling thread.
    pub here: fn() -> u16,
    /// Whether it is the calling thread that watches the server's socket.
    pub watches: fn(&S) -> bool,
}

impl<S> Default for Threads<S> {
    fn default() -> Self {
        Self {
            here: || 0,
            watches: |_| true,
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

#[cfg(test)]
mod tests {
    use super::*;

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
