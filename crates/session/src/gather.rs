//! Collects what is to be written to one side.
//!
//! Hot path: as long as everything comes from one stretch of the input, nothing is copied and
//! [`Gather::bytes`] is a slice of the input. The first injected byte makes it a buffer.

use std::ops::Range;

use bytes::BytesMut;

/// Output that is either one stretch of the input or a buffer of its own.
#[derive(Debug, Default)]
pub struct Gather {
    stretch: Range<usize>,
    own: BytesMut,
}

impl Gather {
    /// Forgets everything, keeping the buffer's memory.
    pub fn clear(&mut self) {
        self.stretch = 0..0;
        self.own.clear();
    }

    /// Appends a stretch of the input as it is.
    #[inline]
    pub fn pass(&mut self, input: &[u8], range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        if self.own.is_empty() {
            if self.stretch.is_empty() {
                self.stretch = range;
                return;
            }
            if self.stretch.end == range.start {
                self.stretch.end = range.end;
                return;
            }
        }
        self.inject(input).extend_from_slice(&input[range]);
    }

    /// The buffer, to append bytes that do not stand in the input.
    pub fn inject(&mut self, input: &[u8]) -> &mut BytesMut {
        if !self.stretch.is_empty() {
            self.own
                .extend_from_slice(&input[std::mem::take(&mut self.stretch)]);
        }
        &mut self.own
    }

    /// Everything collected, in order.
    #[inline]
    pub fn bytes<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        if self.own.is_empty() {
            &input[self.stretch.clone()]
        } else {
            &self.own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_stretches_stay_a_slice_of_the_input() {
        let input = b"abcdef";
        let mut gather = Gather::default();
        gather.pass(input, 1..3);
        gather.pass(input, 3..5);
        assert_eq!(gather.bytes(input).as_ptr(), input[1..].as_ptr());
        assert_eq!(gather.bytes(input), b"bcde");
    }

    #[test]
    fn injected_bytes_keep_their_place() {
        let input = b"abcdef";
        let mut gather = Gather::default();
        gather.pass(input, 0..2);
        gather.inject(input).extend_from_slice(b"-x-");
        gather.pass(input, 2..3);
        gather.pass(input, 5..6);
        assert_eq!(gather.bytes(input), b"ab-x-cf");
    }

    #[test]
    fn a_gap_in_the_input_is_left_out() {
        let input = b"abcdef";
        let mut gather = Gather::default();
        gather.pass(input, 0..2);
        gather.pass(input, 4..6);
        assert_eq!(gather.bytes(input), b"abef");
    }
}
