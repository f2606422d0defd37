//! A queue that mostly holds one thing.
//!
//! Hot path. The first stands apart, so looking at it is one load, and a queue of one needs no memory of its own.

use std::collections::VecDeque;

/// First in, first out.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    first: Option<T>,
    /// Nothing without a first.
    later: VecDeque<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            first: None,
            later: VecDeque::new(),
        }
    }
}

impl<T> Queue<T> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    #[inline]
    pub(crate) fn front(&self) -> Option<&T> {
        self.first.as_ref()
    }

    pub(crate) fn back_mut(&mut self) -> Option<&mut T> {
        self.later.back_mut().or(self.first.as_mut())
    }

    #[inline]
    pub(crate) fn push_back(&mut self, value: T) {
        match self.first {
            None => self.first = Some(value),
            Some(_) => self.later.push_back(value),
        }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<T> {
        let first = self.first.take();
        self.first = self.later.pop_front();
        first
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.first.iter().chain(&self.later)
    }

    /// Drops what is not to be kept.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.first = self.first.take().filter(&mut keep);
        self.later.retain(keep);
        if self.first.is_none() {
            self.first = self.later.pop_front();
        }
    }
}

impl<T> From<Vec<T>> for Queue<T> {
    fn from(values: Vec<T>) -> Self {
        let mut later = VecDeque::from(values);
        Self {
            first: later.pop_front(),
            later,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(mut queue: Queue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop_front()).collect()
    }

    #[test]
    fn gives_back_in_order() {
        let mut queue = Queue::default();
        (1..=3).for_each(|value| queue.push_back(value));
        assert_eq!(queue.pop_front(), Some(1));
        queue.push_back(4);
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(queue.back_mut(), Some(&mut 4));
        assert_eq!(drained(queue), [2, 3, 4]);
    }

    #[test]
    fn keeps_what_is_to_be_kept() {
        for kept in 0..8_u32 {
            let mut queue = Queue::from(vec![0, 1, 2]);
            queue.retain(|value| kept & (1 << value) != 0);
            let expected: Vec<u32> = (0..3).filter(|value| kept & (1 << value) != 0).collect();
            assert_eq!(drained(queue), expected);
        }
    }

    #[test]
    fn the_last_is_the_first_of_one() {
        let mut queue = Queue::from(vec![7]);
        assert_eq!(queue.back_mut(), Some(&mut 7));
        assert_eq!(queue.pop_front(), Some(7));
        assert!(queue.is_empty() && queue.front().is_none() && queue.back_mut().is_none());
    }
}
