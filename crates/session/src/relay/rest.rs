//! The part of a frame that has not come yet, of which nothing but its length matters.

use pgweir_wire::{HEADER_LEN, Header};
use serde::{Deserialize, Serialize};

use crate::gather::Gather;

/// The rest of a frame whose head has been dealt with.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) enum Rest {
    Done,
    Pass(usize),
    Drop(usize),
}

impl Rest {
    #[inline]
    pub(super) fn is_done(self) -> bool {
        self == Self::Done
    }

    #[inline]
    pub(super) fn new(pass: bool, len: usize) -> Self {
        match (len, pass) {
            (0, _) => Self::Done,
            (_, true) => Self::Pass(len),
            (_, false) => Self::Drop(len),
        }
    }

    /// How many bytes are missing to the end of a frame, behind some that are unread.
    pub(super) fn missing(self, unread: &[u8]) -> usize {
        match self {
            Self::Pass(len) | Self::Drop(len) => len.saturating_sub(unread.len()),
            Self::Done if unread.is_empty() => 0,
            Self::Done => match Header::peek(unread, u32::MAX) {
                Ok(Some(header)) => header.frame_len().saturating_sub(unread.len()).max(1),
                Ok(None) => HEADER_LEN - unread.len(),
                // Whoever reads it will say what is wrong with it.
                Err(_) => 1,
            },
        }
    }

    /// Deals with as much of the rest as lies in `input` behind `at`; the new position.
    #[inline]
    pub(super) fn proceed(&mut self, input: &[u8], at: usize, gather: &mut Gather) -> usize {
        let there = input.len() - at;
        match *self {
            Self::Done => at,
            Self::Pass(len) => {
                let end = at + len.min(there);
                gather.pass(input, at..end);
                *self = Self::new(true, len.saturating_sub(there));
                end
            }
            Self::Drop(len) => {
                *self = Self::new(false, len.saturating_sub(there));
                at + len.min(there)
            }
        }
    }
}
